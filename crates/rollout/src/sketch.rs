//! Counts in buckets, small enough to be sent every few seconds and exact when they are added up.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Buckets to a factor of two; one is 4.4 % wide.
const PER_OCTAVE: f64 = 16.0;

/// The last bucket of latencies begins after 2^40 ns, 18 minutes.
const LAST_LATENCY: u16 = 640;

/// The magnitudes of predictions that are told apart: 2^-32 to 2^32.
const OCTAVES: f64 = 32.0;

/// Where predictions that are no number are counted.
const NOT_A_NUMBER: i16 = i16::MAX;

/// Categories that are told apart; later ones share them.
const CATEGORIES: u64 = 64;

/// How many answers took how long.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Latencies {
    /// Counts by bucket, 16 buckets to a factor of two from 1 ns on.
    buckets: BTreeMap<u16, u64>,
}

impl Latencies {
    /// Counts one answer.
    pub fn add(&mut self, latency: Duration) {
        let nanos = latency.as_nanos().max(1) as f64;
        let bucket = (libm::log2(nanos) * PER_OCTAVE) as u16;
        self.add_to(bucket, 1);
    }

    pub(crate) fn add_to(&mut self, bucket: u16, count: u64) {
        let counted = self.buckets.entry(bucket.min(LAST_LATENCY)).or_default();
        *counted = counted.saturating_add(count);
    }

    /// Adds what another has counted.
    pub fn merge(&mut self, other: &Self) {
        other.buckets.iter().for_each(|(bucket, count)| self.add_to(*bucket, *count));
    }

    /// How many answers were counted.
    pub fn count(&self) -> u64 {
        self.buckets.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The time that this part of the answers, 0 to 1, did not exceed; to 4.4 %.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let rank = ((self.count() as f64 * part).ceil() as u64).max(1);
        let mut below = 0u64;
        let mut buckets = self.buckets.iter();
        let bucket = buckets.find(|(_, count)| {
            below = below.saturating_add(**count);
            below >= rank
        })?;
        let nanos = libm::exp2((f64::from(*bucket.0) + 0.5) / PER_OCTAVE);
        Some(Duration::from_nanos(nanos as u64))
    }

    /// Counts by bucket.
    pub(crate) fn buckets(&self) -> impl DoubleEndedIterator<Item = (u16, u64)> {
        self.buckets.iter().map(|(bucket, count)| (*bucket, *count))
    }
}

/// What was predicted, and how often: numbers by magnitude, categories by themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Predictions {
    /// Numbers by bucket, in the order of the numbers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    numbers: BTreeMap<i16, u64>,
    /// Categories: the index of the largest output, or a label's hash.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    categories: BTreeMap<u8, u64>,
}

impl Predictions {
    /// Counts a number; one that is not finite is counted apart.
    pub fn add_number(&mut self, number: f64) {
        self.add_to(number_bucket(number), 1);
    }

    /// Counts a category by its index.
    pub fn add_category(&mut self, index: u64) {
        let category = (index % CATEGORIES) as u8;
        let counted = self.categories.entry(category).or_default();
        *counted = counted.saturating_add(1);
    }

    pub(crate) fn add_to(&mut self, bucket: i16, count: u64) {
        let counted = self.numbers.entry(bucket).or_default();
        *counted = counted.saturating_add(count);
    }

    /// How many predictions were counted.
    pub fn count(&self) -> u64 {
        let counts = self.numbers.values().chain(self.categories.values());
        counts.fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The parts of both that are below cuts: where the two together have their quartiles, and of
    /// the three most common categories.
    pub(crate) fn compare(&self, other: &Self) -> Vec<(f64, f64)> {
        let (own, others) = (self.count() as f64, other.count() as f64);
        let mut parts = Vec::new();
        let mut both = self.clone();
        both.merge(other);
        let numbers: u64 = both.numbers.values().sum();
        for quartile in 1..=3u64 {
            let rank = numbers * quartile / 4;
            let mut below = [0u64; 2];
            for bucket in both.numbers.keys() {
                below[0] += self.numbers.get(bucket).copied().unwrap_or(0);
                below[1] += other.numbers.get(bucket).copied().unwrap_or(0);
                if below[0] + below[1] >= rank {
                    break;
                }
            }
            parts.push((below[0] as f64 / own, below[1] as f64 / others));
        }
        let mut common: Vec<_> = both.categories.iter().collect();
        common.sort_by_key(|(category, count)| (std::cmp::Reverse(**count), **category));
        for rank in 0..3 {
            let part = |of: &Self, all: f64| {
                let category = common.get(rank).map(|(category, _)| **category);
                let count = category.and_then(|category| of.categories.get(&category));
                count.copied().unwrap_or(0) as f64 / all
            };
            parts.push((part(self, own), part(other, others)));
        }
        parts
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        other.numbers.iter().for_each(|(bucket, count)| self.add_to(*bucket, *count));
        for (category, count) in &other.categories {
            let counted = self.categories.entry(*category).or_default();
            *counted = counted.saturating_add(*count);
        }
    }
}

/// A factor of time, in buckets.
pub(crate) fn buckets(factor: f64) -> i32 {
    libm::round(libm::log2(factor) * PER_OCTAVE) as i32
}

fn number_bucket(number: f64) -> i16 {
    if !number.is_finite() {
        return NOT_A_NUMBER;
    }
    let magnitude = (libm::log2(number.abs()) + OCTAVES).clamp(0.0, 2.0 * OCTAVES);
    let bucket = (magnitude * PER_OCTAVE) as i16;
    if number < 0.0 { -bucket } else { bucket }
}
