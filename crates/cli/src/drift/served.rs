//! Drift of what is served: a watch for each version that is asked.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use ::registry::{Reference, Registry, Selector};
use model::{Observation, Signature};
use monitor::drift::watch::{Settings, Watch};
use monitor::profile::Profile;
use serving::Watched;
use tokio::sync::mpsc;

use crate::watching::{Watcher, Watching};
use crate::{oip, registry};

/// Versions that are watched at most; the one that was asked least recently makes room.
const MOST: usize = 64;

/// How often what was learned is kept.
const KEEP: Duration = Duration::from_secs(60);

/// The largest state that is read back.
const LARGEST: u64 = 64 << 20;

/// Where profiles come from: a registry, once it has answered.
pub type Profiles = Arc<OnceLock<Arc<Registry>>>;

/// The watches of a server.
pub struct Drifts {
    watches: Arc<Mutex<Watches>>,
    folder: Option<PathBuf>,
}

#[derive(Default)]
struct Watches {
    slots: Vec<Slot>,
    /// What is looked at last is the most recent.
    turn: u64,
}

struct Slot {
    model: Arc<str>,
    version: Arc<str>,
    signature: Arc<Signature>,
    turn: u64,
    /// Nothing until its profile is here.
    watch: Option<Box<Watch>>,
}

/// A version whose profile is wanted.
struct Asked {
    model: Arc<str>,
    version: Arc<str>,
    signature: Arc<Signature>,
}

impl Drifts {
    /// Watches all models from now on. What was kept in the folder goes on.
    pub fn watch(
        watching: &Watching,
        settings: Settings,
        profiles: Option<Profiles>,
        folder: Option<PathBuf>,
    ) -> Self {
        let (ask, asked) = mpsc::channel(MOST);
        let watches = Arc::<Mutex<Watches>>::default();
        watching.join(Looking { watches: watches.clone(), ask });
        watching.want("drift", Watched::All);
        let drifts = Self { watches: watches.clone(), folder: folder.clone() };
        tokio::spawn(prepare(watches, asked, settings, profiles, folder));
        if drifts.folder.is_some() {
            let keeping = Self { watches: drifts.watches.clone(), folder: drifts.folder.clone() };
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(KEEP).await;
                    keeping.keep().await;
                }
            });
        }
        drifts
    }

    /// What answers `GET /v2/models/MODEL/drift`.
    pub fn report(&self) -> api::Drift {
        let watches = self.watches.clone();
        Arc::new(move |model, version, since| {
            let watches = lock(&watches);
            let wanted = |slot: &&Slot| {
                *slot.model == *model && version.is_none_or(|version| *slot.version == *version)
            };
            let report = |slot: &Slot| {
                let report = slot.watch.as_ref()?.report(since);
                let mut value = serde_json::to_value(report).ok()?;
                value["version"] = (*slot.version).into();
                Some(value)
            };
            watches.slots.iter().filter(wanted).filter_map(report).collect()
        })
    }

    /// Keeps what was learned, if there is a folder for it.
    pub async fn keep(&self) {
        let Some(folder) = self.folder.clone() else { return };
        // Copied, so that nothing waits for files.
        let copies: Vec<(PathBuf, Box<Watch>)> = {
            let watches = lock(&self.watches);
            let known = watches.slots.iter().filter_map(|slot| Some((slot, slot.watch.clone()?)));
            known.map(|(slot, watch)| (path(&folder, &slot.model, &slot.version), watch)).collect()
        };
        let written = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
            std::fs::create_dir_all(&folder)?;
            for (path, watch) in copies {
                let unfinished = path.with_extension("unfinished");
                std::fs::write(&unfinished, watch.keep().map_err(std::io::Error::other)?)?;
                std::fs::rename(unfinished, path)?;
            }
            Ok(())
        });
        if let Ok(Err(error)) = written.await {
            tracing::warn!("what was learned of drift cannot be kept: {error}");
        }
    }
}

/// Looks at each prediction.
struct Looking {
    watches: Arc<Mutex<Watches>>,
    ask: mpsc::Sender<Asked>,
}

impl Watcher for Looking {
    fn observe(&mut self, observation: &Observation) {
        let mut watches = lock(&self.watches);
        watches.turn += 1;
        let turn = watches.turn;
        let same =
            |slot: &Slot| slot.model == observation.model && slot.version == observation.version;
        if let Some(slot) = watches.slots.iter_mut().find(|slot| same(slot)) {
            let known = Arc::ptr_eq(&slot.signature, &observation.signature)
                || slot.signature == observation.signature;
            if known {
                slot.turn = turn;
                if let Some(watch) = &mut slot.watch {
                    watch.observe(observation);
                }
                return;
            }
        }
        // It is new, or was loaded again as something else.
        let asked = Asked {
            model: observation.model.clone(),
            version: observation.version.clone(),
            signature: observation.signature.clone(),
        };
        let slot = Slot {
            model: asked.model.clone(),
            version: asked.version.clone(),
            signature: asked.signature.clone(),
            turn,
            watch: None,
        };
        if self.ask.try_send(asked).is_ok() {
            watches.slots.retain(|slot| !same(slot));
            if watches.slots.len() >= MOST {
                let oldest = watches.slots.iter().enumerate().min_by_key(|(_, slot)| slot.turn);
                if let Some((place, _)) = oldest {
                    watches.slots.swap_remove(place);
                }
            }
            watches.slots.push(slot);
        }
    }
}

/// Begins each watch that is asked for, with the version's profile if it has one.
async fn prepare(
    watches: Arc<Mutex<Watches>>,
    mut asked: mpsc::Receiver<Asked>,
    settings: Settings,
    profiles: Option<Profiles>,
    folder: Option<PathBuf>,
) {
    // Profiles by what they are of are few: a version that comes back finds its own again.
    let mut known: HashMap<(Arc<str>, Arc<str>), Option<Arc<Profile>>> = HashMap::new();
    while let Some(Asked { model, version, signature }) = asked.recv().await {
        let key = (model.clone(), version.clone());
        let profile = match known.get(&key) {
            Some(profile) => profile.clone(),
            None => {
                let profile = profile_of(profiles.as_ref(), &model, &version).await.map(Arc::new);
                if known.len() >= MOST {
                    known.clear();
                }
                known.insert(key, profile.clone());
                profile
            }
        };
        let fresh = Watch::new(&signature, profile.as_deref(), settings);
        let watch = match &folder {
            Some(folder) => restored(&path(folder, &model, &version), fresh),
            None => fresh,
        };
        let mut watches = lock(&watches);
        let same = |slot: &&mut Slot| {
            slot.model == model && slot.version == version && slot.signature == signature
        };
        if let Some(slot) = watches.slots.iter_mut().find(same) {
            slot.watch = Some(watch.into());
        }
    }
}

async fn profile_of(profiles: Option<&Profiles>, model: &str, version: &str) -> Option<Profile> {
    let registry = profiles?.get()?;
    let number = version.parse().ok()?;
    let reference = Reference { model: model.to_owned(), version: Selector::Number(number) };
    let found = async {
        let version = registry.resolve(&reference).await.map_err(|error| error.to_string())?;
        let profile = registry::profile_of(registry, &version).await;
        profile.map_err(|failure| format!("{failure:?}"))
    };
    found.await.unwrap_or_else(|error: String| {
        tracing::warn!("{model}:{version}: its profile cannot be read, so drift is watched against its first rows: {error}");
        None
    })
}

fn restored(path: &Path, fresh: Watch) -> Watch {
    let kept = std::fs::metadata(path).is_ok_and(|kept| kept.len() <= LARGEST);
    if !kept {
        return fresh;
    }
    let read = std::fs::read(path).map_err(|error| error.to_string());
    read.and_then(|bytes| Watch::restore(&bytes, &fresh)).unwrap_or_else(|error| {
        tracing::warn!("{}: what was kept of drift is not used: {error}", path.display());
        fresh
    })
}

fn path(folder: &Path, model: &str, version: &str) -> PathBuf {
    folder.join(format!("{}@{}.json", oip::escape(model), oip::escape(version)))
}

fn lock(watches: &Mutex<Watches>) -> MutexGuard<'_, Watches> {
    watches.lock().unwrap_or_else(PoisonError::into_inner)
}
