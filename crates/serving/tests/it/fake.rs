//! A server around the fake engine.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use model::{Assigned, Assignments, InstanceSettings, Tensor};
use runtime::Engines;
use serving::{Options, Request, Serving, Slo};
pub use testkit::fake::{Behaviour, Gate};
use testkit::fake::{Fake, double, package};
use tokio::sync::watch;

/// A server with one model, `m`, of one FP32 column `x` → `y`.
pub struct Server {
    pub serving: Serving,
    pub assignments: watch::Sender<Assignments>,
    /// How many sessions of the engine exist.
    pub sessions: Arc<AtomicUsize>,
}

pub struct Setup {
    pub behaviour: Behaviour,
    pub settings: InstanceSettings,
    pub slo: Option<Slo>,
    pub max_queue: usize,
    pub observations: Option<tokio::sync::mpsc::Sender<model::Observation>>,
}

impl Default for Setup {
    fn default() -> Self {
        let settings = InstanceSettings { instances: Some(1), ..Default::default() };
        Self { behaviour: double(), settings, slo: None, max_queue: 1000, observations: None }
    }
}

pub fn assigned(version: &str, share: u32, settings: &InstanceSettings) -> Assigned {
    Assigned {
        version: version.into(),
        source: "good".into(),
        share,
        shadow: false,
        pinned: Vec::new(),
        settings: settings.clone(),
        generation: 0,
    }
}

impl Setup {
    /// Starts serving version 1 and waits until it is ready.
    pub async fn start(self) -> Server {
        let sessions = Arc::new(AtomicUsize::new(0));
        let engine = Fake { behaviour: self.behaviour, sessions: sessions.clone() };
        let wanted = Assignments {
            models: [("m".to_owned(), vec![assigned("1", 1, &self.settings)])].into(),
        };
        let (assignments, receiver) = watch::channel(wanted);
        let serving = Serving::start(Options {
            engines: Arc::new(Engines::new(vec![Box::new(engine)])),
            open: Arc::new(|_, assigned| match assigned.source.as_str() {
                "good" => Ok(package()),
                other => Err(format!("{other} is corrupt")),
            }),
            assignments: receiver,
            observations: self.observations,
            slo: self.slo,
            max_queue: self.max_queue,
        })
        .unwrap();
        serving.settled().await;
        Server { serving, assignments, sessions }
    }
}

impl Server {
    pub async fn infer(&self, values: &[f32]) -> Result<Vec<f32>, serving::Error> {
        infer(&self.serving, request(values)).await
    }
}

pub fn request(values: &[f32]) -> Request {
    let x = Tensor::new(vec![values.len(), 1], values.to_vec()).unwrap();
    Request { model: "m".into(), ..Default::default() }.input("x", x)
}

pub async fn infer(serving: &Serving, request: Request) -> Result<Vec<f32>, serving::Error> {
    let reply = serving.infer(request).await?;
    Ok(reply.outputs[0].1.as_slice::<f32>().unwrap().to_vec())
}
