//! What is told of predictions, and to whom.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use model::Observation;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

/// The most bytes in the tensors of observations that wait, unless a single one has more.
const MAX_BYTES: usize = 128 << 20;

/// Where observations go, and of which models there are any. Cheap to clone.
///
/// An observation keeps its tensors alive and takes a request about a microsecond, so there are
/// none but of the models that somebody [watches](Self::watch).
#[derive(Clone, Debug)]
pub struct Observations {
    sender: mpsc::Sender<Observation>,
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    dropped: AtomicU64,
    /// Bytes in the tensors of what waits.
    bytes: AtomicUsize,
    /// Whether anything is watched.
    any: AtomicBool,
    watched: RwLock<Watched>,
}

/// The models that somebody watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Whatever is served.
    All,
    /// These.
    Models(BTreeSet<String>),
}

impl Default for Watched {
    fn default() -> Self {
        Self::Models(BTreeSet::new())
    }
}

impl Watched {
    /// What either watches.
    pub fn or(self, other: &Self) -> Self {
        match (self, other) {
            (Self::Models(mut one), Self::Models(other)) => {
                one.extend(other.iter().cloned());
                Self::Models(one)
            }
            _ => Self::All,
        }
    }
}

impl<Name: Into<String>> FromIterator<Name> for Watched {
    fn from_iter<Names: IntoIterator<Item = Name>>(names: Names) -> Self {
        Self::Models(names.into_iter().map(Into::into).collect())
    }
}

impl Observations {
    /// Nothing is watched yet. At most `capacity` observations wait to be seen, and no more than
    /// some bytes of them; further ones are dropped and counted.
    ///
    /// # Panics
    /// If the capacity is 0.
    pub fn new(capacity: usize) -> (Self, Seen) {
        let (sender, receiver) = mpsc::channel(capacity);
        let inner = Arc::<Inner>::default();
        (Self { sender, inner: inner.clone() }, Seen { receiver, inner })
    }

    /// From now on just these models are watched.
    pub fn watch(&self, models: Watched) {
        self.inner.any.store(models != Watched::default(), Ordering::Relaxed);
        *self.inner.watched.write().unwrap_or_else(PoisonError::into_inner) = models;
    }

    /// Observations that were dropped because nobody took them in time.
    pub fn dropped(&self) -> u64 {
        self.inner.dropped.load(Ordering::Relaxed)
    }

    pub(crate) fn are_of(&self, model: &str) -> bool {
        let watched = || self.inner.watched.read().unwrap_or_else(PoisonError::into_inner);
        self.inner.any.load(Ordering::Relaxed)
            && match &*watched() {
                Watched::All => true,
                Watched::Models(models) => models.contains(model),
            }
    }

    pub(crate) fn send(&self, observation: Observation) {
        let bytes = observation.bytes();
        let waiting = self.inner.bytes.fetch_add(bytes, Ordering::Relaxed);
        let is_full = waiting > 0 && waiting.saturating_add(bytes) > MAX_BYTES;
        if is_full || self.sender.try_send(observation).is_err() {
            self.inner.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.inner.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Where observations come out.
#[derive(Debug)]
pub struct Seen {
    receiver: mpsc::Receiver<Observation>,
    inner: Arc<Inner>,
}

impl Seen {
    /// The next one, waited for; `None` when there will be no more.
    pub async fn recv(&mut self) -> Option<Observation> {
        let next = self.receiver.recv().await;
        self.taken(next)
    }

    /// The next one, waited for by a thread that is no task's.
    pub fn blocking_recv(&mut self) -> Option<Observation> {
        let next = self.receiver.blocking_recv();
        self.taken(next)
    }

    /// The next one, if it is there.
    pub fn try_recv(&mut self) -> Result<Observation, TryRecvError> {
        let next = self.receiver.try_recv()?;
        Ok(self.taken(Some(next)).expect("it is there"))
    }

    /// Lets no more in: what is there already still comes out, and then nothing.
    pub fn close(&mut self) {
        self.receiver.close();
    }

    fn taken(&self, next: Option<Observation>) -> Option<Observation> {
        if let Some(observation) = &next {
            self.inner.bytes.fetch_sub(observation.bytes(), Ordering::Relaxed);
        }
        next
    }
}
