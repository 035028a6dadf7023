//! Bets against "as often as before": evidence that stays valid however often it is looked at.
//!
//! An event happens in some part of all rows. The null is that this part lies in an interval. Bets
//! are made on it being larger than the interval's upper end, or smaller than its lower, by likelihood ratios of a
//! few effects; each multiplies what is staked by a factor whose mean is at most 1 under
//! the null. New stakes are put in all the time, as much in a week as 1 in all, so that what
//! changes late does not have to earn back the losses before it (the e-detector of Shin, Ramdas and
//! Rinaldo, 2024, which is the procedure of Shiryaev and Roberts with stakes by time). The sum of all
//! is expected to be no more than the weeks that have gone by. So it reaches 1/α within `w` weeks
//! with a chance of at most w · α, however often one looks.

use serde::{Deserialize, Serialize};

/// By how much the bets suppose that the odds have changed, as logarithms.
const EFFECTS: [f64; 3] = [0.35, 0.8, 1.6];

/// What may be staked is bounded, so that no sum overflows.
const RICHEST: f64 = 1e200;

/// The bets on one event.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Bets {
    bets: Vec<Bet>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Bet {
    /// Logarithms of what a row with the event, and one without, multiplies the stake by.
    hit: f64,
    other: f64,
    wealth: f64,
    /// The sum of the logarithms since it was last at its least: where this began is where a change
    /// most likely is, and what was seen since tells how large it is.
    climb: f64,
    since: Since,
}

/// What was seen since a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Since {
    /// Seconds since 1970.
    pub time: i64,
    pub rows: u64,
    pub hits: u64,
}

/// The part of rows that an event is to happen in.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Null {
    pub low: f64,
    pub high: f64,
}

impl Bets {
    pub fn new(null: Null) -> Self {
        let mut bets = Self::default();
        bets.against(null);
        bets
    }

    /// Bets against another interval from now on.
    pub fn against(&mut self, null: Null) {
        let logit = |p: f64| (p / (1.0 - p)).ln();
        let part = |logit: f64| 1.0 / (1.0 + (-logit).exp());
        let sides = [(null.high, 1.0), (null.low, -1.0)];
        let mut terms = Vec::with_capacity(2 * EFFECTS.len());
        for (end, sign) in sides {
            // There is nothing beyond an end of all or nothing to bet on.
            if !(1e-6..=1.0 - 1e-6).contains(&end) {
                continue;
            }
            for effect in EFFECTS {
                let supposed = part(logit(end) + sign * effect);
                terms.push(((supposed / end).ln(), ((1.0 - supposed) / (1.0 - end)).ln(), sign));
            }
        }
        if self.bets.len() != terms.len() {
            // An end appears or disappears; what was won is shared, so that none is made up.
            let share = self.wealth() / terms.len().max(1) as f64;
            let bet =
                |wealth| Bet { hit: 0.0, other: 0.0, wealth, climb: 0.0, since: Since::default() };
            self.bets = terms.iter().map(|_| bet(share)).collect();
        }
        for (bet, (hit, other, _)) in self.bets.iter_mut().zip(terms) {
            (bet.hit, bet.other) = (hit, other);
        }
    }

    /// How many bets there are.
    pub fn len(&self) -> usize {
        self.bets.len()
    }

    /// Puts `stake` on each bet, then plays it on `hits` of `rows`, the first of which was at `time`.
    pub fn play(&mut self, hits: u64, rows: u64, stake: f64, time: i64) {
        for bet in &mut self.bets {
            let log = bet.hit * hits as f64 + bet.other * (rows - hits) as f64;
            bet.wealth = ((bet.wealth + stake) * log.exp()).min(RICHEST);
            if bet.climb <= 0.0 {
                (bet.climb, bet.since) = (0.0, Since { time, rows: 0, hits: 0 });
            }
            bet.climb += log;
            bet.since.rows += rows;
            bet.since.hits += hits;
        }
    }

    /// What all bets are worth.
    pub fn wealth(&self) -> f64 {
        self.bets.iter().map(|bet| bet.wealth).sum()
    }

    /// What was seen since the change on which the richest bet is.
    pub fn since(&self) -> Since {
        let richest = self.bets.iter().max_by(|a, b| a.wealth.total_cmp(&b.wealth));
        richest.map(|bet| bet.since).unwrap_or_default()
    }

    /// Takes everything back.
    pub fn clear(&mut self) {
        for bet in &mut self.bets {
            (bet.wealth, bet.climb, bet.since) = (0.0, 0.0, Since::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn under_the_null_wealth_is_what_was_staked_at_most() {
        let mut random = fastrand::Rng::with_seed(1);
        let null = Null { low: 0.25, high: 0.35 };
        for p in [0.25, 0.3, 0.35] {
            let (mut total, runs, blocks) = (0.0, 4000, 20);
            for _ in 0..runs {
                let mut bets = Bets::new(null);
                let stake = 1.0 / blocks as f64 / bets.len() as f64;
                for block in 0..blocks {
                    let hits = (0..8).filter(|_| random.f64() < p).count();
                    bets.play(hits as u64, 8, stake, block);
                }
                total += bets.wealth();
            }
            let mean = total / f64::from(runs);
            assert!(mean < 1.1, "{p}: {mean}");
        }
    }

    #[test]
    fn a_change_is_found_where_it_is() {
        let mut random = fastrand::Rng::with_seed(2);
        let mut bets = Bets::new(Null { low: 0.45, high: 0.55 });
        for block in 0..400 {
            let p = if block < 200 { 0.5 } else { 0.3 };
            let hits = (0..8).filter(|_| random.f64() < p).count();
            bets.play(hits as u64, 8, 1e-3, block);
        }
        assert!(bets.wealth() > 1e10);
        let since = bets.since();
        assert!((170..260).contains(&since.time), "{since:?}");
        assert!((since.hits as f64 / since.rows as f64 - 0.3).abs() < 0.05);
        bets.clear();
        assert_eq!(bets.wealth(), 0.0);
    }

    #[test]
    fn there_is_no_bet_beyond_all_or_nothing() {
        assert_eq!(Bets::new(Null { low: 0.0, high: 0.01 }).len(), EFFECTS.len());
        assert_eq!(Bets::new(Null { low: 0.0, high: 1.0 }).len(), 0);
    }
}
