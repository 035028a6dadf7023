//! Failures of two versions in one stretch of time, given how many there were together.
//!
//! If both fail as often, and chance decides who gets which request, then the candidate's part of
//! the failures is a draw without replacement: hypergeometric, whatever the rate of failures was
//! and however requests failed together. If the candidate's odds of failing are ψ times as large,
//! it is Fisher's noncentral hypergeometric distribution. The ratio of the two is a fair bet against
//! "no worse", and the product of bets over stretches is a test martingale.

/// The odds ratios that are bet on: 1.25^-8 to 1.25^18, that is 0.17 to 55.
pub(crate) const GRID: usize = 27;

/// Where the grid is 1.
pub(crate) const ONE: usize = 8;

const STEP: f64 = 1.25;

/// More failures than these in a block are counted as if there were only these, in proportion: the
/// evidence becomes weaker, never stronger.
const MOST: u64 = 100_000;

/// How much is bet on the candidate's odds being 1.25^(i+1) times as large as tolerated: most on two
/// to five times.
pub(crate) const PRIOR: [f64; GRID - ONE - 1] = [
    0.04, 0.06, 0.10, 0.15, 0.18, 0.15, 0.09, 0.06, 0.04, 0.03, 0.02, 0.02, 0.01, 0.01, 0.01, 0.01,
    0.01, 0.01,
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
        let equal = sums.log_sum(1.0);
        Some(std::array::from_fn(|i| {
            let ratio = ratio(i);
            let beyond = (sums.observed - sums.least) as f64;
            beyond * ratio.ln() - (sums.log_sum(ratio) - equal)
        }))
    }

    /// For each odds ratio, the logarithm of how much more probable it is that the candidate has any
    /// of the failures, or none, as was seen. A crowd of failures counts no more than one.
    pub fn presence_logs<const N: usize>(self, ratios: [f64; N]) -> Option<[f64; N]> {
        let sums = self.scaled().sums()?;
        if sums.least > 0 {
            return None;
        }
        let absent = |ratio: f64| (-sums.log_sum(ratio)).exp();
        let equal = absent(1.0);
        Some(ratios.map(|ratio| match sums.observed {
            0 => (absent(ratio) / equal).ln(),
            _ => ((1.0 - absent(ratio)) / (1.0 - equal)).ln(),
        }))
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
    /// The logarithm of the sum of the noncentral weights, in units of the weight of the least
    /// possible number of failures.
    fn log_sum(&self, ratio: f64) -> f64 {
        let (mut sum, mut term, mut scale) = (1.0f64, 1.0f64, 0.0f64);
        for j in self.least..self.most {
            let rest = (self.table.champion - (self.failed - j) + 1) as f64;
            let factor = (self.table.candidate - j) as f64 * (self.failed - j) as f64
                / ((j + 1) as f64 * rest);
            term *= factor * ratio;
            sum += term;
            // The factors only shrink, so that the rest of the sum is below a geometric series.
            if term < sum * 1e-17 {
                break;
            }
            if sum > 1e200 {
                (sum, term, scale) = (sum * 1e-200, term * 1e-200, scale + 200.0);
            }
        }
        sum.ln() + scale * std::f64::consts::LN_10
    }
}
