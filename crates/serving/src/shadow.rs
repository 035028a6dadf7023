//! Copies of callers' requests, run on versions whose answers nobody sees.
//!
//! A caller leaves its copy behind once it has its answer. Doing so never waits: not for a lock, not
//! for room, and as a rule not even for the system to wake a thread.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use model::{Observation, Outcome, Shadow, Tensor};

use crate::Error;
use crate::observe::Observations;
use crate::reply::{Count, ModelInfo};
use crate::validate::validate;
use crate::version::Version;
use crate::worker::{Answer, execute};

/// The most copies that wait for one version, and the most bytes in their inputs.
const MAX_WAITING: usize = 256;
const MAX_BYTES: usize = 64 << 20;

/// While there is traffic, a thread without work looks again after this time, so that nobody has to
/// wake it: waking it would cost the caller more than a small model's run.
const NAP: Duration = Duration::from_millis(1);
/// There is traffic while the last copy came less than this time ago.
const AWAKE: Duration = Duration::from_secs(1);
/// A thread ends when no copy has come for this time.
const IDLE: Duration = Duration::from_secs(10);

/// How many callers wait because every slot of their version is taken; counted for a whole server.
#[derive(Debug, Default)]
pub(crate) struct Pressure(AtomicUsize);

/// A caller that waits.
#[derive(Debug)]
pub(crate) struct Pressed(Arc<Pressure>);

impl Pressure {
    pub(crate) fn add(self: &Arc<Self>) -> Pressed {
        self.0.fetch_add(1, Ordering::Relaxed);
        Pressed(Arc::clone(self))
    }

    fn is_felt(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Pressed {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that was answered, and the answer.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    /// The version that answered.
    pub(crate) info: Arc<ModelInfo>,
    pub(crate) id: Option<Arc<str>>,
    pub(crate) key: Option<Arc<str>>,
    /// When it was received.
    pub(crate) at: SystemTime,
    /// In the order of that version's signature.
    pub(crate) inputs: Arc<[Option<Tensor>]>,
    /// Empty if it failed.
    pub(crate) outputs: Arc<[Tensor]>,
}

/// The copies for one version.
#[derive(Debug, Default)]
pub(crate) struct Shadows {
    state: Mutex<State>,
    /// Told when a sleeping thread has work, or when all have to end.
    work: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    threads: usize,
    asleep: usize,
    running: usize,
    closed: bool,
    run: Count,
    failed: u64,
}

#[derive(Debug)]
struct Waiting {
    answered: Answered,
    bytes: usize,
    since: Instant,
}

/// What became of a version's copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShadowCount {
    /// Those that ran, and the time they took.
    pub run: Count,
    /// Those of them that failed.
    pub failed: u64,
    /// Those that did not run because callers waited or too many copies did.
    pub dropped: u64,
}

impl Shadows {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Forgets what waits and lets the threads end; one that is in the middle of a run is not
    /// waited for.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.dropped.fetch_add(state.waiting.len() as u64, Ordering::Relaxed);
        state.waiting.clear();
        self.work.notify_all();
    }

    /// Whether nothing is running.
    pub(crate) fn is_quiet(&self) -> bool {
        self.lock().running == 0
    }

    pub(crate) fn count(&self) -> ShadowCount {
        let state = self.lock();
        let dropped = self.dropped.load(Ordering::Relaxed);
        ShadowCount { run: state.run, failed: state.failed, dropped }
    }

    /// Starts out from earlier counts.
    pub(crate) fn resume(&self, count: ShadowCount) {
        let mut state = self.lock();
        (state.run, state.failed) = (count.run, count.failed);
        self.dropped.store(count.dropped, Ordering::Relaxed);
    }

    /// The next copy; `None` when the thread has to end.
    fn next(&self) -> Option<Waiting> {
        let mut state = self.lock();
        let since = Instant::now();
        loop {
            let idle = since.elapsed();
            if state.closed || (state.waiting.is_empty() && idle >= IDLE) {
                state.threads -= 1;
                return None;
            }
            if let Some(waiting) = state.waiting.pop_front() {
                state.bytes -= waiting.bytes;
                state.running += 1;
                return Some(waiting);
            }
            let is_asleep = idle >= AWAKE;
            state.asleep += usize::from(is_asleep);
            let time = if is_asleep { IDLE - idle } else { NAP };
            let woken = self.work.wait_timeout(state, time);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
            state.asleep -= usize::from(is_asleep);
        }
    }
}

impl Version {
    /// Takes a copy, or drops it: if any caller waits, if too many copies do, or if looking would
    /// take time.
    pub(crate) fn shadow(self: &Arc<Self>, answered: &Answered) {
        let shadows = &self.shadows;
        let Ok(mut state) = shadows.state.try_lock() else { return shadows.drop_one() };
        let bytes = answered.inputs.iter().flatten().map(Tensor::bytes).sum();
        let is_full = state.waiting.len() >= MAX_WAITING
            || (!state.waiting.is_empty() && state.bytes + bytes > MAX_BYTES);
        if state.closed || is_full || self.common.pressure.is_felt() {
            return shadows.drop_one();
        }
        let most = self.slots();
        // A second thread helps once the first does not keep up.
        if state.threads == 0 || (state.threads < most && state.waiting.len() >= 4 * state.threads)
        {
            let version = Arc::clone(self);
            let thread = std::thread::Builder::new().name("shadow".into());
            if thread.spawn(move || version.run_shadows()).is_ok() {
                state.threads += 1;
            }
            if state.threads == 0 {
                return shadows.drop_one();
            }
        }
        let answered = answered.clone();
        state.bytes += bytes;
        state.waiting.push_back(Waiting { answered, bytes, since: Instant::now() });
        if state.asleep > 0 {
            shadows.work.notify_one();
        }
    }

    fn run_shadows(&self) {
        runtime::yield_to_others();
        while let Some(waiting) = self.shadows.next() {
            let outcome = if self.common.pressure.is_felt() {
                self.shadows.drop_one();
                None
            } else {
                Some(self.run_shadow(&waiting.answered, waiting.since))
            };
            let mut state = self.shadows.lock();
            state.running -= 1;
            if let Some((outcome, time)) = &outcome {
                state.run.count += 1;
                state.run.time += *time;
                state.failed += u64::from(outcome.is_err());
            }
            drop(state);
            if let (Some((outcome, time)), Some(observations)) =
                (outcome, &self.common.observations)
            {
                self.observe_shadow(observations, waiting.answered, (outcome, time));
            }
        }
    }

    /// The outcome, and the time it took.
    fn run_shadow(&self, of: &Answered, since: Instant) -> (Result<Answer, Error>, Duration) {
        let started = Instant::now();
        let names = of.info.signature.inputs.iter().map(|spec| spec.name.to_string());
        let inputs = names.zip(of.inputs.iter().cloned());
        let inputs = inputs.filter_map(|(name, tensor)| Some((name, tensor?))).collect();
        // The two versions need not take the same inputs.
        let outcome = validate(&self.info.signature, inputs, &[]).and_then(|request| {
            let executed = execute(&self.loaded, &[&request], self.most_rows());
            let mut outcomes = executed.outcomes;
            let answer = outcomes.pop().expect("one request has one outcome")?;
            Ok(Answer { queue: started - since, ..answer })
        });
        (outcome, started.elapsed())
    }

    fn observe_shadow(
        &self,
        observations: &Observations,
        of: Answered,
        (outcome, time): (Result<Answer, Error>, Duration),
    ) {
        if !observations.are_of(&self.info.name) {
            return;
        }
        let answer = outcome.as_ref().ok();
        observations.send(Observation {
            model: self.info.name.clone(),
            version: self.info.version.clone(),
            signature: self.info.signature.clone(),
            id: of.id,
            key: of.key,
            at: of.at,
            queue: answer.map_or(Duration::ZERO, |answer| answer.queue),
            compute: answer.map_or(time, |answer| answer.compute),
            batch_size: answer.map_or(0, |answer| answer.batch_size),
            outcome: match &outcome {
                Ok(_) => Outcome::Answered,
                Err(error) => Outcome::Failed(error.code()),
            },
            inputs: of.inputs,
            outputs: answer.map(|answer| answer.outputs.as_slice().into()).unwrap_or_default(),
            shadow: Some(Shadow { version: of.info.version.clone(), outputs: of.outputs }),
        });
    }
}
