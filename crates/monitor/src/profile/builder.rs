//! Values in, a profile out.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::distinct::Distinct;
use super::frequent::Frequent;
use super::quantiles::Quantiles;
use super::{Column, Kind, LARGEST, Profile, QUANTILES, SCHEMA, TOP};

/// One cell of a table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// A number; NaN is missing.
    Number(f64),
    /// Anything else, as text.
    Text(&'a str),
    /// Text that may be a number: a column all of whose values are is one of numbers.
    Untyped(&'a str),
    /// Nothing.
    Missing,
}

/// Sees a table row by row, or column by column. Its memory is bounded by the number of columns.
#[derive(Clone, Debug)]
pub struct Builder {
    rows: u64,
    columns: Vec<ColumnBuilder>,
}

#[derive(Clone, Debug)]
struct ColumnBuilder {
    name: String,
    count: u64,
    missing: u64,
    texts: bool,
    numbers: Numbers,
    distinct: Distinct,
    frequent: Frequent,
}

/// Moments by the recurrences of Welford and Chan, which lose nothing to large means.
#[derive(Clone, Debug, Default)]
struct Numbers {
    finite: u64,
    infinite: u64,
    min: f64,
    max: f64,
    mean: f64,
    squares: f64,
    quantiles: Quantiles,
}

impl Builder {
    /// A table with these columns and no rows yet.
    pub fn new<N: Into<String>>(columns: impl IntoIterator<Item = N>) -> Self {
        let columns = columns.into_iter().map(|name| ColumnBuilder::new(name.into())).collect();
        Self { rows: 0, columns }
    }

    /// Takes a row. Cells that are not there are missing; more than there are columns are not
    /// looked at.
    pub fn row<'a>(&mut self, cells: impl IntoIterator<Item = Value<'a>>) {
        self.rows += 1;
        let mut cells = cells.into_iter();
        for column in &mut self.columns {
            column.insert(cells.next().unwrap_or(Value::Missing));
        }
    }

    /// Takes cells of one column, by position; [`Self::add_rows`] counts the rows.
    pub fn cells<'a>(&mut self, column: usize, cells: impl IntoIterator<Item = Value<'a>>) {
        if let Some(column) = self.columns.get_mut(column) {
            cells.into_iter().for_each(|cell| column.insert(cell));
        }
    }

    /// Counts rows whose cells are handed in column by column.
    pub fn add_rows(&mut self, rows: u64) {
        self.rows += rows;
    }

    /// Takes all that another has seen of a table with the same columns.
    pub fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        for (own, other) in self.columns.iter_mut().zip(&other.columns) {
            own.merge(other);
        }
    }

    /// The profile of what has been seen.
    pub fn finish(&self) -> Profile {
        Profile {
            schema: SCHEMA.to_owned(),
            rows: self.rows,
            data: None,
            matched: None,
            columns: self.columns.iter().map(ColumnBuilder::finish).collect(),
        }
    }
}

impl ColumnBuilder {
    fn new(name: String) -> Self {
        Self {
            name,
            count: 0,
            missing: 0,
            texts: false,
            numbers: Numbers::default(),
            distinct: Distinct::default(),
            frequent: Frequent::default(),
        }
    }

    fn insert(&mut self, cell: Value<'_>) {
        match cell {
            Value::Missing => self.missing += 1,
            Value::Number(number) if number.is_nan() => self.missing += 1,
            Value::Number(number) => {
                self.numbers.insert(number);
                // A column of many different numbers has no frequent ones worth the while.
                if self.texts || self.frequent.distinct().is_some() {
                    self.value(&number.to_string());
                } else {
                    self.count += 1;
                    self.distinct.insert(hash(&number.to_string()));
                }
            }
            Value::Text(text) => {
                self.texts = true;
                self.value(text);
            }
            Value::Untyped(text) => match text.trim().parse::<f64>() {
                Ok(number) if number.is_nan() => self.missing += 1,
                Ok(number) => {
                    self.numbers.insert(number);
                    self.value(text.trim());
                }
                Err(_) => {
                    self.texts = true;
                    self.value(text);
                }
            },
        }
    }

    fn value(&mut self, text: &str) {
        self.count += 1;
        self.distinct.insert(hash(text));
        self.frequent.insert(text, 1);
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.missing += other.missing;
        self.texts |= other.texts;
        self.numbers.merge(&other.numbers);
        self.distinct.merge(&other.distinct);
        self.frequent.merge(&other.frequent);
    }

    fn finish(&self) -> Column {
        let kind = match (self.count, self.texts) {
            (0, _) => Kind::Empty,
            (_, true) => Kind::Text,
            (_, false) => Kind::Number,
        };
        let exact = self.frequent.distinct();
        let (top, top_error) = match kind {
            Kind::Number if exact.is_none() => (Vec::new(), 0),
            _ => self.frequent.finish(TOP),
        };
        let mut column = Column {
            name: self.name.clone(),
            kind,
            count: self.count,
            missing: self.missing,
            infinite: 0,
            min: None,
            max: None,
            mean: None,
            std: None,
            quantiles: Vec::new(),
            distinct: exact.unwrap_or_else(|| self.distinct.estimate()),
            top,
            top_error,
        };
        if kind == Kind::Number {
            self.numbers.describe(&mut column);
        }
        column
    }
}

impl Numbers {
    fn insert(&mut self, number: f64) {
        // JSON has no infinity, and not every reader has the very largest numbers.
        let within = number.clamp(-LARGEST, LARGEST);
        self.quantiles.insert(within);
        if number.is_infinite() {
            self.infinite += 1;
            return;
        }
        let number = within;
        let one = Self { finite: 1, min: number, max: number, mean: number, ..Self::default() };
        self.moments(&one);
    }

    fn merge(&mut self, other: &Self) {
        self.quantiles.merge(&other.quantiles);
        self.infinite += other.infinite;
        if other.finite > 0 {
            self.moments(other);
        }
    }

    fn moments(&mut self, other: &Self) {
        if self.finite == 0 {
            (self.min, self.max) = (other.min, other.max);
        }
        let (a, b) = (self.finite as f64, other.finite as f64);
        let difference = other.mean - self.mean;
        self.mean += difference * b / (a + b);
        self.squares += other.squares + difference * difference * a * b / (a + b);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.finite += other.finite;
    }

    fn describe(&self, column: &mut Column) {
        column.infinite = self.infinite;
        column.quantiles = self.quantiles.finish(QUANTILES);
        // What overflows is not known; JSON could not say it either.
        let known = |number: f64| number.is_finite().then_some(number);
        if self.finite > 0 {
            (column.min, column.max) = (known(self.min), known(self.max));
            column.mean = known(self.mean);
        }
        if self.finite > 1 {
            column.std = known((self.squares / (self.finite - 1) as f64).sqrt());
        }
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
