//! The threads that `rten` runs on, shared by all models: a thousand of them need no more threads
//! than the machine has cores.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rten::ThreadPool;

use crate::background::yields;

/// Pools of one kind.
#[derive(Default)]
struct Kind {
    all: Vec<Arc<ThreadPool>>,
    /// Those that no run uses at the moment.
    free: Vec<Arc<ThreadPool>>,
    /// The one that is used next if none is free and there are enough of them.
    next: usize,
}

/// By the number of threads in each, and whether these yield to all others: a thread has the
/// priority of the one that started it, and what runs in the background must not be done by threads
/// that serve, nor the other way round.
static POOLS: Mutex<BTreeMap<(usize, bool), Kind>> = Mutex::new(BTreeMap::new());

fn pools() -> MutexGuard<'static, BTreeMap<(usize, bool), Kind>> {
    POOLS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A pool for one run, given back when this is dropped.
pub(super) struct Taken {
    kind: (usize, bool),
    pool: Arc<ThreadPool>,
    is_shared: bool,
}

/// Takes a pool of this many threads: a free one, a new one while there are fewer pools than cores,
/// or else one that somebody uses already.
pub(super) fn take(threads: usize) -> Taken {
    let kind = (threads.max(1), yields());
    let mut pools = pools();
    let of_kind = pools.entry(kind).or_default();
    if let Some(pool) = of_kind.free.pop() {
        return Taken { kind, pool, is_shared: false };
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if of_kind.all.len() < cores {
        let pool = Arc::new(ThreadPool::with_num_threads(kind.0));
        of_kind.all.push(Arc::clone(&pool));
        return Taken { kind, pool, is_shared: false };
    }
    of_kind.next = (of_kind.next + 1) % of_kind.all.len();
    Taken { kind, pool: Arc::clone(&of_kind.all[of_kind.next]), is_shared: true }
}

impl Taken {
    pub(super) fn pool(&self) -> &Arc<ThreadPool> {
        &self.pool
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.is_shared {
            let mut pools = pools();
            pools.entry(self.kind).or_default().free.push(Arc::clone(&self.pool));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_more_pools_than_cores() {
        // A number of threads that nothing else in this process asks for.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let taken: Vec<Taken> = (0..3 * cores).map(|_| take(7)).collect();
        assert_eq!(taken.iter().filter(|taken| !taken.is_shared).count(), cores);
        drop(taken);
        assert!(!take(7).is_shared);
        assert_eq!(pools()[&(7, false)].all.len(), cores);
        assert_eq!(pools()[&(7, false)].free.len(), cores);
    }

    #[test]
    fn the_background_has_pools_of_its_own() {
        let serving = take(5);
        let other = crate::background(|| take(5).kind).unwrap();
        assert_ne!(serving.kind, other);
    }
}
