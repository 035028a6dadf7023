//! Bodies: read within limits of size and time, and decompressed within them; answers compressed.

use std::future::poll_fn;
use std::io::{Read, Write};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use http_body_util::BodyExt;
use hyper::Response;
use hyper::StatusCode;
use hyper::body::{Body as _, Incoming};
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue, VARY};

use crate::ApiOptions;
use crate::error::Failure;
use crate::server::Body;

/// No more than this is set aside for a body because its Content-Length says so; the rest is
/// as it arrives.
const TRUSTED_BYTES: usize = 1 << 20;

/// How much of a refused body is read and dropped, so that its sender gets to see the refusal
/// instead of a reset connection.
const LINGER_BYTES: usize = 16 << 20;
const LINGER_TIME: Duration = Duration::from_secs(2);

/// The whole body, decompressed as its Content-Encoding says.
///
/// # Errors
/// 413 over [`ApiOptions::max_body_bytes`] (before reading, if Content-Length says so, and for
/// what a compressed body unpacks to), 408 if it does not arrive in time, 415 for an encoding
/// that is not known, 400 if it is cut short or not what its encoding says.
pub(super) async fn read(
    headers: &HeaderMap,
    mut body: Incoming,
    options: &ApiOptions,
) -> Result<Bytes, Failure> {
    let announced = body.size_hint().lower();
    if announced > options.max_body_bytes as u64 {
        linger(body);
        return Err(too_large(options, &format!("has {announced} bytes")));
    }
    let first = soon(options, body.frame()).await?;
    let first = match data(first)? {
        Some(first) if body.is_end_stream() => first,
        Some(first) if first.len() as u64 == announced => first,
        None => Bytes::new(),
        Some(first) => in_time(options, read_on(first, &mut body, options)).await??,
    };
    if first.len() > options.max_body_bytes {
        linger(body);
        return Err(too_large(options, "is longer"));
    }
    match headers.get(CONTENT_ENCODING) {
        None => Ok(first),
        Some(encoding) => decompress(encoding.as_bytes(), first, options),
    }
}

/// The rest of a body that comes in pieces, up to one byte more than it may have.
async fn read_on(
    first: Bytes,
    body: &mut Incoming,
    options: &ApiOptions,
) -> Result<Bytes, Failure> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut whole = BytesMut::with_capacity(first.len() + announced.min(TRUSTED_BYTES));
    whole.extend_from_slice(&first);
    drop(first);
    while let Some(piece) = data(body.frame().await)? {
        whole.extend_from_slice(&piece);
        if whole.len() > options.max_body_bytes {
            break;
        }
    }
    Ok(whole.freeze())
}

type NextFrame = Option<Result<hyper::body::Frame<Bytes>, hyper::Error>>;

/// The data of a frame; `None` at the end, and for trailers, which come last.
fn data(frame: NextFrame) -> Result<Option<Bytes>, Failure> {
    match frame {
        None => Ok(None),
        Some(Ok(frame)) => Ok(frame.into_data().ok()),
        Some(Err(error)) => {
            let message = format!("the request's body is cut short or malformed: {error}");
            Err(Failure::invalid(message))
        }
    }
}

/// The same as [`in_time`], but sets no timer if the future is ready when asked a second time: hyper
/// hands out a body that has arrived only after it has been asked for once.
async fn soon<F: Future + Unpin>(
    options: &ApiOptions,
    mut future: F,
) -> Result<F::Output, Failure> {
    let mut asked = false;
    let early = poll_fn(|context| match Pin::new(&mut future).poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if asked => Poll::Ready(None),
        Poll::Pending => {
            asked = true;
            context.waker().wake_by_ref();
            Poll::Pending
        }
    });
    match early.await {
        Some(output) => Ok(output),
        None => in_time(options, future).await,
    }
}

async fn in_time<F: Future>(options: &ApiOptions, future: F) -> Result<F::Output, Failure> {
    tokio::time::timeout(options.body_timeout, future).await.map_err(|_| {
        let message = format!("the body did not arrive within {:?}", options.body_timeout);
        Failure::status(StatusCode::REQUEST_TIMEOUT, message)
    })
}

fn too_large(options: &ApiOptions, what: &str) -> Failure {
    let message = format!(
        "the request's body {what}, but at most {} are accepted; send fewer rows, or have the \
         limit raised",
        options.max_body_bytes
    );
    Failure::status(StatusCode::PAYLOAD_TOO_LARGE, message)
}

/// Reads on for a moment without keeping anything.
fn linger(mut body: Incoming) {
    tokio::spawn(async move {
        let drain = async {
            let mut dropped = 0;
            while let Ok(Some(piece)) = data(body.frame().await) {
                dropped += piece.len();
                if dropped > LINGER_BYTES {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(LINGER_TIME, drain).await;
    });
}

fn decompress(encoding: &[u8], body: Bytes, options: &ApiOptions) -> Result<Bytes, Failure> {
    let encoding = encoding.trim_ascii();
    if encoding.eq_ignore_ascii_case(b"identity") || encoding.is_empty() {
        return Ok(body);
    }
    let limit = options.max_body_bytes as u64 + 1;
    let mut whole = Vec::new();
    let unpacked = if encoding.eq_ignore_ascii_case(b"gzip") {
        MultiGzDecoder::new(&body[..]).take(limit).read_to_end(&mut whole)
    } else if encoding.eq_ignore_ascii_case(b"deflate") {
        ZlibDecoder::new(&body[..]).take(limit).read_to_end(&mut whole)
    } else {
        let message = format!(
            "Content-Encoding {:?} is not supported; use gzip, deflate or identity",
            String::from_utf8_lossy(encoding)
        );
        return Err(Failure::status(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    };
    match unpacked {
        Ok(length) if length > options.max_body_bytes => Err(too_large(options, "unpacks to more")),
        Ok(_) => Ok(whole.into()),
        Err(error) => {
            let encoding = String::from_utf8_lossy(encoding);
            Err(Failure::invalid(format!("the body is not valid {encoding}: {error}")))
        }
    }
}

/// Answers shorter than this are sent as they are: compressing them costs more than it saves.
const WORTH_COMPRESSING: usize = 1024;

/// How an answer may be compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Gzip,
    Deflate,
}

/// What Accept-Encoding asks for: gzip before deflate, nothing that is given a weight of zero.
pub(crate) fn accepted(headers: &HeaderMap) -> Option<Encoding> {
    let header = headers.get(ACCEPT_ENCODING)?.to_str().ok()?;
    let accepts = |name: &str| {
        header.split(',').any(|item| {
            let mut parts = item.split(';').map(str::trim);
            let named = parts.next().is_some_and(|coding| coding.eq_ignore_ascii_case(name));
            let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
            named && weight != Some(0.0)
        })
    };
    match (accepts("gzip"), accepts("deflate")) {
        (true, _) => Some(Encoding::Gzip),
        (_, true) => Some(Encoding::Deflate),
        _ => None,
    }
}

/// Compresses an answer in memory if that is worth it.
pub(crate) fn compress(response: Response<Body>, encoding: Encoding) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    let bytes = match body {
        Body::Whole(Some(bytes)) if bytes.len() >= WORTH_COMPRESSING => bytes,
        body => return Response::from_parts(parts, body),
    };
    // The fastest level: a server that is asked to compress is short of network, not of time.
    let packed = super::off_the_reactor(bytes.len(), || match encoding {
        Encoding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&bytes).and_then(|()| encoder.finish())
        }
        Encoding::Deflate => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&bytes).and_then(|()| encoder.finish())
        }
    });
    let Ok(packed) = packed else {
        return Response::from_parts(parts, Body::from(bytes));
    };
    let name = match encoding {
        Encoding::Gzip => "gzip",
        Encoding::Deflate => "deflate",
    };
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
    parts.headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    Response::from_parts(parts, Body::from(packed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_encoding_is_a_list_with_weights() {
        let accepted = |text| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(text));
            super::accepted(&headers)
        };
        assert_eq!(accepted("identity"), None);
        assert_eq!(accepted("br, gzip;q=0.5"), Some(Encoding::Gzip));
        assert_eq!(accepted("gzip;q=0, Deflate"), Some(Encoding::Deflate));
        assert_eq!(accepted("gzip;q=0"), None);
        assert_eq!(super::accepted(&HeaderMap::new()), None);
    }
}
