//! The Open Inference Protocol v2 with Triton's extensions.

mod describe;
mod reply;
mod repository;
mod request;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use model::{ErrorCode, Tensor};
use serving::Protocol;

pub(super) use reply::add_timing;

use super::{body, json_response, off_the_reactor, segments};
use crate::caller::Caller;
use crate::error::Failure;
use crate::repository::only_repository;
use crate::server::Body;
use crate::{Api, trace};

// What gRPC says in the same words.
pub(crate) use describe::{EXTENSIONS, platform};
pub(crate) use reply::classify;

/// How many bytes of the body are JSON; binary data follows.
const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
/// After how many milliseconds the caller stops waiting.
const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout-ms");

/// The inputs of a request in JSON, by name.
pub(crate) fn read_inputs(json: &bytes::Bytes) -> Result<Vec<(String, Tensor)>, serving::Error> {
    request::decode(json, json.len()).map(|decoded| decoded.inputs)
}

/// What a path below `/v2` stands for.
#[derive(Debug, PartialEq, Eq)]
enum Route<'a> {
    Server,
    Live,
    Ready,
    AllStatistics,
    Model { name: &'a str, version: Option<&'a str>, part: Part },
    Index(&'a str),
    Load(&'a str, &'a str),
    Unload(&'a str, &'a str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Metadata,
    Ready,
    Infer,
    Config,
    Statistics,
    Drift,
}

impl<'a> Route<'a> {
    fn parse(path: &[&'a str]) -> Option<Self> {
        let part = |rest: &[&str]| {
            Some(match rest {
                [] => Part::Metadata,
                ["ready"] => Part::Ready,
                ["infer"] => Part::Infer,
                ["config"] => Part::Config,
                ["stats"] => Part::Statistics,
                ["drift"] => Part::Drift,
                _ => return None,
            })
        };
        Some(match path {
            [] => Self::Server,
            ["health", "live"] => Self::Live,
            ["health", "ready"] => Self::Ready,
            ["models", "stats"] => Self::AllStatistics,
            ["models", name, "versions", version, rest @ ..] => {
                Self::Model { name, version: Some(version), part: part(rest)? }
            }
            ["models", name, rest @ ..] => Self::Model { name, version: None, part: part(rest)? },
            ["repository", "index"] => Self::Index(""),
            ["repository", repository, "index"] => Self::Index(repository),
            ["repository", "models", name, "load"] => Self::Load("", name),
            ["repository", repository, "models", name, "load"] => Self::Load(repository, name),
            ["repository", "models", name, "unload"] => Self::Unload("", name),
            ["repository", repository, "models", name, "unload"] => Self::Unload(repository, name),
            _ => return None,
        })
    }

    /// The methods that it answers.
    fn allow(&self) -> &'static str {
        match self {
            Self::Model { part: Part::Infer, .. }
            | Self::Index(..)
            | Self::Load(..)
            | Self::Unload(..) => "POST",
            _ => "GET, HEAD",
        }
    }
}

/// Answers a request below `/v2`.
pub(super) async fn answer(
    api: &Arc<Api>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    let arrived = Instant::now();
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let decoded = segments(path)?;
    let names: Vec<&str> = decoded.iter().skip(1).map(Cow::as_ref).collect();
    let route = Route::parse(&names).ok_or_else(|| no_such_path(path, &names))?;
    let fits = match parts.method {
        Method::POST => route.allow() == "POST",
        Method::GET | Method::HEAD => route.allow() != "POST",
        _ => false,
    };
    if !fits {
        return Err(Failure::method(&parts.method, path, route.allow()));
    }
    match route {
        Route::Model { name, version, part: Part::Infer } => {
            let target = Target { name, version, headers: &parts.headers, arrived };
            let answered = infer(api, target, body).await;
            answered.map_err(|failure| failure.count(&api.serving, name, Protocol::Rest))
        }
        Route::Server => Ok(describe::server(api)),
        Route::Live => Ok(json_response(&serde_json::json!({ "live": true }))),
        Route::Ready => Ok(describe::ready(api.serving.ready(), None)),
        Route::AllStatistics => describe::statistics(api, None, None),
        Route::Model { name, version, part: Part::Metadata } => {
            describe::metadata(api, name, version).await
        }
        Route::Model { name, version, part: Part::Ready } => {
            match api.serving.check(name, version) {
                Ok(()) => Ok(describe::ready(true, Some(name))),
                Err(error) if error.code() == ErrorCode::NotFound => Err(error.into()),
                Err(_) => Ok(describe::ready(false, Some(name))),
            }
        }
        Route::Model { name, version, part: Part::Config } => {
            describe::config(api, name, version).await
        }
        Route::Model { name, version, part: Part::Statistics } => {
            describe::statistics(api, Some(name), version)
        }
        Route::Model { name, version, part: Part::Drift } => {
            describe::drift(api, name, version, parts.uri.query())
        }
        Route::Index(of) | Route::Load(of, _) | Route::Unload(of, _) => {
            only_repository(of)?;
            let body = body::read(&parts.headers, body, &api.options).await?;
            match route {
                Route::Load(_, name) => repository::load(api, name, &body).await,
                Route::Unload(_, name) => repository::unload(api, name, &body).await,
                _ => repository::index(api, &body),
            }
        }
    }
}

fn no_such_path(path: &str, names: &[&str]) -> Failure {
    let what = match names {
        ["systemsharedmemory" | "cudasharedmemory", ..] => "shared memory is not supported",
        [.., "generate" | "generate_stream"] => "generate is not supported; use infer",
        _ => "no such path in the Open Inference Protocol",
    };
    Failure::new(ErrorCode::NotFound, format!("{what}: {path}"))
}

/// What an inference request's head says.
struct Target<'a> {
    name: &'a str,
    version: Option<&'a str>,
    headers: &'a HeaderMap,
    arrived: Instant,
}

async fn infer(api: &Api, target: Target<'_>, body: Incoming) -> Result<Response<Body>, Failure> {
    let caller = Caller::read(target.headers)?;
    let version = caller.version(target.version)?;
    let body = body::read(target.headers, body, &api.options).await?;
    let size = body.len();
    let length = json_length(target.headers, size)?;
    let mut request = serving::Request {
        model: target.name.to_owned(),
        version,
        key: caller.key,
        protocol: Protocol::Rest,
        ..Default::default()
    };
    // What is only elements cannot be read without knowing whose they are.
    let chosen = match length {
        Some(0) => {
            request.deadline = deadline(target.headers, target.arrived, None)?;
            Some(api.serving.choose(request.target()).await?)
        }
        _ => None,
    };
    let decode = || match &chosen {
        Some(chosen) => request::decode_raw(body, &chosen.info().signature),
        None => request::decode(&body, length.unwrap_or(size)),
    };
    let decoded = off_the_reactor(size, decode)?;
    let request = serving::Request {
        id: decoded.id,
        inputs: decoded.inputs,
        outputs: decoded.outputs.iter().map(|wanted| wanted.name.clone()).collect(),
        priority: decoded.priority,
        deadline: deadline(target.headers, target.arrived, decoded.timeout)?,
        ..request
    };
    let reply = match chosen {
        Some(chosen) => trace::answer(&api.serving, chosen, request).await?,
        None => trace::infer(&api.serving, request).await?,
    };
    reply::encode(&reply, &decoded.outputs, decoded.binary_outputs).map_err(Failure::counted)
}

/// How many bytes of the body are JSON, if a header says so.
fn json_length(headers: &HeaderMap, body: usize) -> Result<Option<usize>, Failure> {
    let Some(header) = headers.get(HEADER_LENGTH) else {
        return Ok(None);
    };
    let length = header.to_str().ok().and_then(|text| text.trim().parse::<usize>().ok());
    match length {
        Some(length) if length <= body => Ok(Some(length)),
        _ => Err(Failure::invalid(format!(
            "Inference-Header-Content-Length: expected a number up to the body's length of \
             {body} bytes, got {header:?}"
        ))),
    }
}

/// When the answer is of no more use: the earlier of what the header and the request say.
pub(super) fn deadline(
    headers: &HeaderMap,
    arrived: Instant,
    timeout_us: Option<u64>,
) -> Result<Option<Instant>, Failure> {
    let header = match headers.get(REQUEST_TIMEOUT) {
        None => None,
        Some(value) => {
            let text = value.to_str().unwrap_or_default().trim();
            let timeout = text.parse::<u64>().map_err(|_| {
                Failure::invalid(format!(
                    "x-request-timeout-ms: expected a whole number of milliseconds, got {value:?}"
                ))
            })?;
            Some(Duration::from_millis(timeout))
        }
    };
    // Triton's clients send a timeout of 0 for none.
    let parameter = timeout_us.filter(|timeout| *timeout > 0).map(Duration::from_micros);
    let timeout = match (header, parameter) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    // A timeout beyond what the clock can count is none.
    Ok(timeout.and_then(|timeout| arrived.checked_add(timeout)))
}

/// A status with no body but the content type that clients expect.
fn with_status(mut response: Response<Body>, status: StatusCode) -> Response<Body> {
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
pub(super) mod fuzz {
    use bytes::Bytes;
    use model::{Signature, Tensor};

    type Inputs = Result<Vec<(String, Tensor)>, serving::Error>;

    pub(crate) fn infer(body: &Bytes, json_length: usize) -> Inputs {
        super::request::decode(body, json_length).map(|decoded| decoded.inputs)
    }

    pub(crate) fn raw(body: Bytes, signature: &Signature) -> Inputs {
        super::request::decode_raw(body, signature).map(|decoded| decoded.inputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_mean_what_triton_says() {
        let model = |name, version, part| Some(Route::Model { name, version, part });
        for (path, route) in [
            ("", Some(Route::Server)),
            ("health/live", Some(Route::Live)),
            ("models/m", model("m", None, Part::Metadata)),
            ("models/m/infer", model("m", None, Part::Infer)),
            ("models/m/versions/v10/infer", model("m", Some("v10"), Part::Infer)),
            ("models/m/versions/1", model("m", Some("1"), Part::Metadata)),
            ("models/stats", Some(Route::AllStatistics)),
            ("models/m/drift", model("m", None, Part::Drift)),
            ("models/m/versions/2/stats", model("m", Some("2"), Part::Statistics)),
            ("repository/index", Some(Route::Index(""))),
            ("repository/r/index", Some(Route::Index("r"))),
            ("repository/models/m/load", Some(Route::Load("", "m"))),
            ("repository/r/models/m/unload", Some(Route::Unload("r", "m"))),
            ("models", None),
            ("models/m/nothing", None),
            ("health", None),
        ] {
            let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
            assert_eq!(Route::parse(&parts), route, "{path}");
        }
    }

    #[test]
    fn the_earlier_deadline_counts() {
        let now = Instant::now();
        let mut headers = HeaderMap::new();
        assert_eq!(deadline(&headers, now, None).unwrap(), None);
        assert_eq!(deadline(&headers, now, Some(0)).unwrap(), None);
        assert_eq!(
            deadline(&headers, now, Some(u64::MAX)).unwrap().is_some(),
            now.checked_add(Duration::from_micros(u64::MAX)).is_some()
        );
        headers.insert(REQUEST_TIMEOUT, HeaderValue::from_static("20"));
        let at = |ms| now.checked_add(Duration::from_millis(ms));
        assert_eq!(deadline(&headers, now, None).unwrap(), at(20));
        assert_eq!(deadline(&headers, now, Some(5_000)).unwrap(), at(5));
        assert_eq!(deadline(&headers, now, Some(50_000)).unwrap(), at(20));
        headers.insert(REQUEST_TIMEOUT, HeaderValue::from_static("soon"));
        assert!(deadline(&headers, now, None).is_err());
    }
}
