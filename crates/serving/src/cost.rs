//! What a batch of n rows costs, learned from the batches that ran.

use std::time::Duration;

/// Batch sizes are told apart by powers of two: 1, 2, 3–4, 5–8, …
const SIZES: usize = 20;

/// How much a new observation counts against the old ones.
const WEIGHT: f64 = 0.1;

/// A run that took longer than the average and this many times the usual deviation counts as one
/// that took just that long. Another program on the same processors can double a single run, and a
/// few such runs would make a larger size look cheaper than it is; a cost that has really risen is
/// still learned, for the deviation grows with every surprise.
const OUTLIER: f64 = 3.0;

/// A batch may be this much dearer per row than the cheapest size and still be preferred for
/// being smaller: smaller batches answer sooner.
const TOLERANCE: f64 = 1.15;

/// Running averages of one range of batch sizes, in rows and seconds.
#[derive(Clone, Copy, Debug)]
struct Size {
    rows: f64,
    seconds: f64,
    deviation: f64,
}

impl Size {
    fn per_row(&self) -> f64 {
        self.seconds / self.rows
    }
}

/// The learned cost of running a model.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cost {
    sizes: [Option<Size>; SIZES],
}

fn size_of_batch(rows: usize) -> usize {
    let power = usize::BITS - rows.max(1).saturating_sub(1).leading_zeros();
    (power as usize).min(SIZES - 1)
}

impl Cost {
    /// Learns from one run.
    pub(crate) fn record(&mut self, rows: usize, time: Duration) {
        let (rows, seconds) = (rows.max(1), time.as_secs_f64());
        let size = &mut self.sizes[size_of_batch(rows)];
        let rows = rows as f64;
        match size {
            None => *size = Some(Size { rows, seconds, deviation: seconds / 4.0 }),
            Some(known) => {
                let seconds = seconds.min(known.seconds + OUTLIER * known.deviation);
                let surprise = (seconds - known.seconds).abs();
                known.rows += WEIGHT * (rows - known.rows);
                known.seconds += WEIGHT * (seconds - known.seconds);
                known.deviation += WEIGHT * (surprise - known.deviation);
            }
        }
    }

    /// The time that a batch is expected to take; `None` before anything has run.
    pub(crate) fn expected(&self, rows: usize) -> Option<Duration> {
        self.interpolate(rows, |size| size.seconds).map(Duration::from_secs_f64)
    }

    /// A time that a batch is unlikely to exceed: the average and twice the usual deviation.
    pub(crate) fn cautious(&self, rows: usize) -> Option<Duration> {
        self.interpolate(rows, |size| size.seconds + 2.0 * size.deviation)
            .map(Duration::from_secs_f64)
    }

    /// Straight lines between the sizes that have been seen; in proportion beyond the largest.
    fn interpolate(&self, rows: usize, seconds: impl Fn(&Size) -> f64) -> Option<f64> {
        let rows = rows.max(1) as f64;
        let mut below: Option<&Size> = None;
        for size in self.sizes.iter().flatten() {
            if size.rows >= rows {
                let Some(low) = below else { return Some(seconds(size)) };
                let part = (rows - low.rows) / (size.rows - low.rows);
                return Some(seconds(low) + part * (seconds(size) - seconds(low)));
            }
            below = Some(size);
        }
        below.map(|largest| seconds(largest) * rows / largest.rows)
    }

    /// The number of rows to run together when more are waiting, at most `most`: the smallest
    /// size that is about as cheap per row as any. A size that has not been seen is tried when
    /// doubling has paid so far, so the answer grows from 1 as long as growing pays.
    pub(crate) fn preferred(&self, most: usize) -> usize {
        let seen = self.sizes.iter().flatten();
        let Some(best) = seen.map(Size::per_row).min_by(f64::total_cmp) else { return 1.min(most) };
        let best = best * TOLERANCE;
        let cheap = |size: &Option<Size>| size.is_some_and(|size| size.per_row() <= best);
        let smallest = self.sizes.iter().position(cheap).unwrap_or(0);
        let largest_seen = self.sizes.iter().rposition(Option::is_some).unwrap_or(0);
        let power =
            if smallest == largest_seen && smallest + 1 < SIZES { smallest + 1 } else { smallest };
        (1usize << power).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn learned(fixed_us: f64, row_us: f64) -> Cost {
        let mut cost = Cost::default();
        // What serving does: run what is preferred, learn from it.
        for _ in 0..200 {
            let rows = cost.preferred(1024);
            let time = fixed_us + row_us * rows as f64;
            cost.record(rows, Duration::from_secs_f64(time * 1e-6));
        }
        cost
    }

    #[test]
    fn a_model_that_gains_nothing_from_batching_runs_small_batches() {
        assert!(learned(10.0, 7000.0).preferred(1024) <= 2);
    }

    #[test]
    fn a_few_slow_runs_do_not_make_a_larger_size_preferred() {
        let mut cost = Cost::default();
        for (rows, ms) in [(1, 5.4), (4, 21.2), (16, 84.0)] {
            cost.record(rows, Duration::from_secs_f64(ms * 1e-3));
        }
        for turn in 0..2000 {
            let ms = if turn % 10 == 9 { 16.0 } else { 5.5 };
            cost.record(1, Duration::from_secs_f64(ms * 1e-3));
            assert_eq!(cost.preferred(1024), 1, "after {turn} runs");
        }
    }

    #[test]
    fn a_cost_that_has_risen_is_learned() {
        let mut cost = Cost::default();
        for turn in 0..150 {
            cost.record(1, Duration::from_millis(if turn < 50 { 5 } else { 40 }));
        }
        let expected = cost.expected(1).unwrap().as_secs_f64() * 1e3;
        assert!((36.0..=40.0).contains(&expected), "{expected}");
    }

    #[test]
    fn a_model_with_a_high_fixed_cost_runs_large_batches() {
        let preferred = learned(1000.0, 10.0).preferred(1024);
        assert!(preferred >= 512, "{preferred}");
    }

    #[test]
    fn the_size_stays_within_what_is_allowed() {
        assert_eq!(learned(1000.0, 10.0).preferred(8), 8);
        assert_eq!(Cost::default().preferred(0), 0);
    }

    proptest! {
        #[test]
        fn a_linear_cost_is_predicted_within_a_fifth(
            fixed in 1.0f64..500.0, row in 1.0f64..500.0, rows in 1usize..64,
        ) {
            let mut cost = Cost::default();
            for size in [1, 2, 4, 8, 16, 32, 64] {
                cost.record(size, Duration::from_secs_f64((fixed + row * size as f64) * 1e-6));
            }
            let expected = cost.expected(rows).unwrap().as_secs_f64() * 1e6;
            let truth = fixed + row * rows as f64;
            prop_assert!((expected - truth).abs() <= 0.2 * truth, "{expected} {truth}");
        }
    }
}
