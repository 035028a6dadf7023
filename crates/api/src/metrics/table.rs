//! Every metric there is: what it is called, what it means, by what it is told apart.
//!
//! `/metrics`, the rules, the dashboard and the documentation are all written from this table, so
//! they cannot disagree.

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises; ask for its rate.
    Counter,
    /// Rises and falls.
    Gauge,
    /// How often which values were seen, in classic buckets and native ones.
    Histogram,
    /// Always 1; what it says is in its labels.
    Info,
}

impl Kind {
    /// Its name in documentation.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// As Prometheus knows it; a histogram's series have `_bucket`, `_sum` and `_count` behind it.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// By what its series are told apart.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

impl Metric {
    /// The name without what its kind adds to it, as OpenMetrics writes it.
    pub fn family(&self) -> &'static str {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        self.name.strip_suffix(suffix).unwrap_or(self.name)
    }

    /// What it is counted in, if its name says so.
    pub fn unit(&self) -> Option<&'static str> {
        let family = self.family();
        ["seconds", "bytes", "ratio"]
            .into_iter()
            .find(|unit| family.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_')))
    }
}

macro_rules! metrics {
    ($($(#[$doc:meta])* $id:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            $(#[$doc])*
            #[doc = $help]
            pub const $id: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                labels: &[$($label),*],
                help: $help,
            };
        )*
        /// All of them, in the order in which they are shown.
        pub const METRICS: &[Metric] = &[$($id),*];
    };
}

metrics! {
    REQUESTS = Counter "modelyard_requests_total" ["model", "version", "protocol", "code"]
        "Inference requests by how they ended: OK, an error's code, or CANCELLED where the caller had gone. Those that reached no version have none; those for models that are not known have no model either.";
    LATENCY = Histogram "modelyard_request_duration_seconds" ["model", "version", "protocol"]
        "Time from the choice of a version, with a load if one was needed, to the answer, of requests that were answered.";
    QUEUE = Histogram "modelyard_queue_duration_seconds" ["model", "version"]
        "Time that answered requests waited for an instance.";
    COMPUTE = Histogram "modelyard_compute_duration_seconds" ["model", "version"]
        "Time in the engine, by run.";
    ROWS = Histogram "modelyard_batch_rows" ["model", "version"]
        "Rows that ran together, by run of the engine.";
    IN_FLIGHT = Gauge "modelyard_requests_in_flight" ["model", "version"]
        "Requests that are being answered.";
    WAITING = Gauge "modelyard_requests_waiting" ["model", "version"]
        "Requests that wait for an instance.";
    REJECTED = Counter "modelyard_rejected_requests_total" ["model", "version", "reason"]
        "Requests that were refused before any work: the queue was full, the promised time (slo) or the caller's own (deadline) could not be kept.";
    INSTANCES = Gauge "modelyard_instances" ["model", "version"]
        "Runs that may happen side by side.";
    BUSY = Gauge "modelyard_instances_busy" ["model", "version"]
        "Runs that are happening.";
    SHARE = Gauge "modelyard_traffic_share_ratio" ["model", "version"]
        "Part of the traffic that names no version, as assigned.";
    READY = Gauge "modelyard_model_ready" ["model", "version"]
        "1 if the version answers, at once or after a load on demand; otherwise 0.";
    MEMORY = Gauge "modelyard_model_memory_bytes" ["model", "version"]
        "Memory that a loaded version is reckoned to hold.";
    LOAD_TIME = Gauge "modelyard_load_duration_seconds" ["model", "version"]
        "Time that the last load took that succeeded, with verifying and warming.";
    LOADS = Counter "modelyard_loads_total" ["model", "version", "result"]
        "Loads by whether they succeeded or failed.";
    SHADOWS = Counter "modelyard_shadow_requests_total" ["model", "version", "result"]
        "Copies of requests to other versions: answered, failed, or dropped because callers waited.";
    SHADOW_TIME = Counter "modelyard_shadow_seconds_total" ["model", "version"]
        "Time that copies of requests to other versions took.";
    MODEL = Info "modelyard_model_info" ["model", "version", "engine", "format", "digest"]
        "What a loaded version is.";
    ALIAS = Info "modelyard_alias_info" ["model", "alias", "version"]
        "Which version an alias of the registry names.";
    SERVER_READY = Gauge "modelyard_ready" []
        "1 if every wanted version answers; otherwise 0.";
    WAITING_FOR_LOADS = Gauge "modelyard_requests_waiting_for_load" []
        "Requests that wait for versions to be loaded.";
    SLO = Gauge "modelyard_slo_target_seconds" ["quantile"]
        "Time that admitted requests are promised.";
    DROPPED = Counter "modelyard_observations_dropped_total" []
        "Observations that watchers did not take in time.";
    TELEMETRY = Counter "modelyard_telemetry_items_total" ["signal", "result"]
        "Spans, metrics and lines of logs for a collector: exported, dropped because too many waited, or failed because no collector took them.";
    BUILD = Info "modelyard_build_info" ["version"]
        "The version of this server.";
    CPU = Counter "process_cpu_seconds_total" []
        "CPU time that the process has used.";
    RESIDENT = Gauge "process_resident_memory_bytes" []
        "Memory of the process that is in RAM.";
    VIRTUAL = Gauge "process_virtual_memory_bytes" []
        "Address space of the process.";
    OPEN_FILES = Gauge "process_open_fds" []
        "Open file descriptors.";
    MAX_FILES = Gauge "process_max_fds" []
        "The most file descriptors that may be open.";
    THREADS = Gauge "process_threads" []
        "Threads of the process.";
    STARTED = Gauge "process_start_time_seconds" []
        "When the process was started, in seconds since 1970.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        let mut seen = std::collections::BTreeSet::new();
        for metric in METRICS {
            let name = metric.name;
            assert!(seen.insert(name), "{name} is there twice");
            assert!(name.starts_with("modelyard_") || name.starts_with("process_"), "{name}");
            assert_eq!(metric.kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert_eq!(metric.kind == Kind::Info, name.ends_with("_info"), "{name}");
            assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{name}");
        }
    }

    #[test]
    fn families_and_units_are_openmetrics_ones() {
        assert_eq!((CPU.family(), CPU.unit()), ("process_cpu_seconds", Some("seconds")));
        assert_eq!((MODEL.family(), MODEL.unit()), ("modelyard_model", None));
        assert_eq!((MEMORY.family(), MEMORY.unit()), (MEMORY.name, Some("bytes")));
    }
}
