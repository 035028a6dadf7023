//! A tiny server for the client verbs: speaks just enough of the Open Inference Protocol.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A request as a test's answerer sees it: path and JSON body (null if there is none).
pub type Answer = fn(&str, Value) -> (u16, Value);

/// Starts a server that lives as long as the test process, and returns `host:port`.
///
/// `/stall` anywhere in a path makes the answer wait for 300 ms.
pub fn start(answer: Answer) -> String {
    let (sender, receiver) = mpsc::channel::<SocketAddr>();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let service = service_fn(move |request| respond(request, answer));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move { drop(connection.await) });
            }
        });
    });
    receiver.recv().unwrap().to_string()
}

async fn respond(
    request: Request<Incoming>,
    answer: Answer,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    if path.contains("stall") {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let (status, json) = answer(&path, serde_json::from_slice(&body).unwrap_or(Value::Null));
    let body = Full::new(Bytes::from(json.to_string()));
    Ok(Response::builder().status(status).body(body).unwrap())
}

/// Serves the model `double`: `x` FP32 [-1, 2] → `y`, twice as much. Refuses negative numbers, so
/// that tests have a guilty row.
pub fn double(path: &str, body: Value) -> (u16, Value) {
    let tensor = |name| json!({"name": name, "datatype": "FP32", "shape": [-1, 2]});
    match path {
        "/v2" => (200, json!({"name": "test", "version": "1", "extensions": []})),
        "/v2/models/double" => (
            200,
            json!({"name": "double", "versions": ["1"], "platform": "test",
                   "inputs": [tensor("x")], "outputs": [tensor("y")]}),
        ),
        "/v2/models/double/infer" => {
            let input = &body["inputs"][0];
            let values: Vec<f64> =
                input["data"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
            if values.iter().any(|value| *value < 0.0) {
                return (400, json!({"error": "input \"x\": negative"}));
            }
            let data: Vec<f64> = values.iter().map(|value| value * 2.0).collect();
            let output =
                json!({"name": "y", "datatype": "FP32", "shape": input["shape"], "data": data});
            (200, json!({"model_name": "double", "model_version": "1", "outputs": [output]}))
        }
        "/v1/models/double:predict" => (200, json!({"outputs": body["inputs"]})),
        "/busy" => (503, json!({"error": "busy"})),
        _ if path.contains("stall") => (200, json!({})),
        _ => (404, json!({"error": format!("unknown path {path}")})),
    }
}
