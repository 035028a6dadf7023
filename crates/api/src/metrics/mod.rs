//! `/metrics`: how the server is doing, in the formats that Prometheus reads.

mod collect;
mod otlp;
mod process;
mod protobuf;
pub mod table;
mod text;

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, VARY};
use hyper::{Method, Request, Response};
use model::ErrorCode;

use crate::error::Failure;
use crate::server::Body;
use crate::{Api, rest};

pub use collect::{Alias, Facts, Family, Series, Value};
pub use otlp::Histograms;
pub use text::bound;

/// Where the metrics are.
pub(crate) const PATH: &str = "/metrics";

/// Which version each alias of a registry names, at this moment.
pub type Aliases = Arc<dyn Fn() -> Vec<Alias> + Send + Sync>;

/// The formats, and the words by which scrapers ask for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Protobuf,
    OpenMetrics,
    Text,
}

impl Format {
    fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => {
                "application/vnd.google.protobuf; \
                 proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// The one that an Accept header gives the most weight; of equals the first. Whoever asks for
    /// nothing in particular gets text.
    fn accepted(headers: &HeaderMap) -> Self {
        let mut best = (Self::Text, 0.0);
        let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        for item in values.flat_map(|value| value.split(',')) {
            let mut parts = item.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let parameters: Vec<&str> = parts.collect();
            let parameter = |name: &str| {
                let mut pairs = parameters.iter().filter_map(|pair| pair.split_once('='));
                pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
            };
            let format = match name {
                "application/vnd.google.protobuf"
                    if parameter("proto") == Some("io.prometheus.client.MetricFamily")
                        && parameter("encoding") == Some("delimited") =>
                {
                    Self::Protobuf
                }
                "application/openmetrics-text" => Self::OpenMetrics,
                "text/plain" | "text/*" | "*/*" => Self::Text,
                _ => continue,
            };
            let weight = parameter("q").map_or(Some(1.0), |q| q.parse().ok()).unwrap_or(0.0);
            if weight > best.1 {
                best = (format, weight);
            }
        }
        best.0
    }
}

/// Answers a scrape.
pub(crate) async fn answer(api: &Arc<Api>, request: Request<Incoming>) -> Response<Body> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Failure::method(request.method(), PATH, "GET, HEAD").into_response();
    }
    let format = Format::accepted(request.headers());
    let encoding = rest::accepted(request.headers());
    let api = Arc::clone(api);
    // A thousand models are a few megabytes of text: not on a thread that serves.
    let written = tokio::task::spawn_blocking(move || {
        let response = write(&api.facts(), format);
        match encoding {
            Some(encoding) => rest::compress(response, encoding),
            None => response,
        }
    });
    match written.await {
        Ok(response) => response,
        Err(_) => {
            Failure::new(ErrorCode::Internal, "the metrics could not be written").into_response()
        }
    }
}

fn write(facts: &Facts, format: Format) -> Response<Body> {
    let families = facts.families();
    let body = match format {
        Format::Protobuf => Body::from(protobuf::write(&families)),
        Format::OpenMetrics => Body::from(text::write(&families, text::Dialect::OpenMetrics)),
        Format::Text => Body::from(text::write(&families, text::Dialect::Prometheus)),
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
    response
}

impl Api {
    /// What the metrics are read from, as it is now. Takes milliseconds if there are many models:
    /// not for threads that serve.
    pub fn facts(&self) -> Facts {
        Facts {
            health: self.serving.health(),
            aliases: self.aliases.as_ref().map(|aliases| aliases()).unwrap_or_default(),
            process: process::Process::read(),
            telemetry: self.tracer.as_ref().map(|t| t.outbox.counts()).unwrap_or_default(),
            server_version: self.options.server_version.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scraper_gets_the_format_that_it_prefers() {
        let accepted = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(text));
            Format::accepted(&headers)
        };
        // Prometheus 2.42 with and without native histograms, and browsers.
        let native = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
            encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,\
            text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(accepted(native), Format::Protobuf);
        let plain = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,\
            */*;q=0.1";
        assert_eq!(accepted(plain), Format::OpenMetrics);
        assert_eq!(accepted("text/html,*/*;q=0.8"), Format::Text);
        assert_eq!(accepted("application/openmetrics-text;q=0, text/plain;q=0.1"), Format::Text);
        assert_eq!(accepted("application/vnd.google.protobuf"), Format::Text);
        assert_eq!(Format::accepted(&HeaderMap::new()), Format::Text);
    }
}
