//! When a version that could not be fetched is tried again. Pure: the caller has the clock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use model::Assignments;

/// The wait after the first failure; each further one doubles it.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(30);

/// The versions that failed, and how often each has been tried again.
#[derive(Debug, Default)]
pub struct Retries {
    versions: BTreeMap<(String, String), Tried>,
}

#[derive(Debug, Default)]
struct Tried {
    /// Raised with every try: a new generation is loaded again, the same one is not.
    generation: u64,
    failures: u32,
    due: Option<Instant>,
}

impl Retries {
    /// Notes that a version could not be fetched. `chance` between 0 and 1 spreads the tries of
    /// many servers.
    pub fn failed(&mut self, model: &str, version: &str, now: Instant, chance: f64) {
        let tried = self.versions.entry((model.to_owned(), version.to_owned())).or_default();
        let wait = FIRST.saturating_mul(1 << tried.failures.min(16)).min(LONGEST);
        tried.failures += 1;
        tried.due = Some(now + wait.mul_f64(0.5 + chance / 2.0));
    }

    /// Notes that a version was fetched.
    pub fn succeeded(&mut self, model: &str, version: &str) {
        if let Some(tried) = self.versions.get_mut(&(model.to_owned(), version.to_owned())) {
            (tried.failures, tried.due) = (0, None);
        }
    }

    /// Whether a version is waiting to be tried again.
    pub fn waits(&self, model: &str, version: &str) -> bool {
        let tried = self.versions.get(&(model.to_owned(), version.to_owned()));
        tried.is_some_and(|tried| tried.due.is_some())
    }

    /// When the next try is due.
    pub fn due(&self) -> Option<Instant> {
        self.versions.values().filter_map(|tried| tried.due).min()
    }

    /// Makes all that failed due at once: what was away is back.
    pub fn hasten(&mut self, now: Instant) {
        for tried in self.versions.values_mut().filter(|tried| tried.failures > 0) {
            (tried.failures, tried.due) = (1, Some(now));
        }
    }

    /// Begins the tries that are due.
    pub fn begin(&mut self, now: Instant) {
        for tried in self.versions.values_mut() {
            if tried.due.is_some_and(|due| due <= now) {
                tried.due = None;
                tried.generation += 1;
            }
        }
    }

    /// Puts the tries into the assignments, and forgets what is assigned no longer.
    pub fn apply(&mut self, wanted: &mut Assignments) {
        self.versions.retain(|(model, version), _| {
            let assigned = wanted.models.get(model);
            assigned.is_some_and(|all| all.iter().any(|one| one.version == *version))
        });
        for ((model, version), tried) in &self.versions {
            let assigned = wanted.models.get_mut(model).into_iter().flatten();
            for one in assigned.filter(|one| one.version == *version) {
                one.generation = tried.generation;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{Assigned, InstanceSettings};

    use super::*;

    fn wanted() -> Assignments {
        let one = Assigned {
            version: "1".into(),
            source: "m:1".into(),
            share: 1,
            shadow: false,
            pinned: Vec::new(),
            settings: InstanceSettings::default(),
            generation: 0,
        };
        Assignments { models: [("m".to_owned(), vec![one])].into() }
    }

    fn generation(retries: &mut Retries) -> u64 {
        let mut wanted = wanted();
        retries.apply(&mut wanted);
        wanted.models["m"][0].generation
    }

    #[test]
    fn a_failure_is_tried_again_and_waits_longer_each_time() {
        let (mut retries, mut now) = (Retries::default(), Instant::now());
        let mut waits = Vec::new();
        for round in 0..8 {
            assert_eq!(generation(&mut retries), round);
            retries.failed("m", "1", now, 1.0);
            let due = retries.due().unwrap();
            waits.push((due - now).as_secs());
            retries.begin(due - Duration::from_millis(1));
            assert!(retries.waits("m", "1"), "it is not due yet");
            retries.begin(due);
            assert_eq!(retries.due(), None);
            now = due;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        // A version that is there now keeps its generation: a lower one would load it again.
        retries.succeeded("m", "1");
        assert_eq!(generation(&mut retries), 8);
        retries.failed("m", "1", now, 0.0);
        assert_eq!(retries.due(), Some(now + Duration::from_millis(500)));
    }

    #[test]
    fn what_failed_is_due_at_once_when_the_registry_is_back() {
        let (mut retries, now) = (Retries::default(), Instant::now());
        retries.hasten(now);
        assert_eq!(retries.due(), None);
        (0..5).for_each(|_| retries.failed("m", "1", now, 1.0));
        retries.hasten(now);
        assert_eq!(retries.due(), Some(now));
    }

    #[test]
    fn what_is_assigned_no_longer_is_forgotten() {
        let mut retries = Retries::default();
        retries.failed("m", "1", Instant::now(), 1.0);
        retries.apply(&mut wanted());
        assert!(retries.due().is_some());
        retries.apply(&mut Assignments::default());
        assert_eq!(retries.due(), None);
    }
}
