//! What MLflow, Triton and TensorFlow Serving keep, as it is found.

use std::path::Path;

use import::foreign::{Layout, Survey, mlflow_disagreements, survey};
use testkit::onnx::models;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> &Self {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, contents).unwrap();
        self
    }

    fn model(&self, name: &str) -> &Self {
        self.write(name, models::double(3))
    }

    fn survey(&self) -> Survey {
        survey(self.path(), None).unwrap()
    }

    #[track_caller]
    fn refused(&self, expected: &str) {
        let error = match survey(self.path(), None) {
            Ok(found) => found.models[0].versions[0].file.clone().unwrap_err(),
            Err(error) => error,
        };
        assert!(error.to_string().contains(expected), "{error}");
    }
}

const MLMODEL: &str = r#"artifact_path: model
flavors:
  onnx:
    code: null
    data: model.onnx
    onnx_version: 1.16.0
    providers: [CUDAExecutionProvider, CPUExecutionProvider]
  python_function:
    data: model.onnx
    env:
      conda: conda.yaml
    loader_module: mlflow.onnx
mlflow_version: 2.9.2
model_uuid: 4b0c
run_id: aaaa
signature:
  inputs: '[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 3]}, "name": "x"}]'
  outputs: '[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}, "name": "y"}]'
  params: null
metadata:
  task: doubling
  note: null
utc_time_created: '2026-01-02 03:04:05.678'
"#;

#[test]
fn an_mlflow_model_is_found() {
    let folder = Folder::new();
    folder.write("MLmodel", MLMODEL).model("model.onnx").write("requirements.txt", "onnx\n");
    let Survey { layout, models } = folder.survey();
    assert_eq!(layout, Layout::Mlflow);
    let [version] = &models[0].versions[..] else { panic!("{models:?}") };
    assert_eq!(version.file.as_ref().unwrap(), &folder.path().join("model.onnx"));
    assert_eq!(version.metadata["task"], "doubling");
    assert_eq!(version.metadata["mlflow.run_id"], "aaaa");
    assert_eq!(version.metadata["mlflow.created"], "2026-01-02 03:04:05.678");
    assert!(!version.metadata.contains_key("note"));
    assert_eq!(version.attachments[0].0, "mlflow-requirements.txt");
    let package = import::open(version.file.as_ref().unwrap()).unwrap();
    let signature = &version.metadata["mlflow.signature"];
    let different = mlflow_disagreements(signature, &package.manifest.signature);
    assert_eq!(different.len(), 1, "{different:?}");
    assert!(different[0].contains("[-1, 2], the model [-1, 3]"), "{different:?}");
}

#[test]
fn other_flavors_are_refused_with_what_would_help() {
    for (flavor, help) in [
        (
            "sklearn",
            "the flavor sklearn, and only onnx can be imported: convert the model with skl2onnx",
        ),
        ("lightgbm", "onnxmltools"),
        ("pytorch", "torch.onnx.export"),
        ("keras", "tf2onnx"),
        ("transformers", "optimum-cli"),
        ("prophet", "export the model to ONNX and log it with mlflow.onnx.log_model"),
        ("python_function", "only the flavor python_function"),
    ] {
        let folder = Folder::new();
        folder.write("MLmodel", format!("flavors:\n  {flavor}:\n    pickled_model: model.pkl\n"));
        folder.refused(help);
    }
    let folder = Folder::new();
    folder.write("MLmodel", "run_id: 1\n").refused("has no flavors");
}

#[test]
fn an_mlmodel_cannot_reach_out_of_its_folder_or_fill_the_memory() {
    let file = |data: &str| format!("flavors:\n  onnx:\n    data: {data}\n");
    for (data, expected) in [
        ("../secret.onnx", "which is not in its folder"),
        ("/etc/passwd", "which is not in its folder"),
        ("''", "which is not in its folder"),
        ("[1]", "expected a file's name"),
        ("gone.onnx", "gone.onnx"),
        ("link.onnx", "a link that leads out of its folder"),
    ] {
        let folder = Folder::new();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link.onnx")).unwrap();
        folder.write("MLmodel", file(data)).refused(expected);
    }
    // A billion laughs, and other texts that are no description.
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let before = format!("*a{},", level - 1).repeat(10);
        bomb.push_str(&format!("a{level}: &a{level} [{before}]\n"));
    }
    bomb.push_str("flavors:\n  onnx:\n    data: *a9\n");
    for text in [bomb, "flavors: [".repeat(1000), "{".repeat(100_000), "\u{0}".into(), "- 1".into()]
    {
        let folder = Folder::new();
        folder.write("MLmodel", &text).refused("cannot be read");
    }
    let folder = Folder::new();
    folder.write("MLmodel", "#".repeat(5 << 20)).refused("at most 4194304 are read");
}

const MODEL_JSON: &str = r#"{
  "system": {"package_version": "1.2.0"},
  "info": {"num_versions": 3},
  "mlflow": {"registered_model": {
    "name": "fraud", "description": "Finds fraud.", "tags": {"team": "risk"},
    "aliases": [{"alias": "champion", "version": "10"}],
    "versions": [
      {"version": "10", "run_id": "bbbb", "source": "mlflow-artifacts:/1/bbbb/artifacts/m/model",
       "description": "better", "current_stage": "Production", "tags": {"ok": "yes"}, "aliases": []},
      {"version": "9", "run_id": "aaaa", "source": "models:/m-123", "current_stage": "None",
       "tags": {"team": "other"}, "aliases": ["old"]},
      {"version": "11", "run_id": "cccc", "source": "s3://b/1/cccc/artifacts/model"}
    ]}}}"#;

const RUN_JSON: &str = r#"{"mlflow": {"info": {}, "params": {"depth": "5"},
    "metrics": {"auc": [{"value": 0.8, "step": 0}, {"value": 0.9, "step": 1}]},
    "tags": {"data": "week 1", "mlflow.source.git.commit": "1a2b", "mlflow.log-model.history": "[]"}}}"#;

#[test]
fn an_export_of_a_registered_model_is_found() {
    let folder = Folder::new();
    folder.write("model.json", MODEL_JSON).write("bbbb/run.json", RUN_JSON);
    folder
        .write("bbbb/artifacts/m/model/MLmodel", MLMODEL)
        .model("bbbb/artifacts/m/model/model.onnx");
    folder.write("bbbb/artifacts/other/MLmodel", "flavors: {}");
    folder
        .write("aaaa/artifacts/some/place/MLmodel", MLMODEL)
        .model("aaaa/artifacts/some/place/model.onnx");
    let Survey { layout, models } = folder.survey();
    assert_eq!(layout, Layout::MlflowExport);
    let [fraud] = &models[..] else { panic!("{models:?}") };
    assert_eq!(fraud.name.as_deref(), Some("fraud"));
    assert_eq!(fraud.description.as_deref(), Some("Finds fraud."));
    let aliases: Vec<_> = fraud.aliases.iter().map(|(a, v)| (a.as_str(), v.as_str())).collect();
    assert_eq!(aliases, [("champion", "10"), ("old", "9")]);
    let numbers: Vec<_> = fraud.versions.iter().map(|v| v.number.as_deref().unwrap()).collect();
    assert_eq!(numbers, ["9", "10", "11"]);
    assert!(fraud.versions[0].file.is_ok());
    assert_eq!(fraud.versions[0].metadata["team"], "other");
    let ten = &fraud.versions[1];
    assert!(ten.file.as_ref().unwrap().ends_with("bbbb/artifacts/m/model/model.onnx"));
    for (key, value) in [
        ("team", "risk"),
        ("ok", "yes"),
        ("param.depth", "5"),
        ("metric.auc", "0.9"),
        ("data", "week 1"),
        ("mlflow.stage", "Production"),
        ("mlflow.run_id", "bbbb"),
    ] {
        assert_eq!(ten.metadata[key], value, "{key}");
    }
    assert_eq!(ten.commit.as_deref(), Some("1a2b"));
    assert_eq!(ten.description.as_deref(), Some("better"));
    let eleven = fraud.versions[2].file.as_ref().unwrap_err().to_string();
    assert!(eleven.contains("its run \"cccc\" was not exported"), "{eleven}");
}

#[test]
fn a_bulk_export_has_its_runs_elsewhere() {
    let folder = Folder::new();
    // The older form, without a wrapper.
    let json = r#"{"registered_model": {"name": "m", "latest_versions": [
        {"version": 1, "run_id": "aaaa", "source": "/mlruns/2/aaaa/artifacts/model"}]}}"#;
    folder.write("models/models/m/model.json", json);
    let place = "models/experiments/2/aaaa/artifacts/model";
    folder.write(&format!("{place}/MLmodel"), MLMODEL).model(&format!("{place}/model.onnx"));
    let found = folder.survey();
    assert!(found.models[0].versions[0].file.is_ok(), "{found:?}");
}

#[test]
fn a_damaged_export_is_refused() {
    for (text, expected) in [
        ("{", "cannot be read"),
        ("{}", "missing field `registered_model`"),
        (r#"{"registered_model": {"name": "m", "versions": [{"version": "x"}]}}"#, "a number"),
        (
            r#"{"registered_model": {"name": "m", "versions": [{"version": "1", "run_id": "../.."}]}}"#,
            "was not exported",
        ),
    ] {
        let folder = Folder::new();
        folder.write("model.json", text).refused(expected);
    }
}

#[test]
fn a_triton_repository_is_found() {
    let folder = Folder::new();
    folder.model("a/2/model.onnx").model("a/10/model.onnx").write("a/3/model.plan", "\0\0");
    folder.write("a/config.pbtxt", "name: \"a\"\nbackend: \"onnxruntime\"");
    folder.write("b/1/model.pt", b"PK\x03\x04 archive/constants.pkl").write("b/config.pbtxt", "");
    folder.write("notes/readme.md", "no model");
    let Survey { layout, models } = folder.survey();
    assert_eq!(layout, Layout::Triton);
    let names: Vec<_> = models.iter().map(|found| found.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["a", "b"]);
    let [two, three, ten] = &models[0].versions[..] else { panic!("{models:?}") };
    assert!(two.file.is_ok() && ten.file.is_ok());
    assert_eq!(ten.number.as_deref(), Some("10"));
    assert_eq!(ten.attachments[0].0, "config.pbtxt");
    let plan = three.file.as_ref().unwrap_err().to_string();
    assert!(plan.contains("model.plan"), "{plan}");
    let torch = models[1].versions[0].file.as_ref().unwrap_err().to_string();
    assert!(torch.contains("TorchScript"), "{torch}");
}

#[test]
fn a_base_path_of_tensorflow_serving_is_found() {
    let folder = Folder::new();
    folder.model("1/model.onnx").write("2/saved_model.pb", "saved_model").write("3/x.txt", "");
    let Survey { layout, models } = folder.survey();
    assert_eq!(layout, Layout::TensorflowServing);
    let [one, two, three] = &models[0].versions[..] else { panic!("{models:?}") };
    assert!(one.file.is_ok());
    let saved = two.file.as_ref().unwrap_err().to_string();
    assert!(saved.contains("SavedModel") && saved.contains("tf2onnx"), "{saved}");
    let other = three.file.as_ref().unwrap_err().to_string();
    assert!(other.contains("has no model.onnx; it holds [\"x.txt\"]"), "{other}");
}

#[test]
fn what_is_none_of_these_is_said() {
    let folder = Folder::new();
    folder.write("x/y.txt", "").refused("nothing that can be imported was found");
    let error = survey(&folder.path().join("gone"), None).unwrap_err().to_string();
    assert!(error.contains("no such folder"), "{error}");
    let error = survey(&folder.path().join("x/y.txt"), None).unwrap_err().to_string();
    assert!(error.contains("modelyard push"), "{error}");
    let error = survey(folder.path(), Some(Layout::TensorflowServing)).unwrap_err().to_string();
    assert!(error.contains("numbered folders"), "{error}");
}
