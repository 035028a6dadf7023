//! What many simulated rollouts say together.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::Run;
use crate::plan::Plan;

/// What many simulated rollouts say together. Times are in seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// How many were simulated.
    pub runs: usize,
    /// The part in which the candidate became the champion.
    pub promoted: f64,
    /// The part in which it was taken back.
    pub stopped: f64,
    /// The part that had come to no end after a week.
    pub unfinished: f64,
    /// How long those took that were promoted.
    pub took: Option<Spread>,
    /// The steps, in order.
    pub steps: Vec<StepSummary>,
    /// How soon it was found that the candidate is worse, where it is.
    pub caught: Option<Caught>,
}

/// How values are spread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Half are below.
    pub median: f64,
    /// Nine of ten are below.
    pub p90: f64,
    /// 95 of 100 are below.
    pub p95: f64,
}

/// What happened in one step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepSummary {
    /// The candidate's share in percent; 0 is a shadow.
    pub share: f64,
    /// How long it took where it was passed.
    pub took: Option<Spread>,
    /// The part of all runs that were stopped in it.
    pub stopped: f64,
    /// By which guard, and the part of all runs.
    pub by: BTreeMap<String, f64>,
}

/// How soon a candidate that is worse was taken back.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Caught {
    /// The part of all runs in which it was.
    pub ever: f64,
    /// The part of all runs in which it was within three minutes of its becoming worse.
    pub within_3_minutes: f64,
    /// How long that took.
    pub took: Option<Spread>,
    /// Requests of callers that were hurt in a run.
    pub hurt: Option<Spread>,
    /// Requests of callers that the worse candidate served in a run.
    pub exposed: Option<Spread>,
}

impl Summary {
    /// Sums up runs of a plan.
    pub fn of(plan: &Plan, runs: &[Run]) -> Self {
        let part = |is: &dyn Fn(&Run) -> bool| {
            runs.iter().filter(|run| is(run)).count() as f64 / runs.len().max(1) as f64
        };
        let promoted = runs.iter().filter(|run| run.promoted);
        let step = |(i, step): (usize, &crate::Step)| {
            let stopped = runs.iter().filter(|run| run.stopped && run.step == i);
            let by = stopped.map(|run| {
                let guard = &run.guard;
                let same = |run: &Run| run.stopped && run.step == i && run.guard == *guard;
                (guard.clone(), part(&same))
            });
            let by: BTreeMap<String, f64> = by.collect();
            let passed = runs.iter().filter(|run| run.promoted || run.step > i);
            StepSummary {
                share: step.share,
                took: spread(passed.filter_map(|run| run.steps.get(i)).map(Duration::as_secs_f64)),
                stopped: part(&|run| run.stopped && run.step == i),
                by,
            }
        };
        let worse = runs.iter().any(|run| run.since_onset.is_some());
        let caught = |run: &Run| run.stopped && run.since_onset.is_some();
        let soon = |run: &Run| run.since_onset.is_some_and(|d| d <= Duration::from_secs(180));
        let found = runs.iter().filter(|run| caught(run));
        Self {
            runs: runs.len(),
            promoted: part(&|run| run.promoted),
            stopped: part(&|run| run.stopped),
            unfinished: part(&|run| !run.promoted && !run.stopped),
            took: spread(promoted.map(|run| run.took.as_secs_f64())),
            steps: plan.steps.iter().enumerate().map(step).collect(),
            caught: worse.then(|| Caught {
                ever: part(&caught),
                within_3_minutes: part(&|run| caught(run) && soon(run)),
                took: spread(found.filter_map(|run| run.since_onset).map(|d| d.as_secs_f64())),
                hurt: spread(runs.iter().map(|run| run.hurt as f64)),
                exposed: spread(runs.iter().map(|run| run.exposed as f64)),
            }),
        }
    }
}

fn spread(values: impl Iterator<Item = f64>) -> Option<Spread> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = |part: f64| {
        let rank = (values.len() as f64 * part).ceil() as usize;
        values.get(rank.max(1) - 1).copied()
    };
    Some(Spread { median: at(0.5)?, p90: at(0.9)?, p95: at(0.95)? })
}
