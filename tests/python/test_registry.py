"""A server that follows a registry: what its aliases name is served, as they move."""

import os
import shutil
import subprocess
import tempfile
import unittest

import harness
import models


class Registry(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        harness.needs("onnx", "requests", "tritonclient.http")

    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.registry = os.path.join(self.folder, "registry")
        models.save(self.folder, "add", models.add())
        models.save(self.folder, "scores", models.scores())

    def modelyard(self, *arguments):
        binary = os.environ.get("MODELYARD_BINARY") or harness.skip("no MODELYARD_BINARY")
        command = [binary, *arguments, "--registry", self.registry]
        done = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)

    def push(self, model="add", *arguments):
        path = os.path.join(self.folder, model, "1", "model.onnx")
        self.modelyard("push", path, "--name", "fraud", *arguments)

    def serve(self):
        import tritonclient.http as http

        server = self.enterContext(harness.Server(["--registry", self.registry]))
        client = http.InferenceServerClient(server.address)
        self.addCleanup(client.close)
        return server, client

    def infer(self, client):
        """The version that answers who names none."""
        import numpy as np
        import tritonclient.http as http

        ones = np.ones((1, 2), np.float32)
        inputs = [http.InferInput(name, ones.shape, "FP32") for name in ("a", "b")]
        for tensor in inputs:
            tensor.set_data_from_numpy(ones)
        return client.infer("fraud", inputs).get_response()["model_version"]

    def test_promoting_and_rolling_back(self):
        import requests

        self.push()
        server, client = self.serve()
        # An empty registry is no mistake: something will come.
        self.assertFalse(client.is_model_ready("fraud"))
        self.modelyard("alias", "fraud", "champion", "1")
        harness.wait_until(lambda: self.infer(client) == "1", server)
        self.push("add", "--meta", "n=2")
        self.modelyard("alias", "fraud", "champion", "2")
        harness.wait_until(lambda: self.infer(client) == "2", server)
        self.modelyard("alias", "fraud", "champion", "1")
        harness.wait_until(lambda: self.infer(client) == "1", server)
        # A version that an alias names is loaded, but only who asks for it gets it.
        self.modelyard("alias", "fraud", "candidate", "2")
        harness.wait_until(lambda: client.is_model_ready("fraud", "2"), server)
        self.assertEqual(self.infer(client), "1")
        load = requests.post(f"http://{server.address}/v2/repository/models/fraud/load")
        self.assertGreaterEqual(load.status_code, 400)
        self.assertIn("follows the registry", load.json()["error"])

    def test_a_registry_that_goes_away_changes_nothing(self):
        self.push("add", "--alias", "champion")
        server, client = self.serve()
        harness.wait_until(lambda: self.infer(client) == "1", server)
        os.rename(self.registry, self.registry + ".away")
        for _ in range(20):
            self.assertEqual(self.infer(client), "1")

    def test_a_damaged_version_leaves_the_one_before_it_serving(self):
        self.push("add", "--alias", "champion")
        server, client = self.serve()
        harness.wait_until(lambda: self.infer(client) == "1", server)
        before = self.blobs()
        self.push("scores")
        new = self.blobs() - before
        self.assertEqual(len(new), 1)
        with open(new.pop(), "r+b") as file:
            file.write(b"damage")
        self.modelyard("alias", "fraud", "champion", "2")
        index = lambda: {m["version"]: m for m in client.get_model_repository_index()}
        harness.wait_until(lambda: index()["2"]["state"] == "UNAVAILABLE", server)
        self.assertIn("digest", index()["2"]["reason"])
        self.assertEqual(self.infer(client), "1")

    def blobs(self):
        paths = (os.path.join(p, f) for p, _, files in os.walk(self.registry) for f in files)
        return {path for path in paths if "registry." not in os.path.basename(path)}


if __name__ == "__main__":
    unittest.main()
