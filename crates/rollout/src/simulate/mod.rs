//! What a plan would do, before anyone tries it: rollouts with made-up traffic, decided by the very
//! functions that decide real ones.
//!
//! The traffic is as unkind as real traffic: its rate wanders and bursts, the time to the answer has
//! a heavy tail, wanders too, and now and then everything is slow for seconds or many requests fail,
//! whatever the version. Versions do not hit each other's requests.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::decide::{Action, next};
use crate::plan::Plan;
use crate::report::Report;
use crate::{Error, Result};

mod summary;
mod traffic;

pub use summary::{Caught, Spread, StepSummary, Summary};

use traffic::{Mix, Traffic};

/// A rollout that has not ended by then is given up.
const LONGEST: SignedDuration = SignedDuration::from_hours(24 * 7);

/// What traffic is like, and what is wrong with the candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    /// Requests a second, all versions together.
    pub rps: f64,
    /// The part of the requests that fail.
    pub error_rate: f64,
    /// By how much more of its requests the candidate fails: 0.02 is two points.
    pub regression: f64,
    /// How many times as long the candidate takes.
    pub slower: f64,
    /// How many times as long the candidate takes for the slowest requests only, those above the
    /// champion's 98th percentile.
    pub slower_tail: f64,
    /// The step from which on the candidate is worse; in steps before it, it is as the champion.
    pub from_step: usize,
    /// How much each version's own speed wanders from second to second, as a part of it. What slows
    /// only one version breaks the assumption of the guard of slow answers.
    pub own_jitter: f64,
    /// Stalls a minute that hit every request of one version for a second, and not the other's.
    pub own_stalls: f64,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            rps: 100.0,
            error_rate: 0.01,
            regression: 0.0,
            slower: 1.0,
            slower_tail: 1.0,
            from_step: 0,
            own_jitter: 0.03,
            own_stalls: 0.0,
        }
    }
}

/// How one simulated rollout went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Whether the candidate became the champion.
    pub promoted: bool,
    /// Whether it was taken back.
    pub stopped: bool,
    /// The step in which it ended.
    pub step: usize,
    /// How long it took.
    pub took: Duration,
    /// How long each step took that was begun.
    pub steps: Vec<Duration>,
    /// From when the candidate was worse to the end.
    pub since_onset: Option<Duration>,
    /// Requests of callers that the candidate failed or was slow for and the champion would not have.
    pub hurt: u64,
    /// Requests of callers that the candidate served while it was worse.
    pub exposed: u64,
    /// The guard that took it back.
    pub guard: String,
}

impl Scenario {
    /// Refuses what no traffic is like, naming the field.
    pub fn check(&self) -> Result<()> {
        let wrong = |name: &str, value: f64, expected: &str| {
            Err(Error::new(format!("{name}: expected {expected}, got {value}")))
        };
        if !(0.01..=100_000.0).contains(&self.rps) {
            return wrong("rps", self.rps, "0.01 to 100000 requests a second");
        }
        if !(0.0..=1.0).contains(&self.error_rate) {
            return wrong("error_rate", self.error_rate, "a part from 0 to 1");
        }
        if !(-1.0..=1.0).contains(&self.regression) {
            return wrong("regression", self.regression, "a part from -1 to 1");
        }
        for (name, factor) in [("slower", self.slower), ("slower_tail", self.slower_tail)] {
            if !(0.01..=1000.0).contains(&factor) {
                return wrong(name, factor, "a factor from 0.01 to 1000");
            }
        }
        if !(0.0..=1.0).contains(&self.own_jitter) {
            return wrong("own_jitter", self.own_jitter, "a part from 0 to 1");
        }
        if !(0.0..=60.0).contains(&self.own_stalls) {
            return wrong("own_stalls", self.own_stalls, "0 to 60 a minute");
        }
        Ok(())
    }

    /// Whether the candidate is worse in any way.
    pub fn is_worse(&self) -> bool {
        self.regression > 0.0 || self.slower > 1.0 || self.slower_tail > 1.0
    }
}

/// Simulates so many rollouts on so many threads, and says after each how many are done. The same
/// seed gives the same runs, whatever the number of threads.
pub fn simulate_many(
    plan: &Plan,
    scenario: &Scenario,
    runs: u64,
    (seed, threads): (u64, usize),
    progress: impl Fn(u64) + Sync,
) -> Result<Vec<Run>> {
    let (taken, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let work = || {
        let mut own = Vec::new();
        loop {
            let i = taken.fetch_add(1, Ordering::Relaxed);
            if i >= runs {
                return Ok(own);
            }
            own.push((i, simulate(plan, scenario, seed.wrapping_add(i))?));
            progress(done.fetch_add(1, Ordering::Relaxed) + 1);
        }
    };
    let mut all: Vec<(u64, Run)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, Result<Vec<(u64, Run)>>>| {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        workers.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?
    .concat();
    all.sort_by_key(|(i, _)| *i);
    Ok(all.into_iter().map(|(_, run)| run).collect())
}

/// Simulates one rollout. The same seed gives the same run.
pub fn simulate(plan: &Plan, scenario: &Scenario, seed: u64) -> Result<Run> {
    scenario.check()?;
    if plan.experiment.is_some() {
        return Err(Error::new("experiment: only plans with steps can be simulated"));
    }
    let begin = Timestamp::UNIX_EPOCH;
    let mut report = Report::new(plan, 1, &[2], begin)?;
    let mut traffic = Traffic::new(scenario, seed);
    let mut run = Run {
        promoted: false,
        stopped: false,
        step: 0,
        took: Duration::ZERO,
        steps: Vec::new(),
        since_onset: None,
        hurt: 0,
        exposed: 0,
        guard: String::new(),
    };
    if plan.replay.is_some() {
        report.replay = Some(crate::Replayed { requests: 1, agreed: 1, failed: 0 });
    }
    let mut now = begin;
    let (mut began, mut onset) = (begin, None);
    while now.duration_since(begin) < LONGEST {
        if let Some(action) = next(plan, &report, now) {
            let elapsed = Duration::try_from(now.duration_since(began)).unwrap_or_default();
            if now > begin {
                run.steps.push(elapsed);
            }
            began = now;
            match &action {
                Action::Move { step, .. } if *step >= scenario.from_step && scenario.is_worse() => {
                    onset = onset.or(Some(now));
                }
                Action::Move { .. } => {}
                Action::Promote { .. } => run.promoted = true,
                Action::RollBack { why, .. } => {
                    run.stopped = true;
                    run.guard = why.split(':').next().unwrap_or_default().to_owned();
                }
            }
            report.applied(&action, now);
            if report.is_over() {
                break;
            }
        }
        let step = &plan.steps[report.step];
        let end = now + plan.block;
        let mix = Mix {
            share: step.share / 100.0,
            shadow: step.shadow,
            worse: onset.is_some(),
            seconds: plan.block.as_secs() as usize,
        };
        let block = traffic.block(&mix, now, end, &mut run);
        report.absorb(plan, &[block]);
        now = end;
    }
    run.step = report.step;
    run.took = Duration::try_from(now.duration_since(begin)).unwrap_or_default();
    run.since_onset =
        onset.map(|onset| Duration::try_from(now.duration_since(onset)).unwrap_or_default());
    Ok(run)
}
