//! `modelyard diff`: what is different between two versions.

use std::collections::{BTreeMap, BTreeSet};

use ::registry::{Reference, Version};

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
    let (a, b) = (traits(&one), traits(&other));
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let different: Vec<_> = names
        .into_iter()
        .map(|name| (name, a.get(name), b.get(name)))
        .filter(|(_, a, b)| a != b)
        .collect();
    if args.place.json {
        let different: BTreeMap<_, _> =
            different.into_iter().map(|(name, a, b)| (name, [a, b])).collect();
        return print_json(&different);
    }
    let heading = |version: &Version| format!("{}:{}", version.model, version.number);
    let mut table = Table::with(vec![String::new(), heading(&one), heading(&other)]);
    for (name, a, b) in different {
        let cell = |value: Option<&String>| value.map_or("-".to_owned(), Clone::clone);
        table.row(vec![name.clone(), cell(a), cell(b)]);
    }
    print!("{}", table.text(0));
    Ok(())
}

/// What can be different, by name.
fn traits(version: &Version) -> BTreeMap<String, String> {
    let manifest = &version.manifest;
    let mut traits = BTreeMap::from([
        ("digest".to_owned(), version.digest.clone()),
        ("size".to_owned(), version.size.to_string()),
        ("batched".to_owned(), manifest.signature.batched.to_string()),
    ]);
    let sides = [("input", &manifest.signature.inputs), ("output", &manifest.signature.outputs)];
    for (side, specs) in sides {
        for spec in specs {
            let mut text = format!("{} {:?}", spec.datatype, spec.extents());
            if !spec.labels.is_empty() {
                text.push_str(&format!(" of {}", spec.labels.join(", ")));
            }
            traits.insert(format!("{side} {}", spec.name), text);
        }
    }
    for (key, value) in &version.metadata {
        traits.insert(format!("meta {key}"), value.clone());
    }
    for (key, value) in &manifest.metadata {
        traits.insert(format!("model {key}"), value.clone());
    }
    let lineage = &version.lineage;
    let parent = lineage.parent.map(|parent| parent.to_string());
    for (name, value) in
        [("parent", parent), ("data", lineage.data.clone()), ("commit", lineage.commit.clone())]
    {
        if let Some(value) = value {
            traits.insert(name.to_owned(), value);
        }
    }
    traits
}
