//! `modelyard drift MODEL`: what a running server knows of a model's drift.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;
use monitor::drift::What;
use monitor::drift::watch::{Drift, Seen, Status, WatchReport};
use serde::Deserialize;

use super::{page, text};
use crate::http::Endpoint;
use crate::table::Table;
use crate::{Failure, oip, units};

/// Flags of `drift MODEL`.
#[derive(Debug, ClapArgs)]
#[group(skip)]
pub struct Args {
    /// The model's name
    pub model: Option<String>,
    /// The server: http://host:port, host:port or host
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Only this version
    #[arg(long, value_name = "VERSION")]
    model_version: Option<String>,
    /// Leave out drifts that were over before so long ago, such as 7d, 12h
    #[arg(long, value_name = "TIME", value_parser = parse_age)]
    since: Option<Duration>,
    /// Print what the server answers, as JSON
    #[arg(long)]
    json: bool,
    /// Write the report as a page that stands alone
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// End with the exit code 4 if a feature has drifted
    #[arg(long, value_enum, value_name = "WHAT")]
    fail_on: Option<FailOn>,
}

/// What makes `--fail-on` fail.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum FailOn {
    /// A feature has drifted, and is not as before again.
    Drift,
}

/// What the server answers.
#[derive(Debug, Deserialize)]
struct Answer {
    versions: Vec<Version>,
}

/// A version with what is known of it.
#[derive(Debug, Deserialize)]
pub struct Version {
    pub version: String,
    #[serde(flatten)]
    pub report: WatchReport,
}

/// `7d`, or what other times are written as.
fn parse_age(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.len() - usize::from(text.ends_with(['d', 'w'])));
    let days = match unit {
        "d" => 1.0,
        "w" => 7.0,
        _ => return units::parse_duration(text),
    };
    let days = number
        .parse::<f64>()
        .map(|number| number * days)
        .map_err(|_| format!("\"{text}\" is not a time such as 7d"))?;
    Duration::try_from_secs_f64(days * 86_400.0)
        .map_err(|_| format!("\"{text}\" is negative or too long"))
}

/// Asks, prints, and fails if that was asked for.
pub fn run(args: &Args, model: &str) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let body = runtime.block_on(ask(args, model))?;
    let answer: Answer = serde_json::from_slice(&body)
        .map_err(|error| Failure::new(format!("{}: not a report of drift: {error}", args.url)))?;
    if let Some(path) = &args.html {
        std::fs::write(path, page::of_model(model, &answer.versions))
            .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    }
    match args.json {
        true => super::print(&format!("{}\n", String::from_utf8_lossy(&body)))?,
        false if answer.versions.is_empty() => {
            super::print(&format!("{model}: nothing was asked of it yet\n"))?;
        }
        false => {
            answer.versions.iter().try_for_each(|one| super::print(&of_version(model, one)))?
        }
    }
    let drifted = answer.versions.iter().any(|version| version.report.drifted);
    match args.fail_on {
        Some(FailOn::Drift) if drifted => Err(Failure::found(format!("{model} has drifted"))),
        _ => Ok(()),
    }
}

async fn ask(args: &Args, model: &str) -> Result<Vec<u8>, Failure> {
    let endpoint = Endpoint::parse(&args.url)?;
    let mut connection = oip::connect(&endpoint).await?;
    let route = oip::route(model, args.model_version.as_deref());
    let query = args.since.map(|since| format!("?since={}", since.as_secs())).unwrap_or_default();
    let request = endpoint.get(&format!("{route}/drift{query}"));
    let answer = connection.answer(&request).await.map_err(oip::broken(&endpoint))?;
    match answer.status {
        200 => Ok(answer.body),
        _ => Err(Failure::new(oip::refusal(&answer))),
    }
}

fn of_version(model: &str, version: &Version) -> String {
    let report = &version.report;
    let mut text = format!(
        "{model}, version {}: {} rows{}\n{}\n\n",
        version.version,
        units::count(report.rows),
        report.first.map(|first| format!(" since {}", time(first))).unwrap_or_default(),
        found(report)
    );
    let mut table = Table::new([
        "feature",
        "status",
        "since",
        "largest change",
        "evidence",
        "before",
        "now",
        "by hour",
    ]);
    for seen in &report.features {
        let (before, after) = seen.picture.as_ref().map(text::bars).unwrap_or_default();
        let since = seen.drift.as_ref().map_or(String::new(), |drift| time(drift.since));
        table.row(vec![
            text::clipped(&seen.feature, 28),
            status(seen),
            since,
            change(seen, report).map_or("-".into(), |(what, effect)| {
                format!("{} {}", text::what(what), text::short3(effect))
            }),
            evidence(seen),
            before,
            after,
            trend(seen),
        ]);
    }
    text.push_str(&table.text(0));
    for seen in &report.features {
        for drift in &seen.past {
            text.push_str(&format!("over: {}: {}\n", seen.feature, told(drift)));
        }
    }
    report.notes.iter().for_each(|note| text.push_str(&format!("note: {note}\n")));
    text.push('\n');
    text
}

/// What was found, in one line.
pub fn found(report: &WatchReport) -> String {
    let count = |status| report.features.iter().filter(|seen| seen.status == status).count();
    let mut line =
        format!("{} of {} features have drifted", count(Status::Drifted), report.features.len());
    let learning = count(Status::Learning);
    if learning > 0 {
        line.push_str(&format!(
            ", {learning} are learned from their first {} rows",
            report.settings.first
        ));
    }
    line
}

/// Where a feature stands, in words.
pub fn status(seen: &Seen) -> String {
    match seen.status {
        Status::Drifted => "drifted".into(),
        Status::Watched => "as before".into(),
        Status::Learning => format!("learning ({})", units::count(seen.rows)),
    }
}

/// The change to show: that which was found, else the one that is largest beside its threshold.
pub fn change(seen: &Seen, report: &WatchReport) -> Option<(What, f64)> {
    let in_thresholds =
        |(what, effect): &(What, f64)| effect / report.settings.threshold(*what).max(1e-9);
    match &seen.drift {
        Some(drift) => Some((drift.what, drift.effect)),
        None => seen
            .changes
            .iter()
            .rev()
            .max_by(|a, b| in_thresholds(a).total_cmp(&in_thresholds(b)))
            .copied(),
    }
}

/// The evidence, and what is needed.
pub fn evidence(seen: &Seen) -> String {
    match (&seen.drift, seen.status) {
        (_, Status::Learning) => String::new(),
        (Some(drift), _) => format!("e = {:.0e}", drift.evidence),
        (None, _) => format!("{:.1} of {:.0}", seen.evidence, seen.needed),
    }
}

/// A drift in words.
pub fn told(drift: &Drift) -> String {
    let over = drift.over.map(|over| format!(" until {}", time(over))).unwrap_or_default();
    format!(
        "{} {} from {}{over}",
        text::what(drift.what),
        text::short3(drift.effect),
        time(drift.since)
    )
}

/// A time to the minute.
fn time(seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(seconds).map(|time| time.to_string());
    time.map_or("?".into(), |time| time.chars().take(16).collect::<String>().replace('T', " "))
}

/// The shift in each of the last hours; a full bar is 0.4 and more.
fn trend(seen: &Seen) -> String {
    let last = seen.trend.iter().rev().take(24).rev();
    let bar = |(_, shift): &(i64, f32)| {
        let eighths = (shift / 0.4 * 8.0).ceil() as usize;
        ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'][eighths.clamp(1, 8) - 1]
    };
    last.map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read() {
        assert_eq!(parse_age("7d"), Ok(Duration::from_secs(604_800)));
        assert_eq!(parse_age("2w"), Ok(Duration::from_secs(1_209_600)));
        assert_eq!(parse_age("90m"), Ok(Duration::from_secs(5_400)));
        for wrong in ["", "d", "-1d", "1e99d", "soon", "ä"] {
            assert!(parse_age(wrong).is_err(), "{wrong}");
        }
    }
}
