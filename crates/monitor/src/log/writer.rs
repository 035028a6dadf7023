//! The threads of a log: one makes files of what was seen, the other stores them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use model::Observation;

use super::columns::Kept;
use super::files::{Keep, timestamp};
use super::gather::{Encoded, Gathering, Limits};
use super::labels::Label;
use super::rules::Rules;
use super::store::{Store, Writer};

/// How long predictions are left to gather before they are made rows.
const NAP: Duration = Duration::from_millis(50);

/// After so many naps without a prediction they get longer.
const QUIET: u64 = 20;

/// How often it is looked for what is too old.
const EXPIRE: Duration = Duration::from_secs(60);

/// Between tries to store a file.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Files that are on their way to the store at once.
const AT_ONCE: usize = 4;

/// How a log is written.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is kept.
    pub rules: Rules,
    /// The longest that a prediction waits to be in a file that can be read.
    pub flush: Duration,
    /// The most bytes of predictions that wait to be made rows; more are dropped.
    pub waiting_bytes: usize,
    /// The most predictions that do.
    pub waiting: usize,
    /// The bytes of rows that make a file before its time.
    pub part_bytes: usize,
    /// The most bytes of files that wait for the store; more are dropped.
    pub backlog_bytes: usize,
    /// The most elements of a tensor's row that are kept.
    pub widest: usize,
    /// How much stays.
    pub keep: Keep,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rules: Rules::default(),
            flush: Duration::from_secs(10),
            waiting_bytes: 64 << 20,
            waiting: 1 << 16,
            part_bytes: 32 << 20,
            backlog_bytes: 128 << 20,
            widest: 1 << 16,
            keep: Keep::default(),
        }
    }
}

/// What a log has done since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Predictions that were seen.
    pub seen: u64,
    /// Of those, the ones that a rule passed over.
    pub passed_over: u64,
    /// Predictions that were dropped because too many waited.
    pub dropped: u64,
    /// Labels that were taken.
    pub labels: u64,
    /// Labels that were refused because too many waited.
    pub dropped_labels: u64,
    /// Rows of predictions and labels that are in files.
    pub rows: u64,
    /// Rows that were lost because the store did not take them, or they could not be written.
    pub lost_rows: u64,
    /// Files that were stored.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Tries to store a file that failed.
    pub failures: u64,
    /// Bytes of files that wait for the store now.
    pub backlog_bytes: u64,
    /// Cells without a value because the tensor had too many elements.
    pub cells_left_out: u64,
    /// Files that were removed because of their age, or of the size of all.
    pub expired_files: u64,
}

/// A log that is being written. When it is dropped, what it still has is lost; see
/// [`finish`](Self::finish).
pub struct Log {
    shared: Arc<Shared>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// What sees predictions, for a log. Cheap to clone.
#[derive(Clone)]
pub struct Watcher(Arc<Shared>);

struct Shared {
    options: Options,
    name: String,
    waiting: Mutex<Waiting>,
    backlog: Mutex<Backlog>,
    /// Told when there is something in the backlog, or everything ends.
    changed: Condvar,
    ending: AtomicBool,
    /// No more files are made.
    gathered: AtomicBool,
    counted: Counted,
}

/// What takes what is said of predictions, for a log. Cheap to clone.
#[derive(Clone)]
pub struct Labels(Arc<Shared>);

#[derive(Default)]
struct Waiting {
    kept: Vec<Kept>,
    bytes: usize,
    labels: Vec<Label>,
}

#[derive(Default)]
struct Backlog {
    files: VecDeque<(Encoded, String)>,
    bytes: usize,
    number: u64,
}

#[derive(Default)]
struct Counted {
    /// Rows of all files that were made, whatever became of them.
    gathered_rows: AtomicU64,
    seen: AtomicU64,
    passed_over: AtomicU64,
    dropped: AtomicU64,
    labels: AtomicU64,
    dropped_labels: AtomicU64,
    rows: AtomicU64,
    lost_rows: AtomicU64,
    files: AtomicU64,
    bytes: AtomicU64,
    failures: AtomicU64,
    cells_left_out: AtomicU64,
    expired_files: AtomicU64,
}

impl Watcher {
    /// Looks at a prediction: it is left for the log's thread, or dropped and counted if too many
    /// wait.
    pub fn observe(&self, observation: &Observation) {
        let counted = &self.0.counted;
        add(&counted.seen, 1);
        let Some(weight) = self.0.options.rules.weight(observation) else {
            add(&counted.passed_over, 1);
            return;
        };
        let bytes = observation.bytes();
        let options = &self.0.options;
        let mut waiting = lock(&self.0.waiting);
        let is_full = waiting.kept.len() >= options.waiting
            || waiting.bytes > 0 && waiting.bytes + bytes > options.waiting_bytes;
        if is_full {
            add(&counted.dropped, 1);
            return;
        }
        waiting.bytes += bytes;
        waiting.kept.push(Kept { observation: observation.clone(), weight });
    }
}

impl Labels {
    /// Takes all of them, or none if too many wait.
    pub fn take(&self, labels: Vec<Label>) -> bool {
        let mut waiting = lock(&self.0.waiting);
        let fit = waiting.labels.len() + labels.len() <= self.0.options.waiting;
        let count = if fit { &self.0.counted.labels } else { &self.0.counted.dropped_labels };
        add(count, labels.len() as u64);
        if fit {
            waiting.labels.extend(labels);
        }
        fit
    }
}

impl Log {
    /// Begins a log. Its threads have the low priority that `begin_thread` gives them.
    ///
    /// # Errors
    /// If a folder of this machine cannot be written to, or a thread not be started.
    pub fn start(store: Store, options: Options, begin_thread: fn()) -> std::io::Result<Self> {
        let name = format!("{:08x}", fastrand::u32(..));
        let claim = store.claim(&name)?;
        let shared = Arc::new(Shared {
            options,
            name,
            waiting: Mutex::default(),
            backlog: Mutex::default(),
            changed: Condvar::new(),
            ending: AtomicBool::new(false),
            gathered: AtomicBool::new(false),
            counted: Counted::default(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let spawn = |name: &str, work: Box<dyn FnOnce(&Shared) + Send>| {
            let shared = shared.clone();
            std::thread::Builder::new().name(name.to_owned()).spawn(move || {
                begin_thread();
                work(&shared);
            })
        };
        let gathering = spawn("log", Box::new(gather))?;
        let storing = spawn(
            "log-store",
            Box::new(move |shared| {
                let _claim = claim;
                runtime.block_on(keep_storing(shared, &store));
            }),
        )?;
        Ok(Self { shared, threads: vec![gathering, storing] })
    }

    /// What it has to be shown.
    pub fn watcher(&self) -> Watcher {
        Watcher(self.shared.clone())
    }

    /// What takes labels for it.
    pub fn labels(&self) -> Labels {
        Labels(self.shared.clone())
    }

    /// What it has done so far.
    pub fn counts(&self) -> Counts {
        self.watcher().counts()
    }

    /// Stores everything that it was shown, unless the store does not take it in time, and says what
    /// it did. Waits, so it is no call for a thread that serves.
    pub fn finish(self, patience: Duration) -> Counts {
        let end = Instant::now() + patience;
        self.shared.ending.store(true, Ordering::SeqCst);
        self.shared.changed.notify_all();
        while self.threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        let is_done = self.threads.iter().all(std::thread::JoinHandle::is_finished);
        if !is_done {
            let counted = &self.shared.counted;
            let get = |count: &AtomicU64| count.load(Ordering::SeqCst);
            let settled = get(&counted.rows) + get(&counted.lost_rows);
            add(&counted.lost_rows, get(&counted.gathered_rows).saturating_sub(settled));
        }
        self.counts()
    }
}

impl Watcher {
    /// What the log has done so far.
    pub fn counts(&self) -> Counts {
        let counted = &self.0.counted;
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            seen: get(&counted.seen),
            passed_over: get(&counted.passed_over),
            dropped: get(&counted.dropped),
            labels: get(&counted.labels),
            dropped_labels: get(&counted.dropped_labels),
            rows: get(&counted.rows),
            lost_rows: get(&counted.lost_rows),
            files: get(&counted.files),
            bytes: get(&counted.bytes),
            failures: get(&counted.failures),
            backlog_bytes: lock(&self.0.backlog).bytes as u64,
            cells_left_out: get(&counted.cells_left_out),
            expired_files: get(&counted.expired_files),
        }
    }
}

/// Makes rows of what waits, and files of rows.
fn gather(shared: &Shared) {
    let options = &shared.options;
    let limits = Limits {
        // What is due is looked for every now and then, and encoded, before it is stored.
        age: options.flush.saturating_sub(NAP * 8).max(options.flush / 2),
        part_bytes: options.part_bytes,
        bytes: options.part_bytes * 2,
        widest: options.widest,
    };
    let mut gathering = Gathering::new(options.rules.clone(), limits);
    let mut idle = 0u64;
    loop {
        let is_last = shared.ending.load(Ordering::SeqCst);
        let taken = std::mem::take(&mut *lock(&shared.waiting));
        let now = Instant::now();
        taken.labels.iter().for_each(|label| gathering.label(label, now));
        let mut rest = &taken.kept[..];
        loop {
            let now = Instant::now();
            let (some, others) = rest.split_at(rest.len().min(1024));
            some.iter().for_each(|kept| gathering.add(kept, now));
            rest = others;
            for file in gathering.take(now, is_last && rest.is_empty()) {
                match file {
                    Ok(file) => shared.hand_over(file),
                    Err((rows, error)) => {
                        tracing::error!(%error, rows, "prediction log: rows cannot be written");
                        add(&shared.counted.lost_rows, rows);
                    }
                }
            }
            if rest.is_empty() {
                break;
            }
        }
        shared.counted.cells_left_out.store(gathering.cells_left_out(), Ordering::Relaxed);
        if is_last {
            break;
        }
        idle = if taken.kept.is_empty() { idle + 1 } else { 0 };
        std::thread::sleep(if idle < QUIET { NAP } else { NAP.min(options.flush / 8) * 4 });
    }
    // With the lock, so that whoever is about to wait hears of it.
    let backlog = lock(&shared.backlog);
    shared.gathered.store(true, Ordering::SeqCst);
    drop(backlog);
    shared.changed.notify_all();
}

impl Shared {
    /// Leaves a file for the thread that stores it, unless too much waits for that.
    fn hand_over(&self, file: Encoded) {
        add(&self.counted.gathered_rows, file.rows);
        let mut backlog = lock(&self.backlog);
        let bytes = backlog.bytes + file.bytes.len();
        if backlog.bytes > 0 && bytes > self.options.backlog_bytes {
            if add(&self.counted.lost_rows, file.rows) == 0 {
                tracing::error!("prediction log: the store takes too little; rows are lost");
            }
            return;
        }
        backlog.bytes = bytes;
        backlog.number += 1;
        let first = file.first.strftime("%Y%m%dT%H%M%SZ");
        let name = format!("{first}-{}-{:06}.parquet", self.name, backlog.number);
        backlog.files.push_back((file, name));
        drop(backlog);
        self.changed.notify_all();
    }

    /// Puts files before all others again.
    fn hand_back(&self, files: Vec<(Encoded, String)>) {
        let mut backlog = lock(&self.backlog);
        files.into_iter().rev().for_each(|file| backlog.files.push_front(file));
    }

    /// Some files that are to be stored next, waited for until a time.
    fn next(&self, until: Instant) -> Vec<(Encoded, String)> {
        let mut backlog = lock(&self.backlog);
        loop {
            let now = Instant::now();
            let ends = self.gathered.load(Ordering::SeqCst);
            if !backlog.files.is_empty() || ends || now >= until {
                let count = backlog.files.len().min(AT_ONCE);
                return backlog.files.drain(..count).collect();
            }
            let waited = self.changed.wait_timeout(backlog, until - now);
            (backlog, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn is_done(&self) -> bool {
        self.gathered.load(Ordering::SeqCst) && lock(&self.backlog).files.is_empty()
    }
}

/// Stores files until there will be no more, and removes those that are too old. A file that the
/// store does not take is tried again, for as long as it takes.
async fn keep_storing(shared: &Shared, store: &Store) {
    let mut expired = None::<Instant>;
    let mut pause = FIRST_PAUSE;
    loop {
        let now = Instant::now();
        let keep = &shared.options.keep;
        if *keep != Keep::default() && expired.is_none_or(|last| now - last >= EXPIRE) {
            expired = Some(now);
            match store.expire(keep, timestamp(SystemTime::now())).await {
                Ok((files, _)) => drop(add(&shared.counted.expired_files, files)),
                Err(error) => tracing::warn!(%error, "prediction log: old files stay"),
            }
        }
        let files = shared.next(now + EXPIRE);
        if files.is_empty() && shared.is_done() {
            return;
        }
        let puts = files.iter().map(|(file, name)| {
            let writer = Writer { name: &shared.name, bytes: file.bytes.clone() };
            async move { store.put(&file.partition, name, &writer).await }
        });
        let results = futures_util::future::join_all(puts).await;
        let mut failed = Vec::new();
        for ((file, name), result) in files.into_iter().zip(results) {
            match result {
                Ok(bytes) => {
                    add(&shared.counted.files, 1);
                    add(&shared.counted.bytes, bytes);
                    add(&shared.counted.rows, file.rows);
                    lock(&shared.backlog).bytes -= file.bytes.len();
                }
                Err(error) => {
                    add(&shared.counted.failures, 1);
                    tracing::warn!(%error, "prediction log: a file of {} waits", file.partition);
                    failed.push((file, name));
                }
            }
        }
        if failed.is_empty() {
            pause = FIRST_PAUSE;
            continue;
        }
        shared.hand_back(failed);
        let ends = shared.ending.load(Ordering::SeqCst);
        tokio::time::sleep(if ends { FIRST_PAUSE } else { pause }).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Adds to a count, and returns what it was.
fn add(count: &AtomicU64, more: u64) -> u64 {
    count.fetch_add(more, Ordering::Relaxed)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
