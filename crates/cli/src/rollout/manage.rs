//! Starting, watching and ending rollouts.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::registry::{Event, Outcome, Record, Registry, Rollout};
use jiff::Timestamp;
use rollout::{Plan, Report};
use serde_json::Value;

use super::replay;
use crate::Failure;
use crate::engines::Search;
use crate::registry::{Author, OrFailure, Place, print_json, shown, told};
use crate::table::Table;
use crate::units;

/// How often a rollout is looked at by who waits for it.
const LOOK: Duration = Duration::from_secs(1);

/// Flags of `rollout start`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard rollout start fraud --to 4                    the default plan
  modelyard rollout start fraud --to 4 --plan plan.toml --wait
  modelyard rollout start fraud --to 4 --to 5 --plan ab.toml
  modelyard rollout plan > plan.toml                      the default plan, to change

The servers that follow the registry split the traffic, measure, and decide: shadow, 1 %, 5 %, 25 %,
100 %, and back at once when a guard trips. Exits with 1 if --wait sees it taken back.")]
pub struct StartArgs {
    /// The model's name
    model: String,
    /// The version that is to become the champion; several for an experiment
    #[arg(long, value_name = "VERSION", required = true)]
    to: Vec<u64>,
    /// The plan, in TOML [default: see modelyard rollout plan]
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Wait for the end, and say each step
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    author: Author,
}

/// Starts a rollout.
pub fn start(args: StartArgs) -> Result<(), Failure> {
    let plan = super::read_plan(args.plan.as_deref())?;
    args.place.with(async |registry| {
        let record = begin(&registry, &args, &plan).await?;
        if !args.wait && args.place.json {
            return print_json(&record);
        }
        if !args.place.json {
            println!("{}", told(&record));
        }
        match args.wait {
            true => wait(&registry, &args.model, record, args.place.json).await,
            false => Ok(()),
        }
    })
}

async fn begin(registry: &Registry, args: &StartArgs, plan: &Plan) -> Result<Record, Failure> {
    let (model, to) = (&args.model, &args.to);
    let replayed = match &plan.replay {
        Some(wanted) => {
            let engines = Arc::new(Search::default().discover());
            Some(replay::run(registry, &engines, (model, to), wanted).await?)
        }
        None => None,
    };
    rollout::start(registry, model, to, (plan, replayed), &args.author.by()).await.or_failure()
}

/// Says each step until the rollout ends.
async fn wait(
    registry: &Registry,
    model: &str,
    started: Record,
    json: bool,
) -> Result<(), Failure> {
    let mut seen = started.sequence;
    let mut line = Progress::default();
    loop {
        for record in registry.history(model).await.or_failure()? {
            if record.sequence <= seen {
                continue;
            }
            seen = record.sequence;
            line.clear();
            match json {
                true => println!("{}", serde_json::to_string(&record)?),
                false => println!("{}  {}  {}", shown(record.time), told(&record), record.reason),
            }
            match record.event {
                Event::RolloutEnded { outcome: Outcome::Promoted, .. } => return Ok(()),
                Event::RolloutEnded { .. } | Event::AliasMoved { .. } => {
                    return Err(Failure::new(format!(
                        "{model} was not promoted: {}",
                        record.reason
                    )));
                }
                _ => {}
            }
        }
        if let Some(rollout) = registry.rollout(model).await.or_failure()? {
            line.show(&progress(&rollout)?);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// One line that is written over, on a terminal.
#[derive(Default)]
struct Progress(bool);

impl Progress {
    fn show(&mut self, text: &str) {
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K{text}");
            self.0 = true;
        }
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.0) {
            eprint!("\r\x1b[K");
        }
    }
}

fn progress(rollout: &Rollout) -> Result<String, Failure> {
    let (plan, report) = parts(rollout)?;
    let candidate = rollout.candidates[0];
    let figures = report.figures(&plan, candidate, Timestamp::now());
    Ok(format!(
        "step {} of {}: {} requests in {}",
        report.step + 1,
        plan.steps.len().max(1),
        figures["requests_in_step"],
        units::duration(Duration::from_secs(figures["seconds_in_step"].as_u64().unwrap_or(0))),
    ))
}

fn parts(rollout: &Rollout) -> Result<(Plan, Report), Failure> {
    let plan = serde_json::from_value(rollout.plan.clone())?;
    Ok((plan, serde_json::from_value(rollout.report.clone())?))
}

/// Flags of `rollout status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard rollout status                      every rollout that is under way
  modelyard rollout status fraud                with the figures of each guard
  modelyard rollout status fraud --plot fraud.svg")]
pub struct StatusArgs {
    /// The model's name
    model: Option<String>,
    /// Write the strongest evidence over time to a file, as SVG
    #[arg(long, value_name = "FILE", requires = "model")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

/// Says how rollouts are going.
pub fn status(args: StatusArgs) -> Result<(), Failure> {
    let rollouts = args.place.with(async |registry| match &args.model {
        None => registry.rollouts().await.or_failure(),
        Some(model) => match registry.rollout(model).await.or_failure()? {
            Some(rollout) => Ok(vec![rollout]),
            None => Err(Failure::new(format!("no rollout of \"{model}\" is under way"))
                .help(format!("what came of earlier ones: modelyard history {model}"))),
        },
    })?;
    if let (Some(path), [rollout]) = (&args.plot, &rollouts[..]) {
        let (_, report) = parts(rollout)?;
        std::fs::write(path, rollout::plot(&report))
            .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    }
    if args.place.json {
        let now = Timestamp::now();
        let all = rollouts.iter().map(|rollout| rollout::status(rollout, now).or_failure());
        let all = all.collect::<Result<Vec<_>, _>>()?;
        return match (&args.model, &all[..]) {
            (Some(_), [one]) => print_json(one),
            _ => print_json(&all),
        };
    }
    match args.model {
        Some(_) => rollouts.iter().try_for_each(print_one),
        None => print_all(&rollouts),
    }
}

fn print_all(rollouts: &[Rollout]) -> Result<(), Failure> {
    let mut table = Table::new(["model", "rollout", "step", "requests", "since"]).right(3);
    for rollout in rollouts {
        let (plan, report) = parts(rollout)?;
        let figures = report.figures(&plan, rollout.candidates[0], Timestamp::now());
        table.row(vec![
            rollout.model.clone(),
            versus(rollout),
            step(&plan, &report, rollout.paused),
            figures["requests_in_step"].to_string(),
            shown(report.since),
        ]);
    }
    print!("{}", table.text(0));
    Ok(())
}

fn print_one(rollout: &Rollout) -> Result<(), Failure> {
    let (plan, report) = parts(rollout)?;
    let paused = if rollout.paused { ", paused" } else { "" };
    println!(
        "{}: {}, step {}",
        rollout.model,
        versus(rollout),
        step(&plan, &report, rollout.paused)
    );
    println!("started {}, this step {}{paused}\n", shown(rollout.started), shown(report.since));
    for candidate in &rollout.candidates {
        let figures = report.figures(&plan, *candidate, Timestamp::now());
        let mut table =
            Table::new(["version", "requests", "failed", "p50 ms", "p99 ms"]).right(1).right(2);
        for who in ["champion", "candidate"] {
            let version = &figures[who];
            let failed = &version["failure_rate"];
            let percent = |part: &Value| part.as_f64().map_or("?".to_owned(), percent);
            table.row(vec![
                format!("{} ({who})", version["version"]),
                version["requests"].to_string(),
                format!(
                    "{} ({} to {})",
                    percent(&failed["estimate"]),
                    percent(&failed["lower"]),
                    percent(&failed["upper"])
                ),
                number(&version["latency_ms"]["p50"]),
                number(&version["latency_ms"]["p99"]),
            ]);
        }
        println!("{}", table.text(0));
        let mut table = Table::new(["guard", "evidence", "trips at", ""]).right(1).right(2);
        for guard in figures["guards"].as_array().into_iter().flatten() {
            let odds = &guard["odds_ratio"];
            let odds = match odds["estimate"].as_f64() {
                Some(_) => format!(
                    "odds × {} ({} to {})",
                    number(&odds["estimate"]),
                    number(&odds["lower"]),
                    odds["upper"].as_f64().map_or("∞".to_owned(), |_| number(&odds["upper"]))
                ),
                None => String::new(),
            };
            let name = guard["guard"].as_str().unwrap_or_default().to_owned();
            table.row(vec![name, number(&guard["e_value"]), number(&guard["threshold"]), odds]);
        }
        println!("{}", table.text(0));
    }
    Ok(())
}

fn versus(rollout: &Rollout) -> String {
    let candidates: Vec<String> = rollout.candidates.iter().map(u64::to_string).collect();
    format!("{} against {}", candidates.join(", "), rollout.champion)
}

fn step(plan: &Plan, report: &Report, paused: bool) -> String {
    let what = match plan.steps.get(report.step) {
        _ if plan.experiment.is_some() => "experiment".to_owned(),
        Some(step) if step.share == 0.0 => "shadow".to_owned(),
        Some(step) => format!("{} %", step.share),
        None => String::new(),
    };
    let paused = if paused { ", paused" } else { "" };
    format!("{}/{} ({what}{paused})", report.step + 1, plan.steps.len().max(1))
}

fn percent(part: f64) -> String {
    format!("{:.2} %", part * 100.0)
}

fn number(value: &Value) -> String {
    match value.as_f64() {
        None => "–".to_owned(),
        Some(number) if number != 0.0 && !(0.001..1e6).contains(&number.abs()) => {
            format!("{number:.2e}")
        }
        Some(number) => format!("{number}"),
    }
}

/// Flags of `rollout pause`, `resume` and `stop`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard rollout pause fraud --reason \"until the weekend is over\"
  modelyard rollout resume fraud
  modelyard rollout stop fraud --reason \"we want version 5 instead\"

A rollout that is paused stays at its step; a guard that trips takes it back all the same. Stopping
gives all the traffic to the champion; so does modelyard rollback, which says that something is wrong.")]
pub struct ChangeArgs {
    /// The model's name
    model: String,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    author: Author,
}

/// What is done to a rollout that is under way.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    Pause,
    Resume,
    Stop,
}

/// Makes a rollout stay, go on or end.
pub fn change(args: ChangeArgs, change: Change) -> Result<(), Failure> {
    let (model, by) = (&args.model, args.author.by());
    let record = args.place.with(async |registry| {
        match change {
            Change::Pause => registry.pause_rollout(model, true, &by).await,
            Change::Resume => registry.pause_rollout(model, false, &by).await,
            Change::Stop => registry.stop_rollout(model, &by).await,
        }
        .or_failure()
    })?;
    match args.place.json {
        true => print_json(&record),
        false => {
            println!("{}", told(&record));
            Ok(())
        }
    }
}
