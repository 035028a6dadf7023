//! Registered models.

use ::registry::{Entry, Expected, Reference, Registry, Selector};
use axum::response::Response;
use hyper::Uri;
use model::ErrorCode;
use serde::Deserialize;
use serde_json::{Value, json as value};

use super::super::registry::extract::{Asked, Change, Json, Look, number};
use super::filter::{Found, Subject};
use super::{Answer, DESCRIPTION, Key, Search, Tag, check_tag, json, tags, versions};
use crate::error::Failure;

/// The name of a registered model, and of nothing else.
#[derive(Deserialize)]
pub(super) struct Name {
    pub name: String,
}

#[derive(Deserialize)]
pub(super) struct Create {
    name: String,
    #[serde(default)]
    tags: Vec<Tag>,
    #[serde(default)]
    description: String,
}

/// Says that there will be versions of this name.
pub(super) async fn create(change: Change, Json(asked): Json<Create>) -> Answer {
    let by = change.by(String::new(), None);
    let (registry, name) = (&change.registry, &asked.name);
    asked.tags.iter().try_for_each(|tag| check_tag(&tag.key))?;
    registry.announce(name, true, &by).await?;
    for tag in asked.tags {
        registry.note(name, None, &tag.key, Some(tag.value), &by).await?;
    }
    if !asked.description.is_empty() {
        registry.note(name, None, DESCRIPTION, Some(asked.description), &by).await?;
    }
    one(registry, name).await
}

pub(super) async fn get(Look(registry): Look, Asked(asked): Asked<Name>) -> Answer {
    one(&registry, &asked.name).await
}

async fn one(registry: &Registry, name: &str) -> Answer {
    let entry = entry(registry, name).await?;
    let shown = shown(registry, &entry).await?;
    Ok(json(&value!({ "registered_model": shown })))
}

/// A model that is there as far as MLflow is concerned.
pub(super) async fn entry(registry: &Registry, name: &str) -> Result<Entry, Failure> {
    let found = registry.catalogue(Some(name)).await?.pop();
    found.filter(Entry::is_there).ok_or_else(|| {
        let shown: String = name.chars().take(80).collect();
        let message = format!("there is no registered model {shown:?}");
        Failure::new(ErrorCode::NotFound, message)
    })
}

async fn shown(registry: &Registry, entry: &Entry) -> Result<Value, Failure> {
    let newest = match entry.newest {
        Some(number) => {
            let version = Selector::Number(number);
            let reference = Reference { model: entry.name.clone(), version };
            vec![versions::described(registry, &reference).await?]
        }
        None => Vec::new(),
    };
    Ok(with_newest(entry, newest))
}

fn with_newest(entry: &Entry, newest: Vec<Value>) -> Value {
    let alias = |(alias, number): (&String, &u64)| value!({ "alias": alias, "version": number.to_string() });
    value!({
        "name": entry.name,
        "creation_timestamp": entry.created.as_millisecond(),
        "last_updated_timestamp": entry.changed.as_millisecond(),
        "description": entry.notes.get(DESCRIPTION).map_or("", String::as_str),
        "latest_versions": newest,
        "tags": tags(entry.notes.iter()),
        "aliases": entry.aliases.iter().map(alias).collect::<Value>(),
    })
}

/// What models are searched by, and ordered by.
const ATTRIBUTES: [&str; 1] = ["name"];
const ORDERS: [&str; 3] = ["name", "creation_timestamp", "last_updated_timestamp"];

pub(super) async fn search(Look(registry): Look, uri: Uri) -> Answer {
    let search = Search::parse(&uri, 1000, &ATTRIBUTES, &ORDERS)?;
    let mut found = registry.catalogue(search.filter.exactly("name")).await?;
    found.retain(|entry| {
        entry.is_there()
            && search.filter.holds(|subject| match subject {
                Subject::Attribute(_) => Found::Text(&entry.name),
                Subject::Tag(key) => {
                    entry.notes.get(key).map_or(Found::Nothing, |v| Found::Text(v))
                }
            })
    });
    found.sort_by(|a, b| search.compare(a, b, key).then_with(|| a.name.cmp(&b.name)));
    // The newest version of each is left out of a list: it is asked for by whoever wants it.
    let (part, next) = search.page(found, |entry| with_newest(entry, Vec::new()));
    Ok(json(&value!({ "registered_models": part, "next_page_token": next })))
}

fn key(entry: &Entry, attribute: &str) -> Key {
    match attribute {
        "creation_timestamp" => Key::Number(entry.created.as_millisecond()),
        "last_updated_timestamp" => Key::Number(entry.changed.as_millisecond()),
        _ => Key::Text(entry.name.clone()),
    }
}

#[derive(Deserialize)]
pub(super) struct Update {
    name: String,
    #[serde(default)]
    description: String,
}

pub(super) async fn update(change: Change, Json(asked): Json<Update>) -> Answer {
    entry(&change.registry, &asked.name).await?;
    let by = change.by(String::new(), None);
    let text = Some(asked.description).filter(|text| !text.is_empty());
    change.registry.note(&asked.name, None, DESCRIPTION, text, &by).await?;
    one(&change.registry, &asked.name).await
}

/// Deletes every version, which can be undone for a week; refused while one is in use.
pub(super) async fn delete(change: Change, Json(asked): Json<Name>) -> Answer {
    let (registry, by) = (&change.registry, change.by(String::new(), None));
    let entry = entry(registry, &asked.name).await?;
    if let Some((alias, number)) = entry.aliases.iter().next() {
        let message = format!(
            "version {number} of \"{}\" is in use as \"{alias}\"; take the aliases away first",
            asked.name
        );
        return Err(Failure::new(ErrorCode::FailedPrecondition, message));
    }
    for version in registry.describe(Some(&asked.name)).await? {
        if version.is_there() {
            registry.delete(&asked.name, version.summary.number, &by).await?;
        }
    }
    if entry.announced {
        registry.announce(&asked.name, false, &by).await?;
    }
    Ok(nothing())
}

/// A name is what a history is about.
pub(super) async fn rename(_change: Change, Json(_): Json<Name>) -> Answer {
    let message = "a model cannot be renamed: its history is about its name; copy its versions to a \
                   model of the other name";
    Err(Failure::new(ErrorCode::Unimplemented, message))
}

#[derive(Deserialize)]
pub(super) struct SetTag {
    name: String,
    key: String,
    #[serde(default)]
    value: String,
}

pub(super) async fn set_tag(change: Change, Json(asked): Json<SetTag>) -> Answer {
    check_tag(&asked.key)?;
    entry(&change.registry, &asked.name).await?;
    let by = change.by(String::new(), None);
    change.registry.note(&asked.name, None, &asked.key, Some(asked.value), &by).await?;
    Ok(nothing())
}

pub(super) async fn delete_tag(change: Change, Json(asked): Json<SetTag>) -> Answer {
    check_tag(&asked.key)?;
    let found = entry(&change.registry, &asked.name).await?;
    // To take away what is not there is fine with MLflow.
    if found.notes.contains_key(&asked.key) {
        let by = change.by(String::new(), None);
        change.registry.note(&asked.name, None, &asked.key, None, &by).await?;
    }
    Ok(nothing())
}

#[derive(Deserialize)]
pub(super) struct Alias {
    name: String,
    alias: String,
    #[serde(default)]
    version: String,
}

pub(super) async fn set_alias(change: Change, Json(asked): Json<Alias>) -> Answer {
    let (to, by) = (number(&asked.version)?, change.by(String::new(), None));
    let (registry, anything) = (&change.registry, Expected::Anything);
    registry.set_alias(&asked.name, &asked.alias, Some(to), anything, &by).await?;
    Ok(nothing())
}

pub(super) async fn delete_alias(change: Change, Json(asked): Json<Alias>) -> Answer {
    let found = entry(&change.registry, &asked.name).await?;
    // To take away what is not there is fine with MLflow.
    if found.aliases.contains_key(&asked.alias) {
        let (registry, by) = (&change.registry, change.by(String::new(), None));
        registry.set_alias(&asked.name, &asked.alias, None, Expected::Anything, &by).await?;
    }
    Ok(nothing())
}

/// An answer that says no more than that it is done.
pub(super) fn nothing() -> Response {
    json(&value!({}))
}
