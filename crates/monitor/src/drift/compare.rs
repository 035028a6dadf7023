//! One column before against after: every statistic, and each way in which it may have changed
//! with its effect and its evidence.

use serde::{Deserialize, Serialize};

use super::column::{Column, Kind, Numbers, Texts};
use super::picture::{self, Picture};
use super::significance;
use super::statistics::{self, Pair};

/// Columns of texts with more different ones than this are not compared.
pub const MOST_CATEGORIES: usize = 100_000;

/// Columns of texts more than this part of which are rare ones are not compared as a whole.
const MOST_RARE: f64 = 0.8;

/// What was measured of a column before and after. What could not be measured is not there.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// The column's name.
    pub column: String,
    /// What it was.
    pub before: Description,
    /// What it is.
    pub after: Description,
    /// How far both are apart, by each measure.
    pub statistics: Statistics,
    /// The ways in which it may have changed.
    pub changes: Vec<Change>,
    /// Why it cannot be compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_compared: Option<String>,
    /// Its shape before and after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub picture: Option<Picture>,
}

/// A column on one side. Infinite numbers are in none of mean, deviation, least, median and most.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // Each field is its own name.
pub struct Description {
    pub kind: Kind,
    pub rows: u64,
    pub missing: u64,
    pub infinite: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub median: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distinct: Option<u64>,
}

/// How far two columns are apart; [`statistics`](super::statistics) defines each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)] // Each field is its own name.
pub struct Statistics {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jensen_shannon: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_variation: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kolmogorov_smirnov: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kolmogorov_smirnov_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wasserstein: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wasserstein_normed: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chi_squared: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chi_squared_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub homogeneity: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub homogeneity_p: Option<f64>,
}

/// A way in which a column may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Which.
    pub what: What,
    /// How much: 0 is not at all, 1 is all of it.
    pub effect: f64,
    /// How likely chance alone makes at least this effect.
    pub p: f64,
}

/// The ways in which a column may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The shape of the distribution: for numbers the statistic of Kolmogorov and Smirnov, for
    /// texts, and numbers with at most 20 different values, the total variation, where all rare
    /// ones are one.
    Shift,
    /// The part that is missing, by how much it changed.
    Missing,
    /// The part that is infinite, by how much it changed.
    Infinite,
    /// The part of the numbers after that lies outside of those before.
    OutOfRange,
    /// The part of the texts after that never occurred before, less what chance explains where
    /// texts are rare.
    NewCategory,
    /// Numbers became texts, or texts numbers, or all of them are gone.
    TypeBreak,
}

/// Measures a column of two tables.
pub fn measure(column: impl Into<String>, before: &Column, after: &Column) -> Measured {
    let mut measured = Measured {
        column: column.into(),
        before: describe(before),
        after: describe(after),
        statistics: Statistics::default(),
        changes: Vec::new(),
        not_compared: None,
        picture: None,
    };
    match (before, after) {
        (Column::Numbers(before), Column::Numbers(after)) => numbers(&mut measured, before, after),
        (Column::Texts(before), Column::Texts(after)) => texts(&mut measured, before, after),
        (Column::Empty(_), _) | (_, Column::Empty(_)) => {
            let side = match (before.kind(), after.kind()) {
                (Kind::Empty, Kind::Empty) => "there is no value on either side",
                (Kind::Empty, _) => "there is no value before",
                _ => "there is no value after",
            };
            measured.not_compared = Some(side.to_owned());
        }
        _ => measured.changes.push(Change { what: What::TypeBreak, effect: 1.0, p: 0.0 }),
    }
    let (a, b) = (&measured.before, &measured.after);
    let sides = ((a.missing, a.rows), (b.missing, b.rows));
    measured.changes.push(rate(What::Missing, sides.0, sides.1));
    if a.infinite + b.infinite > 0 {
        let sides = ((a.infinite, a.rows), (b.infinite, b.rows));
        measured.changes.push(rate(What::Infinite, sides.0, sides.1));
    }
    measured
}

fn rate(what: What, (a, n): (u64, u64), (b, m): (u64, u64)) -> Change {
    let part = |of: u64, all: u64| if all == 0 { 0.0 } else { of as f64 / all as f64 };
    let effect = (part(a, n) - part(b, m)).abs();
    Change { what, effect, p: significance::parts((a, n), (b, m)) }
}

fn numbers(measured: &mut Measured, before: &Numbers, after: &Numbers) {
    let (a, b) = (&before.sorted[..], &after.sorted[..]);
    if a.is_empty() || b.is_empty() {
        measured.not_compared = Some("there is no finite number on one side".to_owned());
        return;
    }
    let bins = statistics::bins(a, b, before.whole && after.whole);
    let d = statistics::kolmogorov_smirnov(a, b);
    let p = significance::kolmogorov_smirnov(a.len(), b.len(), d);
    let wasserstein = statistics::wasserstein(a, b);
    let normed = wasserstein / statistics::deviation(a).max(0.001);
    measured.statistics = Statistics {
        kolmogorov_smirnov: Some(d),
        kolmogorov_smirnov_p: Some(p),
        wasserstein: Some(wasserstein),
        wasserstein_normed: Some(normed),
        ..of_bins(&bins)
    };
    let few = statistics::few_values(a) && statistics::few_values(b);
    let (effect, p) = match few {
        true => {
            let (pooled, _) = statistics::pooled(&bins);
            let (statistic, freedom) = statistics::homogeneity(&pooled);
            let p = significance::chi_squared(statistic, freedom);
            measured.statistics.homogeneity = Some(statistic);
            measured.statistics.homogeneity_p = Some(p);
            (statistics::total_variation(&pooled), p)
        }
        false => (d, p),
    };
    measured.changes.push(Change { what: What::Shift, effect, p });
    measured.changes.push(out_of_range(a, b));
    measured.picture = Some(picture::of_numbers(a, b, few));
}

fn of_bins(bins: &[Pair]) -> Statistics {
    Statistics {
        psi: Some(statistics::psi(bins)),
        jensen_shannon: Some(statistics::jensen_shannon(bins)),
        total_variation: Some(statistics::total_variation(bins)),
        ..Statistics::default()
    }
}

/// If both were one distribution, each of the ranks of all would be as likely after as before, so
/// that the `k` largest are all of after with the chance (m)ₖ / (n + m)ₖ. Either end is looked at.
fn out_of_range(before: &[f64], after: &[f64]) -> Change {
    let (n, m) = (before.len(), after.len());
    let below = after.partition_point(|value| *value < before[0]);
    let above = m - after.partition_point(|value| *value <= before[n - 1]);
    let chance = |k: usize| {
        let all = (n + m) as f64;
        let ln = |of: f64| libm::lgamma(of + 1.0) - libm::lgamma(of - k as f64 + 1.0);
        if k == 0 { 1.0 } else { (ln(m as f64) - ln(all)).exp() }
    };
    let p = (2.0 * chance(below).min(chance(above))).min(1.0);
    Change { what: What::OutOfRange, effect: (below + above) as f64 / m as f64, p }
}

fn texts(measured: &mut Measured, before: &Texts, after: &Texts) {
    let most = measured.before.distinct.max(measured.after.distinct).unwrap_or(0);
    if most > MOST_CATEGORIES as u64 {
        measured.not_compared = Some(format!(
            "it has {most} different texts, as an identifier has; up to {MOST_CATEGORIES} are compared"
        ));
        return;
    }
    let counts = statistics::counts(&before.hashes, &after.hashes);
    let bins: Vec<Pair> = counts.iter().map(|(_, pair)| *pair).collect();
    let (chi_squared, freedom) = statistics::goodness_of_fit(&bins);
    let (pooled, rare) = statistics::pooled(&bins);
    let (homogeneity, independent) = statistics::homogeneity(&pooled);
    let p = significance::chi_squared(homogeneity, independent);
    measured.statistics = Statistics {
        chi_squared: Some(chi_squared),
        chi_squared_p: Some(significance::chi_squared(chi_squared, freedom)),
        homogeneity: Some(homogeneity),
        homogeneity_p: Some(p),
        ..of_bins(&bins)
    };
    match rare > MOST_RARE {
        true => {
            measured.not_compared = Some(format!(
                "{:.0} % of its texts are rare ones, as an identifier's",
                100.0 * rare
            ));
        }
        false => {
            let effect = statistics::total_variation(&pooled);
            measured.changes.push(Change { what: What::Shift, effect, p });
        }
    }
    measured.changes.push(new_categories(&bins));
    let spell = |hash: u64| before.spelling(hash).or_else(|| after.spelling(hash));
    measured.picture = Some(picture::of_texts(&counts, spell));
}

/// A text that occurs `c` times in all has all of them after with a chance of at most (m/(n+m))ᶜ,
/// were both one distribution. That gives how many rows of new texts to expect of rare ones, and by
/// Markov's inequality how likely the number is that was seen.
fn new_categories(bins: &[Pair]) -> Change {
    let (n, m) = bins.iter().fold((0, 0), |(n, m), (a, b)| (n + a, m + b));
    let part = m as f64 / (n + m) as f64;
    let seen: u64 = bins.iter().filter(|(a, _)| *a == 0).map(|(_, b)| b).sum();
    let all = |(a, b): &Pair| (a + b) as f64;
    let expected: f64 = bins.iter().map(|bin| all(bin) * part.powf(all(bin))).sum();
    let effect = ((seen as f64 - expected) / m as f64).max(0.0);
    let p = if seen == 0 { 1.0 } else { (expected / seen as f64).min(1.0) };
    Change { what: What::NewCategory, effect, p }
}

fn describe(column: &Column) -> Description {
    let mut described = Description {
        kind: column.kind(),
        rows: column.rows(),
        missing: column.missing(),
        infinite: 0,
        mean: None,
        std: None,
        min: None,
        median: None,
        max: None,
        distinct: None,
    };
    let distinct = match column {
        Column::Numbers(numbers) => {
            let sorted = &numbers.sorted;
            described.infinite = numbers.infinite;
            (described.min, described.max) = (sorted.first().copied(), sorted.last().copied());
            described.median = sorted.get(sorted.len() / 2).copied();
            let mean = sorted.iter().sum::<f64>() / sorted.len() as f64;
            described.mean = Some(mean).filter(|mean| mean.is_finite());
            let std = Some(statistics::deviation(sorted));
            described.std = std.filter(|std| std.is_finite() && !sorted.is_empty());
            sorted.chunk_by(|a, b| a == b).count()
        }
        Column::Texts(texts) => texts.hashes.chunk_by(|a, b| a == b).count(),
        Column::Empty(_) => 0,
    };
    described.distinct = Some(distinct as u64);
    described
}
