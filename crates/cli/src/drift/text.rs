//! A report for a terminal.

use monitor::drift::{
    Judged, Kind, Measured, Picture, Report, Settings, Side, Verdict, What, short,
};

use crate::table::Table;
use crate::units;

/// The report as a table with small plots.
pub fn text(report: &Report, [before, after]: &[String; 2]) -> String {
    let rows = |side: fn(&Measured) -> u64| {
        let rows = report.columns.iter().map(|column| side(&column.measured)).max();
        units::count(rows.unwrap_or(0))
    };
    let mut text = format!(
        "before  {before}, {} rows\nafter   {after}, {} rows\n{}\n\n",
        rows(|measured| measured.before.rows),
        rows(|measured| measured.after.rows),
        found(report)
    );
    let mut table = Table::new([
        "column",
        "verdict",
        "largest change",
        "chance",
        "before → after",
        "before",
        "after",
    ])
    .right(3);
    for column in &report.columns {
        let (change, chance) = match column.largest(&report.settings) {
            Some((change, _)) => {
                (format!("{} {}", what(change.what), short3(change.effect)), probability(change.p))
            }
            None => ("-".to_owned(), String::new()),
        };
        let (before, after) = column.measured.picture.as_ref().map(bars).unwrap_or_default();
        table.row(vec![
            clipped(&column.measured.column, 28),
            verdict(column.verdict).to_owned(),
            change,
            chance,
            clipped(&how(column, &report.settings), 44),
            before,
            after,
        ]);
    }
    text.push_str(&table.text(0));
    for mismatch in &report.mismatched {
        let side = if mismatch.only == Side::Before { "before" } else { "after" };
        text.push_str(&format!("only {side}: {}\n", mismatch.column));
    }
    for column in &report.columns {
        if let Some(why) = &column.measured.not_compared {
            text.push_str(&format!("not compared: {}: {why}\n", column.measured.column));
        }
        if column.verdict == Verdict::TooFewRows {
            let seen = short3(column.visible.unwrap_or_default());
            text.push_str(&format!(
                "too few rows: {}: shifts from {seen} on would be seen\n",
                column.measured.column
            ));
        }
    }
    for out in &report.left_out {
        text.push_str(&format!("left out: {}: {}\n", out.column, out.why));
    }
    text
}

/// What was found, in one line.
pub fn found(report: &Report) -> String {
    let all = report.columns.len();
    let drifted = report.count(Verdict::Drifted);
    let mut line =
        format!("{drifted} of {all} {} drifted", if all == 1 { "column" } else { "columns" });
    for verdict in [Verdict::TooFewRows, Verdict::NotCompared] {
        let count = report.count(verdict);
        if count > 0 {
            line.push_str(&format!(", {count} {}", self::verdict(verdict)));
        }
    }
    if !report.mismatched.is_empty() {
        line.push_str(&format!(", {} on one side alone", report.mismatched.len()));
    }
    line
}

/// A verdict in words.
pub fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Drifted => "drifted",
        Verdict::TooFewRows => "too few rows",
        Verdict::NotCompared => "not compared",
        Verdict::Stable => "stable",
    }
}

/// A way to change in words.
pub fn what(what: What) -> &'static str {
    match what {
        What::Shift => "shift",
        What::Missing => "missing",
        What::Infinite => "infinite",
        What::OutOfRange => "out of range",
        What::NewCategory => "new texts",
        What::TypeBreak => "type",
    }
}

/// A probability in few characters.
pub fn probability(p: f64) -> String {
    match p {
        p if p < 1e-99 => "< 1e-99".to_owned(),
        p if p < 0.001 => format!("{p:.0e}"),
        p => format!("{p:.3}"),
    }
}

/// Three digits.
pub fn short3(number: f64) -> String {
    if number < 0.0005 { "0".to_owned() } else { format!("{number:.3}") }
}

/// How the column's largest change shows in its values.
pub fn how(column: &Judged, settings: &Settings) -> String {
    let (a, b) = (&column.measured.before, &column.measured.after);
    let part = |of: u64, all: u64| percent(of as f64 / all.max(1) as f64);
    let kind = |kind: Kind| match kind {
        Kind::Number => "numbers",
        Kind::Text => "texts",
        Kind::Empty => "nothing",
    };
    match column.largest(settings).map(|(change, _)| change.what) {
        Some(What::Missing) if column.verdict == Verdict::Drifted => {
            format!("{} → {} missing", part(a.missing, a.rows), part(b.missing, b.rows))
        }
        Some(What::Infinite) => {
            format!("{} → {} infinite", part(a.infinite, a.rows), part(b.infinite, b.rows))
        }
        Some(What::TypeBreak) => format!("{} → {}", kind(a.kind), kind(b.kind)),
        Some(What::OutOfRange) => {
            let range = |side: &monitor::drift::Description| {
                let end = |end: Option<f64>| end.map_or("?".to_owned(), short);
                format!("{} … {}", end(side.min), end(side.max))
            };
            format!("{} → {}", range(a), range(b))
        }
        _ => shape(&column.measured),
    }
}

fn shape(measured: &Measured) -> String {
    let (a, b) = (&measured.before, &measured.after);
    if let (Some(before), Some(after)) = (a.mean, b.mean) {
        let deviations = match a.std {
            Some(std) if std > 0.0 => format!(" ({:+.2} σ)", (after - before) / std),
            _ => String::new(),
        };
        return format!("mean {} → {}{deviations}", short(before), short(after));
    }
    let Some(picture) = &measured.picture else { return String::new() };
    let change = |i: &usize| (picture.before[*i] - picture.after[*i]).abs();
    let most = (0..picture.bars.len()).max_by(|i, j| change(i).total_cmp(&change(j)));
    most.map_or_else(String::new, |i| {
        let name = clipped(&picture.bars[i], 20);
        format!("{name} {} → {}", percent(picture.before[i]), percent(picture.after[i]))
    })
}

fn percent(part: f64) -> String {
    format!("{} %", short(100.0 * part))
}

/// Bars of one scale, an eighth of a line or more for what is not nothing.
pub fn bars(picture: &Picture) -> (String, String) {
    let most = picture.before.iter().chain(&picture.after).copied().fold(0.0, f64::max);
    let bar = |part: &f64| match (part / most.max(1e-9) * 8.0).ceil() as usize {
        0 => ' ',
        eighths => ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'][eighths.min(8) - 1],
    };
    let side = |parts: &[f64]| format!("│{}│", parts.iter().map(bar).collect::<String>());
    (side(&picture.before), side(&picture.after))
}

pub fn clipped(text: &str, most: usize) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { '·' } else { c }).collect();
    match clean.chars().count() > most {
        true => clean.chars().take(most - 1).chain(['…']).collect(),
        false => clean,
    }
}
