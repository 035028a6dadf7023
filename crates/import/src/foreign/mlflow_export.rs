//! What the tool mlflow-export-import writes of registered models.
//!
//! ```text
//! FOLDER/model.json                   a registered model and its versions
//! FOLDER/RUN/run.json                 the run that made a version
//! FOLDER/RUN/artifacts/PATH/MLmodel   its model
//! FOLDER/version_models/N/MLmodel     the same, where it was exported with its models
//! ```
//!
//! Its bulk export has `models/NAME/model.json`, and the runs in `experiments/EXPERIMENT/RUN`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::mlflow::plain;
use super::{Found, Version, inside, invalid, mlflow, read_description};
use crate::{Error, repository};

/// How many parameters, measures and tags of a run are kept.
const MAX_FACTS: usize = 500;

#[derive(Deserialize)]
struct Exported {
    registered_model: RegisteredModel,
}

#[derive(Deserialize)]
struct RegisteredModel {
    name: String,
    description: Option<String>,
    #[serde(default)]
    tags: Value,
    #[serde(default)]
    aliases: Value,
    #[serde(default, alias = "latest_versions")]
    versions: Vec<ModelVersion>,
}

#[derive(Deserialize)]
struct ModelVersion {
    version: Value,
    run_id: Option<String>,
    #[serde(default)]
    source: String,
    description: Option<String>,
    current_stage: Option<String>,
    #[serde(default)]
    tags: Value,
    #[serde(default)]
    aliases: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Run {
    params: BTreeMap<String, Value>,
    metrics: BTreeMap<String, Value>,
    tags: BTreeMap<String, Value>,
}

/// The files that describe a registered model, at a path.
pub fn descriptions(path: &Path) -> Vec<PathBuf> {
    let own = path.join("model.json");
    if own.is_file() {
        return vec![own];
    }
    let inner = [path.join("models"), path.join("models/models"), path.to_owned()];
    let files = inner.iter().flat_map(|folder| {
        let folders = repository::folders(folder).unwrap_or_default();
        folders.into_iter().map(|folder| folder.join("model.json")).filter(|file| file.is_file())
    });
    let mut files: Vec<PathBuf> = files.collect();
    files.sort();
    files.dedup();
    files
}

/// The registered models of an export.
pub fn models(path: &Path) -> Result<Vec<Found>, Error> {
    let descriptions = descriptions(path);
    if descriptions.is_empty() {
        let message = "has no model.json; expected what export-model or export-models wrote";
        return Err(invalid(message).at(path.display()));
    }
    descriptions.iter().map(|file| model(file)).collect()
}

fn model(file: &Path) -> Result<Found, Error> {
    let exported: Exported = read_json(file)?;
    let folder = file.parent().unwrap_or(Path::new("."));
    let RegisteredModel { name, description, tags, aliases, versions } = exported.registered_model;
    let mut found = Found { name: Some(name), description, ..Found::default() };
    let tags = pairs(&tags);
    found.aliases.extend(pairs(&aliases));
    let mut versions: Vec<(u64, ModelVersion)> = versions
        .into_iter()
        .map(|version| {
            let text = plain(&version.version).unwrap_or_default();
            let number = text.parse().map_err(|_| {
                invalid(format!("version {text:?}: expected a number")).at(file.display())
            })?;
            Ok((number, version))
        })
        .collect::<Result<_, Error>>()?;
    versions.sort_by_key(|(number, _)| *number);
    for (number, exported) in versions {
        let number = number.to_string();
        for alias in exported.aliases.as_array().into_iter().flatten().filter_map(Value::as_str) {
            found.aliases.insert(alias.to_owned(), number.clone());
        }
        let mut version = match model_folder(folder, &number, &exported) {
            Ok(folder) => mlflow::version(&folder, Some(number.clone()))
                .unwrap_or_else(|error| Version::new(Some(number.clone()), Err(error))),
            Err(error) => Version::new(Some(number.clone()), Err(error)),
        };
        // What is said of the model counts for each version that does not say otherwise.
        let mut facts: BTreeMap<String, String> = tags.clone().into_iter().collect();
        facts.append(&mut version.metadata);
        if let Some(run) = run_folder(folder, &exported) {
            describe(&run, &mut facts, &mut version.commit);
        }
        facts.extend(pairs(&exported.tags));
        let stage = exported.current_stage.filter(|stage| stage != "None");
        facts.extend(stage.map(|stage| ("mlflow.stage".to_owned(), stage)));
        facts.extend(exported.run_id.map(|run| ("mlflow.run_id".to_owned(), run)));
        version.metadata = facts;
        version.description = exported.description.filter(|text| !text.is_empty());
        found.versions.push(version);
    }
    found.description = found.description.filter(|text| !text.is_empty());
    Ok(found)
}

/// The folder of a version's run.
fn run_folder(folder: &Path, version: &ModelVersion) -> Option<PathBuf> {
    let run = version.run_id.as_deref().filter(|run| !run.is_empty())?;
    if let Ok(found) = inside(folder, run) {
        return Some(found);
    }
    // A bulk export: models/NAME beside, or one folder further up, experiments/EXPERIMENT/RUN.
    let up = folder.parent()?.parent()?;
    [Some(up), up.parent()].into_iter().flatten().find_map(|top| {
        let experiments = repository::folders(&top.join("experiments")).unwrap_or_default();
        experiments.iter().find_map(|experiment| inside(experiment, run).ok())
    })
}

/// The folder of a version's model: its own copy, or what its run has at the source's path, or
/// whatever model the run has, if it has only one.
fn model_folder(folder: &Path, number: &str, version: &ModelVersion) -> Result<PathBuf, Error> {
    let own = folder.join("version_models").join(number);
    if own.join("MLmodel").is_file() {
        return Ok(own);
    }
    let run = version.run_id.as_deref().unwrap_or_default();
    let place = format!("version {number}");
    let Some(folder) = run_folder(folder, version) else {
        let message =
            format!("its run \"{}\" was not exported, and with it its model", run.escape_debug());
        return Err(invalid(message).at(place));
    };
    let artifacts = folder.join("artifacts");
    let after_run = version.source.split_once(run).map(|(_, rest)| rest.trim_matches('/'));
    let path = after_run.map(|rest| rest.strip_prefix("artifacts/").unwrap_or(rest));
    if let Some(found) = path.and_then(|path| inside(&artifacts, path).ok())
        && found.join("MLmodel").is_file()
    {
        return Ok(found);
    }
    let mut found = Vec::new();
    find_models(&artifacts, 3, &mut found);
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(invalid(format!("{} has no MLmodel", artifacts.display())).at(place)),
        _ => Err(invalid(format!(
            "{} has several models, and none is at \"{}\"",
            artifacts.display(),
            version.source.escape_debug()
        ))
        .at(place)),
    }
}

fn find_models(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    if folder.join("MLmodel").is_file() {
        found.push(folder.to_owned());
    } else if depth > 0 {
        for inner in repository::folders(folder).unwrap_or_default() {
            find_models(&inner, depth - 1, found);
        }
    }
}

/// What a run says of the model that it made. One that cannot be read says nothing: the model is
/// there all the same.
fn describe(folder: &Path, facts: &mut BTreeMap<String, String>, commit: &mut Option<String>) {
    let Ok(run) = read_json::<Run>(&folder.join("run.json")) else { return };
    for (name, value) in run.params.iter().take(MAX_FACTS) {
        facts.extend(plain(value).map(|value| (format!("param.{name}"), value)));
    }
    for (name, values) in run.metrics.iter().take(MAX_FACTS) {
        // Every value that was ever logged, oldest first.
        let last = values.as_array().and_then(|values| values.last()?.get("value"));
        facts.extend(last.or(Some(values)).and_then(plain).map(|v| (format!("metric.{name}"), v)));
    }
    for (name, value) in run.tags.iter().take(MAX_FACTS) {
        match &**name {
            "mlflow.source.git.commit" => *commit = plain(value),
            // How MLflow itself came by it: long, and of no use elsewhere.
            name if name.starts_with("mlflow.") => {}
            name => facts.extend(plain(value).map(|value| (name.to_owned(), value))),
        }
    }
}

/// Tags and aliases are maps, or lists of `{key, value}` and `{alias, version}`.
fn pairs(value: &Value) -> Vec<(String, String)> {
    match value {
        Value::Object(map) => {
            map.iter().filter_map(|(key, value)| Some((key.clone(), plain(value)?))).collect()
        }
        Value::Array(list) => list
            .iter()
            .filter_map(|pair| {
                let key = pair.get("key").or(pair.get("alias"))?.as_str()?;
                let value = pair.get("value").or(pair.get("version"))?;
                Some((key.to_owned(), plain(value)?))
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// What is in an export's file: the newer ones wrap it up in `mlflow`.
fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = read_description(path)?;
    let failed = |error| invalid(format!("cannot be read: {error}")).at(path.display());
    let mut json: Value = serde_json::from_str(&text).map_err(failed)?;
    let inner = json.get_mut("mlflow").map(Value::take).unwrap_or(json);
    serde_json::from_value(inner).map_err(failed)
}
