//! What a server keeps of a registry, so that it can start while that is away.
//!
//! ```text
//! CACHE/LOCATION/lock                                held by every server that uses the folder
//! CACHE/LOCATION/known.json                          what was last assigned
//! CACHE/LOCATION/IDENTITY/MODEL/NUMBER/version.json  what the registry says of the version
//! CACHE/LOCATION/IDENTITY/MODEL/NUMBER/files/…       its files
//! ```
//!
//! Whatever is written has a name that starts with a dot until it is whole, and is renamed then:
//! whoever is killed leaves nothing half-done that is read. Versions never change, so several
//! servers may share a folder: who comes second finds what the first has put there.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ::registry::{Reference, Registry, Selector, Version};
use model::Assignments;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::registry::{digest, place};
use crate::{Failure, temporary};

/// What nobody can still be writing.
const OLD: Duration = Duration::from_secs(3600);
/// A registry that no server has followed for so long is not followed any more.
const UNUSED: Duration = Duration::from_secs(30 * 24 * 3600);

/// What was last known of a registry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// The registry's identity.
    pub registry: String,
    /// What it assigned.
    pub assignments: Assignments,
}

/// The folder of one registry.
pub struct Cache {
    folder: PathBuf,
    /// Held until this is dropped.
    _lock: Option<File>,
    /// Gone when this is dropped.
    _temporary: Option<temporary::Folder>,
}

impl Cache {
    /// Opens the part of a cache folder that belongs to a registry's location, and removes what
    /// servers that were killed left there. Without a folder it is the user's own; where that
    /// cannot be written to it is one that lasts as long as this.
    pub fn open(
        folder: Option<&Path>,
        registry: &str,
        database: Option<&str>,
    ) -> Result<Self, Failure> {
        let name = name_of(registry, database);
        let failed = |folder: &Path, error: std::io::Error| {
            Failure::new(format!("the cache folder {}: {error}", folder.display()))
                .help("name one that can be written to: --cache FOLDER")
        };
        if let Some(folder) = folder {
            return Self::at(folder.join(name), None).map_err(|error| failed(folder, error));
        }
        if let Some(folder) = place::user_folder("XDG_CACHE_HOME", ".cache") {
            match Self::at(folder.join(&name), None) {
                Ok(cache) => return Ok(cache),
                Err(error) => tracing::warn!("{} cannot be used: {error}", folder.display()),
            }
        }
        tracing::warn!(
            "what is fetched from the registry is kept only until this server stops, and it cannot \
             start while the registry is away; --cache FOLDER keeps it"
        );
        let temporary = temporary::Folder::new()?;
        let folder = temporary.path().join(name);
        Self::at(folder.clone(), Some(temporary)).map_err(|error| failed(&folder, error))
    }

    fn at(folder: PathBuf, temporary: Option<temporary::Folder>) -> std::io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        let lock = File::create(folder.join("lock"))?;
        lock.set_modified(SystemTime::now())?;
        if let Some(all) = folder.parent() {
            remove_unused(all);
        }
        // Whoever is alone here can tell that what is half-done is nobody's.
        if lock.try_lock().is_ok() {
            remove_unfinished(&folder, Duration::ZERO);
            lock.unlock()?;
        }
        let locked = lock.lock_shared();
        if let Err(error) = &locked {
            tracing::debug!("{} cannot be locked: {error}", folder.display());
        }
        Ok(Self { folder, _lock: locked.is_ok().then_some(lock), _temporary: temporary })
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What was last known; nothing if that cannot be read.
    pub fn known(&self) -> Option<Known> {
        let path = self.folder.join("known.json");
        let text = std::fs::read(&path).ok()?;
        serde_json::from_slice(&text)
            .inspect_err(|error| tracing::warn!("{} is ignored: {error}", path.display()))
            .ok()
    }

    /// Keeps what is known now in place of what was.
    pub fn remember(&self, known: &Known) {
        if self.known().as_ref() == Some(known) {
            return;
        }
        if let Err(error) = write_json(&self.folder.join("known.json"), known, true) {
            tracing::warn!("cannot keep what is assigned in {}: {error}", self.folder.display());
        }
    }

    fn version(&self, registry: &str, model: &str, number: u64) -> PathBuf {
        self.folder.join(registry).join(model).join(number.to_string())
    }

    /// Where the files of a version are, if it is here.
    pub fn files(&self, registry: &str, model: &str, number: u64) -> PathBuf {
        self.version(registry, model, number).join("files")
    }

    /// Whether a version seems to be here; its files are not looked at.
    pub fn has(&self, registry: &str, model: &str, number: u64) -> bool {
        self.version(registry, model, number).is_dir()
    }

    /// The file to open of a version that is here, every file of which has its digest. A damaged
    /// version is removed.
    pub fn find(&self, registry: &str, model: &str, number: u64) -> Option<PathBuf> {
        let folder = self.version(registry, model, number);
        if !folder.is_dir() {
            return None;
        }
        match verified(&folder) {
            Ok(version) => Some(main_file(&folder, &version)),
            Err(problem) => {
                tracing::warn!("the cached {model}:{number} is not used: {problem}");
                self.discard(registry, model, number);
                None
            }
        }
    }

    /// Fetches a version, and returns the file to open; the digests of its files are checked on
    /// the way.
    pub async fn fetch(
        &self,
        registry: &Registry,
        identity: &str,
        model: &str,
        number: u64,
    ) -> Result<PathBuf, String> {
        let reference = Reference { model: model.to_owned(), version: Selector::Number(number) };
        let version = registry.resolve(&reference).await.map_err(|e| e.to_string())?;
        let folder = self.version(identity, model, number);
        let unfinished = beside(&folder);
        let fetched = async {
            let files = unfinished.join("files");
            registry.fetch(&version, &files).await.map_err(|e| e.to_string())?;
            write_json(&unfinished.join("version.json"), &version, false)
                .and_then(|()| publish(&unfinished, &folder))
                .map_err(|e| format!("{}: {e}", folder.display()))
        };
        let fetched = fetched.await;
        if fetched.is_err() {
            // The error that matters is the first; what is left is removed with other leftovers.
            let _ = std::fs::remove_dir_all(&unfinished);
        }
        fetched.map(|()| main_file(&folder, &version))
    }

    /// Removes a version: under its name it is whole or not there.
    pub fn discard(&self, registry: &str, model: &str, number: u64) {
        remove(&self.version(registry, model, number));
    }

    /// Removes what is assigned no longer. A model's other versions stay until all that are
    /// assigned are here: what serves may still be one of them.
    pub fn prune(&self, known: &Known) {
        for registry in entries(&self.folder).filter(|path| path.is_dir()) {
            if name(&registry) != known.registry {
                remove(&registry);
            }
        }
        for model in entries(&self.folder.join(&known.registry)) {
            let assigned = known.assignments.models.get(name(&model));
            let numbers: Vec<&str> =
                assigned.into_iter().flatten().map(|one| &*one.version).collect();
            if numbers.iter().any(|number| !model.join(number).is_dir()) {
                continue;
            }
            for version in entries(&model).filter(|path| !numbers.contains(&name(path))) {
                remove(&version);
            }
            // Only where nothing is in it any more.
            let _ = std::fs::remove_dir(&model);
        }
        remove_unfinished(&self.folder, OLD);
    }
}

fn main_file(folder: &Path, version: &Version) -> PathBuf {
    folder.join("files").join(&version.main)
}

/// The name of a location's folder: the same for the same registry, and without its password.
fn name_of(registry: &str, database: Option<&str>) -> String {
    let plain = |text: &str| match text.split_once("://") {
        Some((scheme, rest)) => {
            let rest = rest.split('?').next().unwrap_or(rest);
            let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            format!("{scheme}://{host}")
        }
        None => {
            let path = std::path::absolute(text).unwrap_or_else(|_| text.into());
            path.to_string_lossy().trim_end_matches('/').to_owned()
        }
    };
    let text = format!("{}\n{}", plain(registry), database.map(plain).unwrap_or_default());
    Sha256::digest(text).iter().take(10).map(|byte| format!("{byte:02x}")).collect()
}

/// What the registry said of a version, if all of its files are as it said.
fn verified(folder: &Path) -> Result<Version, String> {
    let read = std::fs::read(folder.join("version.json"));
    let text = read.map_err(|e| format!("version.json: {e}"))?;
    let version: Version =
        serde_json::from_slice(&text).map_err(|e| format!("version.json: {e}"))?;
    for file in &version.files {
        let found = digest(&folder.join("files").join(&file.name));
        let found = found.map_err(|e| format!("{}: {e}", file.name))?;
        if found != file.digest {
            return Err(format!("{}: its digest is {found} instead of {}", file.name, file.digest));
        }
    }
    if !version.files.iter().any(|file| file.name == version.main) {
        return Err(format!("version.json: {} is not among the files", version.main));
    }
    Ok(version)
}

/// Gives a finished folder its name. That somebody else was faster is as good.
fn publish(unfinished: &Path, folder: &Path) -> std::io::Result<()> {
    match std::fs::rename(unfinished, folder) {
        Err(_) if folder.is_dir() => std::fs::remove_dir_all(unfinished),
        renamed => renamed,
    }
}

/// A name of the same folder that nobody reads.
fn beside(path: &Path) -> PathBuf {
    path.with_file_name(format!(".{}.{:08x}", name(path), fastrand::u32(..)))
}

/// Puts a file in the place of the one that is there. It outlasts a loss of power if it is to: what
/// has digests need not, for it is compared with them.
fn write_json(path: &Path, value: &impl Serialize, lasting: bool) -> std::io::Result<()> {
    let unfinished = beside(path);
    let written = File::create_new(&unfinished).and_then(|mut file| {
        file.write_all(&serde_json::to_vec_pretty(value)?)?;
        if lasting {
            file.sync_all()?;
        }
        std::fs::rename(&unfinished, path)
    });
    written.inspect_err(|_| {
        // The error that matters is the first.
        let _ = std::fs::remove_file(&unfinished);
    })
}

/// Removes a folder. It loses its name first, so that nobody finds a part of it.
fn remove(folder: &Path) {
    let nameless = beside(folder);
    match std::fs::rename(folder, &nameless).and_then(|()| std::fs::remove_dir_all(&nameless)) {
        // Another server that shares the folder may be at it as well.
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!("cannot remove {}: {error}", folder.display());
        }
        _ => {}
    }
}

/// Removes what was never finished, wherever it is in the folder.
fn remove_unfinished(folder: &Path, older_than: Duration) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries {
        let path = entry.path();
        let modified = entry.metadata().and_then(|data| data.modified()).ok();
        let age = modified.and_then(|time| SystemTime::now().duration_since(time).ok());
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !name(&path).starts_with('.') {
            // A version's own files are none of our names.
            if is_folder && !path.join("version.json").exists() {
                remove_unfinished(&path, older_than);
            }
        } else if age.unwrap_or_default() >= older_than {
            // Tried again the next time.
            let _ = if is_folder {
                std::fs::remove_dir_all(&path)
            } else {
                std::fs::remove_file(&path)
            };
        }
    }
}

/// Removes what is kept of registries that nobody has followed for long, unless somebody does now.
fn remove_unused(all: &Path) {
    for folder in entries(all) {
        let Ok(lock) = File::open(folder.join("lock")) else { continue };
        let used = lock.metadata().and_then(|data| data.modified()).ok();
        let age = used.and_then(|time| SystemTime::now().duration_since(time).ok());
        if age.is_some_and(|age| age > UNUSED) && lock.try_lock().is_ok() {
            remove(&folder);
        }
    }
}

/// What is finished in a folder.
fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| !name(path).starts_with('.'))
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_keeps_its_folder_when_the_password_changes() {
        let one = name_of("s3://models/x", Some("postgres://ada:one@db/models?sslmode=require"));
        let other = name_of("s3://models/x", Some("postgres://bob:p@ss@db/models"));
        assert_eq!(one, other);
        assert_ne!(one, name_of("s3://models/x", Some("postgres://ada:one@db/other")));
        assert_eq!(name_of("folder/", None), name_of("folder", None));
        assert_ne!(name_of("folder", None), name_of("other", None));
    }

    #[test]
    fn a_registry_that_nobody_follows_any_more_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name| Cache::open(Some(folder.path()), name, None).unwrap();
        let (old, followed) = (open("old").folder().to_owned(), open("followed"));
        for folder in [&old, followed.folder()] {
            let lock = File::options().write(true).open(folder.join("lock")).unwrap();
            lock.set_modified(SystemTime::now() - UNUSED * 2).unwrap();
        }
        open("another");
        assert!(!old.exists() && followed.folder().exists());
    }

    #[test]
    fn what_is_known_survives_a_writer_that_was_killed() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Cache::open(Some(folder.path()), "somewhere", None).unwrap();
        let cache = open();
        assert_eq!(cache.known(), None);
        let known = Known { registry: "one".into(), assignments: Assignments::default() };
        cache.remember(&known);
        let unfinished = cache.folder().join("one/m/.1.00000000/files");
        std::fs::create_dir_all(&unfinished).unwrap();
        std::fs::write(cache.folder().join(".known.json.00000000"), "{").unwrap();
        // Another that uses the folder leaves alone what may be somebody's work.
        assert_eq!(open().known(), Some(known.clone()));
        assert!(unfinished.exists());
        let place = cache.folder().to_owned();
        drop(cache);
        assert_eq!(open().known(), Some(known));
        assert!(!unfinished.exists() && !place.join(".known.json.00000000").exists());
        std::fs::write(place.join("known.json"), "{\"registry\"").unwrap();
        assert_eq!(open().known(), None);
    }
}
