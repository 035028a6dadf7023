//! What bets against "no worse" have earned.
//!
//! A guard begins with a wealth of 1 and stakes a part of it at each of a few times that are fixed
//! before: when a step begins, and 2, 8, 32, … minutes into it. What was staked at a time is bet on
//! everything that comes after it. So evidence that first shows late is not buried under the losses
//! of the quiet time before, and the whole never expects to grow while the candidate is no worse: it
//! reaches 1/α with a probability of at most α, whenever one looks (Ville's inequality).

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

/// A nat in the units of the sums: whole numbers, so that their order does not matter.
const NAT: f64 = (1u64 << 32) as f64;

/// Times at which a step's stake is put in, at most.
const STARTS: u32 = 16;

/// The part of a step's stake that is put in when it begins.
const FIRST: f64 = 0.85;

/// The logarithms of what each bet of a guard has earned, by the time at which it was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Wealth {
    epochs: BTreeMap<u32, Vec<i64>>,
}

/// The stretch between two times at which stakes are put in.
pub(crate) fn epoch(step: usize, elapsed: SignedDuration) -> u32 {
    let mut limit = SignedDuration::from_mins(2);
    let mut start = 0;
    while elapsed >= limit && start < STARTS - 1 {
        start += 1;
        limit = limit.saturating_mul(4);
    }
    step as u32 * STARTS + start
}

impl Wealth {
    /// Adds what each bet has earned or lost in a block.
    pub fn add(&mut self, epoch: u32, logs: &[f64]) {
        let sums = self.epochs.entry(epoch).or_insert_with(|| vec![0; logs.len()]);
        for (sum, log) in sums.iter_mut().zip(logs) {
            // Rounded down, so that rounding never makes evidence.
            *sum = sum.saturating_add((log * NAT).floor() as i64);
        }
    }

    /// Whether anything was bet.
    pub fn is_empty(&self) -> bool {
        self.epochs.is_empty()
    }

    /// The logarithms of what each bet has earned since the beginning.
    pub fn sums(&self) -> Vec<f64> {
        let mut sums = Vec::new();
        self.epochs.values().for_each(|earned| add(&mut sums, earned));
        nats(&sums)
    }

    /// The logarithm of the wealth. `mixed` is that of all bets together, by what each has earned.
    pub fn log(&self, stakes: &[f64], mixed: impl Fn(&[f64]) -> f64) -> f64 {
        let mut logs = Vec::with_capacity(self.epochs.len() + 1);
        let mut sums = Vec::new();
        let mut idle = 1.0;
        for (epoch, earned) in self.epochs.iter().rev() {
            add(&mut sums, earned);
            let stake = stake(stakes, *epoch);
            idle -= stake;
            logs.push(stake.ln() + mixed(&nats(&sums)));
        }
        logs.push(idle.max(0.0).ln());
        log_sum_exp(logs.into_iter())
    }
}

fn add(sums: &mut Vec<i64>, earned: &[i64]) {
    sums.resize(earned.len().max(sums.len()), 0);
    sums.iter_mut().zip(earned).for_each(|(sum, log)| *sum = sum.saturating_add(*log));
}

fn nats(sums: &[i64]) -> Vec<f64> {
    sums.iter().map(|sum| *sum as f64 / NAT).collect()
}

/// The part of the wealth that is put in at the beginning of an epoch. All of them add up to 1.
fn stake(stakes: &[f64], epoch: u32) -> f64 {
    let of_step = stakes.get((epoch / STARTS) as usize).copied().unwrap_or(0.0);
    match epoch % STARTS {
        0 => of_step * FIRST,
        later => of_step * (1.0 - FIRST) * 0.5f64.powi(later as i32),
    }
}

/// ln Σ exp(x), without overflow.
pub(crate) fn log_sum_exp(logs: impl Iterator<Item = f64> + Clone) -> f64 {
    let most = logs.clone().fold(f64::NEG_INFINITY, f64::max);
    if most == f64::NEG_INFINITY {
        return most;
    }
    most + logs.map(|log| (log - most).exp()).sum::<f64>().ln()
}
