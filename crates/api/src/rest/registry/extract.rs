//! What handlers are given: names of the path, questions of the query, bodies, and the registry
//! itself once it is sure that the caller may have it.

use std::sync::Arc;

use ::registry::{By, Registry};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use http_body_util::{BodyExt, Limited};
use hyper::StatusCode;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderName, ORIGIN};
use hyper::http::request::Parts;
use model::ErrorCode;
use serde::de::DeserializeOwned;

use crate::error::Failure;
use crate::{Access, Api};

/// Who makes a change, as far as the caller says.
const BY: HeaderName = HeaderName::from_static("modelyard-by");

/// The largest body that describes a change, in bytes.
const MAX_JSON: usize = 1 << 20;

/// Names from the path, unescaped.
pub(crate) struct Names<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Names<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(names)) => Ok(Self(names)),
            Err(error) => Err(Failure::new(
                ErrorCode::InvalidArgument,
                format!("{}: {}", parts.uri.path(), error.body_text()),
            )),
        }
    }
}

/// The query.
pub(crate) struct Asked<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(asked)) => Ok(Self(asked)),
            Err(error) => Err(Failure::new(
                ErrorCode::InvalidArgument,
                format!("the query of {}: {}", parts.uri.path(), error.body_text()),
            )),
        }
    }
}

/// The registry, for whoever only looks.
pub(crate) struct Look(pub Arc<Registry>);

impl FromRequestParts<Arc<Api>> for Look {
    type Rejection = Failure;

    async fn from_request_parts(_: &mut Parts, api: &Arc<Api>) -> Result<Self, Failure> {
        registry(access(api)?).map(Self)
    }
}

/// The registry, for whoever fetches models or has all of it read.
pub(crate) struct Fetch(pub Arc<Registry>);

impl FromRequestParts<Arc<Api>> for Fetch {
    type Rejection = Failure;

    async fn from_request_parts(_: &mut Parts, api: &Arc<Api>) -> Result<Self, Failure> {
        let access = access(api)?;
        check_open(access)?;
        registry(access).map(Self)
    }
}

/// The registry, for whoever changes it.
pub(crate) struct Change {
    pub registry: Arc<Registry>,
    pub who: String,
}

impl Change {
    /// Who it is, and why.
    pub fn by(&self, reason: String, evidence: Option<serde_json::Value>) -> By {
        By { who: self.who.clone(), reason, evidence }
    }
}

impl FromRequestParts<Arc<Api>> for Change {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Failure> {
        let access = access(api)?;
        check_open(access)?;
        check_origin(&parts.headers)?;
        Ok(Self { who: who(&parts.headers)?, registry: registry(access)? })
    }
}

/// A body in JSON.
pub(crate) struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<Api>> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        // A page of another site can send any other type without asking the browser first.
        if !has_type(&parts.headers, "application/json") {
            return Err(Failure::status(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "expected a body in JSON, and the header content-type: application/json",
            ));
        }
        check_plain(&parts.headers)?;
        let limit = MAX_JSON.min(api.options.max_body_bytes);
        let collected = Limited::new(body, limit).collect();
        let collected = tokio::time::timeout(api.options.body_timeout, collected).await;
        let body = match collected {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                let message = format!("the request's body is longer than {limit} bytes");
                return Err(Failure::status(StatusCode::PAYLOAD_TOO_LARGE, message));
            }
            Ok(Err(error)) => {
                let message = format!("the request's body is cut short or malformed: {error}");
                return Err(Failure::new(ErrorCode::InvalidArgument, message));
            }
            Err(_) => {
                let message =
                    format!("the body did not arrive within {:?}", api.options.body_timeout);
                return Err(Failure::status(StatusCode::REQUEST_TIMEOUT, message));
            }
        };
        parse(&body).map(Self)
    }
}

/// Reads a body in JSON.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        Failure::new(ErrorCode::InvalidArgument, format!("the request's body: {error}"))
    })
}

/// Whether the content type is this one, whatever its parameters.
pub(crate) fn has_type(headers: &HeaderMap, expected: &str) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next()).map(str::trim);
    essence.is_some_and(|essence| essence.eq_ignore_ascii_case(expected))
}

/// Refuses compressed bodies, whose digests and limits would be of something else.
pub(crate) fn check_plain(headers: &HeaderMap) -> Result<(), Failure> {
    match headers.get(CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => Err(Failure::status(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!(
                "content-encoding {encoding:?} is not supported here; send the bytes as they are"
            ),
        )),
        _ => Ok(()),
    }
}

pub(crate) fn access(api: &Api) -> Result<&Access, Failure> {
    api.registry.as_ref().ok_or_else(|| {
        Failure::new(
            ErrorCode::NotFound,
            "this server has no registry; start it with one: modelyard serve --registry FOLDER|URL",
        )
    })
}

pub(crate) fn registry(access: &Access) -> Result<Arc<Registry>, Failure> {
    access.registry.get().cloned().ok_or_else(|| {
        let message = "the registry has not answered since this server started; try again later";
        Failure::new(ErrorCode::Unavailable, message)
    })
}

fn check_open(access: &Access) -> Result<(), Failure> {
    if access.open_to_callers {
        return Ok(());
    }
    Err(Failure::new(
        ErrorCode::PermissionDenied,
        "changing the registry and fetching files from it by request is off, because this server \
         listens beyond this machine; start it with --model-control to allow it",
    ))
}

/// Refuses what a page of another site has a browser send, and a page of a name that was pointed at
/// this machine after it was loaded.
pub(crate) fn check_origin(headers: &HeaderMap) -> Result<(), Failure> {
    let text = |name| {
        headers
            .get(name)
            .map(|value: &hyper::header::HeaderValue| value.to_str().unwrap_or_default())
    };
    let Some(origin) = text(ORIGIN) else { return Ok(()) };
    let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => authority,
    };
    let is_address = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
    if text(HOST) == Some(authority) && (is_address || name == "localhost") {
        return Ok(());
    }
    let message = format!("a page of {origin:?} may not change the registry of this server");
    Err(Failure::new(ErrorCode::PermissionDenied, message))
}

/// Who it is; nobody checks it yet.
pub(crate) fn who(headers: &HeaderMap) -> Result<String, Failure> {
    let Some(value) = headers.get(BY) else { return Ok("unknown".to_owned()) };
    let name = std::str::from_utf8(value.as_bytes()).map(str::trim).unwrap_or_default();
    if name.is_empty() || name.len() > 255 || name.chars().any(char::is_control) {
        let message = "the header modelyard-by: expected a name of 1 to 255 bytes in UTF-8";
        return Err(Failure::new(ErrorCode::InvalidArgument, message));
    }
    Ok(name.to_owned())
}

/// A version's number in a path.
pub(crate) fn number(text: &str) -> Result<u64, Failure> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        let message = format!("version {shown:?}: expected a number, 1 or more");
        Failure::new(ErrorCode::InvalidArgument, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn headers(of: &[(HeaderName, &'static str)]) -> HeaderMap {
        of.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn pages_change_the_registry_of_their_own_server_only() {
        let sent = |origin, host| check_origin(&headers(&[(ORIGIN, origin), (HOST, host)])).is_ok();
        assert!(sent("http://127.0.0.1:8080", "127.0.0.1:8080"));
        assert!(sent("http://localhost:8080", "localhost:8080"));
        assert!(sent("http://[::1]:8080", "[::1]:8080"));
        assert!(!sent("http://127.0.0.1:9000", "127.0.0.1:8080"));
        assert!(!sent("https://example.org", "127.0.0.1:8080"));
        // A name that its owner points at this machine.
        assert!(!sent("http://example.org:8080", "example.org:8080"));
        assert!(!sent("null", "127.0.0.1:8080"));
        assert!(check_origin(&headers(&[(HOST, "models.example.org")])).is_ok());
    }

    #[test]
    fn callers_have_names() {
        assert_eq!(who(&HeaderMap::new()).unwrap(), "unknown");
        assert_eq!(who(&headers(&[(BY, " ada ")])).unwrap(), "ada");
        assert!(who(&headers(&[(BY, "")])).is_err());
        assert!(number("4").is_ok() && number("0").is_err() && number("v4").is_err());
    }
}
