"""Times the verbs on a registry of 1,000 models with 10 versions each, as whole processes.

    python bench/registry.py target/release/modelyard [--database postgres://...] [--models 1000]

Fills a new registry first (`cargo run -p registry --example fill`), which takes a minute or two; give
--fill the built example to leave cargo out of it.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import tempfile
import time

VERBS = [
    ("models", ["models"]),
    ("models --json", ["models", "--json"]),
    ("versions", ["versions", "model-0500"]),
    ("show", ["show", "model-0500@champion"]),
    ("history", ["history", "model-0500"]),
    ("at", ["at", "model-0500", "2100-01-01T00:00Z"]),
    ("alias", ["alias", "model-0500", "candidate", "{number}"]),
]


def used():
    """The CPU time of all that has been run, in seconds: it says more on a busy machine."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary")
    parser.add_argument("--database", default="")
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--versions", type=int, default=10)
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--fill", help="the built example")
    parser.add_argument("--registry", help="one that was filled before")
    arguments = parser.parse_args()
    folder = tempfile.TemporaryDirectory()
    registry = arguments.registry or os.path.join(folder.name, "registry")
    if not arguments.registry:
        fill = [arguments.fill] if arguments.fill else [
            "cargo", "run", "--quiet", "-p", "registry", "--example", "fill", "--"]
        start = time.perf_counter()
        size = [str(arguments.models), str(arguments.versions)]
        subprocess.run([*fill, registry, arguments.database, *size], check=True)
        print(f"filled in {time.perf_counter() - start:.0f} s")
    environment = {**os.environ, "MODELYARD_REGISTRY": registry}
    if arguments.database:
        environment["MODELYARD_DATABASE"] = arguments.database
    rows = {}
    for name, verb in VERBS:
        times, cpu = [], used()
        for turn in range(arguments.repeat):
            # An alias that is moved each time.
            number = str(turn % 2 + 1)
            command = [arguments.binary, *(part.format(number=number) for part in verb)]
            start = time.perf_counter()
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
            times.append((time.perf_counter() - start) * 1000)
        cpu = (used() - cpu) * 1000 / arguments.repeat
        rows[name] = [round(value, 1) for value in (statistics.median(times), min(times), cpu)]
        median, least, cpu = rows[name]
        print(f"{name:16} median {median:7} ms   fastest {least:7} ms   CPU {cpu:7} ms")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
