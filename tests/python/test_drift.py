"""`modelyard drift compare` on files, against scipy and pandas."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest

import harness


class Compare(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        harness.needs("numpy", "pandas", "pyarrow", "scipy")

    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def compare(self, before, after, *arguments, code=0):
        binary = os.environ.get("MODELYARD_BINARY") or harness.skip("no MODELYARD_BINARY")
        command = [binary, "drift", "compare", self.path(before), self.path(after), *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout if code == 0 else done.stdout + done.stderr

    def table(self, rows, seed, shift=0.0):
        import numpy as np
        import pandas as pd

        random = np.random.default_rng(seed)
        return pd.DataFrame({
            "age": random.normal(40 + 12 * shift, 12, rows),
            "gaps": np.where(random.random(rows) < 0.1 + 0.3 * shift, np.nan, random.lognormal(0, 2, rows)),
            "whole": random.integers(0, 60, rows),
            "few": random.integers(0, 6, rows),
            "country": random.choice(["NZ", "AU", "Ulm, south", "ä<b>"], rows, p=[0.4, 0.3, 0.2, 0.1]),
            "yes": random.random(rows) < 0.25,
            "id": [f"row {seed} {i}" for i in range(rows)],
        })

    def save(self, name, table):
        if name.endswith("parquet"):
            table.to_parquet(self.path(name), row_group_size=700)
        else:
            table.to_csv(self.path(name), index=False, sep="\t" if name.endswith("tsv") else ",")

    def columns(self, report):
        return {column["column"]: column for column in json.loads(report)["columns"]}

    def test_numbers_are_scipys_and_all_kinds_of_files_agree(self):
        from scipy import stats

        before, after = self.table(3000, 1), self.table(2500, 2, shift=0.5)
        found = {}
        for kind in ("parquet", "csv", "tsv"):
            self.save(f"a.{kind}", before)
            self.save(f"b.{kind}", after)
            found[kind] = self.columns(self.compare(f"a.{kind}", f"b.{kind}", "--json"))
        for name in ("age", "gaps", "whole", "few"):
            a, b = before[name].dropna(), after[name].dropna()
            ks = stats.ks_2samp(a, b)
            expected = {
                "kolmogorov_smirnov": ks.statistic,
                "kolmogorov_smirnov_p": ks.pvalue,
                "wasserstein": stats.wasserstein_distance(a, b),
            }
            for kind, columns in found.items():
                for statistic, value in expected.items():
                    seen = columns[name]["statistics"][statistic]
                    self.assertAlmostEqual(seen, value, delta=1e-6 * max(abs(value), 1e-3), msg=f"{kind} {name}")
        for kind, columns in found.items():
            verdicts = {name: column["verdict"] for name, column in columns.items()}
            self.assertEqual(verdicts, {"age": "drifted", "gaps": "drifted", "whole": "stable", "few": "stable",
                                        "country": "stable", "yes": "stable", "id": "not_compared"}, kind)
            self.assertEqual(columns["gaps"]["because"], ["missing"])
            for name, column in columns.items():
                other = found["parquet"][name]
                spelled = lambda c: {bar.lower(): p for bar, p in zip(c["picture"]["bars"], c["picture"]["before"])}
                self.assertEqual(column["statistics"], other["statistics"], f"{kind} {name}")
                if name in ("country", "yes"):
                    self.assertEqual(spelled(column), spelled(other))

    def test_dictionaries_times_and_lists(self):
        import pandas as pd

        before, after = self.table(500, 3), self.table(500, 4)
        for table in (before, after):
            table["country"] = table["country"].astype("category")
            table["when"] = pd.date_range("2026-01-01", periods=500, freq="s")
            table["list"] = [[1, 2]] * 500
        self.save("a.parquet", before)
        self.save("b.parquet", after)
        report = json.loads(self.compare("a.parquet", "b.parquet", "--json"))
        self.assertEqual({out["column"] for out in report["left_out"]}, {"when", "list"})
        country = self.columns(json.dumps(report))["country"]
        self.assertEqual(country["before"]["distinct"], 4)
        self.assertIn("ä<b>", country["picture"]["bars"])

    def test_the_exit_code_tells(self):
        self.save("a.csv", self.table(1500, 5))
        self.save("b.csv", self.table(1500, 6))
        self.save("moved.csv", self.table(1500, 7, shift=1.0))
        self.save("small.csv", self.table(30, 8))
        self.save("less.csv", self.table(1500, 5).drop(columns="age"))
        self.compare("a.csv", "b.csv", "--fail-on", "drift")
        self.assertIn("2 of 7 columns drifted", self.compare("a.csv", "moved.csv", "--fail-on", "drift", code=4))
        self.compare("a.csv", "moved.csv", "--fail-on", "drift", "--except", "age,gaps")
        self.compare("a.csv", "small.csv", "--fail-on", "drift")
        self.assertIn("too few rows", self.compare("a.csv", "small.csv", "--fail-on", "doubt", code=4))
        self.assertIn("only before: age", self.compare("a.csv", "less.csv", "--fail-on", "drift", code=4))

    def test_the_page_stands_alone(self):
        self.save("a.csv", self.table(800, 9))
        self.save("b.csv", self.table(800, 10, shift=1.0))
        shown = self.compare("a.csv", "b.csv", "--html", self.path("r.html"))
        self.assertIn("█", shown)
        with open(self.path("r.html"), encoding="utf-8") as file:
            page = file.read()
        self.assertIn("ä&lt;b&gt;", page)
        self.assertIn("prefers-color-scheme: dark", page)
        self.assertIsNone(re.search(r"(?:src|href)=|url\(|@import|https?://", page))

    def test_what_cannot_be_compared_is_said(self):
        self.save("a.csv", self.table(50, 11))
        files = {"empty.csv": b"", "ragged.csv": b"a,b\n1\n", "twice.csv": b"a,a\n1,2\n", "other.csv": b"x\n1\n",
                 "broken.parquet": b"no", "head.csv": b"age,few\n", "table.xlsx": b""}
        for name, text in files.items():
            with open(self.path(name), "wb") as file:
                file.write(text)
        for name, expected, code in (
            ("empty.csv", "the first line has to name the columns", 1),
            ("ragged.csv", "CSV", 1),
            ("twice.csv", "the column \"a\" is there twice", 1),
            ("other.csv", "no column in common", 1),
            ("broken.parquet", "Parquet", 1),
            ("table.xlsx", "expected a file .parquet", 2),
            ("none.csv", "No such file", 1),
        ):
            self.assertIn(expected, self.compare("a.csv", name, code=code), name)
        self.assertIn("neither table has a column", self.compare("a.csv", "a.csv", "--columns", "zz", code=2))
        self.assertIn("expected a part between", self.compare("a.csv", "a.csv", "--alpha", "7", code=2))
        header = self.columns(self.compare("a.csv", "head.csv", "--json"))
        self.assertEqual({column["verdict"] for column in header.values()}, {"not_compared"})


if __name__ == "__main__":
    unittest.main()
