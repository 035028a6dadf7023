//! Several candidates side by side.

use std::collections::BTreeMap;

use rollout::{Action, Block, Counts, Mean, Plan, Report, next};

use crate::made::{at, begin};

fn plan(kind: &str) -> Plan {
    let text = format!(
        r#"
        [experiment]
        kind = "{kind}"
        shares = [20, 20]
        metric = "clicks"
        time = "1m"
        most = "1h"
        [guards.metrics.clicks]
        high = 1
        "#
    );
    Plan::parse(&text).unwrap()
}

/// A block with so many requests, failures and clicks of each version.
fn block(second: i64, versions: [(u64, u64, u64); 3]) -> Block {
    let counts = |(requests, failures, clicks): (u64, u64, u64)| {
        let mut mean = Mean::default();
        (0..requests).for_each(|i| mean.add(if i < clicks { 1.0 } else { 0.0 }));
        let metrics = BTreeMap::from([("clicks".to_owned(), mean)]);
        Counts { requests, failures, metrics, ..Counts::default() }
    };
    let versions = (1..).zip(versions.map(counts)).collect();
    Block { start: at(second), end: at(second + 5), versions }
}

fn begun(plan: &Plan) -> Report {
    let mut report = Report::new(plan, 1, &[2, 3], begin()).unwrap();
    let action = next(plan, &report, begin()).unwrap();
    let Action::Move { shares, .. } = &action else { panic!("{action:?}") };
    assert_eq!(shares.iter().map(|s| s.share).collect::<Vec<_>>(), [6000, 2000, 2000]);
    report.applied(&action, begin());
    report
}

#[test]
fn the_better_of_two_wins_an_experiment_with_fixed_shares() {
    let plan = plan("fixed");
    let mut report = begun(&plan);
    for second in (5..300).step_by(5) {
        report.absorb(&plan, &[block(second, [(300, 0, 60), (100, 0, 20), (100, 0, 50)])]);
    }
    assert_eq!(next(&plan, &report, at(59)), None, "the least time is not over");
    let action = next(&plan, &report, at(300)).unwrap();
    assert!(matches!(action, Action::Promote { version: 3, .. }), "{action:?}");
}

#[test]
fn no_winner_in_time_takes_all_back() {
    let plan = plan("fixed");
    let mut report = begun(&plan);
    for second in (5..300).step_by(5) {
        report.absorb(&plan, &[block(second, [(300, 0, 60), (100, 0, 20), (100, 0, 20)])]);
    }
    assert_eq!(next(&plan, &report, at(300)), None);
    assert!(matches!(next(&plan, &report, at(3600)), Some(Action::RollBack { .. })));
}

#[test]
fn a_candidate_that_fails_is_taken_out_and_the_other_goes_on() {
    let plan = plan("fixed");
    let mut report = begun(&plan);
    for second in (5..60).step_by(5) {
        report.absorb(&plan, &[block(second, [(300, 3, 60), (100, 40, 20), (100, 1, 20)])]);
    }
    let action = next(&plan, &report, at(30)).unwrap();
    let Action::Move { shares, why, .. } = &action else { panic!("{action:?}") };
    assert!(why.starts_with("version 2 is taken out: errors"), "{why}");
    assert_eq!(shares.iter().map(|s| s.share).collect::<Vec<_>>(), [8000, 0, 2000]);
    report.applied(&action, at(30));
    assert_eq!(report.dropped, [2]);
    assert_eq!(next(&plan, &report, at(31)), None);
}

#[test]
fn shares_follow_the_metric_and_the_draws_are_repeatable() {
    let plan = plan("thompson");
    let mut report = begun(&plan);
    report.absorb(&plan, &[block(5, [(60, 0, 12), (20, 0, 4), (20, 0, 7)])]);
    assert_eq!(next(&plan, &report, at(299)), None, "shares change every five minutes");
    let action = next(&plan, &report, at(300)).unwrap();
    assert_eq!(Some(&action), next(&plan, &report, at(300)).as_ref());
    let Action::Move { shares, .. } = &action else { panic!("{action:?}") };
    let share = |version| shares.iter().find(|s| s.version == version).unwrap().share;
    assert!(share(3) > 7000 && share(2) >= 500 && share(1) >= 500, "{shares:?}");
    report.applied(&action, at(300));
    for second in (305..600).step_by(5) {
        report.absorb(&plan, &[block(second, [(60, 0, 12), (20, 0, 4), (200, 0, 80)])]);
    }
    let action = next(&plan, &report, at(600)).unwrap();
    assert!(matches!(action, Action::Promote { version: 3, .. }), "{action:?}");
}

#[test]
fn experiments_that_contradict_themselves_are_refused() {
    let mut wrong = plan("fixed");
    wrong.experiment.as_mut().unwrap().shares = vec![60.0, 40.0];
    assert!(wrong.check().unwrap_err().to_string().starts_with("experiment.shares"));
    let mut wrong = plan("fixed");
    wrong.guards.metrics.clear();
    assert!(wrong.check().unwrap_err().to_string().starts_with("experiment.metric"));
    assert!(Report::new(&plan("fixed"), 1, &[2], begin()).is_err(), "two shares, one candidate");
}
