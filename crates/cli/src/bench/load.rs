//! The load itself: connections that send prepared bytes, and the record of what came back.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::Notify;
use tokio::task::LocalSet;

use super::pacer::{Poisson, Timer};
use crate::http::{Broken, Connection, Endpoint};

/// What is to be sent, how often and for how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server.
    pub endpoint: Endpoint,
    /// The request's bytes, head and body.
    pub request: Arc<[u8]>,
    /// Connections over all threads.
    pub connections: usize,
    /// Threads of the generator.
    pub threads: usize,
    /// Requests a second for an open loop; `None` for a closed loop.
    pub rate: Option<f64>,
    /// Time before anything is recorded.
    pub warmup: Duration,
    /// Time that is recorded; `None` to go on until `requests` are sent.
    pub duration: Option<Duration>,
    /// The most requests that are recorded.
    pub requests: Option<u64>,
    /// When a request is given up.
    pub timeout: Duration,
    /// Seed of the open loop's gaps.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Nanoseconds from a request's intended time to its answer, for answers with status 2xx.
    pub latency: Histogram<u64>,
    /// Nanoseconds from a request's intended time to its sending: what the generator, and in an
    /// open loop the lack of a free connection, added.
    pub lag: Histogram<u64>,
    /// Answers by HTTP status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without an answer, by what happened.
    pub broken: BTreeMap<&'static str, u64>,
    /// Bytes of answers' bodies.
    pub bytes: u64,
    /// From the first recorded request to the last answer.
    pub elapsed: Duration,
    /// Requests that were sent, those of the warm-up included.
    pub sent: u64,
    /// CPU time of this process, that of the warm-up included.
    pub cpu: Duration,
}

impl Measured {
    fn new() -> Self {
        let histogram = || Histogram::new(3).expect("3 digits are allowed");
        Self {
            latency: histogram(),
            lag: histogram(),
            statuses: BTreeMap::new(),
            broken: BTreeMap::new(),
            bytes: 0,
            elapsed: Duration::ZERO,
            sent: 0,
            cpu: Duration::ZERO,
        }
    }

    /// Answers with status 2xx.
    pub fn answered(&self) -> u64 {
        self.latency.len()
    }

    fn add(&mut self, other: &Self) {
        self.latency.add(&other.latency).expect("histograms that resize can always be added");
        self.lag.add(&other.lag).expect("histograms that resize can always be added");
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        for (kind, count) in &other.broken {
            *self.broken.entry(kind).or_default() += count;
        }
        self.bytes += other.bytes;
        self.sent += other.sent;
        self.elapsed = self.elapsed.max(other.elapsed);
    }
}

/// Runs the load and blocks until it is done.
pub fn run(plan: &Plan) -> std::io::Result<Measured> {
    let start = Instant::now();
    let cpu = cpu_time();
    let left = Arc::new(AtomicU64::new(plan.requests.unwrap_or(u64::MAX)));
    let threads: Vec<_> = (0..plan.threads)
        .map(|index| {
            let (plan, left) = (plan.clone(), Arc::clone(&left));
            std::thread::Builder::new()
                .name(format!("load-{index}"))
                .spawn(move || run_thread(plan, index, start, left))
        })
        .collect::<Result<_, _>>()?;
    let mut total = Measured::new();
    for thread in threads {
        let measured = thread.join().map_err(|_| std::io::Error::other("a thread panicked"))?;
        total.add(&measured?);
    }
    total.cpu = cpu_time().saturating_sub(cpu);
    Ok(total)
}

#[cfg(unix)]
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(not(unix))]
fn cpu_time() -> Duration {
    Duration::ZERO
}

/// What the tasks of one thread share.
struct Shared {
    plan: Plan,
    record_from: Instant,
    end: Option<Instant>,
    left: Arc<AtomicU64>,
    measured: RefCell<Measured>,
    last_answer: Cell<Instant>,
    /// Intended times that no connection has taken yet (open loop).
    due: RefCell<VecDeque<Instant>>,
    /// Wakes connections that wait for `due`.
    more: Notify,
    done: Cell<bool>,
}

fn run_thread(
    mut plan: Plan,
    index: usize,
    start: Instant,
    left: Arc<AtomicU64>,
) -> std::io::Result<Measured> {
    let of = plan.threads;
    plan.connections = (plan.connections + of - 1 - index) / of;
    plan.rate = plan.rate.map(|rate| rate / of as f64);
    plan.seed = plan.seed.wrapping_add(index as u64);
    let record_from = start + plan.warmup;
    let shared = Rc::new(Shared {
        record_from,
        end: plan.duration.map(|duration| record_from + duration),
        plan,
        left,
        measured: RefCell::new(Measured::new()),
        last_answer: Cell::new(record_from),
        due: RefCell::default(),
        more: Notify::new(),
        done: Cell::new(false),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, shared.clone().load(start))?;
    let mut measured = shared.measured.borrow().clone();
    let end = match shared.end {
        Some(end) if shared.plan.requests.is_none() => shared.last_answer.get().max(end),
        _ => shared.last_answer.get(),
    };
    measured.elapsed = end - record_from;
    Ok(measured)
}

impl Shared {
    async fn load(self: Rc<Self>, start: Instant) -> std::io::Result<()> {
        let mut connections = tokio::task::JoinSet::new();
        for _ in 0..self.plan.connections {
            match self.plan.rate {
                None => connections.spawn_local(self.clone().closed_loop()),
                Some(_) => connections.spawn_local(self.clone().open_loop()),
            };
        }
        let all_answered = async { while connections.join_next().await.is_some() {} };
        if let Some(rate) = self.plan.rate {
            // What was sent within time is waited for: leaving it out would hide the slowest.
            self.pace(Poisson::new(rate, start, self.plan.seed)).await?;
            all_answered.await;
        } else if let Some(end) = self.end {
            let _ = tokio::time::timeout_at(end.into(), all_answered).await;
        } else {
            all_answered.await;
        }
        Ok(())
    }

    /// Whether one more request may be sent that is meant for this moment.
    fn may_send(&self, intended: Instant) -> bool {
        if self.end.is_some_and(|end| intended >= end) {
            return false;
        }
        if self.plan.requests.is_none() || intended < self.record_from {
            return true;
        }
        let take = |left: u64| left.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    async fn closed_loop(self: Rc<Self>) {
        let mut connection = None;
        loop {
            let intended = Instant::now();
            if !self.may_send(intended) {
                return;
            }
            self.send(&mut connection, intended).await;
        }
    }

    /// Hands intended times to the connections as they come due.
    async fn pace(&self, times: Poisson) -> std::io::Result<()> {
        let timer = Timer::new()?;
        for time in times {
            if !self.may_send(time) {
                break;
            }
            timer.wait_until(time).await?;
            self.due.borrow_mut().push_back(time);
            self.more.notify_one();
            if self.due.borrow().len().is_multiple_of(64) {
                // Behind schedule, the timer never waits: the connections need their turn.
                tokio::task::yield_now().await;
            }
        }
        self.done.set(true);
        self.more.notify_waiters();
        Ok(())
    }

    async fn open_loop(self: Rc<Self>) {
        let mut connection = None;
        loop {
            let next = self.due.borrow_mut().pop_front();
            match next {
                Some(intended) => self.send(&mut connection, intended).await,
                None if self.done.get() => return,
                None => self.more.notified().await,
            }
        }
    }

    /// Sends one request, connecting first if need be, and records what came of it.
    async fn send(&self, connection: &mut Option<Connection>, intended: Instant) {
        let timeout = self.plan.timeout;
        let sent = Cell::new(None);
        let exchange = async {
            if !connection.as_ref().is_some_and(Connection::is_open) {
                *connection = Some(Connection::open(&self.plan.endpoint).await?);
            }
            let connection = connection.as_mut().expect("it was just made");
            sent.set(Some(Instant::now()));
            connection.exchange(&self.plan.request).await
        };
        let result = match tokio::time::timeout(timeout, exchange).await {
            Ok(result) => result,
            Err(_) => Err(Broken::TimedOut(timeout)),
        };
        let now = Instant::now();
        self.measured.borrow_mut().sent += 1;
        if result.is_err() {
            *connection = None;
        }
        if intended >= self.record_from {
            self.record(intended, sent.get(), now, &result);
        }
        if let Err(Broken::Connect(_)) = result {
            // A server that is not there is not asked a million times a second.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn record(
        &self,
        intended: Instant,
        sent: Option<Instant>,
        now: Instant,
        result: &Result<(u16, usize), Broken>,
    ) {
        let mut measured = self.measured.borrow_mut();
        self.last_answer.set(now);
        if let Some(sent) = sent {
            measured.lag.record(nanos(sent - intended)).expect("histograms resize");
        }
        match result {
            Ok((status, size)) => {
                *measured.statuses.entry(*status).or_default() += 1;
                measured.bytes += *size as u64;
                if (200..300).contains(status) {
                    measured.latency.record(nanos(now - intended)).expect("histograms resize");
                }
            }
            Err(broken) => *measured.broken.entry(broken.kind()).or_default() += 1,
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
