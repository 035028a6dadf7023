//! Model versions.

use std::path::Path;
use std::sync::Arc;

use ::registry::{Described, Reference, Registry, Selector, Stage, check_file};
use axum::extract::State;
use hyper::Uri;
use model::ErrorCode;
use serde::Deserialize;
use serde_json::{Value, json as value};

use super::super::registry::extract::{Asked, Change, Json, Look, access, number};
use super::super::registry::publish::{About, publish_folder};
use super::filter::{Found, Subject};
use super::models::{entry, nothing};
use super::{Answer, DESCRIPTION, Key, Search, Tag, check_tag, invalid, json, tags};
use crate::error::Failure;
use crate::{Access, Api};

/// What MLflow knows of a version's origin, kept among its metadata.
const SOURCE: &str = "mlflow.source";
const RUN_ID: &str = "mlflow.run_id";
const RUN_LINK: &str = "mlflow.run_link";
const MODEL_ID: &str = "mlflow.model_id";

/// What is known of a version, and is none of its tags to MLflow.
const FACTS: [&str; 8] = [
    SOURCE,
    RUN_ID,
    RUN_LINK,
    MODEL_ID,
    "mlflow.model_uuid",
    "mlflow.version",
    "mlflow.created",
    "mlflow.signature",
];

/// A version as MLflow writes it.
fn shown(version: &Described) -> Value {
    let Described { summary, metadata, notes, .. } = version;
    let known = |key: &str| metadata.get(key).map_or("", String::as_str);
    let description = notes.get(DESCRIPTION).map_or(known(DESCRIPTION), String::as_str);
    let metadata = metadata.iter().filter(|(key, _)| !FACTS.contains(&&***key));
    // A note that was made later is what counts.
    let metadata = metadata.filter(|(key, _)| !notes.contains_key(*key));
    value!({
        "name": summary.model,
        "version": summary.number.to_string(),
        "creation_timestamp": summary.published.as_millisecond(),
        "last_updated_timestamp": version.moved.as_millisecond(),
        "user_id": summary.who,
        "current_stage": stage(summary.stage),
        "description": description,
        "source": match known(SOURCE) {
            "" => location(&summary.model, summary.number),
            source => source.to_owned(),
        },
        "run_id": known(RUN_ID),
        "run_link": known(RUN_LINK),
        "model_id": known(MODEL_ID),
        "status": "READY",
        "tags": tags(metadata.chain(notes)),
        "aliases": summary.aliases,
    })
}

/// MLflow's stages are no longer recommended: aliases have taken the place of all but one.
fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Active => "None",
        Stage::Archived => "Archived",
        Stage::Deleted | Stage::Purged => "Deleted_Internal",
    }
}

/// Where MLflow's clients find a version's files: at this server.
fn location(model: &str, number: u64) -> String {
    format!("mlflow-artifacts:/models/{model}/{number}")
}

/// The version that a reference means, if it is there as far as MLflow is concerned.
async fn found(registry: &Registry, reference: &Reference) -> Result<Described, Failure> {
    let number = match &reference.version {
        Selector::Number(number) => *number,
        Selector::Alias(_) => registry.resolve(reference).await?.number,
    };
    let version = registry.describe_version(&reference.model, number).await?;
    if version.is_there() {
        return Ok(version);
    }
    let message = format!("version {number} of \"{}\" was deleted", reference.model);
    Err(Failure::new(ErrorCode::NotFound, message))
}

pub(super) async fn described(
    registry: &Registry,
    reference: &Reference,
) -> Result<Value, Failure> {
    Ok(shown(&found(registry, reference).await?))
}

/// A version by its number.
#[derive(Deserialize)]
pub(super) struct Numbered {
    name: String,
    version: String,
}

impl Numbered {
    fn reference(&self) -> Result<Reference, Failure> {
        let version = Selector::Number(number(&self.version)?);
        Ok(Reference { model: self.name.clone(), version })
    }
}

async fn one(registry: &Registry, reference: &Reference) -> Answer {
    Ok(json(&value!({ "model_version": described(registry, reference).await? })))
}

pub(super) async fn get(Look(registry): Look, Asked(asked): Asked<Numbered>) -> Answer {
    one(&registry, &asked.reference()?).await
}

#[derive(Deserialize)]
pub(super) struct Aliased {
    name: String,
    alias: String,
}

pub(super) async fn by_alias(Look(registry): Look, Asked(asked): Asked<Aliased>) -> Answer {
    let reference = Reference { model: asked.name, version: Selector::Alias(asked.alias) };
    one(&registry, &reference).await
}

pub(super) async fn download_uri(Look(registry): Look, Asked(asked): Asked<Numbered>) -> Answer {
    let version = found(&registry, &asked.reference()?).await?.summary;
    Ok(json(&value!({ "artifact_uri": location(&version.model, version.number) })))
}

/// What versions are searched by, and ordered by.
const ATTRIBUTES: [&str; 6] = [
    "name",
    "version_number",
    "run_id",
    "source_path",
    "creation_timestamp",
    "last_updated_timestamp",
];
const ORDERS: [&str; 4] =
    ["name", "version_number", "creation_timestamp", "last_updated_timestamp"];

pub(super) async fn search(Look(registry): Look, uri: Uri) -> Answer {
    let search = Search::parse(&uri, 200_000, &ATTRIBUTES, &ORDERS)?;
    let mut found = registry.describe(search.filter.exactly("name")).await?;
    found.retain(|version| {
        version.is_there() && search.filter.holds(|what| value_of(version, what))
    });
    found.sort_by(|a, b| {
        let order = search.compare(a, b, key);
        let order = order.then_with(|| a.summary.model.cmp(&b.summary.model));
        order.then_with(|| b.summary.number.cmp(&a.summary.number))
    });
    let (part, next) = search.page(found, shown);
    Ok(json(&value!({ "model_versions": part, "next_page_token": next })))
}

fn value_of<'a>(version: &'a Described, subject: &Subject) -> Found<'a> {
    let known = |key: &str| {
        let value = version.notes.get(key).or_else(|| version.metadata.get(key));
        value.map_or(Found::Nothing, |value| Found::Text(value))
    };
    match subject {
        Subject::Tag(key) => known(key),
        Subject::Attribute(name) => match &**name {
            "name" => Found::Text(&version.summary.model),
            "run_id" => known(RUN_ID),
            "source_path" => known(SOURCE),
            other => match key(version, other) {
                Key::Number(number) => Found::Number(number),
                Key::Text(_) => Found::Nothing,
            },
        },
    }
}

fn key(version: &Described, attribute: &str) -> Key {
    match attribute {
        "version_number" => Key::Number(version.summary.number.try_into().unwrap_or(i64::MAX)),
        "creation_timestamp" => Key::Number(version.summary.published.as_millisecond()),
        "last_updated_timestamp" => Key::Number(version.moved.as_millisecond()),
        _ => Key::Text(version.summary.model.clone()),
    }
}

#[derive(Deserialize)]
pub(super) struct Latest {
    name: String,
    #[serde(default)]
    stages: Vec<String>,
}

/// The newest version of each stage.
pub(super) async fn latest(Look(registry): Look, Json(asked): Json<Latest>) -> Answer {
    newest(&registry, asked).await
}

/// The same, asked for in the query.
pub(super) async fn latest_asked(Look(registry): Look, uri: Uri) -> Answer {
    let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri);
    let mut asked = Latest { name: String::new(), stages: Vec::new() };
    for (key, value) in pairs.map_err(|error| invalid(error.body_text()))?.0 {
        match &*key {
            "name" => asked.name = value,
            "stages" => asked.stages.push(value),
            _ => {}
        }
    }
    newest(&registry, asked).await
}

async fn newest(registry: &Registry, asked: Latest) -> Answer {
    entry(registry, &asked.name).await?;
    let stages = asked.stages.iter().map(|stage| ours(stage)).collect::<Result<Vec<_>, _>>()?;
    let stages = if stages.is_empty() { vec![Stage::Active, Stage::Archived] } else { stages };
    let versions = registry.describe(Some(&asked.name)).await?;
    let newest = |stage: &Stage| {
        let versions = versions.iter().filter(|version| version.summary.stage == *stage);
        versions.max_by_key(|version| version.summary.number).map(shown)
    };
    let newest: Vec<Value> = stages.iter().filter_map(newest).collect();
    Ok(json(&value!({ "model_versions": newest })))
}

/// The stage that MLflow calls so.
fn ours(name: &str) -> Result<Stage, Failure> {
    match &*name.to_lowercase() {
        "none" => Ok(Stage::Active),
        "archived" => Ok(Stage::Archived),
        _ => {
            let shown: String = name.chars().take(40).collect();
            let message = format!(
                "there is no stage {shown:?} here, only None and Archived; use an alias such as \
                 champion or candidate"
            );
            Err(Failure::new(ErrorCode::Unimplemented, message))
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Transition {
    name: String,
    version: String,
    stage: String,
}

pub(super) async fn transition(change: Change, Json(asked): Json<Transition>) -> Answer {
    let reference = Numbered { name: asked.name, version: asked.version }.reference()?;
    let (registry, by) = (&change.registry, change.by(String::new(), None));
    let summary = found(registry, &reference).await?.summary;
    match ours(&asked.stage)? {
        to if to == summary.stage => {}
        Stage::Archived => drop(registry.archive(&summary.model, summary.number, &by).await?),
        _ => drop(registry.restore(&summary.model, summary.number, &by).await?),
    }
    one(registry, &reference).await
}

#[derive(Deserialize)]
pub(super) struct Update {
    name: String,
    version: String,
    #[serde(default)]
    description: String,
}

pub(super) async fn update(change: Change, Json(asked): Json<Update>) -> Answer {
    let reference = Numbered { name: asked.name, version: asked.version }.reference()?;
    let (registry, by) = (&change.registry, change.by(String::new(), None));
    let summary = found(registry, &reference).await?.summary;
    let text = Some(asked.description);
    registry.note(&summary.model, Some(summary.number), DESCRIPTION, text, &by).await?;
    one(registry, &reference).await
}

/// Deletes a version, which can be undone for a week; refused while it has an alias or traffic.
pub(super) async fn delete(change: Change, Json(asked): Json<Numbered>) -> Answer {
    let (registry, by) = (&change.registry, change.by(String::new(), None));
    let summary = found(registry, &asked.reference()?).await?.summary;
    registry.delete(&summary.model, summary.number, &by).await?;
    Ok(nothing())
}

#[derive(Deserialize)]
pub(super) struct SetTag {
    name: String,
    version: String,
    key: String,
    #[serde(default)]
    value: String,
}

pub(super) async fn set_tag(change: Change, Json(asked): Json<SetTag>) -> Answer {
    check_tag(&asked.key)?;
    let reference = Numbered { name: asked.name, version: asked.version }.reference()?;
    let (registry, by) = (&change.registry, change.by(String::new(), None));
    let summary = found(registry, &reference).await?.summary;
    let (version, value) = (Some(summary.number), Some(asked.value));
    registry.note(&summary.model, version, &asked.key, value, &by).await?;
    Ok(nothing())
}

pub(super) async fn delete_tag(change: Change, Json(asked): Json<SetTag>) -> Answer {
    check_tag(&asked.key)?;
    let reference = Numbered { name: asked.name, version: asked.version }.reference()?;
    let (registry, by) = (&change.registry, change.by(String::new(), None));
    let version = found(registry, &reference).await?;
    if version.notes.contains_key(&asked.key) {
        let (model, number) = (&version.summary.model, version.summary.number);
        registry.note(model, Some(number), &asked.key, None, &by).await?;
    } else if version.metadata.contains_key(&asked.key) {
        let message = format!(
            "\"{}\" was given when the version was published, and stays with it; it can be set to \
             something else",
            asked.key
        );
        return Err(Failure::new(ErrorCode::FailedPrecondition, message));
    }
    Ok(nothing())
}

#[derive(Deserialize)]
pub(super) struct Create {
    name: String,
    source: String,
    #[serde(default)]
    run_id: String,
    #[serde(default)]
    run_link: String,
    #[serde(default)]
    model_id: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    tags: Vec<Tag>,
}

/// Publishes a version of what was uploaded through the artifacts, or of another version's files.
pub(super) async fn create(
    change: Change,
    State(api): State<Arc<Api>>,
    Json(asked): Json<Create>,
) -> Answer {
    let access = access(&api)?;
    entry(&change.registry, &asked.name).await?;
    let scratch = access.uploads.scratch()?;
    // What is opened must have a name that a model can have.
    let files = scratch.path().join("model");
    let main = gather(access, &change.registry, &asked.source, &files).await?;
    let given = [
        (SOURCE, asked.source),
        (RUN_ID, asked.run_id),
        (RUN_LINK, asked.run_link),
        (MODEL_ID, asked.model_id),
        (DESCRIPTION, asked.description),
    ];
    let given = given.into_iter().filter(|(_, text)| !text.is_empty());
    let mut metadata: std::collections::BTreeMap<String, String> =
        given.map(|(key, text)| (key.to_owned(), text)).collect();
    for tag in asked.tags {
        check_tag(&tag.key)?;
        metadata.insert(tag.key, tag.value);
    }
    let about = About { main, metadata, ..About::default() };
    let version = publish_folder(access, &change, &asked.name, &files, about).await?;
    let reference = Reference {
        model: version.summary.model,
        version: Selector::Number(version.summary.number),
    };
    one(&change.registry, &reference).await
}

/// Puts what a source means into a new folder, and says which file is to be opened, if that is known.
async fn gather(
    access: &Access,
    registry: &Registry,
    source: &str,
    files: &Path,
) -> Result<Option<String>, Failure> {
    let path = artifact_path(source)?;
    let reference = match path.strip_prefix("models/").and_then(|rest| rest.split_once('/')) {
        Some((model, version)) => Some(format!("{model}:{version}")),
        None => source.strip_prefix("models:/").map(|rest| rest.replacen('/', ":", 1)),
    };
    if let Some(reference) = reference {
        let version = registry.resolve(&reference.parse()?).await?;
        registry.fetch(&version, files).await?;
        return Ok(Some(version.main));
    }
    let (upload, rest) = path.split_once('/').unwrap_or((&path, ""));
    let mut from = access.uploads.folder(upload)?;
    if !rest.is_empty() {
        check_file(rest)?;
        from.push(rest);
    }
    let linked = std::fs::create_dir(files).and_then(|()| link(&from, files));
    linked.map_err(|error| {
        let message = format!("there is nothing uploaded at {source}: {}", error.kind());
        Failure::new(ErrorCode::NotFound, message)
    })?;
    Ok(None)
}

/// The path of an artifact of this server; of `models:/…` it does not matter.
pub(super) fn artifact_path(source: &str) -> Result<String, Failure> {
    let path = match source.split_once("/mlflow-artifacts/artifacts/") {
        Some((server, path)) if server.starts_with("http") => path,
        _ => match source.split_once(":/") {
            Some(("models", _)) => "",
            Some(("mlflow-artifacts", path)) => match path.strip_prefix('/') {
                Some(with_host) => with_host.split_once('/').map_or("", |(_, path)| path),
                None => path,
            },
            _ => {
                let shown: String = source.chars().take(200).collect();
                let message = format!(
                    "source {shown:?}: expected files that were uploaded to this server, \
                     mlflow-artifacts:/UPLOAD/PATH, or another version, models:/NAME/VERSION"
                );
                return Err(invalid(message));
            }
        },
    };
    Ok(path.trim_matches('/').to_owned())
}

/// Links a file, or all files of a folder, into another folder of the same disk.
fn link(from: &Path, to: &Path) -> std::io::Result<()> {
    if from.is_file() {
        return std::fs::hard_link(from, to.join(from.file_name().unwrap_or_default()));
    }
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let folder = to.join(entry.file_name());
            std::fs::create_dir(&folder)?;
            link(&entry.path(), &folder)?;
        } else {
            std::fs::hard_link(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_artifacts_of_this_server() {
        for (source, path) in [
            ("mlflow-artifacts:/up/model", "up/model"),
            ("mlflow-artifacts://host:80/up/model/", "up/model"),
            ("http://host/api/2.0/mlflow-artifacts/artifacts/up", "up"),
            ("models:/fraud/1", ""),
        ] {
            assert_eq!(artifact_path(source).unwrap(), path, "{source}");
        }
        for source in ["", "/tmp/x", "file:///tmp/x", "runs:/1/model", "s3://b/x", "model.onnx"] {
            assert!(artifact_path(source).is_err(), "{source}");
        }
    }
}
