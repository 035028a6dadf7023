//! Who looks at predictions: one thread takes the observations and shows each to every watcher.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use model::Observation;
use serving::{Observations, Seen, Watched};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::watch;

/// How long observations are left to gather: a caller that had to wake this thread for each of
/// them would pay more for that than for its answer.
const NAP: Duration = Duration::from_millis(20);

/// After so many naps without an observation the thread sleeps until there is one.
const QUIET: u32 = 50;

/// Observations that are shown in one go, at most.
const AT_ONCE: usize = 8192;

/// Who looks at predictions.
///
/// It is shown all that anybody watches, so it skips what it does not care for. It is called on a
/// thread that all share: it must not wait for anything, nor grow without bound.
pub trait Watcher: Send {
    /// Looks at one.
    fn observe(&mut self, observation: &Observation);
}

impl Watcher for rollout::Counting {
    fn observe(&mut self, observation: &Observation) {
        rollout::Counting::observe(self, observation);
    }
}

/// The watchers of a server. Cheap to clone.
#[derive(Clone)]
pub struct Watching {
    observations: Observations,
    watchers: Arc<Mutex<Watchers>>,
    wanted: Arc<Mutex<BTreeMap<&'static str, Watched>>>,
    ending: Arc<watch::Sender<bool>>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

type Watchers = Vec<Box<dyn Watcher>>;

impl Watching {
    /// Shows what is seen to whoever [joins](Self::join), until there is no more of it.
    pub fn start(observations: Observations, seen: Seen) -> std::io::Result<Self> {
        let watchers = Arc::<Mutex<Watchers>>::default();
        let shown = watchers.clone();
        let (ending, ended) = watch::channel(false);
        let waiting = tokio::runtime::Builder::new_current_thread().build()?;
        let thread = std::thread::Builder::new().name("watching".into());
        let thread = thread.spawn(move || {
            runtime::yield_to_others();
            show(seen, &shown, (&waiting, ended));
        })?;
        let (ending, thread) = (Arc::new(ending), Arc::new(Mutex::new(Some(thread))));
        Ok(Self { observations, watchers, wanted: Arc::default(), ending, thread })
    }

    /// From now on this one is shown what is watched.
    pub fn join(&self, watcher: impl Watcher + 'static) {
        lock(&self.watchers).push(Box::new(watcher));
    }

    /// Takes no more, and waits until what was seen until now has been shown.
    pub async fn finish(&self) {
        self.ending.send_replace(true);
        let Some(thread) = lock(&self.thread).take() else { return };
        // One that panicked has nothing more to show.
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }

    /// Says what the watcher of this name wants to see, in place of what it said before.
    pub fn want(&self, name: &'static str, models: Watched) {
        let mut wanted = lock(&self.wanted);
        wanted.insert(name, models);
        let all = wanted.values().fold(Watched::default(), Watched::or);
        self.observations.watch(all);
    }
}

fn show(
    mut seen: Seen,
    watchers: &Mutex<Watchers>,
    (waiting, mut ended): (&Runtime, watch::Receiver<bool>),
) {
    let mut quiet = 0;
    loop {
        let is_last = *ended.borrow();
        if is_last {
            seen.close();
        }
        let first = match seen.try_recv() {
            Ok(observation) => observation,
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) if quiet < QUIET => {
                quiet += 1;
                std::thread::sleep(NAP);
                continue;
            }
            Err(TryRecvError::Empty) => {
                let next = waiting.block_on(async {
                    tokio::select! {
                        next = seen.recv() => Some(next),
                        Ok(_) = ended.wait_for(|ended| *ended) => None,
                    }
                });
                match next {
                    Some(Some(observation)) => observation,
                    Some(None) => return,
                    None => continue,
                }
            }
        };
        quiet = 0;
        let mut watchers = lock(watchers);
        let more = std::iter::from_fn(|| seen.try_recv().ok());
        for observation in std::iter::once(first).chain(more).take(AT_ONCE) {
            watchers.retain_mut(|watcher| shown_to(watcher.as_mut(), &observation));
        }
        drop(watchers);
        if !is_last {
            std::thread::sleep(NAP);
        }
    }
}

/// Whether the watcher is still to be trusted with the next one.
fn shown_to(watcher: &mut dyn Watcher, observation: &Observation) -> bool {
    let looked = catch_unwind(AssertUnwindSafe(|| watcher.observe(observation)));
    if looked.is_err() {
        tracing::error!("one who watches predictions failed, and is shown no more of them");
    }
    looked.is_ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::SystemTime;

    use model::{Outcome, Tensor};

    use super::*;

    struct Counts(Arc<AtomicU64>);

    impl Watcher for Counts {
        fn observe(&mut self, _: &Observation) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    struct Fails;

    impl Watcher for Fails {
        fn observe(&mut self, _: &Observation) {
            panic!("on purpose");
        }
    }

    #[test]
    fn one_that_fails_is_left_out_and_the_others_see_everything() {
        let seen = Arc::new(AtomicU64::new(0));
        let mut watchers: Watchers = vec![Box::new(Fails), Box::new(Counts(seen.clone()))];
        let observation = observation();
        for _ in 0..3 {
            watchers.retain_mut(|watcher| shown_to(watcher.as_mut(), &observation));
        }
        assert_eq!((watchers.len(), seen.load(Ordering::SeqCst)), (1, 3));
    }

    #[test]
    fn what_is_watched_is_what_any_of_them_wants() {
        let (observations, seen) = Observations::new(1);
        let watching = Watching::start(observations, seen).unwrap();
        let wanted = |watching: &Watching| {
            lock(&watching.wanted).values().fold(Watched::default(), Watched::or)
        };
        watching.want("a", ["m"].into_iter().collect());
        watching.want("b", ["n"].into_iter().collect());
        assert_eq!(wanted(&watching), ["m", "n"].into_iter().collect());
        watching.want("b", Watched::All);
        assert_eq!(wanted(&watching), Watched::All);
        watching.want("b", Watched::default());
        assert_eq!(wanted(&watching), ["m"].into_iter().collect());
    }

    fn observation() -> Observation {
        Observation {
            model: "m".into(),
            version: "1".into(),
            signature: Arc::default(),
            id: None,
            key: None,
            at: SystemTime::UNIX_EPOCH,
            queue: Duration::ZERO,
            compute: Duration::ZERO,
            batch_size: 1,
            outcome: Outcome::Answered,
            inputs: Arc::new([]),
            outputs: Arc::new([Tensor::new(vec![1], vec![0.0f32]).unwrap()]),
            shadow: None,
        }
    }
}
