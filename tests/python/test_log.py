"""The prediction log, read by pyarrow, pandas and DuckDB, and after bad days."""

import concurrent.futures
import glob
import hashlib
import hmac
import io
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request

import harness
import models


def ask(server, model, inputs, rows, id=None, key=None):
    """Sends rows as JSON, and returns the answer."""
    body = {"inputs": [
        {"name": name, "datatype": kind, "shape": [rows, len(data) // rows], "data": data}
        for name, kind, data in inputs
    ]}
    if id is not None:
        body["id"] = id
    request = urllib.request.Request(
        f"http://{server.address}/v2/models/{model}/infer", json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)


class Log(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        harness.needs("onnx", "numpy", "pandas", "pyarrow", "duckdb")

    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.models = os.path.join(self.folder, "models")
        models.save(self.models, "add", models.add())
        self.log = os.path.join(self.folder, "log")

    def server(self, *more):
        server = harness.Server([self.models, "--prediction-log", self.log, *more])
        return server

    def ready(self, server):
        url = f"http://{server.address}/v2/health/ready"
        harness.wait_until(lambda: urllib.request.urlopen(url, timeout=5).status == 200, server)

    def table(self, model="add"):
        """The rows of a model as DuckDB reads them, by request and row."""
        import duckdb

        return duckdb.connect().sql(
            f"SELECT * FROM read_parquet('{self.log}/predictions/model={model}/**/*.parquet', "
            "hive_partitioning = true) ORDER BY request_id, row"
        ).df()

    def test_every_reader_sees_what_was_asked_and_answered(self):
        import numpy as np
        import pandas as pd
        import pyarrow.dataset as dataset

        random = np.random.default_rng(1)
        sent = []
        with self.server() as server:
            self.ready(server)
            for number in range(50):
                rows = int(random.integers(1, 4))
                a, b = random.normal(size=(2, rows * 2)).astype(np.float32)
                inputs = [("a", "FP32", a.tolist()), ("b", "FP32", b.tolist())]
                ask(server, "add", inputs, rows, f"r{number:03}")
                sent += [(f"r{number:03}", row, a[2 * row:][:2], b[2 * row:][:2])
                         for row in range(rows)]
        self.assertIn("the prediction log is complete", "".join(server.lines))
        under = f"{self.log}/predictions/model=add"
        tables = {
            "pandas": pd.read_parquet(under),
            "pyarrow": dataset.dataset(under, partitioning="hive").to_table().to_pandas(),
            "duckdb": self.table(),
        }
        for reader, table in tables.items():
            with self.subTest(reader=reader):
                table = table.sort_values(["request_id", "row"]).reset_index(drop=True)
                self.assertEqual(list(table["request_id"]), [one[0] for one in sent])
                self.assertEqual(list(table["row"]), [one[1] for one in sent])
                for column, place in [("input_a", 2), ("input_b", 3)]:
                    seen = np.stack(table[column].to_list())
                    self.assertEqual(seen.dtype, np.float32)
                    np.testing.assert_array_equal(seen, np.stack([one[place] for one in sent]))
                total = np.stack([one[2] + one[3] for one in sent])
                np.testing.assert_array_equal(np.stack(table["output_sum"].to_list()), total)
                self.assertEqual(set(table["version"]), {"1"})
                self.assertEqual(set(table["route"]), {"answered"})
                self.assertEqual(set(table["code"]), {"OK"})
                self.assertEqual(set(table["weight"]), {1.0})
                now = pd.Timestamp.now("UTC")
                self.assertTrue(((now - table["time"]) < pd.Timedelta(minutes=5)).all())
                self.assertTrue((table["time"] <= now).all())
                self.assertTrue((table["compute_seconds"] > 0).all())
                hours = table["time"].dt.tz_convert("UTC").dt
                self.assertEqual(list(table["hour"].astype(int)), list(hours.hour))
                dates = pd.to_datetime(table["date"].astype(str)).dt.strftime("%Y-%m-%d")
                self.assertEqual(list(dates), list(hours.strftime("%Y-%m-%d")))
        # All models of a log at once, told apart by their folders.
        whole = dataset.dataset(f"{self.log}/predictions", partitioning="hive").to_table()
        self.assertEqual(set(whole.column("model").to_pylist()), {"add"})

    def test_every_type(self):
        import numpy as np

        kinds = models.repository(self.models)
        plain = [kind for kind in kinds if kind not in ("BOOL", "BYTES", "FP16", "BF16")]
        texts = ["", "Köln", "a\nb", "\u0000x"]
        with self.server() as server:
            self.ready(server)
            for kind in plain:
                whole = not kind.startswith("FP")
                info = np.iinfo(kind.lower()) if whole else np.finfo("float" + kind[2:])
                data = [info.min, info.max, 0, 1] if whole else [0.1, -0.0, 1e-30, float(info.max)]
                data = [int(x) for x in data] if whole else data
                ask(server, f"echo_{kind}", [("x", kind, data)], 2)
            ask(server, "echo_BOOL", [("x", "BOOL", [True, False, False, True])], 2)
            ask(server, "echo_BYTES", [("x", "BYTES", texts)], 2)
            for kind in ("FP16", "BF16"):
                try:
                    ask(server, f"echo_{kind}", [("x", kind, [0.5, 1, -2, 0.25])], 2)
                except urllib.error.HTTPError:
                    pass  # Half precision has no JSON in the protocol.
        for kind in plain:
            with self.subTest(kind=kind):
                table = self.table(f"echo_{kind}")
                for column in ("input_x", "output_y"):
                    seen = np.concatenate([np.asarray(x) for x in table[column]])
                    whole = not kind.startswith("FP")
                    info = np.iinfo(kind.lower()) if whole else np.finfo("float" + kind[2:])
                    sent = [info.min, info.max, 0, 1] if whole else [0.1, -0.0, 1e-30, info.max]
                    dtype = kind.lower() if whole else "float" + kind[2:]
                    np.testing.assert_array_equal(seen, np.array(sent, dtype))
                    self.assertEqual(seen.dtype, np.dtype(dtype))
        self.assertEqual([list(x) for x in self.table("echo_BOOL")["input_x"]],
                         [[True, False], [False, True]])
        self.assertEqual([list(x) for x in self.table("echo_BYTES")["output_y"]],
                         [texts[:2], texts[2:]])

    def test_columns_by_rule(self):
        secret = "not to be seen"
        path = os.path.join(self.folder, "config.toml")
        with open(path, "w") as file:
            file.write(f"""
                [prediction-log]
                location = "{self.log}"
                mask = ["input_a"]
                hash = ["request_id"]
                salt = "{secret}"
                [prediction-log.models.add]
                leave-out = ["output_*", "input_none"]
                """)
        with harness.Server([self.models, "--config", path]) as server:
            self.ready(server)
            ask(server, "add", [("a", "FP32", [1, 2]), ("b", "FP32", [3, 4])], 1, "someone")
        table = self.table()
        self.assertNotIn("output_sum", table.columns)
        self.assertEqual([list(x) for x in table["input_a"]], [["***", "***"]])
        self.assertEqual([list(x) for x in table["input_b"]], [[3.0, 4.0]])
        digest = hmac.new(secret.encode(), b"someone", hashlib.sha256).hexdigest()
        self.assertEqual(list(table["request_id"]), [digest])
        said = "".join(server.lines)
        self.assertIn('no column is \\"input_none\\"'.replace("\\", ""), said.replace("\\", ""))
        self.assertNotIn(secret, said)
        for path in glob.glob(f"{self.log}/**/*.parquet", recursive=True):
            with open(path, "rb") as file:
                self.assertNotIn(secret.encode(), file.read())

    def test_a_killed_server_loses_at_most_one_interval(self):
        import pyarrow.parquet as parquet

        interval = 2.0
        server = self.server("--prediction-log-flush", f"{interval}s")
        server.__enter__()
        answered = []
        try:
            self.ready(server)
            end = time.monotonic() + 6
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                def load(worker):
                    number = 0
                    while time.monotonic() < end:
                        id = f"{worker}-{number}"
                        ask(server, "add", [("a", "FP32", [1, 2]), ("b", "FP32", [3, 4])], 1, id)
                        answered.append((time.monotonic(), id))
                        number += 1
                list(pool.map(load, range(4)))
            killed = time.monotonic()
        finally:
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
            server.reader.join(5)
            server.process.stdout.close()
            server.cache.cleanup()
        files = glob.glob(f"{self.log}/**/*.parquet", recursive=True)
        self.assertGreaterEqual(len(files), 2)
        seen = set()
        for path in files:
            if "/_staging/" not in path:
                seen |= set(parquet.ParquetFile(path).read().column("request_id").to_pylist())
        late = [id for at, id in answered if at < killed - interval and id not in seen]
        self.assertEqual(late, [])
        # The next one cleans up, and goes on beside what is there.
        os.makedirs(f"{self.log}/_staging", exist_ok=True)
        with self.server() as server:
            self.ready(server)
            self.assertEqual(len(os.listdir(f"{self.log}/_staging")), 1)
            ask(server, "add", [("a", "FP32", [1, 2]), ("b", "FP32", [3, 4])], 1, "after")
        self.assertEqual(len(self.table()), len(seen) + 1)
        self.assertEqual(os.listdir(f"{self.log}/_staging"), [])

    def test_a_full_disk_fails_no_request(self):
        with self.server("--prediction-log-flush", "200ms") as server:
            self.ready(server)
            # Nothing can be put where a file is, as little as on a disk that is full.
            with open(f"{self.log}/predictions", "w"):
                pass
            for number in range(20):
                ask(server, "add", [("a", "FP32", [1, 2]), ("b", "FP32", [3, 4])], 1, str(number))
            said = lambda: "a file of predictions of add" in "".join(server.lines)
            harness.wait_until(said, server)
            ask(server, "add", [("a", "FP32", [1, 2]), ("b", "FP32", [3, 4])], 1, "20")
            os.remove(f"{self.log}/predictions")
        self.assertEqual(len(self.table()), 21)

    def verb(self, *arguments, code=0):
        binary = os.environ.get("MODELYARD_BINARY") or harness.skip("no MODELYARD_BINARY")
        done = subprocess.run([binary, "log", *arguments, "--log", self.log],
                              capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stderr if code else done.stdout

    def test_the_verbs_show_what_is_there(self):
        import pandas as pd

        with self.server() as server:
            self.ready(server)
            for number in range(30):
                ask(server, "add", [("a", "FP32", [number, 0.1]), ("b", "FP32", [1, 2])], 1,
                    f"r{number}")
        rows = [json.loads(line) for line in
                self.verb("show", "add", "--format", "json").splitlines()]
        self.assertEqual([row["request_id"] for row in rows], [f"r{n}" for n in range(30)])
        self.assertEqual(rows[7]["input_a"], [7.0, 0.1])
        self.assertEqual(rows[7]["output_sum"], [8.0, 2.1])
        shown = self.verb("show", "add", "--columns", "request_id,output_*", "--limit", "2")
        self.assertEqual([line.split()[0] for line in shown.splitlines()],
                         ["request_id", "r28", "r29"])
        table = pd.read_csv(io.StringIO(self.verb("show", "add", "--format", "csv", "--id", "r3")))
        self.assertEqual((len(table), json.loads(table["input_a"][0])), (1, [3.0, 0.1]))
        out = os.path.join(self.folder, "out.parquet")
        self.verb("show", "add", "--format", "parquet", "--output", out, "--since", "1h")
        self.assertEqual(len(pd.read_parquet(out)), 30)
        self.assertEqual(self.verb("show", "add", "--until", "1h", "--format", "json"), "")
        self.assertEqual(self.verb("show", "add", "--model-version", "2", "--format", "json"), "")
        self.assertIn("it has add", self.verb("show", "other", code=1))
        self.assertIn("neither how long ago", self.verb("show", "add", "--since", "x", code=2))
        listed = self.verb("files").split()
        self.assertEqual(listed[5:7], ["predictions", "add"])
        files = json.loads(self.verb("files", "--json"))
        self.assertTrue(all(os.path.getsize(os.path.join(self.log, file["path"])) == file["bytes"]
                            for file in files))
        followed = self.verb("tail", "add", "--since", "1h", "--stop-after", "1ms")
        self.assertEqual(len(followed.splitlines()), 30)
        requests = [json.loads(line) for line in
                    self.verb("show", "add", "--format", "requests").splitlines()]
        self.assertEqual(len(requests), 30)
        one = next(r for r in requests if r["request"]["inputs"][0]["data"] == [7.0, 0.1])
        self.assertEqual(one["request"]["inputs"][0],
                         {"name": "a", "datatype": "FP32", "shape": [1, 2], "data": [7.0, 0.1]})
        self.assertEqual(one["response"]["outputs"][0]["data"], [8.0, 2.1])

    def feedback(self, server, model, pieces):
        request = urllib.request.Request(
            f"http://{server.address}/v2/models/{model}/feedback",
            json.dumps({"feedback": pieces}).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, json.load(reply)

    def test_labels_say_how_good_a_model_is(self):
        import duckdb
        import numpy as np

        models.save(self.models, "scores", models.scores())
        random = np.random.default_rng(3)
        x = random.normal(size=(200, 3)).astype(np.float32)
        actual = random.integers(0, 3, 200)
        x[np.arange(200), actual] += 1.5
        with self.server() as server:
            self.ready(server)
            for number, row in enumerate(x):
                ask(server, "scores", [("x", "FP32", row.tolist())], 1, f"r{number}")
            pieces = [{"id": f"r{n}", "label": int(actual[n]), "feedback_id": f"f{n}"}
                      for n in range(200)]
            self.assertEqual(self.feedback(server, "scores", pieces), (202, {"accepted": 200}))
            self.feedback(server, "scores", pieces[:5] + [{"id": "nobody", "label": 1}])
            with self.assertRaises(urllib.error.HTTPError) as caught:
                self.feedback(server, "no_such_model", pieces[:1])
            self.assertEqual(caught.exception.code, 404)
            caught.exception.close()
        found = json.loads(self.verb("performance", "scores", "--json", "--by", "version"))
        joined = found["joined"]
        self.assertEqual((joined["predictions"], joined["labels"], joined["joined"]), (200, 201, 200))
        self.assertEqual((joined["unknown"], joined["repeated"]), (1, 5))
        right = x.argmax(axis=1) == actual
        got = found["all"]["classification"]
        self.assertAlmostEqual(got["accuracy"], right.mean(), places=12)
        p = np.exp(x.astype(float)) / np.exp(x.astype(float)).sum(axis=1, keepdims=True)
        loss = -np.log(p[np.arange(200), actual]).mean()
        self.assertAlmostEqual(got["log_loss"], loss, places=5)
        self.assertEqual(found["slices"][0][0], "1")
        text = self.verb("performance", "scores")
        self.assertIn("200 with a label", text)
        self.assertIn("is \\ predicted", text)
        # The same join in SQL.
        sql = f"""
            SELECT avg((list_position(output_scores, list_max(output_scores)) - 1
                        = label_number::int)::int)
            FROM read_parquet('{self.log}/predictions/model=scores/**/*.parquet') p
            JOIN (SELECT DISTINCT request_id, label_number
                  FROM read_parquet('{self.log}/labels/model=scores/**/*.parquet')) l
            USING (request_id)"""
        self.assertAlmostEqual(duckdb.connect().sql(sql).fetchall()[0][0], right.mean(), places=12)

    def test_a_place_that_cannot_be_is_refused(self):
        blocked = os.path.join(self.folder, "file")
        with open(blocked, "w"):
            pass
        self.log = blocked
        with self.assertRaisesRegex(AssertionError, "did not come up"):
            self.server().__enter__()


if __name__ == "__main__":
    unittest.main()
