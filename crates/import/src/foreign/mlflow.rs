//! MLflow's model folders: a file `MLmodel` in YAML says what lies beside it.

use std::collections::BTreeMap;
use std::path::Path;

use model::{Signature, TensorSpec};
use serde::Deserialize;
use serde_json::Value;

use super::{Found, Version, inside, invalid, read_description};
use crate::Error;

/// The part of `MLmodel` that is of use here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct MlModel {
    flavors: BTreeMap<String, Value>,
    signature: Option<BTreeMap<String, Value>>,
    run_id: Option<Value>,
    model_uuid: Option<Value>,
    mlflow_version: Option<Value>,
    utc_time_created: Option<Value>,
    metadata: Option<BTreeMap<String, Value>>,
}

/// The one model of a folder.
pub fn folder(path: &Path) -> Result<Found, Error> {
    Ok(Found { versions: vec![version(path, None)?], ..Found::default() })
}

/// What is in a model folder, as a version.
pub fn version(folder: &Path, number: Option<String>) -> Result<Version, Error> {
    let path = folder.join("MLmodel");
    let description = read(&read_description(&path)?).map_err(|e| e.at(path.display()))?;
    let file = description.onnx_file().and_then(|name| inside(folder, &name));
    let mut version = Version::new(number, file.map_err(|error| error.at(path.display())));
    version.metadata = description.facts();
    if folder.join("requirements.txt").is_file() {
        let name = "mlflow-requirements.txt".to_owned();
        version.attachments.push((name, folder.join("requirements.txt")));
    }
    Ok(version)
}

/// Reads an `MLmodel`. Anchors are expanded only so often: a small file cannot fill the memory.
pub fn read(text: &str) -> Result<MlModel, Error> {
    let limits = serde_saphyr::alias_limits! {
        max_total_replayed_events: 10_000,
        max_replay_stack_depth: 8,
        max_alias_expansions_per_anchor: 100,
    };
    let options = serde_saphyr::options! { alias_limits: limits };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        // The first line says what; the rest draws the place.
        let text = error.to_string();
        invalid(format!("cannot be read: {}", text.lines().next().unwrap_or_default()))
    })
}

impl MlModel {
    /// The name of the ONNX file in the folder.
    fn onnx_file(&self) -> Result<String, Error> {
        let Some(onnx) = self.flavors.get("onnx") else { return Err(self.no_onnx()) };
        match onnx.get("data") {
            None | Some(Value::Null) => Ok("model.onnx".to_owned()),
            Some(Value::String(name)) => Ok(name.clone()),
            Some(other) => {
                Err(invalid(format!("flavors.onnx.data: expected a file's name, got {other}")))
            }
        }
    }

    /// Why a model without the flavor `onnx` is not taken, and what would help.
    fn no_onnx(&self) -> Error {
        let known = |name: &&String| *name != "python_function";
        let names: Vec<&String> = self.flavors.keys().filter(known).collect();
        let has = |name: &str| names.iter().any(|known| *known == name);
        let help = if has("sklearn") {
            "convert the model with skl2onnx"
        } else if has("lightgbm") || has("xgboost") || has("catboost") {
            "convert the model with onnxmltools, or CatBoost's save_model(format=\"onnx\"),"
        } else if has("pytorch") {
            "export the model with torch.onnx.export"
        } else if has("tensorflow") || has("keras") {
            "convert the model with tf2onnx"
        } else if has("transformers") {
            "export the model with optimum-cli export onnx"
        } else if names.is_empty() && self.flavors.is_empty() {
            return invalid("has no flavors: it is no model, or not a whole one");
        } else if names.is_empty() {
            "it is Python code, which is never run; export what it computes to ONNX"
        } else {
            "export the model to ONNX"
        };
        let named = match &names[..] {
            [] => "only the flavor python_function".to_owned(),
            [one] => format!("the flavor {one}"),
            many => format!("the flavors {many:?}"),
        };
        invalid(format!(
            "has {named}, and only onnx can be imported: {help} and log it with \
             mlflow.onnx.log_model"
        ))
    }

    /// What is worth keeping, as metadata.
    fn facts(&self) -> BTreeMap<String, String> {
        let mut facts = BTreeMap::new();
        for (key, value) in [
            ("mlflow.run_id", &self.run_id),
            ("mlflow.model_uuid", &self.model_uuid),
            ("mlflow.version", &self.mlflow_version),
            ("mlflow.created", &self.utc_time_created),
        ] {
            facts.extend(value.as_ref().and_then(plain).map(|value| (key.to_owned(), value)));
        }
        if let Some(signature) = &self.signature {
            facts.extend(
                serde_json::to_string(signature).map(|text| ("mlflow.signature".to_owned(), text)),
            );
        }
        for (key, value) in self.metadata.iter().flatten() {
            facts.extend(plain(value).map(|value| (key.clone(), value)));
        }
        facts
    }
}

/// A value as metadata has it; nothing for null.
pub fn plain(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// Where MLflow's signature (the metadata `mlflow.signature`) says something else than the model.
/// The model is right.
pub fn disagreements(signature: &str, model: &Signature) -> Vec<String> {
    let Ok(signature) = serde_json::from_str::<BTreeMap<String, Value>>(signature) else {
        return vec!["its MLflow signature cannot be read".to_owned()];
    };
    let mut found = Vec::new();
    for (side, specs) in [("input", &model.inputs), ("output", &model.outputs)] {
        // MLflow keeps each list as JSON in a string.
        let Some(Value::String(text)) = signature.get(&format!("{side}s")) else { continue };
        let Ok(columns) = serde_json::from_str::<Vec<Value>>(text) else {
            found.push(format!("the {side}s of its MLflow signature cannot be read"));
            continue;
        };
        for column in &columns {
            // Whoever logs an array names nothing.
            let Some(name) = column.get("name").and_then(Value::as_str) else { continue };
            match specs.iter().find(|spec| &*spec.name == name) {
                Some(spec) => found.extend(differs(side, spec, column)),
                None => found.push(format!(
                    "its MLflow signature has an {side} \"{}\", which the model has not",
                    name.chars().take(100).collect::<String>().escape_debug()
                )),
            }
        }
    }
    found
}

fn differs(side: &str, spec: &TensorSpec, column: &Value) -> Option<String> {
    let shape = column.pointer("/tensor-spec/shape")?.as_array()?;
    let shape: Vec<i64> = shape.iter().filter_map(Value::as_i64).collect();
    let ours = spec.extents();
    let fits = spec.shape.is_none()
        || shape.len() == ours.len()
            && shape.iter().zip(&ours).all(|(a, b)| a == b || *a == -1 || *b == -1);
    (!fits).then(|| {
        format!(
            "{side} \"{}\": its MLflow signature has the shape {shape:?}, the model {ours:?}",
            spec.name
        )
    })
}
