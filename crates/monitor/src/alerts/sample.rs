//! What rules look at.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// Labels by name.
pub type Labels = BTreeMap<String, String>;

/// A metric's value for one set of labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The metric, as `/metrics` has it.
    pub metric: String,
    /// Its labels.
    pub labels: Labels,
    /// Its value.
    pub value: Value,
}

/// What a metric can be.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Goes up and down.
    Gauge(f64),
    /// Only goes up, unless what counts is started again.
    Counter(f64),
    /// Counts by size.
    Histogram(Buckets),
}

/// How many were at most so large, for ascending bounds; the last bound is infinite.
pub type Buckets = Vec<(f64, f64)>;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it is, such as `rollout.rolled_back`.
    pub name: String,
    /// What it happened to.
    pub labels: Labels,
    /// What is to be said of it.
    pub text: String,
    /// When.
    pub at: Timestamp,
}

/// The number that a part `quantile` of what was counted does not exceed, taken to be spread evenly
/// within a bucket (as Prometheus' `histogram_quantile` does); nothing if nothing was counted.
pub fn quantile(buckets: &Buckets, quantile: f64) -> Option<f64> {
    let total = buckets.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
    let rank = quantile * total;
    let place = buckets.iter().position(|(_, count)| *count >= rank)?;
    let (bound, count) = buckets[place];
    let (low, before) = match place.checked_sub(1) {
        Some(below) => buckets[below],
        None if bound <= 0.0 => return Some(bound),
        None => (0.0, 0.0),
    };
    // What is beyond the last bound is known to be at least that.
    if bound.is_infinite() {
        return Some(low);
    }
    Some(low + (bound - low) * (rank - before) / (count - before))
}

/// The part of what was counted that is at most `bound`, with its bucket's spread taken as even.
pub fn part_within(buckets: &Buckets, bound: f64) -> Option<f64> {
    let total = buckets.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
    let place = buckets.iter().position(|(upper, _)| *upper >= bound)?;
    let (upper, count) = buckets[place];
    let (low, before) = place.checked_sub(1).map_or((0.0, 0.0), |below| buckets[below]);
    let within = match upper.is_infinite() {
        true => before,
        false => before + (count - before) * (bound - low) / (upper - low),
    };
    Some(within / total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_prometheus() {
        let buckets = vec![(0.1, 10.0), (0.2, 20.0), (0.5, 90.0), (f64::INFINITY, 100.0)];
        assert_eq!(quantile(&buckets, 0.1), Some(0.1));
        assert_eq!(quantile(&buckets, 0.05), Some(0.05));
        assert!((quantile(&buckets, 0.55).unwrap() - 0.35).abs() < 1e-12);
        assert_eq!(quantile(&buckets, 0.99), Some(0.5));
        assert_eq!(quantile(&vec![(f64::INFINITY, 0.0)], 0.5), None);
        assert_eq!(quantile(&Vec::new(), 0.5), None);
        assert!((part_within(&buckets, 0.35).unwrap() - 0.55).abs() < 1e-12);
        assert_eq!(part_within(&buckets, 9.0), Some(0.9));
    }
}
