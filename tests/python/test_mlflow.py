"""MLflow's own client against a server that follows a registry."""

import filecmp
import os
import pathlib
import tempfile
import unittest

import harness
import models

MLMODEL = """\
artifact_path: model
flavors:
  onnx:
    data: model.onnx
    onnx_version: 1.23.2
  python_function:
    data: model.onnx
    loader_module: mlflow.onnx
"""


class Client(unittest.TestCase):
    """A client, a server and an empty registry for each test."""

    flags = []

    @classmethod
    def setUpClass(cls):
        harness.needs("mlflow", "onnx", "requests")
        # Each test sees what the server says, not what a retry makes of it.
        os.environ.update(
            MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
            MLFLOW_DISABLE_TELEMETRY="true",
            MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false",
        )

    def setUp(self):
        import mlflow

        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.server = self.enterContext(
            harness.Server(["--registry", self.folder / "registry", *self.flags])
        )
        uri = f"http://{self.server.address}"
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        self.mlflow, self.client = mlflow, mlflow.MlflowClient()

    def saved(self, graph=None, extra="first"):
        """An MLflow folder with a model in ONNX."""
        folder = self.folder / f"saved-{extra}"
        models.save(self.folder / f"graphs-{extra}", "m", graph or models.add())
        folder.mkdir()
        (self.folder / f"graphs-{extra}/m/1/model.onnx").rename(folder / "model.onnx")
        (folder / "MLmodel").write_text(MLMODEL)
        (folder / "requirements.txt").write_text(f"onnxruntime\n# {extra}\n")
        (folder / "metadata").mkdir()
        (folder / "metadata/notes.txt").write_text(extra)
        return folder

    def uploaded(self, folder, name):
        """Uploads a folder, or a file, through the artifacts; returns its source."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        source = f"mlflow-artifacts:/{name}"
        repository = get_artifact_repository(source)
        if folder.is_dir():
            repository.log_artifacts(str(folder))
        else:
            repository.log_artifact(str(folder))
        return source

    def created(self, name="fraud", extra="first", **more):
        """A version of a model that is made if it is not there."""
        if not [m for m in self.client.search_registered_models() if m.name == name]:
            self.client.create_registered_model(name)
        source = self.uploaded(self.saved(extra=extra), f"{name}-{extra}")
        return self.client.create_model_version(name, source, **more)

    def refusal(self, code, says, call, *args, **more):
        with self.assertRaises(self.mlflow.MlflowException) as caught:
            call(*args, **more)
        self.assertEqual(caught.exception.error_code, code, str(caught.exception))
        self.assertIn(says, str(caught.exception))


class Mlflow(Client):
    def test_a_folder_becomes_a_version_that_comes_back_as_it_was(self):
        made = self.client.create_registered_model("fraud", {"team": "risk"}, "Finds fraud.")
        self.assertEqual((made.name, made.description, made.tags), ("fraud", "Finds fraud.", {"team": "risk"}))
        self.assertEqual(made.latest_versions, [])
        folder = self.saved()
        source = self.uploaded(folder, "weekly")
        version = self.client.create_model_version(
            "fraud", source, tags={"auc": "0.93"}, description="first", run_id="run-1", run_link="http://x/1"
        )
        self.assertEqual((version.version, version.status, version.description), ("1", "READY", "first"))
        self.assertEqual((version.run_id, version.run_link, version.source), ("run-1", "http://x/1", source))
        self.assertEqual((version.tags, version.current_stage), ({"auc": "0.93"}, "None"))
        self.client.set_registered_model_alias("fraud", "champion", 1)

        for uri in ("models:/fraud@champion", "models:/fraud/1", "models:/fraud/latest"):
            got = pathlib.Path(self.mlflow.artifacts.download_artifacts(uri))
            for name in ("model.onnx", "MLmodel", "requirements.txt", "metadata/notes.txt"):
                self.assertEqual((got / name).read_bytes(), (folder / name).read_bytes(), name)
            self.assertIn("fraud", (got / "registered_model_meta").read_text())
        one = self.mlflow.artifacts.download_artifacts("models:/fraud/1/metadata/notes.txt")
        self.assertTrue(filecmp.cmp(one, folder / "metadata/notes.txt", shallow=False))
        listed = self.mlflow.artifacts.list_artifacts("models:/fraud/1")
        self.assertEqual([(f.path, f.is_dir) for f in listed], [
            ("MLmodel", False), ("metadata", True), ("model.onnx", False), ("requirements.txt", False),
        ])
        # And it is served, without anybody doing more.
        import requests

        ready = f"http://{self.server.address}/v2/models/fraud/ready"
        harness.wait_until(lambda: requests.get(ready).status_code == 200, self.server)

    def test_what_modelyard_pushes_can_be_seen_and_fetched(self):
        import requests

        model = self.saved() / "model.onnx"
        url = f"http://{self.server.address}/v2/registry/models/fraud/versions"
        headers = {"content-type": "application/octet-stream", "modelyard-by": "ada"}
        params = {"alias": "champion", "meta.auc": "0.9"}
        pushed = requests.post(url, params=params, data=model.read_bytes(), headers=headers)
        self.assertEqual(pushed.status_code, 201, pushed.text)
        version = self.client.get_model_version_by_alias("fraud", "champion")
        self.assertEqual((version.version, version.user_id, version.tags), ("1", "ada", {"auc": "0.9"}))
        self.assertEqual(version.aliases, ["champion"])
        self.assertEqual(
            self.client.get_model_version_download_uri("fraud", "1"), "mlflow-artifacts:/models/fraud/1"
        )
        got = pathlib.Path(self.mlflow.artifacts.download_artifacts("models:/fraud@champion"))
        self.assertEqual((got / "model.onnx").read_bytes(), model.read_bytes())

    def test_register_model_makes_the_model_and_then_its_versions(self):
        source = self.uploaded(self.saved(), "one")
        first = self.mlflow.register_model(source, "fraud", tags={"by": "register"})
        second = self.mlflow.register_model(source, "fraud")
        self.assertEqual((first.version, second.version, first.tags), ("1", "2", {"by": "register"}))
        copied = self.client.copy_model_version("models:/fraud/1", "ads")
        self.assertEqual((copied.name, copied.version), ("ads", "1"))
        # A single file is a model too.
        file = self.uploaded(self.saved(extra="file") / "model.onnx", "file") + "/model.onnx"
        self.assertEqual(self.mlflow.register_model(file, "fraud").version, "3")

    def test_aliases_and_tags_move(self):
        self.created(tags={"auc": "0.9"})
        self.created(extra="second")
        client = self.client
        client.set_registered_model_alias("fraud", "champion", "1")
        client.set_registered_model_alias("fraud", "candidate", "2")
        self.assertEqual(client.get_registered_model("fraud").aliases, {"champion": "1", "candidate": "2"})
        client.set_registered_model_alias("fraud", "champion", "2")
        self.assertEqual(client.get_model_version("fraud", "2").aliases, ["candidate", "champion"])
        client.delete_registered_model_alias("fraud", "candidate")
        client.delete_registered_model_alias("fraud", "candidate")
        self.refusal("RESOURCE_DOES_NOT_EXIST", "no alias", client.get_model_version_by_alias, "fraud", "candidate")

        client.set_model_version_tag("fraud", "1", "validation", "passed")
        client.set_model_version_tag("fraud", "1", "auc", "0.95")
        self.assertEqual(client.get_model_version("fraud", "1").tags, {"validation": "passed", "auc": "0.95"})
        client.delete_model_version_tag("fraud", "1", "validation")
        client.delete_model_version_tag("fraud", "1", "auc")
        self.assertEqual(client.get_model_version("fraud", "1").tags, {"auc": "0.9"})
        self.refusal("RESOURCE_CONFLICT", "stays with it", client.delete_model_version_tag, "fraud", "1", "auc")
        client.update_model_version("fraud", "1", "better words")
        self.assertEqual(client.get_model_version("fraud", "1").description, "better words")
        client.set_registered_model_tag("fraud", "team", "risk")
        client.update_registered_model("fraud", "all of it")
        model = client.get_registered_model("fraud")
        self.assertEqual((model.tags, model.description), ({"team": "risk"}, "all of it"))
        client.delete_registered_model_tag("fraud", "team")
        self.assertEqual(client.get_registered_model("fraud").tags, {})

    def test_searches_filter_order_and_page(self):
        client = self.client
        for name in ("ads", "fraud", "spam"):
            client.create_registered_model(name, {"kind": name[0]})
        names = lambda *args, **more: [m.name for m in client.search_registered_models(*args, **more)]
        self.assertEqual(names(), ["ads", "fraud", "spam"])
        self.assertEqual(names("name LIKE '%a%'", order_by=["name DESC"]), ["spam", "fraud", "ads"])
        self.assertEqual(names("tags.kind = 'f'"), ["fraud"])
        page = client.search_registered_models(max_results=2)
        self.assertEqual([m.name for m in page], ["ads", "fraud"])
        rest = client.search_registered_models(max_results=2, page_token=page.token)
        self.assertEqual(([m.name for m in rest], rest.token or None), (["spam"], None))

        source = self.uploaded(self.saved(), "one")
        for n in range(5):
            client.create_model_version("fraud", source, tags={"n": str(n)}, run_id=f"run-{n % 2}")
        client.create_model_version("ads", source)
        found = lambda *args, **more: [(v.name, v.version) for v in client.search_model_versions(*args, **more)]
        self.assertEqual(found("name = 'fraud'"), [("fraud", str(n)) for n in (5, 4, 3, 2, 1)])
        self.assertEqual(found("run_id = 'run-1'"), [("fraud", "4"), ("fraud", "2")])
        self.assertEqual(found("name = 'fraud' AND tags.n = '3'"), [("fraud", "4")])
        self.assertEqual(found("name IN ('ads', 'spam')"), [("ads", "1")])
        self.assertEqual(found(order_by=["version_number ASC", "name DESC"])[:2], [("fraud", "1"), ("ads", "1")])
        page = client.search_model_versions("name = 'fraud'", max_results=2)
        second = client.search_model_versions("name = 'fraud'", max_results=2, page_token=page.token)
        self.assertEqual([v.version for v in [*page, *second]], ["5", "4", "3", "2"])
        self.assertEqual([v.version for v in client.get_latest_versions("fraud")], ["5"])
        self.assertEqual(client.get_registered_model("fraud").latest_versions[0].version, "5")
        self.refusal("INVALID_PARAMETER_VALUE", "expected one of", client.search_model_versions, "size = 'x'")
        self.refusal("INVALID_PARAMETER_VALUE", "order_by", client.search_model_versions, order_by=["size"])

    def test_versions_and_models_are_deleted(self):
        client = self.client
        self.created()
        self.created(extra="second")
        client.set_registered_model_alias("fraud", "champion", "2")
        self.refusal("RESOURCE_CONFLICT", "in use as", client.delete_model_version, "fraud", "2")
        self.refusal("RESOURCE_CONFLICT", "in use as", client.delete_registered_model, "fraud")
        client.delete_model_version("fraud", "1")
        self.refusal("RESOURCE_DOES_NOT_EXIST", "deleted", client.get_model_version, "fraud", "1")
        self.assertEqual([v.version for v in client.search_model_versions("name = 'fraud'")], ["2"])
        client.delete_registered_model_alias("fraud", "champion")
        client.delete_registered_model("fraud")
        self.refusal("RESOURCE_DOES_NOT_EXIST", "fraud", client.get_registered_model, "fraud")
        self.assertEqual(client.search_registered_models(), [])
        # A number is never used again.
        self.assertEqual(self.created(extra="third").version, "3")

    def test_stages_are_two(self):
        self.created()
        client = self.client
        self.assertEqual(client.transition_model_version_stage("fraud", "1", "Archived").current_stage, "Archived")
        self.refusal("RESOURCE_CONFLICT", "archived", client.set_registered_model_alias, "fraud", "champion", "1")
        self.assertEqual(client.transition_model_version_stage("fraud", "1", "None").current_stage, "None")
        self.refusal(
            "NOT_IMPLEMENTED", "use an alias", client.transition_model_version_stage, "fraud", "1", "Production"
        )

    def test_what_cannot_be_is_said_in_mlflows_words(self):
        client = self.client
        self.created()
        source = "mlflow-artifacts:/fraud-first"
        self.refusal("RESOURCE_ALREADY_EXISTS", "already", client.create_registered_model, "fraud")
        self.refusal("INVALID_PARAMETER_VALUE", "characters", client.create_registered_model, "a b")
        self.refusal("INVALID_PARAMETER_VALUE", "longer", client.create_registered_model, "x" * 300)
        self.refusal("RESOURCE_DOES_NOT_EXIST", "no registered model", client.get_registered_model, "no")
        self.refusal("RESOURCE_DOES_NOT_EXIST", "no version 9", client.get_model_version, "fraud", "9")
        self.refusal("INVALID_PARAMETER_VALUE", "expected a number", client.get_model_version, "fraud", "x")
        self.refusal("RESOURCE_DOES_NOT_EXIST", "no version 9", client.set_registered_model_alias, "fraud", "a", "9")
        self.refusal("INVALID_PARAMETER_VALUE", "is a number", client.set_registered_model_alias, "fraud", "7", "1")
        self.refusal("RESOURCE_DOES_NOT_EXIST", "no registered model", client.create_model_version, "no", source)
        self.refusal("RESOURCE_DOES_NOT_EXIST", "no upload", client.create_model_version, "fraud", "mlflow-artifacts:/no")
        for wrong in ("s3://bucket/x", "file:///etc", "/etc/passwd"):
            self.refusal("INVALID_PARAMETER_VALUE", "uploaded to this server", client.create_model_version, "fraud", wrong)
        self.refusal("INVALID_PARAMETER_VALUE", "dot", client.create_model_version, "fraud", source + "/../other")
        self.refusal("NOT_IMPLEMENTED", "renamed", client.rename_registered_model, "fraud", "other")
        self.refusal("ENDPOINT_NOT_FOUND", "no experiments", client.search_experiments)
        self.refusal("ENDPOINT_NOT_FOUND", "webhooks", client.list_webhooks)
        self.refusal("INVALID_PARAMETER_VALUE", "description", client.set_model_version_tag, "fraud", "1", "description", "x")
        pickled = self.saved(extra="pickled")
        (pickled / "model.pkl").write_bytes(b"not opened anyway")
        source = self.uploaded(pickled, "pickled")
        self.refusal("NOT_IMPLEMENTED", "model.pkl", client.create_model_version, "fraud", source)
        (self.folder / "text.onnx").write_text("this is no model")
        source = self.uploaded(self.folder / "text.onnx", "text")
        self.refusal("INVALID_PARAMETER_VALUE", "text.onnx", client.create_model_version, "fraud", source)
        self.assertEqual(len(client.search_model_versions("name = 'fraud'")), 1)

    def test_the_files_of_versions_cannot_be_overwritten(self):
        import requests

        self.created()
        base = f"http://{self.server.address}/api/2.0/mlflow-artifacts/artifacts"
        for path in ("models/fraud/1/model.onnx", "models/fraud/2/model.onnx"):
            self.assertEqual(requests.put(f"{base}/{path}", data=b"x").status_code, 403, path)
        for path in ("up", "up/.x", "up/a%2f..%2fb", "..%2fx/y"):
            self.assertEqual(requests.put(f"{base}/{path}", data=b"x").status_code, 400, path)
        page = {"origin": "https://example.org"}
        self.assertEqual(requests.put(f"{base}/up/x", data=b"x", headers=page).status_code, 403)
        self.assertEqual(requests.get(f"{base}/models/fraud/1/model.onnx").status_code, 200)


class Remote(Client):
    """A server whose owner did not say that callers may change the registry."""

    flags = ["--model-control", "false"]

    def test_it_shows_but_does_not_change(self):
        self.assertEqual(self.client.search_registered_models(), [])
        says = "--model-control"
        self.refusal("PERMISSION_DENIED", says, self.client.create_registered_model, "fraud")


if __name__ == "__main__":
    unittest.main()
