//! What the server shows of itself: `/` says what is running, `/docs` tries it out, and
//! `/registry` shows the models that it could serve; `/openapi.json` describes it for programs. Nothing is loaded from anywhere else.

mod alerts;
mod index;
mod registry;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY,
    VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::{HeaderMap, StatusCode};

use jiff::Timestamp;

use crate::error::Failure;
use crate::{Api, ApiOptions, openapi};

const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";

/// Scripts and styles come from the server's own files and nowhere else, so text that comes from a
/// model's file could not run even if it got into a page unescaped.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The files of the pages: path, content type, contents.
const ASSETS: [(&str, &str, &str); 6] = [
    ("/docs", HTML, include_str!("assets/docs.html")),
    ("/assets/docs.js", "text/javascript; charset=utf-8", include_str!("assets/docs.js")),
    ("/assets/alerts.js", "text/javascript; charset=utf-8", include_str!("assets/alerts.js")),
    ("/assets/index.js", "text/javascript; charset=utf-8", include_str!("assets/index.js")),
    ("/assets/style.css", "text/css; charset=utf-8", include_str!("assets/style.css")),
    ("/favicon.svg", "image/svg+xml", include_str!("assets/favicon.svg")),
];

/// Routes of the pages.
pub(crate) fn router(api: &Arc<Api>) -> Router {
    let mut router = Router::new()
        .route("/", get(index))
        .route("/alerts", get(alerts::alerts))
        .route("/registry", get(registry::models))
        .route("/registry/{model}", get(registry::model))
        .route("/openapi.json", get(description));
    for (path, content_type, contents) in ASSETS {
        router = router.route(path, get(move || async move { page(content_type, contents) }));
    }
    router.with_state(Arc::clone(api))
}

/// Says what is running: HTML for browsers, JSON for everyone else.
async fn index(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    let models = api.serving.status();
    let statistics = api.serving.statistics(None, None);
    let overview = index::Overview::new(&api.options, &models, &statistics);
    let wants_html = headers
        .get_all(ACCEPT)
        .iter()
        .any(|accept| accept.to_str().is_ok_and(|accept| accept.contains("text/html")));
    let mut response =
        if wants_html { page(HTML, overview.html()) } else { page(JSON, pretty(&overview.json())) };
    response.headers_mut().insert(VARY, ACCEPT.into());
    response
}

async fn description(State(api): State<Arc<Api>>) -> Response {
    let options = &api.options;
    let models = api.serving.status();
    let mut document = openapi::document(&options.server_name, &options.server_version, &models);
    if api.registry.is_some() {
        openapi::registry::describe(&mut document);
    }
    if api.alerts.is_some() {
        openapi::alerts::describe(&mut document);
    }
    page(JSON, document.to_string())
}

/// A page that is made on the server.
struct Page<'a> {
    /// The path of its entry in the navigation.
    path: &'a str,
    title: &'a str,
    /// Where the same is as JSON.
    json: &'a str,
}

/// The pages that are made on the server, by path.
const MADE: [(&str, &str); 2] = [("/registry", "Registry"), ("/alerts", "Alerts")];

/// A page with this in it, or with why there is nothing to be shown.
fn whole(options: &ApiOptions, page: &Page<'_>, main: Result<String, Failure>) -> Response {
    let named = MADE.iter().find(|(path, _)| *path == page.path).map_or("", |(_, name)| name);
    let (status, main) = match main {
        Ok(main) => (StatusCode::OK, main),
        Err(failure) => {
            let why = index::escape(&failure.message);
            (failure.status, format!("<h1>{named}</h1>\n<p class=\"reason\">{why}</p>"))
        }
    };
    let pages = MADE.map(|(path, name)| {
        let current = if path == page.path { " aria-current=\"page\"" } else { "" };
        format!("<a href=\"{path}\"{current}>{name}</a>")
    });
    let html = include_str!("assets/whole.html")
        .replace("{{pages}}", &pages.concat())
        .replace("{{title}}", &index::escape(page.title))
        .replace("{{name}}", &index::escape(&options.server_name))
        .replace("{{version}}", &index::escape(&options.server_version))
        .replace("{{json}}", &index::escape(page.json))
        // Last, so that no model's name can hold a mark that is then filled in.
        .replace("{{main}}", &main);
    (status, self::page(HTML, html)).into_response()
}

/// A time to the second.
fn time(time: Timestamp) -> String {
    let text = format!("{time:.0}");
    let shown = text.replace('T', " ").replace('Z', " UTC");
    format!("<time datetime=\"{text}\">{shown}</time>")
}

fn pretty(json: &serde_json::Value) -> String {
    format!("{json:#}\n")
}

fn page(content_type: &'static str, contents: impl IntoResponse) -> Response {
    let fields: [(HeaderName, &'static str); 6] = [
        (CONTENT_TYPE, content_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        // What is running changes, and the files change with the binary.
        (CACHE_CONTROL, "no-cache"),
    ];
    (fields, contents).into_response()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use model::{Format, InstanceSettings, Manifest, Signature};
    use serving::{ModelInfo, Status};
    use std::time::Duration;

    /// A version with this signature, as serving would describe it.
    pub(crate) fn info(name: &str, version: &str, signature: Signature) -> ModelInfo {
        let digest = format!("sha256:{}", "0".repeat(64));
        ModelInfo {
            name: name.into(),
            version: version.into(),
            signature: Arc::new(signature.clone()),
            manifest: Arc::new(Manifest::new(Format::Onnx, digest, 1000, signature)),
            engine: "native",
            settings: InstanceSettings::default(),
            max_batch_size: 64,
            load_time: Duration::from_millis(12),
            memory: 4000,
        }
    }

    /// The status of a version that is ready.
    pub(crate) fn status(info: ModelInfo) -> Status {
        Status {
            name: Arc::clone(&info.name),
            version: Arc::clone(&info.version),
            state: serving::State::Ready,
            info: Some(Arc::new(info)),
            failure: None,
        }
    }

    #[test]
    fn the_pages_load_nothing_from_outside_and_run_nothing_inline() {
        for (path, content_type, contents) in ASSETS {
            let outside =
                contents.matches("http://").count() + contents.matches("https://").count();
            let namespaces = contents.matches("http://www.w3.org/2000/svg").count();
            assert_eq!(outside, namespaces, "{path}");
            if content_type == HTML {
                assert!(!contents.contains("<style") && !contents.contains(" style="), "{path}");
                assert!(!contents.contains(" onclick="), "{path}");
                assert_eq!(
                    contents.matches("<script").count(),
                    contents.matches("<script src=").count()
                );
            }
        }
    }
}
