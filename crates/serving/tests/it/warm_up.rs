//! Recorded requests, which a version answers before anyone else's.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use model::{Assignments, Tensor};
use runtime::{Engines, Error};
use serving::{Opened, Options, Serving, State};
use testkit::fake::{Behaviour, Fake, package};
use tokio::sync::watch;

use crate::fake::{assigned, request};

fn recorded(name: &str, values: &[f32]) -> Vec<(String, Tensor)> {
    vec![(name.to_owned(), Tensor::new(vec![values.len(), 1], values.to_vec()).unwrap())]
}

/// Serves a model that notes what it is asked, and fails on negative values.
async fn serve(recorded: Vec<Vec<(String, Tensor)>>) -> (Serving, Arc<Mutex<Vec<Vec<f32>>>>) {
    let seen: Arc<Mutex<Vec<Vec<f32>>>> = Arc::default();
    let notes = seen.clone();
    let behaviour: Behaviour = Arc::new(move |values| {
        notes.lock().unwrap().push(values.to_vec());
        match values.iter().any(|value| *value < 0.0) {
            true => Err(Error::internal("negative")),
            false => Ok(values.to_vec()),
        }
    });
    let engine = Fake { behaviour, sessions: Arc::new(AtomicUsize::new(0)) };
    let models = [("m".to_owned(), vec![assigned("1", 1, &Default::default())])].into();
    let (_wanted, assignments) = watch::channel(Assignments { models });
    let serving = Serving::start(Options {
        engines: Arc::new(Engines::new(vec![Box::new(engine)])),
        open: Arc::new(move |_, _| Ok(Opened { recorded: recorded.clone(), ..package().into() })),
        assignments,
        observations: None,
        slo: None,
        max_queue: 8,
        limits: Default::default(),
    });
    let serving = serving.unwrap();
    serving.settled().await;
    (serving, seen)
}

#[tokio::test]
async fn a_version_answers_recorded_requests_before_it_is_ready() {
    let (serving, seen) =
        serve(vec![recorded("x", &[41.0]), recorded("z", &[1.0]), recorded("x", &[42.0, 43.0])])
            .await;
    assert_eq!(serving.status()[0].state, State::Ready);
    let runs = seen.lock().unwrap().clone();
    // The one that does not fit is left out; nobody has asked yet.
    assert_eq!(runs[runs.len() - 2..], [vec![41.0], vec![42.0, 43.0]]);
}

#[tokio::test]
async fn only_a_version_that_fails_on_every_recorded_request_gets_no_traffic() {
    let (serving, _) = serve(vec![recorded("x", &[-1.0]), recorded("x", &[1.0])]).await;
    serving.infer(request(&[1.0])).await.unwrap();
    let (serving, _) = serve(vec![recorded("x", &[-1.0]), recorded("x", &[-2.0])]).await;
    let error = serving.infer(request(&[1.0])).await.unwrap_err().to_string();
    assert!(error.contains("failed on every recorded request that was run (2)"), "{error}");
    // That none fits says nothing of the model.
    let (serving, _) = serve(vec![recorded("z", &[1.0])]).await;
    serving.infer(request(&[1.0])).await.unwrap();
}

#[tokio::test]
async fn no_more_requests_are_run_than_is_said() {
    let one = recorded("x", &[7.0]);
    let (_, seen) = serve(vec![one; serving::MOST_RECORDED + 5]).await;
    let runs = seen.lock().unwrap();
    assert_eq!(runs.iter().filter(|run| run[..] == [7.0]).count(), serving::MOST_RECORDED);
}
