//! REST: which path means what, bodies in and out, and the protocols.

mod v2;

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, Response};

use crate::Api;
use crate::error::Failure;
use crate::server::Body;

/// Whether a path belongs to an inference protocol.
pub(crate) fn understands(path: &str) -> bool {
    ["/v1", "/v2"].iter().any(|prefix| {
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// Answers a request whose path is [understood](understands).
pub(crate) async fn answer(api: &Arc<Api>, request: Request<Incoming>) -> Response<Body> {
    v2::answer(api, request).await.unwrap_or_else(Failure::into_response)
}
