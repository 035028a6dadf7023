//! Deadlines, callers that go away, and refusals that say when to ask again, over REST and gRPC.
//!
//! The engine waits at a gate: what is behind it runs when the test says so. Nothing here sleeps.

use std::sync::Arc;
use std::time::Duration;

use api::proto::inference as pb;
use pb::infer_parameter::ParameterChoice;
use pb::model_infer_request::InferInputTensor;
use prost::Message;
use testkit::fake::Gate;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tonic::Code;

use crate::support::{self, Answer, Grpc, Server, request};

const M: &str = "/v2/models/m/infer";

/// A test that waits for what never comes fails, and says so.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it takes no time")
}

fn body(value: f32, parameters: &str) -> String {
    let input = format!(r#"{{"name":"x","shape":[1,1],"datatype":"FP32","data":[{value:?}]}}"#);
    format!(r#"{{"parameters":{{{parameters}}},"inputs":[{input}]}}"#)
}

fn message(value: f32) -> pb::ModelInferRequest {
    let input = InferInputTensor {
        name: "x".into(),
        datatype: "FP32".into(),
        shape: vec![1, 1],
        ..Default::default()
    };
    pb::ModelInferRequest {
        model_name: "m".into(),
        inputs: vec![input],
        raw_input_contents: vec![value.to_le_bytes().to_vec().into()],
        ..Default::default()
    }
}

/// Closes the gate and has the one instance run this value's request, until a permit.
async fn hold(server: &Server, gate: &Gate, value: f32) -> JoinHandle<Answer> {
    gate.close();
    let held = post(server, body(value, ""));
    soon(gate.arrivals(1)).await;
    held
}

fn post(server: &Server, body: String) -> JoinHandle<Answer> {
    let address = server.address;
    tokio::spawn(async move {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(&request("POST", M, &[], body.as_bytes())).await.unwrap();
        support::read_answer(&mut stream, false).await.expect("an answer")
    })
}

/// Waits until so many requests are in the queue and somebody waits for them.
async fn waiting(server: &Server, count: usize) {
    soon(async {
        while server.serving.statistics(Some("m"), None)[0].waiting != count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Opens the gate, waits for the request that was held, and says which values have run.
async fn ran(server: &Server, gate: &Arc<Gate>, held: JoinHandle<Answer>) -> Vec<f32> {
    gate.permit(1000);
    assert_eq!(soon(held).await.unwrap().status, 200);
    soon(server.serving.drain()).await;
    gate.batches.lock().unwrap().concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_the_wait_however_it_is_said_and_nothing_is_run_for_it() {
    let (server, gate) = support::start_gated(1000).await;
    let held = hold(&server, &gate, 1.0).await;
    let header = |ms| [("x-request-timeout-ms", ms)];
    for (headers, parameters) in [
        (&header("30")[..], ""),
        (&[], r#""timeout":30000"#),
        // The earlier of the two counts.
        (&header("60000"), r#""timeout":30000"#),
        (&header("30"), r#""timeout":60000000"#),
    ] {
        let body = body(2.0, parameters);
        let answer = soon(server.send("POST", M, headers, body.as_bytes())).await;
        assert_eq!(answer.status, 504, "{headers:?} {parameters}: {}", answer.text());
        assert_eq!(answer.error(), "the request's time was up before its turn came");
    }
    let grpc = server.grpc().await;
    for (call, parameter) in [
        (Some("30m"), None),
        (Some("30000u"), None),
        (None, Some(30_000)),
        (Some("60S"), Some(30_000)),
        (Some("30m"), Some(60_000_000)),
    ] {
        let mut message = message(3.0);
        if let Some(microseconds) = parameter {
            let choice = Some(ParameterChoice::Int64Param(microseconds));
            let parameter = pb::InferParameter { parameter_choice: choice };
            message.parameters.insert("timeout".into(), parameter);
        }
        let mut request = tonic::Request::new(message);
        if let Some(text) = call {
            request.metadata_mut().insert("grpc-timeout", text.parse().unwrap());
        }
        let status = soon(grpc.inference().model_infer(request)).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{call:?} {parameter:?}: {status:?}");
        assert_eq!(status.message(), "the request's time was up before its turn came");
    }
    assert_eq!(ran(&server, &gate, held).await, [1.0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rest_client_that_goes_away_takes_its_request_along() {
    let (server, gate) = support::start_gated(1000).await;
    let held = hold(&server, &gate, 1.0).await;
    let mut reset = server.connect().await;
    reset.write_all(&request("POST", M, &[], body(2.0, "").as_bytes())).await.unwrap();
    let mut closed = server.connect().await;
    closed.write_all(&request("POST", M, &[], body(3.0, "").as_bytes())).await.unwrap();
    waiting(&server, 2).await;
    drop(reset);
    waiting(&server, 1).await;
    // One that closes its side only is taken for gone too, and the server closes the other.
    closed.shutdown().await.unwrap();
    let mut rest = Vec::new();
    soon(closed.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty());
    waiting(&server, 0).await;
    assert_eq!(ran(&server, &gate, held).await, [1.0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_client_that_goes_away_takes_its_request_along() {
    let (server, gate) = support::start_gated(1000).await;
    let held = hold(&server, &gate, 1.0).await;
    let grpc: Grpc = server.grpc().await;
    let call = |value: f32| {
        let mut client = grpc.inference();
        tokio::spawn(async move { client.model_infer(message(value)).await })
    };
    let (cancelled, kept) = (call(2.0), call(3.0));
    let mut client = grpc.inference();
    let stream = tokio_stream::iter([message(4.0), message(5.0)]);
    let answers = soon(client.model_stream_infer(stream)).await.unwrap();
    waiting(&server, 4).await;
    cancelled.abort();
    waiting(&server, 3).await;
    drop(answers);
    waiting(&server, 1).await;
    assert_eq!(ran(&server, &gate, held).await, [1.0, 3.0]);
    assert!(soon(kept).await.unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_takes_all_its_requests_along() {
    let (server, gate) = support::start_gated(1000).await;
    let held = hold(&server, &gate, 1.0).await;
    let grpc = server.grpc().await;
    let calls: Vec<_> = [2.0, 3.0, 4.0]
        .into_iter()
        .map(|value| {
            let mut client = grpc.inference();
            tokio::spawn(async move { client.model_infer(message(value)).await })
        })
        .collect();
    waiting(&server, 3).await;
    grpc.disconnect();
    for call in calls {
        assert!(soon(call).await.unwrap().is_err());
    }
    waiting(&server, 0).await;
    assert_eq!(ran(&server, &gate, held).await, [1.0]);
}

/// `google.rpc.Status` with details that are [`RetryInfo`].
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(message, optional, tag = "2")]
    value: Option<RetryInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<RetryDelay>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryDelay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// Both protocols refuse, with this code and message, and say when to ask again.
async fn refused(server: &Server, status: u16, code: Code, says: &str) {
    let answer = soon(server.post(M, &body(9.0, ""))).await;
    assert_eq!(answer.status, status, "{}", answer.text());
    assert!(answer.error().contains(says), "{}", answer.text());
    let seconds: u64 = answer.header("retry-after").expect("Retry-After").parse().unwrap();
    assert!(seconds >= 1);
    let call = server.grpc().await.inference().model_infer(message(9.0)).await;
    let refusal = call.unwrap_err();
    assert_eq!(refusal.code(), code, "{refusal:?}");
    assert_eq!(refusal.message(), answer.error());
    let metadata = |name| refusal.metadata().get(name).expect(name).to_str().unwrap();
    assert_eq!(metadata("retry-after").parse::<u64>().unwrap(), seconds);
    assert!(metadata("grpc-retry-pushback-ms").parse::<u64>().unwrap() >= 1);
    let details = RpcStatus::decode(refusal.details()).unwrap().details;
    assert_eq!(details[0].type_url, "type.googleapis.com/google.rpc.RetryInfo");
    let delay = details[0].value.as_ref().unwrap().retry_delay.as_ref().unwrap();
    assert!(delay.seconds > 0 || delay.nanos > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_when_to_ask_again() {
    let (server, gate) = support::start_gated(1).await;
    let held = hold(&server, &gate, 1.0).await;
    let second = post(&server, body(2.0, ""));
    waiting(&server, 1).await;
    let says = "1 requests are waiting already, which is the limit; try again later";
    refused(&server, 429, Code::ResourceExhausted, says).await;
    assert_eq!(server.serving.statistics(None, None)[0].refused, 2);
    // A server that is about to stop answers what it has taken, and nothing else.
    assert_eq!(ran(&server, &gate, held).await, [1.0, 2.0]);
    assert_eq!(soon(second).await.unwrap().status, 200);
    refused(&server, 503, Code::Unavailable, "the server is shutting down").await;
}
