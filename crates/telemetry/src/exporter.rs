//! What is to be sent waits in bounded queues, and one thread of its own sends it: nobody who leaves
//! something there ever waits, and what there is no room for is dropped and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::Settings;
use crate::messages::{
    ExportLogs, ExportMetrics, ExportTraces, LogRecord, Metric, Resource, Scope, Span,
};
use crate::transport::{Signal, Transport};

/// How long a batch is tried again before it is given up; more keeps coming.
const PATIENCE: Duration = Duration::from_secs(60);
/// The first wait before trying again; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How long is waited at the end for what is still to be sent.
const FAREWELL: Duration = Duration::from_secs(3);

/// What is asked for metrics.
pub type Measure = Arc<dyn Fn() -> Vec<Metric> + Send + Sync>;

/// What became of what was to be sent, by signal.
#[derive(Debug, Default)]
struct Counts {
    exported: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

#[derive(Debug, Default)]
struct Counters([Counts; 3]);

/// Where spans and lines of logs are left. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outbox {
    spans: Option<mpsc::Sender<Span>>,
    logs: Option<mpsc::Sender<LogRecord>>,
    counters: Arc<Counters>,
}

impl Outbox {
    /// Leaves a span; drops and counts it if there is no room.
    pub fn span(&self, span: Span) {
        if let Some(spans) = &self.spans
            && spans.try_send(span).is_err()
        {
            self.add(Signal::Traces, |counts| &counts.dropped, 1);
        }
    }

    /// Leaves a line of a log; drops and counts it if there is no room.
    pub fn log(&self, record: LogRecord) {
        if let Some(logs) = &self.logs
            && logs.try_send(record).is_err()
        {
            self.add(Signal::Logs, |counts| &counts.dropped, 1);
        }
    }

    /// Whether spans are sent at all.
    pub fn takes_spans(&self) -> bool {
        self.spans.is_some()
    }

    /// Whether lines of logs are sent at all.
    pub fn takes_logs(&self) -> bool {
        self.logs.is_some()
    }

    /// What became of what was to be sent: signal, `exported`, `dropped` because there was no room,
    /// or `failed` because no collector took it, and how many.
    pub fn counts(&self) -> Vec<(Signal, &'static str, u64)> {
        let count = |signal: Signal| {
            let counts = &self.counters.0[signal as usize];
            let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
            [
                (signal, "exported", get(&counts.exported)),
                (signal, "dropped", get(&counts.dropped)),
                (signal, "failed", get(&counts.failed)),
            ]
        };
        Signal::ALL.into_iter().flat_map(count).collect()
    }

    fn add(&self, signal: Signal, which: fn(&Counts) -> &AtomicU64, many: u64) {
        which(&self.counters.0[signal as usize]).fetch_add(many, Ordering::Relaxed);
    }
}

/// The thread that sends.
pub struct Exporter {
    stop: watch::Sender<Option<Instant>>,
    thread: Option<JoinHandle<()>>,
    measure: watch::Sender<Option<Measure>>,
    outbox: Outbox,
}

impl Exporter {
    /// Starts the thread.
    ///
    /// # Errors
    /// If an endpoint is no URL, or no thread can be started.
    pub fn start(settings: Settings) -> Result<Self, String> {
        let (spans, mut waiting_spans) = mpsc::channel(settings.queue.max(1));
        let (logs, mut waiting_logs) = mpsc::channel(settings.queue.max(1));
        let outbox = Outbox {
            spans: settings.traces.is_some().then_some(spans),
            logs: settings.logs.is_some().then_some(logs),
            counters: Arc::default(),
        };
        let (stop, stopped) = watch::channel(None);
        let (measure, measured) = watch::channel::<Option<Measure>>(None);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("cannot start a runtime: {error}"))?;
        let way = {
            let _inside = runtime.enter();
            let transport = |target: Option<crate::Target>| target.map(Transport::new).transpose();
            let sender = |transport| {
                Arc::new(Sender {
                    transport,
                    resource: settings.resource.clone(),
                    batch: settings.batch.max(1),
                    delay: settings.delay,
                    complain: settings.complain,
                    outbox: outbox.clone(),
                })
            };
            [
                transport(settings.traces)?.map(&sender),
                transport(settings.metrics)?.map(&sender),
                transport(settings.logs)?.map(&sender),
            ]
        };
        let [traces, metrics, logs] = way;
        let interval = settings.interval.max(Duration::from_millis(10));
        let work = async move {
            let traces = async {
                let Some(sender) = traces else { return };
                sender
                    .follow(&mut waiting_spans, Signal::Traces, ExportTraces::new, &stopped)
                    .await;
            };
            let logs = async {
                let Some(sender) = logs else { return };
                sender.follow(&mut waiting_logs, Signal::Logs, ExportLogs::new, &stopped).await;
            };
            let metrics = async {
                let Some(sender) = metrics else { return };
                sender.measure(interval, &measured, &stopped).await;
            };
            tokio::join!(traces, logs, metrics);
        };
        let thread = std::thread::Builder::new().name(crate::THREAD.into());
        let thread = thread.spawn(move || runtime.block_on(work));
        let thread = thread.map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(Self { stop, thread: Some(thread), measure, outbox })
    }

    /// Where spans and lines of logs are left.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// What is asked for metrics from now on.
    pub fn measure(&self, measure: Measure) {
        self.measure.send_replace(Some(measure));
    }
}

impl Drop for Exporter {
    /// Sends what waits, for at most a few seconds.
    fn drop(&mut self) {
        self.stop.send_replace(Some(Instant::now() + FAREWELL));
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has ended as well.
            let _ = thread.join();
        }
    }
}

/// Sends one signal.
struct Sender {
    transport: Transport,
    resource: Resource,
    batch: usize,
    delay: Duration,
    complain: fn(Signal, u64, &str),
    outbox: Outbox,
}

impl Sender {
    /// Sends what comes, in batches, until it is stopped.
    async fn follow<T: Clone, M: Message + Clone + Default + 'static>(
        &self,
        waiting: &mut mpsc::Receiver<T>,
        signal: Signal,
        envelope: fn(Resource, Scope, Vec<T>) -> M,
        stopped: &watch::Receiver<Option<Instant>>,
    ) {
        let mut stop = stopped.clone();
        loop {
            let mut items = Vec::new();
            let collected = async {
                // The first is waited for as long as it takes.
                if waiting.recv_many(&mut items, self.batch).await == 0 {
                    return;
                }
                let end = Instant::now() + self.delay;
                while items.len() < self.batch {
                    let left = self.batch - items.len();
                    let more = tokio::time::timeout_at(end, waiting.recv_many(&mut items, left));
                    if more.await.is_err() {
                        return;
                    }
                }
            };
            let is_over = tokio::select! {
                biased;
                () = collected => false,
                _ = stop.wait_for(Option::is_some) => true,
            };
            if is_over {
                while let Ok(item) = waiting.try_recv() {
                    items.push(item);
                }
            }
            for batch in items.chunks(self.batch) {
                let message = envelope(self.resource.clone(), scope(), batch.to_vec());
                self.send(signal, &message, batch.len() as u64, stopped).await;
            }
            if is_over {
                return;
            }
        }
    }

    /// Sends all metrics again and again, and once more at the end.
    async fn measure(
        &self,
        interval: Duration,
        measured: &watch::Receiver<Option<Measure>>,
        stopped: &watch::Receiver<Option<Instant>>,
    ) {
        let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut stop = stopped.clone();
        loop {
            let is_over = tokio::select! {
                _ = ticks.tick() => false,
                _ = stop.wait_for(Option::is_some) => true,
            };
            let measure = measured.borrow().clone();
            let metrics = measure.map(|measure| measure()).unwrap_or_default();
            if !metrics.is_empty() {
                let count = metrics.len() as u64;
                let message = ExportMetrics::new(self.resource.clone(), scope(), metrics);
                self.send(Signal::Metrics, &message, count, stopped).await;
            }
            if is_over {
                return;
            }
        }
    }

    /// Sends a message, again and again if need be, and counts what became of it.
    async fn send<M: Message + Clone + Default + 'static>(
        &self,
        signal: Signal,
        message: &M,
        items: u64,
        stopped: &watch::Receiver<Option<Instant>>,
    ) {
        let start = Instant::now();
        let mut wait = FIRST_WAIT;
        // Once it is stopped the time is short, whatever is under way.
        let mut stop = stopped.clone();
        let farewell = async {
            let end = stop.wait_for(Option::is_some).await.ok().and_then(|end| *end);
            tokio::time::sleep_until(end.unwrap_or_else(Instant::now)).await;
        };
        let sent = async {
            loop {
                match self.transport.send(signal, message).await {
                    Ok(exported) => {
                        let refused = exported.partial_success.unwrap_or_default();
                        return (
                            refused.rejected.clamp(0, items as i64) as u64,
                            refused.error_message,
                        );
                    }
                    Err(refusal) => {
                        let Some(asked) = refusal.again else { return (items, refusal.why) };
                        let pause = asked.unwrap_or(wait.mul_f64(0.5 + fastrand::f64() / 2.0));
                        if start.elapsed() + pause > PATIENCE {
                            return (items, refusal.why);
                        }
                        tokio::time::sleep(pause).await;
                        wait = (wait * 2).min(LONGEST_WAIT);
                    }
                }
            }
        };
        let (refused, why) = tokio::select! {
            sent = sent => sent,
            () = farewell => (items, "the process ends".to_owned()),
        };
        self.outbox.add(signal, |counts| &counts.exported, items - refused);
        self.outbox.add(signal, |counts| &counts.failed, refused);
        if refused > 0 {
            (self.complain)(signal, refused, &why);
        }
    }
}

fn scope() -> Scope {
    Scope { name: "modelyard".into(), version: env!("CARGO_PKG_VERSION").into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Protocol, Target};

    fn settings(protocol: Protocol) -> Settings {
        // Nobody listens on the port of `discard`.
        let endpoint = "http://127.0.0.1:9".to_owned();
        let timeout = Duration::from_secs(1);
        let target = Target { endpoint, protocol, headers: Vec::new(), timeout, compress: true };
        Settings {
            resource: Resource::default(),
            traces: Some(target.clone()),
            metrics: None,
            logs: Some(target),
            queue: 4,
            batch: 2,
            delay: Duration::from_secs(60),
            interval: Duration::from_secs(60),
            complain: |_, _, _| {},
        }
    }

    #[test]
    fn without_a_collector_everything_is_counted_and_the_end_comes_soon() {
        for protocol in [Protocol::HttpProtobuf, Protocol::Grpc] {
            let exporter = Exporter::start(settings(protocol)).unwrap();
            let outbox = exporter.outbox().clone();
            for _ in 0..100 {
                outbox.span(Span::default());
                outbox.log(LogRecord::default());
            }
            let start = std::time::Instant::now();
            drop(exporter);
            assert!(start.elapsed() < FAREWELL + Duration::from_secs(2), "{:?}", start.elapsed());
            let sum = |signal, result: &str| {
                let counts = outbox.counts().into_iter();
                let of = counts.filter(|(s, r, _)| *s == signal && *r == result);
                of.map(|(_, _, count)| count).sum::<u64>()
            };
            for signal in [Signal::Traces, Signal::Logs] {
                assert_eq!(sum(signal, "dropped") + sum(signal, "failed"), 100);
                // A full queue, and the batch that is being sent.
                assert!(sum(signal, "dropped") >= 90);
                assert_eq!(sum(signal, "exported"), 0);
            }
        }
    }

    #[test]
    fn an_endpoint_that_is_no_url_is_refused() {
        let mut settings = settings(Protocol::Grpc);
        settings.traces.as_mut().unwrap().endpoint = "not a url".into();
        assert!(Exporter::start(settings).is_err());
    }
}
