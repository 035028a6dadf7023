//! A latency histogram drawn with characters.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::units;

/// The most lines that a histogram takes.
const LINES: usize = 18;
/// Characters of the longest bar.
const WIDTH: usize = 48;
/// Steps within a power of ten, finest first: people compare round numbers.
const STEPS: [&[f64]; 4] = [
    &[
        1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8, 2.0, 2.2, 2.5, 2.8, 3.2, 3.6, 4.0, 4.5, 5.0, 5.6,
        6.3, 7.0, 8.0, 9.0,
    ],
    &[1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0],
    &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0],
    &[1.0, 2.0, 5.0],
];

/// Lines of `from – to  bar  share`, from the fastest answer to the slowest.
pub fn draw(latency: &Histogram<u64>) -> Vec<String> {
    if latency.is_empty() {
        return Vec::new();
    }
    // The last thousandth may be far away; it shares one line.
    let (low, high) = (latency.min().max(1) as f64, latency.value_at_quantile(0.999) as f64);
    let bounds = STEPS
        .iter()
        .map(|steps| bounds(steps, low, high.max(low)))
        .find(|bounds| bounds.len() <= LINES)
        .unwrap_or_else(|| bounds(&[1.0], low, high.max(low)));
    // One line for each pair of bounds, and one for what lies above the last.
    let mut counts = vec![0; bounds.len()];
    for recorded in latency.iter_recorded() {
        let above = bounds.partition_point(|bound| *bound < recorded.value_iterated_to() as f64);
        counts[above.saturating_sub(1)] += recorded.count_at_value();
    }
    let mut rows: Vec<(f64, Option<f64>, u64)> = bounds
        .iter()
        .zip(counts)
        .enumerate()
        .map(|(i, (from, count))| (*from, bounds.get(i + 1).copied(), count))
        .collect();
    if rows.last().is_some_and(|row| row.2 == 0) {
        rows.pop();
    }
    let most = rows.iter().map(|row| row.2).max().unwrap_or(1).max(1);
    let time = |nanos: f64| units::duration(Duration::from_nanos(nanos.round() as u64));
    let line = |(from, to, count): (f64, Option<f64>, u64)| {
        let to = to.map_or_else(|| "and more".to_owned(), |to| format!("– {}", time(to)));
        let share = 100.0 * count as f64 / latency.len() as f64;
        let bar = bar(count as f64 / most as f64);
        format!("{:>8} {to:<10} {bar:<WIDTH$} {share:>6.2} %", time(from))
    };
    rows.into_iter().map(line).collect()
}

/// Round bounds around `low..=high`, in order; at least two.
fn bounds(steps: &[f64], low: f64, high: f64) -> Vec<f64> {
    let first = low.log10().floor() as i32 - 1;
    let last = high.log10().ceil() as i32 + 1;
    let all: Vec<f64> = (first..=last)
        .flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)))
        .collect();
    let start = all.iter().rposition(|bound| *bound < low).unwrap_or(0);
    let end = all.iter().position(|bound| *bound >= high).unwrap_or(all.len() - 1);
    all[start..=end.max(start + 1)].to_vec()
}

/// A bar in eighths of a character; anything above zero shows.
fn bar(part: f64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (part * (WIDTH * 8) as f64).round() as usize;
    let eighths = if part > 0.0 { eighths.max(1) } else { 0 };
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_value_is_on_a_line_and_there_are_few_lines(
            values in prop::collection::vec(1u64..100_000_000_000, 1..200),
        ) {
            let mut latency = Histogram::<u64>::new(3).unwrap();
            for value in &values {
                latency.record(*value).unwrap();
            }
            let lines = draw(&latency);
            // Eleven powers of ten at one line each at worst, and the rest in one line.
            prop_assert!(!lines.is_empty() && lines.len() <= LINES + 1, "{lines:#?}");
            let share = |line: &String| -> f64 {
                let percent = line.split_whitespace().rev().nth(1).unwrap();
                percent.parse().unwrap()
            };
            let total: f64 = lines.iter().map(share).sum();
            prop_assert!((total - 100.0).abs() < 0.2, "{total} {lines:#?}");
        }
    }

    #[test]
    fn one_value_is_one_full_bar() {
        let mut latency = Histogram::<u64>::new(3).unwrap();
        latency.record(1_234_000).unwrap();
        let lines = draw(&latency);
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(lines[0].starts_with(" 1.20 ms – 1.30 ms"), "{lines:#?}");
        assert!(lines[0].contains(&"█".repeat(WIDTH)), "{lines:#?}");
    }
}
