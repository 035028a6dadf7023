//! Drift of a model that is served: its inputs and predictions, one by one, as they come.
//!
//! Each feature is cut into bins of its [profile](crate::profile), and bets are made that a bin
//! fills more, or less, than it did. The evidence of these bets may be looked at
//! whenever one likes, and says so with false discoveries kept in check over all features (e-BH; Wang
//! and Ramdas, 2022). What has no profile is learned from the first rows.
//!
//! Drift is what differs both from the profile, by more than is tolerated, and from the same hour of
//! earlier weeks, once there were two.

mod bets;
mod counts;
mod feature;
mod reference;
mod report;
mod season;
mod source;

use std::time::{SystemTime, UNIX_EPOCH};

use model::{Observation, Outcome, Signature};
use serde::{Deserialize, Serialize};

use crate::drift::What;
use crate::profile::{Builder, Profile, Value};

use feature::Feature;
use reference::Reference;
pub use report::{SCHEMA, Seen, Status, WatchReport};
use source::Group;

/// The schema of what a [`Watch`] is kept as.
const STATE: &str = "modelyard.watch-state/1";

/// Rows of a request that are looked at: those of one request may be alike.
const ROWS: usize = 16;

/// Rows that are bet on at once: from so many on after a second, as many as there are after a minute,
/// and never more than that.
const BLOCK: u64 = 64;
const WAIT: i64 = 60;
const LARGEST: u64 = 512;

const HOUR: i64 = 3600;
const WEEK: f64 = 7.0 * 24.0 * 3600.0;

/// What counts as drift.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The chance of any false alarm in a week, over all features.
    pub alpha: f64,
    /// From which effect on the shape has [shifted](What::Shift).
    pub shift: f64,
    /// From which change on of the part that is missing or infinite.
    pub missing: f64,
    /// From which part on that is out of range, or of new categories.
    pub new: f64,
    /// Rows from which what has no profile is learned.
    pub first: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let drift = super::Settings::default();
        Self {
            alpha: drift.alpha,
            shift: drift.shift,
            missing: drift.missing,
            new: drift.new,
            first: 2000,
        }
    }
}

impl Settings {
    /// The threshold of an effect.
    pub fn threshold(&self, what: What) -> f64 {
        let Self { alpha, shift, missing, new, .. } = *self;
        match what {
            // A single value of another kind is no feature's drift.
            What::TypeBreak => self.new,
            what => super::Settings { alpha, shift, missing, new }.threshold(what),
        }
    }

    /// A change so small that no amount of rows makes it drift.
    fn tolerated(&self, what: What) -> f64 {
        self.threshold(what) / 2.0
    }
}

/// A drift of a feature. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    /// What changed most.
    pub what: What,
    /// When it most likely began.
    pub since: i64,
    /// When it was found.
    pub found: i64,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<i64>,
    /// How much had changed then.
    pub effect: f64,
    /// How much it is evidence of: an e-value.
    pub evidence: f64,
}

/// Watches a version. Its memory is bounded by the number of features, whatever the traffic.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    schema: String,
    settings: Settings,
    /// How sure the bounds of profiles are.
    level: f64,
    groups: Vec<Group>,
    features: Vec<Watched>,
    notes: Vec<String>,
    /// Rows since the last block was settled.
    waiting: u64,
    /// When the first of them came, and that of the block before.
    began: i64,
    before: i64,
    rows: u64,
    first: Option<i64>,
    last: i64,
    /// Rows of requests that were too large to be looked at as a whole.
    skipped: u64,
}

/// A feature by its name.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Watched {
    name: String,
    /// Whether it is something that the model gave.
    predicted: bool,
    state: State,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum State {
    /// It is learned from the first rows, which are not kept over a restart.
    Learning {
        rows: u64,
        #[serde(skip)]
        builder: Option<Box<Builder>>,
    },
    /// It is compared with a profile, or with its first rows.
    Compared { first_rows: bool, feature: Box<Feature> },
}

impl Watch {
    /// Watches what a signature says, against a profile if there is one. What does not fit is in the
    /// report's notes.
    pub fn new(signature: &Signature, profile: Option<&Profile>, settings: Settings) -> Self {
        let source::Sources { groups, columns, notes } = source::of(signature, profile);
        let count = columns.len().max(1) as f64;
        // A tenth of what may go wrong is left for profiles that are off, shared by about twenty
        // events of each feature.
        let level = settings.alpha / 10.0 / count / 20.0;
        let features = columns.into_iter().map(|column| {
            let known = column.profile.and_then(Reference::new);
            let state = match known {
                Some(reference) => State::Compared {
                    first_rows: false,
                    feature: Feature::new(reference, level).into(),
                },
                None => State::Learning { rows: 0, builder: None },
            };
            Watched { name: column.name, predicted: column.predicted, state }
        });
        Self {
            schema: STATE.to_owned(),
            settings,
            level,
            features: features.collect(),
            groups,
            notes,
            waiting: 0,
            began: 0,
            before: 0,
            rows: 0,
            first: None,
            last: 0,
            skipped: 0,
        }
    }

    /// Reads what was [kept](Self::keep). What is of another signature or with other settings is
    /// refused: nothing is lost but what was learned since.
    pub fn restore(bytes: &[u8], fresh: &Self) -> Result<Self, String> {
        let kept: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if kept.schema != STATE {
            return Err(format!("its schema is not {STATE:?}"));
        }
        let names =
            |watch: &Self| watch.features.iter().map(|f| f.name.clone()).collect::<Vec<_>>();
        match kept.groups == fresh.groups && names(&kept) == names(fresh) {
            true if kept.settings == fresh.settings && kept.is_sound() => Ok(kept),
            true => Err("it was kept with other settings".to_owned()),
            false => Err("it is of another signature".to_owned()),
        }
    }

    /// Whether every count has the place that its reference has for it.
    fn is_sound(&self) -> bool {
        self.features.iter().all(|watched| match &watched.state {
            State::Learning { .. } => true,
            State::Compared { feature, .. } => feature.is_sound(),
        })
    }

    /// The state, to [go on](Self::restore) with after a restart.
    pub fn keep(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(self).map_err(|error| error.to_string())
    }

    /// Looks at a prediction. Failed ones, and those that nobody saw, are passed over.
    pub fn observe(&mut self, observation: &Observation) {
        if observation.outcome != Outcome::Answered || observation.shadow.is_some() {
            return;
        }
        let since_1970 = observation.at.duration_since(SystemTime::UNIX_EPOCH);
        let time = since_1970.map_or(0, |time| time.as_secs() as i64);
        let mut rows = 0;
        for group in &self.groups {
            let features = &mut self.features[group.features()];
            let (taken, all) =
                group.take(observation, |place, value| features[place].insert(value));
            (rows, self.skipped) = (rows.max(taken), self.skipped + (all - taken));
        }
        if rows == 0 {
            return;
        }
        if self.waiting == 0 {
            self.began = time;
        }
        self.first.get_or_insert(time);
        (self.waiting, self.rows, self.last) = (self.waiting + rows, self.rows + rows, time);
        let waited = time - self.began;
        let ripe = self.waiting >= BLOCK && waited >= 1;
        if ripe || self.waiting >= LARGEST || waited >= WAIT {
            self.settle(time);
        }
    }

    /// Plays what has gathered, and says which features have drifted.
    fn settle(&mut self, time: i64) {
        // What is staked is known before the block is: by how much time there was between the last
        // two, of which an hour counts at most, so that a clock that jumps stakes no more.
        let passed = (self.began - self.before).clamp(0, HOUR);
        (self.before, self.waiting) = (self.began, 0);
        let stake = passed as f64 / WEEK;
        for watched in &mut self.features {
            watched.settle((self.began, stake), &self.settings, self.level);
        }
        let mut evidence: Vec<(usize, f64)> = Vec::new();
        let mut compared = 0.0;
        for (place, watched) in self.features.iter().enumerate() {
            if let State::Compared { feature, .. } = &watched.state {
                compared += 1.0;
                let found = feature.evidence(&self.settings);
                if feature.drift.is_none() && found > 0.0 {
                    evidence.push((place, found));
                }
            }
        }
        evidence.sort_by(|a, b| b.1.total_cmp(&a.1));
        let enough = |(i, (_, e)): &(usize, &(usize, f64))| {
            *e >= compared / self.settings.alpha / (*i as f64 + 1.0)
        };
        let count = evidence.iter().enumerate().rfind(enough).map_or(0, |(i, _)| i + 1);
        for (place, found) in evidence.into_iter().take(count) {
            if let State::Compared { feature, .. } = &mut self.features[place].state {
                feature.found(time, found, &self.settings);
            }
        }
    }

    /// Whether any feature has drifted.
    pub fn has_drifted(&self) -> bool {
        self.features.iter().any(|watched| match &watched.state {
            State::Compared { feature, .. } => feature.drift.is_some(),
            State::Learning { .. } => false,
        })
    }
}

impl Watched {
    #[inline]
    fn insert(&mut self, value: Value<'_>) {
        match &mut self.state {
            State::Compared { feature, .. } => match value {
                Value::Number(number) => feature.counts.number(&feature.reference, number),
                Value::Text(text) | Value::Untyped(text) => {
                    feature.counts.text(&feature.reference, text);
                }
                Value::Missing => feature.counts.missing += 1,
            },
            State::Learning { rows, builder } => {
                if builder.is_none() {
                    *rows = 0;
                }
                *rows += 1;
                builder.get_or_insert_with(|| Builder::new(["x"]).into()).row([value]);
            }
        }
    }

    fn settle(&mut self, (time, stake): (i64, f64), settings: &Settings, level: f64) {
        match &mut self.state {
            State::Compared { feature, .. } => feature.settle(time, stake, settings),
            State::Learning { rows, builder } if *rows >= settings.first => {
                let learned = builder.take().map(|builder| builder.finish());
                let column = learned.and_then(|mut profile| profile.columns.pop());
                // A feature without any value stays unknown: it begins again.
                *rows = 0;
                if let Some(reference) = column.as_ref().and_then(Reference::new) {
                    let feature = Feature::new(reference, level).into();
                    self.state = State::Compared { first_rows: true, feature };
                }
            }
            State::Learning { .. } => {}
        }
    }
}

/// Seconds since 1970.
pub fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64)
}
