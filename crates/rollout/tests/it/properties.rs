//! What holds whatever comes in.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use rollout::simulate::{Scenario, Summary, simulate, simulate_many};
use rollout::{Action, Block, Counts, Feedback, Latencies, Mean, Plan, Report, next, plot};

use crate::made::{at, begin, block, running, short};

fn counts() -> impl Strategy<Value = Counts> {
    let latencies = prop::collection::vec(0u64..2_000_000_000, 0..8);
    (0u64..200, 0u64..20, latencies, 0u64..5, 0u64..5, prop::collection::vec(0f64..1.0, 0..3))
        .prop_map(|(requests, failures, times, right, wrong, values)| {
            let mut latencies = Latencies::default();
            times.into_iter().for_each(|nanos| latencies.add(Duration::from_nanos(nanos)));
            let mut mean = Mean::default();
            values.into_iter().for_each(|value| mean.add(value));
            let failures = failures.min(requests);
            let mut counts =
                Counts { requests, failures, latencies, right, wrong, ..Counts::default() };
            counts.shadow.both = requests;
            counts.shadow.agreed = requests / 2;
            counts.shadow.shadow_failed = wrong;
            counts.metrics.insert("clicks".to_owned(), mean);
            counts
        })
}

fn blocks() -> impl Strategy<Value = Vec<Block>> {
    let one = (0i64..120, counts(), counts()).prop_map(|(stretch, champion, candidate)| Block {
        start: at(stretch * 5),
        end: at(stretch * 5 + 5),
        versions: [(1, champion), (2, candidate)].into(),
    });
    prop::collection::vec(one, 0..40)
}

fn with_metric() -> Plan {
    let mut plan = Plan::parse("[guards.metrics.clicks]\nhigh = 1").unwrap();
    plan.steps.remove(0);
    plan
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_blocks_and_their_portions_do_not_matter(
        blocks in blocks(), shuffled in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>(),
    ) {
        let plan = with_metric();
        let (mut straight, mut turned) = (running(&plan), running(&plan));
        straight.absorb(&plan, &blocks);
        let mut other = blocks.clone();
        if !other.is_empty() {
            other.rotate_left(shuffled.index(blocks.len()));
            other.reverse();
            let (first, second) = other.split_at(cut.index(blocks.len()));
            turned.absorb(&plan, first);
            turned.absorb(&plan, second);
        }
        for second in [10, 700, 4000] {
            prop_assert_eq!(next(&plan, &straight, at(second)), next(&plan, &turned, at(second)));
        }
    }

    #[test]
    fn a_report_that_was_stored_decides_the_same(blocks in blocks()) {
        let plan = with_metric();
        let mut report = running(&plan);
        report.absorb(&plan, &blocks);
        let stored = serde_json::to_string(&report).unwrap();
        prop_assert!(stored.len() < 200_000, "{}", stored.len());
        let read: Report = serde_json::from_str(&stored).unwrap();
        for second in [10, 700, 4000] {
            prop_assert_eq!(next(&plan, &report, at(second)), next(&plan, &read, at(second)));
        }
        let svg = plot(&read);
        prop_assert!(svg.starts_with("<svg") && svg.ends_with("</svg>") && !svg.contains("NaN"));
    }

    #[test]
    fn a_clock_that_jumps_breaks_nothing(jumps in prop::collection::vec(-100_000i64..100_000, 1..30)) {
        let plan = short();
        let mut report = Report::new(&plan, 1, &[2], begin()).unwrap();
        for jump in jumps {
            if let Some(action) = next(&plan, &report, at(jump)) {
                report.applied(&action, at(jump));
            }
            report.absorb(&plan, &[block(jump, (100, 1), (5, 0))]);
            let json = serde_json::to_value(&report).unwrap();
            prop_assert!(json["step"].as_u64() < Some(2));
        }
    }

    #[test]
    fn any_counts_are_survived(
        champion in (any::<u64>(), any::<u64>()), candidate in (any::<u64>(), any::<u64>()),
    ) {
        let plan = short();
        let mut report = running(&plan);
        for second in [5, 10, 15] {
            report.absorb(&plan, &[block(second, champion, candidate)]);
        }
        let action = next(&plan, &report, at(4000));
        prop_assert!(action.is_some());
    }

    #[test]
    fn any_text_is_a_plan_or_an_error(text in "\\PC{0,80}") {
        let _ = Plan::parse(&text);
    }
}

#[test]
fn a_large_difference_in_huge_counts_is_found() {
    let plan = short();
    let mut report = running(&plan);
    let (all, failed) = (u64::MAX / 8, u64::MAX / 800);
    report.absorb(&plan, &[block(5, (all, failed), (all / 20, failed / 5))]);
    assert!(matches!(next(&plan, &report, at(11)), Some(Action::RollBack { .. })));
    let mut report = running(&plan);
    report.absorb(&plan, &[block(5, (all, failed), (all / 20, failed / 20))]);
    assert_eq!(next(&plan, &report, at(11)), None);
}

#[test]
fn empty_and_impossible_blocks_change_nothing() {
    let plan = short();
    let mut report = running(&plan);
    let before = next(&plan, &report, at(20));
    let backwards = Block { end: at(1), ..block(5, (9, 9), (9, 9)) };
    let nobody = Block { versions: Default::default(), ..block(5, (0, 0), (0, 0)) };
    report
        .absorb(&plan, &[backwards, nobody, block(10, (0, 0), (0, 0)), block(15, (1, 5), (1, 9))]);
    assert_eq!(next(&plan, &report, at(20)), before);
    assert_eq!(report.skipped, 1);
}

#[test]
fn blocks_across_a_change_of_shares_are_left_out() {
    let plan = short();
    let mut report = running(&plan);
    report.absorb(&plan, &[block(-3, (9, 0), (9, 9)), block(1, (9, 0), (9, 9))]);
    assert_eq!(report.skipped, 2, "one lies across the beginning, one in the time to settle");
    assert_eq!(next(&plan, &report, at(20)), None);
}

#[test]
fn a_simulated_run_is_the_same_for_the_same_seed() {
    let (plan, scenario) = (Plan::default(), Scenario { regression: 0.02, ..Scenario::default() });
    let once = simulate(&plan, &scenario, 5).unwrap();
    assert_eq!(once, simulate(&plan, &scenario, 5).unwrap());
    let other = simulate(&plan, &Scenario { from_step: 1, ..scenario.clone() }, 5).unwrap();
    assert_ne!(once, other);
    let two = simulate_many(&plan, &scenario, 3, (4, 2), |_| ()).unwrap();
    assert_eq!(two[1], once);
}

/// The full check, with its thousands of runs, is `examples/measure.rs`; this one is its alarm bell.
#[test]
fn what_is_no_worse_is_seldom_taken_back_and_what_is_worse_is() {
    let mut plan = Plan::default();
    for step in &mut plan.steps {
        step.time = SignedDuration::from_mins(2);
    }
    let runs = 60;
    let scenario = Scenario { rps: 60.0, ..Scenario::default() };
    let all = simulate_many(&plan, &scenario, runs, (1, 2), |_| ()).unwrap();
    let quiet = Summary::of(&plan, &all);
    // Three of sixty are less probable than 1 in 40 at one percent.
    assert!(quiet.stopped < 3.0 / runs as f64, "{quiet:?}");
    assert_eq!(quiet.unfinished, 0.0, "{quiet:?}");

    let scenario = Scenario { regression: 0.05, slower: 1.5, from_step: 2, ..scenario };
    let all = simulate_many(&plan, &scenario, runs, (1, 2), |_| ()).unwrap();
    let worse = Summary::of(&plan, &all);
    assert!(worse.caught.unwrap().ever > 0.95, "{worse:?}");
}

#[test]
fn a_report_stays_small_however_long_it_runs() {
    let mut plan = short();
    plan.steps[0].time = SignedDuration::from_hours(200);
    plan.steps[0].most = None;
    let mut report = running(&plan);
    for second in (5..36_000).step_by(25) {
        let mut block = block(second * 7, (475, 5), (25, u64::from(second % 100 == 0)));
        for counts in block.versions.values_mut() {
            for i in 0..counts.requests {
                counts.latencies.add(Duration::from_micros(i * i + second as u64));
                counts.predictions.add_number(i as f64);
            }
        }
        report.absorb(&plan, &[block]);
    }
    let stored = serde_json::to_string(&report).unwrap().len();
    assert!(stored < 64_000, "{stored} bytes");
}

#[test]
fn feedback_is_read_strictly() {
    assert!(serde_json::from_str::<Feedback>(r#"{"right": true}"#).is_ok());
    assert!(serde_json::from_str::<Feedback>(r#"{"write": true}"#).is_err());
}

#[test]
fn time_never_runs_out_of_range() {
    let plan = short();
    let report = running(&plan);
    assert!(next(&plan, &report, Timestamp::MAX).is_some());
    assert_eq!(next(&plan, &report, Timestamp::MIN), None);
}
