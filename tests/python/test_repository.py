"""Which versions of a repository are served, and what load requests change of that."""

import os
import shutil
import signal
import tempfile
import unittest

import harness
import models


class Repository(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        harness.needs("onnx", "tritonclient.http")

    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        for version in ("1", "2", "10"):
            models.save(self.folder, "add", models.add(), version)

    def serve(self, *arguments):
        import tritonclient.http as http

        server = self.enterContext(harness.Server([*arguments, self.folder]))
        client = http.InferenceServerClient(server.address)
        self.addCleanup(client.close)
        harness.wait_until(client.is_server_ready, server)
        return server, client

    def served(self, client, name="add"):
        index = client.get_model_repository_index()
        return sorted(m["version"] for m in index if m["name"] == name and m["state"] == "READY")

    def write_config(self, text):
        with open(os.path.join(self.folder, "add", "config.pbtxt"), "w") as file:
            file.write(text)

    def test_the_newest_version_is_served_unless_more_are_asked_for(self):
        _, client = self.serve()
        self.assertEqual(self.served(client), ["10"])
        _, client = self.serve("--versions", "2")
        self.assertEqual(self.served(client), ["10", "2"])
        _, client = self.serve("--versions", "all")
        self.assertEqual(self.served(client), ["1", "10", "2"])
        self.assertTrue(client.is_model_ready("add", "1"))

    def test_a_policy_beside_the_model_wins(self):
        self.write_config("version_policy { specific { versions: [1, 2] } }")
        server, client = self.serve("--versions", "all")
        self.assertEqual(self.served(client), ["1", "2"])
        self.write_config("version_policy { latest {} }")
        server.process.send_signal(signal.SIGHUP)
        harness.wait_until(lambda: self.served(client) == ["10"], server)

    def test_a_load_request_brings_a_policy_and_files(self):
        from tritonclient.utils import InferenceServerException

        _, client = self.serve()
        client.load_model("add", config='{"version_policy": {"all": {}}, "max_batch_size": 0}')
        self.assertEqual(self.served(client), ["1", "10", "2"])
        self.assertEqual(client.get_model_config("add")["max_batch_size"], 0)
        client.load_model("add")
        self.assertEqual(self.served(client), ["10"])

        with open(os.path.join(self.folder, "add", "1", "model.onnx"), "rb") as file:
            model = file.read()
        client.load_model("sent", config="{}", files={"file:7/model.onnx": model})
        self.assertEqual(self.served(client, "sent"), ["7"])
        for config, files, expected in [
            (None, {"file:1/model.onnx": model}, "together with"),
            ("{}", {"file:../model.onnx": model}, "expected VERSION/NAME"),
            ('{"name": "other"}', {"file:1/model.onnx": model}, 'the name is "other"'),
            ("{}", {"file:1/model.onnx": model[:40]}, "failed to load"),
        ]:
            with self.assertRaisesRegex(InferenceServerException, expected):
                client.load_model("add", config=config, files=files)
            # What was there goes on serving.
            self.assertTrue(client.is_model_ready("add", "10"))


if __name__ == "__main__":
    unittest.main()
