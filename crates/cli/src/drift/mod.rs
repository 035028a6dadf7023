//! `modelyard drift`: whether data has changed.

mod compare;
mod page;
mod table;
mod text;

use clap::Subcommand;

use crate::Failure;

/// The verb's own verbs.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Compare two tables, column by column; needs no server
    Compare(compare::Args),
}

/// Does what was asked for.
pub fn run(args: Args) -> Result<(), Failure> {
    match args.verb {
        Verb::Compare(args) => compare::run(args),
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
