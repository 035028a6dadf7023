//! REST: which path means what, bodies in and out, and the protocols.

pub(crate) mod alerts;
mod binary;
mod body;
mod json;
pub(crate) mod mlflow;
pub(crate) mod registry;
mod tfs;
pub(crate) mod v2;

use std::borrow::Cow;
use std::sync::Arc;

use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response};
use model::ErrorCode;

use crate::Api;
use crate::error::Failure;
use crate::server::Body;

pub(crate) use body::{accepted, compress};
pub(crate) use json::quote;
pub(crate) use v2::{EXTENSIONS, classify, platform};

/// Whether a path belongs to an inference protocol.
pub(crate) fn understands(path: &str) -> bool {
    // TensorFlow Serving answers to capitals too.
    matches!(path.as_bytes(), [b'/', b'v' | b'V', b'1'] | [b'/', b'v' | b'V', b'1', b'/', ..])
        || matches!(path.as_bytes(), b"/v2" | [b'/', b'v', b'2', b'/', ..])
}

/// Answers a request whose path is [understood](understands).
pub(crate) async fn answer(api: &Arc<Api>, request: Request<Incoming>) -> Response<Body> {
    let is_head = request.method() == Method::HEAD;
    let encoding = body::accepted(request.headers());
    let answered = if request.uri().path().as_bytes().get(2) == Some(&b'1') {
        tfs::answer(api, request).await
    } else {
        v2::answer(api, request).await
    };
    let mut response = answered.unwrap_or_else(Failure::into_response);
    if let Some(encoding) = encoding {
        response = body::compress(response, encoding);
    }
    if is_head {
        let length = response.body().size_hint().exact().unwrap_or(0);
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        *response.body_mut() = Body::empty();
    }
    response
}

/// A path's segments with their escapes replaced; empty ones do not count.
fn segments(path: &str) -> Result<Vec<Cow<'_, str>>, Failure> {
    let decode = |segment| {
        unescape(segment).ok_or_else(|| {
            Failure::new(ErrorCode::InvalidArgument, format!("the path {path} is not valid UTF-8"))
        })
    };
    path.split('/').filter(|segment| !segment.is_empty()).map(decode).collect()
}

/// Replaces `%XX`; `None` if what comes out is not UTF-8.
fn unescape(segment: &str) -> Option<Cow<'_, str>> {
    if !segment.contains('%') {
        return Some(Cow::Borrowed(segment));
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.get(..2).filter(|_| *first == b'%');
        let value = escaped
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(value.unwrap_or(*first));
        rest = if value.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

fn json_response(value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::from(value.to_string()));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// Bodies above this are decoded where they do not hold up the connections beside them: about a
/// millisecond's worth.
const LARGE_BODY: usize = 1 << 20;

/// Runs work on a body of `size` bytes; if that will take a while, where other connections of this
/// thread do not have to wait for it.
fn off_the_reactor<T>(size: usize, work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    let may_block = |handle: Handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread;
    if size > LARGE_BODY && Handle::try_current().is_ok_and(may_block) {
        return tokio::task::block_in_place(work);
    }
    work()
}

/// The doors that take bytes, for the test that throws anything at them.
#[cfg(test)]
pub(crate) mod fuzz {
    pub(crate) use super::tfs::fuzz::{examples, predict};
    pub(crate) use super::v2::fuzz::{infer, raw};

    pub(crate) fn path(text: &str) {
        let _ = super::segments(text);
    }

    /// What describes searches, sources and digests, and bodies that describe a change.
    pub(crate) fn registry(text: &str) {
        super::mlflow::fuzz(text);
        super::registry::fuzz(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart_and_unescaped() {
        assert_eq!(segments("/v2/models/a%20b//infer/").unwrap(), ["v2", "models", "a b", "infer"]);
        assert_eq!(segments("/v2/100%").unwrap(), ["v2", "100%"]);
        assert_eq!(segments("/v2/a%2Fb").unwrap(), ["v2", "a/b"]);
        assert!(segments("/v2/%ff").is_err());
        assert!(understands("/v2") && understands("/v1/models") && !understands("/v22"));
    }
}
