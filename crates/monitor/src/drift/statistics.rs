//! How far two samples are apart. Each statistic is the one that scipy and Evidently compute under
//! its name; the table in `docs/drift.md` says which bins, bases and corrections that means.

/// Columns of numbers with at most this many different ones before are binned by value.
const FEW_VALUES: usize = 20;

/// Counts of one bin or category, before and after.
pub type Pair = (u64, u64);

/// The largest difference of the parts up to some number, and 0 if a sample is empty.
/// Both samples ascend.
pub fn kolmogorov_smirnov(before: &[f64], after: &[f64]) -> f64 {
    let (n, m) = (before.len() as f64, after.len() as f64);
    let mut largest: f64 = 0.0;
    steps(before, after, |i, j, _| largest = largest.max((i as f64 / n - j as f64 / m).abs()));
    largest
}

/// The least mean way that values have to go for one sample to become the other (Wasserstein-1).
/// Both samples ascend.
pub fn wasserstein(before: &[f64], after: &[f64]) -> f64 {
    let (n, m) = (before.len() as f64, after.len() as f64);
    let mut sum = 0.0;
    steps(before, after, |i, j, width| sum += (i as f64 / n - j as f64 / m).abs() * width);
    sum
}

/// Calls with the counts up to each different number, and how far the next one is.
fn steps(before: &[f64], after: &[f64], mut each: impl FnMut(usize, usize, f64)) {
    let (mut i, mut j) = (0, 0);
    if before.is_empty() || after.is_empty() {
        return;
    }
    let next = |i: usize, j: usize| match (before.get(i), after.get(j)) {
        (Some(x), Some(y)) => Some(x.min(*y)),
        (x, y) => x.or(y).copied(),
    };
    let mut here = next(i, j);
    while let Some(x) = here {
        while before.get(i) == Some(&x) {
            i += 1;
        }
        while after.get(j) == Some(&x) {
            j += 1;
        }
        here = next(i, j);
        each(i, j, here.map_or(0.0, |following| following - x));
    }
}

/// The standard deviation of all there are (not of a sample); 0 if there are none.
pub fn deviation(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    if values.is_empty() { 0.0 } else { (squares / n).sqrt() }
}

/// The population stability index: parts of zero are taken for 0.0001, or for a millionth of the
/// smallest part where that is smaller than 0.0001.
pub fn psi(bins: &[Pair]) -> f64 {
    let (mut before, mut after) = parts(bins);
    for side in [&mut before, &mut after] {
        let least = side.iter().copied().filter(|part| *part > 0.0).fold(f64::INFINITY, f64::min);
        let filled = if least <= 0.0001 { least / 1e6 } else { 0.0001 };
        side.iter_mut().filter(|part| **part == 0.0).for_each(|part| *part = filled);
    }
    before.iter().zip(&after).map(|(a, b)| (a - b) * (a / b).ln()).sum()
}

/// The distance of Jensen and Shannon: the square root of the divergence, with natural logarithms.
pub fn jensen_shannon(bins: &[Pair]) -> f64 {
    let (before, after) = parts(bins);
    let toward = |part: f64, middle: f64| match part > 0.0 {
        true => part * (part / middle).ln(),
        false => 0.0,
    };
    let terms = before.iter().zip(&after).map(|(a, b)| {
        let middle = (a + b) / 2.0;
        toward(*a, middle) + toward(*b, middle)
    });
    (terms.sum::<f64>() / 2.0).max(0.0).sqrt()
}

/// Half the sum of the differences of the parts.
pub fn total_variation(bins: &[Pair]) -> f64 {
    let (before, after) = parts(bins);
    before.iter().zip(&after).map(|(a, b)| (a - b).abs()).sum::<f64>() / 2.0
}

/// Pearson's chi-squared of what came after against what came before, which is taken for the
/// truth, and its degrees of freedom. This is Evidently's test. It calls twice the chance a drift
/// that there should be where both samples have one size, so no verdict is made of it.
pub fn goodness_of_fit(bins: &[Pair]) -> (f64, f64) {
    let (n, m) = totals(bins);
    let scale = m / n;
    let terms = bins.iter().map(|(a, b)| {
        let expected = *a as f64 * scale;
        (*b as f64 - expected).powi(2) / expected
    });
    (terms.sum(), bins.len() as f64 - 1.0)
}

/// Pearson's chi-squared of both samples against what they are together, and its degrees of
/// freedom. Each bin needs some rows: see [`pooled`].
pub fn homogeneity(bins: &[Pair]) -> (f64, f64) {
    let (n, m) = totals(bins);
    let all = n + m;
    let terms = bins.iter().map(|(a, b)| {
        let both = (a + b) as f64;
        let (x, y) = (both * n / all, both * m / all);
        (*a as f64 - x).powi(2) / x + (*b as f64 - y).powi(2) / y
    });
    (terms.sum(), bins.len() as f64 - 1.0)
}

/// The bins with those taken together, as the last one, of which fewer than 5 are expected on a
/// side; and the part of all rows that these are.
pub fn pooled(bins: &[Pair]) -> (Vec<Pair>, f64) {
    let (n, m) = totals(bins);
    let is_rare = |(a, b): &Pair| (a + b) as f64 * n.min(m) / (n + m) < 5.0;
    let mut kept: Vec<Pair> = bins.iter().copied().filter(|bin| !is_rare(bin)).collect();
    let rare = bins.iter().filter(|bin| is_rare(bin));
    let rare = rare.fold((0, 0), |(n, m), (a, b)| (n + a, m + b));
    if rare.0 + rare.1 > 0 {
        kept.push(rare);
    }
    (kept, (rare.0 + rare.1) as f64 / (n + m))
}

fn totals(bins: &[Pair]) -> (f64, f64) {
    let (n, m) = bins.iter().fold((0, 0), |(n, m), (a, b)| (n + a, m + b));
    (n as f64, m as f64)
}

fn parts(bins: &[Pair]) -> (Vec<f64>, Vec<f64>) {
    let (n, m) = totals(bins);
    bins.iter().map(|(a, b)| (*a as f64 / n, *b as f64 / m)).unzip()
}

/// How often each different value occurs in two ascending samples, with the value.
pub fn counts<T: Copy + PartialOrd>(before: &[T], after: &[T]) -> Vec<(T, Pair)> {
    let (mut i, mut j) = (0, 0);
    let mut counts = Vec::new();
    loop {
        let value = match (before.get(i), after.get(j)) {
            (Some(x), Some(y)) => *if y < x { y } else { x },
            (Some(x), None) => *x,
            (None, Some(y)) => *y,
            (None, None) => return counts,
        };
        let run =
            |sample: &[T], from: usize| sample[from..].iter().take_while(|v| **v == value).count();
        let (a, b) = (run(before, i), run(after, j));
        (i, j) = (i + a, j + b);
        counts.push((value, (a as u64, b as u64)));
    }
}

/// Whether so few different numbers occur that each is a bin of its own.
pub fn few_values(sorted: &[f64]) -> bool {
    sorted.chunk_by(|a, b| a == b).take(FEW_VALUES + 1).count() <= FEW_VALUES
}

/// The bins by which numbers are compared, as Evidently makes them: of one width from the smallest
/// to the largest number of both, as many as Sturges says (for whole numbers no narrower than 1),
/// the last one with its upper end; or one for each value, where there are few.
/// Both samples ascend.
pub fn bins(before: &[f64], after: &[f64], whole: bool) -> Vec<Pair> {
    if few_values(before) {
        return counts(before, after).into_iter().map(|(_, pair)| pair).collect();
    }
    let edges = edges(before, after, whole);
    let (mut i, mut j) = (0, 0);
    let last = edges.len() - 2;
    (0..=last)
        .map(|bin| {
            let upper = edges[bin + 1];
            let end = |sample: &[f64]| match bin == last {
                true => sample.len(),
                false => sample.partition_point(|value| *value < upper),
            };
            let pair = ((end(before) - i) as u64, (end(after) - j) as u64);
            (i, j) = (end(before), end(after));
            pair
        })
        .collect()
}

fn edges(before: &[f64], after: &[f64], whole: bool) -> Vec<f64> {
    let ends = [before, after].into_iter().flat_map(|sample| [sample.first(), sample.last()]);
    let ends = ends.flatten().copied();
    let (mut low, mut high) =
        ends.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(x), h.max(x)));
    if low == high {
        (low, high) = (low - 0.5, high + 0.5);
    }
    let sturges = ((before.len() + after.len()) as f64).log2() + 1.0;
    let width = (high - low) / sturges;
    let width = if whole { width.max(1.0) } else { width };
    let n = if width > 0.0 && width.is_finite() { ((high - low) / width).ceil() } else { 1.0 };
    let step = (high - low) / n;
    let mut edges: Vec<f64> = (0..n as usize).map(|i| i as f64 * step + low).collect();
    edges.push(high);
    edges
}
