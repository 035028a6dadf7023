//! More models than fit into memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use model::{Assigned, ErrorCode};
use serving::{Limits, Request, Serving, State};

use crate::fake::{Door, Gate, Zoo, assigned, infer, poll_once, request};

const ONE: Limits = Limits { memory: None, versions: Some(1) };
const TWO: Limits = Limits { memory: None, versions: Some(2) };

fn model(name: &'static str) -> (&'static str, Assigned) {
    (name, assigned("1", 1, &Default::default()))
}

fn ask(model: &str) -> Request {
    Request { model: model.into(), ..request(&[1.0]) }
}

fn loaded(serving: &Serving) -> Vec<String> {
    let status = serving.status().into_iter().filter(|status| status.state == State::Ready);
    status.map(|status| status.name.to_string()).collect()
}

#[tokio::test]
async fn the_least_recently_used_makes_room_and_comes_back() {
    let zoo = Zoo { limits: TWO, ..Zoo::of([model("a"), model("b"), model("c")]) };
    let (server, _seen) = zoo.start().await;
    assert_eq!(loaded(&server.serving).len(), 2);
    assert!(server.serving.ready());
    for (name, expected) in [("a", None), ("b", None), ("c", Some("bc")), ("a", Some("ac"))] {
        assert_eq!(infer(&server.serving, ask(name)).await.unwrap(), [2.0]);
        if let Some(expected) = expected {
            assert_eq!(loaded(&server.serving).concat(), expected);
        }
        assert_eq!(server.sessions.load(Ordering::SeqCst), 2);
    }
    let status = &server.serving.status()[1];
    assert_eq!((&*status.name, &status.state), ("b", &State::OnDemand));
    assert!(status.info.is_some() && server.serving.ready());
}

#[tokio::test]
async fn what_a_version_is_can_be_asked_without_loading_it_again() {
    let zoo = Zoo { limits: ONE, ..Zoo::of([model("a"), model("b")]) };
    let (server, _seen) = zoo.start().await;
    for name in ["a", "b"] {
        infer(&server.serving, ask(name)).await.unwrap();
    }
    assert_eq!(&*server.serving.model("a", None).await.unwrap().name, "a");
    assert!(server.serving.check("a", None).is_ok());
    assert_eq!(loaded(&server.serving), ["b"]);
}

#[tokio::test]
async fn counters_outlast_an_unload_and_memory_does_not() {
    let zoo = Zoo { limits: ONE, ..Zoo::of([model("a"), model("b")]) };
    let (server, _seen) = zoo.start().await;
    for name in ["a", "a", "b"] {
        infer(&server.serving, ask(name)).await.unwrap();
    }
    let statistics = server.serving.statistics(None, None);
    let counts: Vec<_> = statistics.iter().map(|s| (s.success.count, s.memory > 0)).collect();
    assert_eq!(counts, [(2, false), (1, true)]);
    assert_eq!(server.serving.memory(), statistics[1].memory);
    infer(&server.serving, ask("a")).await.unwrap();
    assert_eq!(server.serving.statistics(Some("a"), None)[0].success.count, 3);
}

/// A server of two models with room for one, which `b` has; nothing can be opened any more.
async fn closed(max_queue: usize) -> (crate::fake::Server, Arc<Door>) {
    let door = Arc::new(Door::default());
    let zoo =
        Zoo { limits: ONE, door: door.clone(), max_queue, ..Zoo::of([model("a"), model("b")]) };
    let (server, _) = zoo.start().await;
    for name in ["a", "b"] {
        infer(&server.serving, ask(name)).await.unwrap();
    }
    door.close();
    (server, door)
}

#[tokio::test]
async fn requests_wait_for_one_load_together_and_no_more_than_the_limit() {
    let (server, door) = closed(3).await;
    let before = *door.arrived.borrow();
    let mut answers: Vec<_> = (0..3).map(|_| Box::pin(infer(&server.serving, ask("a")))).collect();
    for answer in &mut answers {
        assert!(poll_once(answer.as_mut()).is_pending());
    }
    door.arrivals(before + 1).await;
    let error = infer(&server.serving, ask("a")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable);
    assert!(error.wait().is_some());
    assert!(error.to_string().contains("3 requests wait for models to be loaded"), "{error}");
    door.open();
    for answer in answers {
        assert_eq!(answer.await.unwrap(), [2.0]);
    }
    assert_eq!(*door.arrived.borrow(), before + 1);
}

#[tokio::test]
async fn a_deadline_is_kept_while_a_model_is_loaded() {
    let (server, door) = closed(10).await;
    let mut late = ask("a");
    late.deadline = Some(Instant::now() + Duration::from_millis(20));
    let error = infer(&server.serving, late).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::DeadlineExceeded);
    assert_eq!(error.to_string(), "the request's time was up before the model was loaded");
    door.open();
    assert_eq!(infer(&server.serving, ask("a")).await.unwrap(), [2.0]);
}

#[tokio::test]
async fn a_load_that_fails_answers_all_who_wait_and_is_tried_again() {
    let (server, door) = closed(10).await;
    let before = *door.arrived.borrow();
    let mut answers: Vec<_> = (0..3).map(|_| Box::pin(infer(&server.serving, ask("a")))).collect();
    for answer in &mut answers {
        assert!(poll_once(answer.as_mut()).is_pending());
    }
    door.is_broken.store(true, Ordering::SeqCst);
    door.open();
    for answer in answers {
        let error = answer.await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Unavailable);
        assert_eq!(error.to_string(), "model 'a' version 1 failed to load: a is corrupt");
        assert!(error.wait().is_some());
    }
    assert_eq!(*door.arrived.borrow(), before + 1);
    let status = &server.serving.status()[0];
    assert_eq!(
        (&status.state, status.failure.as_deref()),
        (&State::OnDemand, Some("a is corrupt"))
    );
    // What was there before is still there.
    assert_eq!(infer(&server.serving, ask("b")).await.unwrap(), [2.0]);
    door.is_broken.store(false, Ordering::SeqCst);
    while infer(&server.serving, ask("a")).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.serving.status()[0].failure, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_running_is_not_unloaded() {
    let gate = Gate::new();
    let zoo = Zoo { limits: ONE, ..Zoo::of([model("a"), model("b")]) };
    let (server, _seen) = zoo.with("a:1", gate.behaviour()).start().await;
    infer(&server.serving, ask("a")).await.unwrap();
    gate.close();
    let serving = server.serving.clone();
    let running = tokio::spawn(async move { infer(&serving, ask("a")).await });
    gate.arrivals(1).await;
    let mut waiting = Box::pin(infer(&server.serving, ask("b")));
    assert!(poll_once(waiting.as_mut()).is_pending());
    gate.permit(1000);
    assert_eq!(waiting.await.unwrap(), [2.0]);
    assert_eq!(running.await.unwrap().unwrap(), [2.0]);
}

#[tokio::test]
async fn many_callers_of_more_models_than_fit_are_all_answered() {
    let names = ["a", "b", "c", "d", "e"];
    let zoo = Zoo { limits: ONE, ..Zoo::of(names.map(model)) };
    let (server, _seen) = zoo.start().await;
    let tasks: Vec<_> = (0..200)
        .map(|number| {
            let serving = server.serving.clone();
            tokio::spawn(async move { infer(&serving, ask(names[number * 7 % 5])).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), [2.0]);
    }
    assert_eq!(server.sessions.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn nobody_is_unloaded_for_a_shadow() {
    let mut shadow = model("a");
    shadow.1.version = "2".into();
    (shadow.1.shadow, shadow.1.share) = (true, 0);
    let zoo = Zoo { limits: TWO, ..Zoo::of([model("a"), shadow, model("b")]) };
    let (server, _seen) = zoo.start().await;
    // Both answer, so that both are in memory; the shadow is not.
    for name in ["a", "b"] {
        infer(&server.serving, ask(name)).await.unwrap();
    }
    for _ in 0..50 {
        infer(&server.serving, ask("a")).await.unwrap();
    }
    assert_eq!(loaded(&server.serving), ["a", "b"]);
    let named = Request { version: Some("2".into()), ..ask("a") };
    assert_eq!(infer(&server.serving, named).await.unwrap(), [2.0]);
    assert_eq!(loaded(&server.serving).len(), 2);
}

#[tokio::test]
async fn a_model_that_never_fits_is_refused_by_name() {
    let limits = Limits { memory: Some(10), versions: None };
    let (server, _seen) = Zoo { limits, ..Zoo::of([model("a")]) }.start().await;
    let error = infer(&server.serving, ask("a")).await.unwrap_err();
    assert!(error.to_string().contains("all models together may have 10"), "{error}");
    assert!(!server.serving.ready());
}

#[tokio::test]
async fn a_new_version_of_a_model_in_use_takes_the_place_of_what_is_used_least() {
    let zoo = Zoo { limits: TWO, ..Zoo::of([model("a"), model("b")]) };
    let (server, _seen) = zoo.start().await;
    for name in ["b", "a"] {
        infer(&server.serving, ask(name)).await.unwrap();
    }
    server.assignments.send_modify(|wanted| {
        wanted.models.insert("a".into(), vec![assigned("2", 1, &Default::default())]);
    });
    server.serving.settled().await;
    let states: Vec<_> = server
        .serving
        .status()
        .into_iter()
        .map(|s| (s.name.to_string() + &s.version, s.state))
        .collect();
    let expected = [
        ("a1".to_owned(), State::Unavailable(None)),
        ("a2".to_owned(), State::Ready),
        ("b1".to_owned(), State::OnDemand),
    ];
    assert_eq!(states, expected);
    let reply = server.serving.infer(ask("a")).await.unwrap();
    assert_eq!(&*reply.info.version, "2");
}

#[tokio::test]
async fn a_model_that_is_unassigned_while_it_is_loaded_is_thrown_away() {
    let (server, door) = closed(10).await;
    let before = *door.arrived.borrow();
    let mut waiting = Box::pin(infer(&server.serving, ask("a")));
    assert!(poll_once(waiting.as_mut()).is_pending());
    door.arrivals(before + 1).await;
    server.assignments.send_modify(|wanted| {
        wanted.models.remove("a");
    });
    server.serving.settled().await;
    let error = waiting.await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NotFound);
    door.open();
    assert_eq!(infer(&server.serving, ask("b")).await.unwrap(), [2.0]);
}
