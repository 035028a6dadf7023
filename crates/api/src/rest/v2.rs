//! The Open Inference Protocol v2 with Triton's extensions.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, Response};

use crate::Api;
use crate::error::Failure;
use crate::server::Body;

pub(super) async fn answer(
    _api: &Arc<Api>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    Err(Failure::new(model::ErrorCode::NotFound, format!("no such path: {}", request.uri().path())))
}
