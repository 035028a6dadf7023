"""Models that come from other tools and go to them, read and written by those tools themselves."""

import json
import os
import shutil
import subprocess
import tempfile
import unittest

import harness
import models


class Exchange(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def modelyard(self, *arguments, code=0):
        binary = os.environ.get("MODELYARD_BINARY") or harness.skip("no MODELYARD_BINARY")
        command = [binary, *arguments, "--registry", self.path("registry")]
        done = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout

    def load(self, *arguments, **more):
        return json.loads(self.modelyard(*arguments, "--json", **more))


class Mlflow(Exchange):
    @classmethod
    def setUpClass(cls):
        harness.needs("mlflow.onnx", "pandas", "onnx", "onnxruntime", "numpy")

    def save(self, folder, **more):
        """What MLflow itself writes of a model that adds."""
        import mlflow.onnx
        import numpy as np
        import onnx
        from mlflow.models import infer_signature

        models.save(self.folder, "add", models.add())
        model = onnx.load(self.path("add", "1", "model.onnx"))
        ones = np.ones((2, 2), np.float32)
        signature = infer_signature({"a": ones, "b": ones}, {"sum": ones})
        mlflow.onnx.save_model(model, folder, signature=signature, **more)

    def check_adds(self, folder):
        """The folder is a model for MLflow: it loads, checks its input and computes."""
        import mlflow.onnx
        import mlflow.pyfunc
        import numpy as np

        mlflow.onnx.load_model(folder)
        model = mlflow.pyfunc.load_model(folder)
        inputs = {"a": np.float32([[1, 2], [3, 4]]), "b": np.float32([[10, 20], [30, 40]])}
        (output,) = model.predict(inputs).values()
        np.testing.assert_array_equal(output, [[11, 22], [33, 44]])
        with self.assertRaises(Exception):
            model.predict({"a": inputs["a"]})
        return model

    def test_a_model_goes_there_and_back(self):
        self.save(self.path("saved"), metadata={"task": "adding"})
        (outcome,) = self.load("import", self.path("saved"), "--name", "add")
        self.assertEqual((outcome["outcome"], outcome["number"]), ("imported", 1))
        # Again it is the same.
        (outcome,) = self.load("import", self.path("saved"), "--name", "add")
        self.assertEqual((outcome["outcome"], outcome["number"]), ("already there", 1))
        version = self.load("show", "add:1")
        self.assertEqual(version["metadata"]["task"], "adding")
        self.assertEqual(version["metadata"]["imported.from"], "mlflow")
        self.modelyard("export", "add:1", "--as", "mlflow", "--to", self.path("out"))
        model = self.check_adds(self.path("out"))
        self.assertEqual(model.metadata.metadata["modelyard.version"], "1")
        self.assertEqual(model.metadata.metadata["task"], "adding")
        with open(self.path("saved", "requirements.txt")) as before:
            with open(self.path("out", "requirements.txt")) as after:
                self.assertEqual(before.read(), after.read())

    def test_a_model_that_never_was_mlflows_is_exported(self):
        models.save(self.folder, "add", models.add())
        model = self.path("add", "1", "model.onnx")
        meta = 'note="a: [b]\n- c"'
        self.modelyard("push", model, "--name", "add", "--alias", "champion", "--meta", meta)
        self.modelyard("export", "add", "--as", "mlflow", "--to", self.path("out"))
        loaded = self.check_adds(self.path("out"))
        self.assertEqual(loaded.metadata.metadata["note"], meta.split("=", 1)[1])
        inputs = loaded.metadata.get_input_schema()
        self.assertEqual(inputs.input_names(), ["a", "b"])
        again = self.modelyard("export", "add", "--as", "mlflow", "--to", self.path("out"), code=1)
        self.assertEqual(again, "")

    def test_an_export_of_a_registered_model(self):
        """The layout of mlflow-export-import, as its documentation and samples show it."""
        versions = []
        for number, run in (("3", "aaaa"), ("7", "bbbb")):
            self.save(self.path("fraud", run, "artifacts", "model"), metadata={"n": number})
            run_json = {"mlflow": {"info": {"run_id": run}, "params": {"depth": "5"}, "tags": {},
                                   "metrics": {"auc": [{"value": 0.5}, {"value": 0.75}]}}}
            with open(self.path("fraud", run, "run.json"), "w") as file:
                json.dump(run_json, file)
            versions.append({"name": "fraud", "version": number, "run_id": run,
                             "source": f"/srv/mlruns/1/{run}/artifacts/model",
                             "current_stage": "None", "tags": {}, "description": f"the {number}th",
                             "aliases": ["champion"] if number == "7" else []})
        versions.append({"name": "fraud", "version": "8", "run_id": "cccc", "source": "s3://gone"})
        model = {"name": "fraud", "tags": {}, "versions": versions}
        with open(self.path("fraud", "model.json"), "w") as file:
            json.dump({"system": {}, "info": {}, "mlflow": {"registered_model": model}}, file)
        dry = self.load("import", self.path("fraud"), "--dry-run", code=3)
        self.assertEqual(dry[0]["outcome"], "would be imported")
        three, seven, eight = self.load("import", self.path("fraud"), code=3)
        self.assertEqual((three["number"], seven["number"]), (1, 2))
        self.assertEqual(seven["aliases"], ["champion"])
        self.assertIn("was not exported", eight["why"])
        champion = self.load("show", "fraud@champion")
        for key, value in {"imported.version": "7", "metric.auc": "0.75", "param.depth": "5",
                           "n": "7"}.items():
            self.assertEqual(champion["metadata"][key], value)
        self.assertIn("card.md", [file["name"] for file in champion["files"]])
        # Nothing is added again, although both have the same bytes.
        again = self.load("import", self.path("fraud"), code=3)
        self.assertEqual([one["number"] for one in again], [1, 2, None])
        self.assertEqual(len(self.load("versions", "fraud")), 2)

    def test_another_flavor_is_refused(self):
        os.makedirs(self.path("saved"))
        with open(self.path("saved", "MLmodel"), "w") as file:
            file.write("flavors:\n  sklearn:\n    pickled_model: model.pkl\n")
        (outcome,) = self.load("import", self.path("saved"), "--name", "x", code=3)
        self.assertIn("skl2onnx", outcome["why"])


class Repositories(Exchange):
    @classmethod
    def setUpClass(cls):
        harness.needs("onnx", "tritonclient.grpc", "tritonclient.http", "google.protobuf")

    def push_all(self):
        for name, model in (("add", models.add()), ("scores", models.scores())):
            models.save(self.folder, name, model)
            path = self.path(name, "1", "model.onnx")
            self.modelyard("push", path, "--name", name)
            self.modelyard("push", path, "--name", name, "--meta", "n=2")

    def test_a_triton_repository_is_written_and_read(self):
        import tritonclient.http as http
        from google.protobuf import text_format
        from tritonclient.grpc import model_config_pb2

        self.push_all()
        for name in ("add", "scores"):
            self.modelyard("export", name, "--all", "--as", "triton", "--to", self.path("out"))
            with open(self.path("out", name, "config.pbtxt")) as file:
                config = text_format.Parse(file.read(), model_config_pb2.ModelConfig())
            manifest = self.load("show", f"{name}:1")["manifest"]["signature"]
            self.assertEqual(config.name, name)
            for side, declared in (("inputs", config.input), ("outputs", config.output)):
                self.assertEqual([t.name for t in declared], [t["name"] for t in manifest[side]])
                for tensor, spec in zip(declared, manifest[side]):
                    datatype = {"BYTES": "STRING"}.get(spec["datatype"], spec["datatype"])
                    name_of = model_config_pb2.DataType.Name(tensor.data_type)
                    self.assertEqual(name_of, f"TYPE_{datatype}")
                    batch = 1 if config.max_batch_size else 0
                    self.assertEqual(len(tensor.dims) + batch, len(spec["shape"]))
        server = self.enterContext(harness.Server([self.path("out")]))
        client = http.InferenceServerClient(server.address)
        self.addCleanup(client.close)
        for name in ("add", "scores"):
            harness.wait_until(lambda: client.is_model_ready(name), server)
            self.assertEqual(client.get_model_metadata(name)["versions"], ["2"])
        self.assertFalse([line for line in server.lines if '"level":"WARN"' in line])
        # And back: the numbers that they had are kept.
        shutil.rmtree(self.path("registry"))
        outcomes = self.load("import", self.path("out"))
        self.assertEqual([(o["model"], o["from"], o["number"]) for o in outcomes],
                         [("add", "1", 1), ("add", "2", 2), ("scores", "1", 1), ("scores", "2", 2)])

    def test_numbered_folders_are_written_and_read(self):
        self.push_all()
        self.modelyard("export", "add:2", "--as", "numbered", "--to", self.path("out"))
        self.assertEqual(os.listdir(self.path("out", "add")), ["2"])
        self.assertEqual(os.listdir(self.path("out", "add", "2")), ["model.onnx"])
        os.makedirs(self.path("out", "add", "3"))
        with open(self.path("out", "add", "3", "saved_model.pb"), "wb") as file:
            file.write(b"\x08\x01saved_model")
        first, second = self.load("import", self.path("out", "add"), "--name", "new", code=3)
        self.assertEqual((first["from"], first["number"]), ("2", 1))
        self.assertIn("SavedModel", second["why"])


if __name__ == "__main__":
    unittest.main()
