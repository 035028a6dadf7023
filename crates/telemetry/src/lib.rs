//! What leaves the process for an OpenTelemetry collector: spans, metrics and lines of logs, as OTLP
//! over HTTP or gRPC.
//!
//! Knows neither requests nor models: it is given what is to be sent, in OTLP's own messages, and
//! drops and counts what there is no room for. A collector that is away, slow or unwilling costs
//! nothing but what it does not get.
//!
//! ```
//! use telemetry::Context;
//! let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
//! assert!(Context::parse(parent, None).is_some_and(|context| context.sampled));
//! ```

pub mod messages;

mod context;
mod exporter;
mod transport;

use std::time::Duration;

pub use context::{Context, Sampler, span_id, text, trace_id};
pub use exporter::{Exporter, Measure, Outbox};
pub use transport::Signal;

use messages::Resource;

/// The name of the thread that sends. What it logs itself must not be sent, or it would never end.
pub const THREAD: &str = "telemetry";

const USER_AGENT: &str = concat!("modelyard/", env!("CARGO_PKG_VERSION"));

/// How a collector is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Protobuf over HTTP.
    HttpProtobuf,
    /// gRPC, without TLS.
    Grpc,
}

/// Where one signal goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The whole URL over HTTP; scheme, host and port over gRPC.
    pub endpoint: String,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// What is sent beside, such as keys. Never shown.
    pub headers: Vec<(String, String)>,
    /// How long one try may take.
    pub timeout: Duration,
    /// Whether what is sent is packed by gzip.
    pub compress: bool,
}

/// What is sent, and where.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who it is about.
    pub resource: Resource,
    /// Where spans go, if they are sent.
    pub traces: Option<Target>,
    /// Where metrics go, if they are sent.
    pub metrics: Option<Target>,
    /// Where lines of logs go, if they are sent.
    pub logs: Option<Target>,
    /// The most spans that wait, and the most lines.
    pub queue: usize,
    /// The most of them that are sent together.
    pub batch: usize,
    /// How long the first of a batch waits for others.
    pub delay: Duration,
    /// How often metrics are sent.
    pub interval: Duration,
    /// Told of what no collector took: the signal, how many items, and why.
    pub complain: fn(Signal, u64, &str),
}
