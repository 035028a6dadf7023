//! What is measured of each version, whoever watches: counts and histograms in relaxed atomics, so
//! that a request never waits to be counted.
//!
//! Only models that are or were assigned have meters: whatever callers make up is counted together.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use model::ErrorCode;

use crate::Error;
use crate::histogram::{Distribution, Histogram, Layout, SIZES, TIMES};
use crate::worker::Run;

/// What is measured of a version that is gone is kept for this time, so that what scrapes every few
/// minutes sees its last requests.
const KEPT: Duration = Duration::from_secs(15 * 60);

/// How a request came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// From inside this process.
    #[default]
    Direct,
    /// The Open Inference Protocol over REST.
    Rest,
    /// The Open Inference Protocol over gRPC.
    Grpc,
    /// TensorFlow Serving's REST.
    TfsRest,
    /// TensorFlow Serving's gRPC.
    TfsGrpc,
}

impl Protocol {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Direct, Self::Rest, Self::Grpc, Self::TfsRest, Self::TfsGrpc];

    /// Its name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Rest => "rest",
            Self::Grpc => "grpc",
            Self::TfsRest => "tfs_rest",
            Self::TfsGrpc => "tfs_grpc",
        }
    }
}

/// Why a version did not take a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// As many wait as may.
    QueueFull,
    /// The answer would come later than is promised.
    Slo,
    /// The caller's time would be up before.
    Deadline,
}

impl Reason {
    const ALL: [Self; 3] = [Self::QueueFull, Self::Slo, Self::Deadline];

    /// Its name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Slo => "slo",
            Self::Deadline => "deadline",
        }
    }
}

/// How requests end, as metrics name it: answered, an error's code, or the caller had gone.
const CODES: [&str; 13] = [
    "OK",
    ErrorCode::InvalidArgument.as_str(),
    ErrorCode::NotFound.as_str(),
    ErrorCode::AlreadyExists.as_str(),
    ErrorCode::Unimplemented.as_str(),
    ErrorCode::ResourceExhausted.as_str(),
    ErrorCode::Unavailable.as_str(),
    ErrorCode::DeadlineExceeded.as_str(),
    ErrorCode::FailedPrecondition.as_str(),
    ErrorCode::Unauthenticated.as_str(),
    ErrorCode::PermissionDenied.as_str(),
    ErrorCode::Internal.as_str(),
    "CANCELLED",
];
const CANCELLED: usize = CODES.len() - 1;

/// Codes that rules ask for: shown as 0 before they happen, so that their first time is an increase.
const ALWAYS: [&str; 5] =
    ["OK", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL"];

fn position(code: ErrorCode) -> usize {
    // In the order of the variants, after OK; a test holds it.
    code as usize + 1
}

/// A histogram that takes no memory before it is used.
#[derive(Debug, Default)]
struct Lazy(OnceLock<Box<Histogram>>);

impl Lazy {
    fn of(&self, layout: &'static Layout) -> &Histogram {
        self.0.get_or_init(|| Box::new(Histogram::new(layout)))
    }

    fn distribution(&self) -> Option<Distribution> {
        Some(self.0.get()?.distribution())
    }
}

/// What is measured of one version, or of requests that reached none of their model's.
#[derive(Debug)]
pub(crate) struct Meter {
    name: Arc<str>,
    version: Arc<str>,
    outcomes: [[AtomicU64; CODES.len()]; Protocol::ALL.len()],
    latency: [Lazy; Protocol::ALL.len()],
    queue: Lazy,
    compute: Lazy,
    rows: Lazy,
    in_flight: AtomicU64,
    rejected: [AtomicU64; Reason::ALL.len()],
    loads: AtomicU64,
    failed_loads: AtomicU64,
    /// How long the last load took, in nanoseconds; 0 if none has succeeded.
    load_time: AtomicU64,
}

fn add(to: &AtomicU64) {
    to.fetch_add(1, Ordering::Relaxed);
}

fn get(from: &AtomicU64) -> u64 {
    from.load(Ordering::Relaxed)
}

impl Meter {
    fn new(name: Arc<str>, version: Arc<str>) -> Self {
        Self {
            name,
            version,
            outcomes: Default::default(),
            latency: Default::default(),
            queue: Lazy::default(),
            compute: Lazy::default(),
            rows: Lazy::default(),
            in_flight: AtomicU64::new(0),
            rejected: Default::default(),
            loads: AtomicU64::new(0),
            failed_loads: AtomicU64::new(0),
            load_time: AtomicU64::new(0),
        }
    }

    /// A request begins that was received at this time.
    pub(crate) fn begin(self: &Arc<Self>, protocol: Protocol, received: Instant) -> Metered {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Metered { meter: self.clone(), protocol, received, has_ended: false }
    }

    /// A request failed before any version had it.
    fn refuse(&self, protocol: Protocol, code: ErrorCode) {
        add(&self.outcomes[protocol as usize][position(code)]);
    }

    pub(crate) fn reject(&self, reason: Reason) {
        add(&self.rejected[reason as usize]);
    }

    /// A request's turn came after this time.
    pub(crate) fn waited(&self, time: Duration) {
        self.queue.of(&TIMES).observe_time(time);
    }

    /// The engine ran.
    pub(crate) fn ran(&self, run: &Run) {
        self.compute.of(&TIMES).observe_time(run.time);
        self.rows.of(&SIZES).observe(run.rows as u64);
    }

    /// A load ended: how long it took, if it succeeded.
    pub(crate) fn loaded(&self, time: Option<Duration>) {
        match time {
            Some(time) => {
                add(&self.loads);
                self.load_time.store(time.as_nanos() as u64, Ordering::Relaxed);
            }
            None => add(&self.failed_loads),
        }
    }

    fn measures(&self) -> Measures {
        let mut requests = Vec::new();
        let mut latency = Vec::new();
        for protocol in Protocol::ALL {
            let counts = self.outcomes[protocol as usize].each_ref().map(get);
            if counts.iter().all(|count| *count == 0) {
                continue;
            }
            let shown = |(code, count): &(&str, u64)| *count > 0 || ALWAYS.contains(code);
            let counted = CODES.into_iter().zip(counts).filter(shown);
            requests.extend(counted.map(|(code, count)| (protocol, code, count)));
            latency.extend(
                self.latency[protocol as usize].distribution().map(|times| (protocol, times)),
            );
        }
        let load_time = get(&self.load_time);
        Measures {
            name: self.name.clone(),
            version: self.version.clone(),
            requests,
            latency,
            queue: self.queue.distribution(),
            compute: self.compute.distribution(),
            rows: self.rows.distribution(),
            in_flight: get(&self.in_flight),
            rejected: Reason::ALL.map(|reason| (reason, get(&self.rejected[reason as usize]))),
            loads: get(&self.loads),
            failed_loads: get(&self.failed_loads),
            load_time: (load_time > 0).then(|| Duration::from_nanos(load_time)),
        }
    }
}

/// A request that is being answered. If it is dropped before its end, its caller has gone.
#[derive(Debug)]
pub(crate) struct Metered {
    meter: Arc<Meter>,
    protocol: Protocol,
    received: Instant,
    has_ended: bool,
}

impl Metered {
    /// Another version has to answer it.
    pub(crate) fn moves_to(&mut self, meter: &Arc<Meter>) {
        meter.in_flight.fetch_add(1, Ordering::Relaxed);
        self.meter.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.meter = meter.clone();
    }

    /// It was answered, or failed.
    pub(crate) fn end(mut self, error: Option<&Error>) {
        self.has_ended = true;
        let protocol = self.protocol as usize;
        match error {
            None => {
                add(&self.meter.outcomes[protocol][0]);
                self.meter.latency[protocol].of(&TIMES).observe_time(self.received.elapsed());
            }
            Some(error) => add(&self.meter.outcomes[protocol][position(error.code())]),
        }
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        if !self.has_ended {
            add(&self.meter.outcomes[self.protocol as usize][CANCELLED]);
        }
        self.meter.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What has been measured of one version.
#[derive(Clone, Debug)]
pub struct Measures {
    /// The model's name; empty for requests for models that are not known.
    pub name: Arc<str>,
    /// The version; empty for requests that failed before one was chosen.
    pub version: Arc<str>,
    /// Requests by protocol and by how they ended: `OK`, an error's code, or `CANCELLED`. Of a
    /// protocol that was used, those that rules ask for are there even if they are 0.
    pub requests: Vec<(Protocol, &'static str, u64)>,
    /// Seconds from being received to being answered, by protocol; failures are not in it.
    pub latency: Vec<(Protocol, Distribution)>,
    /// Seconds that requests waited for an instance.
    pub queue: Option<Distribution>,
    /// Seconds in the engine, by run.
    pub compute: Option<Distribution>,
    /// Rows that ran together, by run.
    pub rows: Option<Distribution>,
    /// Requests that are being answered at this moment.
    pub in_flight: u64,
    /// Requests that were refused before any work.
    pub rejected: [(Reason, u64); 3],
    /// Loads that succeeded.
    pub loads: u64,
    /// Loads that failed.
    pub failed_loads: u64,
    /// How long the last load took that succeeded.
    pub load_time: Option<Duration>,
}

/// The meters of a server.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    versions: RwLock<BTreeMap<Key, Kept>>,
    /// Requests for models that are not known.
    unknown: OnceLock<Arc<Meter>>,
}

/// A model and a version; without a version it is the model's own.
type Key = (Arc<str>, Arc<str>);

#[derive(Debug)]
struct Kept {
    meter: Arc<Meter>,
    gone: Option<Instant>,
}

impl Meters {
    /// The meter of a version that is assigned.
    pub(crate) fn of(&self, name: &str, version: &str) -> Arc<Meter> {
        let key: Key = (name.into(), version.into());
        let mut versions = self.versions.write().unwrap_or_else(PoisonError::into_inner);
        let kept = versions.entry(key).or_insert_with_key(|(name, version)| Kept {
            meter: Arc::new(Meter::new(name.clone(), version.clone())),
            gone: None,
        });
        kept.gone = None;
        kept.meter.clone()
    }

    /// A request failed before any version had it.
    pub(crate) fn refuse(&self, name: &str, protocol: Protocol, code: ErrorCode) {
        let key: Key = (name.into(), "".into());
        let versions = self.versions.read().unwrap_or_else(PoisonError::into_inner);
        match versions.get(&key) {
            Some(kept) => kept.meter.refuse(protocol, code),
            None => {
                let unknown = || Arc::new(Meter::new("".into(), "".into()));
                self.unknown.get_or_init(unknown).refuse(protocol, code);
            }
        }
    }

    /// Makes the meters be those of what is wanted: others go after a while. For a version that is
    /// empty it is asked whether the model is wanted at all.
    pub(crate) fn sweep(&self, now: Instant, is_wanted: impl Fn(&str, &str) -> bool) {
        let mut versions = self.versions.write().unwrap_or_else(PoisonError::into_inner);
        for ((name, version), kept) in versions.iter_mut() {
            match is_wanted(name, version) {
                true => kept.gone = None,
                false => kept.gone = kept.gone.or(Some(now)),
            }
        }
        forget(&mut versions, now);
    }

    /// What has been measured, by model and version.
    pub(crate) fn measures(&self, now: Instant) -> Vec<Measures> {
        let mut versions = self.versions.write().unwrap_or_else(PoisonError::into_inner);
        forget(&mut versions, now);
        let meters: Vec<Arc<Meter>> = versions.values().map(|kept| kept.meter.clone()).collect();
        drop(versions);
        let unknown = self.unknown.get().into_iter();
        unknown.chain(&meters).map(|meter| meter.measures()).collect()
    }
}

fn forget(versions: &mut BTreeMap<Key, Kept>, now: Instant) {
    let is_old = |gone: Instant| now.saturating_duration_since(gone) >= KEPT;
    versions.retain(|_, kept| !kept.gone.is_some_and(is_old));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_counted_under_its_own_name() {
        use ErrorCode::*;
        for code in [
            InvalidArgument,
            NotFound,
            AlreadyExists,
            Unimplemented,
            ResourceExhausted,
            Unavailable,
            DeadlineExceeded,
            FailedPrecondition,
            Unauthenticated,
            PermissionDenied,
            Internal,
        ] {
            assert_eq!(CODES[position(code)], code.as_str());
        }
        assert_eq!(CODES[CANCELLED], "CANCELLED");
        assert!(ALWAYS.iter().all(|code| CODES.contains(code)));
    }

    #[test]
    fn protocols_and_reasons_are_their_own_positions() {
        assert!(Protocol::ALL.iter().enumerate().all(|(at, protocol)| *protocol as usize == at));
        assert!(Reason::ALL.iter().enumerate().all(|(at, reason)| *reason as usize == at));
    }

    #[test]
    fn names_that_callers_make_up_are_counted_together() {
        let meters = Meters::default();
        meters.of("known", "");
        for made_up in 0..1000 {
            meters.refuse(&format!("made up {made_up}"), Protocol::Rest, ErrorCode::NotFound);
        }
        meters.refuse("known", Protocol::Rest, ErrorCode::NotFound);
        let measures = meters.measures(Instant::now());
        let names: Vec<&str> = measures.iter().map(|of| &*of.name).collect();
        assert_eq!(names, ["", "known"]);
        let count = |of: &Measures| {
            of.requests.iter().find(|(_, code, _)| *code == "NOT_FOUND").map(|(_, _, count)| *count)
        };
        assert_eq!((count(&measures[0]), count(&measures[1])), (Some(1000), Some(1)));
    }

    #[test]
    fn what_is_gone_is_kept_for_a_while_and_its_counts_go_on_if_it_comes_back() {
        let meters = Meters::default();
        let start = Instant::now();
        let kept = |after| meters.measures(start + after).len();
        meters.of("m", "1").begin(Protocol::Grpc, start).end(None);
        meters.of("m", "2");
        meters.sweep(start, |_, version| version == "2");
        assert_eq!(kept(KEPT - Duration::from_secs(1)), 2);
        // Assigned again in time.
        let again = meters.of("m", "1");
        assert_eq!(again.measures().requests[0], (Protocol::Grpc, "OK", 1));
        assert_eq!(kept(KEPT), 2);
        meters.sweep(start, |_, version| version == "2");
        meters.sweep(start + KEPT / 2, |_, version| version == "2");
        assert_eq!(kept(KEPT), 1);
    }

    /// What one request costs to count: `cargo test --release -p serving -- --ignored cost --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    fn cost_of_counting_a_request() {
        const REQUESTS: u32 = 200_000;
        for threads in [1, 2] {
            let meters = Meters::default();
            let meter = meters.of("m", "1");
            let (meter, started) = (&meter, Instant::now());
            std::thread::scope(|scope| {
                for thread in 0..threads {
                    scope.spawn(move || {
                        for number in 0..REQUESTS {
                            let running = meter.begin(Protocol::Rest, Instant::now());
                            let time =
                                Duration::from_nanos(u64::from(number % 9973) * (thread + 1));
                            meter.ran(&Run { rows: 1, time });
                            meter.waited(time);
                            running.end(None);
                        }
                    });
                }
            });
            let time = started.elapsed().as_nanos() as f64 / f64::from(REQUESTS);
            println!("{threads} threads: {time:.0} ns a request on each");
        }
    }

    #[test]
    fn a_caller_that_goes_is_counted_and_no_longer_in_flight() {
        let meters = Meters::default();
        let (one, two) = (meters.of("m", "1"), meters.of("m", "2"));
        let mut request = one.begin(Protocol::Rest, Instant::now());
        assert_eq!(one.measures().in_flight, 1);
        request.moves_to(&two);
        assert_eq!((one.measures().in_flight, two.measures().in_flight), (0, 1));
        drop(request);
        let measures = two.measures();
        assert_eq!(measures.in_flight, 0);
        assert!(measures.requests.contains(&(Protocol::Rest, "CANCELLED", 1)));
        assert!(measures.latency.is_empty());
    }
}
