//! Starting a rollout, and saying how one is going.

use jiff::Timestamp;
use model::ErrorCode;
use registry::{
    By, CHAMPION, Error, Record, Reference, Registry, Result, Rollout, Selector, Start,
};
use serde_json::{Value, json};

use crate::drive::{decision, plan_of, report_of};
use crate::{Action, Plan, Replayed, Report, next};

/// Starts a rollout of a model with the first step of its plan; `replayed` is what came of the
/// plan's replay, if it has one. One whose replay failed is started and taken back, so that the
/// history has it, and is an error.
pub async fn start(
    registry: &Registry,
    model: &str,
    candidates: &[u64],
    (plan, replayed): (&Plan, Option<Replayed>),
    by: &By,
) -> Result<Record> {
    let champion =
        Reference { model: model.to_owned(), version: Selector::Alias(CHAMPION.to_owned()) };
    let champion = registry.resolve(&champion).await?.number;
    let now = registry.clock().now();
    let mut report = Report::new(plan, champion, candidates, now).map_err(invalid)?;
    report.replay = replayed;
    if report.waits_for_replay(plan) {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            "replay: recorded requests are replayed by the command line, where their file is: \
             modelyard rollout start",
        ));
    }
    let first = next(plan, &report, now).ok_or_else(|| invalid("the plan has no first step"))?;
    let shares = match &first {
        Action::Move { shares, .. } => shares.clone(),
        _ => Vec::new(),
    };
    if let Action::Move { .. } = &first {
        report.applied(&first, now);
    }
    let start = Start {
        champion,
        candidates: candidates.to_vec(),
        plan: serde_json::to_value(plan).map_err(|error| invalid(error.to_string()))?,
        report: serde_json::to_value(&report).map_err(|error| invalid(error.to_string()))?,
        shares,
    };
    let mut by = by.clone();
    by.evidence = report.replay.as_ref().map(|replayed| json!({ "replay": replayed }));
    let record = registry.start_rollout(model, start, &by).await?;
    if let Action::RollBack { why, .. } = &first {
        if let Some(started) = registry.rollout(model).await? {
            let decided = Some(decision(&first, &report));
            registry.advance(&started, &started.report, &[], decided).await?;
        }
        return Err(Error::new(ErrorCode::FailedPrecondition, why.clone()));
    }
    Ok(record)
}

/// How a rollout is going, as JSON: where it stands, and the figures of each candidate.
pub fn status(rollout: &Rollout, now: Timestamp) -> Result<Value> {
    let unreadable = |error| Error::new(ErrorCode::Internal, error);
    let plan = plan_of(rollout).map_err(unreadable)?;
    let report = report_of(rollout).map_err(unreadable)?;
    let figures = |candidate: &u64| report.figures(&plan, *candidate, now);
    Ok(json!({
        "model": rollout.model,
        "number": rollout.number,
        "started": rollout.started,
        "champion": rollout.champion,
        "paused": rollout.paused,
        "step": report.step,
        "since": report.since,
        "plan": rollout.plan,
        "candidates": rollout.candidates.iter().map(figures).collect::<Vec<_>>(),
    }))
}

fn invalid(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::InvalidArgument, error.to_string())
}
