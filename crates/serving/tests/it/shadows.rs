//! Versions whose answers nobody sees.

use std::sync::Arc;

use model::{Assigned, ErrorCode, InstanceSettings, Observation, Outcome};
use runtime::Error;
use serving::{Request, Seen, ShadowCount};

use crate::fake::{Behaviour, Gate, Server, Zoo, assigned, infer, poll_once, request, version_for};

fn champion() -> (&'static str, Assigned) {
    let settings = InstanceSettings {
        instances: Some(1),
        max_batch_size: Some(1),
        ..InstanceSettings::default()
    };
    ("m", assigned("1", 1, &settings))
}

fn shadow() -> (&'static str, Assigned) {
    let settings = InstanceSettings { instances: Some(1), ..InstanceSettings::default() };
    ("m", Assigned { shadow: true, ..assigned("2", 0, &settings) })
}

fn triple() -> Behaviour {
    Arc::new(|values| Ok(values.iter().map(|v| v * 3.0).collect()))
}

fn count(server: &Server) -> ShadowCount {
    server.serving.statistics(Some("m"), Some("2"))[0].shadows
}

/// The next observation of the shadow; those of the caller are skipped.
async fn shadowed(seen: &mut Seen) -> Observation {
    loop {
        let observation = seen.recv().await.unwrap();
        if observation.shadow.is_some() {
            return observation;
        }
    }
}

#[tokio::test]
async fn a_shadow_gets_a_copy_and_is_paired_with_what_the_caller_got() {
    let zoo = Zoo::of([champion(), shadow()]).with("m:2", triple());
    let (server, mut seen) = zoo.start().await;
    let (id, key) = (Some("7".to_owned()), Some("k".to_owned()));
    let answer = infer(&server.serving, Request { id, key, ..request(&[5.0]) }).await.unwrap();
    assert_eq!(answer, [10.0]);
    let observed = shadowed(&mut seen).await;
    assert_eq!((&*observed.version, observed.outcome), ("2", Outcome::Answered));
    assert_eq!((observed.id.as_deref(), observed.key.as_deref()), (Some("7"), Some("k")));
    assert_eq!(observed.outputs[0].as_slice::<f32>().unwrap(), [15.0]);
    assert_eq!(observed.inputs[0].as_ref().unwrap().as_slice::<f32>().unwrap(), [5.0]);
    let pair = observed.shadow.unwrap();
    assert_eq!(&*pair.version, "1");
    assert_eq!(pair.outputs[0].as_slice::<f32>().unwrap(), [10.0]);
    let counted = count(&server);
    assert_eq!((counted.run.count, counted.failed, counted.dropped), (1, 0, 0));
    // Nobody asked for it.
    assert_eq!(server.serving.statistics(Some("m"), Some("2"))[0].success.count, 0);
}

#[tokio::test]
async fn a_shadow_answers_testers_by_name_and_callers_by_its_share() {
    let (server, mut seen) = Zoo::of([champion(), shadow()]).with("m:2", triple()).start().await;
    for key in [None, Some("k"), Some("a"), Some("b"), Some("c"), Some("d")] {
        let request = Request { key: key.map(str::to_owned), ..request(&[1.0]) };
        assert_eq!(version_for(&server.serving, request).await, "1");
        shadowed(&mut seen).await;
    }
    let named = Request { version: Some("2".into()), ..request(&[1.0]) };
    assert_eq!(infer(&server.serving, named).await.unwrap(), [3.0]);
    // Who names a version is not copied.
    assert!(seen.recv().await.unwrap().shadow.is_none());
    assert_eq!(count(&server).run.count, 6);

    let mut shadow = shadow();
    shadow.1.pinned = vec!["k".into()];
    let (server, mut seen) = Zoo::of([champion(), shadow]).with("m:2", triple()).start().await;
    let pinned = Request { key: Some("k".into()), ..request(&[1.0]) };
    assert_eq!(version_for(&server.serving, pinned).await, "2");
    // What it answers itself it gets no copy of.
    assert!(seen.recv().await.unwrap().shadow.is_none());
    assert_eq!(version_for(&server.serving, request(&[1.0])).await, "1");
    shadowed(&mut seen).await;
    assert_eq!(count(&server).run.count, 1);
}

#[tokio::test]
async fn a_shadow_that_fails_or_panics_is_observed_and_touches_no_caller() {
    let behaviour: Behaviour = Arc::new(|values| {
        assert!(!values.contains(&666.0), "the shadow is possessed");
        match values.contains(&13.0) {
            true => Err(Error::invalid("13 is not a number that we like")),
            false => Ok(values.to_vec()),
        }
    });
    let zoo = Zoo::of([champion(), shadow()]).with("m:2", behaviour);
    let (server, mut seen) = zoo.start().await;
    for (value, outcome) in [
        (666.0, Outcome::Failed(ErrorCode::Internal)),
        (13.0, Outcome::Failed(ErrorCode::InvalidArgument)),
        (1.0, Outcome::Answered),
    ] {
        assert_eq!(infer(&server.serving, request(&[value])).await.unwrap(), [2.0 * value]);
        let observed = shadowed(&mut seen).await;
        assert_eq!(observed.outcome, outcome);
        assert_eq!(observed.shadow.unwrap().outputs.len(), 1);
    }
    let counted = count(&server);
    assert_eq!((counted.run.count, counted.failed), (3, 2));
}

#[tokio::test]
async fn a_caller_that_fails_is_copied_too_and_paired_with_nothing() {
    let behaviour: Behaviour = Arc::new(|values| match values {
        [13.0] => Err(Error::invalid("13 is not a number that we like")),
        _ => Ok(values.to_vec()),
    });
    let zoo = Zoo::of([champion(), shadow()]).with("m:1", behaviour);
    let (server, mut seen) = zoo.start().await;
    infer(&server.serving, request(&[13.0])).await.unwrap_err();
    let observed = shadowed(&mut seen).await;
    assert_eq!(observed.outcome, Outcome::Answered);
    assert!(observed.shadow.unwrap().outputs.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_that_hangs_holds_nobody_up_and_its_copies_are_bounded() {
    let gate = Gate::new();
    let zoo = Zoo::of([champion(), shadow()]).with("m:2", gate.behaviour());
    let (server, _seen) = zoo.start().await;
    gate.close();
    for value in 0..600 {
        let value = value as f32;
        assert_eq!(infer(&server.serving, request(&[value])).await.unwrap(), [2.0 * value]);
    }
    gate.arrivals(1).await;
    let counted = count(&server);
    assert_eq!(counted.run.count, 0);
    assert!(counted.dropped >= 600 - 1 - 256, "{counted:?}");
    // It can be unassigned in the middle of its run.
    server.assignments.send_modify(|wanted| {
        wanted.models.get_mut("m").unwrap().pop();
    });
    server.serving.settled().await;
    assert_eq!(infer(&server.serving, request(&[1.0])).await.unwrap(), [2.0]);
    gate.permit(1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_dropped_while_a_caller_waits() {
    let gate = Gate::new();
    let zoo = Zoo::of([champion(), shadow()]).with("m:1", gate.behaviour());
    let (server, _seen) = zoo.start().await;
    gate.close();
    let mut answers: Vec<_> =
        (0..3).map(|value| Box::pin(infer(&server.serving, request(&[value as f32])))).collect();
    for answer in &mut answers {
        assert!(poll_once(answer.as_mut()).is_pending());
    }
    gate.arrivals(1).await;
    // The first is answered while the third waits behind the second.
    gate.permit(1);
    answers.remove(0).await.unwrap();
    let counted = count(&server);
    assert_eq!((counted.run.count, counted.dropped), (0, 1));
    gate.permit(1000);
    for answer in answers {
        answer.await.unwrap();
    }
}

#[tokio::test]
async fn a_model_that_has_only_shadows_says_so() {
    let (server, _seen) = Zoo::of([shadow()]).start().await;
    let error = infer(&server.serving, request(&[1.0])).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable);
    assert_eq!(error.to_string(), "model 'm' has only shadows: name a version to ask one");
}
