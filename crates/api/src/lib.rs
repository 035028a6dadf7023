//! The only room that knows the wire: REST and gRPC, error bodies, OpenAPI, the pages.
//!
//! [`serve`] answers every protocol on one listener; the caller owns the port and says when to
//! stop. A handler decodes, calls [`serving`] or [`registry`] and encodes; nothing here knows how a
//! model is run, found or stored.

mod access;
mod binary;
mod caller;
mod error;
mod examples;
mod fuzz;
mod grpc;
pub mod metrics;
mod openapi;
mod pages;
mod refusals;
mod repository;
mod rest;
mod server;
mod tensorflow;
mod trace;
mod uploads;

pub mod proto;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use model::{ErrorCode, Tensor};
use serving::Serving;

pub use access::{Access, Contents, Entry, Examine, LayOut, Recorded, Refused, Replay, Uploaded};
pub use error::{TABLE, grpc_code, http_status};
pub use server::serve;
pub use trace::Tracer;
pub use uploads::Uploads;

/// What every protocol answers from. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    /// The models.
    pub serving: Serving,
    /// What the repository endpoints change.
    pub control: Arc<dyn Control>,
    /// The registry that is followed, if one is.
    pub registry: Option<Access>,
    /// Which versions the registry's aliases name, if one is followed.
    pub aliases: Option<metrics::Aliases>,
    /// The alerts, if any are raised.
    pub alerts: Option<Alerts>,
    /// What records requests for traces, if any are.
    pub tracer: Option<Tracer>,
    /// What is known of the drift of models, if it is watched.
    pub drift: Option<Drift>,
    /// Where feedback is kept besides, if anywhere.
    pub feedback: Option<KeepFeedback>,
    /// Names and limits.
    pub options: ApiOptions,
}

/// The alerts of a server, and what callers may do with them.
#[derive(Clone)]
pub struct Alerts {
    /// Where they are kept.
    pub desk: monitor::alerts::Desk,
    /// Whether callers may keep them quiet.
    pub open_to_callers: bool,
}

/// What is known of the drift of a model, or of one of its versions, since a time in seconds since
/// 1970: one JSON value for each version that is watched.
pub type Drift = Arc<dyn Fn(&str, Option<&str>, i64) -> Vec<serde_json::Value> + Send + Sync>;

/// Keeps what was said about the answers of a model, by its name; `false` if too much waits to be
/// kept.
pub type KeepFeedback = Arc<dyn Fn(&str, &[::registry::Feedback]) -> bool + Send + Sync>;

/// Names and limits of a server. Every limit bounds what one client can hold.
#[derive(Clone, Debug)]
pub struct ApiOptions {
    /// What the server calls itself in its metadata; stock Triton clients look for `triton`.
    pub server_name: String,
    /// The version in the server's metadata.
    pub server_version: String,
    /// The largest body, before and after decompression, in bytes.
    pub max_body_bytes: usize,
    /// The largest request line and headers together, in bytes.
    pub max_header_bytes: usize,
    /// The most connections at once; further ones are answered 503 and closed.
    pub max_connections: usize,
    /// How long a client may take to send a request's headers. It is also how long a connection
    /// may be idle between two requests.
    pub header_timeout: Duration,
    /// How long a client may take to send a request's body, or a message over gRPC. Streams of
    /// messages may pause.
    pub body_timeout: Duration,
    /// What is answered at all.
    pub doors: Doors,
    /// How long running requests may take to finish once the server is told to stop.
    pub drain_timeout: Duration,
}

/// What a listener answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doors {
    /// Everything.
    All,
    /// Everything but the metrics, which have a listener of their own.
    AllButMetrics,
    /// The metrics and nothing else.
    Metrics,
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self {
            server_name: "modelyard".into(),
            server_version: env!("CARGO_PKG_VERSION").into(),
            max_body_bytes: 64 << 20,
            max_header_bytes: 64 << 10,
            max_connections: 8192,
            header_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(60),
            doors: Doors::All,
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// The inputs of a request by name, from the body of one to the Open Inference Protocol in JSON
/// alone. Whether a model takes them is not looked at.
pub fn read_inputs(json: &bytes::Bytes) -> Result<Vec<(String, Tensor)>, serving::Error> {
    rest::v2::read_inputs(json)
}

/// What the repository endpoints change: the set of wanted models. The wiring provides it.
pub trait Control: Send + Sync + 'static {
    /// Loads or reloads a model from the repository and waits until it is ready or has failed.
    fn load<'a>(
        &'a self,
        name: &'a str,
        overrides: Load,
    ) -> Pin<Box<dyn Future<Output = Result<(), (ErrorCode, String)>> + Send + 'a>>;

    /// Unloads all versions of a model and waits until its last request is answered.
    fn unload<'a>(
        &'a self,
        name: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<(), (ErrorCode, String)>> + Send + 'a>>;

    /// Models in the repository that are not loaded: name and version.
    fn available(&self) -> Vec<(String, String)>;
}

/// What a load request may say beside the model's name.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// A model configuration in Triton's JSON, in place of what is found beside the model.
    pub config: Option<String>,
    /// Files to load instead of those in the repository: `version/name` and contents.
    pub files: Vec<(String, bytes::Bytes)>,
}
