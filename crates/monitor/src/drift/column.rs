//! A column of a table, as it is compared with another.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Serialize;

/// Texts whose spelling is remembered, and how much of one.
const SPELLED: usize = 1 << 16;
const LONGEST: usize = 64;

/// A column: 8 bytes for each value.
#[derive(Clone, Debug)]
pub enum Column {
    /// Every value is a number.
    Numbers(Numbers),
    /// Some value is not.
    Texts(Texts),
    /// There is no value in so many rows.
    Empty(u64),
}

/// What kind of values a column has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // Each variant is its own name.
pub enum Kind {
    Number,
    Text,
    Empty,
}

/// Numbers in ascending order. Neither NaN nor infinite ones are among them.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    pub(super) sorted: Vec<f64>,
    pub(super) missing: u64,
    pub(super) infinite: u64,
    pub(super) whole: bool,
}

impl Numbers {
    /// Takes numbers in any order. NaN counts as missing, beside those that are not even there.
    /// `whole`: the column can hold whole numbers alone, by its type.
    pub fn new(mut values: Vec<f64>, missing: u64, whole: bool) -> Self {
        let all = values.len() as u64;
        values.retain(|value| !value.is_nan());
        let numbers = values.len() as u64;
        values.retain(|value| value.is_finite());
        // Adding nothing makes the two zeros one.
        values.iter_mut().for_each(|value| *value += 0.0);
        values.sort_unstable_by(f64::total_cmp);
        Self {
            missing: missing + all - numbers,
            infinite: numbers - values.len() as u64,
            whole: whole && missing == 0 && numbers == all,
            sorted: values,
        }
    }
}

/// Texts by their hashes, and how the first 65,536 different ones are spelled.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    pub(super) hashes: Vec<u64>,
    pub(super) missing: u64,
    spelled: HashMap<u64, Box<str>>,
}

impl Texts {
    /// Takes one text.
    pub fn insert(&mut self, text: &str) {
        let hash = self.learn(text);
        self.hashes.push(hash);
    }

    /// The hash by which a text may be [repeated](Self::repeat).
    pub fn learn(&mut self, text: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let hash = hasher.finish();
        if self.spelled.len() < SPELLED && !self.spelled.contains_key(&hash) {
            let short = text.char_indices().nth(LONGEST).map_or(text, |(end, _)| &text[..end]);
            self.spelled.insert(hash, short.into());
        }
        hash
    }

    /// Takes a text again of which the hash is known.
    pub fn repeat(&mut self, hash: u64) {
        self.hashes.push(hash);
    }

    /// Counts a text that is not there.
    pub fn skip(&mut self) {
        self.missing += 1;
    }

    /// The column, once it has all texts.
    pub fn finish(mut self) -> Column {
        self.hashes.sort_unstable();
        match self.hashes.is_empty() {
            true => Column::Empty(self.missing),
            false => Column::Texts(self),
        }
    }

    pub(super) fn spelling(&self, hash: u64) -> Option<&str> {
        self.spelled.get(&hash).map(AsRef::as_ref)
    }
}

impl From<Numbers> for Column {
    fn from(numbers: Numbers) -> Self {
        match numbers.sorted.is_empty() && numbers.infinite == 0 {
            true => Self::Empty(numbers.missing),
            false => Self::Numbers(numbers),
        }
    }
}

impl Column {
    /// What kind of values there are.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Numbers(_) => Kind::Number,
            Self::Texts(_) => Kind::Text,
            Self::Empty(_) => Kind::Empty,
        }
    }

    /// How many values are missing.
    pub fn missing(&self) -> u64 {
        match self {
            Self::Numbers(numbers) => numbers.missing,
            Self::Texts(texts) => texts.missing,
            Self::Empty(rows) => *rows,
        }
    }

    /// How many values there are, infinite ones among them.
    pub fn count(&self) -> u64 {
        match self {
            Self::Numbers(numbers) => numbers.sorted.len() as u64 + numbers.infinite,
            Self::Texts(texts) => texts.hashes.len() as u64,
            Self::Empty(_) => 0,
        }
    }

    /// How many rows it has.
    pub fn rows(&self) -> u64 {
        self.count() + self.missing()
    }
}
