//! What was seen of a feature: how many rows in each bin, and beside them.

use serde::{Deserialize, Serialize};

use super::reference::{Happens, Reference, Shape};

/// Counts of rows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Counts {
    pub bins: Vec<u32>,
    pub missing: u32,
    pub infinite: u32,
    pub outside: u32,
    pub new: u32,
    pub other: u32,
}

impl Counts {
    pub fn new(bins: usize) -> Self {
        Self { bins: vec![0; bins], ..Self::default() }
    }

    /// Counts a number. Texts are looked up as they are written.
    #[inline]
    pub fn number(&mut self, reference: &Reference, number: f64) {
        match &reference.shape {
            Shape::Numbers { cuts, min, max } if number.is_finite() => {
                let bin = cuts.partition_point(|cut| *cut < number);
                self.bins[bin] += 1;
                self.outside += u32::from(number < *min || number > *max);
            }
            Shape::Texts { .. } if number.is_finite() => {
                self.text(reference, &number.to_string());
            }
            _ if number.is_nan() => self.missing += 1,
            _ => self.infinite += 1,
        }
    }

    /// Counts a text. Where there were numbers, it has to be one.
    pub fn text(&mut self, reference: &Reference, text: &str) {
        match &reference.shape {
            _ if text.is_empty() => self.missing += 1,
            Shape::Texts { bins, .. } => {
                let known = bins.get(text).copied();
                self.bins[known.unwrap_or(reference.bins() - 1)] += 1;
                self.new += u32::from(known.is_none());
            }
            Shape::Numbers { .. } => match text.trim().parse().ok() {
                Some(number) => self.number(reference, number),
                None => self.other += 1,
            },
        }
    }

    /// Rows with a value that has a bin.
    pub fn values(&self) -> u64 {
        self.bins.iter().map(|count| u64::from(*count)).sum()
    }

    /// All rows.
    pub fn rows(&self) -> u64 {
        self.values() + [self.missing, self.infinite, self.other].map(u64::from).iter().sum::<u64>()
    }

    /// How often something happened, and in how many rows it could have.
    pub fn of(&self, happens: Happens) -> (u64, u64) {
        let count = |count: u32, rows: u64| (u64::from(count), rows);
        match happens {
            Happens::UpTo(cut) => {
                let hits = self.bins[..=cut].iter().map(|count| u64::from(*count)).sum();
                (hits, self.values())
            }
            Happens::Is(bin) => count(self.bins[bin], self.values()),
            Happens::Outside => count(self.outside, self.values()),
            Happens::New => count(self.new, self.values()),
            Happens::Missing => count(self.missing, self.rows()),
            Happens::Infinite => count(self.infinite, self.rows()),
            Happens::Other => count(self.other, self.rows()),
        }
    }

    /// Adds what another has counted.
    pub fn add(&mut self, other: &Self) {
        let add = |own: &mut u32, other: u32| *own = own.saturating_add(other);
        self.bins.iter_mut().zip(&other.bins).for_each(|(own, other)| add(own, *other));
        add(&mut self.missing, other.missing);
        add(&mut self.infinite, other.infinite);
        add(&mut self.outside, other.outside);
        add(&mut self.new, other.new);
        add(&mut self.other, other.other);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.bins.fill(0);
        let bins = std::mem::take(&mut self.bins);
        *self = Self { bins, ..Self::default() };
    }
}
