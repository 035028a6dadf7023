//! Where telemetry goes: flags over OpenTelemetry's own environment variables over defaults.
//!
//! The variables are those of OpenTelemetry's specification ("Environment Variable Specification"
//! and "OTLP Exporter Configuration"). Nothing is sent unless an endpoint is named.

use std::time::Duration;

use api::metrics::Histograms;
use telemetry::messages::{KeyValue, Resource};
use telemetry::{Protocol, Sampler, Settings, Signal, Target};

use crate::Failure;

/// What flags say.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub endpoint: Option<String>,
    pub protocol: Option<String>,
    /// Part of the requests that are recorded if their callers do not say.
    pub ratio: Option<f64>,
}

/// What is sent, where, and of which requests.
#[derive(Clone, Debug)]
pub struct Plan {
    pub settings: Settings,
    pub sampler: Sampler,
    pub histograms: Histograms,
}

/// Part of the requests that are recorded where nobody says anything: at many thousand requests a
/// second, all would be too many for most collectors.
const RATIO: f64 = 0.01;

/// Reads flags and variables; `None` if nothing is to be sent.
///
/// # Errors
/// If something is said that cannot be meant, or that is not supported.
pub fn plan(
    wanted: &Wanted,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Plan>, Failure> {
    let said = Said(&variable);
    if said.is("OTEL_SDK_DISABLED", "true") {
        return Ok(None);
    }
    let [traces, metrics, logs] = Signal::ALL.map(|signal| target(wanted, &said, signal));
    let (traces, metrics, logs) = (traces?, metrics?, logs?);
    if traces.is_none() && metrics.is_none() && logs.is_none() {
        return Ok(None);
    }
    let queue = said.number("OTEL_BSP_MAX_QUEUE_SIZE", 2048)?;
    Ok(Some(Plan {
        settings: Settings {
            resource: resource(&said)?,
            traces,
            metrics,
            logs,
            queue: queue.max(1),
            batch: said.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)?.clamp(1, queue.max(1)),
            delay: said.milliseconds("OTEL_BSP_SCHEDULE_DELAY", 5_000)?,
            interval: said.interval()?,
            complain,
        },
        sampler: sampler(wanted, &said)?,
        histograms: histograms(&said)?,
    }))
}

/// How often metrics are sent.
///
/// # Errors
/// If what is said is no number.
pub fn interval(variable: impl Fn(&str) -> Option<String>) -> Result<Duration, Failure> {
    Said(&variable).interval()
}

/// At most once a minute for each signal: whoever is away is away for a while.
fn complain(signal: Signal, items: u64, why: &str) {
    use std::sync::Mutex;
    use std::time::Instant;
    static LAST: Mutex<[Option<Instant>; 3]> = Mutex::new([None; 3]);
    let Ok(mut last) = LAST.lock() else { return };
    let last = &mut last[signal as usize];
    if last.is_none_or(|last| last.elapsed() >= Duration::from_secs(60)) {
        *last = Some(Instant::now());
        let signal = signal.as_str();
        tracing::warn!(signal, items, "the collector did not take telemetry: {why}");
    }
}

/// The environment; what is empty is as if it was not there, as the specification has it.
struct Said<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Said<'_> {
    fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.trim().is_empty())
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.get(name).is_some_and(|said| said.eq_ignore_ascii_case(value))
    }

    /// What is said of one signal, or of all.
    fn of_signal(&self, signal: Signal, what: &str) -> Option<String> {
        let name = signal.as_str().to_uppercase();
        self.get(&format!("OTEL_EXPORTER_OTLP_{name}_{what}"))
            .or_else(|| self.get(&format!("OTEL_EXPORTER_OTLP_{what}")))
    }

    fn number(&self, name: &str, default: usize) -> Result<usize, Failure> {
        let Some(text) = self.get(name) else { return Ok(default) };
        text.trim().parse().map_err(|_| unexpected(name, &text, "a whole number"))
    }

    fn interval(&self) -> Result<Duration, Failure> {
        let interval = self.milliseconds("OTEL_METRIC_EXPORT_INTERVAL", 60_000)?;
        Ok(interval.max(Duration::from_millis(100)))
    }

    fn milliseconds(&self, name: &str, default: u64) -> Result<Duration, Failure> {
        let number = self.number(name, default as usize)?;
        Ok(Duration::from_millis(number as u64))
    }
}

fn unexpected(name: &str, said: &str, expected: &str) -> Failure {
    Failure::usage(format!("{name}=\"{said}\": expected {expected}"))
}

fn target(wanted: &Wanted, said: &Said<'_>, signal: Signal) -> Result<Option<Target>, Failure> {
    let exporter = format!("OTEL_{}_EXPORTER", signal.as_str().to_uppercase());
    let own = format!("OTEL_EXPORTER_OTLP_{}_ENDPOINT", signal.as_str().to_uppercase());
    let own = said.get(&own).filter(|_| wanted.endpoint.is_none());
    let base = wanted.endpoint.clone().or_else(|| said.get("OTEL_EXPORTER_OTLP_ENDPOINT"));
    if own.is_none() && base.is_none() {
        return Ok(None);
    }
    match said.get(&exporter).as_deref() {
        None | Some("otlp") => {}
        Some("none") => return Ok(None),
        Some(other) => return Err(unexpected(&exporter, other, "otlp or none")),
    }
    let protocol = wanted.protocol.clone().or_else(|| said.of_signal(signal, "PROTOCOL"));
    let protocol = match protocol.as_deref() {
        None | Some("http/protobuf") => Protocol::HttpProtobuf,
        Some("grpc") => Protocol::Grpc,
        Some(other) => {
            return Err(unexpected("OTEL_EXPORTER_OTLP_PROTOCOL", other, "http/protobuf or grpc"));
        }
    };
    let endpoint = match (own, base, protocol) {
        (Some(own), _, _) => own,
        (None, Some(base), Protocol::HttpProtobuf) => {
            format!("{}/{}", base.trim_end_matches('/'), signal.path())
        }
        (None, base, _) => base.unwrap_or_default(),
    };
    let is_plain = endpoint.starts_with("http://");
    if !is_plain && !endpoint.starts_with("https://") {
        let expected = "a URL such as http://127.0.0.1:4318";
        return Err(unexpected("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint, expected));
    }
    if !is_plain && protocol == Protocol::Grpc {
        let failure = Failure::usage(format!("{endpoint}: gRPC with TLS is not supported"));
        return Err(failure.help(
            "use http/protobuf (port 4318), or a collector beside the server that speaks TLS to \
             the one outside",
        ));
    }
    for what in ["CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE"] {
        if said.of_signal(signal, what).is_some() {
            let message = format!("OTEL_EXPORTER_OTLP_{what} is not supported");
            let help = "certificates are trusted that the system trusts: see SSL_CERT_FILE";
            return Err(Failure::usage(message).help(help));
        }
    }
    let compress = match said.of_signal(signal, "COMPRESSION").as_deref() {
        None | Some("none") => false,
        Some("gzip") => true,
        Some(other) => {
            return Err(unexpected("OTEL_EXPORTER_OTLP_COMPRESSION", other, "gzip or none"));
        }
    };
    let timeout = match said.of_signal(signal, "TIMEOUT") {
        None => Duration::from_secs(10),
        Some(text) => text.trim().parse().map(Duration::from_millis).map_err(|_| {
            unexpected("OTEL_EXPORTER_OTLP_TIMEOUT", &text, "a number of milliseconds")
        })?,
    };
    let headers = said.of_signal(signal, "HEADERS").unwrap_or_default();
    // Keys are in there: the message does not repeat them.
    let headers = pairs(&headers).ok_or_else(|| {
        Failure::usage("OTEL_EXPORTER_OTLP_HEADERS: expected name=value,name=value")
    })?;
    Ok(Some(Target { endpoint, protocol, headers, timeout, compress }))
}

/// `name=value,name=value`, with what is unusual in values as `%XX`.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let pair = |item: &str| {
        let (name, value) = item.split_once('=')?;
        Some((unescape(name.trim())?, unescape(value.trim())?))
    };
    items.map(pair).collect::<Option<Vec<_>>>().filter(|all| all.iter().all(|(n, _)| !n.is_empty()))
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

fn resource(said: &Said<'_>) -> Result<Resource, Failure> {
    let name = "OTEL_RESOURCE_ATTRIBUTES";
    let text = said.get(name).unwrap_or_default();
    let given = pairs(&text).ok_or_else(|| unexpected(name, &text, "name=value,name=value"))?;
    let service = said.get("OTEL_SERVICE_NAME");
    let own = [
        ("service.name", Some(service.clone().unwrap_or_else(|| "modelyard".into()))),
        ("service.version", Some(env!("CARGO_PKG_VERSION").to_owned())),
        ("service.instance.id", Some(telemetry::text(&telemetry::trace_id()))),
        ("host.name", said.get("HOSTNAME")),
        ("process.pid", Some(std::process::id().to_string())),
    ];
    let is_given = |name: &str| {
        given.iter().any(|(given, _)| given == name)
            && !(name == "service.name" && service.is_some())
    };
    let own = own.into_iter().filter(|(name, _)| !is_given(name));
    let own = own.filter_map(|(name, value)| Some(KeyValue::new(name, value?)));
    let own: Vec<KeyValue> = own.collect();
    let others = given.iter().filter(|(name, _)| own.iter().all(|own| own.key != *name));
    let others = others.map(|(name, value)| KeyValue::new(name.as_str(), value.as_str()));
    let others: Vec<KeyValue> = others.collect();
    Ok(Resource { attributes: own.into_iter().chain(others).collect() })
}

fn sampler(wanted: &Wanted, said: &Said<'_>) -> Result<Sampler, Failure> {
    if let Some(ratio) = wanted.ratio {
        if !(0.0..=1.0).contains(&ratio) {
            return Err(Failure::usage(format!("--trace-ratio {ratio}: expected 0 to 1")));
        }
        return Ok(Sampler { follows_parent: true, ratio });
    }
    let argument = said.get("OTEL_TRACES_SAMPLER_ARG");
    let ratio = match &argument {
        None => Ok(1.0),
        Some(text) => {
            let ratio = text.trim().parse::<f64>().ok();
            ratio.filter(|ratio| (0.0..=1.0).contains(ratio)).ok_or(text)
        }
    };
    let name = "OTEL_TRACES_SAMPLER";
    let chosen = said.get(name);
    let (follows_parent, ratio) = match chosen.as_deref() {
        None if argument.is_none() => (true, Ok(RATIO)),
        Some("always_on") => (false, Ok(1.0)),
        Some("always_off") => (false, Ok(0.0)),
        Some("parentbased_always_on") => (true, Ok(1.0)),
        Some("parentbased_always_off") => (true, Ok(0.0)),
        Some("traceidratio") => (false, ratio),
        None | Some("parentbased_traceidratio") => (true, ratio),
        Some(other) => {
            let expected = "always_on, always_off, traceidratio, or one of these with \
                            parentbased_ before it";
            return Err(unexpected(name, other, expected));
        }
    };
    let ratio = ratio
        .map_err(|text| unexpected("OTEL_TRACES_SAMPLER_ARG", text, "a number from 0 to 1"))?;
    Ok(Sampler { follows_parent, ratio })
}

fn histograms(said: &Said<'_>) -> Result<Histograms, Failure> {
    let name = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION";
    match said.get(name).as_deref() {
        None | Some("explicit_bucket_histogram") => Ok(Histograms::Explicit),
        Some("base2_exponential_bucket_histogram") => Ok(Histograms::Exponential),
        Some(other) => {
            let expected = "explicit_bucket_histogram or base2_exponential_bucket_histogram";
            Err(unexpected(name, other, expected))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(said: &[(&str, &str)]) -> Result<Option<Plan>, Failure> {
        let find = |name: &str| said.iter().find(|(known, _)| *known == name);
        plan(&Wanted::default(), |name| Some(find(name)?.1.to_owned()))
    }

    fn planned(said: &[(&str, &str)]) -> Plan {
        read(said).unwrap().unwrap()
    }

    #[track_caller]
    fn check_refused(said: &[(&str, &str)], expected: &str) {
        let failure = format!("{:?}", read(said).unwrap_err());
        assert!(failure.contains(expected), "{failure}");
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");

    #[test]
    fn nothing_is_sent_unless_an_endpoint_is_named() {
        assert!(read(&[]).unwrap().is_none());
        assert!(read(&[ENDPOINT, ("OTEL_SDK_DISABLED", "TRUE")]).unwrap().is_none());
        let off = [("OTEL_TRACES_EXPORTER", "none"), ("OTEL_METRICS_EXPORTER", "none")];
        let plan = planned(&[ENDPOINT, off[0], off[1]]);
        assert!(plan.settings.traces.is_none() && plan.settings.metrics.is_none());
        assert_eq!(plan.settings.logs.unwrap().endpoint, "http://collector:4318/v1/logs");
    }

    #[test]
    fn a_signals_own_settings_win() {
        let plan = planned(&[
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b, x=y=z"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://traces/as/it/is"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "250"),
            ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ]);
        let traces = plan.settings.traces.unwrap();
        assert_eq!(traces.endpoint, "https://traces/as/it/is");
        assert_eq!(traces.timeout, Duration::from_millis(250));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(traces.headers, [pair("api-key", "a b"), pair("x", "y=z")]);
        let metrics = plan.settings.metrics.unwrap();
        assert_eq!(metrics.endpoint, "http://collector:4318/");
        assert!(metrics.protocol == Protocol::Grpc && metrics.compress);
    }

    #[test]
    fn a_flag_wins_over_every_variable() {
        let wanted = Wanted { endpoint: Some("http://here:1".into()), ..Wanted::default() };
        let own = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        let plan = plan(&wanted, |name| (name == own).then(|| "http://there:2".to_owned()));
        let traces = plan.unwrap().unwrap().settings.traces.unwrap();
        assert_eq!(traces.endpoint, "http://here:1/v1/traces");
    }

    #[test]
    fn samplers_are_read_by_their_names() {
        let sampler = |name, argument| {
            let said =
                [ENDPOINT, ("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", argument)];
            let sampler = planned(&said).sampler;
            (sampler.follows_parent, sampler.ratio)
        };
        assert_eq!(sampler("", ""), (true, RATIO));
        assert_eq!(sampler("", "0.5"), (true, 0.5));
        assert_eq!(sampler("always_on", ""), (false, 1.0));
        assert_eq!(sampler("traceidratio", "0.25"), (false, 0.25));
        assert_eq!(sampler("parentbased_always_off", ""), (true, 0.0));
        check_refused(&[ENDPOINT, ("OTEL_TRACES_SAMPLER", "sometimes")], "always_on, always_off");
        check_refused(&[ENDPOINT, ("OTEL_TRACES_SAMPLER_ARG", "2")], "a number from 0 to 1");
    }

    #[test]
    fn what_is_given_of_the_resource_is_kept() {
        let given = [("OTEL_RESOURCE_ATTRIBUTES", "service.name=one,team=ml%2Cops"), ENDPOINT];
        let of = |said: &[(&str, &str)], name: &str| {
            let attributes = planned(said).settings.resource.attributes;
            let mut of = attributes.into_iter().filter(|attribute| attribute.key == name);
            let first = of.next();
            assert!(of.next().is_none());
            first
        };
        assert_eq!(of(&given, "service.name"), Some(KeyValue::new("service.name", "one")));
        assert_eq!(of(&given, "team"), Some(KeyValue::new("team", "ml,ops")));
        let named = [given[0], given[1], ("OTEL_SERVICE_NAME", "two")];
        assert_eq!(of(&named, "service.name"), Some(KeyValue::new("service.name", "two")));
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        check_refused(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317")], "a URL such as");
        check_refused(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")], "or grpc");
        check_refused(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "zipkin")], "otlp or none");
        check_refused(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_CERTIFICATE", "ca.pem")], "not supported");
        let secure = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4317");
        check_refused(&[secure, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], "gRPC with TLS");
        check_refused(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_HEADERS", "secret")], "name=value");
        let failure = read(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_HEADERS", "secret")]).unwrap_err();
        assert!(!format!("{failure:?}").contains("secret"));
    }
}
