//! Blocks and reports, made for tests.

use jiff::{SignedDuration, Timestamp};
use rollout::{Action, Block, Counts, Plan, Report, next};

/// When every test begins: on the boundary of a block.
pub fn begin() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().unwrap()
}

/// So many seconds later.
pub fn at(seconds: i64) -> Timestamp {
    begin() + SignedDuration::from_secs(seconds)
}

/// Version 1 is the champion, version 2 the candidate: requests and failures of each.
pub fn block(second: i64, champion: (u64, u64), candidate: (u64, u64)) -> Block {
    let counts = |(requests, failures)| Counts { requests, failures, ..Counts::default() };
    let versions = [(1, counts(champion)), (2, counts(candidate))].into();
    Block { start: at(second), end: at(second + 5), versions }
}

/// A rollout of version 2 in its first step, which began at the beginning.
pub fn running(plan: &Plan) -> Report {
    let mut report = Report::new(plan, 1, &[2], begin()).unwrap();
    let action = next(plan, &report, begin()).unwrap();
    assert!(matches!(action, Action::Move { step: 0, .. }), "{action:?}");
    report.applied(&action, begin());
    report
}

/// A plan with one step at 5 % before all of the traffic.
pub fn short() -> Plan {
    Plan::parse(
        r#"
        [[steps]]
        share = 5
        time = "1m"
        requests = 100
        most = "1h"
        [[steps]]
        share = 100
        "#,
    )
    .unwrap()
}
