//! The part of MLflow's REST API that its Python client needs of a registry of models: registered
//! models, their versions, aliases and tags, and the files of both sides.
//!
//! What MLflow calls a registered model is a model; a tag is an entry of a version's metadata or a
//! note that was made later; a download URI points to this server's own artifacts.

mod artifacts;
pub(super) mod filter;
mod models;
mod versions;

use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, patch, post};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode, Uri};
use model::ErrorCode;
use serde::Deserialize;
use serde_json::{Value, json as value};

use crate::Api;
use crate::error::Failure;

use super::registry::{Answer, json};

/// Whether a path is one of MLflow's.
pub(crate) fn understands(path: &str) -> bool {
    ["/api/2.0/mlflow", "/api/3.0/mlflow"].iter().any(|start| path.starts_with(start))
}

/// Routes below `/api`.
pub(crate) fn router(api: &Arc<Api>) -> Router {
    let registered = Router::new()
        .route("/create", post(models::create))
        .route("/get", get(models::get))
        .route("/search", get(models::search))
        .route("/update", patch(models::update))
        .route("/delete", delete(models::delete))
        .route("/rename", post(models::rename))
        .route("/get-latest-versions", get(versions::latest_asked).post(versions::latest))
        .route("/set-tag", post(models::set_tag))
        .route("/delete-tag", delete(models::delete_tag))
        .route(
            "/alias",
            get(versions::by_alias).post(models::set_alias).delete(models::delete_alias),
        );
    let versions = Router::new()
        .route("/create", post(versions::create))
        .route("/get", get(versions::get))
        .route("/search", get(versions::search))
        .route("/update", patch(versions::update))
        .route("/delete", delete(versions::delete))
        .route("/transition-stage", post(versions::transition))
        .route("/get-download-uri", get(versions::download_uri))
        .route("/set-tag", post(versions::set_tag))
        .route("/delete-tag", delete(versions::delete_tag));
    let files = "/api/2.0/mlflow-artifacts/artifacts";
    Router::new()
        .nest("/api/2.0/mlflow/registered-models", registered)
        .nest("/api/2.0/mlflow/model-versions", versions)
        .route(files, get(artifacts::list))
        .route(
            &format!("{files}/{{*path}}"),
            get(artifacts::download).put(artifacts::upload).delete(artifacts::remove),
        )
        .route("/api/3.0/mlflow/server-info", get(server_info))
        .fallback(nothing)
        .method_not_allowed_fallback(nothing)
        .layer(axum::middleware::map_response(speak))
        .with_state(Arc::clone(api))
}

/// What clients ask before they use what not every server can.
async fn server_info() -> Response {
    json(&value!({
        "workspaces_enabled": false,
        "multipart_uploads_enabled": false,
        "multipart_downloads_enabled": false,
        "trace_archival_enabled": false,
    }))
}

async fn nothing(method: Method, uri: Uri) -> Failure {
    let message = format!(
        "{method} {}: of MLflow's API this server has the registry of models and its files, and no \
         experiments, runs, prompts or webhooks",
        uri.path()
    );
    Failure::status(StatusCode::NOT_FOUND, message)
}

/// Says what went wrong in the words and statuses that MLflow's clients know.
async fn speak(mut response: Response) -> Response {
    let Some(failure) = response.extensions_mut().remove::<Failure>() else { return response };
    let (name, status) = spoken(&failure);
    let body = value!({ "error_code": name, "message": failure.message }).to_string();
    let (mut parts, _) = response.into_parts();
    parts.status = status;
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    parts.headers.remove(CONTENT_LENGTH);
    (parts, body).into_response()
}

fn spoken(failure: &Failure) -> (&'static str, StatusCode) {
    use ErrorCode as E;
    match failure.code {
        Some(E::InvalidArgument) => ("INVALID_PARAMETER_VALUE", StatusCode::BAD_REQUEST),
        Some(E::NotFound) => ("RESOURCE_DOES_NOT_EXIST", StatusCode::NOT_FOUND),
        Some(E::AlreadyExists) => ("RESOURCE_ALREADY_EXISTS", StatusCode::BAD_REQUEST),
        Some(E::FailedPrecondition) => ("RESOURCE_CONFLICT", StatusCode::CONFLICT),
        Some(E::Unimplemented) => ("NOT_IMPLEMENTED", StatusCode::NOT_IMPLEMENTED),
        Some(E::ResourceExhausted) => ("RESOURCE_EXHAUSTED", StatusCode::TOO_MANY_REQUESTS),
        Some(E::Unavailable) => ("TEMPORARILY_UNAVAILABLE", StatusCode::SERVICE_UNAVAILABLE),
        Some(E::DeadlineExceeded) => ("DEADLINE_EXCEEDED", StatusCode::GATEWAY_TIMEOUT),
        Some(E::Unauthenticated) => ("UNAUTHENTICATED", StatusCode::UNAUTHORIZED),
        Some(E::PermissionDenied) => ("PERMISSION_DENIED", StatusCode::FORBIDDEN),
        Some(E::Internal) => ("INTERNAL_ERROR", StatusCode::INTERNAL_SERVER_ERROR),
        None if failure.status == StatusCode::NOT_FOUND => ("ENDPOINT_NOT_FOUND", failure.status),
        None => ("BAD_REQUEST", failure.status),
    }
}

/// A tag.
#[derive(Deserialize)]
struct Tag {
    key: String,
    #[serde(default)]
    value: String,
}

/// The description of a model or a version, among its notes.
const DESCRIPTION: &str = "description";

/// Tags as MLflow writes them; the description is no tag.
fn tags<'a>(all: impl Iterator<Item = (&'a String, &'a String)>) -> Value {
    let tag = |(key, text): (&String, &String)| value!({ "key": key, "value": text });
    all.filter(|(key, _)| *key != DESCRIPTION).map(tag).collect()
}

fn check_tag(key: &str) -> Result<(), Failure> {
    if key == DESCRIPTION {
        let message = "the tag \"description\" is the description; update that";
        return Err(invalid(message));
    }
    Ok(())
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::InvalidArgument, message)
}

/// What a search asks for.
struct Search {
    filter: filter::Filter,
    order: Vec<(String, bool)>,
    limit: usize,
    /// How many of the answer came before.
    skip: usize,
}

impl Search {
    fn parse(
        uri: &Uri,
        most: usize,
        attributes: &[&str],
        orders: &[&str],
    ) -> Result<Self, Failure> {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri);
        let pairs = pairs.map_err(|error| invalid(error.body_text()))?.0;
        let (mut text, mut order) = (String::new(), Vec::new());
        let (mut limit, mut skip) = (100.min(most), 0);
        for (key, value) in pairs {
            let number = || value.parse::<usize>();
            match &*key {
                "filter" => text = value,
                "order_by" => order.push(value),
                "max_results" => match number() {
                    Ok(count) if (1..=most).contains(&count) => limit = count,
                    _ => {
                        return Err(invalid(format!(
                            "max_results: expected 1 to {most}, got {value:?}"
                        )));
                    }
                },
                "page_token" if value.is_empty() => {}
                "page_token" => {
                    skip = number().map_err(|_| {
                        invalid("page_token: expected the next_page_token of an answer")
                    })?;
                }
                _ => {}
            }
        }
        let filter = filter::Filter::parse(&text, attributes);
        let filter = filter.map_err(|error| invalid(format!("filter: {error}")))?;
        Ok(Self { filter, order: filter::order(&order, orders).map_err(invalid)?, limit, skip })
    }

    /// The part that is asked for, and the token of the next.
    fn page<T>(&self, found: Vec<T>, shown: impl Fn(&T) -> Value) -> (Vec<Value>, String) {
        let end = self.skip.saturating_add(self.limit).min(found.len());
        let part = found.get(self.skip.min(end)..end).unwrap_or_default();
        let next = if end < found.len() { end.to_string() } else { String::new() };
        (part.iter().map(shown).collect(), next)
    }

    /// Which of two comes first, by the values of their attributes.
    fn compare<T>(&self, a: &T, b: &T, key: impl Fn(&T, &str) -> Key) -> std::cmp::Ordering {
        let each = self.order.iter().map(|(name, ascends)| {
            let order = key(a, name).cmp(&key(b, name));
            if *ascends { order } else { order.reverse() }
        });
        each.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
    }
}

/// What is ordered by.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Text(String),
    Number(i64),
}

#[cfg(test)]
pub(super) fn fuzz(text: &str) {
    if let Ok(filter) = filter::Filter::parse(text, &["name", "version_number"]) {
        filter.holds(|_| filter::Found::Text(text));
    }
    let _ = filter::order(&[text.to_owned()], &["name"]);
    let _ = versions::artifact_path(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_word() {
        for (code, ..) in crate::TABLE {
            let (name, status) = spoken(&Failure::new(code, "x"));
            assert!(!name.is_empty() && status.as_u16() >= 400, "{code}");
        }
        let nowhere = Failure::status(StatusCode::NOT_FOUND, "x");
        assert_eq!(spoken(&nowhere).0, "ENDPOINT_NOT_FOUND");
    }

    #[test]
    fn pages_follow_each_other() {
        let uri = |query: &str| format!("/x?{query}").parse::<Uri>().unwrap();
        let parse = |query: &str| Search::parse(&uri(query), 10, &["name"], &["name"]);
        let search = parse("max_results=2&page_token=2&order_by=name%20DESC").unwrap();
        let (part, next) = search.page(vec![0, 1, 2, 3, 4], |n| value!(n));
        assert_eq!((part, &*next), (vec![value!(2), value!(3)], "4"));
        let (part, next) = parse("page_token=9").unwrap().page(vec![0], |n| value!(n));
        assert_eq!((part, &*next), (vec![], ""));
        for wrong in
            ["max_results=0", "max_results=11", "page_token=x", "order_by=size", "filter=x"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
