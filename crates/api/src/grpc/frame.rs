//! What every gRPC request and answer passes: a limit of the time that a message may take, trailing
//! metadata, and compression only for those who compress.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::Frame;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response};
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;
use tower::{Service, ServiceExt};

const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// Metadata that an answer ends with; put among the response's extensions.
#[derive(Clone, Debug)]
pub(super) struct Trailing(pub(super) HeaderMap);

/// A service, framed.
#[derive(Clone)]
pub(super) struct Framed<S> {
    pub(super) service: S,
    /// How long a caller may take to send a message, where a call has one.
    pub(super) body_timeout: Duration,
}

/// The methods whose callers send messages whenever they have one.
const STREAMS: [&str; 2] = ["/ModelStreamInfer", "/ServerReflectionInfo"];

impl<S> Service<Request<axum::body::Body>> for Framed<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send,
    S: 'static,
    S::Future: Send,
{
    type Response = Response<axum::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The generated services are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<axum::body::Body>) -> Self::Future {
        let headers = request.headers_mut();
        // Stock clients offer to take gzip whether or not they gain by it. Only one that pays for
        // compression itself is answered in kind: tensors compress badly.
        if headers.get(ENCODING).is_none_or(|encoding| encoding == "identity") {
            headers.remove(ACCEPT_ENCODING);
        }
        let is_stream = STREAMS.iter().any(|method| request.uri().path().ends_with(method));
        let timeout = self.body_timeout;
        let request = request.map(|body| match is_stream {
            true => Body::new(body),
            false => Body::new(InTime { body, timeout, end: None }),
        });
        let answer = self.service.clone().oneshot(request);
        Box::pin(async move {
            let mut response = answer.await?;
            let trailing = response.extensions_mut().remove::<Trailing>();
            Ok(response.map(|body| match trailing {
                Some(trailing) => axum::body::Body::new(WithTrailers { body, trailing }),
                None => axum::body::Body::new(body),
            }))
        })
    }
}

/// A body that has to arrive in time.
struct InTime {
    body: axum::body::Body,
    timeout: Duration,
    /// When the time is up; set once there is something to wait for.
    end: Option<Pin<Box<Sleep>>>,
}

impl hyper::body::Body for InTime {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, Status>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            let failed = |error| Status::from_error(Box::new(error));
            return Poll::Ready(frame.map(|frame| frame.map_err(failed)));
        }
        let timeout = this.timeout;
        let end = this.end.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(end.as_mut().poll(context));
        let message = format!("the message did not arrive within {timeout:?}");
        Poll::Ready(Some(Err(Status::deadline_exceeded(message))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

/// A body whose trailers have more to say.
struct WithTrailers {
    body: Body,
    trailing: Trailing,
}

impl hyper::body::Body for WithTrailers {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
        Poll::Ready(Some(Ok(match frame.into_trailers() {
            Ok(mut trailers) => {
                trailers.extend(std::mem::take(&mut self.trailing.0));
                Frame::trailers(trailers)
            }
            Err(frame) => frame,
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// Adds a number to metadata.
pub(super) fn insert(metadata: &mut HeaderMap, name: &'static str, number: u64) {
    metadata.insert(HeaderName::from_static(name), HeaderValue::from(number));
}
