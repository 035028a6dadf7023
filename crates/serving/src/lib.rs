//! The request's path: admit, validate, batch, run, reply; and the loading and unloading of versions.
//!
//! Knows nothing of HTTP, protobuf or the registry: it is told what is wanted through a
//! `watch::Receiver<Assignments>` and says what happened through a bounded `Sender<Observation>`.

mod error;
mod reply;

use std::sync::Arc;

use model::{Assigned, Assignments, Observation, Package};
use runtime::Engines;
use tokio::sync::{mpsc, watch};

pub use error::Error;
pub use reply::{
    BatchStatistics, Count, ModelInfo, Reply, Request, Slo, State, Statistics, Status,
};

/// Opens the package that an assignment names. Called on the loader's thread, never on one that
/// serves.
pub type Open = Arc<dyn Fn(&str, &Assigned) -> Result<Package, String> + Send + Sync>;

/// What serving is started with.
pub struct Options {
    /// The engines of this machine.
    pub engines: Arc<Engines>,
    /// How an assignment becomes a package.
    pub open: Open,
    /// What is wanted.
    pub assignments: watch::Receiver<Assignments>,
    /// Where observations go, if anyone watches.
    pub observations: Option<mpsc::Sender<Observation>>,
    /// What admitted requests are promised, if anything.
    pub slo: Option<Slo>,
    /// The most requests that may wait per version before further ones are refused.
    pub max_queue: usize,
}

/// The models being served. Cheap to clone.
#[derive(Clone)]
pub struct Serving {}

impl Serving {
    /// Starts the loader, which follows the assignments.
    pub fn start(_options: Options) -> Self {
        Self {}
    }

    /// Answers one request.
    pub async fn infer(&self, _request: Request) -> Result<Reply, Error> {
        Err(Error::new(model::ErrorCode::Unimplemented, "not built yet"))
    }

    /// A version that is ready: the one named, or the one that traffic without a version gets.
    pub fn model(&self, _name: &str, _version: Option<&str>) -> Result<Arc<ModelInfo>, Error> {
        Err(Error::new(model::ErrorCode::Unimplemented, "not built yet"))
    }

    /// Every version that is known, with its state, by model name and then version.
    pub fn status(&self) -> Vec<Status> {
        Vec::new()
    }

    /// Whether every wanted version is ready.
    pub fn ready(&self) -> bool {
        false
    }

    /// Counters of a version, or of every version of a model, or of all.
    pub fn statistics(&self, _name: Option<&str>, _version: Option<&str>) -> Vec<Statistics> {
        Vec::new()
    }

    /// Waits until the loader has dealt with everything that was assigned before this call.
    pub async fn settled(&self) {}

    /// Takes no new requests and waits until the running ones are answered.
    pub async fn drain(&self) {}
}
