//! The prediction log: what `serve` writes of it, and the verbs that read it.

mod performance;
mod read;
mod requests;
mod settings;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::KeepFeedback;
use monitor::log::read::Query;
use monitor::log::{Counts, Known, Label, Log, Options, Store};
use rollout::Said;
use serde_json::Value;
use serving::Watched;

use crate::Failure;
use crate::registry::{OrFailure, location};
use crate::watching::{Watcher, Watching};

pub use settings::RawLog;

/// The verb's own verbs.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Print predictions, or write them to a file
    Show(read::Show),
    /// Print predictions as they come, as JSON
    Tail(read::Tail),
    /// List what the log has
    Files(read::Files),
    /// Say how good a model is, by the labels that came for its predictions
    Performance(performance::Args),
}

/// Does what was asked for.
pub fn run(args: Args) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match args.verb {
            Verb::Show(args) => read::show(args).await,
            Verb::Tail(args) => read::tail(args).await,
            Verb::Files(args) => read::files(args).await,
            Verb::Performance(args) => performance::run(args).await,
        }
    })
}

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

    /// What keeps feedback as labels.
    pub fn feedback(&self) -> KeepFeedback {
        let labels = self.log.labels();
        Arc::new(move |model, given| {
            labels.take(given.iter().map(|one| label(model, one)).collect())
        })
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

/// Feedback as the log has it.
fn label(model: &str, given: &::registry::Feedback) -> Label {
    let said: Said = serde_json::from_value(given.body.clone()).unwrap_or_default();
    Label {
        model: model.into(),
        request_id: given.request.clone(),
        feedback_id: given.id.clone(),
        known: said.label.map(|label| match label {
            rollout::Label::Number(number) => Known::Number(number),
            rollout::Label::Name(name) => Known::Name(name),
            rollout::Label::Is(is) => Known::Number(f64::from(u8::from(is))),
        }),
        right: said.right,
        metrics: said.metrics,
        version: said.model_version,
        received: SystemTime::now(),
    }
}

/// The newest requests of a model in a log, with their answers, as recorded requests.
pub async fn recorded(location: &str, model: &str, count: usize) -> Result<Vec<Value>, Failure> {
    requests::newest(&store(location, false)?, &Query::of(model), count).await
}

/// The folder or bucket of a log; a folder is made if `make` says so.
fn store(text: &str, make: bool) -> Result<Store, Failure> {
    let location = location(text)?;
    let (store, root) = location.store(make).or_failure()?;
    Ok(Store::new(store, root, location.folder().map(Into::into)))
}
