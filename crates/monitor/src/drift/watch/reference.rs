//! What a feature is to look like: the places at which it is cut, and the part of all rows in each.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::super::{What, short};
use crate::profile;

/// Bins of numbers.
const BINS: usize = 16;

/// Texts that are watched one by one; all others are one.
const CATEGORIES: usize = 15;

/// What the parts of a profile may be off by beside chance: it keeps 256 quantiles.
const RESOLUTION: f64 = 0.004;

/// A feature as it was.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Reference {
    pub shape: Shape,
    /// The events that are counted, in this order.
    pub events: Vec<Event>,
    /// Parts of the rows with a value that are in each bin.
    pub parts: Vec<f64>,
}

/// How a value finds its bin.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Shape {
    /// Bin `i` holds what is above cut `i - 1` and up to cut `i`.
    Numbers { cuts: Vec<f64>, min: f64, max: f64 },
    /// Each text has a bin; the last one is of all others.
    Texts { bins: HashMap<String, usize>, names: Vec<String> },
}

/// Something that happens in a part of the rows.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Event {
    pub kind: Happens,
    /// The part of the rows in which it happened.
    pub part: f64,
    /// Rows that the part was found in.
    pub rows: f64,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Happens {
    /// A number is up to this cut.
    UpTo(usize),
    /// A text is this one.
    Is(usize),
    /// There is no value.
    Missing,
    /// A number is infinite.
    Infinite,
    /// A number is outside of what there was.
    Outside,
    /// A text is one that there was not.
    New,
    /// A value is not of the kind that there was.
    Other,
}

impl Happens {
    /// The change that it is evidence of.
    pub fn what(self) -> What {
        match self {
            Self::UpTo(_) | Self::Is(_) => What::Shift,
            Self::Missing => What::Missing,
            Self::Infinite => What::Infinite,
            Self::Outside => What::OutOfRange,
            Self::New => What::NewCategory,
            Self::Other => What::TypeBreak,
        }
    }
}

impl Reference {
    /// That of a column of a profile; nothing if it has no value.
    pub fn new(column: &profile::Column) -> Option<Self> {
        let rows = (column.count + column.missing) as f64;
        let mut built = match column.kind {
            profile::Kind::Empty => return None,
            profile::Kind::Number => Self::of_numbers(column)?,
            profile::Kind::Text => Self::of_texts(column),
        };
        let mut add = |kind, part: f64| built.events.push(Event { kind, part, rows });
        add(Happens::Missing, column.missing as f64 / rows);
        if column.kind == profile::Kind::Number {
            add(Happens::Infinite, column.infinite as f64 / rows);
            add(Happens::Other, 0.0);
        }
        Some(built)
    }

    fn of_numbers(column: &profile::Column) -> Option<Self> {
        let (min, max) = (column.min?, column.max?);
        let mut cuts: Vec<f64> = Vec::new();
        for i in 1..BINS {
            let cut = column.quantile(i as f64 / BINS as f64)?;
            // The last value's part goes without saying.
            if cuts.last() != Some(&cut) && cut < max {
                cuts.push(cut);
            }
        }
        let up_to: Vec<f64> =
            cuts.iter().map(|cut| column.fraction_up_to(*cut)).collect::<Option<_>>()?;
        let rows = column.count as f64;
        let event = |(i, part): (usize, &f64)| Event { kind: Happens::UpTo(i), part: *part, rows };
        let mut events: Vec<Event> = up_to.iter().enumerate().map(event).collect();
        events.push(Event { kind: Happens::Outside, part: 0.0, rows });
        let mut below = 0.0;
        let parts =
            up_to.iter().chain([&1.0]).map(|part| part - std::mem::replace(&mut below, *part));
        Some(Self { parts: parts.collect(), shape: Shape::Numbers { cuts, min, max }, events })
    }

    fn of_texts(column: &profile::Column) -> Self {
        let rows = column.count as f64;
        let known = column.top.iter().filter(|(_, count)| *count > column.top_error);
        let common: Vec<&(String, u64)> = known.take(CATEGORIES).collect();
        let mut parts: Vec<f64> =
            common.iter().map(|(_, count)| (count - column.top_error / 2) as f64 / rows).collect();
        parts.push((1.0 - parts.iter().sum::<f64>()).max(0.0));
        let event = |(i, part): (usize, &f64)| Event { kind: Happens::Is(i), part: *part, rows };
        let mut events: Vec<Event> = parts.iter().enumerate().map(event).collect();
        let mut names: Vec<String> = common.iter().map(|(name, _)| name.clone()).collect();
        let mut bins: HashMap<String, usize> = HashMap::new();
        // A profile that has seen more texts than it lists does not know what is new.
        if column.distinct <= column.top.len() as u64 {
            events.push(Event { kind: Happens::New, part: 0.0, rows });
            let rare = common.len();
            column.top.iter().for_each(|(name, _)| {
                bins.insert(name.clone(), rare);
            });
        }
        for (bin, name) in names.iter().enumerate() {
            bins.insert(name.clone(), bin);
        }
        names.push("others".into());
        Self { shape: Shape::Texts { bins, names }, events, parts }
    }

    /// How many bins there are.
    pub fn bins(&self) -> usize {
        self.parts.len()
    }

    /// What each bin holds, in words.
    pub fn names(&self) -> Vec<String> {
        match &self.shape {
            Shape::Numbers { cuts, min, .. } => {
                std::iter::once(min).chain(cuts).map(|from| short(*from)).collect()
            }
            Shape::Texts { names, .. } => names.clone(),
        }
    }

    /// Whether bins are intervals in ascending order.
    pub fn intervals(&self) -> bool {
        matches!(self.shape, Shape::Numbers { .. })
    }
}

impl Event {
    /// How far the part may be from the truth: by chance, at this level, by the bound of Bernstein, and
    /// by what a profile leaves out.
    pub fn uncertainty(&self, level: f64) -> f64 {
        let log = (2.0 / level).ln();
        let resolution = match self.kind {
            Happens::UpTo(_) => RESOLUTION,
            _ => 0.0,
        };
        // The part itself is known only so well, too.
        let variance = (self.part * (1.0 - self.part)).max(1.0 / self.rows.max(1.0));
        (2.0 * variance * log / self.rows).sqrt() + log / (3.0 * self.rows) + resolution
    }
}
