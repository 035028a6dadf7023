"""The profile of training data that `push --data-profile` keeps, against pandas and numpy."""

import json
import math
import os
import shutil
import subprocess
import tempfile
import unittest

import harness
import models


class Profile(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        harness.needs("onnx", "numpy", "pandas", "pyarrow")

    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        models.save(self.folder, "add", models.add())

    def modelyard(self, *arguments, code=0):
        binary = os.environ.get("MODELYARD_BINARY") or harness.skip("no MODELYARD_BINARY")
        command = [binary, *arguments, "--registry", os.path.join(self.folder, "registry")]
        done = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def table(self, rows, seed=0):
        import numpy as np
        import pandas as pd

        random = np.random.default_rng(seed)
        gaps = random.random(rows) < 0.1
        return pd.DataFrame({
            "a": random.normal(1e6, 3, rows),
            "b": np.where(gaps, np.nan, random.lognormal(0, 3, rows)),
            "whole": random.integers(0, 50, rows),
            "many": random.integers(0, 10**9, rows),
            "yes": random.random(rows) < 0.25,
            "city": random.choice(["Bonn", "Köln", "Ulm, south", None], rows, p=[0.5, 0.3, 0.1, 0.1]),
            "id": [f"row {i}" for i in range(rows)],
        })

    def pushed(self, table, kind, *more):
        path = os.path.join(self.folder, f"train.{kind}")
        if kind == "parquet":
            table.to_parquet(path, row_group_size=1000)
        else:
            table.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
        model = os.path.join(self.folder, "add", "1", "model.onnx")
        self.modelyard("push", model, "--name", "add", "--data-profile", path, *more)
        out = tempfile.mkdtemp(dir=self.folder)
        newest = json.loads(self.modelyard("versions", "add", "--json"))[0]["number"]
        self.modelyard("pull", f"add:{newest}", "--to", out)
        with open(os.path.join(out, "profile.json")) as file:
            return json.load(file)

    def check(self, profile, table):
        import numpy as np

        self.assertEqual(profile["schema"], "modelyard.profile/1")
        self.assertEqual(profile["rows"], len(table))
        columns = {column["name"]: column for column in profile["columns"]}
        self.assertEqual(list(columns), list(table.columns))
        for name, column in columns.items():
            values = table[name].dropna()
            self.assertEqual(column["count"], len(values), name)
            self.assertEqual(column["missing"], int(table[name].isna().sum()), name)
            distinct = values.nunique()
            if distinct <= 1024:
                self.assertEqual(column["distinct"], distinct, name)
            else:
                self.assertLess(abs(column["distinct"] / distinct - 1), 0.06, name)
            if column["kind"] == "number":
                self.check_numbers(column, values.to_numpy(np.float64))
            elif distinct <= 64:
                spell = lambda value: {True: "true", False: "false"}.get(value, str(value))
                counts = {spell(value): n for value, n in values.value_counts().items()}
                self.assertEqual({k.lower() if name == "yes" else k: n for k, n in column["top"]}, counts)

    def check_numbers(self, column, values):
        import numpy as np

        for field, expected in (("min", values.min()), ("max", values.max())):
            self.assertTrue(math.isclose(column[field], expected, rel_tol=1e-14), field)
        self.assertTrue(math.isclose(column["mean"], values.mean(), rel_tol=1e-12))
        self.assertTrue(math.isclose(column["std"], values.std(ddof=1), rel_tol=1e-9))
        quantiles = np.array(column["quantiles"])
        self.assertEqual(len(quantiles), min(256, len(values)))
        ranks = (np.arange(len(quantiles)) + 0.5) / len(quantiles)
        ordered = np.sort(values)
        low = np.searchsorted(ordered, quantiles, "left") / len(values)
        high = np.searchsorted(ordered, quantiles, "right") / len(values)
        off = np.maximum(np.maximum(low - ranks, ranks - high), 0).max()
        self.assertLess(off, 0.004)

    def test_a_small_table_is_kept_whole(self):
        table = self.table(200)
        self.check(self.pushed(table, "parquet"), table)

    def test_parquet_agrees_with_pandas(self):
        table = self.table(60_000)
        profile = self.pushed(table, "parquet")
        self.check(profile, table)
        self.assertEqual(profile["matched"]["inputs"], [{"name": n, "columns": [n]} for n in "ab"])
        self.assertEqual(profile["matched"]["missing"], [])
        self.assertEqual(profile["matched"]["extra"], ["whole", "many", "yes", "city", "id"])

    def test_csv_agrees_with_pandas(self):
        table = self.table(20_000)
        for kind in ("csv", "tsv"):
            self.check(self.pushed(table, kind), table)

    def test_it_is_shown_and_compared(self):
        table = self.table(1000)
        profile = self.pushed(table, "csv")
        version = json.loads(self.modelyard("show", "add:1", "--json"))
        self.assertEqual(version["lineage"]["data"], profile["data"]["digest"])
        shown = self.modelyard("show", "add:1")
        for part in ("1000 rows", "profile a", "mean 1000000", "profile city", "Bonn"):
            self.assertIn(part, shown)
        table["a"] += 6
        self.pushed(table, "csv")
        different = self.modelyard("diff", "add:1", "add:2")
        self.assertIn("profile a", different)
        self.assertNotIn("profile b", different)
        different = json.loads(self.modelyard("diff", "add:1", "add:2", "--json"))
        self.assertIn("mean 1000006", different["profile a"][1])

    def test_what_cannot_be_read_is_said(self):
        model = os.path.join(self.folder, "add", "1", "model.onnx")
        for name, text, expected in (("x.xlsx", "", "expected a file .parquet"),
                                     ("x.parquet", "no", "Parquet"),
                                     ("x.csv", "", "the first line has to name the columns"),
                                     ("y.csv", "a,b\n1\n", "CSV")):
            path = os.path.join(self.folder, name)
            with open(path, "w") as file:
                file.write(text)
            push = ["push", model, "--name", "add", "--data-profile", path]
            code = 2 if name.endswith("xlsx") else 1
            self.assertIn(expected, self.modelyard(*push, code=code))


if __name__ == "__main__":
    unittest.main()
