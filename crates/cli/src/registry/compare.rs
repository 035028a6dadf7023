//! `modelyard diff`: what is different between two versions.

use std::collections::{BTreeMap, BTreeSet};

use ::registry::{Reference, Version, differences};
use monitor::profile::Profile;

use super::place::Place;
use super::{OrFailure, data, print_json, reference};
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
    let (one, other, profiles) = args.place.with(async |registry| {
        let one = registry.resolve(&args.one).await.or_failure()?;
        let other = registry.resolve(&args.other).await.or_failure()?;
        let profiles =
            [data::of_version(&registry, &one).await?, data::of_version(&registry, &other).await?];
        Ok((one, other, profiles))
    })?;
    let mut different = differences(&one, &other);
    different.extend(columns(&profiles));
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

/// What is different in the data that two versions were trained on, column by column.
fn columns(profiles: &[Option<Profile>; 2]) -> BTreeMap<String, [Option<String>; 2]> {
    let all = profiles.iter().flatten().flat_map(|profile| &profile.columns);
    let names: BTreeSet<&str> = all.map(|column| &*column.name).collect();
    let mut different = BTreeMap::new();
    for name in names {
        let [one, other] = profiles.each_ref().map(|profile| profile.as_ref()?.column(name));
        if one == other {
            continue;
        }
        let distance = one.zip(other).and_then(|(one, other)| one.distance(other));
        let distance = distance.map(|distance| format!("; distance {distance:.3}"));
        let lines = [(one, None), (other, distance)].map(|(column, distance)| {
            column.map(|column| data::line(column) + &distance.unwrap_or_default())
        });
        different.insert(format!("profile {name}"), lines);
    }
    different
}
