//! A span for each request that is recorded, with its caller's trace, and one each for its waiting
//! and its run.
//!
//! What a request took is known when it is answered, so its spans are made then, all at once. Until
//! then a recorded request carries notes with it; all others carry nothing.

use std::cell::RefCell;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hyper::header::HeaderMap;
use hyper::{Request, Response};
use serving::{Chosen, Error, ModelInfo, Reply, Serving};
use telemetry::messages::{KeyValue, Span, Status};
use telemetry::{Context, Outbox, Sampler};
use tracing::Instrument;

/// What records requests.
#[derive(Clone, Debug)]
pub struct Tracer {
    /// Which requests are recorded.
    pub sampler: Sampler,
    /// Where their spans are left.
    pub outbox: Outbox,
}

const SERVER: i32 = 2;
const INTERNAL: i32 = 1;

/// The most characters of a caller's text in a span.
const LONGEST: usize = 200;

tokio::task_local! {
    /// What is known of the request that this task answers, if it is recorded.
    static NOTES: RefCell<Option<Note>>;
}

/// How a version answered.
struct Note {
    info: Arc<ModelInfo>,
    queue: Duration,
    compute: Duration,
    rows: usize,
    answered: SystemTime,
}

/// [`Serving::infer`], noted.
pub(crate) async fn infer(serving: &Serving, request: serving::Request) -> Result<Reply, Error> {
    let outcome = serving.infer(request).await;
    outcome.inspect(note)
}

/// [`Serving::answer`], noted.
pub(crate) async fn answer(
    serving: &Serving,
    chosen: Chosen,
    request: serving::Request,
) -> Result<Reply, Error> {
    let outcome = serving.answer(chosen, request).await;
    outcome.inspect(note)
}

fn note(reply: &Reply) {
    // An error means that this request is not recorded.
    let _ = NOTES.try_with(|notes| {
        *notes.borrow_mut() = Some(Note {
            info: reply.info.clone(),
            queue: reply.queue,
            compute: reply.compute,
            rows: reply.batch_size,
            answered: SystemTime::now(),
        });
    });
}

/// A request that is being recorded.
pub(crate) struct Recording {
    outbox: Outbox,
    trace_id: [u8; 16],
    span_id: [u8; 8],
    parent: Option<Context>,
    name: String,
    attributes: Vec<KeyValue>,
    is_grpc: bool,
    began: SystemTime,
    since: Instant,
}

impl Tracer {
    /// Begins to record a request, if it is one of those.
    pub(crate) fn begin<B>(&self, request: &Request<B>, is_grpc: bool) -> Option<Recording> {
        let path = request.uri().path();
        if !self.outbox.takes_spans() || path == crate::metrics::PATH || is_probe(path) {
            return None;
        }
        let parent = parent(request.headers());
        let trace_id = parent.as_ref().map_or_else(telemetry::trace_id, |parent| parent.trace_id);
        if !self.sampler.records(parent.as_ref(), &trace_id) {
            return None;
        }
        let method = request.method().as_str();
        let (name, attributes) = match is_grpc {
            true => rpc(path),
            false => {
                let name = template(path).map(|path| format!("{method} {path}"));
                let attributes = vec![
                    KeyValue::new("http.request.method", method),
                    KeyValue::new("url.path", short(path)),
                ];
                (name.unwrap_or_else(|| method.to_owned()), attributes)
            }
        };
        Some(Recording {
            outbox: self.outbox.clone(),
            trace_id,
            span_id: telemetry::span_id(),
            parent,
            name,
            attributes,
            is_grpc,
            began: SystemTime::now(),
            since: Instant::now(),
        })
    }
}

impl Recording {
    /// Records what a future does, and what it says.
    pub(crate) async fn follow<B>(
        self,
        answering: impl Future<Output = Response<B>>,
    ) -> Response<B> {
        // An error's level, so that no filter takes the ids away from what is logged meanwhile.
        let (trace_id, span_id) = (telemetry::text(&self.trace_id), telemetry::text(&self.span_id));
        let span = tracing::error_span!("request", trace_id = %trace_id, span_id = %span_id);
        let name = self.name.as_str();
        let noted = async {
            let response = answering.await;
            let status = response.status().as_u16();
            tracing::debug!(target: "request", name, status, "answered");
            (response, NOTES.with(RefCell::take))
        };
        let scope = NOTES.scope(RefCell::new(None), noted);
        let (response, note) = scope.instrument(span).await;
        self.end(&response, note);
        response
    }

    fn end<B>(mut self, response: &Response<B>, note: Option<Note>) {
        let status = i64::from(response.status().as_u16());
        let is_failure = match self.is_grpc {
            true => {
                let code = response.headers().get("grpc-status");
                let code = code.and_then(|code| code.to_str().ok()?.parse().ok()).unwrap_or(0);
                self.attributes.push(KeyValue::new("rpc.grpc.status_code", code));
                // What OpenTelemetry's conventions call the server's own.
                matches!(code, 2 | 4 | 12 | 13 | 14 | 15)
            }
            false => {
                self.attributes.push(KeyValue::new("http.response.status_code", status));
                status >= 500
            }
        };
        if let Some(note) = &note {
            self.attributes.extend([
                KeyValue::new("modelyard.model", short(&note.info.name)),
                KeyValue::new("modelyard.version", short(&note.info.version)),
                KeyValue::new("modelyard.engine", note.info.engine),
            ]);
        }
        let began = nanoseconds(self.began);
        let ended = began + self.since.elapsed().as_nanos() as u64;
        let name = std::mem::take(&mut self.name);
        let span = Span {
            parent_span_id: self.parent.as_ref().map(|p| p.span_id.to_vec()).unwrap_or_default(),
            span_id: self.span_id.to_vec(),
            kind: SERVER,
            attributes: std::mem::take(&mut self.attributes),
            status: is_failure.then(|| Status { code: 2, ..Status::default() }),
            ..self.span(name, began, ended)
        };
        self.outbox.span(span);
        if let Some(note) = note {
            self.end_run(&note, began);
        }
    }

    /// The spans of waiting and running, as far as they are known.
    fn end_run(&self, note: &Note, began: u64) {
        let answered = nanoseconds(note.answered);
        let started = answered.saturating_sub(note.compute.as_nanos() as u64).max(began);
        let queued = started.saturating_sub(note.queue.as_nanos() as u64).max(began);
        let child = |name: &str, from, to, attributes| Span {
            parent_span_id: self.span_id.to_vec(),
            span_id: telemetry::span_id().to_vec(),
            kind: INTERNAL,
            attributes,
            ..self.span(name.to_owned(), from, to)
        };
        self.outbox.span(child("queue", queued, started, Vec::new()));
        let attributes = vec![
            KeyValue::new("modelyard.engine", note.info.engine),
            KeyValue::new("modelyard.batch_rows", note.rows as i64),
        ];
        self.outbox.span(child("compute", started, answered, attributes));
    }

    fn span(&self, name: String, from: u64, to: u64) -> Span {
        Span {
            trace_id: self.trace_id.to_vec(),
            trace_state: self.parent.as_ref().map(|p| p.state.clone()).unwrap_or_default(),
            name,
            start_time_unix_nano: from,
            end_time_unix_nano: to.max(from),
            // Sampled.
            flags: 1,
            ..Span::default()
        }
    }
}

fn parent(headers: &HeaderMap) -> Option<Context> {
    let text = |name| headers.get(name)?.to_str().ok();
    Context::parse(text("traceparent")?, text("tracestate"))
}

/// What asks whether the server is there, all day long.
fn is_probe(path: &str) -> bool {
    path.starts_with("/v2/health/")
        || path.starts_with("/grpc.health.")
        || path.ends_with("/ServerLive")
        || path.ends_with("/ServerReady")
}

fn rpc(path: &str) -> (String, Vec<KeyValue>) {
    let name = short(path.trim_start_matches('/'));
    let (service, method) = name.rsplit_once('/').unwrap_or((&name, ""));
    let attributes = vec![
        KeyValue::new("rpc.system", "grpc"),
        KeyValue::new("rpc.service", service),
        KeyValue::new("rpc.method", method),
    ];
    (name, attributes)
}

/// A path of the inference protocols with names in the place of what callers choose.
fn template(path: &str) -> Option<String> {
    if !crate::rest::understands(path) {
        return None;
    }
    let mut named = String::with_capacity(path.len());
    let mut before = "";
    for segment in path.split('/').skip(1).take(8) {
        named.push('/');
        match before {
            "models" if segment != "stats" => {
                named.push_str("{model}");
                push_verb(&mut named, segment);
            }
            "versions" | "labels" => {
                named.push_str("{version}");
                push_verb(&mut named, segment);
            }
            _ if is_word(segment) => named.push_str(segment),
            _ => named.push_str("{other}"),
        }
        before = segment;
    }
    Some(named)
}

/// TensorFlow Serving's verbs are behind a colon.
fn push_verb(named: &mut String, segment: &str) {
    if let Some((_, verb)) = segment.rsplit_once(':').filter(|(_, verb)| is_word(verb)) {
        named.push(':');
        named.push_str(verb);
    }
}

fn is_word(text: &str) -> bool {
    text.len() <= 16 && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

fn short(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

fn nanoseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_named_by_what_is_asked_and_not_of_which_model() {
        for (path, expected) in [
            ("/v2/models/fraud/infer", "/v2/models/{model}/infer"),
            ("/v2/models/a/versions/7/infer", "/v2/models/{model}/versions/{version}/infer"),
            ("/v1/models/a:predict", "/v1/models/{model}:predict"),
            ("/v1/models/a/labels/b:classify", "/v1/models/{model}/labels/{version}:classify"),
            ("/v2/models/stats", "/v2/models/stats"),
            ("/v2/<script>", "/v2/{other}"),
        ] {
            assert_eq!(template(path).as_deref(), Some(expected));
        }
        assert_eq!(template("/whatever"), None);
    }

    #[test]
    fn probes_are_not_recorded() {
        assert!(is_probe("/v2/health/ready"));
        assert!(is_probe("/grpc.health.v1.Health/Check"));
        assert!(is_probe("/inference.GRPCInferenceService/ServerLive"));
        assert!(!is_probe("/v2/models/health/infer"));
    }
}
