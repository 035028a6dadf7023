//! One loaded version: its slots, its queue and its counters.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use model::ErrorCode;
use runtime::Loaded;
use tokio::sync::oneshot;

use crate::Error;
use crate::cost::Cost;
use crate::queue::{DEFAULT_PRIORITY, Queue, Waiting};
use crate::reply::{BatchStatistics, Count, ModelInfo, Slo, Statistics};
use crate::validate::ValidRequest;
use crate::worker::{Answer, Executed, Run, execute};

/// A run expected to be shorter than this happens on the caller's own thread when a slot is free:
/// waking another thread costs about 10 µs of CPU on each side, more than a small model's run.
const INLINE: Duration = Duration::from_micros(100);

/// What every version of a server has in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admission {
    pub(crate) slo: Option<Slo>,
    pub(crate) max_queue: usize,
}

/// A version that answers requests.
pub(crate) struct Version {
    pub(crate) info: Arc<ModelInfo>,
    loaded: Loaded,
    slots: usize,
    admission: Admission,
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
}

/// A slot that is being used. The expected end tells slots apart well enough: of two that are
/// expected to end together, either may be given back for the other.
struct Slot {
    started: Instant,
    end: Instant,
}

#[derive(Default)]
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
        warm_up: &[Run],
        admission: Admission,
    ) -> Self {
        let mut cost = Cost::default();
        for run in warm_up {
            cost.record(run.rows, run.time);
        }
        let slots = info.settings.instances.unwrap_or(1).max(1);
        let state = State {
            queue: Queue::default(),
            cost,
            ends: Vec::with_capacity(slots),
            closing: false,
            counters: Counters::default(),
        };
        Self {
            info,
            loaded,
            slots,
            admission,
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
    fn most_rows(&self) -> usize {
        self.info.max_batch_size.max(1)
    }

    /// Answers one request: at once on this thread if it is short and a slot is free, otherwise
    /// through the queue.
    pub(crate) async fn answer(
        &self,
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
                let (reply, receiver) = oneshot::channel();
                state.queue.push(
                    priority,
                    Waiting { request: request.clone(), admitted, deadline, reply },
                );
                if state.ends.len() < self.slots {
                    self.work.notify_one();
                }
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
            return Err(Error::new(
                ErrorCode::DeadlineExceeded,
                "the request's time is already up",
            ));
        }
        let full = state.queue.requests() >= self.admission.max_queue;
        if !full && self.admission.slo.is_none() && deadline.is_none() {
            return Ok(());
        }
        let wait = self.expected_wait(state, priority, now);
        let total = wait + state.cost.cautious(request.rows()).unwrap_or_default();
        let refuse = |state: &mut State, code, message: String| {
            state.counters.refused += 1;
            Err(Error::new(code, message).retry_after(wait.max(Duration::from_millis(1))))
        };
        if full {
            let waiting = state.queue.requests();
            return refuse(
                state,
                ErrorCode::ResourceExhausted,
                format!(
                    "{waiting} requests are waiting already, which is the limit; try again later"
                ),
            );
        }
        if let Some(slo) = self.admission.slo
            && total > slo.time
            && !(state.ends.is_empty() && state.queue.requests() == 0)
        {
            return refuse(
                state,
                ErrorCode::ResourceExhausted,
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
                ErrorCode::DeadlineExceeded,
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
        &self,
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
            self.work.notify_one();
        }
        if state.closing {
            self.quiet.notify_all();
        }
        executed.outcomes
    }

    /// What an instance's thread does until the version is closed and its queue is empty.
    pub(crate) fn work(&self) {
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
                self.quiet.notify_all();
                return None;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The most rows whose batch takes at most half of what is promised, so that as much is left
    /// for waiting.
    fn rows_within_slo(&self, state: &State) -> usize {
        let most = self.most_rows();
        let Some(slo) = self.admission.slo else { return most };
        let fits = |rows: usize| state.cost.cautious(rows).is_none_or(|time| time <= slo.time / 2);
        let mut rows = most;
        while rows > 1 && !fits(rows) {
            rows = rows.div_ceil(2);
        }
        rows
    }

    /// Takes no further requests and waits until the admitted ones are answered.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closing = true;
        self.work.notify_all();
        while state.queue.requests() > 0 || !state.ends.is_empty() {
            state = self.quiet.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether nothing is running or waiting.
    pub(crate) fn is_quiet(&self) -> bool {
        let state = self.lock();
        state.queue.requests() == 0 && state.ends.is_empty()
    }

    /// Instances whose threads have to be started.
    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    /// The counters as they stand.
    pub(crate) fn statistics(&self) -> Statistics {
        let state = self.lock();
        let counters = &state.counters;
        let batch = |(batch_size, compute): (&u64, &Count)| BatchStatistics {
            batch_size: *batch_size,
            compute: *compute,
        };
        Statistics {
            name: self.info.name.clone(),
            version: self.info.version.clone(),
            last_inference: counters.last_inference,
            inference_count: counters.inference_count,
            execution_count: counters.execution_count,
            success: counters.success,
            fail: counters.fail,
            queue: counters.queue,
            compute: counters.compute,
            refused: counters.refused,
            waiting: state.queue.wanted(Instant::now()),
            batches: counters.batches.iter().map(batch).collect(),
        }
    }
}
