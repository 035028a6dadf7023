//! What changes something. Each answers with the record that it left in the history.

use std::time::Duration;

use ::registry::{Expected, Grace, Share};
use serde::Deserialize;
use serde_json::Value;

use super::extract::{Asked, Change, Json, Names, number};
use super::{Answer, json};

/// A move of an alias.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetAlias {
    /// The version that it is to name.
    version: u64,
    /// The version that it must name now; 0: it must not exist; anything if it is left out.
    expect: Option<u64>,
    #[serde(default)]
    reason: String,
    evidence: Option<Value>,
}

pub(super) async fn set_alias(
    change: Change,
    Names((model, alias)): Names<(String, String)>,
    Json(asked): Json<SetAlias>,
) -> Answer {
    let by = change.by(asked.reason, asked.evidence);
    let (to, expected) = (Some(asked.version), expected(asked.expect));
    Ok(json(&change.registry.set_alias(&model, &alias, to, expected, &by).await?))
}

/// The end of an alias: in the query, for bodies of DELETE get lost.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoveAlias {
    expect: Option<u64>,
    #[serde(default)]
    reason: String,
}

pub(super) async fn remove_alias(
    change: Change,
    Names((model, alias)): Names<(String, String)>,
    Asked(asked): Asked<RemoveAlias>,
) -> Answer {
    let by = change.by(asked.reason, None);
    let expected = expected(asked.expect);
    Ok(json(&change.registry.set_alias(&model, &alias, None, expected, &by).await?))
}

fn expected(version: Option<u64>) -> Expected {
    match version {
        None => Expected::Anything,
        Some(0) => Expected::Nothing,
        Some(version) => Expected::Version(version),
    }
}

/// A split of the traffic.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SplitTraffic {
    /// No shares give it back to the champion.
    shares: Vec<Share>,
    /// The split that it must be now; anything if it is left out.
    expect: Option<Vec<Share>>,
    #[serde(default)]
    reason: String,
    evidence: Option<Value>,
}

pub(super) async fn split_traffic(
    change: Change,
    Names(model): Names<String>,
    Json(asked): Json<SplitTraffic>,
) -> Answer {
    let by = change.by(asked.reason, asked.evidence);
    Ok(json(&change.registry.split_traffic(&model, asked.shares, asked.expect, &by).await?))
}

/// Nothing but a reason, and what it rests on.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Why {
    #[serde(default)]
    pub(super) reason: String,
    pub(super) evidence: Option<Value>,
}

pub(super) async fn archive(
    change: Change,
    Names((model, version)): Names<(String, String)>,
    Json(why): Json<Why>,
) -> Answer {
    let by = change.by(why.reason, why.evidence);
    Ok(json(&change.registry.archive(&model, number(&version)?, &by).await?))
}

pub(super) async fn restore(
    change: Change,
    Names((model, version)): Names<(String, String)>,
    Json(why): Json<Why>,
) -> Answer {
    let by = change.by(why.reason, why.evidence);
    Ok(json(&change.registry.restore(&model, number(&version)?, &by).await?))
}

pub(super) async fn delete(
    change: Change,
    Names((model, version)): Names<(String, String)>,
    Json(why): Json<Why>,
) -> Answer {
    let by = change.by(why.reason, why.evidence);
    Ok(json(&change.registry.delete(&model, number(&version)?, &by).await?))
}

/// A note.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Note {
    /// What it says; null takes it away.
    value: Option<String>,
    #[serde(default)]
    reason: String,
}

pub(super) async fn note_model(
    change: Change,
    Names((model, key)): Names<(String, String)>,
    Json(asked): Json<Note>,
) -> Answer {
    let by = change.by(asked.reason, None);
    Ok(json(&change.registry.note(&model, None, &key, asked.value, &by).await?))
}

pub(super) async fn note_version(
    change: Change,
    Names((model, version, key)): Names<(String, String, String)>,
    Json(asked): Json<Note>,
) -> Answer {
    let (version, by) = (Some(number(&version)?), change.by(asked.reason, None));
    Ok(json(&change.registry.note(&model, version, &key, asked.value, &by).await?))
}

/// A collection of garbage.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Collect {
    /// How long ago a version must have been deleted; a week if it is left out.
    grace_seconds: Option<u64>,
    #[serde(default)]
    reason: String,
}

pub(super) async fn collect(change: Change, Json(asked): Json<Collect>) -> Answer {
    let default = Grace::default();
    let versions = asked.grace_seconds.map_or(default.versions, Duration::from_secs);
    let by = change.by(asked.reason, None);
    Ok(json(&change.registry.collect(Grace { versions, ..default }, &by).await?))
}
