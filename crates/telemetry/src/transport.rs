//! How messages get to a collector: protobuf over HTTP, or gRPC.

use std::time::Duration;

use prost::Message;
use tonic::client::Grpc;
use tonic::codec::CompressionEncoding;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::messages::Exported;
use crate::{Protocol, Target};

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Metrics.
    Metrics,
    /// Lines of logs.
    Logs,
}

impl Signal {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Traces, Self::Metrics, Self::Logs];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }

    /// Its path over HTTP, behind an endpoint for all signals.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Traces => "v1/traces",
            Self::Metrics => "v1/metrics",
            Self::Logs => "v1/logs",
        }
    }

    const fn method(self) -> &'static str {
        match self {
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Self::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        }
    }
}

/// Why something was not taken.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) why: String,
    /// Whether it may be taken later, and when the collector asks for it if it says so.
    pub(crate) again: Option<Option<Duration>>,
}

impl Refusal {
    fn later(why: String, wait: Option<Duration>) -> Self {
        Self { why, again: Some(wait) }
    }
}

/// A way to one collector.
pub(crate) struct Transport {
    target: Target,
    way: Way,
}

enum Way {
    Http(reqwest::Client),
    Grpc(Box<Channel>),
}

impl Transport {
    /// Prepares the way; nothing is connected yet. Must be called inside a tokio runtime.
    pub(crate) fn new(target: Target) -> Result<Self, String> {
        let way = match target.protocol {
            Protocol::HttpProtobuf => {
                // Whoever is first to set it has set the same one.
                let _ = rustls::crypto::ring::default_provider().install_default();
                let client = reqwest::Client::builder().timeout(target.timeout).build();
                Way::Http(client.map_err(|error| error.to_string())?)
            }
            Protocol::Grpc => {
                let endpoint = Endpoint::from_shared(target.endpoint.clone());
                let endpoint = endpoint.map_err(|error| error.to_string())?;
                let endpoint = endpoint.timeout(target.timeout).connect_timeout(target.timeout);
                Way::Grpc(Box::new(endpoint.connect_lazy()))
            }
        };
        Ok(Self { target, way })
    }

    /// Sends one message: how many of its items were not taken, and why.
    pub(crate) async fn send<M: Message + Clone + Default + 'static>(
        &self,
        signal: Signal,
        message: &M,
    ) -> Result<Exported, Refusal> {
        match &self.way {
            Way::Http(client) => self.post(client, message).await,
            Way::Grpc(channel) => self.call(channel, signal, message).await,
        }
    }

    async fn post<M: Message>(
        &self,
        client: &reqwest::Client,
        message: &M,
    ) -> Result<Exported, Refusal> {
        let mut request = client
            .post(&self.target.endpoint)
            .header("content-type", "application/x-protobuf")
            .header("user-agent", crate::USER_AGENT);
        for (name, value) in &self.target.headers {
            request = request.header(name, value);
        }
        let mut body = message.encode_to_vec();
        if self.target.compress {
            body = pack(&body);
            request = request.header("content-encoding", "gzip");
        }
        let answer = request.body(body).send().await;
        let answer = answer.map_err(|error| Refusal::later(chain(&error), None))?;
        let status = answer.status();
        if status.is_success() {
            let body = answer.bytes().await.unwrap_or_default();
            // Whatever else a collector says, it has taken it.
            return Ok(Exported::decode(&body[..]).unwrap_or_default());
        }
        let wait = answer.headers().get("retry-after");
        let wait = wait.and_then(|wait| wait.to_str().ok()?.parse().ok()).map(Duration::from_secs);
        let why = format!("the collector answers {status}");
        Err(match status.as_u16() {
            429 | 502..=504 => Refusal::later(why, wait),
            _ => Refusal { why, again: None },
        })
    }

    async fn call<M: Message + Clone + Default + 'static>(
        &self,
        channel: &Channel,
        signal: Signal,
        message: &M,
    ) -> Result<Exported, Refusal> {
        let mut client = Grpc::new(channel.clone());
        if self.target.compress {
            client = client.send_compressed(CompressionEncoding::Gzip);
        }
        client.ready().await.map_err(|error| Refusal::later(chain(&error), None))?;
        let mut request = tonic::Request::new(message.clone());
        for (name, value) in &self.target.headers {
            let name = AsciiMetadataKey::from_bytes(name.to_ascii_lowercase().as_bytes());
            if let (Ok(name), Ok(value)) = (name, AsciiMetadataValue::try_from(value.as_str())) {
                request.metadata_mut().insert(name, value);
            }
        }
        let path = PathAndQuery::from_static(signal.method());
        let codec = ProstCodec::<M, Exported>::default();
        match client.unary(request, path, codec).await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => {
                use tonic::Code::{
                    Aborted, Cancelled, DataLoss, DeadlineExceeded, OutOfRange, ResourceExhausted,
                    Unavailable, Unknown,
                };
                let why = format!("the collector answers {}: {}", status.code(), status.message());
                Err(match status.code() {
                    // tonic says Unknown of a connection that breaks.
                    Cancelled | DeadlineExceeded | Aborted | OutOfRange | Unavailable
                    | DataLoss | ResourceExhausted | Unknown => Refusal::later(why, None),
                    _ => Refusal { why, again: None },
                })
            }
        }
    }
}

fn pack(body: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    // Writing to a vector cannot fail.
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default()
}

/// An error and what it comes from.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}
