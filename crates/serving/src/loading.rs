//! Loads versions, several at once: those that somebody waits for first, then those that were
//! assigned. What takes long in it is done on further threads of low priority; the threads here
//! have the priority of those that serve, for what an engine starts inherits it.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use model::InstanceSettings;
use runtime::{Engines, background};
use tokio::sync::mpsc;

use crate::ledger::{Ledger, NoRoom, memory};
use crate::loader::{Event, Shared};
use crate::place::Place;
use crate::reply::{ModelInfo, State};
use crate::version::{Common, Version};
use crate::{Open, Opened, warm_up};

/// The most rows that run together where nobody says otherwise: by then every model that we
/// measured has gained what there is to gain.
const MAX_BATCH_SIZE: usize = 1024;

/// The most copies of a model that are made where nobody says otherwise. Some engines hold the
/// weights once for each.
const MAX_INSTANCES: usize = 8;

/// What loads.
pub(crate) struct Loading {
    pub(crate) engines: Arc<Engines>,
    pub(crate) open: Open,
    pub(crate) shared: Arc<Shared>,
    pub(crate) common: Arc<Common>,
    pub(crate) ledger: Ledger,
    pub(crate) jobs: Jobs,
}

/// What is to be loaded.
#[derive(Default)]
pub(crate) struct Jobs {
    state: Mutex<Waiting>,
    more: Condvar,
}

#[derive(Default)]
struct Waiting {
    asked: VecDeque<Job>,
    planned: VecDeque<Job>,
    closed: bool,
}

struct Job {
    place: Arc<Place>,
    /// Whether others may be unloaded for it.
    may_evict: bool,
    /// Who wants to hear of the end.
    report: Option<mpsc::UnboundedSender<Event>>,
}

/// What came of a load.
#[derive(Debug)]
pub(crate) enum Ended {
    Loaded,
    /// There is no room for it now; it is loaded when somebody asks.
    NoRoom,
    Failed(String),
}

impl Jobs {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody waits for this place, whose load [`Place::look`] has begun.
    pub(crate) fn ask(&self, place: Arc<Place>, may_evict: bool) {
        self.lock().asked.push_back(Job { place, may_evict, report: None });
        self.more.notify_one();
    }

    /// This place has been assigned.
    pub(crate) fn plan(
        &self,
        place: Arc<Place>,
        may_evict: bool,
        report: mpsc::UnboundedSender<Event>,
    ) {
        place.begin();
        self.lock().planned.push_back(Job { place, may_evict, report: Some(report) });
        self.more.notify_one();
    }

    /// Lets the threads end.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.more.notify_all();
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(job) = state.asked.pop_front() {
                return Some(job);
            }
            if let Some(job) = state.planned.pop_front() {
                return Some(job);
            }
            state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Loading {
    /// Starts the threads.
    pub(crate) fn start(self: &Arc<Self>) -> io::Result<()> {
        // One load is mostly one thread's work. The second thread is for whoever waits while a
        // large model is being loaded.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for number in 0..cores.clamp(2, 8) {
            let loading = Arc::clone(self);
            let thread = std::thread::Builder::new().name(format!("loading-{number}"));
            thread.spawn(move || {
                while let Some(job) = loading.jobs.next() {
                    loading.run(job);
                }
            })?;
        }
        Ok(())
    }

    fn run(&self, job: Job) {
        let place = &job.place;
        let attempt = catch_unwind(AssertUnwindSafe(|| self.load(place, job.may_evict)));
        let outcome = attempt.unwrap_or_else(|_| Err("loading the model panicked".to_owned()));
        let time = match &outcome {
            Ok(version) => version.as_ref().map(|version| Some(version.info.load_time)),
            Err(_) => Some(None),
        };
        if let Some(time) = time {
            self.common.meters.of(&place.name, &place.version).loaded(time);
        }
        let ended = match &outcome {
            Ok(Some(_)) => Ended::Loaded,
            Ok(None) => Ended::NoRoom,
            Err(reason) => Ended::Failed(reason.clone()),
        };
        if outcome.is_err() {
            self.ledger.release(place);
        }
        self.ledger.touch(place);
        if job.report.is_none() && !place.is_dismissed() {
            self.tell_status(place, &outcome);
        }
        if let Some(unwanted) = place.end(outcome) {
            self.retire(place, unwanted);
        }
        if let Some(report) = job.report {
            // Whoever assigned it may be gone.
            let _ = report.send(Event::Ended(job.place, ended));
        }
    }

    fn tell_status(&self, place: &Place, outcome: &Result<Option<Arc<Version>>, String>) {
        let (name, version) = (&place.name, &place.version);
        match outcome {
            Ok(Some(loaded)) => {
                tracing::debug!(model = %name, version = %version, "loaded on demand");
                self.shared.set_state(name, version, State::Ready, Some(loaded.info.clone()));
            }
            Ok(None) => {}
            Err(reason) => {
                tracing::error!(model = %name, version = %version, "{reason}");
                self.shared.set_failure(name, version, reason.clone());
            }
        }
    }

    /// Opens, makes room, loads, warms and verifies; `None` if there is no room.
    fn load(&self, place: &Arc<Place>, may_evict: bool) -> Result<Option<Arc<Version>>, String> {
        let start = Instant::now();
        let (name, assigned) = (&*place.name, &place.assigned);
        let opened = background(|| (self.open)(name, assigned)).map_err(no_thread)??;
        let settings = choose(opened.settings.as_ref().unwrap_or(&assigned.settings));
        let memory = memory(&opened.package.manifest, &settings);
        let unload = |place: &Place, version| self.unload(place, version);
        match self.ledger.reserve(place, memory, may_evict, unload) {
            Ok(()) => {}
            Err(NoRoom::Now) => return Ok(None),
            Err(NoRoom::Ever(reason)) => return Err(reason),
        }
        let mut version = self.prepare(place, opened, settings)?;
        version.0.load_time = start.elapsed();
        version.0.memory = memory;
        let (info, loaded, past) = version;
        let version = Version::new(Arc::new(info), loaded, past, self.common.clone());
        Ok(Some(Arc::new(version)))
    }

    /// Loads, warms and verifies. What was found out when the same bytes were loaded before is not
    /// found out again.
    fn prepare(
        &self,
        place: &Place,
        opened: Opened,
        mut settings: InstanceSettings,
    ) -> Result<(ModelInfo, runtime::Loaded, crate::version::Past), String> {
        let Opened { package, recorded, .. } = opened;
        let (before, mut past) = place.known();
        let before = before.filter(|info| info.manifest.digest == package.manifest.digest);
        if let Some(before) = &before {
            settings.engine = Some(before.engine.to_owned());
        }
        let loaded = self.engines.load(&package, &settings).map_err(|e| e.to_string())?;
        let mut signature = (**loaded.signature()).clone();
        signature.batched &= settings.max_batch_size != Some(0);
        let most = settings.max_batch_size.unwrap_or(MAX_BATCH_SIZE);
        if let Some(before) = before {
            signature.batched = before.signature.batched;
        } else {
            let warm_up = background(|| warm_up::warm_up(&loaded, &signature, most));
            let warm_up = warm_up.map_err(no_thread)?;
            if let Some(reason) = &warm_up.rows_depend {
                let (name, version) = (&place.name, &place.version);
                tracing::warn!(model = %name, version = %version, "not batched: {reason}");
                signature.batched = false;
            }
            for run in &warm_up.runs {
                past.cost.record(run.rows, run.time);
            }
            if !recorded.is_empty() {
                let replayed = background(|| warm_up::replay(&loaded, &signature, most, recorded));
                let replayed = replayed.map_err(no_thread)?;
                for run in &replayed.runs {
                    past.cost.record(run.rows, run.time);
                }
                judge(place, &replayed)?;
            }
        }
        settings.engine = Some(loaded.engine().to_owned());
        let info = ModelInfo {
            name: place.name.clone(),
            version: place.version.clone(),
            max_batch_size: if signature.batched { most } else { 0 },
            signature: Arc::new(signature),
            manifest: package.manifest,
            engine: loaded.engine(),
            settings,
            load_time: Default::default(),
            memory: 0,
        };
        Ok((info, loaded, past))
    }

    /// Takes a version out of memory that will be loaded again when somebody asks for it.
    fn unload(&self, place: &Place, version: Arc<Version>) {
        let info = version.info.clone();
        place.keep(version.close());
        free(version);
        if !place.is_dismissed() {
            self.shared.set_state(&place.name, &place.version, State::OnDemand, Some(info));
        }
    }

    /// Waits for the last answer of a version that is not wanted any more, and frees it.
    pub(crate) fn retire(&self, place: &Arc<Place>, version: Arc<Version>) {
        version.close();
        free(version);
        self.ledger.release(place);
    }
}

/// Says what came of recorded requests. A version that fails on every one of them is not given
/// traffic; one that fails on some may have been recorded with callers' mistakes.
fn judge(place: &Place, replayed: &warm_up::Replayed) -> Result<(), String> {
    let (name, version) = (&place.name, &place.version);
    if let (count, Some(why)) = &replayed.misfits {
        tracing::warn!(
            model = %name, version = %version,
            "{count} recorded requests do not fit the model and were not run: {why}"
        );
    }
    let answered = replayed.answered;
    match &replayed.failed {
        (_, None) => {}
        (count, Some(why)) if answered == 0 => {
            return Err(format!(
                "warm-up: it failed on every recorded request that was run ({count}): {why}"
            ));
        }
        (count, Some(why)) => tracing::warn!(
            model = %name, version = %version,
            "warm-up: it failed on {count} recorded requests and answered {answered}: {why}"
        ),
    }
    tracing::info!(model = %name, version = %version, answered, "warmed with recorded requests");
    Ok(())
}

fn no_thread(error: io::Error) -> String {
    format!("cannot start a thread to load the model: {error}")
}

/// Frees a version, which takes time if it is large. Without a thread for it, it happens here.
fn free(version: Arc<Version>) {
    let mut version = Some(version);
    let _ = background(|| drop(version.take()));
}

/// Fills in what the user left open, for this machine: as many runs side by side as there are
/// cores, each on one thread. That gives the highest throughput and the steadiest tail; one large
/// model at low load answers sooner with fewer instances of more threads.
fn choose(settings: &InstanceSettings) -> InstanceSettings {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = settings.threads.map(|threads| threads.max(1));
    let instances = settings.instances.map(|instances| instances.max(1));
    let instances =
        instances.unwrap_or_else(|| (cores / threads.unwrap_or(1)).clamp(1, MAX_INSTANCES));
    InstanceSettings {
        threads: Some(threads.unwrap_or_else(|| (cores / instances).max(1))),
        instances: Some(instances),
        ..settings.clone()
    }
}
