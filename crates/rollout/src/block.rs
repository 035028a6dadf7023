//! What one server saw in one stretch of time.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::sketch::{Latencies, Predictions};

/// What one server saw of a model in one stretch of time, of all its versions: what belongs together
/// is compared with each other and with nothing else, so that what hits all versions at the same
/// time counts against none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// When the stretch began.
    pub start: Timestamp,
    /// When it ended; after `start`.
    pub end: Timestamp,
    /// What was counted, by version.
    pub versions: BTreeMap<u64, Counts>,
}

/// What was counted of one version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Counts {
    /// Requests of callers that were answered or failed.
    pub requests: u64,
    /// Those that failed.
    pub failures: u64,
    /// How long the answers took, waiting included.
    #[serde(skip_serializing_if = "is_default")]
    pub latencies: Latencies,
    /// What was predicted for callers.
    #[serde(skip_serializing_if = "is_default")]
    pub predictions: Predictions,
    /// What it did as a shadow.
    #[serde(skip_serializing_if = "is_default")]
    pub shadow: Shadowed,
    /// Predictions that a label has confirmed.
    #[serde(skip_serializing_if = "is_default")]
    pub right: u64,
    /// Predictions that a label has refuted.
    #[serde(skip_serializing_if = "is_default")]
    pub wrong: u64,
    /// Metrics by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, Mean>,
}

/// What a shadow did, compared request by request with the version that answered the caller.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shadowed {
    /// Requests that both answered.
    pub both: u64,
    /// Those of them whose answers agree.
    pub agreed: u64,
    /// Requests that only the shadow failed.
    pub shadow_failed: u64,
    /// Requests that only the version that answers callers failed.
    pub caller_failed: u64,
    /// Requests that both failed.
    pub neither: u64,
    /// What the shadow predicted.
    pub predictions: Predictions,
    /// What the callers got for the same requests.
    pub callers: Predictions,
}

impl Shadowed {
    /// All requests that were compared.
    pub fn requests(&self) -> u64 {
        [self.both, self.shadow_failed, self.caller_failed, self.neither]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

/// A sum of values that were mapped from a metric's range onto 0 to 1, in units of 2^-20. Whole
/// numbers, so that it does not matter in which order they are added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mean {
    /// How many values there were.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
    /// The sum of their squares.
    pub squares: u64,
}

impl Mean {
    /// One in the units of the sums.
    pub(crate) const ONE: f64 = (1u64 << 20) as f64;

    /// Adds a value between 0 and 1.
    pub fn add(&mut self, part: f64) {
        let part = part.clamp(0.0, 1.0);
        self.count = self.count.saturating_add(1);
        self.sum = self.sum.saturating_add((part * Self::ONE) as u64);
        self.squares = self.squares.saturating_add((part * part * Self::ONE) as u64);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.saturating_add(other.sum);
        self.squares = self.squares.saturating_add(other.squares);
    }

    /// The mean, 0 to 1.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum as f64 / Self::ONE / self.count as f64)
    }

    /// The variance of a value.
    pub(crate) fn variance(&self) -> Option<f64> {
        let mean = self.mean()?;
        Some((self.squares as f64 / Self::ONE / self.count as f64 - mean * mean).max(0.0))
    }
}

/// What became known of a prediction after it was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Feedback {
    /// Numbers by name, in the unit of the plan's `guards.metrics`. Names that the plan does not have
    /// and values that are not finite are not counted.
    pub metrics: BTreeMap<String, f64>,
    /// Whether the prediction was right, where a label says so.
    pub right: Option<bool>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
