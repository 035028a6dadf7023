//! Rollouts as rows: each is decided once, by whoever saw the newest, and what was measured or said
//! counts once.

use std::time::Duration;

use model::ErrorCode;
use registry::{
    By, Decision, Event, Expected, Feedback, Holding, Measurement, Outcome, Registry, Rollout,
    Share, Start,
};
use serde_json::json;

use crate::place::{Place, ada, assert_consistent, publish};

pub async fn all(place: &Place) {
    a_rollout_is_decided_once(place).await;
    what_was_measured_and_said_counts_once(place).await;
    one_holds_the_lease(place).await;
    going_back_goes_further_back(place).await;
    servers_say_what_they_hold(place).await;
    let registry = place.open().await;
    assert_consistent(&registry).await;
}

async fn three_versions(registry: &Registry, model: &str) {
    for seed in 1..=3 {
        publish(registry, model, seed).await;
    }
    registry.set_alias(model, "champion", Some(1), Expected::Nothing, &ada()).await.unwrap();
}

fn start(candidates: &[u64]) -> Start {
    Start {
        champion: 1,
        candidates: candidates.to_vec(),
        plan: json!({"steps": []}),
        report: json!({"seen": 0}),
        shares: vec![Share::of(1, 1), Share::shadow(candidates[0])],
    }
}

async fn under_way(registry: &Registry, model: &str) -> Rollout {
    registry.rollout(model).await.unwrap().expect("a rollout is under way")
}

async fn a_rollout_is_decided_once(place: &Place) {
    let (registry, other, by) = (place.open().await, place.open().await, ada());
    three_versions(&registry, "decided").await;
    let refused = registry.start_rollout("decided", start(&[1]), &by).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::InvalidArgument, "{refused}");
    registry.start_rollout("decided", Start { champion: 2, ..start(&[3]) }, &by).await.unwrap_err();
    registry.start_rollout("decided", start(&[9]), &by).await.unwrap_err();
    let started = registry.start_rollout("decided", start(&[2]), &by).await.unwrap();
    let refused = other.start_rollout("decided", start(&[3]), &by).await.unwrap_err();
    assert!(refused.to_string().contains("under way already"), "{refused}");
    registry.split_traffic("decided", vec![Share::of(3, 1)], None, &by).await.unwrap_err();
    registry.delete("decided", 2, &by).await.unwrap_err();

    let seen = under_way(&registry, "decided").await;
    assert_eq!((seen.number, seen.revision), (started.sequence, 0));
    assert_eq!(seen.report, json!({"seen": 0}));
    // A share, and a copy of the rest.
    let stepped = vec![Share::of(1, 99), Share { shadow: true, ..Share::of(2, 1) }];
    let decision = || Some((Decision::Move(stepped.clone()), By::new("rollout")));
    let moved = registry.advance(&seen, &json!({"seen": 1}), &[], decision()).await.unwrap();
    let is = |record: Option<registry::Record>| record.unwrap().event;
    assert_eq!(is(moved), Event::RolloutMoved { from: start(&[2]).shares, to: stepped.clone() });
    // Whoever had read it before that is told.
    let refused = other.advance(&seen, &json!({"seen": 9}), &[], decision()).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::FailedPrecondition, "{refused}");
    let seen = under_way(&other, "decided").await;
    assert_eq!((&seen.report, seen.revision), (&json!({"seen": 1}), 1));
    // What is not allowed leaves the report as it was.
    let stray = Some((Decision::Move(vec![Share::of(3, 1)]), ada()));
    other.advance(&seen, &json!({"seen": 2}), &[], stray).await.unwrap_err();
    let paused = registry.pause_rollout("decided", true, &by).await.unwrap();
    assert_eq!(paused.event, Event::RolloutPaused { paused: true });
    registry.pause_rollout("decided", true, &by).await.unwrap_err();
    let again = under_way(&other, "decided").await;
    assert_eq!((again.revision, again.paused), (1, true));

    let promoted = Some((Decision::Promote(2), By::new("rollout")));
    other.advance(&again, &json!({"seen": 3}), &[], promoted).await.unwrap();
    assert_eq!(registry.rollout("decided").await.unwrap(), None);
    assert_eq!(registry.resolve(&"decided".parse().unwrap()).await.unwrap().number, 2);
    // The one before stays loaded for its time.
    let assigned = async |warm: u64| {
        let all = registry.assignments(Duration::from_secs(warm)).await.unwrap();
        let assigned = all.models["decided"].iter().map(|a| (a.version.clone(), a.share));
        assigned.collect::<Vec<_>>()
    };
    assert_eq!(assigned(60).await, [("1".to_owned(), 0), ("2".to_owned(), 1)]);
    place.pass(61);
    assert_eq!(assigned(60).await, [("2".to_owned(), 1)]);
    let gone = registry.rollout("nobody").await.unwrap_err();
    assert_eq!(gone.code(), ErrorCode::NotFound);
}

async fn what_was_measured_and_said_counts_once(place: &Place) {
    let (registry, by) = (place.open().await, ada());
    three_versions(&registry, "measured").await;
    let said = |id: &str| Feedback {
        id: id.to_owned(),
        request: "r1".to_owned(),
        body: json!({"label": "cat"}),
    };
    let refused = registry.give_feedback("measured", &[said("a")]).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::FailedPrecondition, "{refused}");
    registry.start_rollout("measured", start(&[2]), &by).await.unwrap();
    let rollout = under_way(&registry, "measured").await;
    let measured = |server: &str, number| Measurement {
        server: server.to_owned(),
        number,
        body: json!([number]),
    };
    for one in [measured("x", 1), measured("y", 1), measured("x", 1), measured("x", 2)] {
        registry.measure(rollout.number, &one).await.unwrap();
    }
    registry.measure(rollout.number + 1000, &measured("x", 1)).await.unwrap();
    let seen = registry.measurements(rollout.number).await.unwrap();
    assert_eq!(seen, [measured("x", 1), measured("x", 2), measured("y", 1)]);
    registry.advance(&rollout, &json!({}), &seen[..2], None).await.unwrap();
    assert_eq!(registry.measurements(rollout.number).await.unwrap(), [measured("y", 1)]);

    for id in ["a", "a", "b"] {
        registry.give_feedback("measured", &[said(id)]).await.unwrap();
    }
    let feedback = async || {
        let waiting = registry.feedback(rollout.number, jiff::Timestamp::UNIX_EPOCH).await.unwrap();
        waiting.into_iter().unzip::<_, _, Vec<_>, Vec<_>>()
    };
    let (received, waiting) = feedback().await;
    assert_eq!(waiting, [said("a"), said("b")]);
    let claimed = measured("z", 1);
    assert!(registry.take_feedback(rollout.number, &waiting[..1], &claimed).await.unwrap());
    // Who comes second gets nothing, not even what nobody had taken.
    assert!(!registry.take_feedback(rollout.number, &waiting, &measured("w", 1)).await.unwrap());
    assert_eq!(feedback().await.1, [said("b")]);
    assert_eq!(registry.feedback(rollout.number, received[1]).await.unwrap(), []);
    assert_eq!(
        registry.measurements(rollout.number).await.unwrap(),
        [measured("y", 1), measured("z", 1)]
    );
    assert_eq!(registry.forget_feedback(rollout.number, received[1]).await.unwrap(), 0);
    let later = received[1] + jiff::SignedDuration::from_secs(1);
    assert_eq!(registry.forget_feedback(rollout.number, later).await.unwrap(), 1);
    assert_eq!(feedback().await.1, []);
    // Nothing outlives the rollout.
    registry.stop_rollout("measured", &by).await.unwrap();
    assert_eq!(registry.measurements(rollout.number).await.unwrap(), []);
}

async fn one_holds_the_lease(place: &Place) {
    let (registry, time) = (place.open().await, Duration::from_secs(10));
    assert!(registry.lease("rollouts", "x", time).await.unwrap());
    assert!(!registry.lease("rollouts", "y", time).await.unwrap());
    assert!(registry.lease("rollouts", "x", time).await.unwrap());
    assert!(registry.lease("others", "y", time).await.unwrap());
    place.pass(11);
    assert!(registry.lease("rollouts", "y", time).await.unwrap());
    assert!(!registry.lease("rollouts", "x", time).await.unwrap());
    // A clock that was put back by a day does not keep it for a day.
    place.pass(-24 * 60 * 60);
    assert!(registry.lease("rollouts", "x", time).await.unwrap());
}

async fn going_back_goes_further_back(place: &Place) {
    let (registry, by) = (place.open().await, ada());
    three_versions(&registry, "back").await;
    for version in [2, 3] {
        registry
            .set_alias("back", "champion", Some(version), Expected::Anything, &by)
            .await
            .unwrap();
    }
    let refused = registry.roll_back("back", Some(2), &by).await.unwrap_err();
    assert!(refused.to_string().contains("not version 2 any more"), "{refused}");
    let champion = async || registry.resolve(&"back".parse().unwrap()).await.unwrap().number;
    for (from, to) in [(3, 2), (2, 1)] {
        registry.roll_back("back", Some(from), &by).await.unwrap();
        assert_eq!(champion().await, to);
    }
    let refused = registry.roll_back("back", None, &by).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::FailedPrecondition, "{refused}");
    registry.start_rollout("back", start(&[3]), &by).await.unwrap();
    let record = registry.roll_back("back", None, &by).await.unwrap();
    assert_eq!(record.event, Event::RolloutEnded { outcome: Outcome::RolledBack, champion: 1 });
    // Moving the champion by hand ends a rollout.
    registry.start_rollout("back", start(&[3]), &by).await.unwrap();
    registry.set_alias("back", "champion", Some(2), Expected::Version(1), &by).await.unwrap();
    assert_eq!(registry.rollout("back").await.unwrap(), None);
}

async fn servers_say_what_they_hold(place: &Place) {
    let registry = place.open().await;
    let holding = Holding {
        model: "m".to_owned(),
        version: "1".to_owned(),
        state: "READY".to_owned(),
        reason: None,
    };
    registry.hold("s1", "127.0.0.1:1", &[]).await.unwrap();
    registry.hold("s1", "127.0.0.1:1", std::slice::from_ref(&holding)).await.unwrap();
    place.pass(5);
    registry.hold("s2", "127.0.0.1:2", &[]).await.unwrap();
    let servers = registry.servers(Duration::from_secs(10)).await.unwrap();
    assert_eq!(servers.len(), 2);
    assert_eq!(servers[0].holds, [holding]);
    place.pass(6);
    let servers = registry.servers(Duration::from_secs(10)).await.unwrap();
    assert_eq!(servers.iter().map(|s| &*s.id).collect::<Vec<_>>(), ["s2"]);
    registry.forget_server("s2").await.unwrap();
    assert_eq!(registry.servers(Duration::from_secs(10)).await.unwrap(), []);
}

/// With as much feedback waiting as may, another piece is taken as quickly as the first, and what is
/// beyond is refused. `cargo nextest run -p registry --run-ignored all million` prints the times.
#[tokio::test]
#[ignore = "fills a database with a million rows"]
async fn a_million_pieces_of_feedback_do_not_slow_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let location = folder.path().join("registry");
    let location = registry::Location::parse(location.to_str().unwrap(), Default::default());
    let (location, clock) = (location.unwrap(), registry::Clock::system());
    let registry = Registry::open(&location, None, clock).await.unwrap();
    three_versions(&registry, "many").await;
    registry.start_rollout("many", start(&[2]), &ada()).await.unwrap();
    let said = |id: String| Feedback { request: id.clone(), id, body: json!({"right": true}) };
    let give = async |first: usize, count: usize| {
        let all: Vec<Feedback> = (first..first + count).map(|n| said(format!("{n:09}"))).collect();
        let start = std::time::Instant::now();
        registry.give_feedback("many", &all).await.map(|()| start.elapsed())
    };
    let mut first = Vec::new();
    for n in 0..100 {
        first.push(give(n, 1).await.unwrap());
    }
    for thousand in 0..999 {
        give(100 + thousand * 1000, 1000).await.unwrap();
    }
    let mut last = Vec::new();
    for n in 999_100..1_000_000 {
        last.push(give(n, 1).await.unwrap());
    }
    first.sort();
    last.sort();
    let middle = |times: &[Duration]| times[times.len() / 2];
    println!(
        "one piece: {:?} with none waiting, {:?} with a million",
        middle(&first),
        middle(&last)
    );
    println!("slowest, with a count: {:?}", last[last.len() - 1]);
    assert!(middle(&last) < middle(&first) * 5);
    let refused = give(1_000_000, 1).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::ResourceExhausted, "{refused}");
}
