//! `modelyard rollout simulate`: what a plan would do, before anyone tries it.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use rollout::Plan;
use rollout::simulate::{Scenario, Spread, Summary, simulate_many};
use serde_json::json;

use super::read_plan;
use crate::table::Table;
use crate::{Failure, units};

/// Flags of `rollout simulate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard rollout simulate
  modelyard rollout simulate plan.toml --error-rate 0.02 --regression 0.05 --rps 50
  modelyard rollout simulate --slower 2 --from-step 3 --json")]
pub struct Args {
    /// The plan, as TOML; the default plan if left out
    plan: Option<PathBuf>,
    /// The part of the champion's requests that fail
    #[arg(long, default_value_t = 0.01)]
    error_rate: f64,
    /// By how much more of its requests the candidate fails: 0.02 is two points
    #[arg(long, default_value_t = 0.0)]
    regression: f64,
    /// How many times as long the candidate takes
    #[arg(long, default_value_t = 1.0)]
    slower: f64,
    /// How many times as long the candidate takes for its slowest 2 %
    #[arg(long, default_value_t = 1.0)]
    slower_tail: f64,
    /// The step from which on the candidate is worse; the first is 1
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    from_step: u64,
    /// Requests a second, all versions together
    #[arg(long, default_value_t = 100.0)]
    rps: f64,
    /// How many rollouts are simulated
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    runs: u64,
    /// Decides what chance does
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Simulates the plan with a candidate that is as good as the champion, and with the one described.
pub fn simulate(args: Args) -> Result<(), Failure> {
    let plan = read_plan(args.plan.as_deref())?;
    let steps = plan.steps.len();
    let from_step = usize::try_from(args.from_step - 1).unwrap_or(usize::MAX);
    if from_step >= steps {
        return Err(Failure::usage(format!(
            "--from-step: expected 1 to {steps}, the steps of the plan, got {}",
            args.from_step
        )));
    }
    let good = Scenario { rps: args.rps, error_rate: args.error_rate, ..Scenario::default() };
    let bad = Scenario {
        regression: args.regression,
        slower: args.slower,
        slower_tail: args.slower_tail,
        from_step,
        ..good.clone()
    };
    let nothing_wrong = summary(&plan, &good, &args, "as good as the champion")?;
    let worse = match bad.is_worse() {
        true => Some(summary(&plan, &bad, &args, "worse")?),
        false => None,
    };
    if args.json {
        let value = json!({ "scenario": bad, "nothing_wrong": nothing_wrong, "worse": worse });
        println!("{}", serde_json::to_string_pretty(&value)?);
        return Ok(());
    }
    print!("{}", quiet_text(&plan, &nothing_wrong, &args));
    if let Some(worse) = worse {
        print!("\n{}", worse_text(&plan, &worse, &args));
    }
    Ok(())
}

fn summary(plan: &Plan, scenario: &Scenario, args: &Args, what: &str) -> Result<Summary, Failure> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let shown = std::io::stderr().is_terminal();
    let progress = |done: u64| {
        if shown && (done.is_multiple_of(10) || done == args.runs) {
            let end = if done == args.runs { "\r\x1b[K" } else { "" };
            // A closed standard error is nobody's to be told about.
            let _ = write!(std::io::stderr(), "\r{what}: {done} of {} runs{end}", args.runs);
        }
    };
    let runs = simulate_many(plan, scenario, args.runs, (args.seed, threads), progress)
        .map_err(Failure::usage)?;
    Ok(Summary::of(plan, &runs))
}

fn quiet_text(plan: &Plan, summary: &Summary, args: &Args) -> String {
    let mut text = format!(
        "A candidate as good as the champion, {} requests a second, {} runs:\n  promoted in {}, \
         taken back in {} (alpha allows {})\n",
        args.rps,
        units::count(args.runs),
        percent(summary.promoted),
        percent(summary.stopped),
        percent(plan.alpha)
    );
    if summary.unfinished > 0.0 {
        text += &format!("  no end after a week in {}\n", percent(summary.unfinished));
    }
    if let Some(took) = summary.took {
        text += &format!("  takes {}, 90 % within {}\n", time(took.median), time(took.p90));
    }
    let mut table = Table::new(["step", "median", "90 % within"]).right(1).right(2);
    for step in &summary.steps {
        let of = |value: fn(Spread) -> f64| step.took.map_or("-".into(), |took| time(value(took)));
        table.row(vec![name(step.share), of(|took| took.median), of(|took| took.p90)]);
    }
    text + &table.text(2)
}

fn worse_text(plan: &Plan, summary: &Summary, args: &Args) -> String {
    let mut wrong = Vec::new();
    if args.regression > 0.0 {
        let (usual, more) = (args.error_rate, args.error_rate + args.regression);
        wrong.push(format!("fails {} instead of {}", percent(more.min(1.0)), percent(usual)));
    }
    if args.slower > 1.0 {
        wrong.push(format!("takes {} times as long", args.slower));
    }
    if args.slower_tail > 1.0 {
        wrong.push(format!("takes {} times as long for the slowest 2 %", args.slower_tail));
    }
    let from = plan.steps.get(args.from_step as usize - 1).map_or(0.0, |step| step.share);
    let mut text = format!("A candidate that {} from {} on:\n", wrong.join(" and "), name(from));
    let Some(caught) = summary.caught else { return text };
    text += &format!(
        "  taken back in {}, within 3 minutes in {}; never in {}\n",
        percent(caught.ever),
        percent(caught.within_3_minutes),
        percent(1.0 - caught.ever)
    );
    if let Some(took) = caught.took {
        text += &format!(
            "  after {}, 90 % within {}, 95 % within {}\n",
            time(took.median),
            time(took.p90),
            time(took.p95)
        );
    }
    if let (Some(hurt), Some(exposed)) = (caught.hurt, caught.exposed) {
        text += &format!(
            "  {} requests hurt of {} that it served (median; 90 %: {} of {})\n",
            units::count(hurt.median as u64),
            units::count(exposed.median as u64),
            units::count(hurt.p90 as u64),
            units::count(exposed.p90 as u64)
        );
    }
    let mut table = Table::new(["step", "taken back in it", "by"]).right(1);
    for step in &summary.steps {
        let by = step.by.iter().map(|(guard, part)| format!("{guard} {}", percent(*part)));
        let by = by.collect::<Vec<_>>().join(", ");
        table.row(vec![name(step.share), percent(step.stopped), by]);
    }
    text + &table.text(2)
}

fn name(share: f64) -> String {
    if share == 0.0 { "shadow".to_owned() } else { format!("{share} %") }
}

fn percent(part: f64) -> String {
    let percent = part * 100.0;
    let rounded = (percent * 100.0).round() / 100.0;
    format!("{rounded} %")
}

/// Minutes and seconds, as rollouts take them.
fn time(seconds: f64) -> String {
    let whole = Duration::from_secs_f64(seconds.max(0.0)).as_secs();
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds:02} s"),
        (hours, minutes, _) => format!("{hours} h {minutes:02} min"),
    }
}
