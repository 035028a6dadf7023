//! Serving what a registry assigns: whoever moves an alias there changes what is loaded here.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ::registry::{Reference, Registry, Selector};
use api::{Control, Load};
use model::{Assigned, Assignments, ErrorCode, InstanceSettings, Package};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::OrFailure;
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
    /// Follows a registry from now on. While it is away, what was last known stays assigned.
    pub async fn start(
        registry: Arc<Registry>,
        keep_warm: Duration,
        defaults: InstanceSettings,
    ) -> Result<Self, Failure> {
        let mut assigned = registry.watch(keep_warm).await.or_failure()?;
        let with_defaults = move |mut wanted: Assignments| {
            for assigned in wanted.models.values_mut().flatten() {
                assigned.settings = merge(std::mem::take(&mut assigned.settings), &defaults);
            }
            wanted
        };
        let first = with_defaults(assigned.borrow_and_update().clone());
        let (sender, assignments) = watch::channel(first);
        let files = tempfile::Builder::new().prefix("modelyard-").tempdir()?;
        let copies = files.path().to_owned();
        tokio::spawn(async move {
            while assigned.changed().await.is_ok() {
                let wanted = with_defaults(assigned.borrow_and_update().clone());
                let before = sender.send_replace(wanted.clone());
                forget(&copies, &before, &wanted).await;
            }
        });
        Ok(Self { registry, files, assignments, runtime: Handle::current() })
    }

    /// What is assigned.
    pub fn assignments(&self) -> watch::Receiver<Assignments> {
        self.assignments.clone()
    }

    /// Fetches a version, whose digests are checked on the way, and opens it as untrusted bytes all
    /// the same. Blocks; must not be called from the runtime's own threads.
    pub fn open(&self, model: &str, assigned: &Assigned) -> Result<Package, String> {
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
        self.registry.fetch(&version, &folder(self.files.path(), model, &number.to_string())).await
    }
}

/// Where a version is copied to.
fn folder(files: &Path, model: &str, version: &str) -> PathBuf {
    files.join(model).join(version)
}

/// Removes the copies of versions that are assigned no longer. An engine may read external data for
/// as long as a version is loaded; what it has open outlives its name.
async fn forget(files: &Path, before: &Assignments, now: &Assignments) {
    let is_wanted = |model: &str, version: &str| {
        let versions = now.models.get(model);
        versions.is_some_and(|versions| versions.iter().any(|one| one.version == version))
    };
    for (model, versions) in &before.models {
        for Assigned { version, .. } in versions.iter().filter(|v| !is_wanted(model, &v.version)) {
            let folder = folder(files, model, version);
            match tokio::fs::remove_dir_all(&folder).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!("cannot remove {}: {error}", folder.display());
                }
                _ => {}
            }
        }
    }
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
