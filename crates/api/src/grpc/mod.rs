//! gRPC: the Open Inference Protocol, TensorFlow Serving, health and reflection.

mod config;
mod deadline;
mod frame;
mod health;
mod inference;
mod statistics;
mod status;
mod tensor;
mod tensorflow;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use hyper::header::HeaderMap;
use hyper::{Request, Response};
use serving::{Error, Reply};
use tonic::Status;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tower::Service;

use crate::caller::Caller;
use crate::proto::inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use crate::proto::tensorflow::serving::model_service_server::ModelServiceServer;
use crate::proto::tensorflow::serving::prediction_service_server::PredictionServiceServer;
use crate::{Api, proto};

use frame::{Framed, Trailing};

/// Answers every request whose content type is gRPC's.
pub(crate) fn routes(api: &Arc<Api>) -> axum::Router {
    let limit = api.options.max_body_bytes;
    macro_rules! configured {
        ($service:expr) => {
            $service
                .accept_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Deflate)
                .send_compressed(CompressionEncoding::Gzip)
                .send_compressed(CompressionEncoding::Deflate)
                .max_decoding_message_size(limit)
                // Answers are as large as the model makes them.
                .max_encoding_message_size(usize::MAX)
        };
    }
    let inference = inference::Inference::new(Arc::clone(api));
    let router = axum::Router::new();
    let router = add(router, api, configured!(GrpcInferenceServiceServer::new(inference)));
    let predictions = tensorflow::Predictions::new(Arc::clone(api));
    let router = add(router, api, configured!(PredictionServiceServer::new(predictions)));
    let models = tensorflow::Models::new(Arc::clone(api));
    let router = add(router, api, configured!(ModelServiceServer::new(models)));
    let router = add(router, api, health::server(Arc::clone(api)));
    // The descriptors are part of the binary, and every test that makes a server reads them.
    let router = add_reflection(router, api).expect("the descriptors are whole");
    router.fallback(unknown)
}

fn add<S>(router: axum::Router, api: &Api, service: S) -> axum::Router
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: NamedService + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let framed = Framed { service, body_timeout: api.options.body_timeout };
    router.route_service(&format!("/{}/{{*method}}", S::NAME), framed)
}

/// What a path that no service has is told; as any gRPC answer, with HTTP status 200.
async fn unknown(uri: hyper::Uri) -> Response<axum::body::Body> {
    let message = format!("there is no method {}", uri.path());
    Status::unimplemented(status::shorten(message)).into_http()
}

/// Tells tools such as grpcurl what there is, in both versions that are in use.
fn add_reflection(
    router: axum::Router,
    api: &Api,
) -> Result<axum::Router, tonic_reflection::server::Error> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let router = add(router, api, builder().build_v1()?);
    Ok(add(router, api, builder().build_v1alpha()?))
}

/// What a call's metadata says.
#[derive(Clone, Debug)]
struct Call {
    caller: Caller,
    /// When the call's own time is up.
    deadline: Option<Instant>,
}

impl Call {
    fn read(metadata: &MetadataMap) -> Result<Self, Error> {
        let caller = Caller::read(metadata.as_ref())?;
        Ok(Self { caller, deadline: deadline::of_call(metadata)? })
    }
}

fn of_error(error: Error) -> Status {
    status::status(&error)
}

/// How a reply came about, for the end of the answer: the same names as REST's headers.
fn trailing(reply: &Reply) -> Trailing {
    let mut metadata = HeaderMap::with_capacity(4);
    if let Ok(version) = hyper::header::HeaderValue::from_str(&reply.info.version) {
        metadata.insert("modelyard-version", version);
    }
    frame::insert(&mut metadata, "modelyard-batch-size", reply.batch_size as u64);
    frame::insert(&mut metadata, "modelyard-queue-us", reply.queue.as_micros() as u64);
    frame::insert(&mut metadata, "modelyard-compute-us", reply.compute.as_micros() as u64);
    Trailing(metadata)
}

/// The doors that take messages, for the test that throws anything at them.
#[cfg(test)]
pub(crate) mod fuzz {
    pub(crate) use super::inference::fuzz::infer;
    pub(crate) use super::tensorflow::fuzz::tensor;

    pub(crate) fn timeout(text: &str) {
        let mut metadata = tonic::metadata::MetadataMap::new();
        if let Ok(value) = text.parse() {
            metadata.insert("grpc-timeout", value);
        }
        let _ = super::deadline::of_call(&metadata);
    }
}
