//! What is told of predictions, and to whom.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use model::Observation;
use tokio::sync::mpsc;

/// Where observations go, and of which models there are any. Cheap to clone.
///
/// An observation keeps its tensors alive and takes a request about a microsecond, so there are
/// none but of the models that somebody [watches](Self::watch).
#[derive(Clone, Debug)]
pub struct Observations {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    sender: mpsc::Sender<Observation>,
    dropped: AtomicU64,
    /// Whether there is anything in `watched`.
    any: AtomicBool,
    watched: RwLock<HashSet<String>>,
}

impl Observations {
    /// Nothing is watched yet. At most `capacity` observations wait to be received; further ones
    /// are dropped and counted.
    ///
    /// # Panics
    /// If the capacity is 0.
    pub fn new(capacity: usize) -> (Self, mpsc::Receiver<Observation>) {
        let (sender, receiver) = mpsc::channel(capacity);
        let inner = Inner {
            sender,
            dropped: AtomicU64::new(0),
            any: AtomicBool::new(false),
            watched: RwLock::default(),
        };
        (Self { inner: Arc::new(inner) }, receiver)
    }

    /// From now on just these models are watched.
    pub fn watch<Name: Into<String>>(&self, models: impl IntoIterator<Item = Name>) {
        let models: HashSet<String> = models.into_iter().map(Into::into).collect();
        self.inner.any.store(!models.is_empty(), Ordering::Relaxed);
        *self.inner.watched.write().unwrap_or_else(PoisonError::into_inner) = models;
    }

    /// Observations that were dropped because nobody took them in time.
    pub fn dropped(&self) -> u64 {
        self.inner.dropped.load(Ordering::Relaxed)
    }

    pub(crate) fn are_of(&self, model: &str) -> bool {
        self.inner.any.load(Ordering::Relaxed)
            && self.inner.watched.read().unwrap_or_else(PoisonError::into_inner).contains(model)
    }

    pub(crate) fn send(&self, observation: Observation) {
        if self.inner.sender.try_send(observation).is_err() {
            self.inner.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}
