//! An engine whose behaviour a test decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use model::{
    DataType, Dimension, Format, Manifest, Package, Program, Signature, Tensor, TensorSpec,
};
use runtime::{Engine, Error, LoadOptions, Session};
use tokio::sync::watch;

/// What the fake engine does with a batch.
pub type Behaviour = Arc<dyn Fn(&[f32]) -> Result<Vec<f32>, Error> + Send + Sync>;

/// Doubles every value.
pub fn double() -> Behaviour {
    Arc::new(|values| Ok(values.iter().map(|v| v * 2.0).collect()))
}

/// An engine that runs any package the same way.
pub struct Fake {
    /// What it does with a batch.
    pub behaviour: Behaviour,
    /// How many sessions exist.
    pub sessions: Arc<AtomicUsize>,
}

struct FakeSession {
    behaviour: Behaviour,
    sessions: Arc<AtomicUsize>,
}

impl Drop for FakeSession {
    fn drop(&mut self) {
        self.sessions.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Engine for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }
    fn version(&self) -> String {
        "1".into()
    }
    fn supports(&self, _: &Package) -> Result<(), Error> {
        Ok(())
    }
    fn load(&self, _: &Package, _: &LoadOptions) -> Result<Box<dyn Session>, Error> {
        self.sessions.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(FakeSession {
            behaviour: self.behaviour.clone(),
            sessions: self.sessions.clone(),
        }))
    }
}

impl Session for FakeSession {
    fn run(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, Error> {
        let x = inputs[0].unwrap();
        let y = (self.behaviour)(x.as_slice::<f32>().unwrap())?;
        Ok(vec![Tensor::new(x.shape().to_vec(), y).unwrap()])
    }
}

/// A package for the fake engine: one FP32 column `x` → `y`.
pub fn package() -> Package {
    let column = || vec![Dimension::Symbolic("N".into()), Dimension::Fixed(1)];
    let signature = Signature {
        inputs: vec![TensorSpec::new("x", DataType::Fp32, column())],
        outputs: vec![TensorSpec::new("y", DataType::Fp32, column())],
        batched: true,
    };
    Package {
        manifest: Arc::new(Manifest::new(Format::Onnx, "sha256:0".into(), 0, signature)),
        program: Program::Onnx(Default::default()),
        bytes: Default::default(),
        path: None,
        external: Vec::new(),
    }
}

/// An engine that waits at a gate, so that a test decides when a run ends.
///
/// The warm-up passes; afterwards each run takes one permit.
pub struct Gate {
    permits: std::sync::Mutex<Option<usize>>,
    changed: std::sync::Condvar,
    /// The batches that have run since the gate was closed.
    pub batches: std::sync::Mutex<Vec<Vec<f32>>>,
    /// Tells how many runs have arrived at the gate since it was closed.
    pub arrived: watch::Sender<usize>,
}

impl Gate {
    /// An open gate.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            permits: std::sync::Mutex::new(None),
            changed: std::sync::Condvar::new(),
            batches: Default::default(),
            arrived: watch::Sender::new(0),
        })
    }

    /// From now on a run waits for a permit.
    pub fn close(&self) {
        *self.permits.lock().unwrap() = Some(0);
    }

    /// Lets this many runs through.
    pub fn permit(&self, runs: usize) {
        *self.permits.lock().unwrap().get_or_insert(0) += runs;
        self.changed.notify_all();
    }

    /// Waits until this many runs have arrived since the gate was closed.
    pub async fn arrivals(&self, runs: usize) {
        self.arrived.subscribe().wait_for(|arrived| *arrived >= runs).await.unwrap();
    }

    /// An engine behind the gate that doubles. Before the gate is closed a run takes so long that
    /// no later one is expected to be short enough for the caller's thread.
    pub fn behaviour(self: &Arc<Self>) -> Behaviour {
        let gate = self.clone();
        Arc::new(move |values| {
            let mut permits = gate.permits.lock().unwrap();
            if permits.is_none() {
                drop(permits);
                std::thread::sleep(Duration::from_millis(2));
            } else {
                gate.arrived.send_modify(|arrived| *arrived += 1);
                gate.batches.lock().unwrap().push(values.to_vec());
                permits = gate.changed.wait_while(permits, |p| *p == Some(0)).unwrap();
                *permits = permits.map(|p| p - 1);
            }
            double()(values)
        })
    }
}
