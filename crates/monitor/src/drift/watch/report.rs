//! What a watch has seen.

use serde::{Deserialize, Serialize};

use super::{Drift, Settings, State, Watch, Watched};
use crate::drift::{Picture, What};

/// The schema of what a [`WatchReport`] is written as.
pub const SCHEMA: &str = "modelyard.watch/1";

/// What a watch has seen. Times are seconds since 1970.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WatchReport {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Whether any feature has drifted and is not as before again.
    pub drifted: bool,
    /// Rows that were looked at.
    pub rows: u64,
    /// Rows that were not, being more of one request than are looked at.
    pub skipped: u64,
    /// When the first row came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<i64>,
    /// When the last row came.
    pub last: i64,
    /// What counts as drift.
    pub settings: Settings,
    /// What does not fit.
    pub notes: Vec<String>,
    /// Features: drifted ones first, then by their shift.
    pub features: Vec<Seen>,
}

/// What is known of a feature.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// Its name.
    pub feature: String,
    /// Whether the model gave it.
    pub predicted: bool,
    /// Where it stands.
    pub status: Status,
    /// Whether it is compared with its own first rows, for want of a profile.
    pub first_rows: bool,
    /// Rows that were looked at since.
    pub rows: u64,
    /// The drift that it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<Drift>,
    /// Drifts that are over.
    pub past: Vec<Drift>,
    /// The evidence of a drift now: an e-value, of which `needed` is enough if it is the only one.
    pub evidence: f64,
    /// See `evidence`.
    pub needed: f64,
    /// How much each way to change has changed in the last few thousand rows.
    pub changes: Vec<(What, f64)>,
    /// Its shape before, and in the last few thousand rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub picture: Option<Picture>,
    /// The shift in each hour, oldest first.
    pub trend: Vec<(i64, f32)>,
}

/// Where a feature stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It has drifted.
    Drifted,
    /// It is as before, as far as was seen.
    Watched,
    /// Its first rows are being gathered.
    Learning,
}

impl Watch {
    /// What was seen since a time, in seconds since 1970; drifts that were over before are left out.
    pub fn report(&self, since: i64) -> WatchReport {
        let compared = |watched: &&Watched| matches!(watched.state, State::Compared { .. });
        let needed = self.features.iter().filter(compared).count() as f64 / self.settings.alpha;
        let seen = |watched: &Watched| watched.seen(since, needed, &self.settings);
        let mut features: Vec<Seen> = self.features.iter().map(seen).collect();
        let shift = |seen: &Seen| seen.changes.first().map_or(0.0, |(_, shift)| *shift);
        features.sort_by(|a, b| a.status.cmp(&b.status).then(shift(b).total_cmp(&shift(a))));
        WatchReport {
            schema: SCHEMA.to_owned(),
            drifted: self.has_drifted(),
            rows: self.rows,
            skipped: self.skipped,
            first: self.first,
            last: self.last,
            settings: self.settings,
            notes: self.notes.clone(),
            features,
        }
    }
}

impl Watched {
    fn seen(&self, since: i64, needed: f64, settings: &Settings) -> Seen {
        let mut seen = Seen {
            feature: self.name.clone(),
            predicted: self.predicted,
            status: Status::Learning,
            first_rows: true,
            rows: 0,
            drift: None,
            past: Vec::new(),
            evidence: 0.0,
            needed,
            changes: Vec::new(),
            picture: None,
            trend: Vec::new(),
        };
        match &self.state {
            State::Learning { rows, .. } => seen.rows = *rows,
            State::Compared { first_rows, feature } => {
                let recent = feature.recent();
                let late = |drift: &&Drift| drift.over.is_none_or(|over| over >= since);
                seen.first_rows = *first_rows;
                seen.rows = feature.rows;
                seen.status =
                    if feature.drift.is_some() { Status::Drifted } else { Status::Watched };
                seen.drift = feature.drift.clone();
                seen.past = feature.past.iter().filter(late).cloned().collect();
                seen.evidence = feature.evidence(settings);
                seen.changes = feature.changes(&recent);
                seen.trend =
                    feature.trend.iter().filter(|(hour, _)| *hour >= since).copied().collect();
                let rows = recent.values() as f64;
                let after = recent.bins.iter().map(|count| f64::from(*count) / rows.max(1.0));
                seen.picture = Some(Picture {
                    bars: feature.reference.names(),
                    intervals: feature.reference.intervals(),
                    before: feature.reference.parts.clone(),
                    after: after.collect(),
                });
            }
        }
        seen
    }
}
