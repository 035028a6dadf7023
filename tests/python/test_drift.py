"""`modelyard drift compare` on files, against scipy and pandas; and drift of a model that is served."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest
import urllib.error
import urllib.request

import harness
import models


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


class Estimated(unittest.TestCase):
    """`modelyard drift estimate`, against what the labels say later."""

    def test_estimates_hold_and_scores_are_calibrated(self):
        harness.needs("numpy", "pandas", "pyarrow")
        import numpy as np
        import pandas as pd

        random = np.random.default_rng(1)
        folder = self.enterContext(tempfile.TemporaryDirectory())

        def table(rows, low, high):
            true = random.uniform(low, high, rows)
            # Scores that are far from probabilities, in the right order.
            return pd.DataFrame({"score": true ** 3, "said": true > 0.5, "label": (random.random(rows) < true) * 1})

        known, new = table(20000, 0, 1), table(8000, 0.2, 0.8)
        known.to_parquet(f"{folder}/known.parquet")
        for kind in ("parquet", "csv"):
            save = new.drop(columns="label")
            save.to_parquet(f"{folder}/new.parquet") if kind == "parquet" else save.to_csv(f"{folder}/new.csv")
            run = lambda *more, code=0: Served.run_it("drift", "estimate", f"{folder}/new.{kind}", *more, code=code)
            reference = ["--reference", f"{folder}/known.parquet", "--label", "label"]
            report = json.loads(run("--score", "score", "--prediction", "said", *reference, "--json"))
            said, label = new["said"].to_numpy(bool), new["label"].to_numpy(bool)
            real = {"accuracy": (said == label).mean(), "precision": label[said].mean(),
                    "recall": said[label].mean(), "specificity": (~said)[~label].mean()}
            for name, value in real.items():
                self.assertAlmostEqual(report["estimated"][name]["value"], value, delta=0.03, msg=name)
            accuracy = (known["said"] == known["label"].astype(bool)).mean()
            self.assertAlmostEqual(report["reference"]["accuracy"]["value"], accuracy, places=9)
            shown = run("--score", "score", "--threshold", "0.125", *reference)
            self.assertRegex(shown, r"ROC AUC +0\.\d{4} +0\.\d{4}")
            self.assertIn("no column", run("--score", "nothing", code=1))
            self.assertIn("expected 1 or 0", run("--score", "said", "--prediction", "score", code=1))


class Served(unittest.TestCase):
    """A model of three numbers with the profile of its training data, on a server."""

    @classmethod
    def setUpClass(cls):
        harness.needs("onnx", "numpy", "pandas")
        import numpy as np
        import pandas as pd

        cls.folder = cls.enterClassContext(tempfile.TemporaryDirectory())
        models.save(cls.folder, "sum", models.regression())
        cls.model = os.path.join(cls.folder, "sum", "1", "model.onnx")
        cls.registry = os.path.join(cls.folder, "registry")
        cls.state = os.path.join(cls.folder, "state")
        random = np.random.default_rng(1)
        train = os.path.join(cls.folder, "train.csv")
        pd.DataFrame(random.normal(size=(5000, 3)), columns=["age", "income", "debt"]).to_csv(train, index=False)
        cls.run_it("push", cls.model, "--name", "sum", "--data-profile", train, "--alias", "champion",
                   "--registry", cls.registry)

    @classmethod
    def run_it(cls, *arguments, code=0):
        binary = os.environ.get("MODELYARD_BINARY") or harness.skip("no MODELYARD_BINARY")
        done = subprocess.run([binary, *arguments], capture_output=True, text=True)
        if done.returncode != code:
            raise AssertionError(f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def ask(self, server, rows, shift=0.0, seed=2):
        """Sends rows in requests of 16, the most that is looked at of one."""
        import numpy as np

        random = np.random.default_rng(seed)
        url = f"http://{server.address}/v2/models/sum/infer"
        for _ in range(rows // 16):
            x = random.normal(size=(16, 3))
            x[:, 1] += shift
            body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [16, 3], "data": x.ravel().tolist()}]}
            request = urllib.request.Request(url, json.dumps(body).encode())
            with urllib.request.urlopen(request, timeout=10) as reply:
                self.assertEqual(reply.status, 200)

    def drift(self, server, *arguments, code=0):
        return self.run_it("drift", "sum", "--url", f"http://{server.address}", *arguments, code=code)

    def features(self, server):
        (version,) = json.loads(self.drift(server, "--json"))["versions"]
        return version, {seen["feature"]: seen for seen in version["features"]}

    def test_what_is_served_is_watched(self):
        arguments = ["--registry", self.registry, "--drift-state", self.state]
        ready = lambda server: lambda: self.is_ready(server)
        with harness.Server(arguments) as server:
            harness.wait_until(ready(server), server)
            self.assertIn("nothing was asked", self.drift(server))
            self.ask(server, 16)
            harness.wait_until(lambda: json.loads(self.drift(server, "--json"))["versions"], server)
            self.ask(server, 2400)
            harness.wait_until(lambda: self.features(server)[0]["rows"] >= 2000, server)
            version, features = self.features(server)
            self.assertFalse(version["drifted"])
            self.assertEqual(set(features), {"age", "income", "debt", "y"})
            self.assertEqual((features["age"]["status"], features["age"]["first_rows"]), ("watched", False))
            self.assertTrue(features["y"]["predicted"])
            self.drift(server, "--fail-on", "drift")
        self.assertEqual(os.listdir(self.state), ["sum@1.json"])
        with harness.Server(arguments) as server:
            harness.wait_until(ready(server), server)
            self.ask(server, 16, seed=3)
            harness.wait_until(lambda: json.loads(self.drift(server, "--json"))["versions"], server)
            # It goes on where it was.
            self.assertGreaterEqual(self.features(server)[0]["rows"], 2000)
            self.ask(server, 4000, shift=1.5, seed=4)
            harness.wait_until(lambda: self.features(server)[0]["drifted"], server)
            version, features = self.features(server)
            self.assertEqual(features["income"]["status"], "drifted")
            self.assertEqual(features["income"]["drift"]["what"], "shift")
            self.assertEqual(features["age"]["status"], "watched")
            page = os.path.join(self.folder, "r.html")
            shown = self.drift(server, "--since", "7d", "--html", page, "--fail-on", "drift", code=4)
            self.assertRegex(shown, r"income +drifted .*shift 0\.\d+")
            self.assertIn("sum has drifted", shown)
            with open(page, encoding="utf-8") as file:
                self.assertIsNone(re.search(r"(?:src|href)=|url\(|@import|https?://", file.read()))
            self.refused(server, "sum/drift?since=yesterday", 400, "expected since=SECONDS")
            self.refused(server, "nobody/drift", 404, "nobody")

    def test_it_can_be_off(self):
        with harness.Server([f"--model=sum={self.model}", "--drift", "false"]) as server:
            harness.wait_until(lambda: self.is_ready(server), server)
            self.refused(server, "sum/drift", 404, "drift is not watched")

    def is_ready(self, server):
        try:
            with urllib.request.urlopen(f"http://{server.address}/v2/models/sum/ready", timeout=5) as reply:
                return reply.status == 200
        except urllib.error.HTTPError:
            return False

    def refused(self, server, path, status, expected):
        with self.assertRaises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://{server.address}/v2/models/{path}", timeout=5)
        with refused.exception as error:
            self.assertEqual(error.code, status)
            self.assertIn(expected, error.read().decode())


if __name__ == "__main__":
    unittest.main()
