//! How a server is doing, for whoever shows it: read from outside, never on a request's path.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use model::ErrorCode;

use crate::meter::{Measures, Protocol};
use crate::reply::{ModelInfo, State};
use crate::shadow::ShadowCount;
use crate::{Serving, Slo};

/// A version at this moment.
#[derive(Clone, Debug)]
pub struct Condition {
    /// The model's name.
    pub name: Arc<str>,
    /// The version.
    pub version: Arc<str>,
    /// Where it is in its life.
    pub state: State,
    /// What it is, once it has been loaded.
    pub info: Option<Arc<ModelInfo>>,
    /// Its part of the traffic that names no version, as assigned: 0 to 1.
    pub share: f64,
    /// Requests that wait for an instance.
    pub waiting: usize,
    /// Runs that may happen side by side; 0 while it is not loaded.
    pub instances: usize,
    /// Runs that are happening.
    pub busy: usize,
    /// Bytes of memory that it is reckoned to hold; 0 while it is not loaded.
    pub memory: u64,
    /// Copies of requests to other versions.
    pub shadows: ShadowCount,
}

/// A server at this moment, and since it was started.
#[derive(Clone, Debug)]
pub struct Health {
    /// What has been measured, by model and version.
    pub measures: Vec<Measures>,
    /// The versions that are known, by model and version.
    pub conditions: Vec<Condition>,
    /// Whether every wanted version answers.
    pub ready: bool,
    /// Requests that wait for versions to be loaded.
    pub waiting_for_loads: usize,
    /// Observations that nobody took in time.
    pub observations_dropped: u64,
    /// What admitted requests are promised.
    pub slo: Option<Slo>,
}

impl Serving {
    /// How the server is doing.
    pub fn health(&self) -> Health {
        let common = &self.inner.loading.common;
        let observations = common.observations.as_ref();
        Health {
            measures: common.meters.measures(Instant::now()),
            conditions: self.conditions(),
            ready: self.ready(),
            waiting_for_loads: self.inner.waiting.load(Ordering::Relaxed),
            observations_dropped: observations.map_or(0, |observations| observations.dropped()),
            slo: common.slo,
        }
    }

    fn conditions(&self) -> Vec<Condition> {
        let places: HashMap<_, _> = self.places().into_iter().map(key_and_place).collect();
        let shares = self.shares();
        let condition = |status: crate::Status| {
            let key = (status.name.clone(), status.version.clone());
            let place = places.get(&key);
            let version = place.and_then(|place| place.loaded());
            let (waiting, busy) = version.as_ref().map(|v| v.load()).unwrap_or_default();
            let shadows = match (&version, place) {
                (Some(version), _) => version.shadows.count(),
                (None, Some(place)) => place.known().1.shadows,
                (None, None) => ShadowCount::default(),
            };
            Condition {
                share: shares.get(&key).copied().unwrap_or(0.0),
                waiting,
                busy,
                instances: version.as_ref().map_or(0, |version| version.slots()),
                memory: version.as_ref().map_or(0, |version| version.info.memory),
                shadows,
                name: status.name,
                version: status.version,
                state: status.state,
                info: status.info,
            }
        };
        self.status().into_iter().map(condition).collect()
    }

    fn shares(&self) -> HashMap<(Arc<str>, Arc<str>), f64> {
        let assignments = self.inner.assignments.borrow();
        let mut shares = HashMap::new();
        for (name, versions) in &assignments.models {
            let name: Arc<str> = name.as_str().into();
            let total: f64 = versions.iter().map(|assigned| f64::from(assigned.share)).sum();
            for assigned in versions.iter().filter(|assigned| assigned.share > 0) {
                let key = (name.clone(), assigned.version.as_str().into());
                shares.insert(key, f64::from(assigned.share) / total);
            }
        }
        shares
    }

    /// Counts a request that was refused before it came here, such as one that cannot be decoded.
    /// Those whose error [is counted](crate::Error::is_counted) have been already. Names of models
    /// that are not known are not kept.
    pub fn refuse(&self, model: &str, protocol: Protocol, code: ErrorCode) {
        self.inner.loading.common.meters.refuse(model, protocol, code);
    }
}

fn key_and_place(
    place: Arc<crate::place::Place>,
) -> ((Arc<str>, Arc<str>), Arc<crate::place::Place>) {
    ((place.name.clone(), place.version.clone()), place)
}
