//! The request's path: admit, validate, batch, run, reply; and the loading and unloading of versions.
//!
//! Knows nothing of HTTP, protobuf or the registry: it is told what is wanted through a
//! `watch::Receiver<Assignments>` and says what happened through a bounded `Sender<Observation>`.

mod cost;
mod error;
mod loader;
mod queue;
mod reply;
mod validate;
mod version;
mod warm_up;
mod worker;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use model::{Assigned, Assignments, ErrorCode, Observation, Outcome, Package, Tensor};
use runtime::Engines;
use tokio::sync::{mpsc, watch};

use loader::{Loader, Shared};
use version::{Admission, Refusal, Version};
use worker::Answer;

pub use error::Error;
pub use reply::{
    BatchStatistics, Count, ModelInfo, Reply, Request, Slo, State, Statistics, Status,
};
pub use validate::unknown_input;

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
pub struct Serving {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    assignments: watch::Receiver<Assignments>,
    observations: Option<mpsc::Sender<Observation>>,
    dropped_observations: AtomicU64,
    draining: AtomicBool,
    /// Counts requests that name no version, so that shares are met exactly and without a random
    /// number on the request's path.
    turn: AtomicU64,
}

impl Serving {
    /// Starts the loader, which follows the assignments. Must be called inside a tokio runtime.
    pub fn start(options: Options) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            table: RwLock::default(),
            status: Mutex::default(),
            applied: watch::Sender::new(None),
        });
        let mut loader = Loader {
            engines: options.engines,
            open: options.open,
            shared: shared.clone(),
            admission: Admission { slo: options.slo, max_queue: options.max_queue },
            running: Default::default(),
            failed: Default::default(),
        };
        let mut assignments = options.assignments.clone();
        let runtime = tokio::runtime::Handle::current();
        std::thread::Builder::new().name("loader".into()).spawn(move || {
            loop {
                let wanted = assignments.borrow_and_update().clone();
                loader.apply(&wanted);
                if runtime.block_on(assignments.changed()).is_err() {
                    // Nobody can want anything else any more; what is loaded goes on serving.
                    return;
                }
            }
        })?;
        let inner = Inner {
            shared,
            assignments: options.assignments,
            observations: options.observations,
            dropped_observations: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            turn: AtomicU64::new(0),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Answers one request.
    pub async fn infer(&self, request: Request) -> Result<Reply, Error> {
        let received = self.inner.observations.is_some().then(SystemTime::now);
        let mut version = self.version(&request.model, request.version.as_deref())?;
        let mut valid =
            validate::validate(&version.info.signature, request.inputs, &request.outputs)?;
        loop {
            let inputs = received.map(|_| valid.inputs().clone());
            let outputs = valid.outputs().to_vec();
            let answered = version.answer(valid, request.priority, request.deadline).await;
            let outcome = match answered {
                Err(Refusal::Closing(unanswered)) => {
                    // The version was reloaded or removed since it was chosen: choose again.
                    version = self.version(&request.model, request.version.as_deref())?;
                    let names = version.info.signature.inputs.iter().map(|s| s.name.to_string());
                    let inputs = names.zip(unanswered.inputs().iter().cloned());
                    let inputs =
                        inputs.filter_map(|(name, tensor)| Some((name, tensor?))).collect();
                    valid = validate::validate(&version.info.signature, inputs, &request.outputs)?;
                    continue;
                }
                Err(Refusal::Error(error)) => Err(error),
                Ok(answer) => Ok(answer),
            };
            if let (Some(at), Some(inputs)) = (received, inputs) {
                let who = (request.id.as_deref(), request.key.as_deref());
                self.observe(&version, who, at, inputs, &outcome);
            }
            let answer = outcome?;
            return Ok(Reply {
                info: version.info.clone(),
                id: request.id,
                batch_size: answer.batch_size,
                queue: answer.queue,
                compute: answer.compute,
                outputs: choose_outputs(answer.outputs, &outputs),
            });
        }
    }

    /// A version that is ready: the one named, or the one that traffic without a version gets.
    pub fn model(&self, name: &str, version: Option<&str>) -> Result<Arc<ModelInfo>, Error> {
        self.version(name, version).map(|version| version.info.clone())
    }

    fn version(&self, name: &str, version: Option<&str>) -> Result<Arc<Version>, Error> {
        if self.inner.draining.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorCode::Unavailable, "the server is shutting down")
                .retry_after(Duration::from_secs(1)));
        }
        let table = self.inner.shared.table.read().unwrap_or_else(PoisonError::into_inner);
        let Some(model) = table.models.get(name) else {
            drop(table);
            return Err(self.not_ready(name, version));
        };
        let found = match version {
            Some(version) => {
                model.versions.iter().map(|(v, _)| v).find(|v| &*v.info.version == version)
            }
            None => self.choose(model),
        };
        match found {
            Some(found) => Ok(found.clone()),
            None => {
                drop(table);
                Err(self.not_ready(name, version))
            }
        }
    }

    /// The version whose turn it is by the shares; the last one if none has a share.
    fn choose<'a>(&self, model: &'a loader::Model) -> Option<&'a Arc<Version>> {
        if let [(only, _)] = &model.versions[..] {
            return Some(only);
        }
        let total: u64 = model.versions.iter().map(|(_, share)| u64::from(*share)).sum();
        if total == 0 {
            return model.versions.last().map(|(version, _)| version);
        }
        // A step of about the golden ratio of the total spreads each version's turns evenly.
        let step = (total as f64 * 0.618_033_988_75) as u64 | 1;
        let turn = self.inner.turn.fetch_add(1, Ordering::Relaxed);
        let mut point = turn.wrapping_mul(step) % total;
        for (version, share) in &model.versions {
            let share = u64::from(*share);
            if point < share {
                return Some(version);
            }
            point -= share;
        }
        None
    }

    /// Why a version cannot be had: it is not known, not yet ready, or failed to load.
    fn not_ready(&self, name: &str, version: Option<&str>) -> Error {
        let status = self.status();
        let of_model = status.iter().filter(|s| &*s.name == name);
        let wanted: Vec<&Status> =
            of_model.filter(|s| version.is_none_or(|version| &*s.version == version)).collect();
        let shown: String = name.chars().take(100).collect();
        let called = match version {
            Some(version) => {
                format!("'{shown}' version {}", version.chars().take(100).collect::<String>())
            }
            None => format!("'{shown}'"),
        };
        if wanted.iter().any(|s| s.state == State::Loading) {
            return Error::new(ErrorCode::Unavailable, format!("model {called} is still loading"))
                .retry_after(Duration::from_secs(1));
        }
        if let Some(State::Unavailable(Some(reason))) = wanted.last().map(|s| &s.state) {
            let message = format!("model {called} failed to load: {reason}");
            return Error::new(ErrorCode::Unavailable, message);
        }
        Error::new(ErrorCode::NotFound, format!("Request for unknown model: {called} is not found"))
    }

    /// Every version that is known, with its state, by model name and then version.
    pub fn status(&self) -> Vec<Status> {
        let status = self.inner.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.values().cloned().collect()
    }

    /// Whether every wanted version is ready.
    pub fn ready(&self) -> bool {
        let applied = self.inner.shared.applied.borrow();
        let settled =
            applied.as_ref().is_some_and(|done| *done == *self.inner.assignments.borrow());
        drop(applied);
        let status = self.inner.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
        // Versions that are gone count for nothing; those that failed do.
        let in_order = |s: &Status| {
            matches!(s.state, State::Ready | State::Unloading | State::Unavailable(None))
        };
        settled && status.values().all(in_order) && !self.inner.draining.load(Ordering::Relaxed)
    }

    /// Counters of a version, or of every version of a model, or of all.
    pub fn statistics(&self, name: Option<&str>, version: Option<&str>) -> Vec<Statistics> {
        let mut versions = self.versions();
        versions.retain(|v| {
            name.is_none_or(|name| &*v.info.name == name)
                && version.is_none_or(|version| &*v.info.version == version)
        });
        versions
            .sort_by(|a, b| (&a.info.name, &a.info.version).cmp(&(&b.info.name, &b.info.version)));
        versions.iter().map(|version| version.statistics()).collect()
    }

    fn versions(&self) -> Vec<Arc<Version>> {
        let table = self.inner.shared.table.read().unwrap_or_else(PoisonError::into_inner);
        let all = table.models.values().flat_map(|model| &model.versions);
        all.map(|(version, _)| version.clone()).collect()
    }

    /// Waits until the loader has dealt with everything that was assigned before this call.
    pub async fn settled(&self) {
        let wanted = self.inner.assignments.borrow().clone();
        let mut applied = self.inner.shared.applied.subscribe();
        // An error would mean that the loader is gone, and nothing will change any more.
        let _ = applied.wait_for(|done| done.as_ref() == Some(&wanted)).await;
    }

    /// Takes no new requests and waits until the running ones are answered.
    pub async fn drain(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
        for version in self.versions() {
            // Requests end on threads that know nothing of tasks; a short, rare poll is enough.
            while !version.is_quiet() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// Observations that were dropped because nobody took them in time.
    pub fn dropped_observations(&self) -> u64 {
        self.inner.dropped_observations.load(Ordering::Relaxed)
    }

    fn observe(
        &self,
        version: &Version,
        (id, key): (Option<&str>, Option<&str>),
        at: SystemTime,
        inputs: Arc<[Option<Tensor>]>,
        outcome: &Result<Answer, Error>,
    ) {
        let Some(observations) = &self.inner.observations else { return };
        let answer = outcome.as_ref().ok();
        let observation = Observation {
            model: version.info.name.clone(),
            version: version.info.version.clone(),
            id: id.map(Into::into),
            key: key.map(Into::into),
            at,
            queue: answer.map_or(Duration::ZERO, |answer| answer.queue),
            compute: answer.map_or(Duration::ZERO, |answer| answer.compute),
            batch_size: answer.map_or(0, |answer| answer.batch_size),
            outcome: match outcome {
                Ok(_) => Outcome::Answered,
                Err(error) => Outcome::Failed(error.code()),
            },
            inputs,
            outputs: answer.map(|answer| answer.outputs.as_slice().into()).unwrap_or_default(),
            shadow: None,
        };
        if observations.try_send(observation).is_err() {
            self.inner.dropped_observations.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The wanted outputs out of all, in the order they were asked for.
fn choose_outputs(all: Vec<Tensor>, wanted: &[usize]) -> Vec<(usize, Tensor)> {
    let mut all: Vec<Option<Tensor>> = all.into_iter().map(Some).collect();
    wanted
        .iter()
        .filter_map(|position| Some((*position, all.get_mut(*position)?.take()?)))
        .collect()
}
