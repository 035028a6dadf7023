//! How a candidate is to replace the champion: steps, guards, and how much may go wrong.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use jiff::fmt::serde::duration::friendly::compact;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How a candidate is to replace the champion. As TOML, every field may be left out.
///
/// ```
/// let plan = rollout::Plan::parse(r#"
///     alpha = 0.01
///     [[steps]]
///     shadow = true
///     time = "5m"
///     [[steps]]
///     share = 10
///     time = "1h"
///     requests = 1000
///     [[steps]]
///     share = 100
///     [guards.latency.p99]
///     factor = 2
///     [guards.metrics.clicks]
///     better = "higher"
///     high = 1
/// "#)?;
/// assert_eq!(plan.steps.len(), 3);
/// # Ok::<(), rollout::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plan {
    /// The probability that a candidate that is no worse than the champion is ever taken back, for
    /// the whole plan with all its steps and guards; above 0, below 0.5.
    pub alpha: f64,
    /// The length of a [`Block`](crate::Block); 1 s to 10 min.
    #[serde(serialize_with = "compact::required")]
    pub block: SignedDuration,
    /// How long after a change of shares nothing is counted, until all servers have followed.
    #[serde(serialize_with = "compact::required")]
    pub settle: SignedDuration,
    /// Seeds the draws of Thompson sampling.
    pub seed: u64,
    /// The steps, with growing shares; the candidate is promoted after the last one.
    pub steps: Vec<Step>,
    /// Recorded requests that the candidate has to answer well before the first step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
    /// Several candidates side by side instead of steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experiment: Option<Experiment>,
    /// What makes the candidate be taken back.
    pub guards: Guards,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Step {
    /// The candidate's share of the traffic, in percent; 0 for a shadow.
    pub share: f64,
    /// Whether the candidate gets a copy of the traffic that it does not answer, whose answers nobody
    /// sees. At a share of 100 it is the champion that gets the copy, so that the two can still be
    /// compared.
    pub shadow: bool,
    /// The least time that it lasts.
    #[serde(serialize_with = "compact::required")]
    pub time: SignedDuration,
    /// The least requests that the candidate has to answer in it.
    pub requests: u64,
    /// The most time that it may last: a candidate that cannot go on by then is taken back.
    #[serde(serialize_with = "compact::optional", skip_serializing_if = "Option::is_none")]
    pub most: Option<SignedDuration>,
    /// Its part of alpha, relative to the other steps': evidence that first shows in a step is
    /// weighed with the stake that was put on it.
    pub stake: f64,
}

/// Recorded requests that are answered again before the first step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// The file of recorded requests and answers; the driver reads it.
    pub file: String,
    /// How far a number may be from the recorded one, relative to it.
    #[serde(default = "within")]
    pub tolerance: f64,
    /// The least part of the answers that has to agree.
    #[serde(default = "all")]
    pub agreement: f64,
}

/// Several candidates side by side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// How their shares are chosen.
    pub kind: Kind,
    /// Each candidate's share in percent, in the order in which they are given; the champion gets
    /// the rest. The first shares of Thompson sampling; equal ones if left out.
    #[serde(default)]
    pub shares: Vec<f64>,
    /// The metric of the guards' `metrics` that decides.
    pub metric: String,
    /// The least time that it lasts.
    #[serde(default, serialize_with = "compact::required")]
    pub time: SignedDuration,
    /// The least feedback on the metric that each version needs.
    #[serde(default = "some_requests")]
    pub feedback: u64,
    /// The most time that it may last: if no candidate is better by then, all are taken back.
    #[serde(serialize_with = "compact::required")]
    pub most: SignedDuration,
    /// How often Thompson sampling changes the shares.
    #[serde(default = "some_minutes", serialize_with = "compact::required")]
    pub every: SignedDuration,
    /// The least share in percent that Thompson sampling leaves to every version.
    #[serde(default = "some_share")]
    pub least: f64,
    /// How probable it has to be that a version is the best before Thompson sampling ends.
    #[serde(default = "some_confidence")]
    pub confidence: f64,
}

/// How an experiment chooses its shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// They stay as they are, and a candidate wins by an anytime-valid test: an A/B test.
    Fixed,
    /// They follow the metric: each version's share is the probability that it is the best.
    Thompson,
}

/// What makes a candidate be taken back. Each guard gets a part of alpha by its weight; one with
/// weight 0 is off.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Guards {
    /// Requests that fail.
    pub errors: Errors,
    /// Requests that a shadow fails, compared with the caller's answer to the same request.
    pub shadows: Errors,
    /// Time to the answer.
    pub latency: Latency,
    /// What is predicted.
    pub distribution: Distribution,
    /// Whether a shadow answers as the caller was answered.
    pub agreement: Agreement,
    /// Whether predictions are right, where labels have come.
    pub labels: Labels,
    /// Numbers from feedback, by name.
    pub metrics: BTreeMap<String, Metric>,
}

/// The guard of requests that fail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Errors {
    /// Its part of alpha, relative to the other guards'.
    pub weight: f64,
    /// By how much the candidate's odds of failing may be larger; 1 is not at all.
    pub factor: f64,
    /// A difference of so many failures in a request is never acted on, however sure it is.
    pub points: f64,
}

/// The guards of the time to the answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Latency {
    /// The usual request.
    pub p50: Slower<50>,
    /// The slow ones.
    pub p99: Slower<99>,
}

/// A guard of one quantile of the time to the answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, bound(deserialize = "Slower<PERCENT>: Default"))]
pub struct Slower<const PERCENT: u8> {
    /// Its part of alpha, relative to the other guards'.
    pub weight: f64,
    /// A candidate that was measured to take less than so many times as long is never taken back for
    /// it, however sure it is that it is slower. Times are known to 4.4 %.
    pub factor: f64,
}

/// The guard of what is predicted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Distribution {
    /// Its part of alpha, relative to the other guards'.
    pub weight: f64,
    /// The tolerated distance: the most by which the part of predictions below any value, or of any
    /// category, may differ; 0 to 1.
    pub distance: f64,
}

/// The guard of shadows that answer otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Agreement {
    /// Its part of alpha, relative to the other guards'.
    pub weight: f64,
    /// The least part of the answers that has to agree.
    pub least: f64,
    /// How far a number may be from the champion's and still agree, relative to it. Outputs of
    /// several numbers agree if the same one is the largest.
    pub within: f64,
}

/// The guard of predictions that are wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Labels {
    /// Its part of alpha, relative to the other guards'.
    pub weight: f64,
    /// By how much the candidate's odds of being wrong may be larger; 1 is not at all.
    pub factor: f64,
    /// A difference of so many wrong predictions in a prediction is never acted on.
    pub points: f64,
}

/// The guard of a number that comes by feedback.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// Its part of alpha, relative to the other guards'.
    #[serde(default = "one")]
    pub weight: f64,
    /// Which way is better.
    #[serde(default)]
    pub better: Better,
    /// The least value; what is below is taken as this.
    #[serde(default)]
    pub low: f64,
    /// The largest value; what is above is taken as this.
    pub high: f64,
    /// By how much the candidate's mean may be worse, in the metric's unit.
    #[serde(default)]
    pub tolerance: f64,
}

/// Which way a metric is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// More is better.
    #[default]
    Higher,
    /// Less is better.
    Lower,
}

fn within() -> f64 {
    0.01
}

fn all() -> f64 {
    1.0
}

fn one() -> f64 {
    1.0
}

fn some_requests() -> u64 {
    100
}

fn some_minutes() -> SignedDuration {
    SignedDuration::from_mins(5)
}

fn some_share() -> f64 {
    5.0
}

fn some_confidence() -> f64 {
    0.95
}

impl Default for Plan {
    fn default() -> Self {
        let step = |share, minutes, requests, stake| Step {
            share,
            // Each request that both are given says more than many that one of them is.
            shadow: share <= 5.0,
            time: SignedDuration::from_mins(minutes),
            requests,
            stake,
            ..Step::default()
        };
        let whole = Step { shadow: true, ..step(100.0, 5, 100, 2.0) };
        Self {
            alpha: 0.01,
            block: SignedDuration::from_secs(5),
            settle: SignedDuration::from_secs(2),
            seed: 0,
            steps: vec![
                step(0.0, 5, 200, 1.0),
                step(1.0, 10, 100, 2.0),
                step(5.0, 10, 500, 12.0),
                step(25.0, 10, 1000, 3.0),
                whole,
            ],
            replay: None,
            experiment: None,
            guards: Guards::default(),
        }
    }
}

impl Default for Step {
    fn default() -> Self {
        let (share, shadow, requests) = (0.0, false, 0);
        Self { share, shadow, time: SignedDuration::ZERO, requests, most: None, stake: 1.0 }
    }
}

impl Default for Errors {
    fn default() -> Self {
        Self { weight: 10.0, factor: 1.0, points: 0.001 }
    }
}

impl Default for Slower<50> {
    fn default() -> Self {
        Self { weight: 2.0, factor: 1.25 }
    }
}

impl Default for Slower<99> {
    fn default() -> Self {
        Self { weight: 4.0, factor: 1.25 }
    }
}

impl Default for Distribution {
    fn default() -> Self {
        Self { weight: 1.0, distance: 0.25 }
    }
}

impl Default for Agreement {
    fn default() -> Self {
        Self { weight: 1.0, least: 0.5, within: 0.1 }
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self { weight: 1.0, factor: 1.0, points: 0.01 }
    }
}

impl Plan {
    /// Reads a plan and checks it.
    pub fn parse(text: &str) -> Result<Self> {
        let plan: Self = toml::from_str(text)
            .map_err(|error| Error::new(format!("the plan cannot be read: {error}")))?;
        plan.check()?;
        Ok(plan)
    }

    /// Refuses what contradicts itself or cannot finish, naming the field.
    pub fn check(&self) -> Result<()> {
        if !(self.alpha > 0.0 && self.alpha < 0.5) {
            return wrong("alpha", self.alpha, "a probability above 0 and below 0.5, such as 0.01");
        }
        let second = SignedDuration::from_secs(1);
        if self.block < second || self.block > SignedDuration::from_mins(10) {
            return wrong("block", shown(self.block), "1s to 10m");
        }
        if self.settle.is_negative() || self.settle > SignedDuration::from_mins(10) {
            return wrong("settle", shown(self.settle), "0s to 10m");
        }
        match &self.experiment {
            Some(experiment) => experiment.check(self)?,
            None => self.check_steps()?,
        }
        if let Some(replay) = &self.replay {
            replay.check()?;
        }
        self.guards.check()
    }

    /// The guards that are on, each with its part of alpha; the parts add up to 1.
    pub(crate) fn guard_weights(&self) -> Vec<(String, f64)> {
        let guards = &self.guards;
        let mut weights = vec![
            ("errors".to_owned(), guards.errors.weight),
            ("shadows".to_owned(), guards.shadows.weight),
            ("latency.p50".to_owned(), guards.latency.p50.weight),
            ("latency.p99".to_owned(), guards.latency.p99.weight),
            ("distribution".to_owned(), guards.distribution.weight),
            ("agreement".to_owned(), guards.agreement.weight),
            ("labels".to_owned(), guards.labels.weight),
        ];
        weights.extend(guards.metrics.iter().map(|(n, m)| (format!("metrics.{n}"), m.weight)));
        weights.retain(|(_, weight)| *weight > 0.0);
        let sum: f64 = weights.iter().map(|(_, weight)| weight).sum();
        weights.iter_mut().for_each(|(_, weight)| *weight /= sum);
        weights
    }

    /// The parts of alpha that are staked on evidence that begins in each step; they add up to 1.
    pub(crate) fn step_stakes(&self) -> Vec<f64> {
        if self.experiment.is_some() {
            return vec![1.0];
        }
        let sum: f64 = self.steps.iter().map(|step| step.stake).sum();
        self.steps.iter().map(|step| step.stake / sum).collect()
    }

    fn check_steps(&self) -> Result<()> {
        let Some(last) = self.steps.last() else {
            return Err(Error::new(
                "steps: there are none; expected at least one, or leave `steps` out for the default",
            ));
        };
        if self.steps.len() > 100 {
            return wrong("steps", self.steps.len(), "at most 100");
        }
        if last.shadow && last.share == 0.0 {
            return Err(Error::new(format!(
                "steps[{}].share: a plan cannot end with a shadow, which no user has seen; add a \
                 step with a share",
                self.steps.len() - 1
            )));
        }
        let mut before = 0.0;
        for (i, step) in self.steps.iter().enumerate() {
            step.check(i, before)?;
            before = step.share;
        }
        Ok(())
    }
}

impl Step {
    fn check(&self, i: usize, before: f64) -> Result<()> {
        let field = |name: &str| format!("steps[{i}].{name}");
        if !(0.0..=100.0).contains(&self.share) {
            return wrong(&field("share"), self.share, "a percentage from 0 to 100");
        }
        if self.share == 0.0 && !self.shadow {
            return wrong(&field("share"), 0, "a share above 0, or `shadow = true`");
        }
        if self.share > 0.0 && self.share < 0.01 {
            return wrong(&field("share"), self.share, "at least 0.01 %");
        }
        if self.share < before {
            return Err(Error::new(format!(
                "{}: shares cannot shrink, got {} % after {before} %; order the steps by share",
                field("share"),
                self.share
            )));
        }
        if self.time.is_negative() {
            return wrong(&field("time"), shown(self.time), "0s or more");
        }
        if let Some(most) = self.most
            && (most < self.time || most.is_zero())
        {
            return Err(Error::new(format!(
                "{}: at most {} contradicts `time`, at least {}; expected `most` above `time`",
                field("most"),
                shown(most),
                shown(self.time)
            )));
        }
        if !(self.stake > 0.0 && self.stake.is_finite()) {
            return wrong(&field("stake"), self.stake, "a number above 0");
        }
        Ok(())
    }
}

impl Replay {
    fn check(&self) -> Result<()> {
        if self.file.is_empty() {
            return wrong("replay.file", "\"\"", "the path of a file of recorded requests");
        }
        if !(self.tolerance >= 0.0 && self.tolerance.is_finite()) {
            return wrong("replay.tolerance", self.tolerance, "0 or more");
        }
        if !(self.agreement > 0.0 && self.agreement <= 1.0) {
            return wrong("replay.agreement", self.agreement, "above 0 and at most 1");
        }
        Ok(())
    }
}

impl Experiment {
    fn check(&self, plan: &Plan) -> Result<()> {
        if plan.steps != Plan::default().steps {
            return Err(Error::new(
                "steps: a plan has either steps or an `experiment`; leave one of them out",
            ));
        }
        if !plan.guards.metrics.contains_key(&self.metric) {
            return Err(Error::new(format!(
                "experiment.metric: there is no [guards.metrics.{}]; add it, with its range",
                self.metric
            )));
        }
        let sum: f64 = self.shares.iter().sum();
        let in_range = |share: &f64| (0.01..100.0).contains(share);
        if !self.shares.iter().all(in_range) || sum >= 100.0 {
            return wrong(
                "experiment.shares",
                format!("{:?}", self.shares),
                "percentages of at least 0.01 that leave something to the champion",
            );
        }
        if self.kind == Kind::Fixed && self.shares.is_empty() {
            return wrong("experiment.shares", "none", "a percentage for each candidate");
        }
        if self.time.is_negative() || self.most <= self.time {
            return wrong("experiment.most", shown(self.most), "more than `experiment.time`");
        }
        if self.every < plan.block {
            return wrong("experiment.every", shown(self.every), "at least `block`");
        }
        if !(0.01..50.0).contains(&self.least) {
            return wrong("experiment.least", self.least, "a percentage from 0.01 to below 50");
        }
        if !(self.confidence > 0.5 && self.confidence < 1.0) {
            return wrong("experiment.confidence", self.confidence, "above 0.5 and below 1");
        }
        Ok(())
    }
}

impl Guards {
    fn check(&self) -> Result<()> {
        let weights = [
            ("errors", self.errors.weight),
            ("shadows", self.shadows.weight),
            ("latency.p50", self.latency.p50.weight),
            ("latency.p99", self.latency.p99.weight),
            ("distribution", self.distribution.weight),
            ("agreement", self.agreement.weight),
            ("labels", self.labels.weight),
        ];
        let metrics = self.metrics.iter().map(|(name, metric)| (name.as_str(), metric.weight));
        let mut sum = 0.0;
        for (name, weight) in weights.into_iter().chain(metrics) {
            if !(0.0..=1e6).contains(&weight) {
                return wrong(
                    &format!("guards.{name}.weight"),
                    weight,
                    "a number from 0, which is off, to 1000000",
                );
            }
            sum += weight;
        }
        if sum <= 0.0 {
            return Err(Error::new(
                "guards: all have weight 0, so nothing would ever stop a bad candidate; give at \
                 least one a weight",
            ));
        }
        for (name, factor, points) in [
            ("errors", self.errors.factor, self.errors.points),
            ("shadows", self.shadows.factor, self.shadows.points),
            ("labels", self.labels.factor, self.labels.points),
        ] {
            if !(1.0..=10.0).contains(&factor) {
                return wrong(&format!("guards.{name}.factor"), factor, "1 to 10");
            }
            if !(0.0..1.0).contains(&points) {
                return wrong(&format!("guards.{name}.points"), points, "0 to below 1");
            }
        }
        for (name, factor) in [("p50", self.latency.p50.factor), ("p99", self.latency.p99.factor)] {
            if !(1.0..=1000.0).contains(&factor) {
                return wrong(&format!("guards.latency.{name}.factor"), factor, "1 to 1000");
            }
        }
        let part = |name, value: f64| match (0.0..1.0).contains(&value) {
            true => Ok(()),
            false => wrong(name, value, "0 to below 1"),
        };
        part("guards.distribution.distance", self.distribution.distance)?;
        part("guards.agreement.least", self.agreement.least)?;
        if !(self.agreement.within >= 0.0 && self.agreement.within.is_finite()) {
            return wrong("guards.agreement.within", self.agreement.within, "0 or more");
        }
        self.metrics.iter().try_for_each(|(name, metric)| metric.check(name))
    }
}

impl Metric {
    fn check(&self, name: &str) -> Result<()> {
        let field = |part: &str| format!("guards.metrics.{name}.{part}");
        if !(self.low.is_finite() && self.high.is_finite() && self.low < self.high) {
            return wrong(&field("high"), self.high, &format!("more than `low`, {}", self.low));
        }
        let width = self.high - self.low;
        if !(self.tolerance >= 0.0 && self.tolerance < width) {
            return wrong(&field("tolerance"), self.tolerance, &format!("0 to below {width}"));
        }
        Ok(())
    }
}

fn wrong<T>(field: &str, got: impl std::fmt::Display, expected: &str) -> Result<T> {
    Err(Error::new(format!("{field}: expected {expected}, got {got}")))
}

/// A duration as the plan's file has it.
pub(crate) fn shown(duration: SignedDuration) -> String {
    format!("{duration:#}")
}
