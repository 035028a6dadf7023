//! What goes into serving and what comes out, in values that every protocol can write.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use model::{InstanceSettings, Manifest, Signature, Tensor};

use crate::meter::Protocol;
use crate::shadow::ShadowCount;

/// One request, decoded from whichever protocol it came by.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The model's name.
    pub model: String,
    /// The version, if the caller named one.
    pub version: Option<String>,
    /// The caller's key: requests with the same key get the same version.
    pub key: Option<String>,
    /// The caller's id; it comes back in the reply.
    pub id: Option<String>,
    /// Named inputs, in any order.
    pub inputs: Vec<(String, Tensor)>,
    /// The outputs that are wanted; empty for all.
    pub outputs: Vec<String>,
    /// 1 is the most urgent; 0 means the default, which is between the extremes.
    pub priority: u32,
    /// When the answer is of no more use.
    pub deadline: Option<Instant>,
    /// How it came.
    pub protocol: Protocol,
}

/// Which model a request is for, and which of its versions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Target<'a> {
    /// The model's name.
    pub model: &'a str,
    /// The version, if the caller named one.
    pub version: Option<&'a str>,
    /// The caller's key: requests with the same key get the same version.
    pub key: Option<&'a str>,
    /// When the answer is of no more use.
    pub deadline: Option<Instant>,
    /// How the request came.
    pub protocol: Protocol,
}

impl Request {
    /// Which version it is for.
    pub fn target(&self) -> Target<'_> {
        Target {
            model: &self.model,
            version: self.version.as_deref(),
            key: self.key.as_deref(),
            deadline: self.deadline,
            protocol: self.protocol,
        }
    }
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The version that answered.
    pub info: Arc<ModelInfo>,
    /// The id of the request.
    pub id: Option<String>,
    /// Wanted outputs in the order wanted: position in `info.signature.outputs`, and the tensor.
    pub outputs: Vec<(usize, Tensor)>,
    /// Rows that ran together.
    pub batch_size: usize,
    /// Time waited for an instance.
    pub queue: Duration,
    /// Time in the engine.
    pub compute: Duration,
}

/// A version that is ready.
#[derive(Clone, Debug)]
pub struct ModelInfo {
    /// The model's name.
    pub name: Arc<str>,
    /// The version.
    pub version: Arc<str>,
    /// What it takes and gives.
    pub signature: Arc<Signature>,
    /// What is known of the package.
    pub manifest: Arc<Manifest>,
    /// The engine that runs it.
    pub engine: &'static str,
    /// How it is run, with every choice made.
    pub settings: InstanceSettings,
    /// The most rows that are run together; 0 if rows cannot be stacked.
    pub max_batch_size: usize,
    /// How long loading, verifying and warming took.
    pub load_time: Duration,
    /// Bytes of memory that it is reckoned to hold while it is loaded.
    pub memory: u64,
}

/// Where a version is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Wanted, and not ready yet.
    Loading,
    /// Answers requests.
    Ready,
    /// Not in memory now, to spare it; loaded again as soon as somebody asks for it.
    OnDemand,
    /// No longer wanted; its last requests are being answered.
    Unloading,
    /// Not loaded; why, if loading failed.
    Unavailable(Option<String>),
}

impl State {
    /// Whether a request is answered, at once or after a load.
    pub fn answers(&self) -> bool {
        matches!(self, Self::Ready | Self::OnDemand)
    }
}

/// A version and its state.
#[derive(Clone, Debug)]
pub struct Status {
    /// The model's name.
    pub name: Arc<str>,
    /// The version.
    pub version: Arc<str>,
    /// Where it is in its life.
    pub state: State,
    /// What it is, once it has been loaded.
    pub info: Option<Arc<ModelInfo>>,
    /// Why the last attempt to load it again failed, while the one before it goes on serving.
    pub failure: Option<String>,
}

/// What admitted requests are promised: this share of them within this time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slo {
    /// Between 0 and 1, such as 0.99.
    pub quantile: f64,
    /// From admission to reply.
    pub time: Duration,
}

/// A number of events and the time they took together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How many.
    pub count: u64,
    /// Their total time.
    pub time: Duration,
}

/// Executions of one batch size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchStatistics {
    /// Rows that ran together.
    pub batch_size: u64,
    /// Runs of the engine.
    pub compute: Count,
}

/// Counters of one version since it was assigned.
#[derive(Clone, Debug)]
pub struct Statistics {
    /// The model's name.
    pub name: Arc<str>,
    /// The version.
    pub version: Arc<str>,
    /// When it last took a request.
    pub last_inference: Option<SystemTime>,
    /// Rows that were answered.
    pub inference_count: u64,
    /// Runs of the engine.
    pub execution_count: u64,
    /// Requests that were answered, from admission to reply.
    pub success: Count,
    /// Requests that failed after they were admitted.
    pub fail: Count,
    /// Time waited for an instance.
    pub queue: Count,
    /// Time in the engine.
    pub compute: Count,
    /// Requests refused before any work.
    pub refused: u64,
    /// Requests that wait now, without those whose caller has gone or whose deadline is past.
    pub waiting: usize,
    /// By batch size, smallest first.
    pub batches: Vec<BatchStatistics>,
    /// Copies of requests to other versions, whose answers nobody saw; counted nowhere else.
    pub shadows: ShadowCount,
    /// Bytes of memory that it is reckoned to hold; 0 if it is not loaded at the moment.
    pub memory: u64,
}
