//! The registry over REST: every verb of the command line has its endpoint below `/v2/registry`.

mod change;
mod export;
pub(crate) mod extract;
pub(super) mod look;
pub(super) mod publish;
mod rollout;

use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Uri};
use model::ErrorCode;

use crate::Api;
use crate::error::Failure;

/// What a handler says.
pub(super) type Answer = Result<Response, Failure>;

/// Whether a path belongs to the registry.
pub(crate) fn understands(path: &str) -> bool {
    let rest = path.strip_prefix("/v2/registry");
    let is_feedback = path.starts_with("/v2/models/") && path.ends_with("/feedback");
    is_feedback || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Routes below `/v2/registry`.
pub(crate) fn router(api: &Arc<Api>) -> Router {
    let version = "/models/{model}/versions/{version}";
    let routes = Router::new()
        .route("/models", get(look::models))
        .route("/models/{model}", get(look::model))
        .route("/models/{model}/versions", get(look::versions).post(publish::publish))
        .route(version, get(look::version))
        .route(&format!("{version}/files/{{*file}}"), get(look::file))
        .route(&format!("{version}/export"), get(export::export))
        .route(&format!("{version}/archive"), post(change::archive))
        .route(&format!("{version}/restore"), post(change::restore))
        .route(&format!("{version}/delete"), post(change::delete))
        .route("/models/{model}/aliases", get(look::aliases))
        .route(
            "/models/{model}/aliases/{alias}",
            get(look::alias).put(change::set_alias).delete(change::remove_alias),
        )
        .route("/models/{model}/traffic", put(change::split_traffic).get(look::traffic))
        .route("/models/{model}/history", get(look::history))
        .route("/models/{model}/at", get(look::at))
        .route("/models/{model}/diff", get(look::diff))
        .route("/models/{model}/rollout", get(rollout::one).post(rollout::start))
        .route("/models/{model}/rollout/pause", post(rollout::pause))
        .route("/models/{model}/rollout/resume", post(rollout::resume))
        .route("/models/{model}/rollout/stop", post(rollout::stop))
        .route("/models/{model}/rollback", post(rollout::roll_back))
        .route("/rollouts", get(rollout::all))
        .route("/servers", get(rollout::servers))
        .route("/models/{model}/notes/{key}", put(change::note_model))
        .route(&format!("{version}/notes/{{key}}"), put(change::note_version))
        .route("/uploads/{upload}", get(publish::list_files).delete(publish::remove_upload))
        .route("/uploads/{upload}/{*file}", put(publish::put_file))
        .route("/check", get(look::check))
        .route("/collect", post(change::collect))
        .fallback(nothing)
        .method_not_allowed_fallback(other_method);
    let feedback = Router::new().route("/v2/models/{model}/feedback", post(rollout::feedback));
    feedback.nest("/v2/registry", routes).with_state(Arc::clone(api))
}

async fn nothing(uri: Uri) -> Failure {
    let message = format!("there is nothing of the registry at {}", uri.path());
    Failure::new(ErrorCode::NotFound, message)
}

async fn other_method(method: Method, uri: Uri) -> Failure {
    let message =
        format!("{method} is not possible on {}; the header Allow says what is", uri.path());
    Failure::status(hyper::StatusCode::METHOD_NOT_ALLOWED, message)
}

/// A value as JSON.
pub(super) fn json(value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => ([(CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => {
            IntoResponse::into_response(Failure::new(ErrorCode::Internal, error.to_string()))
        }
    }
}

#[cfg(test)]
pub(super) fn fuzz(text: &str) {
    let _ = publish::sha256(text);
    let _ = extract::parse::<publish::About>(text.as_bytes()).map(drop);
}
