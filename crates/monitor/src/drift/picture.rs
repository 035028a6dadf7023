//! The shape of a column before and after, in few bars.

use serde::{Deserialize, Serialize};

use super::statistics::{self, Pair};

/// Bars for numbers, and texts that have one of their own.
const BARS: usize = 20;
const CATEGORIES: usize = 8;

/// Bars of two samples side by side: parts of each, which add up to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Picture {
    /// What each bar is of: a text or number, or the lower end of an interval, the first and last
    /// of which hold everything beyond them too.
    pub bars: Vec<String>,
    /// Whether the bars are intervals in ascending order.
    pub intervals: bool,
    /// Parts before.
    pub before: Vec<f64>,
    /// Parts after.
    pub after: Vec<f64>,
}

/// Numbers in ascending order, neither of them none. `few`: a bar for each value.
pub(super) fn of_numbers(before: &[f64], after: &[f64], few: bool) -> Picture {
    if few {
        let counts = statistics::counts(before, after);
        let bars = counts.iter().map(|(value, _)| short(*value)).collect();
        return of(bars, &counts.iter().map(|(_, pair)| *pair).collect::<Vec<_>>(), false);
    }
    // Outliers would press all others into one bar.
    let at = |sample: &[f64], part: f64| sample[((sample.len() - 1) as f64 * part) as usize];
    let low = at(before, 0.005).min(at(after, 0.005));
    let high = at(before, 0.995).max(at(after, 0.995));
    let step = high / BARS as f64 - low / BARS as f64;
    let edges: Vec<f64> = (0..BARS).map(|i| low + i as f64 * step).collect();
    let below = |sample: &[f64], i: usize| match edges.get(i) {
        _ if i == 0 => 0,
        Some(edge) => sample.partition_point(|value| value < edge),
        None => sample.len(),
    };
    let count = |sample: &[f64], i: usize| (below(sample, i + 1) - below(sample, i)) as u64;
    let pairs: Vec<Pair> = (0..BARS).map(|i| (count(before, i), count(after, i))).collect();
    of(edges.into_iter().map(short).collect(), &pairs, true)
}

/// The most common texts of both, and all others as one.
pub(super) fn of_texts<'a>(
    counts: &[(u64, Pair)],
    spell: impl Fn(u64) -> Option<&'a str>,
) -> Picture {
    let mut counts = counts.to_vec();
    let (n, m) = counts.iter().fold((0, 0), |(n, m), (_, (a, b))| (n + a, m + b));
    let larger = |(a, b): Pair| (a as f64 / n as f64).max(b as f64 / m as f64);
    counts.sort_by(|x, y| larger(y.1).total_cmp(&larger(x.1)).then(x.0.cmp(&y.0)));
    let own = if counts.len() > CATEGORIES + 1 { CATEGORIES } else { counts.len() };
    let name = |hash: u64| spell(hash).map_or_else(|| format!("#{hash:016x}"), str::to_owned);
    let mut bars: Vec<String> = counts[..own].iter().map(|(hash, _)| name(*hash)).collect();
    let mut pairs: Vec<Pair> = counts[..own].iter().map(|(_, pair)| *pair).collect();
    let rest = &counts[own..];
    if !rest.is_empty() {
        bars.push(format!("{} others", rest.len()));
        pairs.push(rest.iter().fold((0, 0), |(n, m), (_, (a, b))| (n + a, m + b)));
    }
    of(bars, &pairs, false)
}

fn of(bars: Vec<String>, pairs: &[Pair], intervals: bool) -> Picture {
    let (n, m) = pairs.iter().fold((0, 0), |(n, m), (a, b)| (n + a, m + b));
    let (before, after) =
        pairs.iter().map(|(a, b)| (*a as f64 / n as f64, *b as f64 / m as f64)).unzip();
    Picture { bars, intervals, before, after }
}

/// Four digits that count.
pub fn short(number: f64) -> String {
    let size = number.abs();
    match number {
        _ if size == 0.0 => "0".to_owned(),
        _ if !(1e-4..1e9).contains(&size) => format!("{number:.3e}"),
        _ => {
            let decimals = (3 - size.log10().floor() as i32).max(0) as usize;
            let text = format!("{number:.decimals$}");
            match text.contains('.') {
                true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
                false => text,
            }
        }
    }
}
