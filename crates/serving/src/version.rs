//! One loaded version: its slots, its queue and its counters.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use model::ErrorCode;
use runtime::Loaded;
use tokio::sync::oneshot;

use crate::Error;
use crate::cost::Cost;
use crate::meter::{Meter, Meters, Reason};
use crate::observe::Observations;
use crate::queue::{DEFAULT_PRIORITY, Queue, Waiting};
use crate::reply::{BatchStatistics, Count, ModelInfo, Slo, Statistics};
use crate::shadow::{Pressure, ShadowCount, Shadows};
use crate::validate::ValidRequest;
use crate::worker::{Answer, Executed, execute};

/// A run expected to be shorter than this happens on the caller's own thread when a slot is free:
/// waking another thread costs about 10 µs of CPU on each side, more than a small model's run.
const INLINE: Duration = Duration::from_micros(100);

/// A worker that has had nothing to do for this long ends; the next request that needs one starts
/// it again. A thousand models need no thread each.
const IDLE: Duration = Duration::from_secs(10);

/// What every version of a server has in common.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) slo: Option<Slo>,
    pub(crate) max_queue: usize,
    pub(crate) observations: Option<Observations>,
    pub(crate) pressure: Arc<Pressure>,
    pub(crate) meters: Meters,
}

/// A version that answers requests.
pub(crate) struct Version {
    pub(crate) info: Arc<ModelInfo>,
    pub(crate) loaded: Loaded,
    pub(crate) meter: Arc<Meter>,
    slots: usize,
    pub(crate) common: Arc<Common>,
    pub(crate) shadows: Shadows,
    state: Mutex<State>,
    /// Told when there may be a batch to take, or when the version is being closed.
    work: Condvar,
    /// Told when a slot has become free while the version is being closed.
    quiet: Condvar,
}

struct State {
    queue: Queue,
    cost: Cost,
    /// When each running batch is expected to be done; its length is the number of busy slots.
    ends: Vec<Instant>,
    closing: bool,
    counters: Counters,
    workers: Workers,
}

/// The threads that take from the queue: at most one for each slot, started when there is work.
#[derive(Default)]
struct Workers {
    threads: Vec<JoinHandle<()>>,
    /// How many have not ended.
    alive: usize,
    /// How many of them wait for work.
    idle: usize,
    /// How many of the idle ones have been told that there is some.
    told: usize,
}

/// What a version has learned and counted, for when it is loaded again.
#[derive(Clone, Default)]
pub(crate) struct Past {
    pub(crate) cost: Cost,
    counters: Counters,
    pub(crate) shadows: ShadowCount,
}

/// A slot that is being used. The expected end tells slots apart well enough: of two that are
/// expected to end together, either may be given back for the other.
struct Slot {
    started: Instant,
    end: Instant,
}

#[derive(Clone, Default)]
struct Counters {
    last_inference: Option<SystemTime>,
    inference_count: u64,
    execution_count: u64,
    success: Count,
    fail: Count,
    queue: Count,
    compute: Count,
    refused: u64,
    batches: BTreeMap<u64, Count>,
}

/// Why a request was not taken.
pub(crate) enum Refusal {
    /// The version is being unloaded; another may have taken its place.
    Closing(ValidRequest),
    /// It would have to wait too long, or it failed.
    Error(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

fn add(count: &mut Count, time: Duration) {
    count.count += 1;
    count.time += time;
}

impl Version {
    pub(crate) fn new(
        info: Arc<ModelInfo>,
        loaded: Loaded,
        past: Past,
        common: Arc<Common>,
    ) -> Self {
        let meter = common.meters.of(&info.name, &info.version);
        let shadows = Shadows::default();
        shadows.resume(past.shadows);
        let slots = info.settings.instances.unwrap_or(1).max(1);
        let state = State {
            queue: Queue::default(),
            cost: past.cost,
            ends: Vec::with_capacity(slots),
            closing: false,
            counters: past.counters,
            workers: Workers::default(),
        };
        Self {
            info,
            loaded,
            meter,
            slots,
            common,
            shadows,
            state: Mutex::new(state),
            work: Condvar::new(),
            quiet: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; if it did, the counters would still be counters.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most rows that may run together.
    pub(crate) fn most_rows(&self) -> usize {
        self.info.max_batch_size.max(1)
    }

    /// Answers one request: at once on this thread if it is short and a slot is free, otherwise
    /// through the queue.
    pub(crate) async fn answer(
        self: &Arc<Self>,
        request: ValidRequest,
        priority: u32,
        deadline: Option<Instant>,
    ) -> Result<Answer, Refusal> {
        let admitted = Instant::now();
        let priority = if priority == 0 { DEFAULT_PRIORITY } else { priority };
        let receiver = {
            let mut state = self.lock();
            if state.closing {
                return Err(Refusal::Closing(request));
            }
            self.admit(&mut state, &request, priority, admitted, deadline)?;
            if self.is_short(&state, request.rows()) {
                Err(self.start(&mut state, request.rows(), admitted))
            } else {
                self.start_worker(&mut state)?;
                let (reply, receiver) = oneshot::channel();
                let must_wait = state.ends.len() >= self.slots || state.queue.requests() > 0;
                let pressed = must_wait.then(|| self.common.pressure.add());
                let request = request.clone();
                let waiting = Waiting { request, admitted, deadline, reply, pressed };
                state.queue.push(priority, waiting);
                self.tell_worker(&mut state);
                Ok(receiver)
            }
        };
        let receiver = match receiver {
            Ok(receiver) => receiver,
            Err(slot) => {
                let executed = execute(&self.loaded, &[&request], self.most_rows());
                let mut outcomes = self.finish(executed, &[admitted], slot);
                let outcome = outcomes.pop().expect("one request has one outcome");
                return outcome.map_err(Refusal::Error);
            }
        };
        // Only the queue keeps the inputs while the request waits.
        drop(request);
        self.wait(receiver, deadline).await.map_err(Refusal::Error)
    }

    /// Starts a worker if all there are have something to do and a slot is left for another.
    ///
    /// # Errors
    /// If there is none at all and none can be started.
    fn start_worker(self: &Arc<Self>, state: &mut State) -> Result<(), Error> {
        let workers = &mut state.workers;
        let has_slot = state.ends.len() < self.slots || workers.alive == 0;
        if !has_slot || workers.idle > workers.told || workers.alive >= self.slots {
            return Ok(());
        }
        workers.threads.retain(|thread| !thread.is_finished());
        let version = Arc::clone(self);
        let thread = std::thread::Builder::new().name(self.info.name.to_string());
        match thread.spawn(move || version.work()) {
            Ok(thread) => {
                workers.threads.push(thread);
                workers.alive += 1;
                Ok(())
            }
            Err(_) if workers.alive > 0 => Ok(()),
            Err(error) => {
                let message = format!("cannot start a thread for an instance: {error}");
                Err(Error::new(ErrorCode::Unavailable, message).retry_after(Duration::from_secs(1)))
            }
        }
    }

    /// Wakes a worker for what waits, if there is a slot for it.
    fn tell_worker(&self, state: &mut State) {
        let workers = &mut state.workers;
        if state.ends.len() < self.slots && workers.idle > workers.told {
            workers.told += 1;
            self.work.notify_one();
        }
    }

    async fn wait(
        &self,
        receiver: oneshot::Receiver<Result<Answer, Error>>,
        deadline: Option<Instant>,
    ) -> Result<Answer, Error> {
        let received = match deadline {
            None => receiver.await.ok(),
            Some(deadline) => {
                tokio::time::timeout_at(deadline.into(), receiver).await.ok().and_then(Result::ok)
            }
        };
        received.unwrap_or_else(|| {
            let mut state = self.lock();
            add(&mut state.counters.fail, Duration::ZERO);
            Err(Error::new(
                ErrorCode::DeadlineExceeded,
                "the request's time was up before its turn came",
            ))
        })
    }

    /// Refuses what would have to wait too long, before any work is done for it.
    fn admit(
        &self,
        state: &mut State,
        request: &ValidRequest,
        priority: u32,
        now: Instant,
        deadline: Option<Instant>,
    ) -> Result<(), Error> {
        if deadline.is_some_and(|deadline| deadline <= now) {
            state.counters.refused += 1;
            self.meter.reject(Reason::Deadline);
            return Err(Error::new(
                ErrorCode::DeadlineExceeded,
                "the request's time is already up",
            ));
        }
        let full = state.queue.requests() >= self.common.max_queue;
        if !full && self.common.slo.is_none() && deadline.is_none() {
            return Ok(());
        }
        let wait = self.expected_wait(state, priority, now);
        let total = wait + state.cost.cautious(request.rows()).unwrap_or_default();
        let refuse = |state: &mut State, reason, message: String| {
            state.counters.refused += 1;
            self.meter.reject(reason);
            let code = match reason {
                Reason::Deadline => ErrorCode::DeadlineExceeded,
                Reason::QueueFull | Reason::Slo => ErrorCode::ResourceExhausted,
            };
            Err(Error::new(code, message).retry_after(wait.max(Duration::from_millis(1))))
        };
        if full {
            let waiting = state.queue.requests();
            return refuse(
                state,
                Reason::QueueFull,
                format!(
                    "{waiting} requests are waiting already, which is the limit; try again later"
                ),
            );
        }
        if let Some(slo) = self.common.slo
            && total > slo.time
            && !(state.ends.is_empty() && state.queue.requests() == 0)
        {
            return refuse(
                state,
                Reason::Slo,
                format!(
                    "the answer would take about {:.1} ms, longer than the {:.1} ms that are promised; \
                     try again later",
                    total.as_secs_f64() * 1e3,
                    slo.time.as_secs_f64() * 1e3
                ),
            );
        }
        if deadline.is_some_and(|deadline| now + wait > deadline) {
            return refuse(
                state,
                Reason::Deadline,
                format!(
                    "the request's time would be up before its turn comes in about {:.1} ms",
                    wait.as_secs_f64() * 1e3
                ),
            );
        }
        Ok(())
    }

    /// How long a request that arrives now would wait for its turn.
    fn expected_wait(&self, state: &State, priority: u32, now: Instant) -> Duration {
        let rows = state.queue.rows_before(priority);
        if rows == 0 && state.ends.len() < self.slots {
            return Duration::ZERO;
        }
        let batch = state.cost.preferred(self.rows_within_slo(state)).max(1);
        let batch_time = state.cost.expected(batch).unwrap_or_default();
        let ahead = batch_time.as_secs_f64() * rows as f64 / (batch * self.slots) as f64;
        let busy: Duration = state.ends.iter().map(|end| end.saturating_duration_since(now)).sum();
        // On average over the slots: whichever is free first takes the next batch.
        Duration::from_secs_f64(ahead) + busy / self.slots as u32
    }

    fn is_short(&self, state: &State, rows: usize) -> bool {
        state.ends.len() < self.slots
            && state.queue.requests() == 0
            && state.cost.expected(rows).is_some_and(|time| time <= INLINE)
    }

    /// Takes a slot.
    fn start(&self, state: &mut State, rows: usize, now: Instant) -> Slot {
        let end = now + state.cost.expected(rows).unwrap_or_default();
        state.ends.push(end);
        Slot { started: now, end }
    }

    /// Gives the slot back, learns from the runs, counts the outcomes, and fills in the queue times.
    fn finish(
        self: &Arc<Self>,
        mut executed: Executed,
        admitted: &[Instant],
        slot: Slot,
    ) -> Vec<Result<Answer, Error>> {
        let now = Instant::now();
        let mut state = self.lock();
        let busy = state.ends.iter().position(|end| *end == slot.end).expect("the slot is taken");
        state.ends.swap_remove(busy);
        for run in &executed.runs {
            state.cost.record(run.rows, run.time);
            let counters = &mut state.counters;
            counters.execution_count += 1;
            counters.inference_count += run.rows as u64;
            add(counters.batches.entry(run.rows as u64).or_default(), run.time);
        }
        let counters = &mut state.counters;
        counters.last_inference = Some(SystemTime::now());
        for (outcome, admitted) in executed.outcomes.iter_mut().zip(admitted) {
            let total = now - *admitted;
            match outcome {
                Ok(answer) => {
                    answer.queue = slot.started - *admitted;
                    add(&mut counters.success, total);
                    add(&mut counters.queue, answer.queue);
                    add(&mut counters.compute, answer.compute);
                }
                Err(_) => add(&mut counters.fail, total),
            }
        }
        if state.queue.requests() > 0 {
            // Those who wait have a worker already; that another cannot be started hurts no one.
            let _ = self.start_worker(&mut state);
            self.tell_worker(&mut state);
        }
        if state.closing {
            self.quiet.notify_all();
        }
        drop(state);
        executed.runs.iter().for_each(|run| self.meter.ran(run));
        for answer in executed.outcomes.iter().flatten() {
            self.meter.waited(answer.queue);
        }
        executed.outcomes
    }

    /// What a worker does until there has been nothing to do for a while, or the version is closed
    /// and its queue empty.
    fn work(self: &Arc<Self>) {
        while let Some((batch, slot)) = self.next_batch() {
            let requests: Vec<&ValidRequest> =
                batch.iter().map(|waiting| &waiting.request).collect();
            let executed = execute(&self.loaded, &requests, self.most_rows());
            let admitted: Vec<Instant> = batch.iter().map(|waiting| waiting.admitted).collect();
            let outcomes = self.finish(executed, &admitted, slot);
            for (waiting, outcome) in batch.into_iter().zip(outcomes) {
                // A caller that has gone does not want it.
                let _ = waiting.reply.send(outcome);
            }
        }
    }

    fn next_batch(&self) -> Option<(Vec<Waiting>, Slot)> {
        let mut state = self.lock();
        loop {
            if state.ends.len() < self.slots {
                let now = Instant::now();
                let most = state.cost.preferred(self.rows_within_slo(&state));
                if let Some(batch) = state.queue.take_batch(now, most.max(1)) {
                    let rows = batch.iter().map(|waiting| waiting.request.rows()).sum();
                    let slot = self.start(&mut state, rows, now);
                    return Some((batch, slot));
                }
            }
            if state.closing && state.queue.requests() == 0 {
                state.workers.alive -= 1;
                self.quiet.notify_all();
                return None;
            }
            state.workers.idle += 1;
            let woken = self.work.wait_timeout(state, IDLE);
            let (guard, waited) = woken.unwrap_or_else(PoisonError::into_inner);
            state = guard;
            let workers = &mut state.workers;
            workers.idle -= 1;
            workers.told = workers.told.saturating_sub(usize::from(!waited.timed_out()));
            workers.told = workers.told.min(workers.idle);
            if waited.timed_out() && state.queue.requests() == 0 && !state.closing {
                state.workers.alive -= 1;
                return None;
            }
        }
    }

    /// The most rows whose batch takes at most half of what is promised, so that as much is left
    /// for waiting.
    fn rows_within_slo(&self, state: &State) -> usize {
        let most = self.most_rows();
        let Some(slo) = self.common.slo else { return most };
        let fits = |rows: usize| state.cost.cautious(rows).is_none_or(|time| time <= slo.time / 2);
        let mut rows = most;
        while rows > 1 && !fits(rows) {
            rows = rows.div_ceil(2);
        }
        rows
    }

    /// Takes no further requests, waits until the admitted ones are answered and the workers have
    /// ended, and returns what was learned. Must not be called by a worker.
    pub(crate) fn close(&self) -> Past {
        self.shadows.close();
        let mut state = self.lock();
        state.closing = true;
        self.work.notify_all();
        while state.queue.requests() > 0 || !state.ends.is_empty() {
            state = self.quiet.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let threads = std::mem::take(&mut state.workers.threads);
        drop(state);
        for thread in threads {
            // A worker that panicked has ended as well.
            let _ = thread.join();
        }
        let state = self.lock();
        let (cost, counters) = (state.cost.clone(), state.counters.clone());
        Past { cost, counters, shadows: self.shadows.count() }
    }

    /// Whether no caller's request is running or waiting.
    pub(crate) fn is_quiet(&self) -> bool {
        let state = self.lock();
        state.queue.requests() == 0 && state.ends.is_empty()
    }

    /// How many runs may happen side by side.
    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    /// Requests that wait, and slots that are taken.
    pub(crate) fn load(&self) -> (usize, usize) {
        let state = self.lock();
        (state.queue.wanted(Instant::now()), state.ends.len())
    }

    /// The counters as they stand.
    pub(crate) fn statistics(&self) -> Statistics {
        let state = self.lock();
        let mut statistics = state.counters.statistics(&self.info);
        statistics.memory = self.info.memory;
        statistics.waiting = state.queue.wanted(Instant::now());
        statistics.shadows = self.shadows.count();
        statistics
    }
}

impl Past {
    /// The counters of a version that is not loaded at the moment.
    pub(crate) fn statistics(&self, info: &ModelInfo) -> Statistics {
        Statistics { shadows: self.shadows, ..self.counters.statistics(info) }
    }
}

impl Counters {
    fn statistics(&self, info: &ModelInfo) -> Statistics {
        let batch = |(batch_size, compute): (&u64, &Count)| BatchStatistics {
            batch_size: *batch_size,
            compute: *compute,
        };
        Statistics {
            name: info.name.clone(),
            version: info.version.clone(),
            last_inference: self.last_inference,
            inference_count: self.inference_count,
            execution_count: self.execution_count,
            success: self.success,
            fail: self.fail,
            queue: self.queue,
            compute: self.compute,
            refused: self.refused,
            waiting: 0,
            batches: self.batches.iter().map(batch).collect(),
            shadows: ShadowCount::default(),
            memory: 0,
        }
    }
}
