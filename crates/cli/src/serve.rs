//! `modelyard serve`: the wiring of import, runtime, serving and api.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use ::registry::{Clock, Registry};
use api::{Api, Control, Doors, Tracer};
use monitor::alerts::Desk;
use rollout::Driver;
use serving::{Observations, Options, Serving, State};
use telemetry::Exporter;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::collector::Plan;
use crate::config::{Config, Models, Raw};
use crate::drift::Drifts;
use crate::engines::Search;
use crate::library::Library;
use crate::log::Logging;
use crate::refusing::Refusing;
use crate::registry::{self, Followed};
use crate::watching::Watching;
use crate::{Failure, emf, logging, temporary};

/// Why callers cannot load or unload what a registry assigns.
const FOLLOWS: &str = "what is loaded follows the registry; move an alias there: modelyard alias";

/// Observations that wait to be counted: what is beyond is dropped, and counted as such.
const OBSERVATIONS: usize = 8192;

/// Flags of `serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard serve model.onnx
  modelyard serve models/                             a repository: NAME/VERSION/model.onnx
  modelyard serve --model fraud=model.onnx --slo p99=50ms
  modelyard serve --registry /srv/registry            what its aliases name, as they move
  modelyard serve --host 0.0.0.0 --allow-remote --port 9000 models/

The server answers once a model is ready: GET /v2/health/ready says when. SIGHUP looks at the
paths again, SIGTERM finishes what is running and stops.")]
pub struct Args {
    #[command(flatten)]
    raw: Raw,
    #[command(flatten)]
    search: Search,
    /// File with the same settings in TOML: flag names without the dashes in front
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Serves until it is told to stop.
pub fn run(args: Args) -> Result<(), Failure> {
    let file = args.config.as_deref().map(Raw::read).transpose()?.unwrap_or_default();
    let config = args.raw.or(file).check()?;
    // Outlives the server, so that its last words are sent.
    let telemetry = match &config.telemetry {
        Some(plan) => {
            let exporter = Exporter::start(plan.settings.clone()).map_err(Failure::usage)?;
            logging::send_to(exporter.outbox().clone());
            Some((exporter, plan.clone()))
        }
        None => None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(config, &args.search, telemetry.as_ref()))
}

async fn serve(
    config: Config,
    search: &Search,
    telemetry: Option<&(Exporter, Plan)>,
) -> Result<(), Failure> {
    let listener = listen(config.listen).await?;
    // Nobody waits for it, and it reads and removes files.
    tokio::task::spawn_blocking(temporary::remove_leftovers);
    let second = match config.grpc_listen {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let metrics = match config.metrics_listen {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let engines = Arc::new(search.discover());
    let options = |open: serving::Open, assignments, observations| Options {
        engines: engines.clone(),
        open,
        assignments,
        observations,
        slo: config.slo,
        max_queue: config.max_queue,
        limits: config.limits,
    };
    let (observations, seen) = Observations::new(OBSERVATIONS);
    let watching = Watching::start(observations.clone(), seen)?;
    let logging = config.prediction_log.map(|log| Logging::start(log, &watching)).transpose()?;
    let watched = Some(observations);
    let (stop, stopped) = watch::channel(false);
    let (serving, control, presence): (_, Arc<dyn Control>, _) = match config.models {
        Models::Paths(sources) => {
            let (library, assignments) =
                Library::new(sources, config.defaults, config.model_control);
            let library = Arc::new(library);
            library.refresh().map_err(Failure::refused)?;
            let opener = library.clone();
            let open = Arc::new(move |name: &str, version: &_| opener.open(name, version));
            let serving = Serving::start(options(open, assignments, watched))?;
            library.followed_by(serving.clone());
            let again = library.clone();
            spawn_signals(stop, Arc::new(move || again.refresh()))?;
            (serving, library, None)
        }
        Models::Registry(followee) => {
            let followed = Followed::start(followee, config.defaults.settings).await?;
            let followed = Arc::new(followed);
            let opener = followed.clone();
            let open = Arc::new(move |name: &str, version: &_| opener.open(name, version));
            let serving = Serving::start(options(open, followed.assignments(), watched))?;
            let presence = Presence::begin(&followed, &listener, &serving, watching.clone())?;
            // The registry is followed anyway.
            spawn_signals(stop, Arc::new(|| Ok(())))?;
            (serving, Arc::new(Refusing(FOLLOWS)), Some(presence))
        }
    };
    let connected = presence.as_ref().map(|presence| presence.registry.clone());
    let registry = match connected.clone() {
        Some(registry) => {
            let limits = (config.model_control, config.upload_bytes);
            Some(registry::access(registry, engines.clone(), limits)?)
        }
        None => None,
    };
    let drifts = config
        .drift
        .map(|settings| Drifts::watch(&watching, settings, connected.clone(), config.drift_state));
    let drift = drifts.as_ref().map(Drifts::report);
    let aliases = presence.as_ref().map(|presence| presence.aliases.clone());
    let tracer = telemetry.map(|(exporter, plan)| Tracer {
        sampler: plan.sampler,
        outbox: exporter.outbox().clone(),
    });
    let desk = Desk::open(config.alerts.rules, config.alerts.state).map_err(Failure::refused)?;
    let alerts = api::Alerts { desk: desk.clone(), open_to_callers: config.model_control };
    let api = Api {
        serving: serving.clone(),
        control,
        registry,
        aliases,
        alerts: Some(alerts),
        tracer,
        drift,
        feedback: logging.as_ref().map(Logging::feedback),
        options: config.api,
    };
    tokio::spawn(crate::alerts::watch(desk, api.clone(), connected));
    if let Some((exporter, plan)) = telemetry {
        let (api, histograms) = (api.clone(), plan.histograms);
        exporter.measure(Arc::new(move || api.facts().otlp(histograms)));
    }
    if logging::is_for_cloudwatch() {
        tokio::spawn(emf::write(serving.clone(), config.metrics_interval));
    }
    for listener in [Some(&listener), second.as_ref()].into_iter().flatten() {
        tracing::info!(address = %format!("http://{}", listener.local_addr()?), "listening");
    }
    if let Some(listener) = metrics {
        let address = format!("http://{}/metrics", listener.local_addr()?);
        tracing::info!(%address, "listening for scrapes");
        let mut api = api.clone();
        api.options.doors = Doors::Metrics;
        // To the very end, so that what is finishing can be seen.
        tokio::spawn(api::serve(listener, api, std::future::pending()));
    }
    let first = api::serve(listener, api.clone(), until(stopped.clone()));
    let second = async {
        match second {
            Some(listener) => api::serve(listener, api, until(stopped.clone())).await,
            None => Ok(()),
        }
    };
    let served = async { tokio::try_join!(first, second) };
    tokio::pin!(served);
    tokio::select! {
        result = &mut served => { result?; }
        failure = nothing_loaded(&serving), if presence.is_none() => return Err(failure),
    }
    serving.drain().await;
    if let Some(presence) = presence {
        presence.end().await;
    }
    watching.finish().await;
    if let Some(drifts) = drifts {
        drifts.keep().await;
    }
    if let Some(logging) = logging {
        logging.finish().await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// This server among those that follow a registry: it says what it holds, and takes part in
/// rollouts.
struct Presence {
    registry: Arc<OnceLock<Arc<Registry>>>,
    aliases: api::metrics::Aliases,
    name: String,
    saying: tokio::task::JoinHandle<()>,
}

impl Presence {
    fn begin(
        followed: &Arc<Followed>,
        listener: &TcpListener,
        serving: &Serving,
        watching: Watching,
    ) -> Result<Self, Failure> {
        let name = registry::made_up_name();
        let (address, serving) = (listener.local_addr()?.to_string(), serving.clone());
        let (followed, named) = (followed.clone(), name.clone());
        let (registry, aliases) = (followed.registry(), registry::aliases(&followed));
        let saying = tokio::spawn(async move {
            // Nothing is watched before a driver says so.
            let registry = followed.connected().await;
            let driver = Driver::new(registry.clone(), Clock::system(), &*named);
            let mut watched = driver.watched();
            watching.join(driver.counting());
            tokio::spawn(async move {
                // Until the driver is gone.
                while watched.changed().await.is_ok() {
                    let models = watched.borrow_and_update().iter().cloned().collect();
                    watching.want("rollout", models);
                }
            });
            tokio::spawn(driver.run());
            registry::say(registry, &named, &address, serving).await;
        });
        Ok(Self { registry, aliases, name, saying })
    }

    /// Says that this server is gone, if the registry can be told at all.
    async fn end(self) {
        self.saying.abort();
        let Some(registry) = self.registry.get() else { return };
        let told = registry.forget_server(&self.name);
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), told).await;
    }
}

async fn listen(address: std::net::SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        let failure = Failure::new(format!("cannot listen on {address}: {error}"));
        match error.kind() {
            std::io::ErrorKind::AddrInUse => failure.help("another program has it; try --port 0"),
            _ => failure,
        }
    })
}

/// Resolves when it is time to stop.
async fn until(mut stopped: watch::Receiver<bool>) {
    // The sender lives as long as the process; an error would be as good a reason to stop.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Resolves if not one of the models could be loaded: a server that can answer nothing is a
/// mistake that its user wants to hear of. Never resolves otherwise.
async fn nothing_loaded(serving: &Serving) -> Failure {
    serving.settled().await;
    let status = serving.status();
    let mut reasons = status.iter().filter_map(|status| match &status.state {
        State::Unavailable(Some(reason)) => Some(format!("{}: {reason}", status.name)),
        _ => None,
    });
    match reasons.next() {
        Some(reason) if status.iter().all(|s| s.info.is_none() && !s.state.answers()) => {
            Failure::refused(reason)
                .help("`modelyard inspect` shows what the model needs and which engines can run it")
        }
        _ => std::future::pending().await,
    }
}

/// Looks again at what there is to serve.
type Refresh = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// SIGTERM and SIGINT stop the server, SIGHUP looks at the paths again.
fn spawn_signals(stop: watch::Sender<bool>, refresh: Refresh) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => {
                    let refresh = refresh.clone();
                    // Reads folders, so it stays off the threads that serve.
                    let refreshed = tokio::task::spawn_blocking(move || refresh()).await;
                    match refreshed {
                        Ok(Ok(())) => tracing::info!("looked at the paths again"),
                        Ok(Err(error)) => tracing::error!("kept what is loaded: {error}"),
                        Err(_) => tracing::error!("kept what is loaded: looking failed"),
                    }
                }
            }
        }
        tracing::info!("finishing what is running");
        stop.send_replace(true);
    });
    Ok(())
}
