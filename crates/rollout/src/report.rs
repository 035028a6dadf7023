//! Everything that is known of a running rollout.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::block::{Block, Counts, Mean};
use crate::decide::Action;
use crate::evidence;
use crate::guard::Guard;
use crate::plan::{Plan, shown};
use crate::plot;
use crate::sketch::Latencies;
use crate::wealth::{Wealth, epoch};
use crate::{Error, Result};

/// The points that are kept for the plot of each guard, at most.
const POINTS: usize = 60;

/// The changes of shares whose times are kept.
const MOVES: usize = 64;

/// The candidates that one rollout may have.
const CANDIDATES: usize = 20;

/// Everything that is known of a running rollout: sums, never single blocks.
///
/// What it says does not depend on the order in which blocks were absorbed; only the points of the
/// plot do, when they come in other portions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The version that is to be replaced.
    pub champion: u64,
    /// The versions that may replace it.
    pub candidates: Vec<u64>,
    /// Where the rollout stands.
    pub state: State,
    /// The place of the running step in the plan, 0 before the first one.
    pub step: usize,
    /// When the rollout was begun.
    pub begun: Timestamp,
    /// When the running step began.
    pub since: Timestamp,
    /// How the replay of recorded requests went.
    pub replay: Option<Replayed>,
    /// Blocks that were not used, because shares changed while they were counted.
    pub skipped: u64,
    /// Candidates that were taken out of an experiment.
    pub dropped: Vec<u64>,
    /// What was counted in the running step, by version.
    pub(crate) in_step: BTreeMap<u64, Totals>,
    /// What was counted since the beginning, by version.
    pub(crate) totals: BTreeMap<u64, Totals>,
    /// What the bets of each guard have earned, by candidate.
    pub(crate) wealth: BTreeMap<u64, BTreeMap<String, Wealth>>,
    /// When shares changed, and to which step.
    pub(crate) moves: Vec<(Timestamp, usize)>,
    /// The latest time that was heard of: a clock that is put back does not go below it.
    pub(crate) latest: Timestamp,
    /// What the plan lets each guard go to.
    #[serde(default)]
    pub(crate) limits: BTreeMap<String, Limit>,
    /// The evidence over time, by candidate and guard.
    pub(crate) track: BTreeMap<u64, BTreeMap<String, Vec<Point>>>,
}

/// Where a rollout stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The first step has not begun.
    Waiting,
    /// A step is running.
    Running,
    /// A candidate has become the champion.
    Promoted,
    /// The candidates were taken back.
    RolledBack,
}

/// How the replay of recorded requests went. The driver runs it and says so here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replayed {
    /// Requests that were answered again.
    pub requests: u64,
    /// Those whose answers agree with the recorded ones within the plan's tolerance.
    pub agreed: u64,
    /// Those that the candidate failed and that were answered before.
    pub failed: u64,
}

/// A point of the plot.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// The end of the last block.
    pub time: Timestamp,
    /// The natural logarithm of the e-value.
    pub log_e: f64,
    /// The confidence sequence: lower bound, estimate, upper bound. The odds ratio of failures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bounds: Option<[f64; 3]>,
}

/// What the plan lets a guard go to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limit {
    /// The logarithm of the e-value at which it takes a candidate back.
    pub log_e: f64,
    /// The tolerated odds ratio, for guards that compare odds.
    pub tolerated: f64,
}

/// What was counted of one version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Totals {
    pub requests: u64,
    pub failures: u64,
    pub latencies: Latencies,
    pub both: u64,
    pub agreed: u64,
    pub shadow_failed: u64,
    pub caller_failed: u64,
    pub neither: u64,
    pub right: u64,
    pub wrong: u64,
    pub metrics: BTreeMap<String, Mean>,
}

impl Report {
    /// The report of a rollout that is about to begin. Without an experiment there is exactly one
    /// candidate.
    pub fn new(plan: &Plan, champion: u64, candidates: &[u64], now: Timestamp) -> Result<Self> {
        plan.check()?;
        let wanted = match &plan.experiment {
            None => 1..=1,
            Some(experiment) if experiment.shares.is_empty() => 1..=CANDIDATES,
            Some(experiment) => experiment.shares.len()..=experiment.shares.len(),
        };
        if !wanted.contains(&candidates.len()) {
            return Err(Error::new(format!(
                "candidates: expected {} for this plan, got {}; several are for an `experiment`, \
                 with as many `shares`",
                wanted.end(),
                candidates.len()
            )));
        }
        let mut all = vec![champion];
        for candidate in candidates {
            if all.contains(candidate) {
                return Err(Error::new(format!(
                    "candidates: version {candidate} is named twice, or is the champion"
                )));
            }
            all.push(*candidate);
        }
        let mut report = Self {
            champion,
            candidates: candidates.to_vec(),
            state: State::Waiting,
            step: 0,
            begun: now,
            since: now,
            replay: None,
            skipped: 0,
            dropped: Vec::new(),
            in_step: BTreeMap::new(),
            totals: BTreeMap::new(),
            wealth: BTreeMap::new(),
            moves: Vec::new(),
            latest: now,
            limits: BTreeMap::new(),
            track: BTreeMap::new(),
        };
        report.limits = plot::limits(plan, &report);
        Ok(report)
    }

    /// Whether the plan's replay has yet to be run.
    pub fn waits_for_replay(&self, plan: &Plan) -> bool {
        self.state == State::Waiting && plan.replay.is_some() && self.replay.is_none()
    }

    /// What is known of a candidate and the champion, and the guards' evidence, as people read it.
    pub fn figures(&self, plan: &Plan, candidate: u64, now: Timestamp) -> serde_json::Value {
        evidence::figures(plan, self, candidate, now)
    }

    /// Whether there is nothing left to decide.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Promoted | State::RolledBack)
    }

    /// Adds blocks, each exactly once. It does not matter in which order, nor from which server.
    /// Those that end before they begin are not counted.
    pub fn absorb(&mut self, plan: &Plan, blocks: &[Block]) {
        for block in blocks {
            if block.end <= block.start {
                self.skipped = self.skipped.saturating_add(1);
                continue;
            }
            self.count(block, |report| &mut report.totals);
            let Some((step, elapsed)) = self.place(plan, block) else {
                self.skipped = self.skipped.saturating_add(1);
                continue;
            };
            if block.start >= self.since {
                self.count(block, |report| &mut report.in_step);
            }
            self.bet(plan, block, epoch(step, elapsed));
        }
        // Blocks of a clock that is ahead must not make time pass.
        if let Some(end) = blocks.iter().map(|block| block.end).max() {
            self.keep_track(plan, end);
        }
    }

    /// Notes that an action has been made durable.
    pub fn applied(&mut self, action: &Action, now: Timestamp) {
        let now = self.not_before(now);
        self.latest = now;
        match action {
            Action::Move { step, shares, .. } => {
                self.state = State::Running;
                self.step = *step;
                self.since = now;
                self.in_step.clear();
                let out = |candidate: &u64| {
                    let mut shares = shares.iter();
                    !shares.any(|s| s.version == *candidate && (s.share > 0 || s.shadow))
                };
                self.dropped = self.candidates.iter().copied().filter(out).collect();
            }
            Action::Promote { .. } => self.state = State::Promoted,
            Action::RollBack { .. } => self.state = State::RolledBack,
        }
        self.moves.push((now, self.step));
        if self.moves.len() > MOVES {
            self.moves.remove(0);
        }
    }

    /// The time, unless the clock has been put back.
    pub(crate) fn not_before(&self, now: Timestamp) -> Timestamp {
        now.max(self.latest)
    }

    /// How long the running step has lasted.
    pub(crate) fn elapsed(&self, now: Timestamp) -> SignedDuration {
        self.not_before(now).duration_since(self.since)
    }

    /// Requests that a candidate answered in the running step: for callers, or in a step that gives
    /// it none, as a shadow.
    pub(crate) fn requests_in_step(&self, plan: &Plan, candidate: u64) -> u64 {
        let Some(totals) = self.in_step.get(&candidate) else { return 0 };
        match plan.steps.get(self.step) {
            Some(step) if step.share == 0.0 && plan.experiment.is_none() => {
                totals.both.saturating_add(totals.caller_failed)
            }
            _ => totals.answered(),
        }
    }

    /// The logarithm of a guard's e-value against a candidate.
    pub(crate) fn log_e(&self, plan: &Plan, candidate: u64, guard: &str) -> f64 {
        let wealth = self.wealth.get(&candidate).and_then(|guards| guards.get(guard));
        let kind = Guard::parse(guard);
        let mixed = |sums: &[f64]| kind.mixed(plan, sums);
        wealth.map_or(0.0, |wealth| wealth.log(&plan.step_stakes(), mixed))
    }

    /// The e-value at which a guard of this weight takes a candidate back, as a logarithm.
    pub(crate) fn threshold(&self, plan: &Plan, weight: f64) -> f64 {
        -(plan.alpha * weight / self.candidates.len() as f64).ln()
    }

    /// The step in which a block was counted and how long that had lasted; `None` if it was not
    /// wholly inside one.
    fn place(&self, plan: &Plan, block: &Block) -> Option<(usize, SignedDuration)> {
        let after = self.moves.partition_point(|(time, _)| *time <= block.start);
        let (began, step) = *self.moves.get(after.checked_sub(1)?)?;
        let elapsed = block.start.duration_since(began);
        let broken = self.moves.get(after).is_some_and(|(time, _)| *time < block.end);
        (elapsed >= plan.settle && !broken).then_some((step, elapsed))
    }

    fn count(&mut self, block: &Block, of: impl Fn(&mut Self) -> &mut BTreeMap<u64, Totals>) {
        for (version, counts) in &block.versions {
            if *version == self.champion || self.candidates.contains(version) {
                of(self).entry(*version).or_default().add(counts);
            }
        }
    }

    fn bet(&mut self, plan: &Plan, block: &Block, epoch: u32) {
        let none = Counts::default();
        let champion = block.versions.get(&self.champion).unwrap_or(&none);
        let mut names: Vec<String> =
            plan.guard_weights().into_iter().map(|(name, _)| name).collect();
        names.extend(plan.experiment.as_ref().map(|_| "winner".to_owned()));
        for candidate in &self.candidates {
            let Some(counts) = block.versions.get(candidate) else { continue };
            for name in &names {
                let Some(logs) = Guard::parse(name).logs(plan, champion, counts) else { continue };
                let guards = self.wealth.entry(*candidate).or_default();
                guards.entry(name.clone()).or_default().add(epoch, &logs);
            }
        }
    }

    fn keep_track(&mut self, plan: &Plan, time: Timestamp) {
        for (name, weight) in plan.guard_weights() {
            for candidate in &self.candidates {
                let wealth = self.wealth.get(candidate).and_then(|guards| guards.get(&name));
                let Some(wealth) = wealth.filter(|wealth| !wealth.is_empty()) else { continue };
                let log_e = self.log_e(plan, *candidate, &name);
                let alpha = plan.alpha * weight / self.candidates.len() as f64;
                let bounds = Guard::parse(&name)
                    .tolerated_odds(plan)
                    .map(|_| evidence::odds_bounds(&wealth.sums(), alpha).map(to_draw));
                let track = self.track.entry(*candidate).or_default();
                keep(
                    track.entry(name.clone()).or_default(),
                    Point { time, log_e: to_draw(log_e), bounds },
                );
            }
        }
    }

    /// A line about what the running step still waits for.
    pub(crate) fn waits_for(&self, plan: &Plan, now: Timestamp) -> Option<String> {
        let step = plan.steps.get(self.step)?;
        let (elapsed, candidate) = (self.elapsed(now), *self.candidates.first()?);
        if elapsed < step.time {
            return Some(format!("{} of time", shown(step.time - elapsed)));
        }
        let requests = self.requests_in_step(plan, candidate);
        (requests < step.requests).then(|| format!("{} requests", step.requests - requests))
    }
}

impl Totals {
    pub fn answered(&self) -> u64 {
        self.requests.saturating_sub(self.failures)
    }

    fn add(&mut self, counts: &Counts) {
        let shadow = &counts.shadow;
        for (sum, more) in [
            (&mut self.requests, counts.requests),
            (&mut self.failures, counts.failures),
            (&mut self.both, shadow.both),
            (&mut self.agreed, shadow.agreed),
            (&mut self.shadow_failed, shadow.shadow_failed),
            (&mut self.caller_failed, shadow.caller_failed),
            (&mut self.neither, shadow.neither),
            (&mut self.right, counts.right),
            (&mut self.wrong, counts.wrong),
        ] {
            *sum = sum.saturating_add(more);
        }
        self.latencies.merge(&counts.latencies);
        for (name, mean) in &counts.metrics {
            self.metrics.entry(name.clone()).or_default().merge(mean);
        }
    }
}

/// As exact as a plot needs it; the report is written often.
fn to_draw(number: f64) -> f64 {
    (number.clamp(-1e9, 1e9) * 1e3).round() / 1e3
}

/// Adds a point in the order of time; of too many, every second one is left out.
fn keep(points: &mut Vec<Point>, point: Point) {
    let at = points.partition_point(|known| known.time < point.time);
    match points.get_mut(at) {
        Some(known) if known.time == point.time => *known = point,
        _ => points.insert(at, point),
    }
    if points.len() > POINTS {
        let last = points.len() - 1;
        let mut i = 0;
        points.retain(|_| {
            i += 1;
            i % 2 == 1 || i == last + 1
        });
    }
}
