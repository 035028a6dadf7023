//! Failures of two versions in one stretch of time, given how many there were together.
//!
//! If both fail as often, and chance decides who gets which request, then the candidate's part of
//! the failures is a draw without replacement: hypergeometric, whatever the rate of failures was
//! and however requests failed together. If the candidate's odds of failing are ψ times as large,
//! it is Fisher's noncentral hypergeometric distribution. The ratio of the two is a fair bet against
//! "no worse", and the product of bets over stretches is a test martingale.

use std::ops::RangeBounds;

use crate::wealth::log_sum_exp;

/// The odds ratios that are bet on: 1.25^-8 to 1.25^18, that is 0.17 to 55.
pub(crate) const GRID: usize = 27;

/// Where the grid is 1.
pub(crate) const ONE: usize = 8;

const STEP: f64 = 1.25;

/// The logarithm of what is left of a bet that was lost.
const RUIN: f64 = -700.0;

/// More failures than these in a block are counted as if there were only these, in proportion: the
/// evidence becomes weaker, never stronger.
const MOST: u64 = 100_000;

/// How much is bet on the candidate's odds being 1.25^(i+1) times as large as tolerated: most on two
/// to five times.
pub(crate) const PRIOR: [f64; GRID - ONE - 1] = [
    0.03, 0.05, 0.12, 0.28, 0.23, 0.10, 0.05, 0.03, 0.02, 0.02, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01,
    0.005, 0.005,
];

/// Two versions' requests and failures in one stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub champion: u64,
    pub champion_failed: u64,
    pub candidate: u64,
    pub candidate_failed: u64,
}

/// The grid's odds ratio at this place.
pub(crate) fn ratio(i: usize) -> f64 {
    STEP.powi(i as i32 - ONE as i32)
}

/// The place of the smallest odds ratio of the grid that is not below this one.
pub(crate) fn place(ratio: f64) -> usize {
    (0..GRID).find(|i| self::ratio(*i) >= ratio * (1.0 - 1e-9)).unwrap_or(GRID - 1)
}

impl Table {
    /// For each odds ratio of the grid, the logarithm of how much more probable the failures are
    /// under it than under equal odds.
    pub fn logs(self) -> Option<[f64; GRID]> {
        let sums = self.scaled().sums()?;
        let equal = sums.log_sum(1.0, ..);
        Some(std::array::from_fn(|i| {
            let ratio = ratio(i);
            let beyond = (sums.observed - sums.least) as f64;
            beyond * ratio.ln() - (sums.log_sum(ratio, ..) - equal)
        }))
    }

    /// For each odds ratio, the logarithm of how much more probable it is that the candidate has more
    /// than its part of the failures, or has not, as was seen. A crowd of failures is one bit.
    pub fn excess_logs<const N: usize>(self, ratios: [f64; N]) -> Option<[f64; N]> {
        let sums = self.scaled().sums()?;
        let table = sums.table;
        let all = table.champion as f64 + table.candidate as f64;
        let part = (sums.failed as f64 * table.candidate as f64 / all) as u64;
        // Beyond the most there is nothing to bet on; at the least it is certain.
        let limit = (part + 1).clamp(sums.least + 1, sums.most);
        let of = |ratio: f64| {
            let (below, beyond) = (sums.log_sum(ratio, ..limit), sums.log_sum(ratio, limit..));
            let chosen = if sums.observed >= limit { beyond } else { below };
            chosen - log_sum_exp([below, beyond].into_iter())
        };
        let equal = of(1.0);
        Some(ratios.map(|ratio| (of(ratio) - equal).max(RUIN)))
    }

    fn scaled(self) -> Self {
        let failed = self.champion_failed.saturating_add(self.candidate_failed);
        let most = failed.min(self.candidate).max(1);
        if most <= MOST {
            return self;
        }
        let divisor = most.div_ceil(MOST);
        // The champion's are rounded up and the candidate's down.
        Self {
            champion: self.champion.div_ceil(divisor),
            champion_failed: self.champion_failed.div_ceil(divisor),
            candidate: self.candidate / divisor,
            candidate_failed: self.candidate_failed / divisor,
        }
    }

    /// `None` where nothing can be learned: one of the two is missing, or all or no requests failed.
    fn sums(self) -> Option<Sums> {
        let failed = self.champion_failed.checked_add(self.candidate_failed)?;
        let least = failed.saturating_sub(self.champion);
        let most = failed.min(self.candidate);
        let possible = self.champion_failed <= self.champion
            && self.candidate_failed <= self.candidate
            && self.champion.checked_add(self.candidate).is_some();
        (possible && least < most).then_some(Sums {
            least,
            most,
            observed: self.candidate_failed,
            failed,
            table: self,
        })
    }
}

struct Sums {
    least: u64,
    most: u64,
    observed: u64,
    failed: u64,
    table: Table,
}

impl Sums {
    /// The logarithm of the sum of the noncentral weights of so many failures of the candidate, in
    /// units of the weight of the least possible number.
    fn log_sum(&self, ratio: f64, of: impl RangeBounds<u64>) -> f64 {
        let (mut sum, mut term, mut scale) = (0.0f64, 1.0f64, 0.0f64);
        let mut most = 0.0;
        for j in self.least..=self.most {
            if of.contains(&j) {
                sum += term;
            }
            most = term.max(most);
            if j == self.most {
                break;
            }
            let rest = (self.table.champion - (self.failed - j) + 1) as f64;
            let factor = (self.table.candidate - j) as f64 * (self.failed - j) as f64
                / ((j + 1) as f64 * rest);
            term *= factor * ratio;
            // The factors only shrink, so that the rest is below a geometric series.
            if term < most * 1e-30 && term < sum * 1e-17 {
                break;
            }
            if term > 1e200 {
                sum *= 1e-200;
                most *= 1e-200;
                term *= 1e-200;
                scale += 200.0;
            }
        }
        sum.ln() + scale * std::f64::consts::LN_10
    }
}
