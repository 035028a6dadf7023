//! `modelyard drift`: whether data has changed.

mod compare;
mod estimate;
mod model;
mod page;
mod served;
mod table;
mod text;

use clap::Subcommand;
pub use served::Drifts;

use crate::Failure;

/// The verb's own verbs, and what it takes without one.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  modelyard drift fraud --since 7d               of a model that a server watches
  modelyard drift compare a.parquet b.parquet    of two tables"
)]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    model: model::Args,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Compare two tables, column by column; needs no server
    Compare(compare::Args),
    /// Estimate how well a binary classifier does before labels are known; needs no server
    Estimate(estimate::Args),
}

/// Does what was asked for.
pub fn run(args: Args) -> Result<(), Failure> {
    match (args.verb, &args.model.model) {
        (Some(Verb::Compare(args)), _) => compare::run(args),
        (Some(Verb::Estimate(args)), _) => estimate::run(&args),
        (None, Some(model)) => model::run(&args.model, model),
        (None, None) => Err(Failure::usage("drift of what?").help(
            "name a model of a running server, or compare two tables: modelyard drift compare A B",
        )),
    }
}

/// Prints to whoever still reads: `| head` is no failure.
fn print(text: &str) -> std::io::Result<()> {
    use std::io::{ErrorKind, Write};
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}
