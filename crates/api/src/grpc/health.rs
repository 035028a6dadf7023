//! The gRPC health protocol, answered from the state of serving when it is asked.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::Api;

/// Services that are healthy when every wanted version is ready; "" is the server.
const SERVICES: [&str; 4] = [
    "",
    "inference.GRPCInferenceService",
    "tensorflow.serving.PredictionService",
    "tensorflow.serving.ModelService",
];

/// How often a watcher's state is looked at. Nothing is, while nobody watches.
const INTERVAL: Duration = Duration::from_millis(500);

pub(super) fn server(api: Arc<Api>) -> HealthServer<impl Health> {
    HealthServer::new(Checks(api))
}

struct Checks(Arc<Api>);

fn state(api: &Api, service: &str) -> ServingStatus {
    if !SERVICES.contains(&service) {
        return ServingStatus::ServiceUnknown;
    }
    if api.serving.ready() { ServingStatus::Serving } else { ServingStatus::NotServing }
}

#[tonic::async_trait]
impl Health for Checks {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match state(&self.0, &service) {
            ServingStatus::ServiceUnknown => {
                let message = format!("no service is called \"{service}\"");
                Err(Status::not_found(super::status::shorten(message)))
            }
            status => Ok(Response::new(HealthCheckResponse { status: status.into() })),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let (api, service) = (Arc::clone(&self.0), request.into_inner().service);
        tokio::spawn(async move {
            let mut told = None;
            loop {
                let status = state(&api, &service);
                if told != Some(status) {
                    let answer = HealthCheckResponse { status: status.into() };
                    if sender.send(Ok(answer)).await.is_err() {
                        return;
                    }
                    told = Some(status);
                }
                tokio::select! {
                    () = sender.closed() => return,
                    () = tokio::time::sleep(INTERVAL) => {}
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
