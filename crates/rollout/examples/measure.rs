//! The table of false rollbacks and of power in `docs/rollout-statistics.md`:
//! `cargo run --release -p rollout --example measure -- RUNS THREADS FIRST`, where the
//! table may begin with a later case than the first.

use rollout::Plan;
use rollout::simulate::{Scenario, Summary, simulate_many};

/// A canary without a shadow before it.
const CANARY: &str = "
    [[steps]]
    share = 5
    time = '10m'
    requests = 500
    [[steps]]
    share = 100
    time = '1m'
";

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse().expect("a number"));
    let runs: u64 = arguments.next().unwrap_or(1000);
    let threads = arguments.next().unwrap_or(2) as usize;
    let first = arguments.next().unwrap_or(1) as usize;
    let plan = Plan::default();
    let canary = Plan::parse(CANARY).expect("the plan is right");
    let usual = Scenario::default();
    let from = |from_step| Scenario { from_step, ..usual.clone() };
    let errors = |from_step, rps| Scenario { regression: 0.02, rps, ..from(from_step) };
    let slower = |from_step, rps| Scenario { slower: 2.0, rps, ..from(from_step) };
    let tail = |from_step, rps| Scenario { slower_tail: 2.0, rps, ..from(from_step) };
    let cases = [
        ("nothing wrong, 100 rps", &plan, usual.clone()),
        ("nothing wrong, 20 rps", &plan, Scenario { rps: 20.0, ..usual.clone() }),
        ("nothing wrong, 5 % failing", &plan, Scenario { error_rate: 0.05, ..usual.clone() }),
        ("nothing wrong, own jitter of 20 %", &plan, Scenario { own_jitter: 0.2, ..usual.clone() }),
        ("nothing wrong, own stalls", &plan, Scenario { own_stalls: 1.0, ..usual.clone() }),
        ("errors 1 → 3 % from the start", &plan, errors(0, 100.0)),
        ("errors 1 → 3 % at 5 %", &plan, errors(2, 100.0)),
        ("errors 1 → 3 % at 5 %, no shadow", &canary, errors(0, 100.0)),
        ("errors 1 → 3 % at 5 %, 100 rps there", &plan, errors(2, 2000.0)),
        ("errors 1 → 3 % at 25 %", &plan, errors(3, 100.0)),
        ("all twice as slow from the start", &plan, slower(0, 100.0)),
        ("all twice as slow at 5 %", &plan, slower(2, 100.0)),
        ("all twice as slow at 5 %, 100 rps there", &plan, slower(2, 2000.0)),
        ("slowest 2 % twice as slow at 5 %", &plan, tail(2, 100.0)),
        ("slowest 2 % twice as slow, 100 rps there", &plan, tail(2, 2000.0)),
    ];
    println!("| candidate | runs | stopped | within 3 min | median s | 95 % within s | hurt |");
    println!("|---|--:|--:|--:|--:|--:|--:|");
    for (name, plan, scenario) in cases.into_iter().skip(first - 1) {
        let runs = if scenario.rps > 1000.0 { runs / 4 } else { runs };
        let all = simulate_many(plan, &scenario, runs, (1, threads), |_| ());
        let summary = Summary::of(plan, &all.expect("the scenario is right"));
        let stopped = summary.stopped * 100.0;
        let Some(caught) = summary.caught else {
            println!("| {name} | {runs} | {stopped:.2} % | | | | |");
            continue;
        };
        let (took, hurt) = (caught.took.expect("some"), caught.hurt.expect("some"));
        println!(
            "| {name} | {runs} | {stopped:.1} % | {:.1} % | {:.0} | {:.0} | {:.0} |",
            caught.within_3_minutes * 100.0,
            took.median,
            took.p95,
            hurt.median
        );
    }
}
