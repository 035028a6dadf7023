//! What a server counts while a rollout runs.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::{SignedDuration, Timestamp};
use model::{Data, ErrorCode, Observation, Outcome, Tensor};

use crate::block::{Block, Counts, Feedback};
use crate::plan::Plan;
use crate::sketch::Predictions;

/// Stretches of time that are open at once, at most: a clock that jumps about cannot fill memory.
const OPEN: usize = 64;

/// Versions that are counted in one stretch, at most.
const VERSIONS: usize = 32;

/// Rows of one request that are looked at, at most.
const ROWS: usize = 64;

/// Callers whose refused requests are remembered, at most.
const CALLERS: usize = 100_000;

/// How long after its end a stretch is handed out, so that most of its requests have ended.
const GRACE: SignedDuration = SignedDuration::from_secs(1);

/// What one server counts of one model while a rollout runs, in bounded memory.
///
/// Give it that model's observations only.
#[derive(Debug)]
pub struct Tally {
    plan: Plan,
    open: BTreeMap<i64, BTreeMap<u64, Counts>>,
    refused: HashSet<u64>,
    latest: Option<Timestamp>,
    lost: u64,
}

impl Tally {
    /// An empty one. The plan says how long a block is, and what is compared how.
    pub fn new(plan: &Plan) -> Self {
        let (open, refused) = (BTreeMap::new(), HashSet::new());
        Self { plan: plan.clone(), open, refused, latest: None, lost: 0 }
    }

    /// Counts a prediction. Versions whose name is no number are not of the registry, and not counted.
    pub fn observe(&mut self, observation: &Observation) {
        let Ok(version) = observation.version.parse::<u64>() else { return };
        let Ok(at) = Timestamp::try_from(observation.at) else {
            self.lost = self.lost.saturating_add(1);
            return;
        };
        self.latest = self.latest.max(Some(at));
        match &observation.shadow {
            Some(caller) => self.shadowed(version, at, observation, &caller.outputs),
            None => self.served(version, at, observation),
        }
    }

    /// Counts what became known of a prediction that this version had made; it counts for the time
    /// of the latest prediction or taking.
    pub fn feedback(&mut self, version: u64, feedback: &Feedback) {
        let Some(index) = self.latest.map(|latest| self.index(latest)) else { return };
        let ranges: Vec<_> = self
            .plan
            .guards
            .metrics
            .iter()
            .filter_map(|(name, metric)| {
                let value = feedback.metrics.get(name).filter(|value| value.is_finite())?;
                Some((name.clone(), (value - metric.low) / (metric.high - metric.low)))
            })
            .collect();
        let Some(counts) = self.counts(index, version) else { return };
        for (name, part) in ranges {
            counts.metrics.entry(name).or_default().add(part);
        }
        match feedback.right {
            Some(true) => counts.right = counts.right.saturating_add(1),
            Some(false) => counts.wrong = counts.wrong.saturating_add(1),
            None => {}
        }
    }

    /// Hands out the blocks that are over. Those of a clock that was ahead are handed out as well.
    pub fn take(&mut self, now: Timestamp) -> Vec<Block> {
        self.latest = Some(now);
        let length = self.plan.block;
        let bounds = |index: i64| {
            let seconds = index.checked_mul(length.as_secs())?;
            let start = Timestamp::from_second(seconds).ok()?;
            Some((start, start.checked_add(length).ok()?))
        };
        let mut blocks = Vec::new();
        let mut open = BTreeMap::new();
        for (index, versions) in std::mem::take(&mut self.open) {
            let Some((start, end)) = bounds(index) else { continue };
            let is_over = end.saturating_add(GRACE).is_ok_and(|end| end <= now);
            let is_ahead = start > now && start.duration_since(now) > length;
            if is_over || is_ahead {
                blocks.push(Block { start, end, versions });
            } else {
                open.insert(index, versions);
            }
        }
        self.open = open;
        blocks
    }

    /// Predictions that could not be counted: too many stretches of time were open at once.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    fn served(&mut self, version: u64, at: Timestamp, observation: &Observation) {
        if let Outcome::Failed(code) = observation.outcome
            && self.is_known_refusal(version, code, observation.key.as_deref())
        {
            return;
        }
        let index = self.index(at);
        let Some(counts) = self.counts(index, version) else { return };
        counts.requests = counts.requests.saturating_add(1);
        match observation.outcome {
            Outcome::Answered => {
                counts.latencies.add(observation.queue.saturating_add(observation.compute));
                predictions(&mut counts.predictions, &observation.outputs);
            }
            Outcome::Failed(_) => counts.failures = counts.failures.saturating_add(1),
        }
    }

    fn shadowed(
        &mut self,
        version: u64,
        at: Timestamp,
        observation: &Observation,
        caller: &[Tensor],
    ) {
        // A shadow is the first to be given up when there is much to do: that is no fault of its.
        if let Outcome::Failed(
            ErrorCode::ResourceExhausted | ErrorCode::Unavailable | ErrorCode::DeadlineExceeded,
        ) = observation.outcome
        {
            return;
        }
        let (index, within) = (self.index(at), self.plan.guards.agreement.within);
        let Some(counts) = self.counts(index, version) else { return };
        let shadow = &mut counts.shadow;
        let counter = match (observation.outcome, caller.is_empty()) {
            (Outcome::Answered, false) => &mut shadow.both,
            (Outcome::Answered, true) => &mut shadow.caller_failed,
            (Outcome::Failed(_), false) => &mut shadow.shadow_failed,
            (Outcome::Failed(_), true) => &mut shadow.neither,
        };
        *counter = counter.saturating_add(1);
        if observation.outcome == Outcome::Answered && !caller.is_empty() {
            predictions(&mut shadow.predictions, &observation.outputs);
            predictions(&mut shadow.callers, caller);
            let agrees = agree(&answers(&observation.outputs), &answers(caller), within);
            shadow.agreed = shadow.agreed.saturating_add(u64::from(agrees));
        }
    }

    /// Whether this caller's requests were refused before. A caller who always sends what no version
    /// takes stays with one version, by its key, and counts once and not with every request.
    fn is_known_refusal(&mut self, version: u64, code: ErrorCode, key: Option<&str>) -> bool {
        let (true, Some(key)) = (is_refusal(code), key) else { return false };
        let mut hasher = DefaultHasher::new();
        (version, key).hash(&mut hasher);
        if self.refused.len() >= CALLERS {
            self.refused.clear();
        }
        !self.refused.insert(hasher.finish())
    }

    /// The stretch of time; whole seconds, so that servers cut it at the same moments.
    fn index(&self, at: Timestamp) -> i64 {
        at.as_second().div_euclid(self.plan.block.as_secs().max(1))
    }

    fn counts(&mut self, index: i64, version: u64) -> Option<&mut Counts> {
        let full = self.open.len() >= OPEN && !self.open.contains_key(&index);
        let crowded = self
            .open
            .get(&index)
            .is_some_and(|versions| versions.len() >= VERSIONS && !versions.contains_key(&version));
        if full || crowded {
            self.lost = self.lost.saturating_add(1);
            return None;
        }
        Some(self.open.entry(index).or_default().entry(version).or_default())
    }
}

/// What a row of a model's first output says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Answer {
    Number(f64),
    Category(u64),
}

fn predictions(counted: &mut Predictions, outputs: &[Tensor]) {
    for answer in answers(outputs) {
        match answer {
            Answer::Number(number) => counted.add_number(number),
            Answer::Category(index) => counted.add_category(index),
        }
    }
}

/// Each row of the first output: a single number, the place of the largest of several, or a string.
pub(crate) fn answers(outputs: &[Tensor]) -> Vec<Answer> {
    let Some(output) = outputs.first().filter(|output| !output.is_empty()) else {
        return Vec::new();
    };
    let rows = output.rows().unwrap_or(1).max(1);
    let width = output.len() / rows;
    let look = rows.min(ROWS);
    match output.data() {
        Data::Bytes(strings) => {
            let rows = strings.chunks(width.max(1)).take(look);
            rows.map(|row| Answer::Category(category(&row[0]))).collect()
        }
        _ => {
            let numbers = numbers(output.data(), look * width);
            numbers.chunks(width.max(1)).take(look).map(largest).collect()
        }
    }
}

/// What stands for a class that has a name.
pub(crate) fn category(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

fn largest(row: &[f64]) -> Answer {
    match row {
        [number] => Answer::Number(*number),
        _ if row.iter().any(|number| number.is_nan()) => Answer::Number(f64::NAN),
        _ => {
            let mut best = 0;
            for (i, number) in row.iter().enumerate() {
                if *number > row[best] {
                    best = i;
                }
            }
            Answer::Category(best as u64)
        }
    }
}

/// Whether all rows say the same, numbers to this part of the larger one.
fn agree(own: &[Answer], others: &[Answer], within: f64) -> bool {
    own.len() == others.len()
        && own.iter().zip(others).all(|pair| match pair {
            (Answer::Number(a), Answer::Number(b)) => {
                a == b || (a - b).abs() <= within * a.abs().max(b.abs())
            }
            (a, b) => a == b,
        })
}

/// Whether the request was at fault and not what happened to it.
fn is_refusal(code: ErrorCode) -> bool {
    match code {
        ErrorCode::InvalidArgument
        | ErrorCode::NotFound
        | ErrorCode::AlreadyExists
        | ErrorCode::FailedPrecondition
        | ErrorCode::Unauthenticated
        | ErrorCode::PermissionDenied => true,
        ErrorCode::Unimplemented
        | ErrorCode::ResourceExhausted
        | ErrorCode::Unavailable
        | ErrorCode::DeadlineExceeded
        | ErrorCode::Internal => false,
    }
}

/// The first so many elements as numbers; none of a tensor of strings.
fn numbers(data: &Data, most: usize) -> Vec<f64> {
    macro_rules! take {
        ($buffer:expr, $number:ident => $convert:expr) => {
            $buffer.iter().take(most).map(|$number| $convert).collect()
        };
    }
    match data {
        Data::Bool(buffer) | Data::Uint8(buffer) => take!(buffer, n => f64::from(*n)),
        Data::Uint16(buffer) => take!(buffer, n => f64::from(*n)),
        Data::Uint32(buffer) => take!(buffer, n => f64::from(*n)),
        Data::Uint64(buffer) => take!(buffer, n => *n as f64),
        Data::Int8(buffer) => take!(buffer, n => f64::from(*n)),
        Data::Int16(buffer) => take!(buffer, n => f64::from(*n)),
        Data::Int32(buffer) => take!(buffer, n => f64::from(*n)),
        Data::Int64(buffer) => take!(buffer, n => *n as f64),
        Data::Fp16(buffer) => take!(buffer, n => n.to_f64()),
        Data::Bf16(buffer) => take!(buffer, n => n.to_f64()),
        Data::Fp32(buffer) => take!(buffer, n => f64::from(*n)),
        Data::Fp64(buffer) => take!(buffer, n => *n),
        Data::Bytes(_) => Vec::new(),
    }
}
