//! A server around the fake engine.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use model::{Assigned, Assignments, InstanceSettings, Package, Tensor};
use runtime::Engines;
use serving::{Limits, Observations, Options, Request, Seen, Serving, Slo};
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
    pub observations: Option<Observations>,
    pub limits: Limits,
}

impl Default for Setup {
    fn default() -> Self {
        let settings = InstanceSettings { instances: Some(1), ..Default::default() };
        Self {
            behaviour: double(),
            settings,
            slo: None,
            max_queue: 1000,
            observations: None,
            limits: Limits::default(),
        }
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
                "good" => Ok(package().into()),
                other => Err(format!("{other} is corrupt")),
            }),
            assignments: receiver,
            observations: self.observations,
            slo: self.slo,
            max_queue: self.max_queue,
            limits: self.limits,
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

/// An engine that does with each version what a test says for it.
pub struct Zoo {
    /// By `model:version`; what is not in it doubles.
    pub behaviours: BTreeMap<&'static str, Behaviour>,
    pub assigned: Vec<(&'static str, Assigned)>,
    pub limits: Limits,
    pub max_queue: usize,
    pub door: Arc<Door>,
}

impl Zoo {
    /// These versions.
    pub fn of(assigned: impl Into<Vec<(&'static str, Assigned)>>) -> Self {
        Self {
            behaviours: BTreeMap::new(),
            assigned: assigned.into(),
            limits: Limits::default(),
            max_queue: 1000,
            door: Arc::default(),
        }
    }

    pub fn with(mut self, version: &'static str, behaviour: Behaviour) -> Self {
        self.behaviours.insert(version, behaviour);
        self
    }

    /// Starts serving and waits until what is assigned has been dealt with. Observations are of
    /// `m`.
    pub async fn start(self) -> (Server, Seen) {
        let sessions = Arc::new(AtomicUsize::new(0));
        let engine = ZooEngine { behaviours: self.behaviours, sessions: sessions.clone() };
        let mut wanted = Assignments::default();
        for (model, assigned) in self.assigned {
            wanted.models.entry(model.to_owned()).or_default().push(assigned);
        }
        let (assignments, receiver) = watch::channel(wanted);
        let (observations, seen) = Observations::new(1000);
        observations.watch(["m"].into_iter().collect());
        let door = self.door;
        let serving = Serving::start(Options {
            engines: Arc::new(Engines::new(vec![Box::new(engine)])),
            open: Arc::new(move |model, assigned| {
                door.enter();
                if assigned.source != "good" || door.is_broken.load(Ordering::SeqCst) {
                    return Err(format!("{model} is corrupt"));
                }
                let mut package = package();
                let manifest = Arc::make_mut(&mut package.manifest);
                manifest.metadata.insert("is".into(), format!("{model}:{}", assigned.version));
                Ok(package.into())
            }),
            assignments: receiver,
            observations: Some(observations),
            slo: None,
            max_queue: self.max_queue,
            limits: self.limits,
        })
        .unwrap();
        serving.settled().await;
        (Server { serving, assignments, sessions }, seen)
    }
}

/// What every package has to pass to be opened.
#[derive(Default)]
pub struct Door {
    closed: std::sync::Mutex<bool>,
    changed: std::sync::Condvar,
    /// How many packages have come to it.
    pub arrived: watch::Sender<usize>,
    /// Whether every package is corrupt.
    pub is_broken: AtomicBool,
}

impl Door {
    pub fn close(&self) {
        *self.closed.lock().unwrap() = true;
    }

    pub fn open(&self) {
        *self.closed.lock().unwrap() = false;
        self.changed.notify_all();
    }

    /// Waits until this many packages have come since the start.
    pub async fn arrivals(&self, packages: usize) {
        self.arrived.subscribe().wait_for(|arrived| *arrived >= packages).await.unwrap();
    }

    fn enter(&self) {
        self.arrived.send_modify(|arrived| *arrived += 1);
        let closed = self.closed.lock().unwrap();
        drop(self.changed.wait_while(closed, |closed| *closed).unwrap());
    }
}

struct ZooEngine {
    behaviours: BTreeMap<&'static str, Behaviour>,
    sessions: Arc<AtomicUsize>,
}

impl runtime::Engine for ZooEngine {
    fn name(&self) -> &'static str {
        "zoo"
    }
    fn version(&self) -> String {
        "1".into()
    }
    fn supports(&self, _: &Package) -> Result<(), runtime::Error> {
        Ok(())
    }
    fn load(
        &self,
        package: &Package,
        options: &runtime::LoadOptions,
    ) -> Result<Box<dyn runtime::Session>, runtime::Error> {
        let is = package.manifest.metadata["is"].as_str();
        let behaviour = self.behaviours.get(is).cloned().unwrap_or_else(double);
        Fake { behaviour, sessions: self.sessions.clone() }.load(package, options)
    }
}

/// Lets a future run until it waits for something.
pub fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(std::task::Waker::noop()))
}

/// The version that answers.
pub async fn version_for(serving: &Serving, request: Request) -> String {
    serving.infer(request).await.unwrap().info.version.to_string()
}
