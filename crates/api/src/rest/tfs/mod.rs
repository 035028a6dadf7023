//! TensorFlow Serving's REST protocol.

mod number;
mod reply;
mod request;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response};
use model::{DataType, TensorSpec};
use serde_json::{Value, json};
use serving::{Protocol, Reply, State, Status};

use super::{body, json_response, off_the_reactor, segments, v2};
use crate::caller::Caller;
use crate::error::Failure;
use crate::server::Body;
use crate::tensorflow::{self, Choice, describe, find, states};
use crate::{Api, examples, trace};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Predict,
    Classify,
    Regress,
}

/// What a path below `/v1/models` stands for.
#[derive(Debug, PartialEq, Eq)]
struct Route<'a> {
    name: Option<&'a str>,
    version: Option<&'a str>,
    label: Option<&'a str>,
    part: Part,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Status,
    Metadata,
    Verb(Verb),
}

impl<'a> Route<'a> {
    /// Every word of the protocol may be in capitals, as in the original.
    fn parse(path: &'a [Cow<'_, str>]) -> Option<Self> {
        let is = |segment: &str, word: &str| segment.eq_ignore_ascii_case(word);
        let [v1, models, rest @ ..] = path else { return None };
        if !is(v1, "v1") || !is(models, "models") {
            return None;
        }
        let mut part = Part::Status;
        let mut rest: Vec<&str> = rest.iter().map(Cow::as_ref).collect();
        if let Some((before, verb)) = rest.last().and_then(|last| last.rsplit_once(':')) {
            part = Part::Verb(match verb {
                verb if is(verb, "predict") => Verb::Predict,
                verb if is(verb, "classify") => Verb::Classify,
                verb if is(verb, "regress") => Verb::Regress,
                _ => return None,
            });
            *rest.last_mut()? = before;
        } else if rest.len() > 1 && rest.last().is_some_and(|last| is(last, "metadata")) {
            part = Part::Metadata;
            rest.pop();
        }
        let route = |name, version, label| Self { name, version, label, part };
        Some(match rest[..] {
            [] => route(None, None, None),
            [name] if !name.is_empty() => route(Some(name), None, None),
            [name, kind, version] if is(kind, "versions") => route(Some(name), Some(version), None),
            [name, kind, label] if is(kind, "labels") => route(Some(name), None, Some(label)),
            _ => return None,
        })
    }
}

/// Answers a request below `/v1`.
pub(super) async fn answer(
    api: &Arc<Api>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    let arrived = Instant::now();
    let (parts, body) = request.into_parts();
    let malformed = || {
        let path = parts.uri.path();
        Failure::invalid(format!("Malformed request: {} {path}", parts.method))
    };
    let path = segments(parts.uri.path())?;
    let route = Route::parse(&path).ok_or_else(malformed)?;
    let choice = match (route.version, route.label) {
        (Some(version), _) => Choice::Version(version.to_owned()),
        (_, Some(label)) => Choice::Label(label.to_owned()),
        _ => Choice::Latest,
    };
    let is_get = matches!(parts.method, Method::GET | Method::HEAD);
    match (route.part, route.name) {
        (Part::Verb(verb), Some(name)) if parts.method == Method::POST => {
            let target = Target { name, choice, headers: &parts.headers, arrived };
            let answered = run(api, verb, target, body).await;
            answered.map_err(|failure| failure.count(&api.serving, name, Protocol::TfsRest))
        }
        (Part::Status, None) if is_get => Ok(models(api)),
        (Part::Status, Some(name)) if is_get => status(api, name, &choice),
        (Part::Metadata, Some(name)) if is_get => metadata(api, name, &choice).await,
        _ => Err(malformed()),
    }
}

/// What a request's head says.
struct Target<'a> {
    name: &'a str,
    choice: Choice,
    headers: &'a HeaderMap,
    arrived: Instant,
}

async fn run(
    api: &Api,
    verb: Verb,
    target: Target<'_>,
    body: Incoming,
) -> Result<Response<Body>, Failure> {
    let caller = Caller::read(target.headers)?;
    let choice = target.choice.or_of(&caller)?;
    let body = body::read(target.headers, body, &api.options).await?;
    let of = serving::Target {
        model: target.name,
        version: choice.version(),
        key: caller.key.as_deref(),
        deadline: v2::deadline(target.headers, target.arrived, None)?,
        protocol: Protocol::TfsRest,
    };
    let chosen = find(&api.serving, of, &choice).await?;
    let info = chosen.info();
    let decoded = off_the_reactor(body.len(), || -> Result<_, serving::Error> {
        if verb == Verb::Predict {
            let (format, inputs) = request::read_predict(&body, &info.signature)?;
            return Ok((format, inputs, 0));
        }
        let limit = api.options.max_body_bytes;
        let read = request::read_examples(&body, &info.signature, limit)?;
        let (examples, context) = (&read.examples, read.context.as_ref());
        let inputs = examples::inputs(&info.signature, examples, context, limit)?;
        Ok((request::Format::Rows, inputs, examples.len()))
    });
    let (format, inputs, rows) = decoded?;
    let request = serving::Request { inputs, ..tensorflow::request(of) };
    let reply = trace::answer(&api.serving, chosen, request).await?;
    let body = encode(verb, &reply, format, rows).map_err(Failure::counted)?;
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    v2::add_timing(headers, &reply);
    Ok(response)
}

fn encode(
    verb: Verb,
    reply: &Reply,
    format: request::Format,
    rows: usize,
) -> Result<Vec<u8>, Failure> {
    Ok(match verb {
        Verb::Predict => reply::write_predict(reply, format).map_err(Failure::invalid)?,
        Verb::Classify => reply::write_classes(&examples::classifications(reply, rows)?),
        Verb::Regress => reply::write_values(&examples::regressions(reply, rows)?),
    })
}

fn models(api: &Api) -> Response<Body> {
    let known = api.serving.status();
    let models: Vec<Value> = known.iter().map(|s| json!({ "name": s.name })).collect();
    json_response(&json!({ "models": models }))
}

fn status(api: &Api, name: &str, choice: &Choice) -> Result<Response<Body>, Failure> {
    let states = states(&api.serving, name, choice)?;
    let versions: Vec<Value> = states.iter().map(version_status).collect();
    Ok(json_response(&json!({ "model_version_status": versions })))
}

fn version_status(status: &Status) -> Value {
    let (state, error) = match &status.state {
        State::Loading => ("LOADING", None),
        State::Ready | State::OnDemand => ("AVAILABLE", None),
        State::Unloading => ("UNLOADING", None),
        State::Unavailable(reason) => ("END", reason.clone()),
    };
    let code = if error.is_some() { "UNKNOWN" } else { "OK" };
    json!({
        "version": status.version,
        "state": state,
        "status": { "error_code": code, "error_message": error.unwrap_or_default() },
    })
}

async fn metadata(api: &Api, name: &str, choice: &Choice) -> Result<Response<Body>, Failure> {
    let info = describe(&api.serving, name, choice).await?;
    let tensors = |specs: &[TensorSpec]| -> Value {
        specs.iter().map(|spec| (spec.name.to_string(), tensor_info(spec))).collect()
    };
    Ok(json_response(&json!({
        "model_spec": { "name": info.name, "signature_name": "", "version": info.version },
        "metadata": { "signature_def": { "signature_def": { "serving_default": {
            "inputs": tensors(&info.signature.inputs),
            "outputs": tensors(&info.signature.outputs),
            "method_name": "tensorflow/serving/predict",
        } } } },
    })))
}

fn tensor_info(spec: &TensorSpec) -> Value {
    let dim = |extent: &i64| json!({ "size": extent.to_string(), "name": "" });
    let dims: Vec<Value> = match spec.shape {
        Some(_) => spec.extents().iter().map(dim).collect(),
        None => Vec::new(),
    };
    json!({
        "dtype": tensorflow_type(spec.datatype),
        "tensor_shape": { "dim": dims, "unknown_rank": spec.shape.is_none() },
        "name": format!("{}:0", spec.name),
    })
}

fn tensorflow_type(datatype: DataType) -> &'static str {
    match datatype {
        DataType::Bool => "DT_BOOL",
        DataType::Uint8 => "DT_UINT8",
        DataType::Uint16 => "DT_UINT16",
        DataType::Uint32 => "DT_UINT32",
        DataType::Uint64 => "DT_UINT64",
        DataType::Int8 => "DT_INT8",
        DataType::Int16 => "DT_INT16",
        DataType::Int32 => "DT_INT32",
        DataType::Int64 => "DT_INT64",
        DataType::Fp16 => "DT_HALF",
        DataType::Bf16 => "DT_BFLOAT16",
        DataType::Fp32 => "DT_FLOAT",
        DataType::Fp64 => "DT_DOUBLE",
        DataType::Bytes => "DT_STRING",
    }
}

#[cfg(test)]
pub(super) mod fuzz {
    use bytes::Bytes;
    use model::{Signature, Tensor};

    type Inputs = Result<Vec<(String, Tensor)>, serving::Error>;

    pub(crate) fn predict(body: &Bytes, signature: &Signature) -> Inputs {
        super::request::read_predict(body, signature).map(|(_, inputs)| inputs)
    }

    pub(crate) fn examples(body: &Bytes, signature: &Signature, limit: usize) -> Inputs {
        let read = super::request::read_examples(body, signature, limit)?;
        crate::examples::inputs(signature, &read.examples, read.context.as_ref(), limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_mean_what_tensorflow_serving_says() {
        let parse = |path: &str| {
            let path = path.to_owned().leak();
            let segments = segments(path).unwrap().leak();
            Route::parse(segments)
        };
        let route = |name, version, label, part| Some(Route { name, version, label, part });
        let predict = Part::Verb(Verb::Predict);
        assert_eq!(parse("/v1/models/m:predict"), route(Some("m"), None, None, predict));
        assert_eq!(parse("/V1/MODELS/m:PREDICT"), route(Some("m"), None, None, predict));
        assert_eq!(
            parse("/v1/models/m/versions/3:predict"),
            route(Some("m"), Some("3"), None, predict)
        );
        assert_eq!(
            parse("/v1/models/m/labels/canary:classify"),
            route(Some("m"), None, Some("canary"), Part::Verb(Verb::Classify))
        );
        assert_eq!(parse("/v1/models/m/metadata"), route(Some("m"), None, None, Part::Metadata));
        assert_eq!(parse("/v1/models/metadata"), route(Some("metadata"), None, None, Part::Status));
        assert_eq!(parse("/v1/models"), route(None, None, None, Part::Status));
        for path in ["/v1", "/v1/models/m:explain", "/v1/models/:predict", "/v1/models/m/x/y/z"] {
            assert_eq!(parse(path), None, "{path}");
        }
    }
}
