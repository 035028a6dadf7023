//! `/v2/alerts`: what is wrong, by which rules, and what is kept quiet.

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use hyper::http::request::Parts;
use hyper::{StatusCode, Uri};
use jiff::Timestamp;
use model::ErrorCode;
use monitor::alerts::{Desk, Silence};
use serde::Deserialize;
use serde_json::{Value, json};

use super::registry::extract::{Json, Names, check_origin, who};
use super::registry::json as said;
use crate::error::Failure;
use crate::{Alerts, Api};

/// What a handler says.
type Answer = Result<Response, Failure>;

/// Whether a path belongs to the alerts.
pub(crate) fn understands(path: &str) -> bool {
    let rest = path.strip_prefix("/v2/alerts");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Routes of the alerts.
pub(crate) fn router(api: &Arc<Api>) -> Router {
    let routes = Router::new()
        .route("/v2/alerts", get(alerts))
        .route("/v2/alerts/rules", get(rules))
        .route("/v2/alerts/silences", get(silences).post(silence))
        .route("/v2/alerts/silences/{id}", delete(unsilence))
        .fallback(nothing);
    routes.with_state(Arc::clone(api))
}

/// The alerts, for whoever only looks.
struct Look(Desk);

impl FromRequestParts<Arc<Api>> for Look {
    type Rejection = Failure;

    async fn from_request_parts(_: &mut Parts, api: &Arc<Api>) -> Result<Self, Failure> {
        Ok(Self(of(api)?.desk.clone()))
    }
}

/// The alerts, for whoever keeps them quiet.
struct Change {
    desk: Desk,
    who: String,
}

impl FromRequestParts<Arc<Api>> for Change {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Failure> {
        let alerts = of(api)?;
        if !alerts.open_to_callers {
            return Err(Failure::new(
                ErrorCode::PermissionDenied,
                "silencing alerts by request is off, because this server listens beyond this \
                 machine; start it with --model-control to allow it",
            ));
        }
        check_origin(&parts.headers)?;
        Ok(Self { desk: alerts.desk.clone(), who: who(&parts.headers)? })
    }
}

pub(crate) fn of(api: &Api) -> Result<&Alerts, Failure> {
    api.alerts.as_ref().ok_or_else(|| {
        Failure::new(
            ErrorCode::NotFound,
            "this server raises no alerts; start it with rules: modelyard serve --alerts FILE",
        )
    })
}

async fn nothing(uri: Uri) -> Failure {
    let message = format!("there is nothing of the alerts at {}", uri.path());
    Failure::new(ErrorCode::NotFound, message)
}

async fn alerts(Look(desk): Look) -> Response {
    said(&json!({
        "alerts": desk.alerts(),
        "looked": desk.looked(),
        "notifiers": desk.counts(),
    }))
}

async fn rules(Look(desk): Look) -> Answer {
    let rule = |(rule, problem)| -> Result<Value, Failure> {
        let mut value = serde_json::to_value(&rule).map_err(|error| {
            Failure::new(ErrorCode::Internal, format!("a rule cannot be written: {error}"))
        })?;
        value["problem"] = json!(problem);
        Ok(value)
    };
    let rules = desk.rules().into_iter().map(rule).collect::<Result<Vec<_>, _>>()?;
    Ok(said(&json!({"rules": rules})))
}

async fn silences(Look(desk): Look) -> Response {
    said(&json!({"silences": desk.silences()}))
}

/// What is to be kept quiet, and for how long.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    #[serde(rename = "where")]
    only: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    from: Option<Timestamp>,
    until: Timestamp,
    #[serde(default)]
    why: String,
}

async fn silence(change: Change, Json(wanted): Json<Wanted>) -> Answer {
    let now = Timestamp::now();
    let silence = Silence {
        id: String::new(),
        only: wanted.only,
        from: wanted.from.unwrap_or(now),
        until: wanted.until,
        by: change.who,
        why: wanted.why,
    };
    let kept = in_background(move || change.desk.silence(silence, now)).await?;
    let id = kept.map_err(|why| Failure::new(ErrorCode::InvalidArgument, why))?;
    Ok((StatusCode::CREATED, said(&json!({"id": id}))).into_response())
}

async fn unsilence(change: Change, Names(id): Names<String>) -> Answer {
    let named = id.clone();
    let ended = in_background(move || change.desk.unsilence(&named, Timestamp::now())).await?;
    match ended {
        Ok(true) => Ok(StatusCode::NO_CONTENT.into_response()),
        Ok(false) => {
            let shown: String = id.chars().take(40).collect();
            Err(Failure::new(ErrorCode::NotFound, format!("there is no silence {shown:?}")))
        }
        Err(error) => {
            let message = format!("the silence is over, but comes back after a restart: {error}");
            Err(Failure::new(ErrorCode::Internal, message))
        }
    }
}

/// Does what writes a file on a thread that serves nobody.
async fn in_background<T: Send + 'static>(
    what: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(what).await.map_err(|_| {
        Failure::new(ErrorCode::Internal, "keeping the alerts quiet failed; look at the log")
    })
}
