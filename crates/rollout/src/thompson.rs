//! Shares that follow a metric: each version gets as much as it is probably the best.

use std::collections::BTreeMap;

use crate::plan::{Better, Experiment, Plan};
use crate::report::Report;

/// Draws for each probability: its error is then below 1 %.
const DRAWS: usize = 4000;

/// How probable it is for each version that is left to be the best, by draws that the plan's seed and
/// what was measured decide.
pub(crate) fn chances(plan: &Plan, experiment: &Experiment, report: &Report) -> BTreeMap<u64, f64> {
    let better = plan.guards.metrics.get(&experiment.metric).map(|metric| metric.better);
    let sign = if better == Some(Better::Lower) { -1.0 } else { 1.0 };
    let mut seed = plan.seed;
    let mut arms: Vec<(u64, f64, f64)> = Vec::new();
    let versions = std::iter::once(&report.champion).chain(&report.candidates);
    for version in versions.filter(|version| !report.dropped.contains(version)) {
        let totals = report.totals.get(version);
        let mean = totals.and_then(|totals| totals.metrics.get(&experiment.metric));
        let mean = mean.copied().unwrap_or_default();
        // As if one value at each end had been seen before, which keeps the unknown uncertain.
        let count = mean.count as f64;
        let centre = (mean.mean().unwrap_or(0.0) * count + 1.0) / (count + 2.0);
        let variance = (mean.variance().unwrap_or(0.0) * count + 0.5) / (count + 2.0);
        arms.push((*version, sign * centre, (variance / (count + 2.0)).sqrt()));
        for part in [*version, mean.count, mean.sum] {
            seed = (seed ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
    }
    let mut random = fastrand::Rng::with_seed(seed);
    let mut wins: BTreeMap<u64, u32> = arms.iter().map(|(version, ..)| (*version, 0)).collect();
    for _ in 0..DRAWS {
        let drawn = arms.iter().map(|(v, centre, sd)| (*v, centre + sd * normal(&mut random)));
        let best = drawn.max_by(|a, b| a.1.total_cmp(&b.1));
        if let Some(count) = best.and_then(|(version, _)| wins.get_mut(&version)) {
            *count += 1;
        }
    }
    wins.into_iter().map(|(version, won)| (version, f64::from(won) / DRAWS as f64)).collect()
}

/// The shares, as parts of 1: the chances, with the least share for everyone.
pub(crate) fn shares(experiment: &Experiment, chances: &BTreeMap<u64, f64>) -> Vec<(u64, f64)> {
    let least = (experiment.least / 100.0).min(1.0 / chances.len().max(1) as f64);
    let rest = 1.0 - least * chances.len() as f64;
    chances.iter().map(|(version, chance)| (*version, least + rest * chance)).collect()
}

/// A draw from the standard normal distribution (Box and Muller).
pub(crate) fn normal(random: &mut fastrand::Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    radius * libm::cos(2.0 * std::f64::consts::PI * random.f64())
}
