//! Histograms that are cheap to fill: one observation is two relaxed additions.
//!
//! A histogram has cells whose borders are both those of Prometheus's native histograms of schema 3
//! (eight to a factor of two, each 9 % wide) and round ones. So one count serves both kinds exactly.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The schema of the native buckets: 2^3 of them to a factor of two.
pub const SCHEMA: i32 = 3;

/// Native buckets to a factor of two.
const PER_OCTAVE: i32 = 1 << SCHEMA;

/// Upper bounds in seconds, from what a small model takes to what nobody waits for.
const SECONDS: [f64; 20] = [
    1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Upper bounds in rows.
const ROWS: [f64; 13] =
    [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0];

/// How long things take; observed in nanoseconds. 1 µs to 512 s are told apart.
pub(crate) static TIMES: LazyLock<Layout> = LazyLock::new(|| Layout::new(1e-9, &SECONDS, -20, 9));

/// How many rows run together. 1 to 65,536 are told apart.
pub(crate) static SIZES: LazyLock<Layout> = LazyLock::new(|| Layout::new(1.0, &ROWS, -1, 16));

/// The upper bounds of the round buckets of every histogram of times, in seconds, smallest first.
pub const fn time_bounds() -> &'static [f64] {
    &SECONDS
}

/// Where the cells of a histogram end.
#[derive(Debug)]
pub(crate) struct Layout {
    /// What an observed whole number is multiplied with.
    unit: f64,
    /// The native bucket that ends where zero's does.
    lowest: i32,
    /// For each native bucket from `lowest` on, its first cell, and the round bound inside it if
    /// there is one: what is larger belongs to the next cell.
    natives: Vec<(u32, u64)>,
    /// For each cell the native bucket it is part of.
    cells: Vec<i32>,
    /// The round upper bounds, and the cell that ends there.
    bounds: Vec<(f64, usize)>,
    /// 2^(j/8): how far the mantissa reaches into an octave.
    steps: [f64; PER_OCTAVE as usize],
}

impl Layout {
    /// Tells apart 2^`from` to 2^`to`.
    fn new(unit: f64, round: &[f64], from: i32, to: i32) -> Self {
        let steps = std::array::from_fn(|j| libm::exp2(j as f64 / f64::from(PER_OCTAVE)));
        let (lowest, highest) = (from * PER_OCTAVE, to * PER_OCTAVE);
        let mut layout =
            Self { unit, lowest, natives: vec![], cells: vec![], bounds: vec![], steps };
        let mut round = round.iter().copied().peekable();
        for native in lowest..=highest + 1 {
            let first = layout.cells.len();
            layout.cells.push(native);
            let mut split = u64::MAX;
            if let Some(bound) = round.next_if(|bound| layout.native(*bound) == native) {
                split = (bound / unit).round() as u64;
                layout.bounds.push((bound, first));
                layout.cells.push(native);
            }
            layout.natives.push((first as u32, split));
        }
        layout
    }

    /// The native bucket of a value above 0: the smallest n with value ≤ 2^(n/8).
    fn native(&self, value: f64) -> i32 {
        let bits = value.to_bits();
        let exponent = ((bits >> 52) & 0x7ff) as i32 - 1023;
        let mantissa = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
        // Without branches: what comes next is never foreseeable.
        let step: i32 = self.steps.iter().map(|step| i32::from(*step < mantissa)).sum();
        exponent * PER_OCTAVE + step
    }

    fn cell(&self, value: u64) -> usize {
        let native = self.native(value as f64 * self.unit);
        let last = self.natives.len() as i32 - 1;
        let (first, split) = self.natives[(native - self.lowest).clamp(0, last) as usize];
        first as usize + usize::from(value > split)
    }
}

/// Counts of what was observed. Made when there is something to count: most are never needed.
#[derive(Debug)]
pub(crate) struct Histogram {
    layout: &'static Layout,
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    pub(crate) fn new(layout: &'static Layout) -> Self {
        let counts = layout.cells.iter().map(|_| AtomicU64::new(0)).collect();
        Self { layout, counts, sum: AtomicU64::new(0) }
    }

    /// Counts a value, in the layout's whole numbers.
    pub(crate) fn observe(&self, value: u64) {
        self.counts[self.layout.cell(value)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    pub(crate) fn observe_time(&self, time: Duration) {
        self.observe(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// What has been counted. Values that are observed meanwhile may be in it or not.
    pub(crate) fn distribution(&self) -> Distribution {
        let sum = self.sum.load(Ordering::Relaxed) as f64 * self.layout.unit;
        let mut distribution = Distribution { sum, ..Distribution::default() };
        let mut bounds = self.layout.bounds.iter().peekable();
        for (cell, count) in self.counts.iter().enumerate() {
            let count = count.load(Ordering::Relaxed);
            distribution.count += count;
            if let Some((bound, _)) = bounds.next_if(|(_, last)| *last == cell) {
                distribution.buckets.push((*bound, distribution.count));
            }
            let native = self.layout.cells[cell];
            if native == self.layout.lowest {
                distribution.zeros += count;
            } else if count > 0 {
                match distribution.natives.last_mut() {
                    Some((last, sum)) if *last == native => *sum += count,
                    _ => distribution.natives.push((native, count)),
                }
            }
        }
        distribution.zero_threshold = libm::exp2(f64::from(self.layout.lowest / PER_OCTAVE));
        distribution
    }
}

/// What a histogram has counted; seconds or rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// How many values there were.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// For each round upper bound how many values are not above it, smallest first; there is none
    /// for infinity.
    pub buckets: Vec<(f64, u64)>,
    /// How many values are not above the threshold of zero.
    pub zeros: u64,
    /// What counts as zero.
    pub zero_threshold: f64,
    /// For each native bucket of [`SCHEMA`] with anything in it, its index n and how many values are
    /// above 2^((n-1)/8) and not above 2^(n/8). Larger values than the layout tells apart are in the
    /// last one.
    pub natives: Vec<(i32, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(values: &[u64]) -> Distribution {
        let histogram = Histogram::new(&TIMES);
        values.iter().for_each(|value| histogram.observe(*value));
        histogram.distribution()
    }

    #[test]
    fn a_value_at_a_round_bound_is_not_above_it() {
        for bound in SECONDS {
            let at = (bound * 1e9).round() as u64;
            let distribution = of(&[at, at + 1]);
            let counts = distribution.buckets.iter().find(|(b, _)| *b == bound);
            assert_eq!(counts, Some(&(bound, 1)), "{bound}");
        }
        assert_eq!(of(&[]).buckets.len(), SECONDS.len());
    }

    #[test]
    fn nothing_is_lost_at_the_ends() {
        let distribution = of(&[0, 1, u64::MAX / 2]);
        assert_eq!((distribution.count, distribution.zeros), (3, 2));
        assert_eq!(distribution.natives, [(9 * 8 + 1, 1)]);
    }

    #[test]
    fn a_batch_of_one_row_is_in_the_bucket_of_one() {
        let histogram = Histogram::new(&SIZES);
        [1, 1, 3].iter().for_each(|rows| histogram.observe(*rows));
        let distribution = histogram.distribution();
        assert_eq!(distribution.buckets[..3], [(1.0, 2), (2.0, 2), (4.0, 3)]);
        assert_eq!(distribution.natives, [(0, 2), (13, 1)]);
        assert_eq!(distribution.sum, 5.0);
    }

    proptest! {
        #[test]
        fn every_value_is_in_the_bucket_that_the_definition_says(
            values in prop::collection::vec(1_000u64..500_000_000_000, 1..50),
        ) {
            let distribution = of(&values);
            for (bound, count) in &distribution.buckets {
                let expected = values.iter().filter(|v| **v as f64 * 1e-9 <= *bound * (1.0 + 1e-12));
                prop_assert_eq!(*count, expected.count() as u64, "le {}", bound);
            }
            let mut expected = std::collections::BTreeMap::new();
            for value in &values {
                *expected.entry((libm::log2(*value as f64 * 1e-9) * 8.0).ceil() as i32).or_insert(0) += 1;
            }
            let expected: Vec<(i32, u64)> = expected.into_iter().collect();
            prop_assert_eq!(&distribution.natives, &expected);
        }
    }
}
