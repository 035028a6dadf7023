//! Serving what a registry assigns: whoever moves an alias there changes what is loaded here.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use ::registry::{Reference, Registry, Selector};
use api::{Control, Load};
use model::{Assigned, Assignments, ErrorCode, InstanceSettings, Package};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::{OrFailure, place};
use crate::Failure;
use crate::library::{Refusal, merge};

/// A registry whose assignments are served.
pub struct Followed {
    registry: Arc<Registry>,
    /// Where versions are copied to before they are opened; gone when this is dropped.
    files: tempfile::TempDir,
    assignments: watch::Receiver<Assignments>,
    runtime: Handle,
}

impl Followed {
    /// Opens the registry and follows it from now on. While it is away, what was last known stays
    /// assigned.
    pub async fn start(
        registry: &str,
        database: Option<&str>,
        defaults: InstanceSettings,
    ) -> Result<Self, Failure> {
        let registry = Arc::new(place::open(registry, database).await?);
        let mut assigned = registry.watch().await.or_failure()?;
        let with_defaults = move |mut wanted: Assignments| {
            for assigned in wanted.models.values_mut().flatten() {
                assigned.settings = merge(std::mem::take(&mut assigned.settings), &defaults);
            }
            wanted
        };
        let first = with_defaults(assigned.borrow_and_update().clone());
        let (sender, assignments) = watch::channel(first);
        tokio::spawn(async move {
            while assigned.changed().await.is_ok() {
                let wanted = with_defaults(assigned.borrow_and_update().clone());
                if sender.send(wanted).is_err() {
                    return;
                }
            }
        });
        let files = tempfile::Builder::new().prefix("modelyard-").tempdir()?;
        Ok(Self { registry, files, assignments, runtime: Handle::current() })
    }

    /// What is assigned.
    pub fn assignments(&self) -> watch::Receiver<Assignments> {
        self.assignments.clone()
    }

    /// Fetches a version, whose digests are checked on the way, and opens it as untrusted bytes all
    /// the same. Blocks; must not be called from the runtime's own threads.
    pub fn open(&self, model: &str, assigned: &Assigned) -> Result<Package, String> {
        self.forget();
        let file = self
            .runtime
            .block_on(self.fetch(model, &assigned.version))
            .map_err(|error| error.to_string())?;
        import::open(&file).map_err(|error| error.to_string())
    }

    async fn fetch(&self, model: &str, version: &str) -> ::registry::Result<PathBuf> {
        let number = version.parse().expect("the registry assigns versions by number");
        let reference = Reference { model: model.to_owned(), version: Selector::Number(number) };
        let version = self.registry.resolve(&reference).await?;
        let folder = self.folder(model, &number.to_string());
        for file in &version.files {
            self.registry.copy(&version, file, &folder.join(&file.name)).await?;
        }
        Ok(folder.join(&version.main))
    }

    fn folder(&self, model: &str, version: &str) -> PathBuf {
        self.files.path().join(model).join(version)
    }

    /// Removes the copies of versions that are no longer assigned. An engine may read external data
    /// for as long as a version is loaded; what it has open outlives its name.
    fn forget(&self) {
        let wanted = self.assignments.borrow().clone();
        for model in inside(self.files.path()) {
            for version in inside(&model) {
                let is_wanted = wanted.models.iter().any(|(name, versions)| {
                    versions.iter().any(|one| self.folder(name, &one.version) == version)
                });
                if !is_wanted && let Err(error) = std::fs::remove_dir_all(&version) {
                    tracing::warn!("cannot remove {}: {error}", version.display());
                }
            }
        }
    }
}

fn inside(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.flatten().map(|entry| entry.path()).collect()
}

fn refusal() -> Refusal {
    let message = "what is loaded follows the registry; move an alias there: modelyard alias";
    (ErrorCode::FailedPrecondition, message.to_owned())
}

impl Control for Followed {
    fn load<'a>(
        &'a self,
        _name: &'a str,
        _load: Load,
    ) -> Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send + 'a>> {
        Box::pin(std::future::ready(Err(refusal())))
    }

    fn unload<'a>(
        &'a self,
        _name: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send + 'a>> {
        Box::pin(std::future::ready(Err(refusal())))
    }

    fn available(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}
