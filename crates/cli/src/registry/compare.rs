//! `modelyard diff`: what is different between two versions.

use ::registry::{Reference, Version, differences};

use super::place::Place;
use super::{OrFailure, print_json, reference};
use crate::Failure;
use crate::table::Table;

/// Flags of `diff`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard diff fraud:3 fraud:4
  modelyard diff fraud@champion fraud@candidate --json")]
pub struct Diff {
    /// MODEL:NUMBER, MODEL@ALIAS, or MODEL for its champion
    #[arg(value_parser = reference)]
    one: Reference,
    /// The version to compare it with
    #[arg(value_parser = reference)]
    other: Reference,
    #[command(flatten)]
    place: Place,
}

/// Prints what is different in signature, metadata and origin.
pub fn diff(args: Diff) -> Result<(), Failure> {
    let (one, other) = args.place.with(async |registry| {
        let one = registry.resolve(&args.one).await.or_failure()?;
        Ok((one, registry.resolve(&args.other).await.or_failure()?))
    })?;
    let different = differences(&one, &other);
    if args.place.json {
        return print_json(&different);
    }
    let heading = |version: &Version| format!("{}:{}", version.model, version.number);
    let mut table = Table::with(vec![String::new(), heading(&one), heading(&other)]);
    for (name, [a, b]) in different {
        let cell = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        table.row(vec![name, cell(a), cell(b)]);
    }
    print!("{}", table.text(0));
    Ok(())
}
