//! `modelyard rollout`: replacing the champion by evidence.

mod manage;
pub mod replay;
mod simulate;

use std::path::Path;

use rollout::Plan;

use crate::Failure;

/// Replaces a champion step by step.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Start replacing a model's champion
    Start(manage::StartArgs),
    /// Say how rollouts are going, with the evidence so far
    Status(manage::StatusArgs),
    /// Make a rollout stay at its step
    Pause(manage::ChangeArgs),
    /// Let a paused rollout go on
    Resume(manage::ChangeArgs),
    /// End a rollout; the champion has all the traffic again
    Stop(manage::ChangeArgs),
    /// Print the default plan, to be changed
    Plan,
    /// Say how long a plan takes, and how soon it would find a candidate that is worse
    Simulate(simulate::Args),
}

/// Does what was asked.
pub fn run(args: Args) -> Result<(), Failure> {
    match args.verb {
        Verb::Start(args) => manage::start(args),
        Verb::Status(args) => manage::status(args),
        Verb::Pause(args) => manage::change(args, manage::Change::Pause),
        Verb::Resume(args) => manage::change(args, manage::Change::Resume),
        Verb::Stop(args) => manage::change(args, manage::Change::Stop),
        Verb::Simulate(args) => simulate::simulate(args),
        Verb::Plan => {
            print!("{}", toml::to_string(&Plan::default())?);
            Ok(())
        }
    }
}

/// Reads a plan and checks it; the default one without a file.
pub fn read_plan(path: Option<&Path>) -> Result<Plan, Failure> {
    let Some(path) = path else { return Ok(Plan::default()) };
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    Plan::parse(&text).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}
