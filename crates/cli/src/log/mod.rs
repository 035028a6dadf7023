//! The prediction log: what `serve` writes of it.

mod settings;

use std::time::Duration;

use monitor::log::{Counts, Log, Options, Store};
use serving::Watched;

use crate::Failure;
use crate::registry::{OrFailure, location};
use crate::watching::{Watcher, Watching};

pub use settings::RawLog;

/// How long the store may take for the last files, when the server stops.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is logged, and where.
#[derive(Debug)]
pub struct Settings {
    location: String,
    options: Options,
}

impl Watcher for monitor::log::Watcher {
    fn observe(&mut self, observation: &model::Observation) {
        monitor::log::Watcher::observe(self, observation);
    }
}

/// The log that a server writes.
pub struct Logging {
    log: Log,
    location: String,
}

impl Logging {
    /// Begins to log what is watched.
    pub fn start(settings: Settings, watching: &Watching) -> Result<Self, Failure> {
        let store = store(&settings.location, true)?;
        let location = settings.location;
        let log = Log::start(store, settings.options, runtime::yield_to_others)
            .map_err(|error| Failure::new(format!("--prediction-log {location}: {error}")))?;
        watching.join(log.watcher());
        watching.want("log", Watched::All);
        tracing::info!(location, "logging predictions");
        Ok(Self { log, location })
    }

    /// Stores everything, and says what was lost.
    pub async fn finish(self) {
        let location = self.location;
        let finished = tokio::task::spawn_blocking(move || self.log.finish(PATIENCE));
        let Ok(counts) = finished.await else { return };
        let Counts { rows, files, lost_rows, dropped, .. } = counts;
        match lost_rows + dropped {
            0 => tracing::info!(location, rows, files, "the prediction log is complete"),
            _ => tracing::error!(
                location,
                rows,
                files,
                lost_rows,
                dropped,
                "the prediction log lacks what could not be stored"
            ),
        }
    }
}

/// The folder or bucket of a log; a folder is made if `make` says so.
fn store(text: &str, make: bool) -> Result<Store, Failure> {
    let location = location(text)?;
    let (store, root) = location.store(make).or_failure()?;
    Ok(Store::new(store, root, location.folder().map(Into::into)))
}
