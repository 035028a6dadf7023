//! The wanted state, made from folders: what is found at the given paths is what is assigned.
//!
//! The repository endpoints and `SIGHUP` change it; `serving` follows it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use api::{Control, Load};
use import::repository::{self, Config, Found, Versions};
use model::{Assigned, Assignments, ErrorCode, InstanceSettings};
use serving::{Opened, Serving, State};
use tokio::sync::watch;

use crate::{recorded, temporary};

/// A path to serve from, and the name to serve it under if the user gave one.
#[derive(Clone, Debug)]
pub struct Source {
    pub name: Option<String>,
    pub path: PathBuf,
}

/// What applies where neither a model's own configuration nor a caller says otherwise.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    pub settings: InstanceSettings,
    pub versions: Versions,
}

/// The models at a set of paths, and which of them are wanted.
pub struct Library {
    sources: Vec<Source>,
    defaults: Defaults,
    /// Whether callers may change what is loaded.
    open_to_callers: bool,
    assignments: watch::Sender<Assignments>,
    serving: OnceLock<Serving>,
    state: Mutex<Changes>,
}

/// What callers have changed since the start.
#[derive(Default)]
struct Changes {
    unloaded: BTreeSet<String>,
    loaded: BTreeMap<String, Loaded>,
    /// What the configurations beside the models say, to be compared once a model is open.
    configurations: BTreeMap<String, Config>,
}

/// An explicit load of a model.
#[derive(Default)]
struct Loaded {
    /// Counts the loads, so that asking again loads again.
    times: u64,
    /// In place of the configuration beside the model.
    config: Option<Config>,
    files: Option<Sent>,
}

/// Files that came with a request; gone from disk when this is dropped.
struct Sent {
    _folder: temporary::Folder,
    found: Found,
}

/// Why a request to load or unload is refused.
pub type Refusal = (ErrorCode, String);

impl Library {
    /// A library of what the sources hold.
    pub fn new(
        sources: Vec<Source>,
        defaults: Defaults,
        open_to_callers: bool,
    ) -> (Self, watch::Receiver<Assignments>) {
        let (assignments, receiver) = watch::channel(Assignments::default());
        let library = Self {
            sources,
            defaults,
            open_to_callers,
            assignments,
            serving: OnceLock::new(),
            state: Mutex::default(),
        };
        (library, receiver)
    }

    /// Tells the library who follows it.
    pub fn followed_by(&self, serving: Serving) {
        // Set once, by the wiring.
        let _ = self.serving.set(serving);
    }

    fn state(&self) -> MutexGuard<'_, Changes> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the paths again and assigns what is there now. Unchanged files stay as they are.
    pub fn refresh(&self) -> Result<(), String> {
        let mut changes = self.state();
        let found = self.scan()?;
        self.assign(&mut changes, found);
        Ok(())
    }

    /// Opens an assigned version, says where the configuration beside it disagrees with it, and
    /// names its classes as the configuration does. Recorded requests beside its file go with it.
    pub fn open(&self, name: &str, assigned: &Assigned) -> Result<Opened, String> {
        let path = Path::new(&assigned.source);
        let mut package = import::open(path).map_err(|e| e.to_string())?;
        if let Some(config) = self.state().configurations.get(name) {
            for warning in config.disagreements(&package.manifest.signature) {
                tracing::warn!(model = name, version = assigned.version, "{warning}");
            }
            config.name_classes(&mut package);
        }
        Ok(recorded::with(package, &path.with_file_name(recorded::NAME), name))
    }

    /// Everything at the sources, by name.
    fn scan(&self) -> Result<BTreeMap<String, Found>, String> {
        let mut all = BTreeMap::new();
        for source in &self.sources {
            let mut models = repository::scan(&source.path).map_err(|e| e.to_string())?;
            if let Some(name) = &source.name {
                let path = source.path.display();
                let [only] = &mut models[..] else {
                    let count = models.len();
                    return Err(format!(
                        "--model {name}={path}: expected one model, found {count}"
                    ));
                };
                only.name.clone_from(name);
            }
            for found in models {
                let name = found.name.clone();
                if all.insert(name.clone(), found).is_some() {
                    return Err(format!(
                        "two models are called \"{name}\"; give one another name: --model NAME=PATH"
                    ));
                }
            }
        }
        Ok(all)
    }

    /// Makes the assignments from what was found and what callers have changed.
    fn assign(&self, changes: &mut Changes, mut models: BTreeMap<String, Found>) {
        for (name, loaded) in &changes.loaded {
            if let Some(sent) = &loaded.files {
                models.insert(name.clone(), sent.found.clone());
            }
            if let (Some(found), Some(config)) = (models.get_mut(name), &loaded.config) {
                found.config = config.clone();
            }
        }
        models.retain(|name, _| !changes.unloaded.contains(name));
        let mut wanted = Assignments::default();
        for (name, found) in &models {
            for warning in found.warnings() {
                tracing::warn!(model = name, "{warning}");
            }
            let loads = changes.loaded.get(name).map_or(0, |loaded| loaded.times);
            wanted.models.insert(name.clone(), self.assigned(found, loads));
        }
        changes.configurations =
            models.into_iter().map(|(name, found)| (name, found.config)).collect();
        self.assignments.send_replace(wanted);
    }

    fn assigned(&self, found: &Found, loads: u64) -> Vec<Assigned> {
        let settings = merge(found.config.settings(), &self.defaults.settings);
        let served = found.served(&self.defaults.versions);
        let last = served.len().saturating_sub(1);
        let version = |(position, (version, path)): (usize, &(String, PathBuf))| Assigned {
            version: version.clone(),
            source: path.to_string_lossy().into_owned(),
            // Who names no version gets the newest, as with Triton and TensorFlow Serving.
            share: u32::from(position == last),
            shadow: false,
            pinned: Vec::new(),
            settings: settings.clone(),
            generation: fingerprint(path, loads),
        };
        served.into_iter().enumerate().map(version).collect()
    }

    /// Takes a request to load over into the assignments. Reads and writes files.
    ///
    /// Returns the files of the load before this one, which must outlast the versions that came
    /// from them.
    fn want(&self, name: &str, load: Load) -> Result<Option<Sent>, Refusal> {
        let invalid = |message: String| (ErrorCode::InvalidArgument, message);
        repository::check_name(name).map_err(|e| invalid(e.to_string()))?;
        let config = load.config.as_deref().map(|text| read_config(name, text)).transpose()?;
        let files =
            if load.files.is_empty() { None } else { Some(write_files(name, &load.files)?) };
        let mut changes = self.state();
        let found = self.scan().map_err(|e| (ErrorCode::Internal, e))?;
        if files.is_none() && !found.contains_key(name) {
            return Err((
                ErrorCode::NotFound,
                format!("failed to load '{name}': no such model in the repository"),
            ));
        }
        changes.unloaded.remove(name);
        let loaded = changes.loaded.entry(name.to_owned()).or_default();
        loaded.times += 1;
        loaded.config = config;
        let previous = std::mem::replace(&mut loaded.files, files);
        self.assign(&mut changes, found);
        Ok(previous)
    }

    async fn load_model(&self, name: &str, load: Load) -> Result<(), Refusal> {
        self.check_open()?;
        let _previous = off_the_reactor(|| self.want(name, load))?;
        let Some(serving) = self.serving.get() else { return Ok(()) };
        serving.settled().await;
        let failure = serving.status().into_iter().filter(|status| &*status.name == name).find_map(
            |status| match status.state {
                State::Unavailable(Some(reason)) => Some((status.version, reason)),
                _ => status.failure.map(|reason| (status.version, reason)),
            },
        );
        match failure {
            None => Ok(()),
            Some((version, reason)) => Err((
                ErrorCode::InvalidArgument,
                format!("failed to load '{name}' version {version}: {reason}"),
            )),
        }
    }

    async fn unload_model(&self, name: &str) -> Result<(), Refusal> {
        self.check_open()?;
        let _files = {
            let mut changes = self.state();
            if !self.assignments.borrow().models.contains_key(name) {
                return Err((
                    ErrorCode::NotFound,
                    format!("failed to unload '{name}': it is not loaded"),
                ));
            }
            changes.unloaded.insert(name.to_owned());
            self.assignments.send_modify(|wanted| {
                wanted.models.remove(name);
            });
            changes.loaded.remove(name)
        };
        if let Some(serving) = self.serving.get() {
            serving.settled().await;
        }
        Ok(())
    }

    fn check_open(&self) -> Result<(), Refusal> {
        if self.open_to_callers {
            return Ok(());
        }
        Err((
            ErrorCode::PermissionDenied,
            "loading and unloading by request is off, because this server listens beyond this \
             machine; start it with --model-control to allow it"
                .to_owned(),
        ))
    }
}

impl Control for Library {
    fn load<'a>(
        &'a self,
        name: &'a str,
        overrides: Load,
    ) -> Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send + 'a>> {
        Box::pin(self.load_model(name, overrides))
    }

    fn unload<'a>(
        &'a self,
        name: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send + 'a>> {
        Box::pin(self.unload_model(name))
    }

    fn available(&self) -> Vec<(String, String)> {
        let found = off_the_reactor(|| self.scan()).unwrap_or_default().into_values();
        let wanted = self.assignments.borrow();
        let versions = found.flat_map(|found| {
            let name = found.name;
            found.versions.into_iter().map(move |(version, _)| (name.clone(), version))
        });
        versions.filter(|(name, _)| !wanted.models.contains_key(name)).collect()
    }
}

/// A model's own settings, with what it leaves open taken from the server's.
pub fn merge(own: InstanceSettings, defaults: &InstanceSettings) -> InstanceSettings {
    let providers = if own.providers.is_empty() { &defaults.providers } else { &own.providers };
    InstanceSettings {
        providers: providers.clone(),
        engine: own.engine.or_else(|| defaults.engine.clone()),
        instances: own.instances.or(defaults.instances),
        threads: own.threads.or(defaults.threads),
        max_batch_size: own.max_batch_size.or(defaults.max_batch_size),
    }
}

/// Runs what reads files where other tasks do not wait for it.
fn off_the_reactor<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

/// The configuration that came with a request to load.
fn read_config(model: &str, text: &str) -> Result<Config, Refusal> {
    let refused = |why: String| (ErrorCode::InvalidArgument, format!("config: {why}"));
    let config = Config::from_json(text).map_err(refused)?;
    match &config.name {
        Some(name) if !name.is_empty() && name != model => Err(refused(format!(
            "the name is \"{}\", but the model is \"{model}\"",
            name.escape_debug()
        ))),
        _ => Ok(config),
    }
}

/// Changes when the files at a path change, or when the model is loaded once more.
fn fingerprint(path: &Path, times: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    times.hash(&mut hasher);
    let mut files = vec![path.to_owned()];
    // External data lies beside the file.
    let folder = if path.is_dir() { Some(path) } else { path.parent() };
    if let Some(entries) = folder.and_then(|folder| folder.read_dir().ok()) {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    for file in files.iter().filter(|file| is_of_model(file, path)) {
        if let Ok(metadata) = file.metadata() {
            (file, metadata.len(), metadata.modified().ok()).hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// Whether a file beside a model can be part of it: another model is not.
fn is_of_model(file: &Path, model: &Path) -> bool {
    file == model || (file.is_file() && file.extension().is_none_or(|e| e != "onnx"))
}

/// Writes files that came with a load request (`1/model.onnx`) into a folder of their own.
fn write_files(name: &str, files: &[(String, bytes::Bytes)]) -> Result<Sent, Refusal> {
    let internal = |e: std::io::Error| (ErrorCode::Internal, format!("cannot keep the files: {e}"));
    let folder = temporary::Folder::new().map_err(internal)?;
    for (path, contents) in files {
        let relative = Path::new(path);
        let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || relative.components().count() != 2 {
            let shown: String = path.chars().take(100).collect();
            return Err((
                ErrorCode::InvalidArgument,
                format!("file \"{shown}\": expected VERSION/NAME, such as 1/model.onnx"),
            ));
        }
        let target = folder.path().join(name).join(relative);
        let parent = target.parent().expect("the path has two parts");
        std::fs::create_dir_all(parent).map_err(internal)?;
        std::fs::write(&target, contents).map_err(internal)?;
    }
    let mut found = repository::scan(folder.path())
        .map_err(|e| (e.code(), format!("failed to load '{name}': {e}")))?;
    match (found.pop(), found.len()) {
        (Some(mut only), 0) => {
            only.name = name.to_owned();
            Ok(Sent { _folder: folder, found: only })
        }
        (_, others) => Err((
            ErrorCode::InvalidArgument,
            format!("failed to load '{name}': expected one model, found {}", others + 1),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sent_file_stays_in_its_folder() {
        for path in ["../x.onnx", "/1/x.onnx", "1/../../x.onnx", "x.onnx", "1/2/x.onnx", ""] {
            let sent = write_files("m", &[(path.to_owned(), "x".into())]);
            assert_eq!(sent.err().unwrap().0, ErrorCode::InvalidArgument, "{path}");
        }
    }

    #[test]
    fn a_configuration_belongs_to_its_model() {
        assert!(read_config("m", r#"{"name": ""}"#).is_ok());
        for (text, expected) in [
            ("{", "config: EOF"),
            (r#"{"name": "n"}"#, "the name is \"n\", but the model is \"m\""),
            (r#"{"max_batch_size": -1}"#, "expected a number from 0 on, got -1"),
        ] {
            let (code, message) = read_config("m", text).unwrap_err();
            assert_eq!(code, ErrorCode::InvalidArgument);
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_fingerprint_changes_with_the_file_and_with_each_load() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.onnx");
        std::fs::write(&path, "one").unwrap();
        let first = fingerprint(&path, 0);
        assert_eq!(first, fingerprint(&path, 0));
        assert_ne!(first, fingerprint(&path, 1));
        std::fs::write(&path, "another").unwrap();
        assert_ne!(first, fingerprint(&path, 0));
        let second = fingerprint(&path, 0);
        std::fs::write(folder.path().join("other.onnx"), "a neighbour").unwrap();
        assert_eq!(second, fingerprint(&path, 0));
        std::fs::write(folder.path().join("weights.bin"), "external data").unwrap();
        assert_ne!(second, fingerprint(&path, 0));
    }
}
