//! How much memory the loaded versions hold, and which of them make room for others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::{InstanceSettings, Manifest};

use crate::place::Place;
use crate::version::Version;

/// What may be in memory at once. Without limits everything that is assigned is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that the loaded versions may hold together, as far as that is known.
    pub memory: Option<u64>,
    /// How many versions may be loaded.
    pub versions: Option<usize>,
}

/// How long a load waits for room before it fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a version holds beside its weights: an engine's session, its queue, its counters. Measured
/// with a thousand models of a few hundred bytes (`bench/many.py`).
const OVERHEAD: u64 = 64 << 10;

/// The bytes that a version is reckoned to hold: its file twice, for the engines keep a rearranged
/// copy of much of what they read, and what every version costs. On a device each instance has a
/// session of its own.
pub(crate) fn memory(manifest: &Manifest, settings: &InstanceSettings) -> u64 {
    let is_on_device = !settings.providers.is_empty();
    let copies = if is_on_device { settings.instances.unwrap_or(1).max(1) as u64 } else { 1 };
    (2 * manifest.size).saturating_mul(copies).saturating_add(OVERHEAD)
}

/// Why there is no room.
pub(crate) enum NoRoom {
    /// There is none at the moment.
    Now,
    /// There never is, or none came free in time.
    Ever(String),
}

/// Who is in memory.
pub(crate) struct Ledger {
    limits: Limits,
    start: Instant,
    entries: Mutex<Vec<(Arc<Place>, u64)>>,
}

impl Ledger {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, start: Instant::now(), entries: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Arc<Place>, u64)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anything is ever unloaded to make room.
    pub(crate) fn is_limited(&self) -> bool {
        self.limits != Limits::default()
    }

    /// Notes that a place is asked for.
    pub(crate) fn touch(&self, place: &Place) {
        if self.is_limited() {
            place.touch(self.start.elapsed().as_micros() as u64 + 1);
        }
    }

    /// The bytes held by all together.
    pub(crate) fn memory(&self) -> u64 {
        self.lock().iter().map(|(_, bytes)| bytes).sum()
    }

    fn has_room(&self, entries: &[(Arc<Place>, u64)], bytes: u64) -> bool {
        let held: u64 = entries.iter().map(|(_, bytes)| bytes).sum();
        self.limits.memory.is_none_or(|limit| held.saturating_add(bytes) <= limit)
            && self.limits.versions.is_none_or(|limit| entries.len() < limit)
    }

    /// Makes room for a place and notes that it is taken. `unload` is given who has to go, least
    /// recently used first, if anyone may; it returns when the memory is free.
    pub(crate) fn reserve(
        &self,
        place: &Arc<Place>,
        bytes: u64,
        may_evict: bool,
        unload: impl Fn(&Place, Arc<Version>),
    ) -> Result<(), NoRoom> {
        if let Some(limit) = self.limits.memory.filter(|limit| bytes > *limit) {
            return Err(NoRoom::Ever(format!(
                "it needs about {bytes} bytes of memory, and all models together may have {limit}; \
                 raise the limit"
            )));
        }
        let start = Instant::now();
        loop {
            let victim = {
                let mut entries = self.lock();
                if self.has_room(&entries, bytes) {
                    entries.push((place.clone(), bytes));
                    return Ok(());
                }
                if !may_evict {
                    return Err(NoRoom::Now);
                }
                let mut oldest: Vec<&Arc<Place>> = entries.iter().map(|(place, _)| place).collect();
                oldest.sort_by_key(|place| place.used());
                oldest.into_iter().find_map(|place| Some((place.clone(), place.evict()?)))
            };
            match victim {
                Some((place, version)) => {
                    unload(&place, version);
                    self.release(&place);
                }
                None if start.elapsed() > PATIENCE => {
                    let message = "every model in memory is busy; there is no room for another";
                    return Err(NoRoom::Ever(message.to_owned()));
                }
                // All are busy or being loaded. Requests end on threads that know nothing of this.
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Notes that a place holds nothing any more.
    pub(crate) fn release(&self, place: &Arc<Place>) {
        self.lock().retain(|(other, _)| !Arc::ptr_eq(other, place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Assigned, Format, Signature};

    fn place(name: &str) -> Arc<Place> {
        let assigned = Assigned {
            version: "1".into(),
            source: String::new(),
            share: 1,
            shadow: false,
            pinned: Vec::new(),
            settings: Default::default(),
            generation: 0,
        };
        Place::new(name, &assigned)
    }

    fn reserve(ledger: &Ledger, place: &Arc<Place>, bytes: u64) -> Result<(), NoRoom> {
        ledger.reserve(place, bytes, false, |_, _| unreachable!("nobody may be unloaded"))
    }

    #[test]
    fn what_does_not_fit_is_told_apart_from_what_never_will() {
        let ledger = Ledger::new(Limits { memory: Some(100), versions: Some(2) });
        let (one, two, three) = (place("1"), place("2"), place("3"));
        assert!(reserve(&ledger, &one, 60).is_ok());
        assert!(matches!(reserve(&ledger, &two, 60), Err(NoRoom::Now)));
        assert!(matches!(reserve(&ledger, &two, 101), Err(NoRoom::Ever(_))));
        assert!(reserve(&ledger, &two, 40).is_ok());
        assert_eq!(ledger.memory(), 100);
        assert!(matches!(reserve(&ledger, &three, 0), Err(NoRoom::Now)));
        ledger.release(&one);
        assert!(reserve(&ledger, &three, 60).is_ok());
    }

    #[test]
    fn without_limits_everything_fits() {
        let ledger = Ledger::new(Limits::default());
        for _ in 0..3 {
            assert!(reserve(&ledger, &place("m"), u64::MAX / 4).is_ok());
        }
        assert!(!ledger.is_limited());
    }

    #[test]
    fn a_device_holds_a_copy_for_each_instance() {
        let signature = Signature { inputs: vec![], outputs: vec![], batched: false };
        let manifest = Manifest::new(Format::Onnx, "sha256:0".into(), 1 << 20, signature);
        let mut settings = InstanceSettings { instances: Some(3), ..Default::default() };
        assert_eq!(memory(&manifest, &settings), (2 << 20) + OVERHEAD);
        settings.providers = vec!["cuda".into()];
        assert_eq!(memory(&manifest, &settings), (6 << 20) + OVERHEAD);
    }
}
