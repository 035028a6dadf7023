//! Where an assigned version is: in memory, or not at the moment.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::Assigned;
use tokio::sync::Notify;

use crate::reply::ModelInfo;
use crate::version::{Past, Version};

/// Once a load on demand has failed, the next is tried no sooner than this; likewise one for which
/// nobody else may be unloaded.
const AGAIN: Duration = Duration::from_secs(1);

/// An assigned version, for as long as it is assigned.
pub(crate) struct Place {
    pub(crate) name: Arc<str>,
    pub(crate) version: Arc<str>,
    /// What was assigned when the place was made; shares and pins may have changed since.
    pub(crate) assigned: Assigned,
    inner: Mutex<Inner>,
    /// Told whenever a load has ended, well or not.
    ended: Notify,
    /// Requests that asked for it to be loaded and have not been answered. While there are any it
    /// is not unloaded to make room, or two models could keep each other from ever answering.
    pins: AtomicUsize,
    /// When it was last asked for, by the ledger's clock.
    used: AtomicU64,
}

#[derive(Default)]
struct Inner {
    loaded: Option<Arc<Version>>,
    is_loading: bool,
    /// No longer assigned: what comes of a load that is under way is thrown away.
    is_dismissed: bool,
    failure: Option<(Instant, String)>,
    /// When there last was no room for it.
    no_room: Option<Instant>,
    info: Option<Arc<ModelInfo>>,
    past: Past,
}

/// What a request finds.
pub(crate) enum Found {
    /// It is loaded.
    Loaded(Arc<Version>),
    /// It is being loaded.
    Loading,
    /// It is not loaded; whoever got this has to have it loaded, for others will only wait.
    Away,
    /// It could not be loaded a moment ago.
    Failed(String),
    /// It is no longer assigned.
    Dismissed,
}

/// Keeps a place from being unloaded.
pub(crate) struct Pin(Arc<Place>);

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.pins.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Place {
    /// A place that nothing has been loaded for.
    pub(crate) fn new(name: &str, assigned: &Assigned) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            version: assigned.version.as_str().into(),
            assigned: assigned.clone(),
            inner: Mutex::default(),
            ended: Notify::new(),
            pins: AtomicUsize::new(0),
            used: AtomicU64::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version, if it is in memory.
    pub(crate) fn loaded(&self) -> Option<Arc<Version>> {
        self.lock().loaded.clone()
    }

    /// What it is, once it has been loaded for the first time.
    pub(crate) fn info(&self) -> Option<Arc<ModelInfo>> {
        self.lock().info.clone()
    }

    /// Looks for the version. Unless there is a reason against it, somebody has to load it now.
    pub(crate) fn look(&self) -> Found {
        let mut inner = self.lock();
        if let Some(version) = &inner.loaded {
            return Found::Loaded(version.clone());
        }
        if inner.is_dismissed {
            return Found::Dismissed;
        }
        if inner.is_loading {
            return Found::Loading;
        }
        if let Some((at, reason)) = &inner.failure
            && at.elapsed() < AGAIN
        {
            return Found::Failed(reason.clone());
        }
        inner.is_loading = true;
        inner.failure = None;
        Found::Away
    }

    /// The same for who does not want anybody else to be unloaded: there is nothing to be done
    /// while there was no room a moment ago.
    pub(crate) fn look_for_room(&self) -> Found {
        let no_room = self.lock().no_room;
        match no_room {
            Some(at) if at.elapsed() < AGAIN => Found::Loading,
            _ => self.look(),
        }
    }

    /// Resolves when the load that is under way when this is called has ended.
    pub(crate) fn ended(&self) -> tokio::sync::futures::Notified<'_> {
        self.ended.notified()
    }

    /// Notes that a load has begun.
    pub(crate) fn begin(&self) {
        self.lock().is_loading = true;
    }

    /// What is known from earlier loads.
    pub(crate) fn known(&self) -> (Option<Arc<ModelInfo>>, Past) {
        let inner = self.lock();
        (inner.info.clone(), inner.past.clone())
    }

    /// Notes what came of a load: a version, a reason why there is none, or neither if there was no
    /// room for it. Gives the version back if it is not wanted any more.
    pub(crate) fn end(
        &self,
        outcome: Result<Option<Arc<Version>>, String>,
    ) -> Option<Arc<Version>> {
        let mut inner = self.lock();
        inner.is_loading = false;
        let unwanted = match outcome {
            Ok(version) if inner.is_dismissed => version,
            Ok(version) => {
                inner.no_room = version.is_none().then(Instant::now);
                if let Some(version) = &version {
                    inner.info = Some(version.info.clone());
                }
                inner.loaded = version;
                None
            }
            Err(reason) => {
                inner.failure = Some((Instant::now(), reason));
                None
            }
        };
        drop(inner);
        self.ended.notify_waiters();
        unwanted
    }

    /// Takes the version away to make room, unless somebody needs it.
    pub(crate) fn evict(&self) -> Option<Arc<Version>> {
        let mut inner = self.lock();
        let version = inner.loaded.as_ref()?;
        if self.is_pinned() || !version.is_quiet() || !version.shadows.is_quiet() {
            return None;
        }
        inner.loaded.take()
    }

    /// Keeps what an evicted version has learned.
    pub(crate) fn keep(&self, past: Past) {
        self.lock().past = past;
    }

    /// Takes the version away for good.
    pub(crate) fn dismiss(&self) -> Option<Arc<Version>> {
        let mut inner = self.lock();
        inner.is_dismissed = true;
        let version = inner.loaded.take();
        drop(inner);
        self.ended.notify_waiters();
        version
    }

    pub(crate) fn is_dismissed(&self) -> bool {
        self.lock().is_dismissed
    }

    /// Keeps it from being unloaded until the pin is dropped.
    pub(crate) fn pin(self: &Arc<Self>) -> Pin {
        self.pins.fetch_add(1, Ordering::Relaxed);
        Pin(self.clone())
    }

    fn is_pinned(&self) -> bool {
        self.pins.load(Ordering::Relaxed) > 0
    }

    /// When it was last asked for.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Notes that it is asked for.
    pub(crate) fn touch(&self, now: u64) {
        self.used.store(now, Ordering::Relaxed);
    }
}
