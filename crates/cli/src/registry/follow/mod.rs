//! Serving what a registry assigns: whoever moves an alias there changes what is loaded here.

mod cache;
mod retries;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use ::registry::{Clock, Location, Registry};
use model::{Assigned, Assignments, ErrorCode, InstanceSettings, Package};
use serving::Opened;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use self::cache::{Cache, Known};
use self::retries::Retries;
use super::{OrFailure, place};
use crate::library::merge;
use crate::{Failure, recorded};

/// How long a server that could start from its cache waits for the registry.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long it waits between two tries to reach it.
const AGAIN: Duration = Duration::from_secs(2);
/// How often it is made sure that the cache has what is assigned.
const COMPLETE: Duration = Duration::from_secs(30);

/// Which registry is followed, and where its files are kept.
#[derive(Debug)]
pub struct Followee {
    /// Folder or URL.
    pub registry: String,
    /// Where its rows are, if not in its folder.
    pub database: Option<String>,
    /// Where to keep what was fetched, if not in the user's own cache folder.
    pub cache: Option<PathBuf>,
    /// How long a champion's predecessor stays assigned.
    pub keep_warm: Duration,
}

/// A registry whose assignments are served.
pub struct Followed {
    shared: Arc<Shared>,
    assignments: watch::Receiver<Assignments>,
    runtime: Handle,
}

/// What the one who follows shares with the one who opens.
struct Shared {
    cache: Cache,
    /// The registry, once it has answered.
    registry: Arc<OnceLock<Arc<Registry>>>,
    /// Whether it has.
    connected: watch::Sender<bool>,
    /// The identity of the registry whose assignments are served.
    identity: Mutex<String>,
    retries: Mutex<Retries>,
    /// Told when a version has to be tried again.
    failed: Notify,
}

/// A registry that has answered.
struct Connection {
    registry: Arc<Registry>,
    identity: String,
    assigned: watch::Receiver<Assignments>,
}

impl Followed {
    /// Opens the registry and follows it from now on. While it is away, what was last known stays
    /// assigned; a server that is started meanwhile takes that from its cache.
    pub async fn start(followee: Followee, defaults: InstanceSettings) -> Result<Self, Failure> {
        let Followee { registry, database, cache, keep_warm } = followee;
        let location = place::location(&registry)?;
        let cache = Cache::open(cache.as_deref(), &registry, database.as_deref())?;
        let known = cache.known();
        // What was there before is away if it is not there now, and not to be made anew.
        let make = known.is_none();
        let source = Source { location, database, keep_warm, make };
        let mut opening = tokio::spawn(source.clone().connect());
        let connected = match &known {
            None => Some((&mut opening).await?.or_failure()?),
            Some(_) => match tokio::time::timeout(PATIENCE, &mut opening).await {
                Ok(opened) => match opened? {
                    Err(error) if error.code() == ErrorCode::InvalidArgument => {
                        return Err(Failure::usage(error));
                    }
                    opened => opened.inspect_err(say_away).ok(),
                },
                Err(_) => None,
            },
        };
        if connected.is_none() {
            tracing::warn!(
                cache = %cache.folder().display(),
                "the registry is away: serving what was last known of it, from the cache"
            );
        }
        let (sender, assignments) = watch::channel(Assignments::default());
        let shared = Arc::new(Shared {
            cache,
            registry: Arc::default(),
            connected: watch::Sender::new(false),
            identity: Mutex::default(),
            retries: Mutex::default(),
            failed: Notify::new(),
        });
        let mut follower =
            Follower { shared: shared.clone(), defaults, known: None, sender, completing: None };
        match (&connected, known) {
            (Some(connection), _) => follower.connected(connection),
            (None, Some(known)) => follower.assign(known),
            (None, None) => unreachable!("without a cache the registry has answered"),
        }
        tokio::spawn(async move {
            let connection = match connected {
                Some(connection) => connection,
                None => {
                    let connection = source.connect_at_last(opening).await;
                    tracing::info!("the registry is back");
                    follower.connected(&connection);
                    connection
                }
            };
            follower.follow(connection).await;
        });
        Ok(Self { shared, assignments, runtime: Handle::current() })
    }

    /// What is assigned.
    pub fn assignments(&self) -> watch::Receiver<Assignments> {
        self.assignments.clone()
    }

    /// The registry, once it has answered for the first time.
    pub fn registry(&self) -> Arc<OnceLock<Arc<Registry>>> {
        self.shared.registry.clone()
    }

    /// Waits until the registry has answered for the first time.
    pub async fn connected(&self) -> Arc<Registry> {
        let mut connected = self.shared.connected.subscribe();
        // The sender lives as long as this.
        let _ = connected.wait_for(|connected| *connected).await;
        match self.shared.registry.get() {
            Some(registry) => registry.clone(),
            None => std::future::pending().await,
        }
    }

    /// Opens a version from the cache, fetching it before if it is not there, as untrusted bytes
    /// all the same. What cannot be fetched is tried again later, as another generation. Blocks;
    /// must not be called from the runtime's own threads.
    pub fn open(&self, model: &str, assigned: &Assigned) -> Result<Opened, String> {
        let number = number_of(assigned);
        let identity = self.shared.identity();
        let cached = match self.shared.cache.find(&identity, model, number) {
            Some(cached) => cached,
            None => {
                let fetched = self.runtime.block_on(self.shared.fetch(&identity, model, number));
                self.shared.note(model, &assigned.version, &fetched);
                fetched?
            }
        };
        let mut package = import::open(&cached).map_err(|error| error.to_string())?;
        let folder = self.shared.cache.files(&identity, model, number);
        let settings = configure(&mut package, &folder, (model, assigned));
        let opened = recorded::with(package, &folder.join(recorded::NAME), model);
        Ok(Opened { settings, ..opened })
    }
}

/// Does what the `config.pbtxt` of a version says, if it has one: names its classes, and returns how
/// it is to be run. What it says of names and versions is the registry's to decide.
fn configure(
    package: &mut Package,
    folder: &Path,
    (model, assigned): (&str, &Assigned),
) -> Option<InstanceSettings> {
    let mut warnings = Vec::new();
    let config = import::repository::read_config(folder, &mut warnings);
    if let Some(config) = &config {
        warnings.extend(config.warnings.iter().cloned());
        warnings.extend(config.disagreements(&package.manifest.signature));
        config.name_classes(package);
    }
    for warning in warnings {
        tracing::warn!(model, version = assigned.version, "{warning}");
    }
    config.map(|config| merge(config.settings(), &assigned.settings))
}

/// Where the registry is, as it was said.
#[derive(Clone)]
struct Source {
    location: Location,
    database: Option<String>,
    keep_warm: Duration,
    /// Whether it is made where there is none.
    make: bool,
}

impl Source {
    async fn connect(self) -> ::registry::Result<Connection> {
        let (location, database) = (&self.location, self.database.as_deref());
        let registry = match self.make {
            true => Registry::open(location, database, Clock::system()).await?,
            false => Registry::open_existing(location, database, Clock::system()).await?,
        };
        let registry = Arc::new(registry);
        let identity = registry.identity().await?;
        let assigned = registry.watch(self.keep_warm).await?;
        Ok(Connection { registry, identity, assigned })
    }

    /// Waits for a try that is under way if it has not ended, then tries until the registry answers.
    async fn connect_at_last(
        &self,
        first: JoinHandle<::registry::Result<Connection>>,
    ) -> Connection {
        let mut next = (!first.is_finished()).then_some(first);
        loop {
            let tried = match next.take() {
                Some(first) => first.await.ok(),
                None => {
                    tokio::time::sleep(AGAIN.mul_f64(0.5 + fastrand::f64())).await;
                    Some(self.clone().connect().await)
                }
            };
            match tried {
                Some(Ok(connection)) => return connection,
                Some(Err(error)) => say_away(&error),
                None => {}
            }
        }
    }
}

fn say_away(error: &::registry::Error) {
    tracing::warn!(%error, "the registry does not answer");
}

impl Shared {
    fn identity(&self) -> String {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn retries(&self) -> MutexGuard<'_, Retries> {
        self.retries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch(&self, identity: &str, model: &str, number: u64) -> Result<PathBuf, String> {
        match self.registry.get() {
            Some(registry) => self.cache.fetch(registry, identity, model, number).await,
            None => Err("its files are not in the cache, and the registry is away".to_owned()),
        }
    }

    /// Notes how fetching a version went, for the next try.
    fn note(&self, model: &str, version: &str, fetched: &Result<PathBuf, String>) {
        match fetched {
            Ok(_) => self.retries().succeeded(model, version),
            Err(_) => {
                self.retries().failed(model, version, Instant::now(), fastrand::f64());
                self.failed.notify_one();
            }
        }
    }

    /// Resolves when a version has to be tried again.
    async fn due(&self) {
        loop {
            let due = self.retries().due();
            let wait = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = wait => return,
                () = self.failed.notified() => {}
            }
        }
    }
}

/// Passes on what the registry assigns.
struct Follower {
    shared: Arc<Shared>,
    defaults: InstanceSettings,
    known: Option<Known>,
    sender: watch::Sender<Assignments>,
    completing: Option<JoinHandle<()>>,
}

impl Follower {
    async fn follow(mut self, mut connection: Connection) {
        let mut complete = tokio::time::interval(COMPLETE);
        loop {
            tokio::select! {
                changed = connection.assigned.changed() => match changed {
                    Ok(()) => self.changed(&connection),
                    Err(_) => return,
                },
                () = self.shared.due() => {
                    self.shared.retries().begin(Instant::now());
                    self.send();
                }
                _ = complete.tick() => self.complete(),
            }
        }
    }

    /// The registry has answered.
    fn connected(&mut self, connection: &Connection) {
        // Set once: whoever has answered stays.
        let _ = self.shared.registry.set(connection.registry.clone());
        self.shared.connected.send_replace(true);
        self.shared.retries().hasten(Instant::now());
        self.shared.retries().begin(Instant::now());
        self.changed(connection);
    }

    fn changed(&mut self, connection: &Connection) {
        let assignments = connection.assigned.borrow().clone();
        let known = Known { registry: connection.identity.clone(), assignments };
        self.shared.cache.remember(&known);
        self.assign(known);
        self.prune();
    }

    fn assign(&mut self, known: Known) {
        let identity = &self.shared.identity;
        identity.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&known.registry);
        self.known = Some(known);
        self.send();
    }

    /// Sends what is known, with this server's own settings.
    fn send(&self) {
        let Some(known) = &self.known else { return };
        let mut wanted = known.assignments.clone();
        for assigned in wanted.models.values_mut().flatten() {
            assigned.settings = merge(std::mem::take(&mut assigned.settings), &self.defaults);
        }
        self.shared.retries().apply(&mut wanted);
        self.sender.send_replace(wanted);
    }

    fn prune(&self) {
        let (shared, known) = (self.shared.clone(), self.known.clone());
        // Removes files, so it stays off the threads that serve.
        tokio::task::spawn_blocking(move || known.map(|known| shared.cache.prune(&known)));
    }

    /// Fetches what is assigned and not in the cache, unless it is to be tried again anyway: a
    /// version that is loaded already may have been removed here by a change that did not last.
    fn complete(&mut self) {
        if self.completing.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (shared, Some(known)) = (self.shared.clone(), self.known.clone()) else { return };
        self.completing = Some(tokio::spawn(async move {
            for (model, versions) in &known.assignments.models {
                for assigned in versions {
                    let number = number_of(assigned);
                    let here = shared.cache.has(&known.registry, model, number);
                    if here || shared.retries().waits(model, &assigned.version) {
                        continue;
                    }
                    if let Err(error) = shared.fetch(&known.registry, model, number).await {
                        tracing::warn!(model, version = number, "cannot be kept here: {error}");
                    }
                }
            }
            let pruned = tokio::task::spawn_blocking(move || shared.cache.prune(&known));
            // A panic has been told by its thread.
            let _ = pruned.await;
        }));
    }
}

/// The registry assigns versions by number.
fn number_of(assigned: &Assigned) -> u64 {
    // Whatever else a damaged cache says is no version: none is numbered 0.
    assigned.version.parse().unwrap_or(0)
}
