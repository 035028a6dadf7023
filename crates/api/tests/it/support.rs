//! A server on a free port, and a client that can also be rude.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use api::proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use api::proto::tensorflow::serving::model_service_client::ModelServiceClient;
use api::proto::tensorflow::serving::prediction_service_client::PredictionServiceClient;
use api::{Access, Api, ApiOptions, Control, Load};
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::{Assigned, Assignments, DataType, ErrorCode, InstanceSettings, Package};
use runtime::Engines;
use serde_json::Value;
use serving::{Limits, Options, Serving};
use testkit::fake::{Fake, Gate};
use testkit::onnx::{Attribute, Model};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

/// A running server. Dropping it stops it.
pub struct Server {
    pub address: std::net::SocketAddr,
    pub serving: Serving,
    pub control: Arc<Recorder>,
    pub stop: Option<oneshot::Sender<()>>,
    pub stopped: tokio::task::JoinHandle<std::io::Result<()>>,
    _assignments: watch::Sender<Assignments>,
}

/// Notes what the repository endpoints ask for.
#[derive(Default)]
pub struct Recorder {
    pub loads: Mutex<Vec<(String, Load)>>,
}

type Done<'a> = Pin<Box<dyn Future<Output = Result<(), (ErrorCode, String)>> + Send + 'a>>;

impl Control for Recorder {
    fn load<'a>(&'a self, name: &'a str, overrides: Load) -> Done<'a> {
        self.loads.lock().unwrap().push((name.to_owned(), overrides));
        Box::pin(async move {
            if name == "broken" {
                return Err((ErrorCode::InvalidArgument, "not an ONNX file".into()));
            }
            Ok(())
        })
    }
    fn unload<'a>(&'a self, name: &'a str) -> Done<'a> {
        Box::pin(async move {
            if name == "add" {
                return Ok(());
            }
            Err((ErrorCode::NotFound, format!("no model \"{name}\" is loaded")))
        })
    }
    fn available(&self) -> Vec<(String, String)> {
        vec![("sleeping".into(), "1".into())]
    }
}

/// `add`: a, b FP32 [N, 2] → sum; `echo`: x BYTES [N] → y; `scores`: x FP32 [N, 3] → p, the
/// softmax; `both`: x FP32 [N, 1] → y, z, the same and its size; `number`: x INT64 [N] → y;
/// `wide`: x FP32 [N, 30] → y, the same; `same`: x FP32 [N, 1] → y, the same.
fn package(name: &str) -> Result<Package, String> {
    let (float, text) = (DataType::Fp32, DataType::Bytes);
    let model = match name {
        "add" => Model::new()
            .input("a", float, &[None, Some(2)])
            .input("b", float, &[None, Some(2)])
            .output("sum", float, &[None, Some(2)])
            .node("", "Add", &["a", "b"], &["sum"], &[]),
        "echo" => Model::new().input("x", text, &[None]).output("y", text, &[None]).node(
            "",
            "Identity",
            &["x"],
            &["y"],
            &[],
        ),
        "scores" => Model::new()
            .input("x", float, &[None, Some(3)])
            .output("p", float, &[None, Some(3)])
            .node("", "Softmax", &["x"], &["p"], &[("axis", Attribute::Int(1))]),
        "both" => Model::new()
            .input("x", float, &[None, Some(1)])
            .output("y", float, &[None, Some(1)])
            .output("z", float, &[None, Some(1)])
            .node("", "Identity", &["x"], &["y"], &[])
            .node("", "Abs", &["x"], &["z"], &[]),
        "wide" => Model::new()
            .input("x", float, &[None, Some(30)])
            .output("y", float, &[None, Some(30)])
            .node("", "Identity", &["x"], &["y"], &[]),
        "same" => Model::new()
            .input("x", float, &[None, Some(1)])
            .output("y", float, &[None, Some(1)])
            .node("", "Identity", &["x"], &["y"], &[]),
        "number" => Model::new()
            .input("x", DataType::Int64, &[None])
            .output("y", DataType::Int64, &[None])
            .node("", "Identity", &["x"], &["y"], &[]),
        other => return Err(format!("no model {other}")),
    };
    import::onnx(model.encode()).map_err(|error| error.to_string())
}

pub async fn start() -> Server {
    start_with(ApiOptions::default()).await
}

pub async fn start_with(options: ApiOptions) -> Server {
    let names = ["add", "echo", "scores", "both", "number", "wide", "same"];
    let models = names.map(|name| (name.to_owned(), vec![assigned()])).into();
    let (assignments, receiver) = watch::channel(Assignments { models });
    let serving = self::serving(receiver, Limits::default());
    serving.settled().await;
    for status in serving.status() {
        assert_eq!(status.state, serving::State::Ready, "{}", status.name);
    }
    serve(serving, assignments, None, options).await
}

/// Serves three versions of `add`: 1 has all the traffic, 2 is pinned to the key `tester`, and 3 is
/// a shadow. Only two of them fit into memory.
pub async fn start_versions() -> Server {
    let version = |version: &str, share| Assigned { version: version.into(), share, ..assigned() };
    let mut versions = vec![version("1", 1), version("2", 0), version("3", 0)];
    versions[1].pinned = vec!["tester".into()];
    versions[2].shadow = true;
    let models = [("add".to_owned(), versions)].into();
    let (assignments, receiver) = watch::channel(Assignments { models });
    let serving = self::serving(receiver, Limits { memory: None, versions: Some(2) });
    serving.settled().await;
    assert!(serving.ready());
    serve(serving, assignments, None, ApiOptions::default()).await
}

/// Serves `m`, one FP32 column `x` → `y`, which doubles behind a gate with one instance; at most
/// `max_queue` requests wait.
pub async fn start_gated(max_queue: usize) -> (Server, Arc<Gate>) {
    let gate = Gate::new();
    let engine = Fake { behaviour: gate.behaviour(), sessions: Default::default() };
    let models = [("m".to_owned(), vec![assigned()])].into();
    let (assignments, receiver) = watch::channel(Assignments { models });
    let serving = Serving::start(Options {
        engines: Arc::new(Engines::new(vec![Box::new(engine)])),
        open: Arc::new(|_, _| Ok(testkit::fake::package().into())),
        assignments: receiver,
        observations: None,
        slo: None,
        max_queue,
        limits: Default::default(),
    })
    .unwrap();
    serving.settled().await;
    (serve(serving, assignments, None, ApiOptions::default()).await, gate)
}

/// Serves no model, and a registry.
pub async fn start_registry(access: Access, options: ApiOptions) -> Server {
    let (assignments, receiver) = watch::channel(Assignments::default());
    let serving = self::serving(receiver, Limits::default());
    serve(serving, assignments, Some(access), options).await
}

fn serving(assignments: watch::Receiver<Assignments>, limits: Limits) -> Serving {
    Serving::start(Options {
        engines: Arc::new(Engines::new(vec![Box::new(runtime::native::Native::default())])),
        open: Arc::new(|name, _| package(name).map(Into::into)),
        assignments,
        observations: None,
        slo: None,
        max_queue: 1000,
        limits,
    })
    .unwrap()
}

fn assigned() -> Assigned {
    Assigned {
        version: "1".into(),
        source: String::new(),
        share: 1,
        shadow: false,
        pinned: Vec::new(),
        settings: InstanceSettings { instances: Some(1), ..Default::default() },
        generation: 0,
    }
}

async fn serve(
    serving: Serving,
    assignments: watch::Sender<Assignments>,
    registry: Option<Access>,
    options: ApiOptions,
) -> Server {
    let control = Arc::new(Recorder::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopping) = oneshot::channel::<()>();
    let api = Api {
        serving: serving.clone(),
        control: control.clone(),
        registry,
        aliases: None,
        alerts: None,
        tracer: None,
        drift: None,
        feedback: None,
        options,
    };
    let stopped = tokio::spawn(api::serve(listener, api, async move {
        let _ = stopping.await;
    }));
    let stop = Some(stop);
    Server { address, serving, control, stop, stopped, _assignments: assignments }
}

/// A connection that speaks gRPC.
///
/// Nothing but HTTP/2 is between it and the server: tonic's own channel would end a call by itself
/// when its `grpc-timeout` is over, and a test could not tell whose timer it was.
#[derive(Clone)]
pub struct Grpc {
    sender: hyper::client::conn::http2::SendRequest<tonic::body::Body>,
    origin: hyper::Uri,
    socket: Arc<std::net::TcpStream>,
}

impl tower::Service<hyper::Request<tonic::body::Body>> for Grpc {
    type Response = hyper::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, request: hyper::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}

impl Grpc {
    /// A path at the server.
    pub fn path(&self, path: &str) -> String {
        format!("{}{path}", self.origin.to_string().trim_end_matches('/'))
    }

    /// Closes the connection, whatever is under way.
    pub fn disconnect(&self) {
        self.socket.shutdown(std::net::Shutdown::Both).unwrap();
    }

    /// The Open Inference Protocol.
    pub fn inference(&self) -> GrpcInferenceServiceClient<Self> {
        GrpcInferenceServiceClient::with_origin(self.clone(), self.origin.clone())
    }

    /// TensorFlow Serving.
    pub fn predictions(&self) -> PredictionServiceClient<Self> {
        PredictionServiceClient::with_origin(self.clone(), self.origin.clone())
    }

    /// TensorFlow Serving's state of models.
    pub fn models(&self) -> ModelServiceClient<Self> {
        ModelServiceClient::with_origin(self.clone(), self.origin.clone())
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_else(|| panic!("{}", self.text())).to_owned()
    }
}

impl Server {
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Connects for gRPC.
    pub async fn grpc(&self) -> Grpc {
        let stream = self.connect().await;
        stream.set_nodelay(true).unwrap();
        let stream = stream.into_std().unwrap();
        let socket = stream.try_clone().unwrap();
        let stream = TcpStream::from_std(stream).unwrap();
        let (executor, stream) = (TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) =
            hyper::client::conn::http2::handshake(executor, stream).await.unwrap();
        tokio::spawn(connection);
        let origin = format!("http://{}", self.address).parse().unwrap();
        Grpc { sender, origin, socket: Arc::new(socket) }
    }

    /// Sends one request on a connection of its own.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut stream = self.connect().await;
        stream.write_all(&request(method, path, headers, body)).await.unwrap();
        read_answer(&mut stream, method == "HEAD").await.expect("an answer")
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"").await
    }

    pub async fn post(&self, path: &str, body: &str) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], body.as_bytes()).await
    }
}

/// The bytes of a request.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n");
    if !headers.iter().any(|(name, _)| matches!(*name, "content-length" | "transfer-encoding")) {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    [text.as_bytes(), body].concat()
}

/// Reads one answer; `None` if the connection ends before its head does.
pub async fn read_answer(stream: &mut TcpStream, no_body: bool) -> Option<Answer> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = bytes.split_off(end + 4);
    while !no_body && body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            break;
        }
    }
    Some(Answer { status, headers, body })
}
