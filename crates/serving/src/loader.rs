//! Follows the assignments: loads what is wanted, then unloads what is not. Runs on a thread of
//! its own, so that nothing of it happens on a thread that serves. What takes long is done on
//! further threads of low priority; the loader's own has the priority of those that serve, for the
//! workers inherit it.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use model::{Assigned, Assignments, InstanceSettings};
use runtime::{Engines, background};
use tokio::sync::watch;

use crate::reply::{ModelInfo, State, Status};
use crate::version::{Admission, Version};
use crate::{Open, warm_up};

/// The most rows that run together where nobody says otherwise: by then every model that we
/// measured has gained what there is to gain.
const MAX_BATCH_SIZE: usize = 1024;

/// The most copies of a model that are made where nobody says otherwise. Some engines hold the
/// weights once for each.
const MAX_INSTANCES: usize = 8;

/// What is served at this moment, by model name.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) models: HashMap<Arc<str>, Model>,
}

/// The ready versions of one model.
#[derive(Default)]
pub(crate) struct Model {
    /// In the order of the assignments, with the share of each.
    pub(crate) versions: Vec<(Arc<Version>, u32)>,
}

/// What the loader shares with the requests' path.
pub(crate) struct Shared {
    pub(crate) table: RwLock<Table>,
    pub(crate) status: Mutex<BTreeMap<(Arc<str>, Arc<str>), Status>>,
    /// The assignments that have been dealt with.
    pub(crate) applied: watch::Sender<Option<Assignments>>,
}

pub(crate) struct Loader {
    pub(crate) engines: Arc<Engines>,
    pub(crate) open: Open,
    pub(crate) shared: Arc<Shared>,
    pub(crate) admission: Admission,
    pub(crate) running: HashMap<(String, String), (Assigned, Arc<Version>, Workers)>,
    pub(crate) failed: HashMap<(String, String), Assigned>,
}

/// The threads of a version's instances.
pub(crate) type Workers = Vec<std::thread::JoinHandle<()>>;

impl Loader {
    /// Deals with one state of the assignments, start to end.
    pub(crate) fn apply(&mut self, wanted: &Assignments) {
        for (name, versions) in &wanted.models {
            for assigned in versions {
                self.load_if_new(name, assigned);
            }
        }
        let is_wanted = |name: &str, version: &str| {
            let versions = wanted.models.get(name);
            versions.is_some_and(|all| all.iter().any(|assigned| assigned.version == version))
        };
        self.publish(wanted);
        // Of a model none of whose wanted versions could be loaded, what served goes on serving.
        let is_replaced = |name: &str| {
            let mut running = self.running.keys();
            wanted.models.get(name).is_none_or(Vec::is_empty)
                || running.any(|(other, version)| other == name && is_wanted(name, version))
        };
        let unwanted: Vec<_> = self
            .running
            .keys()
            .filter(|(name, version)| !is_wanted(name, version) && is_replaced(name))
            .cloned()
            .collect();
        for key in unwanted {
            let (_, version, workers) = self.running.remove(&key).expect("the key was just listed");
            self.set_state(&key.0, &key.1, State::Unloading, None);
            retire(version, workers);
            self.set_state(&key.0, &key.1, State::Unavailable(None), None);
        }
        self.failed.retain(|(name, version), _| is_wanted(name, version));
        self.forget(|name, version| is_wanted(name, version) || wanted.models.contains_key(name));
        self.shared.applied.send_replace(Some(wanted.clone()));
    }

    fn load_if_new(&mut self, name: &str, assigned: &Assigned) {
        let key = (name.to_owned(), assigned.version.clone());
        let same = |old: &Assigned| {
            old.source == assigned.source
                && old.generation == assigned.generation
                && old.settings == assigned.settings
        };
        if self.failed.get(&key).is_some_and(same)
            || self.running.get(&key).is_some_and(|(old, ..)| same(old))
        {
            return;
        }
        if !self.running.contains_key(&key) {
            self.set_state(name, &assigned.version, State::Loading, None);
        }
        match self.load(name, assigned) {
            Ok((version, workers)) => {
                let info = version.info.clone();
                tracing::info!(
                    model = name,
                    version = assigned.version,
                    engine = info.engine,
                    load_ms = info.load_time.as_millis() as u64,
                    instances = info.settings.instances,
                    "loaded"
                );
                self.failed.remove(&key);
                let old = self.running.insert(key, (assigned.clone(), version.clone(), workers));
                self.replace(name, &assigned.version, &version);
                self.set_state(name, &assigned.version, State::Ready, Some(info));
                if let Some((_, old, workers)) = old {
                    retire(old, workers);
                }
            }
            Err(message) => {
                tracing::error!(model = name, version = assigned.version, "{message}");
                self.failed.insert(key.clone(), assigned.clone());
                if self.running.contains_key(&key) {
                    // The version that was there before goes on serving.
                    self.set_failure(name, &assigned.version, message);
                } else {
                    let state = State::Unavailable(Some(message));
                    self.set_state(name, &assigned.version, state, None);
                }
            }
        }
    }

    /// Opens, loads, warms and verifies. A panic on the way is a failure to load.
    fn load(&self, name: &str, assigned: &Assigned) -> Result<(Arc<Version>, Workers), String> {
        let start = Instant::now();
        let no_thread = |error| format!("cannot start a thread to load the model: {error}");
        let attempt = catch_unwind(AssertUnwindSafe(|| {
            let package = background(|| (self.open)(name, assigned)).map_err(no_thread)??;
            let settings = choose(&assigned.settings);
            let loaded = self.engines.load(&package, &settings).map_err(|e| e.to_string())?;
            Ok::<_, String>((package.manifest, settings, loaded))
        }));
        let (manifest, mut settings, loaded) =
            attempt.map_err(|_| "loading the model panicked".to_owned())??;
        let mut signature = (**loaded.signature()).clone();
        signature.batched &= settings.max_batch_size != Some(0);
        let most = settings.max_batch_size.unwrap_or(MAX_BATCH_SIZE);
        let warm_up = background(|| warm_up::warm_up(&loaded, &signature, most));
        let warm_up = warm_up.map_err(no_thread)?;
        if let Some(reason) = &warm_up.rows_depend {
            tracing::warn!(model = name, version = assigned.version, "not batched: {reason}");
            signature.batched = false;
        }
        let max_batch_size = if signature.batched { most } else { 0 };
        settings.engine = Some(loaded.engine().to_owned());
        let info = ModelInfo {
            name: name.into(),
            version: assigned.version.as_str().into(),
            signature: Arc::new(signature),
            manifest,
            engine: loaded.engine(),
            settings,
            max_batch_size,
            load_time: start.elapsed(),
        };
        let version = Version::new(Arc::new(info), loaded, &warm_up.runs, self.admission);
        let version = Arc::new(version);
        let workers = start_workers(&version)?;
        Ok((version, workers))
    }

    /// Puts a version that has been loaded again in the place of the one before it.
    fn replace(&self, name: &str, version: &str, new: &Arc<Version>) {
        let mut table = self.shared.table.write().unwrap_or_else(PoisonError::into_inner);
        let Some(model) = table.models.get_mut(name) else { return };
        for (old, _) in &mut model.versions {
            if &*old.info.version == version {
                *old = new.clone();
            }
        }
    }

    /// Makes the table what is wanted, as far as it is running. A model of which nothing wanted is
    /// running keeps the versions that it had.
    fn publish(&self, wanted: &Assignments) {
        let (mut models, mut kept) = (HashMap::new(), Vec::new());
        for (name, versions) in &wanted.models {
            let mut model = Model::default();
            for assigned in versions {
                let key = (name.clone(), assigned.version.clone());
                if let Some((_, version, _)) = self.running.get(&key) {
                    model.versions.push((version.clone(), assigned.share));
                }
            }
            if !model.versions.is_empty() {
                models.insert(name.as_str().into(), model);
            } else if !versions.is_empty() {
                kept.push(name);
            }
        }
        // Requests wait for this lock: nothing else is done under it.
        let mut table = self.shared.table.write().unwrap_or_else(PoisonError::into_inner);
        models.extend(kept.into_iter().filter_map(|name| table.models.remove_entry(name.as_str())));
        table.models = models;
    }

    fn set_state(&self, name: &str, version: &str, state: State, info: Option<Arc<ModelInfo>>) {
        let (name, version): (Arc<str>, Arc<str>) = (name.into(), version.into());
        let mut status = self.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (name.clone(), version.clone());
        status.insert(key, Status { name, version, state, info, failure: None });
    }

    fn set_failure(&self, name: &str, version: &str, reason: String) {
        let mut status = self.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(status) = status.get_mut(&(name.into(), version.into())) {
            status.failure = Some(reason);
        }
    }

    fn forget(&self, keep: impl Fn(&str, &str) -> bool) {
        let mut status = self.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.retain(|(name, version), _| keep(name, version));
    }
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

fn start_workers(version: &Arc<Version>) -> Result<Workers, String> {
    let mut workers = Vec::with_capacity(version.slots());
    for number in 0..version.slots() {
        let worked = version.clone();
        let thread = std::thread::Builder::new()
            .name(format!("{}-{number}", version.info.name))
            .spawn(move || worked.work());
        match thread {
            Ok(thread) => workers.push(thread),
            Err(error) => {
                version.close();
                return Err(format!("cannot start a thread for an instance: {error}"));
            }
        }
    }
    Ok(workers)
}

/// Waits for the last answer of a version, then frees it.
pub(crate) fn retire(version: Arc<Version>, workers: Workers) {
    version.close();
    for worker in workers {
        // A worker that panicked has ended as well.
        let _ = worker.join();
    }
    // Freeing a large model takes time as well. Without a thread for it, it happens here.
    let mut version = Some(version);
    let _ = background(|| drop(version.take()));
}
