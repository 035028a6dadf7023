//! Quantiles of a stream in bounded memory, whatever its values and its order.
//!
//! Compactors as in Karnin, Lang and Liberty, "Optimal quantile approximation in streams" (FOCS
//! 2016), with buffers of one size and without chance: a full buffer is sorted, and every second
//! value goes on to the next with twice the weight, the odd and the even ones in turn. That bounds
//! the error of a rank by levels / (2 · SIZE) of all values, and a profile of the same data is the
//! same.

/// Values that a level holds.
const SIZE: usize = 2048;

/// Numbers, some of which stand for many.
#[derive(Clone, Debug, Default)]
pub struct Quantiles {
    /// Level `i` holds values of weight 2^i.
    levels: Vec<Level>,
}

#[derive(Clone, Debug, Default)]
struct Level {
    values: Vec<f64>,
    odd: bool,
}

impl Quantiles {
    /// Takes one number, which is not NaN.
    pub fn insert(&mut self, value: f64) {
        self.add(0, value);
        self.compact();
    }

    /// Takes all that another has seen.
    pub fn merge(&mut self, other: &Self) {
        for (level, from) in other.levels.iter().enumerate() {
            for value in &from.values {
                self.add(level, *value);
                self.compact();
            }
        }
    }

    fn add(&mut self, level: usize, value: f64) {
        if self.levels.len() <= level {
            self.levels.resize_with(level + 1, Level::default);
        }
        self.levels[level].values.push(value);
    }

    fn compact(&mut self) {
        for level in 0.. {
            let Some(full) = self.levels.get_mut(level).filter(|l| l.values.len() >= SIZE) else {
                // Those above can be full only by what comes from below.
                if level >= self.levels.len() {
                    return;
                }
                continue;
            };
            full.values.sort_by(f64::total_cmp);
            full.odd = !full.odd;
            let kept = std::mem::take(&mut full.values);
            let first = usize::from(full.odd);
            kept.iter().skip(first).step_by(2).for_each(|value| self.add(level + 1, *value));
        }
    }

    /// `most` numbers at the ranks (i + ½) / most, or all if there are no more than that.
    pub fn finish(&self, most: usize) -> Vec<f64> {
        let mut all: Vec<(f64, u64)> = Vec::new();
        for (level, from) in self.levels.iter().enumerate() {
            all.extend(from.values.iter().map(|value| (*value, 1u64 << level)));
        }
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total: u64 = all.iter().map(|(_, weight)| weight).sum();
        if total <= most as u64 {
            return all.into_iter().map(|(value, _)| value).collect();
        }
        let mut quantiles = Vec::with_capacity(most);
        let mut before = 0;
        for (value, weight) in all {
            before += weight;
            // All ranks that fall into this value's part.
            while quantiles.len() < most {
                let rank = (quantiles.len() as f64 + 0.5) / most as f64 * total as f64;
                if rank > before as f64 {
                    break;
                }
                quantiles.push(value);
            }
        }
        quantiles
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest error of a rank, as a part of all.
    fn error(values: &mut [f64], quantiles: &[f64]) -> f64 {
        values.sort_by(f64::total_cmp);
        let n = values.len() as f64;
        let off = |(i, value): (usize, &f64)| {
            let rank = (i as f64 + 0.5) / quantiles.len() as f64;
            let low = values.partition_point(|v| v < value) as f64 / n;
            let high = values.partition_point(|v| v <= value) as f64 / n;
            (low - rank).max(rank - high).max(0.0)
        };
        quantiles.iter().enumerate().map(off).fold(0.0, f64::max)
    }

    #[test]
    fn ranks_are_right_whatever_the_order() {
        let mut random = fastrand::Rng::with_seed(1);
        let normal = |random: &mut fastrand::Rng| (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
        let n = 300_000;
        let shapes: [Vec<f64>; 4] = [
            (0..n).map(f64::from).collect(),
            (0..n).rev().map(f64::from).collect(),
            (0..n).map(|_| normal(&mut random)).collect(),
            // Close together far from zero, where relative errors would say nothing.
            (0..n).map(|_| 1e9 + normal(&mut random)).collect(),
        ];
        for mut values in shapes {
            let mut quantiles = Quantiles::default();
            values.iter().for_each(|value| quantiles.insert(*value));
            let held: usize = quantiles.levels.iter().map(|level| level.values.len()).sum();
            assert!(held < 10 * SIZE, "{held}");
            let found = quantiles.finish(256);
            assert_eq!(found.len(), 256);
            let error = error(&mut values, &found);
            assert!(error < 0.003, "{error}");
        }
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let mut random = fastrand::Rng::with_seed(2);
        let mut values: Vec<f64> = (0..100_000).map(|_| random.f64()).collect();
        let mut whole = Quantiles::default();
        for part in values.chunks(777) {
            let mut one = Quantiles::default();
            part.iter().for_each(|value| one.insert(*value));
            whole.merge(&one);
        }
        assert!(error(&mut values, &whole.finish(256)) < 0.005);
    }

    #[test]
    fn few_values_are_all_kept() {
        let mut quantiles = Quantiles::default();
        [3.0, -1.0, 2.0, 2.0].into_iter().for_each(|value| quantiles.insert(value));
        assert_eq!(quantiles.finish(256), [-1.0, 2.0, 2.0, 3.0]);
        assert_eq!(quantiles.finish(2), [-1.0, 2.0]);
        assert!(Quantiles::default().finish(256).is_empty());
    }
}
