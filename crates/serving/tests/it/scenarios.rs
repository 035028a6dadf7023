//! What serving promises, one scenario each.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use model::{ErrorCode, InstanceSettings, Outcome};
use runtime::Error;
use serving::{Observations, Slo, State};

use crate::fake::{Gate, Setup, assigned, infer, request};

#[tokio::test]
async fn answers_and_says_what_it_took() {
    let server = Setup::default().start().await;
    let reply = server.serving.infer(request(&[1.0, 2.0])).await.unwrap();
    assert_eq!(reply.outputs[0].1.as_slice::<f32>().unwrap(), [2.0, 4.0]);
    assert_eq!((&*reply.info.name, &*reply.info.version, reply.batch_size), ("m", "1", 2));
    let statistics = &server.serving.statistics(Some("m"), None)[0];
    assert_eq!((statistics.inference_count, statistics.success.count), (2, 1));
    assert!(server.serving.ready());
}

#[tokio::test]
async fn unknown_models_and_versions_are_named() {
    let server = Setup::default().start().await;
    let error = server.serving.model("nobody", None).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NotFound);
    assert_eq!(error.to_string(), "Request for unknown model: 'nobody' is not found");
    let error = server.serving.model("m", Some("7")).await.unwrap_err();
    assert_eq!(error.to_string(), "Request for unknown model: 'm' version 7 is not found");
}

#[tokio::test]
async fn no_rows_give_no_rows() {
    let server = Setup::default().start().await;
    let reply = server.serving.infer(request(&[])).await.unwrap();
    assert_eq!(reply.outputs[0].1.shape(), [0, 1]);
}

#[tokio::test]
async fn a_request_larger_than_a_batch_runs_in_pieces() {
    let settings = InstanceSettings {
        instances: Some(1),
        max_batch_size: Some(4),
        ..InstanceSettings::default()
    };
    let server = Setup { settings, ..Setup::default() }.start().await;
    let values: Vec<f32> = (0..11).map(|v| v as f32).collect();
    let doubled: Vec<f32> = values.iter().map(|v| v * 2.0).collect();
    assert_eq!(server.infer(&values).await.unwrap(), doubled);
    let sizes: Vec<u64> =
        server.serving.statistics(None, None)[0].batches.iter().map(|b| b.batch_size).collect();
    assert_eq!(sizes, [3, 4]);
}

/// Sends values one request each while one instance is held at the gate, so that they form batches.
async fn send_together(gate: &Gate, setup: Setup, values: &[f32]) -> Vec<Result<Vec<f32>, String>> {
    let server = setup.start().await;
    gate.close();
    let first = tokio::spawn({
        let serving = server.serving.clone();
        async move { infer(&serving, request(&[0.0])).await }
    });
    gate.arrivals(1).await;
    let tasks: Vec<_> = values
        .iter()
        .map(|value| {
            let (serving, request) = (server.serving.clone(), request(&[*value]));
            // Polled once here, so that the request is in the queue before the gate opens.
            let mut answer = Box::pin(async move { infer(&serving, request).await });
            let waker = std::task::Waker::noop();
            let polled = answer.as_mut().poll(&mut std::task::Context::from_waker(waker));
            assert!(polled.is_pending());
            answer
        })
        .collect();
    gate.permit(1000);
    first.await.unwrap().unwrap();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.map_err(|error| error.to_string()));
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_wait_together_run_together() {
    let gate = Gate::new();
    let setup = Setup { behaviour: gate.behaviour(), ..Setup::default() };
    let answers = send_together(&gate, setup, &[1.0, 2.0, 3.0]).await;
    assert_eq!(answers, [Ok(vec![2.0]), Ok(vec![4.0]), Ok(vec![6.0])]);
    // The fixed time of a run outweighs that of a row, so all three were taken at once.
    assert_eq!(*gate.batches.lock().unwrap(), [vec![0.0], vec![1.0, 2.0, 3.0]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_row_fails_only_its_own_request() {
    let gate = Gate::new();
    let gated = gate.behaviour();
    let setup = Setup {
        behaviour: Arc::new(move |values| {
            let answer = gated(values)?;
            if values.contains(&13.0) {
                return Err(Error::invalid("13 is not a number that we like"));
            }
            assert!(!values.contains(&666.0), "the engine is possessed");
            Ok(answer)
        }),
        ..Setup::default()
    };
    let answers = send_together(&gate, setup, &[1.0, 13.0, 3.0, 666.0, 5.0]).await;
    assert_eq!(answers[0], Ok(vec![2.0]));
    assert_eq!(answers[1], Err("13 is not a number that we like".to_owned()));
    assert_eq!(answers[2], Ok(vec![6.0]));
    assert_eq!(answers[3], Err("the engine fake panicked: the engine is possessed".to_owned()));
    assert_eq!(answers[4], Ok(vec![10.0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_is_kept_while_waiting_and_the_work_is_never_done() {
    let gate = Gate::new();
    let server = Setup { behaviour: gate.behaviour(), ..Setup::default() }.start().await;
    gate.close();
    let held = tokio::spawn({
        let serving = server.serving.clone();
        async move { infer(&serving, request(&[0.0])).await }
    });
    gate.arrivals(1).await;
    let mut late = request(&[1.0]);
    // Longer than the wait that is expected, so that it is admitted; the gate outlasts it.
    late.deadline = Some(Instant::now() + Duration::from_millis(50));
    let error = infer(&server.serving, late).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::DeadlineExceeded);
    let mut past = request(&[1.0]);
    past.deadline = Some(Instant::now());
    let error = infer(&server.serving, past).await.unwrap_err();
    assert_eq!(error.to_string(), "the request's time is already up");
    gate.permit(1000);
    held.await.unwrap().unwrap();
    server.serving.drain().await;
    assert_eq!(*gate.batches.lock().unwrap(), [vec![0.0]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_is_gone_costs_nothing() {
    let gate = Gate::new();
    let server = Setup { behaviour: gate.behaviour(), ..Setup::default() }.start().await;
    gate.close();
    let held = tokio::spawn({
        let serving = server.serving.clone();
        async move { infer(&serving, request(&[0.0])).await }
    });
    gate.arrivals(1).await;
    let gone = tokio::time::timeout(Duration::from_millis(1), server.infer(&[1.0])).await;
    assert!(gone.is_err());
    gate.permit(1000);
    held.await.unwrap().unwrap();
    server.serving.drain().await;
    assert_eq!(*gate.batches.lock().unwrap(), [vec![0.0]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_at_once_and_says_when_to_come_back() {
    let gate = Gate::new();
    let setup = Setup { behaviour: gate.behaviour(), max_queue: 0, ..Setup::default() };
    let server = setup.start().await;
    let error = server.infer(&[1.0]).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ResourceExhausted);
    assert!(error.wait().is_some());
    assert_eq!(server.serving.statistics(None, None)[0].refused, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_meet_the_promise_is_refused_before_any_work() {
    let gate = Gate::new();
    let slo = Some(Slo { quantile: 0.99, time: Duration::from_millis(20) });
    let settings = InstanceSettings {
        instances: Some(1),
        max_batch_size: Some(1),
        ..InstanceSettings::default()
    };
    let setup = Setup { behaviour: gate.behaviour(), slo, settings, ..Setup::default() };
    let server = setup.start().await;
    gate.close();
    let mut admitted = Vec::new();
    let mut refused = 0;
    for value in 0..100 {
        let (serving, request) = (server.serving.clone(), request(&[value as f32]));
        let mut answer = Box::pin(async move { infer(&serving, request).await });
        let waker = std::task::Waker::noop();
        match answer.as_mut().poll(&mut std::task::Context::from_waker(waker)) {
            std::task::Poll::Pending => admitted.push(answer),
            std::task::Poll::Ready(Err(error)) => {
                assert_eq!(error.code(), ErrorCode::ResourceExhausted);
                refused += 1;
            }
            std::task::Poll::Ready(Ok(_)) => panic!("the gate is closed"),
        }
    }
    // A run of one row takes 2 ms or more; 20 ms hold some requests, not all.
    assert!(!admitted.is_empty() && refused > 0, "{} {refused}", admitted.len());
    gate.permit(1000);
    for answer in admitted {
        answer.await.unwrap();
    }
}

#[tokio::test]
async fn unloading_frees_the_session_and_loading_again_brings_it_back() {
    let settings = InstanceSettings { instances: Some(2), ..InstanceSettings::default() };
    let server = Setup { settings: settings.clone(), ..Setup::default() }.start().await;
    assert_eq!(server.sessions.load(Ordering::SeqCst), 1);
    server.assignments.send_modify(|wanted| wanted.models.clear());
    server.serving.settled().await;
    assert_eq!(server.sessions.load(Ordering::SeqCst), 0);
    assert_eq!(server.infer(&[1.0]).await.unwrap_err().code(), ErrorCode::NotFound);
    server.assignments.send_modify(|wanted| {
        wanted.models.insert("m".into(), vec![assigned("1", 1, &settings)]);
    });
    server.serving.settled().await;
    assert_eq!(server.infer(&[1.0]).await.unwrap(), [2.0]);
}

#[tokio::test]
async fn a_reload_that_fails_leaves_the_version_before_it_serving() {
    let server = Setup::default().start().await;
    server.assignments.send_modify(|wanted| {
        let assigned = &mut wanted.models.get_mut("m").unwrap()[0];
        assigned.generation += 1;
        assigned.source = "a truncated file".into();
    });
    server.serving.settled().await;
    assert_eq!(server.infer(&[1.0]).await.unwrap(), [2.0]);
    let status = &server.serving.status()[0];
    assert_eq!(status.state, State::Ready);
    assert_eq!(status.failure.as_deref(), Some("a truncated file is corrupt"));
}

#[tokio::test]
async fn a_version_that_cannot_be_loaded_says_why_and_leaves_its_neighbour_alone() {
    let server = Setup::default().start().await;
    server.assignments.send_modify(|wanted| {
        let versions = wanted.models.get_mut("m").unwrap();
        let mut bad = assigned("2", 0, &InstanceSettings::default());
        bad.source = "v2".into();
        versions.push(bad);
    });
    server.serving.settled().await;
    assert_eq!(server.infer(&[1.0]).await.unwrap(), [2.0]);
    assert!(!server.serving.ready());
    let error = server.serving.model("m", Some("2")).await.unwrap_err();
    assert_eq!(error.to_string(), "model 'm' version 2 failed to load: v2 is corrupt");
}

#[tokio::test]
async fn a_new_version_that_cannot_be_loaded_leaves_the_one_before_it_serving() {
    let server = Setup::default().start().await;
    let replace = |source: &'static str| {
        server.assignments.send_modify(|wanted| {
            let mut new = assigned("2", 1, &InstanceSettings::default());
            new.source = source.into();
            wanted.models.insert("m".into(), vec![new]);
        });
    };
    replace("v2");
    server.serving.settled().await;
    assert_eq!(server.infer(&[1.0]).await.unwrap(), [2.0]);
    assert!(server.serving.model("m", Some("1")).await.is_ok());
    assert!(server.serving.model("m", Some("2")).await.is_err());
    replace(assigned("2", 1, &InstanceSettings::default()).source.leak());
    server.serving.settled().await;
    assert!(server.serving.model("m", Some("1")).await.is_err());
    assert!(server.serving.model("m", Some("2")).await.is_ok());
}

#[tokio::test]
async fn traffic_is_divided_by_share() {
    let settings = InstanceSettings { instances: Some(1), ..InstanceSettings::default() };
    let server = Setup::default().start().await;
    server.assignments.send_modify(|wanted| {
        let versions = vec![assigned("1", 9, &settings), assigned("2", 1, &settings)];
        wanted.models.insert("m".into(), versions);
    });
    server.serving.settled().await;
    let mut second = 0;
    for _ in 0..1000 {
        let reply = server.serving.infer(request(&[1.0])).await.unwrap();
        second += usize::from(&*reply.info.version == "2");
    }
    assert_eq!(second, 100);
}

#[tokio::test]
async fn rows_that_depend_on_each_other_are_found_out_and_never_stacked() {
    let behaviour: crate::fake::Behaviour = Arc::new(|values| {
        let sum: f32 = values.iter().sum();
        Ok(values.iter().map(|v| v / sum).collect())
    });
    let server = Setup { behaviour, ..Setup::default() }.start().await;
    let info = server.serving.model("m", None).await.unwrap();
    assert!(!info.signature.batched);
    assert_eq!(server.infer(&[1.0, 3.0]).await.unwrap(), [0.25, 0.75]);
}

#[tokio::test]
async fn a_watcher_that_does_not_keep_up_loses_observations_and_never_a_request() {
    let (observations, mut watcher) = Observations::new(2);
    observations.watch(["m"].into_iter().collect());
    let setup = Setup { observations: Some(observations.clone()), ..Setup::default() };
    let server = setup.start().await;
    for value in 0..5 {
        server.infer(&[value as f32]).await.unwrap();
    }
    assert_eq!(observations.dropped(), 3);
    let seen = watcher.recv().await.unwrap();
    assert_eq!(seen.outcome, Outcome::Answered);
    assert_eq!(seen.outputs[0].as_slice::<f32>().unwrap(), [0.0]);
}
