//! Connections: one listener for HTTP/1.1 and HTTP/2, limits on what a client can hold, and drain.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::ServiceExt;

use crate::error::Failure;
use crate::{Api, ApiOptions, Doors, grpc, metrics, pages, rest};

/// The body of an answer: in memory on the request's path, streamed by the other routers.
pub(crate) enum Body {
    /// What is left to send.
    Whole(Option<Bytes>),
    /// Whatever gRPC and the pages send.
    Stream(axum::body::Body),
}

impl Body {
    pub(crate) fn empty() -> Self {
        Self::Whole(None)
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        let bytes = bytes.into();
        Self::Whole((!bytes.is_empty()).then_some(bytes))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Stream(body) => body.size_hint(),
        }
    }
}

/// What every connection shares.
struct Shared {
    api: Arc<Api>,
    /// Answers requests whose content type is gRPC's.
    grpc: axum::Router,
    /// Answers what is below `/v2/registry`.
    registry: axum::Router,
    /// Answers what MLflow's clients ask.
    mlflow: axum::Router,
    /// Answers whatever is neither gRPC nor an inference protocol.
    pages: axum::Router,
}

/// Answers HTTP/1.1 and HTTP/2 (prior knowledge) on a listener until `shutdown` resolves, then
/// takes no new connections, lets running requests finish for at most
/// [`drain_timeout`](ApiOptions::drain_timeout), and returns.
///
/// # Errors
/// The listener's, if it cannot be used at all.
pub async fn serve(
    listener: TcpListener,
    api: Api,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.local_addr()?;
    let options = api.options.clone();
    let api = Arc::new(api);
    let shared = Arc::new(Shared {
        grpc: grpc::routes(&api),
        registry: rest::registry::router(&api).merge(rest::alerts::router(&api)),
        mlflow: rest::mlflow::router(&api),
        pages: pages::router(&api).fallback(no_page),
        api,
    });
    let builder = Arc::new(connection_builder(&options));
    let places = Arc::new(Semaphore::new(options.max_connections));
    let graceful = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let stream = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    wait_after(&error).await;
                    continue;
                }
            },
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            turn_away(&stream);
            continue;
        };
        // Answers are written in one piece; waiting to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        let (shared, builder) = (Arc::clone(&shared), Arc::clone(&builder));
        let (watcher, patience) = (graceful.watcher(), options.header_timeout);
        tokio::spawn(async move {
            let _place = place;
            let asked = AtomicBool::new(false);
            let service = service_fn(|request| {
                // Relaxed: read by the same task only.
                asked.store(true, Ordering::Relaxed);
                answer(Arc::clone(&shared), request)
            });
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            let mut connection = pin!(watcher.watch(connection));
            // hyper times the headers of a request only once it knows the protocol version, so a
            // client that sends nothing, or one byte, would be waited for without end.
            let first = tokio::time::timeout(patience, &mut connection).await;
            if first.is_err() && asked.load(Ordering::Relaxed) {
                let _ = connection.await;
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(options.drain_timeout, graceful.shutdown()).await.is_err() {
        tracing::warn!(
            "stopped with requests still running after {:?} of drain",
            options.drain_timeout
        );
    }
    Ok(())
}

fn connection_builder(options: &ApiOptions) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(options.header_timeout)
        // hyper reads bodies through the same buffer: below this it would read in small pieces.
        .max_buf_size(options.max_header_bytes.max(64 << 10));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .max_header_list_size(u32::try_from(options.max_header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        // Finds peers that went away without saying so.
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// A failed accept is the client's (it went away again) or ours (no more file descriptors); in
/// the second case, asking again at once would spin.
async fn wait_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::warn!(%error, "cannot accept connections");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Says 503 to a connection over the limit, if the socket takes it at once, and closes it.
fn turn_away(stream: &TcpStream) {
    const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
        retry-after: 1\r\nconnection: close\r\ncontent-length: 67\r\n\r\n\
        {\"error\":\"the server has as many connections as it may; try later\"}";
    let _ = stream.try_write(FULL);
}

/// Answers a request, and records it if it is one of those.
async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Body>, std::convert::Infallible> {
    let tracer = shared.api.tracer.as_ref();
    match tracer.and_then(|tracer| tracer.begin(&request, is_grpc(&request))) {
        // A future of its own on the heap: the others need not be larger for it.
        Some(recording) => Ok(Box::pin(recording.follow(dispatch(shared, request))).await),
        None => Ok(dispatch(shared, request).await),
    }
}

/// Whoever understands the request answers it.
async fn dispatch(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    let doors = shared.api.options.doors;
    if path == metrics::PATH && doors != Doors::AllButMetrics && !is_grpc(&request) {
        return metrics::answer(&shared.api, request).await;
    }
    if doors == Doors::Metrics {
        let message = format!("there is nothing at {path}; this port has {}", metrics::PATH);
        return Failure::new(model::ErrorCode::NotFound, message).into_response();
    }
    let is_registry = rest::registry::understands(path) || rest::alerts::understands(path);
    if rest::understands(path) && !is_registry && !is_grpc(&request) {
        return rest::answer(&shared.api, request).await;
    }
    let router = match is_grpc(&request) {
        true => &shared.grpc,
        false if is_registry => &shared.registry,
        false if rest::mlflow::understands(path) => &shared.mlflow,
        false => &shared.pages,
    };
    let response = match router.clone().oneshot(request.map(axum::body::Body::new)).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    response.map(Body::Stream)
}

/// What the pages' router says to a path that it does not have.
async fn no_page(uri: hyper::Uri) -> Failure {
    let message = format!("there is nothing at {}", uri.path());
    Failure::new(model::ErrorCode::NotFound, message)
}

fn is_grpc(request: &Request<Incoming>) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}
