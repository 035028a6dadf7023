//! The verbs that only look: models, versions, show, history, at, check.

use ::registry::{Event, Record, Reference, Share};

use super::place::Place;
use super::{OrFailure, data, print_json, reference, shown};
use crate::table::Table;
use crate::{Failure, units};

/// Flags of `models`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard models
  modelyard models --registry s3://models --database postgres://db/models --json")]
pub struct Models {
    #[command(flatten)]
    place: Place,
}

/// Lists the models.
pub fn models(args: Models) -> Result<(), Failure> {
    let models = args.place.with(async |registry| registry.models().await.or_failure())?;
    if args.place.json {
        return print_json(&models);
    }
    let mut table = Table::new(["model", "versions", "newest", "aliases"]).right(1);
    for model in models {
        let aliases = model.aliases.iter().map(|(alias, number)| format!("{alias}={number}"));
        let aliases = aliases.collect::<Vec<_>>().join(" ");
        table.row(vec![model.name, model.versions.to_string(), shown(model.published), aliases]);
    }
    print!("{}", table.text(0));
    Ok(())
}

/// Flags of `versions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard versions fraud
  modelyard versions fraud --json")]
pub struct Versions {
    /// The model's name
    model: String,
    #[command(flatten)]
    place: Place,
}

/// Lists the versions of a model, newest first.
pub fn versions(args: Versions) -> Result<(), Failure> {
    let model = &args.model;
    let versions = args.place.with(async |registry| registry.versions(model).await.or_failure())?;
    if args.place.json {
        return print_json(&versions);
    }
    let mut table =
        Table::new(["version", "stage", "published", "by", "size", "digest", "aliases"]);
    for version in versions {
        table.row(vec![
            version.number.to_string(),
            version.stage.as_str().to_owned(),
            shown(version.published),
            version.who,
            units::bytes(version.size),
            version.digest.chars().take(19).collect(),
            version.aliases.join(" "),
        ]);
    }
    print!("{}", table.text(0));
    Ok(())
}

/// Flags of `show`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard show fraud:4
  modelyard show fraud@champion
  modelyard show fraud              its champion")]
pub struct Show {
    /// MODEL:NUMBER, MODEL@ALIAS, or MODEL for its champion
    #[arg(value_name = "VERSION", value_parser = reference)]
    named: Reference,
    #[command(flatten)]
    place: Place,
}

/// Shows everything that is known of a version.
pub fn show(args: Show) -> Result<(), Failure> {
    let (version, profile) = args.place.with(async |registry| {
        let version = registry.resolve(&args.named).await.or_failure()?;
        let profile = data::of_version(&registry, &version).await?;
        Ok((version, profile))
    })?;
    if args.place.json {
        return print_json(&version);
    }
    let mut table = Table::new([&format!("{}:{}", version.model, version.number), ""]);
    let mut row = |name: &str, value: String| {
        if !value.is_empty() {
            table.row(vec![name.to_owned(), value]);
        }
    };
    row("stage", version.stage.as_str().to_owned());
    row("aliases", version.aliases.join(" "));
    row("published", format!("{} by {}", shown(version.published), version.who));
    row("format", version.manifest.format.as_str().to_owned());
    row("digest", version.digest.clone());
    row("size", units::bytes(version.size));
    let signature = &version.manifest.signature;
    for (side, specs) in [("input", &signature.inputs), ("output", &signature.outputs)] {
        for spec in specs {
            row(side, format!("{} {} {:?}", spec.name, spec.datatype, spec.extents()));
        }
    }
    let lineage = &version.lineage;
    row("parent", lineage.parent.map(|parent| parent.to_string()).unwrap_or_default());
    row("data", lineage.data.clone().unwrap_or_default());
    row("commit", lineage.commit.clone().unwrap_or_default());
    for (key, value) in &version.metadata {
        row(&format!("meta {key}"), value.clone());
    }
    if let Some(profile) = &profile {
        let name = profile.data.as_ref().map_or("", |origin| &origin.name);
        row("profile", format!("{} rows, {} columns {name}", profile.rows, profile.columns.len()));
        for column in &profile.columns {
            row(&format!("profile {}", column.name), data::line(column));
        }
    }
    for file in &version.files {
        row("file", format!("{} ({})", file.name, units::bytes(file.size)));
    }
    print!("{}", table.text(0));
    Ok(())
}

/// Flags of `history`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard history fraud
  modelyard history fraud --json    with the evidence of each decision")]
pub struct History {
    /// The model's name
    model: String,
    #[command(flatten)]
    place: Place,
}

/// Says what happened to a model, oldest first.
pub fn history(args: History) -> Result<(), Failure> {
    let model = &args.model;
    let history = args.place.with(async |registry| registry.history(model).await.or_failure())?;
    if args.place.json {
        return print_json(&history);
    }
    let mut table = Table::new(["time", "what", "by", "why"]);
    for record in history {
        let what = told(&record);
        table.row(vec![shown(record.time), what, record.who, record.reason]);
    }
    print!("{}", table.text(0));
    Ok(())
}

/// Flags of `at`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard at fraud 2026-11-20T14:03Z
  modelyard at fraud 2026-11-20T15:03+01:00 --json")]
pub struct At {
    /// The model's name
    model: String,
    /// The time, with its offset from UTC
    #[arg(value_parser = time)]
    time: jiff::Timestamp,
    #[command(flatten)]
    place: Place,
}

/// Says which version had which share at a time.
pub fn at(args: At) -> Result<(), Failure> {
    let (model, time) = (&args.model, args.time);
    let state = args.place.with(async |registry| registry.at(model, time).await.or_failure())?;
    let assigned = state.assigned(jiff::Timestamp::MAX);
    if args.place.json {
        return print_json(&serde_json::json!({ "state": state, "assigned": assigned }));
    }
    let total: u64 = assigned.iter().map(|share| u64::from(share.share)).sum();
    let mut table = Table::new(["version", "stage", "traffic", "aliases"]).right(2);
    for (number, stage) in &state.versions {
        let share = assigned.iter().find(|share| share.version == *number);
        let aliases = state.aliases.iter().filter(|(_, named)| *named == number);
        let aliases: Vec<&str> = aliases.map(|(alias, _)| &**alias).collect();
        table.row(vec![
            number.to_string(),
            stage.as_str().to_owned(),
            share.map(|share| part(share, total)).unwrap_or_default(),
            aliases.join(" "),
        ]);
    }
    print!("{}", table.text(0));
    Ok(())
}

/// Flags of `check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard check             history against rows, rows against files
  modelyard check --bytes     and every file against its digest

Meant for a registry that is not being changed. Exits with 1 if something does not fit.")]
pub struct Check {
    /// Read every file and compare it with its digest
    #[arg(long)]
    bytes: bool,
    #[command(flatten)]
    place: Place,
}

/// Checks that everything that is stored fits together.
pub fn check(args: Check) -> Result<(), Failure> {
    let found = args.place.with(async |registry| registry.check(args.bytes).await.or_failure())?;
    if args.place.json {
        print_json(&found)?;
    } else {
        found.iter().for_each(|inconsistency| println!("{inconsistency}"));
    }
    match found.len() {
        0 => Ok(()),
        count => Err(Failure::new(format!("{count} things in the registry do not fit"))),
    }
}

/// Flags of `servers`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard servers
  modelyard servers --json     with every version and its state

Lists the servers that follow the registry and were heard of within the last 30 seconds.")]
pub struct Servers {
    #[command(flatten)]
    place: Place,
}

/// Lists the servers and what they hold.
pub fn servers(args: Servers) -> Result<(), Failure> {
    let age = std::time::Duration::from_secs(30);
    let servers = args.place.with(async |registry| registry.servers(age).await.or_failure())?;
    if args.place.json {
        return print_json(&servers);
    }
    let mut table = Table::new(["address", "seen", "ready", "other"]).right(2);
    for server in servers {
        let (ready, other): (Vec<_>, Vec<_>) =
            server.holds.iter().partition(|holding| holding.state == "READY");
        let other: Vec<String> = other
            .iter()
            .map(|one| format!("{}:{} {}", one.model, one.version, one.state.to_lowercase()))
            .collect();
        let (seen, ready) = (shown(server.seen), ready.len().to_string());
        table.row(vec![server.address, seen, ready, other.join(", ")]);
    }
    print!("{}", table.text(0));
    Ok(())
}

/// A share of the traffic as people read it.
fn part(share: &Share, total: u64) -> String {
    match share.shadow {
        true if share.share == 0 => "shadow".to_owned(),
        false if share.share == 0 => "by name".to_owned(),
        shadow => {
            let percent = f64::from(share.share) * 100.0 / total as f64;
            let more = if shadow { "+shadow" } else { "" };
            format!("{}%{more}", (percent * 100.0).round() / 100.0)
        }
    }
}

/// An event in words.
pub fn told(record: &Record) -> String {
    let version = |version: &Option<u64>| version.map_or("nothing".to_owned(), |v| v.to_string());
    match &record.event {
        Event::Published { version, .. } => format!("version {version} published"),
        Event::AliasMoved { alias, from, to } => {
            format!("{alias}: {} → {}", version(from), version(to))
        }
        Event::TrafficSplit { to, .. } => format!("traffic: {}", split(to)),
        Event::RolloutStarted { champion, candidates, to, .. } => {
            let candidates: Vec<String> = candidates.iter().map(u64::to_string).collect();
            format!("rollout: {} against {champion}; {}", candidates.join(", "), split(to))
        }
        Event::RolloutMoved { to, .. } => format!("rollout: {}", split(to)),
        Event::RolloutPaused { paused: true } => "rollout: paused".to_owned(),
        Event::RolloutPaused { paused: false } => "rollout: goes on".to_owned(),
        Event::RolloutEnded { outcome, champion } => {
            let outcome = outcome.as_str().replace('_', " ");
            format!("rollout: {outcome}; champion: {champion}")
        }
        Event::Announced { announced: true } => "announced".to_owned(),
        Event::Announced { announced: false } => "no longer announced".to_owned(),
        Event::Noted { version, key, value } => {
            let what = version.map_or("model".to_owned(), |version| format!("version {version}"));
            match value {
                Some(value) => {
                    format!("{what}: {key} = {}", value.chars().take(40).collect::<String>())
                }
                None => format!("{what}: {key} taken away"),
            }
        }
        Event::StageMoved { version, to, .. } => format!("version {version} {}", to.as_str()),
    }
}

/// A split of the traffic in words.
pub fn split(to: &[Share]) -> String {
    if to.is_empty() {
        return "to the champion".to_owned();
    }
    let total = to.iter().map(|share| u64::from(share.share)).sum();
    let parts = to.iter().map(|share| format!("{}={}", share.version, part(share, total)));
    parts.collect::<Vec<_>>().join(" ")
}

fn time(text: &str) -> Result<jiff::Timestamp, String> {
    text.parse().map_err(|_| "expected a time such as 2026-11-20T14:03Z".to_owned())
}
