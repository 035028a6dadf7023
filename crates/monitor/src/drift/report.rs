//! The verdicts over all columns.

use serde::Serialize;

use super::column::Kind;
use super::compare::{Change, Measured, What};
use super::significance;

/// The schema of what a [`Report`] is written as.
pub const SCHEMA: &str = "modelyard.drift/1";

/// What counts as drift.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// The part of all columns said to have drifted that may be chance.
    pub alpha: f64,
    /// From which effect on the shape has [shifted](What::Shift).
    pub shift: f64,
    /// From which change on of the part that is missing or infinite.
    pub missing: f64,
    /// From which part on that is out of range, or of new categories.
    pub new: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { alpha: 0.01, shift: 0.1, missing: 0.05, new: 0.01 }
    }
}

impl Settings {
    /// The threshold of an effect.
    pub fn threshold(&self, what: What) -> f64 {
        match what {
            What::Shift => self.shift,
            What::Missing | What::Infinite => self.missing,
            What::OutOfRange | What::NewCategory => self.new,
            What::TypeBreak => 0.0,
        }
    }
}

/// How a table compares with another.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Always [`SCHEMA`].
    pub schema: &'static str,
    /// Whether any column has drifted, or is there on one side alone.
    pub drifted: bool,
    /// What counted as drift.
    pub settings: Settings,
    /// Columns that are there on one side alone.
    pub mismatched: Vec<Mismatch>,
    /// Columns that are not looked at.
    pub left_out: Vec<LeftOut>,
    /// The others: drifted ones first, by their largest effect.
    pub columns: Vec<Judged>,
}

/// A column that only one side has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// Its name.
    pub column: String,
    /// The side that has it.
    pub only: Side,
}

/// A column that is not looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Its name.
    pub column: String,
    /// Why.
    pub why: String,
}

/// A side of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // Each variant is its own name.
pub enum Side {
    Before,
    After,
}

/// What was measured of a column, and what follows.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    /// What follows.
    pub verdict: Verdict,
    /// The changes that are both large and no chance.
    pub because: Vec<What>,
    /// The smallest shift that so many rows show. Without one as large as the threshold there is
    /// no telling that the column is stable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visible: Option<f64>,
    /// What was measured.
    #[serde(flatten)]
    pub measured: Measured,
}

/// What a comparison says of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A change is large, and no chance.
    Drifted,
    /// There are too few rows to see a shift as large as the threshold.
    TooFewRows,
    /// It cannot be compared.
    NotCompared,
    /// A shift as large as the threshold would have been seen.
    Stable,
}

impl Report {
    /// Judges all columns that both tables have.
    pub fn new(measured: Vec<Measured>, mismatched: Vec<Mismatch>, settings: Settings) -> Self {
        let p_values: Vec<f64> = measured.iter().map(p_value).collect();
        let found = significance::discoveries(&p_values, settings.alpha);
        let limit = p_values.iter().zip(&found).filter(|(_, found)| **found).map(|(p, _)| *p);
        let limit = limit.fold(f64::NEG_INFINITY, f64::max);
        let columns = measured.len();
        let judge = |measured| judge(measured, limit, columns, &settings);
        let mut columns: Vec<Judged> = measured.into_iter().map(judge).collect();
        columns.sort_by(|a, b| {
            let effect = |judged: &Judged| judged.largest(&settings).map_or(0.0, |(_, size)| size);
            a.verdict.cmp(&b.verdict).then(effect(b).total_cmp(&effect(a)))
        });
        let drifted = !mismatched.is_empty()
            || columns.iter().any(|column| column.verdict == Verdict::Drifted);
        Self { schema: SCHEMA, drifted, settings, mismatched, left_out: Vec::new(), columns }
    }

    /// How many columns have this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.columns.iter().filter(|column| column.verdict == verdict).count()
    }
}

impl Judged {
    /// The change that stands out most, and its effect in thresholds: of those that count if there
    /// are any.
    pub fn largest(&self, settings: &Settings) -> Option<(Change, f64)> {
        let counts =
            |change: &&Change| self.because.is_empty() || self.because.contains(&change.what);
        let sized = |change: &Change| {
            let threshold = settings.threshold(change.what).max(1e-9);
            (*change, change.effect / threshold)
        };
        let changes = self.measured.changes.iter().filter(counts).map(sized);
        // The shape comes first; it goes before others that chance explains as well.
        changes.rev().max_by(|a, b| a.1.total_cmp(&b.1))
    }
}

/// How likely chance alone makes any of the changes of a column.
fn p_value(measured: &Measured) -> f64 {
    let least = measured.changes.iter().map(|change| change.p).fold(1.0, f64::min);
    (least * measured.changes.len() as f64).min(1.0)
}

fn judge(measured: Measured, limit: f64, columns: usize, settings: &Settings) -> Judged {
    let ways = measured.changes.len() as f64;
    let counts = |change: &&Change| {
        change.effect >= settings.threshold(change.what) && change.p * ways <= limit
    };
    let because: Vec<What> = measured.changes.iter().filter(counts).map(|c| c.what).collect();
    let compared = measured.changes.iter().any(|change| change.what == What::Shift);
    let visible = compared.then(|| visible(&measured, settings.alpha / columns as f64 / ways));
    let verdict = match visible {
        _ if !because.is_empty() => Verdict::Drifted,
        None => Verdict::NotCompared,
        Some(visible) if visible > settings.shift => Verdict::TooFewRows,
        Some(_) => Verdict::Stable,
    };
    Judged { verdict, because, visible, measured }
}

/// The shift from which on chance is excluded at a level, were this the only column with one: for
/// numbers by the limit of Kolmogorov and Smirnov, for texts and bins the mean that chance makes of
/// the total variation, and as much beyond it as McDiarmid's inequality says.
fn visible(measured: &Measured, alpha: f64) -> f64 {
    let values = |side: &super::Description| (side.rows - side.missing - side.infinite) as f64;
    let (n, m) = (values(&measured.before), values(&measured.after));
    let spread = 1.0 / n + 1.0 / m;
    if measured.before.kind == Kind::Number && measured.statistics.homogeneity.is_none() {
        return ((2.0 / alpha).ln() / 2.0 * spread).sqrt();
    }
    let chance: f64 = measured
        .picture
        .iter()
        .flat_map(|picture| {
            picture.before.iter().zip(&picture.after).map(|(a, b)| {
                let part = (a * n + b * m) / (n + m);
                (part * (1.0 - part) * spread * 2.0 / std::f64::consts::PI).sqrt() / 2.0
            })
        })
        .sum();
    chance + ((1.0 / alpha).ln() / 2.0 * spread).sqrt()
}
