//! The guards: what each bets on in a block, and how its bets are mixed.

use crate::block::{Counts, Mean};
use crate::odds::{self, Table};
use crate::plan::{Better, Metric, Plan};
use crate::sketch::{Latencies, Predictions};
use crate::wealth::log_sum_exp;

/// The chances of "slower" that are bet on, where a fair coin has a half.
const CHANCES: [f64; 5] = [0.55, 0.65, 0.75, 0.85, 0.95];

/// How much is bet on each of these chances: most on "nearly always".
const BY_CHANCE: [f64; 5] = [0.1, 0.15, 0.2, 0.25, 0.3];

/// How much is bet on each of the crowds, for each of the parts of the slowest answers.
const BY_CROWD: [f64; 5] = [0.1, 0.25, 0.35, 0.2, 0.1];
const BY_PART: [f64; 3] = [0.3, 0.4, 0.3];

/// How many times as large as the champion's the candidate's odds are to be among the slowest.
const CROWDS: [f64; 5] = [1.5, 2.5, 4.5, 9.0, 30.0];

/// The parts of the wealth that are bet on a difference of two means.
const BETS: [f64; 3] = [0.2, 0.5, 0.95];

/// Why a candidate may be taken back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Guard<'a> {
    Errors,
    Shadows,
    P50,
    P99,
    Distribution,
    Agreement,
    Labels,
    Metric(&'a str),
    /// Not a guard: whether the candidate is better by the metric of an experiment.
    Winner,
}

impl<'a> Guard<'a> {
    /// The guard of this name, as [`Plan::guard_weights`] has it.
    pub fn parse(name: &'a str) -> Self {
        match name {
            "errors" => Self::Errors,
            "shadows" => Self::Shadows,
            "latency.p50" => Self::P50,
            "latency.p99" => Self::P99,
            "distribution" => Self::Distribution,
            "agreement" => Self::Agreement,
            "labels" => Self::Labels,
            "winner" => Self::Winner,
            _ => Self::Metric(name.trim_start_matches("metrics.")),
        }
    }

    /// What each of its bets earned in a block, as logarithms; `None` if there was nothing to bet on.
    pub fn logs(self, plan: &Plan, champion: &Counts, candidate: &Counts) -> Option<Vec<f64>> {
        let guards = &plan.guards;
        match self {
            Self::Errors => failures(champion, candidate),
            Self::Shadows => failures_of_pairs(champion, candidate),
            Self::P50 => {
                let sign = slower(&champion.latencies, &candidate.latencies)?;
                Some(CHANCES.map(|p| (2.0 * if sign { p } else { 1.0 - p }).ln()).into())
            }
            Self::P99 => slowest(&champion.latencies, &candidate.latencies),
            Self::Distribution => {
                let mut logs = Vec::new();
                let shadow = &candidate.shadow;
                let pairs = [
                    (&shadow.predictions, &shadow.callers),
                    (&champion.shadow.callers, &champion.shadow.predictions),
                ];
                for (own, others) in pairs {
                    add(&mut logs, distance(own, others, guards.distribution.distance));
                }
                if !logs.is_empty() {
                    return Some(logs);
                }
                // What callers got is part of what shadows are compared with: one or the other.
                let tolerated = guards.distribution.distance;
                distance(&candidate.predictions, &champion.predictions, tolerated)
            }
            Self::Agreement => {
                let shadows = [&candidate.shadow, &champion.shadow];
                let both = shadows.iter().fold(0, |sum: u64, s| sum.saturating_add(s.both));
                let agreed = shadows.iter().fold(0, |sum: u64, s| sum.saturating_add(s.agreed));
                let least = guards.agreement.least;
                let short = least - agreed.min(both) as f64 / both as f64;
                (both > 0).then(|| BETS.map(|bet| (bet / (1.0 - least) * short).ln_1p()).into())
            }
            Self::Labels => Table {
                champion: champion.right.saturating_add(champion.wrong),
                champion_failed: champion.wrong,
                candidate: candidate.right.saturating_add(candidate.wrong),
                candidate_failed: candidate.wrong,
            }
            .logs()
            .map(Vec::from),
            Self::Metric(name) => {
                let metric = guards.metrics.get(name)?;
                let better =
                    -better(metric, champion.metrics.get(name)?, candidate.metrics.get(name)?)?;
                let tolerance = metric.tolerance / (metric.high - metric.low);
                Some(difference(better, tolerance).into())
            }
            Self::Winner => {
                let name = &plan.experiment.as_ref()?.metric;
                let metric = guards.metrics.get(name)?;
                let better =
                    better(metric, champion.metrics.get(name)?, candidate.metrics.get(name)?)?;
                Some(difference(better, 0.0).into())
            }
        }
    }

    /// All its bets together, by what each has earned.
    pub fn mixed(self, plan: &Plan, sums: &[f64]) -> f64 {
        match self.tolerated_odds(plan) {
            Some(factor) => worse_odds(sums, odds::place(factor)),
            None => {
                let equal = 1.0 / sums.len() as f64;
                let weight = |i: usize| match self {
                    Self::P50 => BY_CHANCE[i % BY_CHANCE.len()],
                    Self::P99 => BY_CROWD[i % BY_CROWD.len()] * BY_PART[i / BY_CROWD.len() % 3],
                    _ => equal,
                };
                log_sum_exp(sums.iter().enumerate().map(|(i, sum)| sum + weight(i).ln()))
            }
        }
    }

    /// The tolerated odds ratio, for guards that compare odds.
    pub fn tolerated_odds(self, plan: &Plan) -> Option<f64> {
        match self {
            Self::Errors => Some(plan.guards.errors.factor),
            Self::Shadows => Some(plan.guards.shadows.factor),
            Self::Labels => Some(plan.guards.labels.factor),
            _ => None,
        }
    }
}

/// The bets on larger odds than those at `null`, against these.
pub(crate) fn worse_odds(sums: &[f64], null: usize) -> f64 {
    let Some(against) = sums.get(null) else { return 0.0 };
    let bets = odds::PRIOR.iter().zip(&sums[null + 1..]);
    log_sum_exp(bets.map(|(weight, sum)| weight.ln() + sum - against))
}

/// The bets on smaller odds than those at `null`, against these.
pub(crate) fn better_odds(sums: &[f64], null: usize) -> f64 {
    let Some(against) = sums.get(null) else { return 0.0 };
    let bets = odds::PRIOR.iter().zip(sums[..null].iter().rev());
    log_sum_exp(bets.map(|(weight, sum)| weight.ln() + sum - against))
}

fn failures(champion: &Counts, candidate: &Counts) -> Option<Vec<f64>> {
    let served = Table {
        champion: champion.requests,
        champion_failed: champion.failures,
        candidate: candidate.requests,
        candidate_failed: candidate.failures,
    };
    served.logs().map(Vec::from)
}

/// Requests that a shadow and the version that answers were both given. One that exactly one of them
/// failed is a table of its own, with one failure.
///
/// Not added to what callers saw: the champion's failures are part of both, and two bets on the same
/// luck would not be fair together.
fn failures_of_pairs(champion: &Counts, candidate: &Counts) -> Option<Vec<f64>> {
    let worse = candidate.shadow.shadow_failed.saturating_add(champion.shadow.caller_failed) as f64;
    let better =
        candidate.shadow.caller_failed.saturating_add(champion.shadow.shadow_failed) as f64;
    (worse + better > 0.0).then(|| {
        let paired = |i| {
            let ratio = odds::ratio(i);
            worse * ratio.ln() - (worse + better) * ((1.0 + ratio) / 2.0).ln()
        };
        (0..odds::GRID).map(paired).collect()
    })
}

fn add(logs: &mut Vec<f64>, more: Option<Vec<f64>>) {
    let Some(more) = more else { return };
    logs.resize(more.len(), 0.0);
    logs.iter_mut().zip(more).for_each(|(log, more)| *log += more);
}

/// Whether the candidate is slower than the champion more often than it is faster (the sign of Mann and Whitney's U); `None` if it is neither.
///
/// One block is one toss of a coin, however its requests depend on each other.
pub(crate) fn slower(champion: &Latencies, candidate: &Latencies) -> Option<bool> {
    let mut champions = champion.buckets().peekable();
    let (mut below, mut twice) = (0u128, 0u128);
    for (bucket, count) in candidate.buckets() {
        while let Some((_, more)) = champions.next_if(|(other, _)| *other < bucket) {
            below += u128::from(more);
        }
        let equal = champions.peek().filter(|(other, _)| *other == bucket).map_or(0, |(_, n)| *n);
        twice += u128::from(count) * (2 * below + u128::from(equal));
    }
    let even = u128::from(champion.count()) * u128::from(candidate.count());
    (twice != even).then_some(twice > even)
}

/// Bets on the candidate having more than its part of the slowest answers of a block: of one in 100,
/// of one in 250, and of the very slowest.
fn slowest(champion: &Latencies, candidate: &Latencies) -> Option<Vec<f64>> {
    let (champions, candidates) = (champion.count(), candidate.count());
    let all = champions.checked_add(candidates)?;
    if champions == 0 || candidates == 0 {
        return None;
    }
    let mut logs = Vec::with_capacity(BY_PART.len() * CROWDS.len());
    for wanted in [all.div_ceil(100), all.div_ceil(250), 1] {
        let (champion_failed, candidate_failed) = top(champion, candidate, wanted);
        let table =
            Table { champion: champions, champion_failed, candidate: candidates, candidate_failed };
        logs.extend(table.excess_logs(CROWDS).unwrap_or_default());
    }
    Some(logs)
}

/// How many of at least `wanted` slowest answers each has.
fn top(champion: &Latencies, candidate: &Latencies, wanted: u64) -> (u64, u64) {
    let mut champions = champion.buckets().rev().peekable();
    let mut candidates = candidate.buckets().rev().peekable();
    let (mut slow, mut own) = (0u64, 0u64);
    while slow + own < wanted {
        let next = [champions.peek(), candidates.peek()].into_iter().flatten().map(|(b, _)| *b);
        let Some(bucket) = next.max() else { break };
        slow += champions.next_if(|(b, _)| *b == bucket).map_or(0, |(_, count)| count);
        own += candidates.next_if(|(b, _)| *b == bucket).map_or(0, |(_, count)| count);
    }
    (slow, own)
}

/// Bets on the candidate having more, and on its having less, below each cut than is tolerated.
fn distance(own: &Predictions, others: &Predictions, tolerance: f64) -> Option<Vec<f64>> {
    if own.count() == 0 || others.count() == 0 {
        return None;
    }
    let parts = own.compare(others);
    Some(
        parts
            .into_iter()
            .flat_map(|(own, others)| [own - others, others - own])
            .flat_map(|more| difference(more, tolerance))
            .collect(),
    )
}

/// Bets on a difference of two means, each between 0 and 1, being more than is tolerated.
fn difference(difference: f64, tolerance: f64) -> [f64; BETS.len()] {
    BETS.map(|bet| (bet * (difference - tolerance) / (1.0 + tolerance)).ln_1p())
}

/// By how much the candidate is better, in parts of the metric's range.
fn better(metric: &Metric, champion: &Mean, candidate: &Mean) -> Option<f64> {
    let higher = candidate.mean()? - champion.mean()?;
    Some(match metric.better {
        Better::Higher => higher,
        Better::Lower => -higher,
    })
}
