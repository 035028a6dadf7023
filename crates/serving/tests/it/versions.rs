//! Which version answers, and what is told of it.

use model::{Assigned, ErrorCode, Outcome};
use serving::{Request, Target};

use crate::fake::{Zoo, assigned, request, version_for};

fn version(version: &str, share: u32) -> (&'static str, Assigned) {
    ("m", assigned(version, share, &Default::default()))
}

fn with_key(key: &str) -> Request {
    Request { key: Some(key.into()), ..request(&[1.0]) }
}

#[tokio::test]
async fn a_key_always_gets_the_same_version_and_keys_together_meet_the_shares() {
    let (server, _seen) = Zoo::of([version("1", 70), version("2", 30)]).start().await;
    let mut second = 0;
    for number in 0..1000 {
        let key = format!("user-{number}");
        let first = version_for(&server.serving, with_key(&key)).await;
        // However it is chosen, and whoever asks in between.
        version_for(&server.serving, request(&[1.0])).await;
        let target = Target { model: "m", key: Some(&key), ..Target::default() };
        let again = server.serving.choose(target).await.unwrap();
        assert_eq!(*again.info().version, *first);
        second += u32::from(first == "2");
    }
    // 300 expected; the standard deviation is 14.5.
    assert!((230..370).contains(&second), "{second}");
}

#[tokio::test]
async fn pinned_keys_and_named_versions_win_over_shares() {
    let mut pinned = version("2", 0);
    pinned.1.pinned = vec!["tester".into()];
    let (server, _seen) = Zoo::of([version("1", 1), pinned]).start().await;
    assert_eq!(version_for(&server.serving, with_key("tester")).await, "2");
    assert_eq!(version_for(&server.serving, with_key("user")).await, "1");
    let named = Request { version: Some("1".into()), ..with_key("tester") };
    assert_eq!(version_for(&server.serving, named).await, "1");
}

#[tokio::test]
async fn shares_and_pins_change_without_a_load() {
    let (server, _seen) = Zoo::of([version("1", 1), version("2", 0)]).start().await;
    assert_eq!(version_for(&server.serving, with_key("k")).await, "1");
    server.assignments.send_modify(|wanted| {
        let versions = wanted.models.get_mut("m").unwrap();
        versions[1].pinned = vec!["k".into()];
    });
    server.serving.settled().await;
    assert_eq!(version_for(&server.serving, with_key("k")).await, "2");
    assert_eq!(server.sessions.load(std::sync::atomic::Ordering::SeqCst), 2);
}

#[tokio::test]
async fn requests_that_are_chosen_and_answered_apart_are_not_lost_to_a_new_version() {
    let (server, _seen) = Zoo::of([version("1", 1)]).start().await;
    let request = request(&[1.0]);
    let chosen = server.serving.choose(request.target()).await.unwrap();
    server.assignments.send_modify(|wanted| {
        wanted.models.insert("m".into(), vec![version("2", 1).1]);
    });
    server.serving.settled().await;
    let reply = server.serving.answer(chosen, request).await.unwrap();
    assert_eq!(&*reply.info.version, "2");
}

#[tokio::test]
async fn what_answers_and_what_fails_is_observed_with_its_key_and_id() {
    let (server, mut seen) = Zoo::of([version("1", 1)]).start().await;
    let id = |request: Request| Request { id: Some("7".into()), ..request };
    server.serving.infer(id(with_key("k"))).await.unwrap();
    let answered = seen.recv().await.unwrap();
    assert_eq!((answered.id.as_deref(), answered.key.as_deref()), (Some("7"), Some("k")));
    assert_eq!((answered.outcome, answered.shadow.is_none()), (Outcome::Answered, true));
    assert_eq!(answered.outputs[0].as_slice::<f32>().unwrap(), [2.0]);

    let wrong = Request { inputs: Vec::new(), ..id(with_key("k")) };
    server.serving.infer(wrong).await.unwrap_err();
    let failed = seen.recv().await.unwrap();
    assert_eq!(failed.outcome, Outcome::Failed(ErrorCode::InvalidArgument));
    assert_eq!((failed.id.as_deref(), failed.key.as_deref()), (Some("7"), Some("k")));
    assert!(failed.inputs.is_empty() && failed.outputs.is_empty());
}

#[tokio::test]
async fn a_model_that_nobody_watches_is_not_observed() {
    let other = ("other", assigned("1", 1, &Default::default()));
    let (server, mut seen) = Zoo::of([version("1", 1), other]).start().await;
    server.serving.infer(Request { model: "other".into(), ..request(&[1.0]) }).await.unwrap();
    server.serving.infer(request(&[1.0])).await.unwrap();
    assert_eq!(&*seen.recv().await.unwrap().model, "m");
    assert!(seen.try_recv().is_err());
}
