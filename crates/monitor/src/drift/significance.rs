//! How likely a difference is that chance alone makes: the distributions of the tests' statistics.

use std::f64::consts::PI;

/// Samples up to this size get the exact distribution of Kolmogorov's and Smirnov's statistic.
const EXACT: usize = 10_000;

/// The probability that two samples of one distribution, of `n` and `m` numbers, are at least `d`
/// apart by the statistic of Kolmogorov and Smirnov; 1 if a sample is empty. Exact where both have
/// at most 10,000 numbers, by Smirnov's limit beyond, as `scipy.stats.ks_2samp`.
pub fn kolmogorov_smirnov(n: usize, m: usize, d: f64) -> f64 {
    if n == 0 || m == 0 {
        return 1.0;
    }
    let (wide, narrow) = (n as f64, m as f64);
    let effective = wide * narrow / (wide + narrow);
    let p = match n.max(m) <= EXACT {
        // So far out that the paths would be counted in vain.
        true if d * d * effective > 40.0 && n != m => 2.0 * (-2.0 * d * d * effective).exp(),
        true => exact(n, m, d),
        false => kolmogorov_smirnov_limit(effective.round_ties_even(), d),
    };
    p.clamp(0.0, 1.0)
}

/// By counting paths through the lattice of `n` × `m` that leave the corridor.
fn exact(n: usize, m: usize, d: f64) -> f64 {
    let common = greatest_common_divisor(n, m);
    let (step_y, step_x) = ((n / common) as i64, (m / common) as i64);
    let height = (d * (n as f64 * step_x as f64)).round() as i64;
    match height {
        ..=0 => 1.0,
        _ if n == m => outside_square(n as f64, height as f64),
        _ => outside((n, m), (step_x, step_y), height),
    }
}

/// Two samples of one size: reflections at the corridor's walls, each of which is a product.
fn outside_square(n: f64, height: f64) -> f64 {
    let mut p = 0.0;
    for wall in (0..=(n / height).floor() as i64).rev() {
        let reached = wall as f64 * height;
        let factor = |j: i64| (n - reached - j as f64) / (n + reached + j as f64 + 1.0);
        p = (0..height as i64).map(factor).product::<f64>() * (1.0 - p);
    }
    2.0 * p
}

/// The part of all paths from (0, 0) to (n, m) that touch |x · step_x − y · step_y| ≥ height: a
/// path is followed with the chance of each step, and what leaves is added up.
fn outside((n, m): (usize, usize), (step_x, step_y): (i64, i64), height: i64) -> f64 {
    let mut left = 0.0;
    let mut mass = vec![0.0; m + 2];
    mass[0] = 1.0;
    let inside = |x: usize, y: usize| (x as i64 * step_x - y as i64 * step_y).abs() < height;
    let mut first = 0;
    for x in 0..=n {
        let mut y = first;
        // What came here from the row before, in ascending order; then to its right and up.
        let mut start = None;
        while y <= m {
            if !inside(x, y) {
                left += std::mem::take(&mut mass[y]);
                if start.is_some() {
                    break;
                }
                y += 1;
                continue;
            }
            start.get_or_insert(y);
            let here = std::mem::take(&mut mass[y]);
            let remaining = (n + m - x - y) as f64;
            if remaining > 0.0 {
                let up = here * (m - y) as f64 / remaining;
                mass[y + 1] += up;
                mass[y] = here - up;
                if x == n {
                    mass[y] = 0.0;
                }
            }
            y += 1;
        }
        first = start.unwrap_or(y);
        if first > m {
            break;
        }
    }
    left
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// The probability that the empirical distribution of `n` numbers is more than `d` from the true
/// one, chosen among methods as in Simard and L'Ecuyer, "Computing the two-sided
/// Kolmogorov-Smirnov distribution" (Journal of Statistical Software, 2011).
pub fn kolmogorov_smirnov_limit(n: f64, d: f64) -> f64 {
    let t = n * d;
    let square = t * d;
    match () {
        () if d >= 1.0 => 0.0,
        () if t <= 0.5 => 1.0,
        () if t <= 1.0 => 1.0 - (ln_factorial(n) - n * n.ln() + n * (2.0 * t - 1.0).ln()).exp(),
        () if t >= n - 1.0 => 2.0 * (1.0 - d).powf(n),
        () if square >= 370.0 => 0.0,
        () if d >= 0.5 || square >= if n <= 140.0 { 4.0 } else { 2.2 } => 2.0 * one_sided(n, d),
        () if n <= 140.0 || (n <= 1e5 && n * d.powf(1.5) <= 1.4) => 1.0 - by_matrix(n, d),
        () => 1.0 - by_series(n, d),
    }
}

/// The same on one side (Smirnov, 1944).
fn one_sided(n: f64, d: f64) -> f64 {
    if n > 1e6 {
        return (-(6.0 * n * d + 1.0).powi(2) / (18.0 * n)).exp();
    }
    let (mut ln_choose, mut sum) = (0.0, 0.0);
    for j in 0..=(n * (1.0 - d)).floor() as u64 {
        let j = j as f64;
        let (inner, outer) = (d + j / n, 1.0 - d - j / n);
        if outer > 0.0 {
            sum += (ln_choose + (j - 1.0) * inner.ln() + (n - j) * outer.ln()).exp();
        }
        ln_choose += ((n - j) / (j + 1.0)).ln();
    }
    d * sum
}

/// A power of a matrix (Durbin, 1973, as Marsaglia, Tsang and Wang compute it, 2003).
fn by_matrix(n: f64, d: f64) -> f64 {
    let k = (n * d).floor() as usize + 1;
    let size = 2 * k - 1;
    let h = k as f64 - n * d;
    let mut base = vec![0.0; size * size];
    for i in 0..size {
        for j in 0..size.min(i + 2) {
            base[i * size + j] = 1.0;
        }
    }
    for i in 0..size {
        base[i * size] -= h.powi(i as i32 + 1);
        base[(size - 1) * size + i] -= h.powi((size - i) as i32);
    }
    base[(size - 1) * size] += (2.0 * h - 1.0).max(0.0).powi(size as i32);
    for i in 0..size {
        for j in 0..size.min(i + 1) {
            base[i * size + j] /= ln_factorial((i - j + 1) as f64).exp();
        }
    }
    let (power, exponent) = matrix_power(base, size, n as u64);
    let scaled = power[(k - 1) * size + k - 1].ln() + exponent * 140.0 * std::f64::consts::LN_10;
    (scaled + ln_factorial(n) - n * n.ln()).exp()
}

/// A matrix to a power, and how often 10^140 was taken out of it.
fn matrix_power(mut base: Vec<f64>, size: usize, mut power: u64) -> (Vec<f64>, f64) {
    let product = |a: &[f64], b: &[f64]| {
        let mut result = vec![0.0; size * size];
        for i in 0..size {
            for k in 0..size {
                let factor = a[i * size + k];
                for j in 0..size {
                    result[i * size + j] += factor * b[k * size + j];
                }
            }
        }
        result
    };
    let shrink = |matrix: &mut [f64], exponent: &mut f64| {
        if matrix[size / 2 * size + size / 2] > 1e140 {
            matrix.iter_mut().for_each(|value| *value *= 1e-140);
            *exponent += 1.0;
        }
    };
    let mut result: Vec<f64> =
        (0..size * size).map(|i| f64::from(u8::from(i % (size + 1) == 0))).collect();
    let (mut of_base, mut of_result) = (0.0, 0.0);
    while power > 0 {
        if power & 1 == 1 {
            result = product(&result, &base);
            of_result += of_base;
            shrink(&mut result, &mut of_result);
        }
        base = product(&base, &base);
        of_base *= 2.0;
        shrink(&mut base, &mut of_base);
        power >>= 1;
    }
    (result, of_result)
}

/// The limit with the terms to n^(-3/2) (Pelz and Good, 1976).
fn by_series(n: f64, d: f64) -> f64 {
    let z = n.sqrt() * d;
    let (z2, z4, z6) = (z.powi(2), z.powi(4), z.powi(6));
    let root = (2.0 * PI).sqrt();
    let mut sums = [0.0; 4];
    for m in (1..200).step_by(2).map(f64::from) {
        let weight = (-PI * PI * m * m / (8.0 * z2)).exp();
        if weight == 0.0 {
            break;
        }
        let (p2, p4, p6) = ((PI * m).powi(2), (PI * m).powi(4), (PI * m).powi(6));
        sums[0] += weight;
        sums[1] += weight * (p2 / 4.0 - z2);
        sums[2] += weight
            * (6.0 * z6
                + 2.0 * z4
                + (2.0 * z4 - 5.0 * z2) * p2 / 4.0
                + (1.0 - 2.0 * z2) * p4 / 16.0);
        sums[3] += weight
            * ((5.0 - 30.0 * z2) * p6 / 64.0
                + (212.0 * z4 - 60.0 * z2) * p4 / 16.0
                + (135.0 * z4 - 96.0 * z6) * p2 / 4.0
                - 30.0 * z6
                - 90.0 * z.powi(8));
    }
    let (mut second, mut third) = (0.0, 0.0);
    for k in (1..100).map(f64::from) {
        let weight = k * k * (-PI * PI * k * k / (2.0 * z2)).exp();
        second += weight;
        third += weight * (3.0 * z2 - PI * PI * k * k);
    }
    let terms = [
        root * sums[0] / z,
        root * sums[1] / (6.0 * z4),
        root * (sums[2] / (72.0 * z.powi(7)) - PI * PI * second / (36.0 * z.powi(3))),
        root * (sums[3] / (6480.0 * z.powi(10)) + PI * PI * third / (216.0 * z6)),
    ];
    terms.iter().enumerate().map(|(i, term)| term / n.powf(i as f64 / 2.0)).sum()
}

/// The probability that a chi-squared variable with so many degrees of freedom is larger.
pub fn chi_squared(statistic: f64, freedom: f64) -> f64 {
    match statistic {
        _ if freedom <= 0.0 => 1.0,
        x if x <= 0.0 => 1.0,
        x if x.is_infinite() => 0.0,
        x => upper_gamma(freedom / 2.0, x / 2.0),
    }
}

/// The regularised upper incomplete gamma function: a series where it converges fast, else a
/// continued fraction by Lentz's method.
fn upper_gamma(a: f64, x: f64) -> f64 {
    let front = (a * x.ln() - x - libm::lgamma(a)).exp();
    if x < a + 1.0 {
        let (mut term, mut sum, mut n) = (1.0 / a, 1.0 / a, a);
        while term > sum * 1e-17 {
            n += 1.0;
            term *= x / n;
            sum += term;
        }
        return (1.0 - front * sum).clamp(0.0, 1.0);
    }
    let tiny = 1e-300;
    let mut b = x + 1.0 - a;
    let mut c = 1.0 / tiny;
    let mut d = 1.0 / b;
    let mut fraction = d;
    for i in (1..100_000).map(f64::from) {
        let an = -i * (i - a);
        b += 2.0;
        d = 1.0 / nonzero(an * d + b, tiny);
        c = nonzero(b + an / c, tiny);
        let factor = c * d;
        fraction *= factor;
        if (factor - 1.0).abs() < 1e-16 {
            break;
        }
    }
    (front * fraction).clamp(0.0, 1.0)
}

fn nonzero(value: f64, tiny: f64) -> f64 {
    if value.abs() < tiny { tiny } else { value }
}

/// How likely chance makes the parts `a` of `n` and `b` of `m` at least as different: by
/// chi-squared where at least 5 are expected everywhere, else Fisher's exact test.
pub fn parts((a, n): (u64, u64), (b, m): (u64, u64)) -> f64 {
    let (hits, all) = ((a + b) as f64, (n + m) as f64);
    if n == 0 || m == 0 || a + b == 0 || a + b == n + m {
        return 1.0;
    }
    let least = hits.min(all - hits) * (n.min(m) as f64) / all;
    if least < 5.0 {
        return fisher((a, n), (b, m));
    }
    let (x, y) = (a as f64 / n as f64, b as f64 / m as f64);
    let pooled = hits / all;
    let variance = pooled * (1.0 - pooled) * (1.0 / n as f64 + 1.0 / m as f64);
    chi_squared((x - y).powi(2) / variance, 1.0)
}

fn fisher((a, n): (u64, u64), (b, m): (u64, u64)) -> f64 {
    let hits = a + b;
    let choose = |n: u64, k: u64| {
        ln_factorial(n as f64) - ln_factorial(k as f64) - ln_factorial((n - k) as f64)
    };
    let all = choose(n + m, hits);
    let chance = |x: u64| (choose(n, x) + choose(m, hits - x) - all).exp();
    let seen = chance(a) * (1.0 + 1e-7);
    let possible = hits.saturating_sub(m)..=hits.min(n);
    possible.map(chance).filter(|p| *p <= seen).sum::<f64>().min(1.0)
}

fn ln_factorial(n: f64) -> f64 {
    libm::lgamma(n + 1.0)
}

/// Which of several findings hold if at most a part `alpha` of those that are said to hold may be
/// chance (Benjamini and Hochberg, 1995): for each whether its p-value is small enough.
pub fn discoveries(p_values: &[f64], alpha: f64) -> Vec<bool> {
    let mut sorted: Vec<f64> = p_values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let all = sorted.len() as f64;
    let within = |(i, p): &(usize, &f64)| **p <= alpha * (*i as f64 + 1.0) / all;
    let limit = sorted.iter().enumerate().rfind(within).map(|(_, p)| *p);
    p_values.iter().map(|p| limit.is_some_and(|limit| *p <= limit)).collect()
}
