"""Compares `modelyard drift compare` with Evidently: time, peak memory and numbers, on the same two files.

    python bench/drift.py --binary target/release/modelyard [--python PYTHON] [--rows 1000000] [--columns 30]

PYTHON has evidently 0.7 with pandas < 3. Both run in turn, as processes of their own, from file to result: Evidently's reads
the files with pandas and runs one report for each of its tests (KS, PSI, normed Wasserstein, Jensen-Shannon) over all
columns; Modelyard always computes all of its statistics. Peak memory is the process's largest resident set.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

TESTS = {"ks": "kolmogorov_smirnov_p", "psi": "psi", "wasserstein": "wasserstein_normed",
         "jensenshannon": "jensen_shannon"}

EVIDENTLY = """
import json, sys, warnings
warnings.simplefilter("ignore")
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset
before, after = (pd.read_parquet(path) for path in sys.argv[1:3])
definition = DataDefinition(numerical_columns=list(before.columns))
before, after = (Dataset.from_pandas(table, data_definition=definition) for table in (before, after))
found = {}
for test in sys.argv[4].split(","):
    preset = DataDriftPreset(num_method=test, cat_method=test, include_tests=False)
    snapshot = Report([preset]).run(after, before)
    for metric in snapshot.dict()["metrics"]:
        config = metric.get("config", {})
        if "column" in config:
            found.setdefault(config["column"], {})[test] = float(metric["value"])
json.dump(found, open(sys.argv[3], "w"))
"""


def tables(folder, rows, columns, python):
    make = f"""
import numpy as np, pandas as pd
random = np.random.default_rng(0)
for side, name in enumerate(("before", "after")):
    table = {{}}
    for i in range({columns}):
        kind, moved = i % 5, side * (i % 7 == 0)
        if kind == 0: x = random.normal(0.5 * moved, 1, {rows})
        elif kind == 1: x = random.lognormal(0, 1 + 0.2 * moved, {rows})
        elif kind == 2: x = random.integers(0, 100 + 10 * moved, {rows})
        elif kind == 3: x = random.gamma(2 + moved, 3, {rows})
        else: x = np.where(random.random({rows}) < 0.05, np.nan, random.uniform(moved, 1 + moved, {rows}))
        table[f"f{{i}}"] = x
    pd.DataFrame(table).to_parquet("{folder}/" + name + ".parquet")
"""
    subprocess.run([python, "-c", make], check=True)


def measured(command, **kwargs):
    """Seconds, and the largest resident set in MiB."""
    start = time.monotonic()
    process = subprocess.Popen(command, **kwargs)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"{command[0]} failed")
    return time.monotonic() - start, usage.ru_maxrss / 1024


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--binary", default="target/release/modelyard")
    arguments.add_argument("--python", default=sys.executable)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--columns", type=int, default=30)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--tests", default=",".join(TESTS), help="Evidently's tests")
    arguments = arguments.parse_args()
    tests = arguments.tests.split(",")
    with tempfile.TemporaryDirectory() as folder:
        tables(folder, arguments.rows, arguments.columns, arguments.python)
        paths = [f"{folder}/before.parquet", f"{folder}/after.parquet"]
        ours, theirs = [], []
        for round in range(arguments.rounds):
            with open(f"{folder}/ours.json", "w") as out:
                ours.append(measured([arguments.binary, "drift", "compare", *paths, "--json"], stdout=out))
            # One round of Evidently in between is enough where it takes minutes.
            if round == 0 or theirs[0][0] < 60:
                command = [arguments.python, "-c", EVIDENTLY, *paths, f"{folder}/theirs.json", arguments.tests]
                theirs.append(measured(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        report = json.loads(pathlib.Path(f"{folder}/ours.json").read_text())
        columns = {column["column"]: column["statistics"] for column in report["columns"]}
        found = json.loads(pathlib.Path(f"{folder}/theirs.json").read_text())
    assert len(columns) == len(found) == arguments.columns, (len(columns), len(found))
    worst = {test: max(abs(columns[name][TESTS[test]] - values[test]) for name, values in found.items())
             for test in tests}
    median = lambda runs, i: statistics.median(run[i] for run in runs)
    result = {
        "rows": arguments.rows, "columns": arguments.columns, "tests": tests,
        "modelyard": {"seconds": round_(median(ours, 0)), "peak_mib": round_(median(ours, 1))},
        "evidently": {"seconds": round_(median(theirs, 0)), "peak_mib": round_(median(theirs, 1))},
        "times_faster": round_(median(theirs, 0) / median(ours, 0)),
        "part_of_memory": round_(median(ours, 1) / median(theirs, 1)),
        "largest_difference": worst,
    }
    print(json.dumps(result, indent=2))
    if max(worst.values()) > 1e-6:
        sys.exit("the numbers differ")


def round_(number):
    return float(f"{number:.4g}")


if __name__ == "__main__":
    main()
