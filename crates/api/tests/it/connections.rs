//! Clients that send too much, too slowly, or not at all, and servers that stop.

use std::io::Write;
use std::time::{Duration, Instant};

use api::ApiOptions;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{self, read_answer, request};

const ADD: &str = "/v2/models/add/infer";
const GOOD: &str = r#"{"inputs":[{"name":"a","shape":[1,2],"datatype":"FP32","data":[3,4]},{"name":"b","shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#;

fn small() -> ApiOptions {
    ApiOptions {
        max_body_bytes: 10_000,
        header_timeout: Duration::from_millis(300),
        body_timeout: Duration::from_millis(300),
        drain_timeout: Duration::from_secs(5),
        ..ApiOptions::default()
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let server = support::start_with(small()).await;
    let mut stream = server.connect().await;
    let head = request("POST", ADD, &[("content-length", "99999999999")], b"");
    stream.write_all(&head).await.unwrap();
    let answer = read_answer(&mut stream, false).await.unwrap();
    assert_eq!(answer.status, 413);
    assert!(answer.error().contains("99999999999 bytes, but at most 10000"), "{}", answer.error());
}

#[tokio::test]
async fn a_chunked_body_is_bounded_too() {
    let server = support::start_with(small()).await;
    let chunk = [b"2710\r\n".as_slice(), &[b' '; 10_000], b"\r\n"].concat();
    let body = [chunk.as_slice(), &chunk, b"0\r\n\r\n"].concat();
    let answer = server.send("POST", ADD, &[("transfer-encoding", "chunked")], &body).await;
    assert_eq!(answer.status, 413);
    let good = format!("{:x}\r\n{GOOD}\r\n0\r\n\r\n", GOOD.len());
    let answer =
        server.send("POST", ADD, &[("transfer-encoding", "chunked")], good.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn compressed_bodies_are_unpacked_within_the_limit() {
    let server = support::start_with(small()).await;
    let pack = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let gzip = [("content-encoding", "gzip")];
    let answer = server.send("POST", ADD, &gzip, &pack(GOOD.as_bytes())).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let bomb = pack(&vec![b' '; 5_000_000]);
    assert!(bomb.len() < 10_000);
    let answer = server.send("POST", ADD, &gzip, &bomb).await;
    assert_eq!(answer.status, 413);
    assert!(answer.error().contains("unpacks to more"));
}

#[tokio::test]
async fn slow_senders_are_given_up() {
    let server = support::start_with(small()).await;
    let start = Instant::now();
    // A body that does not come.
    let mut body = server.connect().await;
    body.write_all(&request("POST", ADD, &[("content-length", "100")], b"{")).await.unwrap();
    // Headers that do not end, a first byte that could be either protocol's, and silence.
    let mut heads = Vec::new();
    for text in ["POST / HTTP/1.1\r\nhost: x\r\n", "P", ""] {
        let mut stream = server.connect().await;
        stream.write_all(text.as_bytes()).await.unwrap();
        heads.push(stream);
    }
    let answer = read_answer(&mut body, false).await.unwrap();
    assert_eq!(answer.status, 408);
    assert!(answer.error().contains("did not arrive within"));
    for mut stream in heads {
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest))
            .await
            .expect("the server closes the connection");
    }
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(server.post(ADD, GOOD).await.status, 200);
}

#[tokio::test]
async fn half_closed_and_lying_connections_do_no_harm() {
    let server = support::start_with(small()).await;
    // Says more than it sends, then closes its side.
    let mut stream = server.connect().await;
    stream
        .write_all(&request("POST", ADD, &[("content-length", "500")], GOOD.as_bytes()))
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "the server holds on to a connection that is over");
    // Says less than it sends: the rest is not taken for part of the body.
    let length = (GOOD.len() - 1).to_string();
    let answer = server.send("POST", ADD, &[("content-length", &length)], GOOD.as_bytes()).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    // Bytes that are not HTTP.
    let mut stream = server.connect().await;
    stream.write_all(b"\x16\x03\x01\x00\xa5\x01\x00\x00").await.unwrap();
    let _ =
        tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(server.post(ADD, GOOD).await.status, 200);
}

#[tokio::test]
async fn connections_over_the_limit_are_turned_away() {
    let options = ApiOptions { max_connections: 2, ..ApiOptions::default() };
    let server = support::start_with(options).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = server.connect().await;
        stream.write_all(&request("GET", "/v2/health/live", &[], b"")).await.unwrap();
        assert_eq!(read_answer(&mut stream, false).await.unwrap().status, 200);
        held.push(stream);
    }
    let mut stream = server.connect().await;
    let answer = read_answer(&mut stream, false).await.unwrap();
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert!(answer.error().contains("as many connections"));
}

#[tokio::test]
async fn a_connection_serves_many_requests_also_when_they_are_pipelined() {
    let server = support::start().await;
    let mut stream = server.connect().await;
    let one = request("POST", ADD, &[], GOOD.as_bytes());
    stream.write_all(&one.repeat(3)).await.unwrap();
    let mut text = Vec::new();
    while text.windows(9).filter(|w| w == b"[4.0,6.0]").count() < 3 {
        assert_ne!(stream.read_buf(&mut text).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_stopping_server_closes_idle_connections_and_returns() {
    let mut server = support::start_with(small()).await;
    let mut idle = server.connect().await;
    idle.write_all(&request("GET", "/v2", &[], b"")).await.unwrap();
    assert_eq!(read_answer(&mut idle, false).await.unwrap().status, 200);
    server.stop.take().unwrap().send(()).unwrap();
    let stopped = tokio::time::timeout(Duration::from_secs(3), &mut server.stopped).await;
    assert!(stopped.expect("it stops").unwrap().is_ok());
    assert!(tokio::net::TcpStream::connect(server.address).await.is_err());
}

/// Everything that comes before the server closes the connection.
async fn rest_of(mut stream: tokio::net::TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    // A reset after the answer is as good as a close.
    let _ = tokio::time::timeout(Duration::from_secs(5), read).await.expect("the server closes");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn floods_of_headers_are_cut_off() {
    let server = support::start_with(small()).await;
    let long = "x".repeat(70_000);
    let one = format!("GET /v2 HTTP/1.1\r\nhost: x\r\nx-a: {long}\r\n\r\n");
    let many: String = (0..5_000).map(|index| format!("x-{index}: a-value\r\n")).collect();
    let many = format!("GET /v2 HTTP/1.1\r\nhost: x\r\n{many}\r\n");
    let unending = format!("GET /v2 HTTP/1.1\r\nhost: x\r\nx-a: {}", "x".repeat(1 << 20));
    let path = format!("GET /v2/{long} HTTP/1.1\r\nhost: x\r\n\r\n");
    for text in [one, many, unending, path] {
        let mut stream = server.connect().await;
        // The server may close before it has all of it.
        let _ = stream.write_all(text.as_bytes()).await;
        let answer = rest_of(stream).await;
        // Where the server had closed before all was sent, the reset may have eaten the answer.
        let refused = answer.is_empty()
            || answer.starts_with("HTTP/1.1 431")
            || answer.starts_with("HTTP/1.1 414");
        assert!(refused, "{}: {answer}", &text[..40]);
    }
    assert_eq!(server.post(ADD, GOOD).await.status, 200);
}

#[tokio::test]
async fn a_flood_of_metadata_fails_its_own_call_only() {
    let server = support::start_with(small()).await;
    let grpc = server.grpc().await;
    let mut flood = tonic::Request::new(api::proto::inference::ServerLiveRequest {});
    flood.metadata_mut().insert("x-flood", "x".repeat(100_000).parse().unwrap());
    let mut client = grpc.inference();
    let call = client.server_live(flood);
    let flooded = tokio::time::timeout(Duration::from_secs(5), call).await.expect("an answer");
    assert!(flooded.is_err());
    let live = grpc.inference().server_live(api::proto::inference::ServerLiveRequest {}).await;
    assert!(live.unwrap().into_inner().live);
}

#[tokio::test]
async fn lengths_that_contradict_themselves_are_refused() {
    let server = support::start().await;
    let length = GOOD.len().to_string();
    for headers in [
        vec![("content-length", length.as_str()), ("content-length", "3")],
        vec![("content-length", "+20")],
        vec![("content-length", "20x")],
        vec![("content-length", "-1")],
        vec![("content-length", "99999999999999999999999")],
    ] {
        let answer = server.send("POST", ADD, &headers, GOOD.as_bytes()).await;
        assert_eq!(answer.status, 400, "{headers:?}");
    }
    for chunk in ["zz\r\n", "ffffffffffffffffff\r\n", "-1\r\n"] {
        let chunked = [("transfer-encoding", "chunked")];
        let answer = server.send("POST", ADD, &chunked, chunk.as_bytes()).await;
        assert_eq!(answer.status, 400, "{chunk}");
    }
    assert_eq!(server.post(ADD, GOOD).await.status, 200);
}

#[tokio::test]
async fn a_body_in_many_pieces_is_one_body() {
    let server = support::start().await;
    let mut stream = server.connect().await;
    stream.set_nodelay(true).unwrap();
    for piece in request("POST", ADD, &[], GOOD.as_bytes()).chunks(7) {
        stream.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    let answer = read_answer(&mut stream, false).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Sends bytes as the body of a gRPC call, and says how it ended.
async fn raw_call(server: &support::Server, body: Vec<u8>) -> tonic::Code {
    call_with(server, tonic::body::Body::new(http_body_util::Full::from(body))).await
}

async fn call_with(server: &support::Server, body: tonic::body::Body) -> tonic::Code {
    let mut grpc = server.grpc().await;
    let request = hyper::Request::post(grpc.path("/inference.GRPCInferenceService/ModelInfer"))
        .header("content-type", "application/grpc")
        .body(body)
        .unwrap();
    let answer = tower::Service::call(&mut grpc, request).await.unwrap();
    if let Some(status) = tonic::Status::from_header_map(answer.headers()) {
        return status.code();
    }
    let collected = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
    tonic::Status::from_header_map(collected.trailers().unwrap()).unwrap().code()
}

#[tokio::test]
async fn slow_senders_of_grpc_messages_are_given_up() {
    use tokio_stream::StreamExt;
    let server = support::start_with(small()).await;
    for pieces in [vec![], vec![&b"\0\0"[..]], vec![&b"\0\0\0\0\x64"[..], b"half a message"]] {
        let pieces = pieces.into_iter().map(|piece| {
            let data = bytes::Bytes::from_static(piece);
            Ok::<_, tonic::Status>(hyper::body::Frame::data(data))
        });
        let body = tokio_stream::iter(pieces).chain(tokio_stream::pending());
        let body = tonic::body::Body::new(http_body_util::StreamBody::new(body));
        let call = tokio::time::timeout(Duration::from_secs(5), call_with(&server, body));
        assert_eq!(call.await.expect("it is given up"), tonic::Code::DeadlineExceeded);
    }
    assert_eq!(server.post(ADD, GOOD).await.status, 200);
}

#[tokio::test]
async fn grpc_messages_that_lie_or_are_too_long_are_refused() {
    let server = support::start_with(small()).await;
    let framed = |length: u32, body: &[u8]| [&[0], &length.to_be_bytes()[..], body].concat();
    let endless = raw_call(&server, framed(u32::MAX, b"")).await;
    assert_eq!(endless, tonic::Code::OutOfRange, "a length over the limit");
    let long = raw_call(&server, framed(10_001, &[0; 10_001])).await;
    assert_eq!(long, tonic::Code::OutOfRange, "a message over the limit");
    let short = raw_call(&server, framed(100, b"short")).await;
    assert_eq!(short, tonic::Code::Internal, "less than its length");
    let garbage = raw_call(&server, framed(5, &[0xff; 5])).await;
    assert_eq!(garbage, tonic::Code::Internal, "no message");
    let nothing = raw_call(&server, Vec::new()).await;
    assert_eq!(nothing, tonic::Code::Internal, "nothing at all");
    assert_eq!(server.post(ADD, GOOD).await.status, 200);
}
