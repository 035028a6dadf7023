//! The most frequent values of a stream: exact while there are at most [`SIZE`] different ones,
//! beyond that the counters of Misra and Gries ("Finding repeated elements", 1982).

use std::collections::HashMap;

/// Values that are counted at once.
pub const SIZE: usize = 1024;

/// Longer values are counted by what they begin with, so that memory stays bounded.
const LONGEST: usize = 256;

/// Counts of the most frequent values.
#[derive(Clone, Debug, Default)]
pub struct Frequent {
    counts: HashMap<Box<str>, u64>,
    /// By how much a count may be too low.
    dropped: u64,
}

impl Frequent {
    /// Counts a value so many times.
    pub fn insert(&mut self, value: &str, times: u64) {
        let value = shortened(value);
        if let Some(count) = self.counts.get_mut(value) {
            *count += times;
        } else {
            self.counts.insert(value.into(), times);
            // Twice as many for a while: then dropping the rest costs little for each.
            if self.counts.len() > 2 * SIZE {
                self.shrink();
            }
        }
    }

    fn shrink(&mut self) {
        let mut counts: Vec<u64> = self.counts.values().copied().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let least = counts[SIZE];
        self.counts.retain(|_, count| {
            *count = count.saturating_sub(least);
            *count > 0
        });
        self.dropped += least;
    }

    /// Takes all that another has counted.
    pub fn merge(&mut self, other: &Self) {
        other.counts.iter().for_each(|(value, count)| self.insert(value, *count));
        self.dropped += other.dropped;
    }

    /// How many different values there are, if all of them are counted.
    pub fn distinct(&self) -> Option<u64> {
        (self.dropped == 0 && self.counts.len() <= SIZE).then_some(self.counts.len() as u64)
    }

    /// The most frequent values, and by how much a count may be too high: each count is the most
    /// that it can be.
    pub fn finish(&self, most: usize) -> (Vec<(String, u64)>, u64) {
        let mut all: Vec<(String, u64)> =
            self.counts.iter().map(|(v, count)| (v.to_string(), count + self.dropped)).collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.truncate(most);
        (all, self.dropped)
    }
}

fn shortened(value: &str) -> &str {
    let mut end = LONGEST.min(value.len());
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    &value[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_values_are_counted_exactly() {
        let mut counts = Frequent::default();
        for (value, times) in [("b", 2), ("a", 3), ("c", 2), ("a", 1)] {
            counts.insert(value, times);
        }
        let top = vec![("a".to_owned(), 4), ("b".to_owned(), 2)];
        assert_eq!(counts.finish(2), (top, 0));
        assert_eq!(counts.distinct(), Some(3));
    }

    #[test]
    fn of_many_values_the_frequent_ones_are_found() {
        let mut random = fastrand::Rng::with_seed(4);
        let (mut counts, mut truth) = (Frequent::default(), HashMap::<String, u64>::new());
        for _ in 0..200_000 {
            // Few are frequent, most are hardly ever seen again.
            let value = ((1.0 / (random.f64().powi(2) + 1e-9)) as u64).to_string();
            counts.insert(&value, 1);
            *truth.entry(value).or_default() += 1;
        }
        let (top, error) = counts.finish(64);
        assert_eq!(counts.distinct(), None);
        assert!(counts.counts.len() <= 2 * SIZE);
        assert!(error > 0 && error < 200_000 / SIZE as u64, "{error}");
        for (value, count) in &top[..10] {
            let true_count = truth[value];
            assert!(*count >= true_count && count - true_count <= error, "{value}");
        }
        assert_eq!(top[0].0, "1");
    }

    #[test]
    fn long_values_are_cut() {
        let mut counts = Frequent::default();
        counts.insert(&"ä".repeat(10_000), 1);
        assert_eq!(counts.finish(1).0[0].0.len(), 256);
    }
}
