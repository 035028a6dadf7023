//! The configuration of `serve`: flags over environment over file over defaults, raw → checked.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::{ApiOptions, Doors};
use import::repository::Versions;
use model::InstanceSettings;
use monitor::alerts::Rules;
use monitor::drift::watch::Settings;
use serving::{Limits, Slo};

use crate::Failure;
use crate::collector::{self, Plan, Wanted};
use crate::library::{Defaults, Source};
use crate::log;
use crate::registry::{Followee, user_folder};
use crate::units::parse_duration;

/// What can be said by a flag, an environment variable or a line of the file. `None` is silence.
#[derive(Clone, Debug, Default, clap::Args, serde::Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Raw {
    /// Model files, folders that hold one model, or repositories laid out NAME/VERSION/model.onnx
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Serve the model at PATH under NAME; may be repeated
    #[arg(long, value_name = "NAME=PATH")]
    pub model: Vec<String>,
    /// Serve what a registry assigns, in place of paths: FOLDER, or s3://BUCKET/PREFIX, gs://…, az://…
    #[arg(long, value_name = "FOLDER|URL")]
    pub registry: Option<String>,
    /// The registry's rows: postgres:// URL or SQLite file [default: registry.db in its folder]
    #[arg(long, value_name = "URL|FILE", hide_env_values = true)]
    pub database: Option<String>,
    /// How long a champion's predecessor stays loaded, to go back to at once [default: 1h]
    #[arg(long, value_name = "TIME")]
    pub keep_warm: Option<String>,
    /// Folder that keeps what was fetched from the registry, so that the server can start while
    /// that is away [default: modelyard in the user's cache folder]
    #[arg(long, value_name = "FOLDER")]
    pub cache: Option<PathBuf>,
    /// Rules that say when somebody is told that something is wrong, in TOML [default: the rules of
    /// modelyard alerts rules, and nobody is told]
    #[arg(long, value_name = "FILE", help_heading = "Monitoring")]
    pub alerts: Option<PathBuf>,
    /// File that keeps alerts and silences across restarts [default: with --alerts, one for each
    /// address in the user's data folder]
    #[arg(long, value_name = "FILE", help_heading = "Monitoring")]
    pub alerts_state: Option<PathBuf>,
    /// Watch whether inputs and predictions drift: GET /v2/models/MODEL/drift tells [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", help_heading = "Drift")]
    pub drift: Option<bool>,
    /// Folder that keeps what was learned of drift over a restart [default: it is learned anew]
    #[arg(long, value_name = "FOLDER", help_heading = "Drift")]
    pub drift_state: Option<PathBuf>,
    /// The chance of any false alarm of drift in a week of a version [default: 0.01]
    #[arg(long, value_name = "PART", help_heading = "Drift")]
    pub drift_alpha: Option<f64>,
    /// Address to listen on [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS", help_heading = "Network")]
    pub host: Option<String>,
    /// Port for REST and gRPC; 0 takes a free one [default: 8080]
    #[arg(long, value_name = "PORT", help_heading = "Network")]
    pub port: Option<u16>,
    /// A second port that answers too, for clients that expect gRPC elsewhere
    #[arg(long, value_name = "PORT", help_heading = "Network")]
    pub grpc_port: Option<u16>,
    /// Answer /metrics at this address and nowhere else, such as 127.0.0.1:9090
    /// [default: on the port of REST and gRPC]
    #[arg(long, value_name = "ADDRESS:PORT", help_heading = "Network")]
    pub metrics_listen: Option<String>,
    /// OpenTelemetry collector for traces, metrics and logs, such as http://127.0.0.1:4318; the
    /// variables OTEL_… say it too [default: none]
    #[arg(long, value_name = "URL", help_heading = "Telemetry")]
    pub otlp_endpoint: Option<String>,
    /// How the collector is spoken to: http/protobuf or grpc [default: http/protobuf]
    #[arg(long, value_name = "PROTOCOL", help_heading = "Telemetry")]
    pub otlp_protocol: Option<String>,
    /// Part of the requests that are traced where their callers do not say, 0 to 1 [default: 0.01]
    #[arg(long, value_name = "RATIO", help_heading = "Telemetry")]
    pub trace_ratio: Option<f64>,
    /// Listen beyond this machine although nobody has to say who they are
    #[arg(long, num_args = 0..=1, default_missing_value = "true", help_heading = "Network")]
    pub allow_remote: Option<bool>,
    /// Let callers load and unload models, or change the registry [default: only when listening on this machine alone]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", help_heading = "Network")]
    pub model_control: Option<bool>,
    /// The name that the server gives itself in its metadata [default: modelyard]
    #[arg(long, value_name = "NAME", help_heading = "Network")]
    pub server_name: Option<String>,
    /// The largest body of a request, such as 64MiB
    #[arg(long, value_name = "SIZE", help_heading = "Network")]
    pub max_body_size: Option<String>,
    /// The most bytes of uploads that wait to be published, such as 16GiB
    #[arg(long, value_name = "SIZE", help_heading = "Network")]
    pub max_upload_size: Option<String>,
    /// The most connections at once [default: 8192]
    #[arg(long, value_name = "COUNT", help_heading = "Network")]
    pub max_connections: Option<usize>,
    /// How long running requests may take after SIGTERM, such as 30s
    #[arg(long, value_name = "TIME", help_heading = "Network")]
    pub drain_timeout: Option<String>,
    /// Engine to run models with, instead of the one that is measured to be faster
    #[arg(long, value_name = "NAME", help_heading = "Scheduling")]
    pub engine: Option<String>,
    /// What admitted requests are promised, such as p99=50ms; others are refused at once
    #[arg(long, value_name = "QUANTILE=TIME", help_heading = "Scheduling")]
    pub slo: Option<String>,
    /// Runs of one model side by side [default: one for each core, at most 8]
    #[arg(long, value_name = "COUNT", help_heading = "Scheduling")]
    pub instances: Option<usize>,
    /// Threads inside one run [default: the cores that the instances leave]
    #[arg(long, value_name = "COUNT", help_heading = "Scheduling")]
    pub threads: Option<usize>,
    /// The most rows that run together; 0 never stacks requests [default: 1024]
    #[arg(long, value_name = "ROWS", help_heading = "Scheduling")]
    pub max_batch_size: Option<usize>,
    /// The most requests that may wait for one model [default: 4096]
    #[arg(long, value_name = "COUNT", help_heading = "Scheduling")]
    pub max_queue: Option<usize>,
    /// Memory that all models together may take, such as 4GiB; those that were used least recently
    /// are unloaded, and loaded again when somebody asks for them [default: no limit]
    #[arg(long, value_name = "SIZE", help_heading = "Scheduling")]
    pub memory: Option<String>,
    /// The most versions in memory at once; others are loaded when somebody asks for them
    /// [default: no limit]
    #[arg(long, value_name = "COUNT", help_heading = "Scheduling")]
    pub max_loaded: Option<usize>,
    /// Versions of a model to serve where its config.pbtxt does not say: latest, a number of the
    /// newest, or all [default: latest]
    #[arg(long, value_name = "WHICH")]
    pub versions: Option<String>,
    /// ONNX Runtime execution provider, most wanted first; may be repeated
    #[arg(long, value_name = "NAME", help_heading = "Scheduling")]
    pub provider: Vec<String>,
    /// What is logged of predictions: a section of the file.
    #[command(flatten)]
    pub prediction_log: log::RawLog,
}

/// Where the models are.
#[derive(Debug)]
pub enum Models {
    /// At these paths.
    Paths(Vec<Source>),
    /// In a registry, which says which of them are wanted.
    Registry(Followee),
}

/// What alerts are raised by.
#[derive(Debug)]
pub struct Alerts {
    /// The rules, with their secrets.
    pub rules: Rules,
    /// Where what they find is kept, if somebody said so or is told.
    pub state: Option<PathBuf>,
}

impl Alerts {
    fn read(
        file: Option<&Path>,
        state: Option<PathBuf>,
        listen: SocketAddr,
    ) -> Result<Self, Failure> {
        let rules = file.map(crate::alerts::read).transpose()?.unwrap_or_default();
        let usual = || {
            let folder = user_folder("XDG_DATA_HOME", ".local/share")?;
            // Several servers may share a machine; one whose port is anybody's has no past.
            (listen.port() > 0)
                .then(|| folder.join("alerts").join(format!("{}.json", listen.port())))
        };
        let state = state.or_else(|| file.and_then(|_| usual()));
        if let Some(folder) = state.as_deref().and_then(Path::parent) {
            std::fs::create_dir_all(folder)
                .map_err(|error| Failure::new(format!("{}: {error}", folder.display())))?;
        }
        Ok(Self { rules, state })
    }
}

/// The checked configuration.
#[derive(Debug)]
pub struct Config {
    pub models: Models,
    /// The rules of alerts, and where what they find is kept.
    pub alerts: Alerts,
    pub listen: SocketAddr,
    pub grpc_listen: Option<SocketAddr>,
    pub metrics_listen: Option<SocketAddr>,
    pub telemetry: Option<Plan>,
    /// How often metrics are sent or written by those who do not ask for them.
    pub metrics_interval: Duration,
    pub model_control: bool,
    /// The most bytes of uploads that wait to be published.
    pub upload_bytes: u64,
    /// How drift is watched, if it is.
    pub drift: Option<Settings>,
    pub drift_state: Option<PathBuf>,
    pub defaults: Defaults,
    pub slo: Option<Slo>,
    pub max_queue: usize,
    pub limits: Limits,
    pub prediction_log: Option<log::Settings>,
    pub api: ApiOptions,
}

impl Raw {
    /// Reads a file of the same names, in TOML.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Failure::usage(format!("cannot read {}: {e}", path.display())))?;
        toml::from_str(&text).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))
    }

    /// What this says, and where it is silent what the other says.
    pub fn or(self, other: Self) -> Self {
        fn first<T>(a: Vec<T>, b: Vec<T>) -> Vec<T> {
            if a.is_empty() { b } else { a }
        }
        // Paths and names are one thing: a path on the command line replaces the file's models.
        let (paths, model) = if self.paths.is_empty() && self.model.is_empty() {
            (other.paths, other.model)
        } else {
            (self.paths, self.model)
        };
        Self {
            paths,
            model,
            registry: self.registry.or(other.registry),
            database: self.database.or(other.database),
            keep_warm: self.keep_warm.or(other.keep_warm),
            cache: self.cache.or(other.cache),
            alerts: self.alerts.or(other.alerts),
            alerts_state: self.alerts_state.or(other.alerts_state),
            drift: self.drift.or(other.drift),
            drift_state: self.drift_state.or(other.drift_state),
            drift_alpha: self.drift_alpha.or(other.drift_alpha),
            host: self.host.or(other.host),
            port: self.port.or(other.port),
            grpc_port: self.grpc_port.or(other.grpc_port),
            metrics_listen: self.metrics_listen.or(other.metrics_listen),
            otlp_endpoint: self.otlp_endpoint.or(other.otlp_endpoint),
            otlp_protocol: self.otlp_protocol.or(other.otlp_protocol),
            trace_ratio: self.trace_ratio.or(other.trace_ratio),
            allow_remote: self.allow_remote.or(other.allow_remote),
            model_control: self.model_control.or(other.model_control),
            server_name: self.server_name.or(other.server_name),
            max_body_size: self.max_body_size.or(other.max_body_size),
            max_upload_size: self.max_upload_size.or(other.max_upload_size),
            max_connections: self.max_connections.or(other.max_connections),
            drain_timeout: self.drain_timeout.or(other.drain_timeout),
            engine: self.engine.or(other.engine),
            slo: self.slo.or(other.slo),
            instances: self.instances.or(other.instances),
            threads: self.threads.or(other.threads),
            max_batch_size: self.max_batch_size.or(other.max_batch_size),
            max_queue: self.max_queue.or(other.max_queue),
            memory: self.memory.or(other.memory),
            max_loaded: self.max_loaded.or(other.max_loaded),
            versions: self.versions.or(other.versions),
            provider: first(self.provider, other.provider),
            prediction_log: self.prediction_log.or(other.prediction_log),
        }
    }

    /// Checks every value and fills in the defaults.
    pub fn check(self) -> Result<Config, Failure> {
        let mut api = ApiOptions::default();
        if let Some(name) = self.server_name {
            api.server_name = name;
        }
        if let Some(size) = &self.max_body_size {
            api.max_body_bytes = flag("max-body-size", size, parse_size)?;
        }
        if let Some(count) = self.max_connections {
            api.max_connections = at_least_one("max-connections", count)?;
        }
        if let Some(time) = &self.drain_timeout {
            api.drain_timeout = flag("drain-timeout", time, parse_time)?;
        }
        for (name, value) in [("instances", self.instances), ("threads", self.threads)] {
            value.map(|value| at_least_one(name, value)).transpose()?;
        }
        let alpha = self.drift_alpha.unwrap_or(Settings::default().alpha);
        if !(1e-9..=0.5).contains(&alpha) {
            let expected = "expected a part between 0 and 0.5, such as 0.01";
            return Err(Failure::usage(format!("--drift-alpha {alpha}: {expected}")));
        }
        let listen = listen_address(self.host.as_deref(), self.port.unwrap_or(8080))?;
        let is_local = listen.ip().is_loopback();
        if !is_local && !self.allow_remote.unwrap_or(false) {
            return Err(Failure::usage(format!(
                "{} can be reached from other machines, and nobody has to say who they are",
                listen.ip()
            ))
            .help("listen on 127.0.0.1, or say that this is meant: --allow-remote"));
        }
        let wanted = Wanted {
            endpoint: self.otlp_endpoint,
            protocol: self.otlp_protocol,
            ratio: self.trace_ratio,
        };
        let variable = |name: &str| std::env::var(name).ok();
        let telemetry = collector::plan(&wanted, variable)?;
        let metrics_listen = match self.metrics_listen.as_deref() {
            Some(text) => Some(flag("metrics-listen", text, parse_listen)?),
            None => None,
        };
        if metrics_listen.is_some() {
            api.doors = Doors::AllButMetrics;
        }
        let keep_warm = match &self.keep_warm {
            Some(time) => flag("keep-warm", time, |text| {
                parse_duration(text).map_err(|_| "a time such as 1h or 0s".to_owned())
            })?,
            None => Duration::from_secs(60 * 60),
        };
        let models = match self.registry {
            // Paths are what somebody typed just now; the registry may be the environment's.
            Some(registry) if self.paths.is_empty() && self.model.is_empty() => {
                let (database, cache) = (self.database, self.cache);
                Models::Registry(Followee { registry, database, cache, keep_warm })
            }
            _ => Models::Paths(sources(self.paths, &self.model)?),
        };
        let slo = self.slo.as_deref().map(|slo| flag("slo", slo, parse_slo)).transpose()?;
        let alerts = Alerts::read(self.alerts.as_deref(), self.alerts_state, listen)?;
        Ok(Config {
            models,
            alerts,
            grpc_listen: self.grpc_port.map(|port| SocketAddr::new(listen.ip(), port)),
            metrics_listen,
            telemetry,
            metrics_interval: collector::interval(variable)?,
            listen,
            model_control: self.model_control.unwrap_or(is_local),
            drift: self.drift.unwrap_or(true).then(|| Settings { alpha, ..Settings::default() }),
            drift_state: self.drift_state,
            upload_bytes: match &self.max_upload_size {
                Some(size) => flag("max-upload-size", size, parse_size)? as u64,
                None => 16 << 30,
            },
            defaults: Defaults {
                settings: InstanceSettings {
                    engine: self.engine,
                    instances: self.instances,
                    threads: self.threads,
                    max_batch_size: self.max_batch_size,
                    providers: self.provider,
                },
                versions: match &self.versions {
                    Some(which) => flag("versions", which, parse_versions)?,
                    None => Versions::default(),
                },
            },
            prediction_log: self.prediction_log.check(slo.as_ref().map(|slo| slo.time))?,
            slo,
            max_queue: self.max_queue.unwrap_or(4096),
            limits: Limits {
                memory: self
                    .memory
                    .as_deref()
                    .map(|size| flag("memory", size, parse_size).map(|bytes| bytes as u64))
                    .transpose()?,
                versions: self
                    .max_loaded
                    .map(|count| at_least_one("max-loaded", count))
                    .transpose()?,
            },
            api,
        })
    }
}

fn flag<T>(
    name: &str,
    value: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<T, Failure> {
    parse(value)
        .map_err(|expected| Failure::usage(format!("--{name} \"{value}\": expected {expected}")))
}

fn at_least_one(name: &str, value: usize) -> Result<usize, Failure> {
    if value == 0 {
        return Err(Failure::usage(format!("--{name} 0: expected at least 1")));
    }
    Ok(value)
}

fn listen_address(host: Option<&str>, port: u16) -> Result<SocketAddr, Failure> {
    let Some(host) = host else {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    };
    let address = (host, port).to_socket_addrs().ok().and_then(|mut all| all.next());
    address.ok_or_else(|| {
        Failure::usage(format!("--host \"{host}\": expected an address of this machine"))
    })
}

/// `127.0.0.1:9090`, or `:9090` for this machine alone. What is said there tells nobody's data and
/// changes nothing, so other machines need no leave.
fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let expected = || "an address of this machine and a port, such as 127.0.0.1:9090".to_owned();
    let text = match text.strip_prefix(':') {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    text.to_socket_addrs().ok().and_then(|mut all| all.next()).ok_or_else(expected)
}

fn sources(paths: Vec<PathBuf>, named: &[String]) -> Result<Vec<Source>, Failure> {
    let mut sources: Vec<Source> =
        paths.into_iter().map(|path| Source { name: None, path }).collect();
    for text in named {
        let Some((name, path)) = text.split_once('=').filter(|(_, path)| !path.is_empty()) else {
            return Err(Failure::usage(format!("--model \"{text}\": expected NAME=PATH")));
        };
        import::repository::check_name(name)
            .map_err(|e| Failure::usage(format!("--model \"{text}\": {e}")))?;
        sources.push(Source { name: Some(name.to_owned()), path: path.into() });
    }
    if sources.is_empty() {
        return Err(Failure::usage("nothing to serve").help(
            "name a model file, a folder with one model, or a repository: modelyard serve model.onnx; \
             or a registry: modelyard serve --registry FOLDER",
        ));
    }
    Ok(sources)
}

/// A number and the unit behind it, if any.
fn split_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    Some((number, text[end..].trim()))
}

/// `1024`, `64KiB`, `64MiB`, `1GiB`, in bytes.
pub fn parse_size(text: &str) -> Result<usize, String> {
    let size = split_unit(text).and_then(|(number, unit)| {
        let factor = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1u64,
            "kib" | "k" => 1 << 10,
            "mib" | "m" => 1 << 20,
            "gib" | "g" => 1 << 30,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            _ => return None,
        };
        Some((number * factor as f64) as usize)
    });
    size.filter(|size| *size > 0).ok_or_else(|| "a size such as 64MiB".to_owned())
}

/// A duration above zero that has a unit: a promise of 50 would be anyone's guess.
fn parse_time(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text).ok().filter(|time| !time.is_zero());
    let has_unit = text.ends_with(char::is_alphabetic);
    time.filter(|_| has_unit).ok_or_else(|| "a time such as 50ms".to_owned())
}

/// `latest`, `all`, or how many of the newest.
fn parse_versions(text: &str) -> Result<Versions, String> {
    match (text, text.parse()) {
        ("latest", _) => Ok(Versions::Latest(1)),
        ("all", _) => Ok(Versions::All),
        (_, Ok(count)) if count > 0 => Ok(Versions::Latest(count)),
        _ => Err("latest, all, or how many of the newest".into()),
    }
}

/// `p99=50ms`.
pub fn parse_slo(text: &str) -> Result<Slo, String> {
    let expected = || "a promise such as p99=50ms".to_owned();
    let (quantile, time) = text.split_once('=').ok_or_else(expected)?;
    let percent: f64 =
        quantile.strip_prefix('p').and_then(|p| p.parse().ok()).ok_or_else(expected)?;
    // p999 is read as 99.9, as people write it.
    let quantile = if percent > 100.0 { percent / 1000.0 } else { percent / 100.0 };
    let time = parse_time(time).map_err(|_| expected())?;
    if !(0.0..1.0).contains(&quantile) || quantile == 0.0 {
        return Err(expected());
    }
    Ok(Slo { quantile, time })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw() -> Raw {
        Raw { paths: vec!["m.onnx".into()], ..Raw::default() }
    }

    #[track_caller]
    fn check_refused(raw: Raw, expected: &str) {
        let failure = format!("{:?}", raw.check().unwrap_err());
        assert!(failure.contains(expected), "{failure}");
    }

    #[test]
    fn the_defaults_need_only_a_path() {
        let config = raw().check().unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert!(config.model_control);
        assert_eq!(config.api.max_body_bytes, 64 << 20);
        assert_eq!(config.limits, Limits::default());
    }

    #[test]
    fn flags_win_over_the_file() {
        let file: Raw = toml::from_str("paths = ['a']\nport = 1\nslo = 'p99=50ms'").unwrap();
        let both = Raw { port: Some(2), ..raw() }.or(file);
        assert_eq!((both.port, both.slo.as_deref()), (Some(2), Some("p99=50ms")));
        assert_eq!(both.paths, [PathBuf::from("m.onnx")]);
    }

    #[test]
    fn a_name_that_the_file_may_not_have_is_refused() {
        assert!(toml::from_str::<Raw>("prot = 1").is_err());
    }

    #[test]
    fn other_machines_are_let_in_only_on_purpose() {
        let open = Raw { host: Some("0.0.0.0".into()), ..raw() };
        check_refused(open.clone(), "can be reached from other machines");
        let config = Raw { allow_remote: Some(true), ..open }.check().unwrap();
        assert!(!config.model_control);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        check_refused(Raw::default(), "nothing to serve");
        check_refused(Raw { slo: Some("fast".into()), ..raw() }, "a promise such as p99=50ms");
        check_refused(Raw { max_body_size: Some("0".into()), ..raw() }, "a size such as 64MiB");
        check_refused(Raw { instances: Some(0), ..raw() }, "expected at least 1");
        check_refused(Raw { memory: Some("much".into()), ..raw() }, "a size such as 64MiB");
        check_refused(Raw { keep_warm: Some("long".into()), ..raw() }, "a time such as 1h or 0s");
        for time in ["0s", "1h", "90m"] {
            Raw { keep_warm: Some(time.into()), ..raw() }.check().unwrap();
        }
        check_refused(Raw { metrics_listen: Some("9090".into()), ..raw() }, "and a port, such as");
        check_refused(Raw { max_loaded: Some(0), ..raw() }, "--max-loaded 0: expected at least 1");
        check_refused(Raw { versions: Some("0".into()), ..raw() }, "how many of the newest");
        check_refused(Raw { model: vec!["m".into()], ..raw() }, "expected NAME=PATH");
    }

    #[test]
    fn times_sizes_and_promises_are_read_as_people_write_them() {
        assert_eq!(parse_time("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_size("2MiB"), Ok(2 << 20));
        assert_eq!(parse_versions("3"), Ok(Versions::Latest(3)));
        let slo = parse_slo("p999=250us").unwrap();
        assert!((slo.quantile - 0.999).abs() < 1e-9);
        assert_eq!(slo.time, Duration::from_micros(250));
        for wrong in ["p0=1s", "p100=1s", "p99", "99=1s", "p99=1", "p99=-1s", "pNaN=1s"] {
            assert!(parse_slo(wrong).is_err(), "{wrong}");
        }
    }
}
