//! The replay gate: recorded requests are answered again by a candidate, and compared, before any
//! caller sees it.
//!
//! The candidate is served as it will be, on a port of this machine that only this process knows, so
//! that a request takes the same way as a caller's.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ::registry::{Reference, Registry, Selector};
use api::{Api, ApiOptions};
use model::{Assigned, Assignments, InstanceSettings};
use rollout::{Replay, Replayed};
use runtime::Engines;
use serde::Deserialize;
use serde_json::Value;
use serving::{Options, Serving, State};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::http::Endpoint;
use crate::refusing::Refusing;
use crate::registry::OrFailure;
use crate::{Failure, log, oip, recorded, temporary};

/// The most requests that are taken from a prediction log.
const OF_LOG: usize = 1000;

/// A recorded request with its answer, both as the Open Inference Protocol has them in JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    request: Value,
    response: Answered,
}

#[derive(Deserialize)]
struct Answered {
    outputs: Vec<Output>,
}

#[derive(Debug, Deserialize)]
struct Output {
    name: String,
    datatype: String,
    shape: Vec<u64>,
    data: Vec<Value>,
}

/// Answers every recorded request with each candidate, and counts how many agree; with several
/// candidates, those that all of them answer as recorded.
pub async fn run(
    registry: &Registry,
    engines: &Arc<Engines>,
    (model, candidates): (&str, &[u64]),
    wanted: &Replay,
) -> Result<Replayed, Failure> {
    let recorded = read(&wanted.file, model).await?;
    let mut agreed = vec![true; recorded.len()];
    let mut failed = 0;
    for candidate in candidates {
        let answers = answer(registry, engines, (model, *candidate), &recorded).await?;
        for ((agreed, recorded), answer) in agreed.iter_mut().zip(&recorded).zip(answers) {
            match answer {
                Some(outputs) => {
                    *agreed &= agree(&recorded.response.outputs, &outputs, wanted.tolerance);
                }
                None => {
                    *agreed = false;
                    failed += 1;
                }
            }
        }
    }
    let agreed = agreed.into_iter().filter(|agreed| *agreed).count() as u64;
    Ok(Replayed { requests: recorded.len() as u64, agreed, failed })
}

/// A file with one JSON object a line, or the newest requests of a prediction log: a folder, or the
/// URL of a bucket.
async fn read(place: &str, model: &str) -> Result<Vec<Recorded>, Failure> {
    let path = Path::new(place);
    if path.is_dir() || place.contains("://") {
        let fail = |failure: Failure| failure.at(format!("replay: {place}"));
        let found = log::recorded(place, model, OF_LOG).await.map_err(fail)?;
        let found = found.into_iter().map(serde_json::from_value);
        let recorded = found.collect::<Result<Vec<Recorded>, _>>()?;
        return match recorded.is_empty() {
            true => Err(Failure::usage(format!(
                "replay: {place}: the log has no answered request of \"{model}\" that can be asked again"
            ))),
            false => Ok(recorded),
        };
    }
    let fail = |what: String| Failure::usage(format!("replay: {}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    let parsed = recorded::lines(&text).map(|line| line.map(|(_, one)| one));
    let recorded = parsed.collect::<Result<Vec<_>, _>>().map_err(fail)?;
    match recorded.is_empty() {
        true => Err(fail("there is no recorded request in it".to_owned())),
        false => Ok(recorded),
    }
}

/// The outputs of a candidate for each request; `None` where it failed.
async fn answer(
    registry: &Registry,
    engines: &Arc<Engines>,
    (model, version): (&str, u64),
    recorded: &[Recorded],
) -> Result<Vec<Option<Vec<Output>>>, Failure> {
    let folder = temporary::Folder::new()?;
    let reference = Reference { model: model.to_owned(), version: Selector::Number(version) };
    let version = registry.resolve(&reference).await.or_failure()?;
    let file = registry.fetch(&version, folder.path()).await.or_failure()?;
    let assigned = Assigned {
        version: version.number.to_string(),
        source: reference.to_string(),
        share: 1,
        shadow: false,
        pinned: Vec::new(),
        settings: InstanceSettings::default(),
        generation: 0,
    };
    let models = BTreeMap::from([(model.to_owned(), vec![assigned])]);
    let (_wanted, assignments) = watch::channel(Assignments { models });
    let serving = Serving::start(Options {
        engines: engines.clone(),
        open: Arc::new(move |_, _| {
            import::open(&file).map(Into::into).map_err(|error| error.to_string())
        }),
        assignments,
        observations: None,
        slo: None,
        max_queue: 64,
        limits: Default::default(),
    })?;
    serving.settled().await;
    if let Some(State::Unavailable(Some(reason))) = serving.status().first().map(|s| &s.state) {
        return Err(Failure::refused(format!("{reference} cannot be loaded: {reason}")));
    }
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let endpoint = Endpoint::parse(&listener.local_addr()?.to_string())?;
    let (control, options) =
        (Arc::new(Refusing("this server only replays")), ApiOptions::default());
    let (registry, aliases, alerts, tracer, drift, feedback) = (None, None, None, None, None, None);
    let api = Api { serving, control, registry, aliases, alerts, tracer, drift, feedback, options };
    let (stop, stopped) = watch::channel(false);
    let until = async move {
        let mut stopped = stopped;
        // It ends when the sender is gone, too.
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let server = tokio::spawn(api::serve(listener, api, until));
    let answers = ask(&endpoint, model, recorded).await;
    drop(stop);
    server.await??;
    answers
}

async fn ask(
    endpoint: &Endpoint,
    model: &str,
    recorded: &[Recorded],
) -> Result<Vec<Option<Vec<Output>>>, Failure> {
    let mut connection = oip::connect(endpoint).await?;
    let path = format!("{}/infer", oip::route(model, None));
    let headers = [("content-type".to_owned(), "application/json".to_owned())];
    let mut answers = Vec::with_capacity(recorded.len());
    for one in recorded {
        let body = serde_json::to_vec(&one.request)?;
        let request = endpoint.post(&path, &headers, &body);
        let answer = connection.answer(&request).await.map_err(oip::broken(endpoint))?;
        let outputs = (answer.status == 200)
            .then(|| serde_json::from_slice::<Answered>(&answer.body).ok())
            .flatten();
        answers.push(outputs.map(|answered| answered.outputs));
        if !connection.is_open() {
            connection = oip::connect(endpoint).await?;
        }
    }
    Ok(answers)
}

/// Whether the outputs that were recorded are there with the same types and shapes, and the same
/// values: numbers to this part of the larger one. Others may be there besides.
fn agree(recorded: &[Output], now: &[Output], tolerance: f64) -> bool {
    recorded.iter().all(|expected| {
        now.iter().any(|got| {
            got.name == expected.name
                && got.datatype == expected.datatype
                && got.shape == expected.shape
                && same(&expected.data, &got.data, tolerance)
        })
    })
}

fn same(expected: &[Value], got: &[Value], tolerance: f64) -> bool {
    let (expected, got) = (flat(expected), flat(got));
    expected.len() == got.len()
        && expected.iter().zip(&got).all(|(a, b)| match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => a == b || (a - b).abs() <= tolerance * a.abs().max(b.abs()),
            _ => a == b,
        })
}

/// Data may be nested as the shape is.
fn flat(values: &[Value]) -> Vec<&Value> {
    let mut flat = Vec::new();
    values.iter().for_each(|value| oip::flatten(value, &mut flat));
    flat
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn output(name: &str, data: Value) -> Output {
        serde_json::from_value(
            json!({"name": name, "datatype": "FP32", "shape": [2], "data": data}),
        )
        .unwrap()
    }

    #[test]
    fn numbers_agree_to_the_tolerance_and_everything_else_exactly() {
        let recorded = [output("y", json!([1.0, 2.0]))];
        let agrees = |data: Value, tolerance| agree(&recorded, &[output("y", data)], tolerance);
        assert!(agrees(json!([[1.0, 2.01]]), 0.01));
        assert!(!agrees(json!([1.0, 2.03]), 0.01));
        assert!(!agrees(json!([1.0]), 1.0));
        assert!(!agrees(json!([1.0, "2"]), 1.0));
        assert!(!agrees(json!([1.0, null]), 1.0));
        assert!(!agree(&recorded, &[output("z", json!([1.0, 2.0]))], 1.0));
        assert!(agree(&recorded, &[output("z", json!([9, 9])), output("y", json!([1, 2]))], 0.0));
    }
}
