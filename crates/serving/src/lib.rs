//! The request's path: admit, validate, batch, run, reply; and the loading and unloading of versions.
//!
//! Knows nothing of HTTP, protobuf or the registry: it is told what is wanted through a
//! `watch::Receiver<Assignments>` and says what happened through a bounded `Sender<Observation>`.

mod choice;
mod condition;
mod cost;
mod error;
mod histogram;
mod ledger;
mod loader;
mod loading;
mod meter;
mod observe;
mod place;
mod queue;
mod reply;
mod shadow;
mod validate;
mod version;
mod warm_up;
mod worker;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use model::{
    Assigned, Assignments, ErrorCode, InstanceSettings, Observation, Outcome, Package, Tensor,
};
use runtime::Engines;
use tokio::sync::watch;

use ledger::Ledger;
use loader::{Loader, Model, Shared};
use loading::Loading;
use meter::Metered;
use place::{Found, Pin, Place};
use shadow::Answered;
use version::{Common, Refusal, Version};
use worker::Answer;

pub use condition::{Condition, Health};
pub use error::Error;
pub use histogram::{Distribution, SCHEMA, time_bounds};
pub use ledger::Limits;
pub use meter::{Measures, Protocol, Reason};
pub use observe::{Observations, Seen, Watched};
pub use reply::{
    BatchStatistics, Count, ModelInfo, Reply, Request, Slo, State, Statistics, Status, Target,
};
pub use shadow::ShadowCount;
pub use validate::{check, unknown_input};
pub use warm_up::MOST_RECORDED;

/// Opens the version that an assignment names. Called on the loader's threads, never on one that
/// serves, and from several of them at once.
pub type Open = Arc<dyn Fn(&str, &Assigned) -> Result<Opened, String> + Send + Sync>;

/// A version that is ready to be loaded.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The model.
    pub package: Package,
    /// How it is to be run, where that is only known once it is open, in place of what the
    /// assignment says.
    pub settings: Option<InstanceSettings>,
    /// Recorded requests that it is to be warmed with before it gets traffic, each its inputs by
    /// name. The first [`MOST_RECORDED`] of them are run, and no more are begun after two seconds;
    /// those that do not fit the signature are left out. If every one that is run fails, so does the
    /// load.
    pub recorded: Vec<Vec<(String, Tensor)>>,
}

impl From<Package> for Opened {
    fn from(package: Package) -> Self {
        Self { package, settings: None, recorded: Vec::new() }
    }
}

/// What serving is started with.
pub struct Options {
    /// The engines of this machine.
    pub engines: Arc<Engines>,
    /// How an assignment becomes a package.
    pub open: Open,
    /// What is wanted.
    pub assignments: watch::Receiver<Assignments>,
    /// Where observations go, if anyone may ever watch.
    pub observations: Option<Observations>,
    /// What admitted requests are promised, if anything.
    pub slo: Option<Slo>,
    /// The most requests that may wait per version before further ones are refused; as many may
    /// wait for versions to be loaded, all together.
    pub max_queue: usize,
    /// What may be in memory at once.
    pub limits: Limits,
}

/// The models being served. Cheap to clone.
#[derive(Clone)]
pub struct Serving {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    loading: Arc<Loading>,
    assignments: watch::Receiver<Assignments>,
    draining: AtomicBool,
    /// Requests that wait for a version to be loaded.
    waiting: AtomicUsize,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.loading.jobs.close();
    }
}

/// The version that is to answer a request, which it outlasts.
pub struct Chosen {
    version: Arc<Version>,
    /// When the choice began.
    received: Instant,
    /// The model, if its shadows get a copy of the request.
    shadowed: Option<Arc<Model>>,
    /// If the version was loaded for this request, it stays until the answer.
    _pin: Option<Pin>,
}

impl Chosen {
    /// What it is.
    pub fn info(&self) -> &Arc<ModelInfo> {
        &self.version.info
    }
}

/// A request's place among those that wait for a load.
struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Serving {
    /// Starts to follow the assignments. Must be called inside a tokio runtime.
    pub fn start(options: Options) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let common = Common {
            slo: options.slo,
            max_queue: options.max_queue,
            observations: options.observations,
            pressure: Default::default(),
            meters: Default::default(),
        };
        let loading = Arc::new(Loading {
            engines: options.engines,
            open: options.open,
            shared: shared.clone(),
            common: Arc::new(common),
            ledger: Ledger::new(options.limits),
            jobs: Default::default(),
        });
        loading.start()?;
        let loader = Loader::new(loading.clone());
        let assignments = options.assignments.clone();
        let runtime = tokio::runtime::Handle::current();
        std::thread::Builder::new()
            .name("loader".into())
            .spawn(move || loader.follow(assignments, &runtime))?;
        let inner = Inner {
            shared,
            loading,
            assignments: options.assignments,
            draining: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Answers one request.
    pub async fn infer(&self, request: Request) -> Result<Reply, Error> {
        let chosen = self.choose(request.target()).await?;
        self.answer(chosen, request).await
    }

    /// Answers one request with the version that was [chosen](Self::choose) for it. Should that be
    /// unloaded meanwhile, the choice is made again.
    pub async fn answer(&self, chosen: Chosen, request: Request) -> Result<Reply, Error> {
        let mut metered = chosen.version.meter.begin(request.protocol, chosen.received);
        let outcome = self.attempt(chosen, request, &mut metered).await;
        metered.end(outcome.as_ref().err());
        outcome.map_err(Error::counted)
    }

    async fn attempt(
        &self,
        mut chosen: Chosen,
        mut request: Request,
        metered: &mut Metered,
    ) -> Result<Reply, Error> {
        let received = Instant::now();
        let observations = self.inner.loading.common.observations.as_ref();
        let is_watched = observations.is_some_and(|all| all.are_of(&request.model));
        let mut inputs = std::mem::take(&mut request.inputs);
        loop {
            let version = &chosen.version;
            let valid = match validate::validate(&version.info.signature, inputs, &request.outputs)
            {
                Ok(valid) => valid,
                Err(error) => {
                    if is_watched {
                        let none = Arc::default();
                        self.observe(version, &request, (received, none), &Err(error.clone()));
                    }
                    return Err(error);
                }
            };
            let copied = (is_watched || chosen.shadowed.is_some()).then(|| valid.inputs().clone());
            let wanted = valid.outputs().to_vec();
            let outcome = match version.answer(valid, request.priority, request.deadline).await {
                Err(Refusal::Closing(unanswered)) => {
                    // The version was reloaded or unloaded since it was chosen: choose again.
                    let names = version.info.signature.inputs.iter().map(|s| s.name.to_string());
                    let given = names.zip(unanswered.inputs().iter().cloned());
                    inputs = given.filter_map(|(name, tensor)| Some((name, tensor?))).collect();
                    chosen = self.obtain_choice(request.target()).await?;
                    metered.moves_to(&chosen.version.meter);
                    continue;
                }
                Err(Refusal::Error(error)) => Err(error),
                Ok(answer) => Ok(answer),
            };
            if let Some(inputs) = copied {
                if is_watched {
                    self.observe(version, &request, (received, inputs.clone()), &outcome);
                }
                self.copy(&chosen, &request, (received, inputs), &outcome);
            }
            let answer = outcome?;
            return Ok(Reply {
                info: version.info.clone(),
                id: request.id,
                batch_size: answer.batch_size,
                queue: answer.queue,
                compute: answer.compute,
                outputs: choose_outputs(answer.outputs, &wanted),
            });
        }
    }

    /// Chooses the version that is to answer a request, and waits until it is loaded if it was
    /// unloaded to spare memory.
    pub async fn choose(&self, target: Target<'_>) -> Result<Chosen, Error> {
        self.obtain_choice(target).await.map_err(|error| {
            self.refuse(target.model, target.protocol, error.code());
            error.counted()
        })
    }

    async fn obtain_choice(&self, target: Target<'_>) -> Result<Chosen, Error> {
        let received = Instant::now();
        loop {
            let (place, shadowed) = self.find(&target)?;
            self.inner.loading.ledger.touch(&place);
            if let Some(version) = place.loaded() {
                return Ok(Chosen { version, received, shadowed, _pin: None });
            }
            let pin = place.pin();
            if let Some(version) = self.obtain(&place, target.deadline).await? {
                return Ok(Chosen { version, received, shadowed, _pin: Some(pin) });
            }
        }
    }

    /// Waits until a place is loaded; `None` if it is not assigned any more.
    async fn obtain(
        &self,
        place: &Arc<Place>,
        deadline: Option<Instant>,
    ) -> Result<Option<Arc<Version>>, Error> {
        let mut waits = None;
        loop {
            // Before looking, so that no end is missed.
            let ended = place.ended();
            if waits.is_none() {
                waits = Some(self.wait_in_line(place)?);
            }
            match place.look() {
                Found::Loaded(version) => return Ok(Some(version)),
                Found::Dismissed => return Ok(None),
                Found::Failed(reason) => {
                    let called = called(&place.name, Some(&place.version));
                    let message = format!("model {called} failed to load: {reason}");
                    return Err(Error::new(ErrorCode::Unavailable, message)
                        .retry_after(Duration::from_secs(1)));
                }
                Found::Away => self.inner.loading.jobs.ask(place.clone(), true),
                Found::Loading => {}
            }
            match deadline {
                None => ended.await,
                Some(deadline) => {
                    tokio::time::timeout_at(deadline.into(), ended).await.map_err(|_| {
                        let message = "the request's time was up before the model was loaded";
                        Error::new(ErrorCode::DeadlineExceeded, message)
                    })?;
                }
            }
        }
    }

    /// Takes a place among the requests that wait for loads, of which there is a limit.
    fn wait_in_line(&self, place: &Place) -> Result<Waits<'_>, Error> {
        let before = self.inner.waiting.fetch_add(1, Ordering::Relaxed);
        let waits = Waits(&self.inner.waiting);
        if before < self.inner.loading.common.max_queue {
            return Ok(waits);
        }
        let time = place.info().map_or(Duration::from_secs(1), |info| info.load_time);
        let called = called(&place.name, None);
        let message = format!(
            "model {called} has to be loaded, and {before} requests wait for models to be loaded \
             already, which is the limit; try again later"
        );
        Err(Error::new(ErrorCode::Unavailable, message).retry_after(time))
    }

    /// What a version that answers is: the one named, or the one that traffic without a version
    /// gets. Waits for it to be loaded if it never was.
    pub async fn model(&self, name: &str, version: Option<&str>) -> Result<Arc<ModelInfo>, Error> {
        let target = Target { model: name, version, ..Target::default() };
        match self.find(&target)?.0.info() {
            Some(info) => Ok(info),
            None => self.obtain_choice(target).await.map(|chosen| chosen.version.info.clone()),
        }
    }

    /// Whether a version answers: the one named, or the one that traffic without a version gets.
    /// If not, the error says why.
    pub fn check(&self, name: &str, version: Option<&str>) -> Result<(), Error> {
        self.find(&Target { model: name, version, ..Target::default() }).map(drop)
    }

    /// Where the version is that a request means, and the model if its shadows are to get a copy.
    fn find(&self, target: &Target<'_>) -> Result<(Arc<Place>, Option<Arc<Model>>), Error> {
        if self.inner.draining.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorCode::Unavailable, "the server is shutting down")
                .retry_after(Duration::from_secs(1)));
        }
        let table = self.inner.shared.table.read().unwrap_or_else(PoisonError::into_inner);
        let Some(model) = table.models.get(target.model) else {
            drop(table);
            return Err(self.not_ready(target.model, target.version));
        };
        let position = match (target.version, target.key) {
            (Some(version), _) => model.places.iter().position(|p| &*p.version == version),
            (None, Some(key)) => model.choice.of_key(key),
            (None, None) => {
                let turn = || model.turn.fetch_add(1, Ordering::Relaxed);
                if model.places.len() == 1 {
                    model.choice.of_turn(0)
                } else {
                    model.choice.of_turn(turn())
                }
            }
        };
        let Some(place) = position.map(|position| model.places[position].clone()) else {
            drop(table);
            return Err(self.not_ready(target.model, target.version));
        };
        let is_shadowed = target.version.is_none() && !model.shadows.is_empty();
        Ok((place, is_shadowed.then(|| model.clone())))
    }

    /// Why a version cannot be had: it is not known, not yet ready, or failed to load.
    fn not_ready(&self, name: &str, version: Option<&str>) -> Error {
        let status = self.status_of(name);
        let wanted: Vec<&Status> = status
            .iter()
            .filter(|s| version.is_none_or(|version| &*s.version == version))
            .collect();
        let called = called(name, version);
        if wanted.iter().any(|s| s.state == State::Loading) {
            return Error::new(ErrorCode::Unavailable, format!("model {called} is still loading"))
                .retry_after(Duration::from_secs(1));
        }
        if let Some(State::Unavailable(Some(reason))) = wanted.last().map(|s| &s.state) {
            let message = format!("model {called} failed to load: {reason}");
            return Error::new(ErrorCode::Unavailable, message);
        }
        if version.is_none() && wanted.iter().any(|s| s.state.answers()) {
            let message = format!("model {called} has only shadows: name a version to ask one");
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
            s.state.answers() || matches!(s.state, State::Unloading | State::Unavailable(None))
        };
        settled && status.values().all(in_order) && !self.inner.draining.load(Ordering::Relaxed)
    }

    /// The same of one model.
    pub fn status_of(&self, name: &str) -> Vec<Status> {
        let status = self.inner.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
        let from: (Arc<str>, Arc<str>) = (name.into(), "".into());
        let of_model = status.range(from..).take_while(|((model, _), _)| &**model == name);
        of_model.map(|(_, status)| status.clone()).collect()
    }

    /// Counters of a version, or of every version of a model, or of all.
    pub fn statistics(&self, name: Option<&str>, version: Option<&str>) -> Vec<Statistics> {
        let mut places = self.places();
        places.retain(|place| {
            name.is_none_or(|name| &*place.name == name)
                && version.is_none_or(|version| &*place.version == version)
        });
        places.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        let statistics = |place: &Arc<Place>| match place.loaded() {
            Some(version) => Some(version.statistics()),
            None => {
                let (info, past) = place.known();
                info.map(|info| past.statistics(&info))
            }
        };
        places.iter().filter_map(statistics).collect()
    }

    fn places(&self) -> Vec<Arc<Place>> {
        let table = self.inner.shared.table.read().unwrap_or_else(PoisonError::into_inner);
        table.models.values().flat_map(|model| &model.places).cloned().collect()
    }

    /// Bytes of memory that all loaded versions are reckoned to hold together.
    pub fn memory(&self) -> u64 {
        self.inner.loading.ledger.memory()
    }

    /// Waits until everything has been dealt with that was assigned before this call.
    pub async fn settled(&self) {
        let assignments = &self.inner.assignments;
        let mut applied = self.inner.shared.applied.subscribe();
        // What is assigned may change again meanwhile, and then the older state never is. An error
        // would mean that the loader is gone, and nothing will change any more.
        let _ = applied.wait_for(|done| done.as_ref() == Some(&*assignments.borrow())).await;
    }

    /// Takes no new requests and waits until the running ones are answered.
    pub async fn drain(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
        for version in self.places().iter().filter_map(|place| place.loaded()) {
            // Requests end on threads that know nothing of tasks; a short, rare poll is enough.
            while !version.is_quiet() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    fn observe(
        &self,
        version: &Version,
        request: &Request,
        (received, inputs): (Instant, Arc<[Option<Tensor>]>),
        outcome: &Result<Answer, Error>,
    ) {
        let Some(observations) = &self.inner.loading.common.observations else { return };
        let answer = outcome.as_ref().ok();
        let time = received.elapsed();
        observations.send(Observation {
            model: version.info.name.clone(),
            version: version.info.version.clone(),
            signature: version.info.signature.clone(),
            id: request.id.as_deref().map(Into::into),
            key: request.key.as_deref().map(Into::into),
            at: SystemTime::now() - time,
            queue: answer.map_or(Duration::ZERO, |answer| answer.queue),
            compute: answer.map_or(time, |answer| answer.compute),
            batch_size: answer.map_or(0, |answer| answer.batch_size),
            outcome: match outcome {
                Ok(_) => Outcome::Answered,
                Err(error) => Outcome::Failed(error.code()),
            },
            inputs,
            outputs: answer.map(|answer| answer.outputs.as_slice().into()).unwrap_or_default(),
            shadow: None,
        });
    }

    /// Leaves a copy of a request with each shadow of its model.
    fn copy(
        &self,
        chosen: &Chosen,
        request: &Request,
        (received, inputs): (Instant, Arc<[Option<Tensor>]>),
        outcome: &Result<Answer, Error>,
    ) {
        let Some(model) = &chosen.shadowed else { return };
        let outputs = outcome.as_ref().ok().map(|answer| answer.outputs.as_slice().into());
        let answered = Answered {
            info: chosen.version.info.clone(),
            id: request.id.as_deref().map(Into::into),
            key: request.key.as_deref().map(Into::into),
            at: SystemTime::now() - received.elapsed(),
            inputs,
            outputs: outputs.unwrap_or_default(),
        };
        for place in &model.shadows {
            self.inner.loading.ledger.touch(place);
            match place.loaded() {
                // One that was asked for by its name has answered already.
                Some(version) if Arc::ptr_eq(&version, &chosen.version) => {}
                Some(version) => version.shadow(&answered),
                // It comes back if there is room; nobody is unloaded for what nobody sees.
                None => {
                    if let Found::Away = place.look_for_room() {
                        self.inner.loading.jobs.ask(place.clone(), false);
                    }
                }
            }
        }
    }
}

/// A model's name as messages show it.
fn called(name: &str, version: Option<&str>) -> String {
    let short = |text: &str| text.chars().take(100).collect::<String>();
    match version {
        Some(version) => format!("'{}' version {}", short(name), short(version)),
        None => format!("'{}'", short(name)),
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
