//! Whatever is done, the history adds up to what was there at every moment.

use std::time::Duration;

use model::ErrorCode;
use proptest::prelude::*;
use registry::{By, Decision, Event, Expected, ModelState, Share, Start};
use serde_json::json;

use crate::place::{Place, START, ada, assert_consistent, publish};

#[derive(Clone, Debug)]
enum Step {
    Publish,
    SetAlias(usize, Option<u64>, Option<u64>),
    Split(Vec<(u64, u32, bool)>),
    Archive(u64),
    Restore(u64),
    Delete(u64),
    StartRollout(u64, Vec<u64>),
    Decide(u8, u64),
    Pause(bool),
    Stop,
    RollBack,
    /// Moves the clock, perhaps backwards.
    Wait(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let version = || 0u64..6;
    let some_version = || prop::option::of(version());
    prop_oneof![
        3 => Just(Step::Publish),
        4 => (0usize..3, some_version(), some_version())
            .prop_map(|(alias, to, expected)| Step::SetAlias(alias, to, expected)),
        2 => prop::collection::vec((version(), 0u32..3, any::<bool>()), 0..4).prop_map(Step::Split),
        1 => version().prop_map(Step::Archive),
        1 => version().prop_map(Step::Restore),
        1 => version().prop_map(Step::Delete),
        4 => (1u64..4, prop::collection::vec(1u64..5, 1..3))
            .prop_map(|(champion, candidates)| Step::StartRollout(champion, candidates)),
        4 => (0u8..3, version()).prop_map(|(what, version)| Step::Decide(what, version)),
        1 => any::<bool>().prop_map(Step::Pause),
        1 => Just(Step::Stop),
        2 => Just(Step::RollBack),
        2 => (-5i64..20).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_history_tells_every_moment(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(follow(steps));
    }
}

async fn follow(steps: Vec<Step>) {
    let place = Place::folder();
    let registry = place.open().await;
    publish(&registry, "m", 0).await;
    for (seed, step) in (1..).zip(steps) {
        let by = ada();
        let done = match step {
            Step::Publish => {
                publish(&registry, "m", seed).await;
                Ok(())
            }
            Step::SetAlias(alias, to, expected) => {
                let alias = ["champion", "candidate", "stable"][alias];
                let expected = expected.map_or(Expected::Anything, Expected::Version);
                registry.set_alias("m", alias, to, expected, &by).await.map(drop)
            }
            Step::Split(shares) => {
                let share =
                    |(version, share, shadow)| Share { shadow, ..Share::of(version, share) };
                let shares = shares.into_iter().map(share).collect();
                registry.split_traffic("m", shares, None, &by).await.map(drop)
            }
            Step::Archive(version) => registry.archive("m", version, &by).await.map(drop),
            Step::Restore(version) => registry.restore("m", version, &by).await.map(drop),
            Step::Delete(version) => registry.delete("m", version, &by).await.map(drop),
            Step::StartRollout(champion, candidates) => {
                let shares = vec![Share::of(champion, 1), Share::shadow(candidates[0])];
                let (plan, report) = (json!({}), json!({"seen": 0}));
                let start = Start { champion, candidates, plan, report, shares };
                registry.start_rollout("m", start, &by).await.map(drop)
            }
            Step::Decide(what, version) => match registry.rollout("m").await.unwrap() {
                None => Ok(()),
                Some(rollout) => {
                    let shares = vec![Share::of(rollout.champion, 9), Share::of(version, 1)];
                    let decision = match what {
                        0 => Decision::Move(shares),
                        1 => Decision::Promote(version),
                        _ => Decision::RollBack,
                    };
                    let decided = Some((decision, by));
                    registry.advance(&rollout, &json!({}), &[], decided).await.map(drop)
                }
            },
            Step::Pause(paused) => registry.pause_rollout("m", paused, &by).await.map(drop),
            Step::Stop => registry.stop_rollout("m", &by).await.map(drop),
            Step::RollBack => registry.roll_back("m", None, &by).await.map(drop),
            Step::Wait(seconds) => {
                place.pass(seconds);
                Ok(())
            }
        };
        if let Err(error) = done {
            assert_ne!(error.code(), ErrorCode::Internal, "{error}");
        }
    }
    // The checker replays the history and compares the rows with it.
    assert_consistent(&registry).await;
    let history = registry.history("m").await.unwrap();
    let mut state = ModelState::default();
    for (place, record) in history.iter().enumerate() {
        state.apply(&record.event, record.time).unwrap();
        // Of several changes at one moment the last counts.
        if history.get(place + 1).is_none_or(|next| next.time > record.time) {
            assert_eq!(registry.at("m", record.time).await.unwrap(), state);
        }
        if let Event::AliasMoved { alias, to: Some(to), .. } = &record.event {
            assert_eq!(state.aliases[alias], *to);
        }
    }
    let now = registry.at("m", jiff::Timestamp::MAX).await.unwrap();
    let mut assignments = registry.assignments(Duration::from_secs(10)).await.unwrap();
    let assigned: Vec<Share> = assignments.models.remove("m").map_or(Vec::new(), |versions| {
        let share = |assigned: model::Assigned| Share {
            shadow: assigned.shadow,
            ..Share::of(assigned.version.parse().unwrap(), assigned.share)
        };
        versions.into_iter().map(share).collect()
    });
    let warm_since = place.clock().micros() - 10_000_000;
    assert_eq!(assigned, now.assigned(jiff::Timestamp::from_microsecond(warm_since).unwrap()));
    // Whoever has traffic is there to serve it.
    for share in assigned {
        assert_eq!(now.versions[&share.version], registry::Stage::Active);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_when_and_why_are_kept_and_cannot_be_changed() {
    let place = Place::folder();
    let registry = place.open().await;
    publish(&registry, "m", 1).await;
    place.pass(60);
    let by = By::new("bo").because("it is better").on_evidence(serde_json::json!({"auc": 0.93}));
    let moved = registry.set_alias("m", "champion", Some(1), Expected::Nothing, &by).await.unwrap();
    let before = jiff::Timestamp::from_microsecond(START + 59_999_999).unwrap();
    assert!(registry.at("m", before).await.unwrap().aliases.is_empty());
    assert_eq!(registry.at("m", moved.time).await.unwrap().aliases["champion"], 1);
    assert_eq!(registry.history("m").await.unwrap()[1], moved);
    assert_eq!((&*moved.who, &*moved.reason), ("bo", "it is better"));
    assert_eq!(moved.evidence.unwrap()["auc"], 0.93);

    let path = place.location.folder().unwrap().join("registry.db");
    let url = format!("sqlite://{}", path.display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    for statement in ["DELETE FROM history", "UPDATE history SET who = 'eve'"] {
        let error = sqlx::query(statement).execute(&pool).await.unwrap_err();
        assert!(error.to_string().contains("append-only"), "{error}");
    }
    // The checker sees what no trigger prevents.
    sqlx::query("UPDATE aliases SET number = 1, alias = 'other'").execute(&pool).await.unwrap();
    let found = registry.check(false).await.unwrap();
    assert!(found[0].to_string().contains("its history adds up to"), "{found:?}");
}
