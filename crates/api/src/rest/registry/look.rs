//! What only looks.

use std::sync::Arc;

use ::registry::{Page, Reference, Registry, Selector, Version, differences};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use hyper::header::{
    CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use jiff::Timestamp;
use model::ErrorCode;
use serde::{Deserialize, Serialize};
use serde_json::json as value;

use super::extract::{Asked, Fetch, Look, Names, number};
use super::{Answer, json};
use crate::error::Failure;

/// How many entries of a list come at once if nothing is said.
const LIMIT: usize = 100;
/// The most that come at once.
const MAX_LIMIT: usize = 10_000;

/// Which part of a list is wanted.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part<K> {
    limit: Option<usize>,
    after: Option<K>,
}

impl<K> Part<K> {
    fn limit(&self) -> Result<usize, Failure> {
        match self.limit {
            None => Ok(LIMIT),
            Some(limit @ 1..=MAX_LIMIT) => Ok(limit),
            Some(limit) => Err(Failure::new(
                ErrorCode::InvalidArgument,
                format!("limit: expected 1 to {MAX_LIMIT}, got {limit}"),
            )),
        }
    }
}

fn page<T: Serialize, K: Serialize>(name: &str, page: &Page<T, K>) -> Response {
    json(&value!({ name: page.entries, "next": page.next }))
}

/// Every model.
pub(super) async fn models(Look(registry): Look, Asked(part): Asked<Part<String>>) -> Answer {
    let found = registry.models_after(part.after.as_deref(), part.limit()?).await?;
    Ok(page("models", &found))
}

/// One model, with its traffic and what is assigned.
pub(super) async fn model(Look(registry): Look, Names(model): Names<String>) -> Answer {
    let (found, state) = (registry.model(&model).await?, registry.now(&model).await?);
    let mut found = value!(found);
    found["traffic"] = value!(state.traffic);
    found["assigned"] = value!(state.assigned(Timestamp::MAX));
    found["notes"] = value!(state.notes.get(&0).cloned().unwrap_or_default());
    Ok(json(&found))
}

/// A model's versions, newest first.
pub(super) async fn versions(
    Look(registry): Look,
    Names(model): Names<String>,
    Asked(part): Asked<Part<u64>>,
) -> Answer {
    let found = registry.versions_before(&model, part.after, part.limit()?).await?;
    Ok(page("versions", &found))
}

/// The version with a number.
pub(crate) async fn numbered(
    registry: &Registry,
    model: &str,
    version: &str,
) -> Result<Version, Failure> {
    let version = Selector::Number(number(version)?);
    Ok(registry.resolve(&Reference { model: model.to_owned(), version }).await?)
}

/// Everything that is known of a version.
pub(super) async fn version(
    Look(registry): Look,
    Names((model, version)): Names<(String, String)>,
) -> Answer {
    let version = numbered(&registry, &model, &version).await?;
    let mut found = value!(version);
    let notes = registry.now(&model).await?.notes.remove(&version.number);
    found["notes"] = value!(notes.unwrap_or_default());
    Ok(json(&found))
}

/// A model's aliases.
pub(super) async fn aliases(Look(registry): Look, Names(model): Names<String>) -> Answer {
    let aliases = registry.model(&model).await?.aliases;
    Ok(json(&value!({ "aliases": aliases })))
}

/// The version that an alias names.
pub(super) async fn alias(
    Look(registry): Look,
    Names((model, alias)): Names<(String, String)>,
) -> Answer {
    let reference = Reference { model, version: Selector::Alias(alias) };
    Ok(json(&registry.resolve(&reference).await?))
}

/// How a model's traffic is split.
pub(super) async fn traffic(Look(registry): Look, Names(model): Names<String>) -> Answer {
    let state = registry.now(&model).await?;
    Ok(json(&value!({ "shares": state.traffic, "assigned": state.assigned(Timestamp::MAX) })))
}

/// What happened to a model, oldest first.
pub(super) async fn history(
    Look(registry): Look,
    Names(model): Names<String>,
    Asked(part): Asked<Part<u64>>,
) -> Answer {
    let found = registry.history_after(&model, part.after, part.limit()?).await?;
    Ok(page("history", &found))
}

/// A moment.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Moment {
    time: String,
}

/// What a model was at a time.
pub(super) async fn at(
    Look(registry): Look,
    Names(model): Names<String>,
    Asked(moment): Asked<Moment>,
) -> Answer {
    let time: Timestamp = moment.time.parse().map_err(|_| {
        let shown: String = moment.time.chars().take(40).collect();
        let message = format!("time {shown:?}: expected a time such as 2026-11-20T14:03Z");
        Failure::new(ErrorCode::InvalidArgument, message)
    })?;
    let state = registry.at(&model, time).await?;
    Ok(json(&value!({ "assigned": state.assigned(Timestamp::MAX), "state": state })))
}

/// Two versions: numbers or aliases.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Two {
    from: String,
    to: String,
}

/// What is different between two versions of a model.
pub(super) async fn diff(
    Look(registry): Look,
    Names(model): Names<String>,
    Asked(two): Asked<Two>,
) -> Answer {
    let one = either(&registry, &model, &two.from).await?;
    let other = either(&registry, &model, &two.to).await?;
    let differences = differences(&one, &other);
    Ok(json(&value!({ "from": one.number, "to": other.number, "differences": differences })))
}

/// The version with this number or alias.
async fn either(registry: &Registry, model: &str, which: &str) -> Result<Version, Failure> {
    let version = match which.parse() {
        Ok(number) => Selector::Number(number),
        Err(_) => Selector::Alias(which.to_owned()),
    };
    Ok(registry.resolve(&Reference { model: model.to_owned(), version }).await?)
}

/// Whether to read every file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Thoroughly {
    #[serde(default)]
    bytes: bool,
}

/// Whether everything that is stored fits together.
pub(super) async fn check(Fetch(registry): Fetch, Asked(how): Asked<Thoroughly>) -> Answer {
    let found = registry.check(how.bytes).await?;
    Ok(json(&value!({ "consistent": found.is_empty(), "inconsistencies": found })))
}

/// The bytes of a file of a version.
pub(super) async fn file(
    Fetch(registry): Fetch,
    Names((model, version, file)): Names<(String, String, String)>,
) -> Answer {
    let version = numbered(&registry, &model, &version).await?;
    send(&registry, &version, &file).await
}

/// RFC 9530.
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// Sends a file as it is read. What turns out to be damaged is broken off before its end.
pub(crate) async fn send(registry: &Arc<Registry>, version: &Version, name: &str) -> Answer {
    let file = version.files.iter().find(|file| file.name == name).ok_or_else(|| {
        let shown: String = name.chars().take(80).collect();
        let known: Vec<&str> = version.files.iter().map(|file| &*file.name).take(20).collect();
        let message = format!(
            "{}:{} has no file {shown:?}; it has {}",
            version.model,
            version.number,
            known.join(", ")
        );
        Failure::new(ErrorCode::NotFound, message)
    })?;
    let mut reader = registry.open_file(version, file).await?;
    // What is wrong with a short file is said before anything else is.
    let first = reader.next().await?;
    let rest = futures_util::stream::try_unfold(reader, async |mut reader| {
        Ok::<_, ::registry::Error>(reader.next().await?.map(|piece| (piece, reader)))
    });
    let pieces = futures_util::stream::iter(first.map(Ok)).chain(rest);
    let mut response = Body::from_stream(Box::pin(pieces)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(file.size));
    let text = |text: String| HeaderValue::try_from(text).ok();
    if let Some(etag) = text(format!("\"{}\"", file.digest)) {
        headers.insert(ETAG, etag);
    }
    if let Some(digest) = repr_digest(&file.digest).and_then(text) {
        headers.insert(REPR_DIGEST, digest);
    }
    Ok(response)
}

/// `sha256:…` in hexadecimal digits, as RFC 9530 writes it.
fn repr_digest(digest: &str) -> Option<String> {
    let hex = digest.strip_prefix("sha256:")?;
    let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect::<Option<_>>()?;
    Some(format!("sha-256=:{}:", STANDARD.encode(bytes)))
}
