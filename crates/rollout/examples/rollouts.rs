//! scratch
use rollout::{Plan, simulate::{Scenario, simulate}};
use std::collections::BTreeMap;
fn many(name: &str, plan: &Plan, s: &Scenario, runs: u64) {
    let t = std::time::Instant::now();
    let h: Vec<_> = std::thread::scope(|sc| {
        let hs: Vec<_> = (0..2u64).map(|k| sc.spawn(move || (0..runs/2).map(|i| simulate(plan, s, 1000 * k + i * 7919 + k).unwrap()).collect::<Vec<_>>())).collect();
        hs.into_iter().flat_map(|h| h.join().unwrap()).collect()
    });
    let n = h.len() as f64;
    let stopped = h.iter().filter(|r| r.stopped).count();
    let mut by = BTreeMap::new();
    for r in h.iter().filter(|r| r.stopped) { *by.entry((r.step, r.guard.clone())).or_insert(0) += 1; }
    let mut d: Vec<f64> = h.iter().filter(|r| r.stopped).filter_map(|r| r.since_onset).map(|d| d.as_secs_f64()).collect();
    d.sort_by(f64::total_cmp);
    let q = |p: f64| d.get(((d.len() as f64 * p) as usize).min(d.len().saturating_sub(1))).copied().unwrap_or(f64::NAN);
    let within = d.iter().filter(|d| **d <= 180.0).count();
    let took = h.iter().map(|r| r.took.as_secs_f64()).sum::<f64>() / n / 60.0;
    println!("{name}: stopped {stopped}/{n} promoted {} within3m {:.3} med {} p95 {} took {took:.1}m {by:?} [{:.1}s]", h.iter().filter(|r| r.promoted).count(), within as f64 / n, q(0.5), q(0.95), t.elapsed().as_secs_f64());
}
fn main() {
    let runs: u64 = std::env::args().nth(1).map_or(200, |a| a.parse().unwrap());
    let which: Vec<String> = std::env::args().skip(2).collect();
    let plan = Plan::default();
    let base = Scenario::default();
    let only5 = Plan::parse("[[steps]]\nshare=5\ntime=\"10m\"\nstake=5\n[[steps]]\nshare=100\nstake=5").unwrap();
    let cases = [
        ("err 1pct", &plan, Scenario { regression: 0.02, from_step: 1, ..base.clone() }, runs),
        ("err late", &plan, Scenario { regression: 0.02, from_step: 3, ..base.clone() }, runs),
        ("aa", &plan, base.clone(), runs),
        ("err start", &plan, Scenario { regression: 0.02, ..base.clone() }, runs),
        ("err step5", &plan, Scenario { regression: 0.02, from_step: 2, ..base.clone() }, runs),
        ("err step5 only", &only5, Scenario { regression: 0.02, ..base.clone() }, runs),
        ("err 2000rps", &plan, Scenario { regression: 0.02, from_step: 2, rps: 2000.0, ..base.clone() }, runs / 10),
        ("p99x2 all step5", &plan, Scenario { slower: 2.0, from_step: 2, ..base.clone() }, runs),
        ("p99x2 tail step5", &plan, Scenario { slower_tail: 2.0, from_step: 2, ..base.clone() }, runs),
        ("p99x2 tail 2000rps", &plan, Scenario { slower_tail: 2.0, from_step: 2, rps: 2000.0, ..base.clone() }, runs / 10),
        ("p99x2 all start", &plan, Scenario { slower: 2.0, ..base.clone() }, runs),
        ("aa jitter.2", &plan, Scenario { own_jitter: 0.2, ..base.clone() }, runs),
        ("aa stalls", &plan, Scenario { own_stalls: 1.0, ..base.clone() }, runs),
    ];
    for (name, plan, s, runs) in cases { if which.is_empty() || which.iter().any(|w| name.contains(w.as_str())) { many(name, plan, &s, runs); } }
}
