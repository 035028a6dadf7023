//! The profile of a table: for each column how many values it has, where they lie, and which are
//! the most frequent. Written as JSON of the schema [`SCHEMA`], which is described field by field
//! at [`Profile`] and [`Column`].

mod builder;
mod distinct;
mod frequent;
mod quantiles;

use serde::{Deserialize, Serialize};

pub use builder::{Builder, Value};

/// The schema of what [`Profile`] is written as. A reader refuses what has another number.
pub const SCHEMA: &str = "modelyard.profile/1";

/// The most quantiles that a column keeps.
pub const QUANTILES: usize = 256;

/// The most frequent values that a column keeps.
pub const TOP: usize = 64;

/// What a table looks like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Rows of the table.
    pub rows: u64,
    /// Where the data came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Origin>,
    /// How the columns fit the model's inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched: Option<Matched>,
    /// The columns, in the table's order.
    pub columns: Vec<Column>,
}

/// The file that was profiled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Its name, without its folder.
    pub name: String,
    /// `sha256:` and the digest of its bytes.
    pub digest: String,
}

/// How the columns of a table fit the inputs of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matched {
    /// Each input that columns were found for: one of its name, or for a matrix one for each of
    /// its columns, in order.
    pub inputs: Vec<Input>,
    /// Inputs that the table has nothing for.
    pub missing: Vec<String>,
    /// Columns that no input takes: targets, keys.
    pub extra: Vec<String>,
}

/// An input and its columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The input.
    pub name: String,
    /// Its columns.
    pub columns: Vec<String>,
}

/// What kind of values a column has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Every value is a number.
    Number,
    /// Some value is not.
    Text,
    /// There is no value.
    Empty,
}

/// What a column looks like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What its values are.
    pub kind: Kind,
    /// How many values it has, missing ones left out.
    pub count: u64,
    /// How many are missing: null, empty in a CSV file, NaN.
    pub missing: u64,
    /// How many are infinite. They count, and stand at the ends of the quantiles as
    /// [`LARGEST`]; mean and deviation leave them out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub infinite: u64,
    /// The smallest finite number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The largest finite number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// The mean of the finite numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// Their standard deviation, as that of a sample (n - 1); nothing for fewer than two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub std: Option<f64>,
    /// Numbers in ascending order, each of which stands for the same part of the column: number `i`
    /// of `k` is at the rank (i + ½) / k. All of them where there are at most [`QUANTILES`]; else
    /// their rank is off by at most [`RANK_ERROR`]. Two columns are merged by taking each number
    /// with the weight count / k.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quantiles: Vec<f64>,
    /// How many different values there are; exact up to 1,024, estimated within some percent beyond.
    pub distinct: u64,
    /// The most frequent values with how often each occurs, most frequent first. For a column of
    /// numbers only where there are at most 1,024 different ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<(String, u64)>,
    /// By how much a count in `top` may be too high; a value that is not in `top` may be as
    /// frequent as that, or as the last of `top`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub top_error: u64,
}

/// Numbers beyond this, on either side, are taken for it.
pub const LARGEST: f64 = 1e308;

/// How far the rank of a quantile may be off, as a part of all values, for up to ten thousand
/// million of them. What is seen on real data is a tenth of it.
pub const RANK_ERROR: f64 = 0.01;

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Profile {
    /// Reads what was written, and says what is wrong with it.
    pub fn read(json: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Version {
            schema: String,
        }
        let version: Version = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if version.schema != SCHEMA {
            let shown: String = version.schema.chars().take(50).collect();
            return Err(format!("its schema is {shown:?}, and only {SCHEMA:?} is known"));
        }
        serde_json::from_slice(json).map_err(|error| error.to_string())
    }

    /// A column by its name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

impl Column {
    /// The part of the numbers that is at most `x`, from 0 to 1; nothing if there are none.
    pub fn fraction_up_to(&self, x: f64) -> Option<f64> {
        let k = self.quantiles.len();
        (k > 0).then(|| self.quantiles.partition_point(|value| *value <= x) as f64 / k as f64)
    }

    /// The number below which a part `p` (0 to 1) of the column lies; nothing if there are none.
    pub fn quantile(&self, p: f64) -> Option<f64> {
        let last = self.quantiles.len().checked_sub(1)?;
        let place = (p.clamp(0.0, 1.0) * self.quantiles.len() as f64) as usize;
        self.quantiles.get(place.min(last)).copied()
    }

    /// How far two columns are from each other, from 0 (alike) to 1: for numbers the largest
    /// difference of the parts up to some number (the statistic of Kolmogorov and Smirnov), for
    /// texts half the sum of the differences of the frequencies (the total variation), where what
    /// is not among the most frequent is taken as one value. Nothing if they cannot be compared.
    pub fn distance(&self, other: &Self) -> Option<f64> {
        match (self.kind, other.kind) {
            (Kind::Number, Kind::Number) => {
                let points = self.quantiles.iter().chain(&other.quantiles);
                let differences = points.map(|x| {
                    let (a, b) = (self.fraction_up_to(*x), other.fraction_up_to(*x));
                    (a.unwrap_or_default() - b.unwrap_or_default()).abs()
                });
                Some(differences.fold(0.0, f64::max))
            }
            (Kind::Text, Kind::Text) => {
                let part = |column: &Self, value: &str| {
                    let count = column.top.iter().find(|(known, _)| known == value);
                    count.map_or(0.0, |(_, count)| *count as f64 / column.count as f64)
                };
                let values = self.top.iter().chain(&other.top).map(|(value, _)| value.as_str());
                let values: std::collections::BTreeSet<&str> = values.collect();
                let (mut sum, mut rest) = (0.0, 0.0);
                for value in values {
                    let (a, b) = (part(self, value), part(other, value));
                    sum += (a - b).abs();
                    rest += b - a;
                }
                Some(((sum + f64::abs(rest)) / 2.0).min(1.0))
            }
            _ => None,
        }
    }
}
