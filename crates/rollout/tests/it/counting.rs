//! What a tally makes of observations.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use model::{ErrorCode, Observation, Outcome, Shadow, Tensor};
use rollout::{Counts, Feedback, Plan, Tally};

use crate::made::at;

fn observed(version: &str, second: i64, value: f32) -> Observation {
    let output = Tensor::new(vec![1, 1], vec![value]).unwrap();
    Observation {
        model: "m".into(),
        version: version.into(),
        signature: Arc::default(),
        id: None,
        key: None,
        at: SystemTime::UNIX_EPOCH + Duration::from_secs(at(second).as_second() as u64),
        queue: Duration::from_millis(1),
        compute: Duration::from_millis(2),
        batch_size: 1,
        outcome: Outcome::Answered,
        inputs: Arc::new([]),
        outputs: Arc::new([output]),
        shadow: None,
    }
}

fn failed(version: &str, second: i64, code: ErrorCode) -> Observation {
    let outputs: Arc<[Tensor]> = Arc::new([]);
    Observation { outcome: Outcome::Failed(code), outputs, ..observed(version, second, 0.0) }
}

fn shadowing(mut observation: Observation, caller: &[f32]) -> Observation {
    let tensor = |value: &f32| Tensor::new(vec![1, 1], vec![*value]).unwrap();
    let outputs = caller.iter().map(tensor).collect();
    observation.shadow = Some(Shadow { version: "1".into(), outputs });
    observation
}

fn counted(tally: &mut Tally, version: u64) -> Counts {
    let blocks = tally.take(at(6));
    assert_eq!(blocks.len(), 1, "{blocks:?}");
    assert_eq!((blocks[0].start, blocks[0].end), (at(0), at(5)));
    blocks[0].versions.get(&version).cloned().unwrap_or_default()
}

#[test]
fn answers_and_failures_are_counted_by_version_and_time() {
    let mut tally = Tally::new(&Plan::default());
    tally.observe(&observed("1", 0, 0.5));
    tally.observe(&observed("1", 4, 0.5));
    tally.observe(&failed("1", 4, ErrorCode::Internal));
    tally.observe(&observed("1", 5, 0.5));
    tally.observe(&observed("nightly", 1, 0.5));
    assert!(tally.take(at(5)).is_empty(), "requests of the last moment have not ended");
    let counts = counted(&mut tally, 1);
    assert_eq!((counts.requests, counts.failures, counts.latencies.count()), (3, 1, 2));
    let p50 = counts.latencies.quantile(0.5).unwrap().as_secs_f64();
    assert!((p50 / 3e-3 - 1.0).abs() < 0.05, "{p50}");
    assert_eq!(tally.take(at(60)).len(), 1);
    assert!(tally.take(at(60)).is_empty());
}

#[test]
fn shadows_are_compared_with_what_the_caller_got() {
    let mut tally = Tally::new(&Plan::default());
    tally.observe(&shadowing(observed("2", 1, 0.50), &[0.51]));
    tally.observe(&shadowing(observed("2", 1, 0.50), &[0.90]));
    tally.observe(&shadowing(observed("2", 1, f32::NAN), &[0.90]));
    tally.observe(&shadowing(observed("2", 1, 0.5), &[]));
    tally.observe(&shadowing(failed("2", 1, ErrorCode::Internal), &[0.5]));
    tally.observe(&shadowing(failed("2", 1, ErrorCode::Internal), &[]));
    tally.observe(&shadowing(failed("2", 1, ErrorCode::ResourceExhausted), &[0.5]));
    let counts = counted(&mut tally, 2);
    let shadow = &counts.shadow;
    assert_eq!((shadow.both, shadow.agreed), (3, 1));
    assert_eq!((shadow.shadow_failed, shadow.caller_failed, shadow.neither), (1, 1, 1));
    assert_eq!(shadow.requests(), 6, "one that was given up under load is not counted");
    assert_eq!(counts.requests, 0, "a shadow serves nobody");
}

#[test]
fn a_caller_whose_requests_are_always_refused_counts_once() {
    let mut tally = Tally::new(&Plan::default());
    let keyed = |key: &str, code| Observation { key: Some(key.into()), ..failed("2", 1, code) };
    for _ in 0..10 {
        tally.observe(&keyed("broken", ErrorCode::InvalidArgument));
        tally.observe(&keyed("unlucky", ErrorCode::Internal));
        tally.observe(&failed("2", 1, ErrorCode::InvalidArgument));
    }
    tally.observe(&keyed("other", ErrorCode::InvalidArgument));
    let counts = counted(&mut tally, 2);
    assert_eq!((counts.requests, counts.failures), (22, 22));
}

#[test]
fn feedback_is_counted_within_its_range() {
    let plan = Plan::parse("[guards.metrics.clicks]\nlow = -1\nhigh = 1").unwrap();
    let mut tally = Tally::new(&plan);
    tally.observe(&observed("1", 1, 0.5));
    for (value, right) in [(0.0, true), (9.0, false), (f64::NAN, true), (f64::INFINITY, true)] {
        let metrics = [("clicks".to_owned(), value), ("unknown".to_owned(), 1.0)].into();
        tally.feedback(1, &Feedback { metrics, right: Some(right) });
    }
    let counts = counted(&mut tally, 1);
    assert_eq!((counts.right, counts.wrong), (3, 1));
    let clicks = counts.metrics["clicks"];
    assert_eq!((clicks.count, clicks.mean()), (2, Some(0.75)));
    assert_eq!(counts.metrics.len(), 1);
}

#[test]
fn a_wild_clock_cannot_fill_memory() {
    let mut tally = Tally::new(&Plan::default());
    for second in 0..10_000 {
        tally.observe(&observed("1", second * 1000, 0.5));
    }
    let ancient = SystemTime::UNIX_EPOCH.checked_sub(Duration::from_secs(1 << 60));
    if let Some(ancient) = ancient {
        tally.observe(&Observation { at: ancient, ..observed("1", 0, 0.5) });
    }
    assert!(tally.lost() >= 10_000 - 64);
    assert_eq!(tally.take(at(0)).len(), 63, "those that the clock was ahead of are handed out");
    assert!(tally.take(Timestamp::MAX).len() <= 1);
}
