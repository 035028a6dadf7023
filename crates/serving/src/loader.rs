//! Follows the assignments: has loaded what is wanted, then has unloaded what is not. Runs on a
//! thread of its own and never waits for a load or for a last answer, so that a change of shares
//! takes effect at once whatever else is going on.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use model::{Assigned, Assignments};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::choice::Choice;
use crate::loading::{Ended, Loading};
use crate::place::Place;
use crate::reply::{ModelInfo, State, Status};

/// What is served at this moment, by model name.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) models: HashMap<Arc<str>, Arc<Model>>,
}

/// The versions of one model that answer.
pub(crate) struct Model {
    /// In the order of the assignments.
    pub(crate) places: Vec<Arc<Place>>,
    pub(crate) choice: Choice,
    /// Those that get a copy of the traffic.
    pub(crate) shadows: Vec<Arc<Place>>,
    /// Counts requests that name no version and have no key, so that shares are met exactly and
    /// without a random number on the request's path.
    pub(crate) turn: AtomicU64,
}

impl Model {
    fn new(name: &str, versions: Vec<(&Assigned, Arc<Place>)>) -> Self {
        let choice = Choice::new(name, versions.iter().map(|(assigned, _)| *assigned));
        let shadows = versions.iter().filter(|(assigned, _)| assigned.shadow);
        let shadows = shadows.map(|(_, place)| place.clone()).collect();
        let places = versions.into_iter().map(|(_, place)| place).collect();
        Self { places, choice, shadows, turn: AtomicU64::new(0) }
    }
}

/// What the loader shares with the requests' path.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) table: RwLock<Table>,
    pub(crate) status: Mutex<BTreeMap<(Arc<str>, Arc<str>), Status>>,
    /// The assignments that have been dealt with.
    pub(crate) applied: watch::Sender<Option<Assignments>>,
}

impl Shared {
    pub(crate) fn set_state(
        &self,
        name: &str,
        version: &str,
        state: State,
        info: Option<Arc<ModelInfo>>,
    ) {
        let (name, version): (Arc<str>, Arc<str>) = (name.into(), version.into());
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (name.clone(), version.clone());
        status.insert(key, Status { name, version, state, info, failure: None });
    }

    pub(crate) fn set_failure(&self, name: &str, version: &str, reason: String) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(status) = status.get_mut(&(name.into(), version.into())) {
            status.failure = Some(reason);
        }
    }
}

/// What the loader hears of.
pub(crate) enum Event {
    /// A load has ended.
    Ended(Arc<Place>, Ended),
    /// The last request of a version that is not wanted any more has been answered.
    Left(Arc<Place>),
}

/// A model and a version.
type Key = (String, String);

fn key_of(place: &Place) -> Key {
    (place.name.to_string(), place.version.to_string())
}

/// The part of a map that is about one model.
fn of_model<'a, T>(
    map: &'a BTreeMap<Key, T>,
    name: &'a str,
) -> impl Iterator<Item = (&'a Key, &'a T)> {
    let from = (name.to_owned(), String::new());
    map.range(from..).take_while(move |(key, _)| key.0 == name)
}

pub(crate) struct Loader {
    loading: Arc<Loading>,
    shared: Arc<Shared>,
    wanted: Assignments,
    /// Places that answer, or would if somebody asked.
    places: BTreeMap<Key, Arc<Place>>,
    /// Places that are being loaded for the first time.
    coming: BTreeMap<Key, Arc<Place>>,
    failed: BTreeMap<Key, Assigned>,
    /// How many versions are waiting for their last answer.
    leaving: usize,
    /// Whether nothing has been applied yet.
    is_start: bool,
    sender: mpsc::UnboundedSender<Event>,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Loader {
    pub(crate) fn new(loading: Arc<Loading>) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        Self {
            shared: loading.shared.clone(),
            loading,
            wanted: Assignments::default(),
            places: BTreeMap::new(),
            coming: BTreeMap::new(),
            failed: BTreeMap::new(),
            leaving: 0,
            is_start: true,
            sender,
            events,
        }
    }

    /// Follows the assignments until nobody can want anything else any more and all is done; what
    /// is loaded goes on serving.
    pub(crate) fn follow(mut self, mut assignments: watch::Receiver<Assignments>, on: &Handle) {
        let mut is_followed = true;
        let wanted = assignments.borrow_and_update().clone();
        self.want(wanted);
        loop {
            let is_done = self.coming.is_empty() && self.leaving == 0;
            if is_done {
                self.settle();
            }
            if is_done && !is_followed {
                return;
            }
            let event = on.block_on(async {
                tokio::select! {
                    biased;
                    changed = assignments.changed(), if is_followed => Err(changed.is_ok()),
                    event = self.events.recv() => Ok(event),
                }
            });
            match event {
                Ok(Some(Event::Ended(place, ended))) => self.ended(place, ended),
                Ok(Some(Event::Left(place))) => self.left(&place),
                // There is always a sender: our own.
                Ok(None) => {}
                Err(true) => {
                    let wanted = assignments.borrow_and_update().clone();
                    self.want(wanted);
                }
                Err(false) => is_followed = false,
            }
        }
    }

    fn is_wanted(&self, (name, version): &Key) -> bool {
        let versions = self.wanted.models.get(name);
        versions.is_some_and(|all| all.iter().any(|assigned| assigned.version == *version))
    }

    /// Deals with new assignments, as far as that takes no time.
    fn want(&mut self, wanted: Assignments) {
        self.wanted = wanted;
        let assigned = |(name, version): &Key| {
            let versions = self.wanted.models.get(name)?;
            versions.iter().find(|assigned| assigned.version == *version)
        };
        self.coming.retain(|key, place| {
            let stays = assigned(key).is_some_and(|assigned| is_same(assigned, &place.assigned));
            if !stays {
                // The load throws away what it has made.
                place.dismiss();
            }
            stays
        });
        self.failed.retain(|key, _| assigned(key).is_some());
        let mut new = Vec::new();
        for (name, versions) in &self.wanted.models {
            // Requests may name it from now on.
            self.loading.common.meters.of(name, "");
            for assigned in versions {
                let key = (name.clone(), assigned.version.clone());
                let place = self.coming.get(&key).or_else(|| self.places.get(&key));
                let known = place.map(|place| &place.assigned).or_else(|| self.failed.get(&key));
                // A reload that has failed is not tried again before something changes.
                let has_failed = self.failed.get(&key).is_some_and(|old| is_same(old, assigned));
                if !has_failed && !known.is_some_and(|known| is_same(known, assigned)) {
                    new.push((key, Place::new(name, assigned)));
                }
            }
        }
        for (key, place) in new {
            self.plan(key, place);
        }
        let names: Vec<String> = self.wanted.models.keys().cloned().collect();
        for name in &names {
            self.publish(name);
        }
        self.remove_models();
        self.is_start = false;
    }

    fn plan(&mut self, key: Key, place: Arc<Place>) {
        if !self.places.contains_key(&key) {
            self.shared.set_state(&key.0, &key.1, State::Loading, None);
        }
        // A new version of a model that is in use takes the place of what is used less. At the
        // start, and for models that nobody has asked for, there is no reason to.
        let is_in_use = of_model(&self.places, &key.0).any(|(_, place)| place.loaded().is_some());
        self.loading.jobs.plan(place.clone(), is_in_use && !self.is_start, self.sender.clone());
        if let Some(before) = self.coming.insert(key, place) {
            before.dismiss();
        }
    }

    fn ended(&mut self, place: Arc<Place>, ended: Ended) {
        let key = key_of(&place);
        if !self.coming.get(&key).is_some_and(|coming| Arc::ptr_eq(coming, &place)) {
            return;
        }
        self.coming.remove(&key);
        let (name, version) = (&*key.0, &*key.1);
        if let Ended::Failed(reason) = ended {
            tracing::error!(model = name, version, "{reason}");
            if self.places.contains_key(&key) {
                // The version that was there before goes on serving.
                self.shared.set_failure(name, version, reason);
            } else {
                self.shared.set_state(name, version, State::Unavailable(Some(reason)), None);
            }
            self.failed.insert(key.clone(), place.assigned.clone());
            self.publish(&key.0);
            return;
        }
        let info = place.info();
        match &info {
            Some(info) => tracing::info!(
                model = name,
                version,
                engine = info.engine,
                load_ms = info.load_time.as_millis() as u64,
                instances = info.settings.instances,
                memory = info.memory,
                "loaded"
            ),
            None => tracing::info!(model = name, version, "no room now; loaded on demand"),
        }
        self.failed.remove(&key);
        let state = if info.is_some() { State::Ready } else { State::OnDemand };
        self.shared.set_state(name, version, state, info);
        let old = self.places.insert(key.clone(), place);
        self.publish(&key.0);
        self.retire(old.into_iter().collect());
    }

    /// Makes a model's part of the table what is wanted, as far as it is there. A model of which
    /// nothing wanted is there keeps the versions that it had.
    fn publish(&mut self, name: &str) {
        let Some(versions) = self.wanted.models.get(name).filter(|all| !all.is_empty()) else {
            return;
        };
        let key = |assigned: &Assigned| (name.to_owned(), assigned.version.clone());
        let place = |assigned| Some((assigned, self.places.get(&key(assigned))?.clone()));
        let present: Vec<_> = versions.iter().filter_map(place).collect();
        if present.is_empty() {
            return;
        }
        let model = Arc::new(Model::new(name, present));
        // Requests wait for this lock: nothing else is done under it.
        let old = {
            let mut table = self.shared.table.write().unwrap_or_else(PoisonError::into_inner);
            table.models.insert(name.into(), model)
        };
        drop(old);
        if of_model(&self.coming, name).next().is_none() {
            let all = of_model(&self.places, name);
            let unwanted = all.map(|(key, _)| key).filter(|key| !self.is_wanted(key));
            self.remove(unwanted.cloned().collect());
        }
    }

    /// Removes the models that are not wanted at all.
    fn remove_models(&mut self) {
        let is_wanted =
            |name: &str| self.wanted.models.get(name).is_some_and(|all| !all.is_empty());
        let old: Vec<_> = {
            let mut table = self.shared.table.write().unwrap_or_else(PoisonError::into_inner);
            table.models.extract_if(|name, _| !is_wanted(name)).collect()
        };
        drop(old);
        let unwanted = self.places.keys().filter(|(name, _)| !is_wanted(name));
        self.remove(unwanted.cloned().collect());
    }

    fn remove(&mut self, keys: Vec<Key>) {
        let places = keys.iter().filter_map(|key| self.places.remove(key)).collect();
        self.retire(places);
    }

    /// Sees to it that versions are freed once their last request has been answered.
    fn retire(&mut self, places: Vec<Arc<Place>>) {
        let mut leaving = Vec::new();
        for place in places {
            let version = place.dismiss();
            self.leaving += 1;
            if let (Some(_), false) = (&version, self.places.contains_key(&key_of(&place))) {
                self.shared.set_state(&place.name, &place.version, State::Unloading, None);
            }
            leaving.push((place, version));
        }
        if leaving.is_empty() {
            return;
        }
        let count = leaving.len();
        let (loading, sender) = (self.loading.clone(), self.sender.clone());
        let retire = move || {
            for (place, version) in leaving {
                if let Some(version) = version {
                    loading.retire(&place, version);
                }
                let _ = sender.send(Event::Left(place));
            }
        };
        let thread = std::thread::Builder::new().name("retire".into());
        if let Err(error) = thread.spawn(retire) {
            self.leaving -= count;
            tracing::error!("cannot start a thread to unload a model: {error}");
        }
    }

    fn left(&mut self, place: &Place) {
        self.leaving -= 1;
        let key = key_of(place);
        if !self.places.contains_key(&key) && !self.coming.contains_key(&key) {
            self.shared.set_state(&key.0, &key.1, State::Unavailable(None), None);
        }
    }

    /// Forgets what nobody asks about and says what has been dealt with.
    fn settle(&mut self) {
        let wanted = &self.wanted;
        self.loading.common.meters.sweep(Instant::now(), |name, version| {
            let versions = wanted.models.get(name).filter(|versions| !versions.is_empty());
            versions.is_some_and(|versions| {
                version.is_empty() || versions.iter().any(|assigned| assigned.version == version)
            })
        });
        self.shared
            .status
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(name, _), _| wanted.models.contains_key(&**name));
        self.shared.applied.send_if_modified(|applied| {
            let is_new = applied.as_ref() != Some(wanted);
            if is_new {
                *applied = Some(wanted.clone());
            }
            is_new
        });
    }
}

/// Whether the two are loaded alike; shares and pins make no difference.
fn is_same(one: &Assigned, other: &Assigned) -> bool {
    one.source == other.source
        && one.generation == other.generation
        && one.settings == other.settings
}
