//! The figures behind a decision, as a person reads them.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::guard::{Guard, better_odds, worse_odds};
use crate::odds;
use crate::plan::Plan;
use crate::report::{Report, Totals};

/// The lower bound, estimate and upper bound of an odds ratio: those that no bet has refuted.
pub(crate) fn odds_bounds(sums: &[f64], alpha: f64) -> [f64; 3] {
    let limit = -(alpha / 2.0).ln();
    let places = 0..odds::GRID.min(sums.len());
    let lower = places.clone().rev().find(|i| worse_odds(sums, *i) >= limit);
    let upper = places.clone().find(|i| better_odds(sums, *i) >= limit);
    let best = places.max_by(|a, b| sums[*a].total_cmp(&sums[*b]));
    [
        lower.map_or(0.0, odds::ratio),
        best.map_or(1.0, odds::ratio),
        upper.map_or(f64::INFINITY, odds::ratio).min(1e9),
    ]
}

/// Bounds of a probability that hold at all times together with confidence 1 - alpha, from successes
/// of independent trials (Robbins' mixture with a Beta(1/2, 1/2) prior).
pub(crate) fn rate_bounds(successes: u64, trials: u64, alpha: f64) -> [f64; 2] {
    let (k, n) = (successes.min(trials) as f64, trials as f64);
    if trials == 0 {
        return [0.0, 1.0];
    }
    let beta = |a: f64, b: f64| libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b);
    let mixed = beta(k + 0.5, n - k + 0.5) - beta(0.5, 0.5);
    let refuted = |p: f64| {
        let of = |count: f64, p: f64| if count > 0.0 { count * p.ln() } else { 0.0 };
        mixed - of(k, p) - of(n - k, 1.0 - p) >= -alpha.ln()
    };
    let estimate = k / n;
    let search = |outside: f64| {
        if !refuted(outside) {
            return outside;
        }
        let (mut out, mut inside) = (outside, estimate);
        for _ in 0..60 {
            let middle = (out + inside) / 2.0;
            if refuted(middle) { out = middle } else { inside = middle }
        }
        out
    };
    [search(0.0), search(1.0)]
}

/// All guards' figures against a candidate, the strongest first.
pub(crate) fn figures(plan: &Plan, report: &Report, candidate: u64, now: Timestamp) -> Value {
    let mut guards: Vec<(f64, Value)> = plan
        .guard_weights()
        .into_iter()
        .map(|(name, weight)| {
            let log_e = report.log_e(plan, candidate, &name);
            let threshold = report.threshold(plan, weight);
            (log_e - threshold, guard_figures(plan, report, candidate, &name, weight))
        })
        .collect();
    guards.sort_by(|a, b| b.0.total_cmp(&a.0));
    json!({
        "candidate": version_figures(plan, report, candidate),
        "champion": version_figures(plan, report, report.champion),
        "step": report.step,
        "seconds_in_step": report.elapsed(now).as_secs(),
        "requests_in_step": report.requests_in_step(plan, candidate),
        "guards": guards.into_iter().map(|(_, figures)| figures).collect::<Vec<_>>(),
        "alpha": plan.alpha,
        "blocks_skipped": report.skipped,
    })
}

/// The figures of one guard against a candidate.
pub(crate) fn guard_figures(
    plan: &Plan,
    report: &Report,
    candidate: u64,
    name: &str,
    weight: f64,
) -> Value {
    let guard = Guard::parse(name);
    let log_e = report.log_e(plan, candidate, name);
    let threshold = report.threshold(plan, weight);
    let mut figures = json!({
        "guard": name,
        "e_value": rounded(log_e.clamp(-700.0, 700.0).exp()),
        "threshold": rounded(threshold.exp()),
        "tripped": log_e >= threshold,
    });
    let wealth = report.wealth.get(&candidate).and_then(|guards| guards.get(name));
    if let (Some(tolerated), Some(wealth)) = (guard.tolerated_odds(plan), wealth) {
        let alpha = plan.alpha * weight / report.candidates.len() as f64;
        let [lower, estimate, upper] = odds_bounds(&wealth.sums(), alpha);
        figures["odds_ratio"] = json!({
            "lower": rounded(lower),
            "estimate": rounded(estimate),
            "upper": if upper >= 1e9 { Value::Null } else { rounded(upper) },
            "tolerated": tolerated,
            "confidence": 1.0 - alpha,
        });
    }
    figures
}

/// An e-value from its logarithm: `273`, or `10^12`.
pub(crate) fn shown_e(log_e: f64) -> String {
    if log_e < 13.8 {
        format!("{:.0}", log_e.exp())
    } else {
        format!("10^{:.0}", log_e / std::f64::consts::LN_10)
    }
}

/// A guard's name as people read it.
pub(crate) fn shown_guard(name: &str) -> String {
    match name {
        "errors" => "Failing requests".to_owned(),
        "shadows" => "Failing shadows".to_owned(),
        "latency.p50" => "Usual time to the answer".to_owned(),
        "latency.p99" => "Slowest answers".to_owned(),
        "distribution" => "What is predicted".to_owned(),
        "agreement" => "Agreement of the shadow".to_owned(),
        "labels" => "Wrong predictions".to_owned(),
        _ => name.trim_start_matches("metrics.").to_owned(),
    }
}

fn version_figures(plan: &Plan, report: &Report, version: u64) -> Value {
    let none = Totals::default();
    let totals = report.totals.get(&version).unwrap_or(&none);
    let [low, high] = rate_bounds(totals.failures, totals.requests, plan.alpha);
    let millis =
        |part| totals.latencies.quantile(part).map(|time| rounded(time.as_secs_f64() * 1e3));
    let mut figures = json!({
        "version": version,
        "requests": totals.requests,
        "failures": totals.failures,
        "failure_rate": { "estimate": rounded(rate(totals)), "lower": rounded(low), "upper": rounded(high) },
        "latency_ms": { "p50": millis(0.5), "p99": millis(0.99) },
    });
    if totals.both + totals.shadow_failed + totals.caller_failed + totals.neither > 0 {
        figures["shadow"] = json!({
            "both_answered": totals.both,
            "agreed": totals.agreed,
            "only_shadow_failed": totals.shadow_failed,
            "only_caller_failed": totals.caller_failed,
            "both_failed": totals.neither,
        });
    }
    if totals.right + totals.wrong > 0 {
        figures["labels"] = json!({ "right": totals.right, "wrong": totals.wrong });
    }
    for (name, mean) in &totals.metrics {
        let Some(metric) = plan.guards.metrics.get(name) else { continue };
        let unit = |part: f64| metric.low + part * (metric.high - metric.low);
        figures["metrics"][name] =
            json!({ "count": mean.count, "mean": mean.mean().map(|m| rounded(unit(m))) });
    }
    figures
}

/// The part of a version's requests that failed.
pub(crate) fn rate(totals: &Totals) -> f64 {
    if totals.requests == 0 { 0.0 } else { totals.failures as f64 / totals.requests as f64 }
}

/// Four digits are what a person reads.
pub(crate) fn rounded(number: f64) -> Value {
    if number == 0.0 || !number.is_finite() {
        return json!(if number.is_finite() { Some(0.0) } else { None });
    }
    let scale = 10f64.powi(3 - number.abs().log10().floor() as i32);
    json!((number * scale).round() / scale)
}
