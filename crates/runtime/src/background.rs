//! Work that must not slow down the threads that serve.

use std::cell::Cell;
use std::io;
use std::panic::resume_unwind;
use std::thread;

/// How much the scheduler prefers others. A thread at 10 gets about a tenth of a processor that a
/// thread at 0 wants for itself, so loading beside full load is slow but comes to an end; and a
/// thread at 0 that wakes up takes the processor from it at once.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

thread_local! {
    static YIELDS: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread yields to all others.
pub(crate) fn yields() -> bool {
    YIELDS.get()
}

/// Does the work on a thread that yields to all others, and waits for it.
///
/// Threads started by the work inherit its priority and can never get a higher one. Start those
/// that will serve elsewhere.
///
/// # Errors
/// If no thread can be started.
pub fn background<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let worker =
            thread::Builder::new().name("background".into()).spawn_scoped(scope, || {
                yield_to_others();
                work()
            })?;
        worker.join().or_else(|panic| resume_unwind(panic))
    })
}

/// Lowers the priority of the calling thread, for good: for threads that do nothing else.
pub fn yield_to_others() {
    YIELDS.set(true);
    // Linux has a niceness for each thread; elsewhere it is the whole process's. The work is done
    // all the same where it is not allowed.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, NICENESS);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_comes_back_and_so_does_a_panic() {
        assert_eq!(background(|| 7).unwrap(), 7);
        let panicked = std::panic::catch_unwind(|| background(|| panic!("expected")));
        assert_eq!(*panicked.unwrap_err().downcast::<&str>().unwrap(), "expected");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn only_the_background_yields() {
        let own = || rustix::process::getpriority_process(None).unwrap();
        let before = own();
        assert_eq!(background(own).unwrap(), before.max(NICENESS));
        assert_eq!(own(), before);
    }
}
