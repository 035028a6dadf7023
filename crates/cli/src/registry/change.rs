//! The verbs that change what is there: aliases, a version's life, garbage.

use std::time::Duration;

use ::registry::{Expected, Grace, Record, Reference, Selector};

use super::place::{Author, Place};
use super::{OrFailure, print_json, reference};
use crate::{Failure, units};

/// Flags of `alias`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard alias fraud champion 4 --reason \"better on last week's data\"
  modelyard alias fraud champion 3 --expect 4     only if nobody was faster
  modelyard alias fraud candidate --remove

Moving champion promotes a version, or rolls it back.")]
pub struct Alias {
    /// The model's name
    model: String,
    /// The alias
    alias: String,
    /// The version that it is to name
    #[arg(value_name = "VERSION", required_unless_present = "remove", conflicts_with = "remove")]
    number: Option<u64>,
    /// Take the alias away
    #[arg(long)]
    remove: bool,
    /// The version that it must name now; 0: it must not exist
    #[arg(long, value_name = "NUMBER")]
    expect: Option<u64>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    author: Author,
}

/// Moves an alias.
pub fn alias(args: Alias) -> Result<(), Failure> {
    let expected = match args.expect {
        None => Expected::Anything,
        Some(0) => Expected::Nothing,
        Some(version) => Expected::Version(version),
    };
    let (model, alias, by) = (&args.model, &args.alias, args.author.by());
    let record = args.place.with(async |registry| {
        registry.set_alias(model, alias, args.number, expected, &by).await.or_failure()
    })?;
    let said = match args.number {
        Some(version) => format!("{model}@{alias} is {model}:{version}"),
        None => format!("{model}@{alias} is gone"),
    };
    print(&args.place, &record, &said)
}

/// Flags of `archive`, `restore` and `delete`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard archive fraud:2     keep it, but let it get neither alias nor traffic
  modelyard delete fraud:2      for good after a week, when garbage is collected
  modelyard restore fraud:2     undo either

A version that has an alias or traffic can be neither archived nor deleted.")]
pub struct OnVersion {
    /// MODEL:NUMBER
    #[arg(value_name = "VERSION", value_parser = reference)]
    named: Reference,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    author: Author,
}

impl OnVersion {
    /// The model and the number; an alias is refused, because what has one is in use.
    fn numbered(&self) -> Result<(&str, u64), Failure> {
        match self.named.version {
            Selector::Number(number) => Ok((&self.named.model, number)),
            Selector::Alias(_) => Err(Failure::usage(format!(
                "{}: expected a version by its number, {}:NUMBER",
                self.named, self.named.model
            ))),
        }
    }
}

/// Puts a version aside.
pub fn archive(args: OnVersion) -> Result<(), Failure> {
    let ((model, number), by) = (args.numbered()?, args.author.by());
    let record = args
        .place
        .with(async |registry| registry.archive(model, number, &by).await.or_failure())?;
    print(&args.place, &record, &format!("{model}:{number} is archived"))
}

/// Makes a version active again.
pub fn restore(args: OnVersion) -> Result<(), Failure> {
    let ((model, number), by) = (args.numbered()?, args.author.by());
    let record = args
        .place
        .with(async |registry| registry.restore(model, number, &by).await.or_failure())?;
    print(&args.place, &record, &format!("{model}:{number} is active"))
}

/// Deletes a version.
pub fn delete(args: OnVersion) -> Result<(), Failure> {
    let ((model, number), by) = (args.numbered()?, args.author.by());
    let record =
        args.place.with(async |registry| registry.delete(model, number, &by).await.or_failure())?;
    let said = format!("{model}:{number} is deleted; modelyard restore {model}:{number} undoes it");
    print(&args.place, &record, &said)
}

/// Flags of `collect`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard collect                remove what was deleted more than a week ago
  modelyard collect --grace 1h

Safe while others push and pull: what a version needs is never removed.")]
pub struct Collect {
    /// How long ago a version must have been deleted [default: 7 days]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    grace: Option<Duration>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    author: Author,
}

/// Removes what nothing needs.
pub fn collect(args: Collect) -> Result<(), Failure> {
    let default = Grace::default();
    let grace = Grace { versions: args.grace.unwrap_or(default.versions), ..default };
    let by = args.author.by();
    let collected =
        args.place.with(async |registry| registry.collect(grace, &by).await.or_failure())?;
    if args.place.json {
        return print_json(&collected);
    }
    let size = units::bytes(collected.bytes);
    println!("{} versions and {} files removed, {size}", collected.versions, collected.blobs);
    Ok(())
}

fn print(place: &Place, record: &Record, said: &str) -> Result<(), Failure> {
    if place.json {
        return print_json(record);
    }
    println!("{said}");
    Ok(())
}
