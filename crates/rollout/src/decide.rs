//! What to do next.

use jiff::Timestamp;
use registry::Share;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::evidence;
use crate::guard::Guard;
use crate::plan::{Experiment, Kind, Plan, Step, shown};
use crate::report::{Report, State, Totals};
use crate::thompson;

/// A whole, in the parts in which shares are given: hundredths of a percent.
const WHOLE: f64 = 10_000.0;

/// Evidence of 10 to 1 keeps a candidate from getting more traffic. It takes much more to take it
/// back.
const SUSPICION: f64 = 2.303;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Action {
    /// Give the versions these shares of the traffic.
    Move {
        /// The place in the plan's steps.
        step: usize,
        /// All versions' shares, the champion's first.
        shares: Vec<Share>,
        /// Why, in words.
        why: String,
        /// The figures.
        evidence: Value,
    },
    /// Make a candidate the champion.
    Promote {
        /// The candidate.
        version: u64,
        /// Why, in words.
        why: String,
        /// The figures.
        evidence: Value,
    },
    /// Give the champion all of the traffic again.
    RollBack {
        /// Why, in words.
        why: String,
        /// The figures.
        evidence: Value,
    },
}

/// What to do now, or `None` to wait. Pure: the same plan, report and time give the same answer, so
/// whoever takes over from a driver that has died does what that one would have done.
pub fn next(plan: &Plan, report: &Report, now: Timestamp) -> Option<Action> {
    if report.is_over() {
        return None;
    }
    match (&plan.experiment, report.state) {
        (_, State::Waiting) => first(plan, report, now),
        (Some(experiment), _) => compare(plan, experiment, report, now),
        (None, _) => climb(plan, report, now),
    }
}

fn first(plan: &Plan, report: &Report, now: Timestamp) -> Option<Action> {
    if let Some(replay) = &plan.replay {
        let done = report.replay.as_ref()?;
        let part = done.agreed as f64 / done.requests.max(1) as f64;
        if done.requests == 0 || part < replay.agreement {
            let why = format!(
                "replay: {} of {} recorded requests were answered as recorded, expected {} %",
                done.agreed,
                done.requests,
                replay.agreement * 100.0
            );
            let evidence = json!({ "replay": done, "expected_agreement": replay.agreement });
            return Some(Action::RollBack { why, evidence });
        }
    }
    if let Some(experiment) = &plan.experiment {
        let shares = first_shares(experiment, report);
        return Some(experiment_move(plan, report, shares, "the experiment begins".into(), now));
    }
    (!plan.steps.is_empty()).then(|| step_move(plan, report, 0, now))
}

fn climb(plan: &Plan, report: &Report, now: Timestamp) -> Option<Action> {
    let candidate = *report.candidates.first()?;
    if let Some(why) = tripped(plan, report, candidate) {
        let evidence = evidence::figures(plan, report, candidate, now);
        return Some(Action::RollBack { why, evidence });
    }
    // A plan that was shortened under a running rollout has nothing left to wait for.
    let step = plan.steps.get(report.step)?;
    let waits = report.waits_for(plan, now);
    let suspicion = suspicion(plan, report, candidate);
    if waits.is_none() && suspicion.is_none() {
        if report.step + 1 < plan.steps.len() {
            return Some(step_move(plan, report, report.step + 1, now));
        }
        let why = format!("version {candidate} has passed every step of the plan");
        let evidence = evidence::figures(plan, report, candidate, now);
        return Some(Action::Promote { version: candidate, why, evidence });
    }
    let most = step.most.filter(|most| report.elapsed(now) >= *most)?;
    let reason = waits.map(|waits| format!("it still lacks {waits}")).or(suspicion)?;
    let why = format!("{} was not over after {}: {reason}", step_name(step), shown(most));
    let evidence = evidence::figures(plan, report, candidate, now);
    Some(Action::RollBack { why, evidence })
}

fn compare(
    plan: &Plan,
    experiment: &Experiment,
    report: &Report,
    now: Timestamp,
) -> Option<Action> {
    let running = |candidate: &&u64| !report.dropped.contains(candidate);
    let candidates: Vec<u64> = report.candidates.iter().filter(running).copied().collect();
    let bad: Vec<(u64, String)> =
        candidates.iter().filter_map(|c| Some((*c, tripped(plan, report, *c)?))).collect();
    if let Some((candidate, why)) = bad.first() {
        if bad.len() == candidates.len() {
            let evidence = evidence::figures(plan, report, *candidate, now);
            return Some(Action::RollBack { why: why.clone(), evidence });
        }
        let shares = without(report, experiment, &bad.iter().map(|(c, _)| *c).collect::<Vec<_>>());
        let why = format!("version {candidate} is taken out: {why}");
        return Some(experiment_move(plan, report, shares, why, now));
    }
    let elapsed = report.not_before(now).duration_since(report.begun);
    if elapsed >= experiment.most {
        let evidence = all_figures(plan, report, now);
        let why = format!("no candidate was better after {}", shown(experiment.most));
        return Some(Action::RollBack { why, evidence });
    }
    let fed =
        |version: &u64| metric_count(report, *version, &experiment.metric) >= experiment.feedback;
    let ready = elapsed >= experiment.time && fed(&report.champion) && candidates.iter().all(fed);
    match experiment.kind {
        Kind::Fixed if ready => winner(plan, report, &candidates, now),
        Kind::Fixed => None,
        Kind::Thompson => sample(plan, experiment, report, (ready, now)),
    }
}

/// The candidate that is better than the champion by an anytime-valid test, if there is one.
fn winner(plan: &Plan, report: &Report, candidates: &[u64], now: Timestamp) -> Option<Action> {
    let threshold = report.threshold(plan, 1.0);
    let log_e = |candidate: &u64| report.log_e(plan, *candidate, "winner");
    let best = candidates.iter().max_by(|a, b| log_e(a).total_cmp(&log_e(b)))?;
    (log_e(best) >= threshold).then(|| Action::Promote {
        version: *best,
        why: format!(
            "version {best} is better than version {}: e-value {}, {} needed",
            report.champion,
            evidence::shown_e(log_e(best)),
            evidence::shown_e(threshold)
        ),
        evidence: all_figures(plan, report, now),
    })
}

fn sample(
    plan: &Plan,
    experiment: &Experiment,
    report: &Report,
    (ready, now): (bool, Timestamp),
) -> Option<Action> {
    if report.elapsed(now) < experiment.every {
        return None;
    }
    let chances = thompson::chances(plan, experiment, report);
    if ready
        && let Some((best, chance)) = chances.iter().max_by(|a, b| a.1.total_cmp(b.1))
        && *chance >= experiment.confidence
    {
        let evidence = all_figures(plan, report, now);
        let percent = chance * 100.0;
        if *best == report.champion {
            let why = format!("version {best}, the champion, is the best with {percent:.1} %");
            return Some(Action::RollBack { why, evidence });
        }
        let why = format!("version {best} is the best with a probability of {percent:.1} %");
        return Some(Action::Promote { version: *best, why, evidence });
    }
    let shares: Vec<(u64, u32)> = thompson::shares(experiment, &chances)
        .into_iter()
        .map(|(version, share)| (version, (share * WHOLE).round() as u32))
        .collect();
    let why = "shares follow the probability of being the best".to_owned();
    Some(experiment_move(plan, report, shares, why, now))
}

/// Why a candidate has to be taken back, if it has.
fn tripped(plan: &Plan, report: &Report, candidate: u64) -> Option<String> {
    plan.guard_weights().into_iter().find_map(|(name, weight)| {
        let (log_e, threshold) =
            (report.log_e(plan, candidate, &name), report.threshold(plan, weight));
        if log_e < threshold || !matters(plan, report, candidate, &name) {
            return None;
        }
        Some(format!(
            "{name}: version {candidate} is worse than version {}; {}; e-value {}, {} needed",
            report.champion,
            measured(plan, report, candidate, &name),
            evidence::shown_e(log_e),
            evidence::shown_e(threshold)
        ))
    })
}

/// Whether the measured difference is large enough to act on, in the running step or since the
/// beginning.
fn matters(plan: &Plan, report: &Report, candidate: u64, guard: &str) -> bool {
    let none = Totals::default();
    [&report.in_step, &report.totals].into_iter().any(|totals| {
        let of = |version: u64| totals.get(&version).unwrap_or(&none);
        is_large(plan, of(candidate), of(report.champion), Guard::parse(guard))
    })
}

fn is_large(plan: &Plan, own: &Totals, others: &Totals, guard: Guard<'_>) -> bool {
    let guards = &plan.guards;
    let slower = |part: f64, factor: f64| {
        let quantiles = own.latencies.quantile(part).zip(others.latencies.quantile(part));
        quantiles.is_some_and(|(own, others)| own.as_secs_f64() >= factor * others.as_secs_f64())
    };
    match guard {
        Guard::Errors => evidence::rate(own) - evidence::rate(others) >= guards.errors.points,
        Guard::Shadows => shadow_difference(own, others) >= guards.shadows.points,
        Guard::P50 => slower(0.5, guards.latency.p50.factor),
        Guard::P99 => slower(0.99, guards.latency.p99.factor),
        Guard::Labels => {
            let rate = |t: &Totals| t.wrong as f64 / (t.right + t.wrong).max(1) as f64;
            rate(own) - rate(others) >= guards.labels.points
        }
        _ => true,
    }
}

/// By how much more often the candidate failed requests that both were given.
fn shadow_difference(own: &Totals, others: &Totals) -> f64 {
    let worse = (own.shadow_failed + others.caller_failed) as f64;
    let better = (own.caller_failed + others.shadow_failed) as f64;
    let all: u64 =
        [own, others].iter().map(|t| t.both + t.shadow_failed + t.caller_failed + t.neither).sum();
    (worse - better) / all.max(1) as f64
}

/// What was measured, in words.
fn measured(plan: &Plan, report: &Report, candidate: u64, guard: &str) -> String {
    let none = Totals::default();
    let of = |version: u64| report.totals.get(&version).unwrap_or(&none);
    let (own, others) = (of(candidate), of(report.champion));
    let millis = |totals: &Totals, part| {
        totals
            .latencies
            .quantile(part)
            .map_or("nothing".to_owned(), |time| format!("{:.1} ms", time.as_secs_f64() * 1e3))
    };
    match Guard::parse(guard) {
        Guard::Shadows => format!(
            "of requests that both were given it alone failed {}, the champion alone {}",
            own.shadow_failed + others.caller_failed,
            own.caller_failed + others.shadow_failed
        ),
        Guard::Errors => format!(
            "{} of {} requests failed ({:.2} %), of the champion's {} of {} ({:.2} %)",
            own.failures,
            own.requests,
            evidence::rate(own) * 100.0,
            others.failures,
            others.requests,
            evidence::rate(others) * 100.0
        ),
        Guard::P50 => {
            format!("median {}, the champion's {}", millis(own, 0.5), millis(others, 0.5))
        }
        Guard::P99 => {
            format!("p99 {}, the champion's {}", millis(own, 0.99), millis(others, 0.99))
        }
        Guard::Distribution => format!(
            "its predictions are farther from the champion's than {}",
            plan.guards.distribution.distance
        ),
        Guard::Agreement => {
            format!("{} of {} answers agree", own.agreed + others.agreed, own.both + others.both)
        }
        Guard::Labels => format!(
            "{} of {} labelled predictions were wrong, of the champion's {} of {}",
            own.wrong,
            own.right + own.wrong,
            others.wrong,
            others.right + others.wrong
        ),
        Guard::Metric(name) => {
            let mean = |totals: &Totals| -> Option<f64> {
                let metric = plan.guards.metrics.get(name)?;
                let part = totals.metrics.get(name)?.mean()?;
                Some(metric.low + part * (metric.high - metric.low))
            };
            let shown = |mean: Option<f64>| mean.map_or("none".to_owned(), |m| format!("{m:.4}"));
            format!("mean {}, the champion's {}", shown(mean(own)), shown(mean(others)))
        }
        Guard::Winner => String::new(),
    }
}

/// Why a candidate should not get more traffic yet, if there is a reason.
fn suspicion(plan: &Plan, report: &Report, candidate: u64) -> Option<String> {
    plan.guard_weights().into_iter().find_map(|(name, _)| {
        let log_e = report.log_e(plan, candidate, &name);
        (log_e >= SUSPICION && matters(plan, report, candidate, &name))
            .then(|| format!("{name} looks worse, with an e-value of {}", evidence::shown_e(log_e)))
    })
}

fn step_move(plan: &Plan, report: &Report, step: usize, now: Timestamp) -> Action {
    let candidate = report.candidates.first().copied().unwrap_or(report.champion);
    let wanted = &plan.steps[step];
    let share = (wanted.share / 100.0 * WHOLE).round() as u32;
    let whole = share >= WHOLE as u32;
    let shares = vec![
        share_of(report.champion, WHOLE as u32 - share, whole && wanted.shadow),
        share_of(candidate, share, !whole && wanted.shadow),
    ];
    let why = match step {
        0 => format!("the rollout begins: {}", step_name(wanted)),
        _ => format!(
            "{} showed nothing against version {candidate} in {} requests: {}",
            step_name(&plan.steps[report.step.min(plan.steps.len() - 1)]),
            report.requests_in_step(plan, candidate),
            step_name(wanted)
        ),
    };
    let evidence = evidence::figures(plan, report, candidate, now);
    Action::Move { step, shares, why, evidence }
}

fn step_name(step: &Step) -> String {
    match step.share {
        0.0 => "shadow".to_owned(),
        share if step.shadow && share < 100.0 => {
            format!("{share} % of the traffic and a copy of the rest")
        }
        share => format!("{share} % of the traffic"),
    }
}

fn experiment_move(
    plan: &Plan,
    report: &Report,
    shares: Vec<(u64, u32)>,
    why: String,
    now: Timestamp,
) -> Action {
    let shares = shares.into_iter().map(|(version, share)| share_of(version, share, false));
    let evidence = all_figures(plan, report, now);
    Action::Move { step: 0, shares: shares.collect(), why, evidence }
}

fn first_shares(experiment: &Experiment, report: &Report) -> Vec<(u64, u32)> {
    let equal = 100.0 / (report.candidates.len() + 1) as f64;
    let share = |i: usize| experiment.shares.get(i).copied().unwrap_or(equal) / 100.0 * WHOLE;
    let of = |(i, candidate): (usize, &u64)| (*candidate, share(i).round() as u32);
    let mut shares: Vec<(u64, u32)> = report.candidates.iter().enumerate().map(of).collect();
    let taken: u32 = shares.iter().map(|(_, share)| share).sum();
    shares.insert(0, (report.champion, (WHOLE as u32).saturating_sub(taken)));
    shares
}

/// The shares of a fixed experiment with some candidates' given to the champion.
fn without(report: &Report, experiment: &Experiment, out: &[u64]) -> Vec<(u64, u32)> {
    let mut shares = first_shares(experiment, report);
    let mut freed = 0;
    for (version, share) in shares.iter_mut().skip(1) {
        if out.contains(version) || report.dropped.contains(version) {
            freed += std::mem::take(share);
        }
    }
    shares[0].1 += freed;
    shares
}

fn all_figures(plan: &Plan, report: &Report, now: Timestamp) -> Value {
    let of = |candidate: &u64| evidence::figures(plan, report, *candidate, now);
    json!({ "candidates": report.candidates.iter().map(of).collect::<Vec<_>>() })
}

fn metric_count(report: &Report, version: u64, metric: &str) -> u64 {
    let mean = report.totals.get(&version).and_then(|totals| totals.metrics.get(metric));
    mean.map_or(0, |mean| mean.count)
}

fn share_of(version: u64, share: u32, shadow: bool) -> Share {
    Share { version, share, shadow, pinned: Vec::new() }
}
