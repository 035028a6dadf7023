//! Rollouts, going back, and what callers say about answers afterwards.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::registry::{Feedback, File, Reference, Registry, Selector, check_file};
use axum::extract::State;
use hyper::StatusCode;
use jiff::Timestamp;
use model::ErrorCode;
use rollout::{Label, Plan, Replayed, Said};
use serde::Deserialize;
use serde_json::{Value, json as value};

use super::change::Why;
use super::extract::{Change, Json, Look, Names, access, registry};
use super::{Answer, json};
use crate::error::Failure;
use crate::{Access, Api, Recorded};

/// How recently a server must have been heard of to be listed.
const HEARD: Duration = Duration::from_secs(30);

/// The largest file that is replayed by request, in bytes: it is held in memory.
const MOST_REPLAYED: u64 = 64 << 20;

/// The most pieces of feedback in one request.
const MOST: usize = 1000;

/// The longest name or id in feedback, in bytes.
const LONGEST: usize = 1024;

pub(super) async fn all(Look(registry): Look) -> Answer {
    let now = Timestamp::now();
    let rollouts = registry.rollouts().await?;
    let all = rollouts.iter().map(|rollout| rollout::status(rollout, now));
    Ok(json(&value!({ "rollouts": all.collect::<Result<Vec<_>, _>>()? })))
}

pub(super) async fn one(Look(registry): Look, Names(model): Names<String>) -> Answer {
    match registry.rollout(&model).await? {
        Some(rollout) => Ok(json(&rollout::status(&rollout, Timestamp::now())?)),
        None => Err(Failure::new(
            ErrorCode::NotFound,
            format!("no rollout of \"{model}\" is under way; its history has the earlier ones"),
        )),
    }
}

/// A rollout that is to start.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    /// The versions that may become the champion.
    to: Vec<u64>,
    /// The plan; the default one if it is left out.
    #[serde(default)]
    plan: Plan,
    /// The upload that has the file which the plan replays; if it is left out, the first candidate
    /// has it.
    upload: Option<String>,
    #[serde(default)]
    reason: String,
}

pub(super) async fn start(
    change: Change,
    Names(model): Names<String>,
    State(api): State<Arc<Api>>,
    Json(asked): Json<Start>,
) -> Answer {
    let replayed = replay(access(&api)?, &change.registry, &model, &asked).await?;
    let by = change.by(asked.reason, None);
    let plan = (&asked.plan, replayed);
    Ok(json(&rollout::start(&change.registry, &model, &asked.to, plan, &by).await?))
}

/// Replays what the plan says, if it says anything, before anything is changed.
async fn replay(
    access: &Access,
    registry: &Arc<Registry>,
    model: &str,
    asked: &Start,
) -> Result<Option<Replayed>, Failure> {
    let Some(wanted) = &asked.plan.replay else { return Ok(None) };
    let scratch = access.uploads.scratch()?;
    let path = match &asked.upload {
        Some(upload) => {
            check_file(&wanted.file)?;
            access.uploads.folder(upload)?.join(&wanted.file)
        }
        None => attached(registry, model, asked, &wanted.file, scratch.path()).await?,
    };
    let size = std::fs::metadata(&path).map_or(0, |data| data.len());
    if !path.is_file() || size > MOST_REPLAYED {
        return Err(refused(format!(
            "replay.file {:?}: expected a file of the upload of at most {MOST_REPLAYED} bytes",
            wanted.file
        )));
    }
    let folder = path.parent().map(|folder| format!("{}/", folder.display())).unwrap_or_default();
    let recorded = Recorded {
        registry: registry.clone(),
        model: model.to_owned(),
        candidates: asked.to.clone(),
        wanted: rollout::Replay { file: path.to_string_lossy().into_owned(), ..wanted.clone() },
    };
    let replayed = (access.replay)(recorded).await;
    // Where the server keeps it is nobody's business.
    replayed.map(Some).map_err(|(code, message)| Failure::new(code, message.replace(&folder, "")))
}

/// Copies a file that the first candidate has to a folder.
async fn attached(
    registry: &Registry,
    model: &str,
    asked: &Start,
    name: &str,
    folder: &Path,
) -> Result<PathBuf, Failure> {
    let Some(first) = asked.to.first() else {
        return Err(refused("expected the numbers of candidates in \"to\", got none".to_owned()));
    };
    let version = Selector::Number(*first);
    let version = registry.resolve(&Reference { model: model.to_owned(), version }).await?;
    let fits = |file: &&File| file.name == name && file.size <= MOST_REPLAYED;
    let Some(file) = version.files.iter().find(fits) else {
        return Err(refused(format!(
            "replay.file {name:?}: version {first} has no such file of at most {MOST_REPLAYED} \
             bytes; publish it with the version, name the \"upload\" that has it, or replay a file \
             of your own from the command line: modelyard rollout start"
        )));
    };
    let path = folder.join("recorded.jsonl");
    registry.copy(&version, file, &path).await?;
    Ok(path)
}

pub(super) async fn pause(
    change: Change,
    Names(model): Names<String>,
    Json(why): Json<Why>,
) -> Answer {
    let by = change.by(why.reason, why.evidence);
    Ok(json(&change.registry.pause_rollout(&model, true, &by).await?))
}

pub(super) async fn resume(
    change: Change,
    Names(model): Names<String>,
    Json(why): Json<Why>,
) -> Answer {
    let by = change.by(why.reason, why.evidence);
    Ok(json(&change.registry.pause_rollout(&model, false, &by).await?))
}

pub(super) async fn stop(
    change: Change,
    Names(model): Names<String>,
    Json(why): Json<Why>,
) -> Answer {
    let by = change.by(why.reason, why.evidence);
    Ok(json(&change.registry.stop_rollout(&model, &by).await?))
}

/// A step back.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Back {
    /// The version that must be the champion now; anything if it is left out.
    expect: Option<u64>,
    #[serde(default)]
    reason: String,
    evidence: Option<Value>,
}

pub(super) async fn roll_back(
    change: Change,
    Names(model): Names<String>,
    Json(asked): Json<Back>,
) -> Answer {
    let by = change.by(asked.reason, asked.evidence);
    Ok(json(&change.registry.roll_back(&model, asked.expect, &by).await?))
}

pub(super) async fn servers(Look(registry): Look) -> Answer {
    Ok(json(&value!({ "servers": registry.servers(HEARD).await? })))
}

/// What a caller says about an answer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    /// The id of the request.
    id: String,
    /// Makes saying it twice saying it once.
    feedback_id: Option<String>,
    label: Option<Label>,
    right: Option<bool>,
    #[serde(default)]
    metrics: BTreeMap<String, f64>,
    model_version: Option<String>,
}

/// One piece of feedback, or several.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Givens {
    Several { feedback: Vec<Value> },
    One(Value),
}

/// Takes feedback; what was acknowledged before one that is refused stays.
pub(super) async fn feedback(
    State(api): State<Arc<Api>>,
    Names(model): Names<String>,
    Json(given): Json<Givens>,
) -> Answer {
    let given = match given {
        Givens::One(one) => vec![one],
        Givens::Several { feedback } if (1..=MOST).contains(&feedback.len()) => feedback,
        Givens::Several { feedback } => {
            let count = feedback.len();
            return Err(refused(format!("expected 1 to {MOST} pieces of feedback, got {count}")));
        }
    };
    let checked = given.into_iter().map(checked).collect::<Result<Vec<_>, _>>()?;
    keep(&api, &model, &checked).await?;
    let mut answer = json(&value!({ "accepted": checked.len() }));
    *answer.status_mut() = StatusCode::ACCEPTED;
    Ok(answer)
}

/// Gives feedback to the rollout, if one is under way, and to the prediction log, if there is one.
async fn keep(api: &Api, model: &str, given: &[Feedback]) -> Result<(), Failure> {
    let log = api.feedback.as_ref();
    if api.registry.is_some() || log.is_none() {
        let registry = registry(access(api)?)?;
        match registry.give_feedback(model, given).await {
            // The log has a use for it all the same.
            Err(error) if log.is_some() && error.code() == ErrorCode::FailedPrecondition => {}
            other => other?,
        }
    }
    let Some(log) = log else { return Ok(()) };
    // Only of what is served: callers' names must not make folders.
    api.serving.check(model, None)?;
    match log(model, given) {
        true => Ok(()),
        false => Err(Failure::new(
            ErrorCode::ResourceExhausted,
            format!("too much feedback on \"{model}\" waits to be logged; send it again later"),
        )),
    }
}

fn checked(given: Value) -> Result<Feedback, Failure> {
    let given: Given = serde_json::from_value(given).map_err(|error| {
        refused(format!(
            "feedback: {error}; expected {{\"id\": \"the request's id\"}} and any of \"label\", \
             \"right\", \"metrics\""
        ))
    })?;
    if given.label.is_none() && given.right.is_none() && given.metrics.is_empty() {
        return Err(refused(format!(
            "feedback on {:?} says nothing: expected any of \"label\", \"right\", \"metrics\"",
            given.id
        )));
    }
    let texts = [Some(&given.id), given.feedback_id.as_ref(), given.model_version.as_ref()];
    let fits = |text: &String| (1..=LONGEST).contains(&text.len());
    if !texts.into_iter().flatten().chain(given.metrics.keys()).all(fits) {
        return Err(refused(format!(
            "feedback: ids and names of metrics have 1 to {LONGEST} bytes"
        )));
    }
    let id = given.feedback_id.unwrap_or_else(|| format!("{:032x}", fastrand::u128(..)));
    let Given { label, right, metrics, model_version, .. } = given;
    let said = Said { label, right, metrics, model_version };
    let body = serde_json::to_value(&said)
        .map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))?;
    Ok(Feedback { id, request: given.id, body })
}

fn refused(message: String) -> Failure {
    Failure::new(ErrorCode::InvalidArgument, message)
}
