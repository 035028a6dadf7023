//! `modelyard pull`: a version's files, checked, in a folder.

use std::path::PathBuf;

use ::registry::Reference;

use super::place::Place;
use super::{OrFailure, print_json, reference};
use crate::Failure;

/// Flags of `pull`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard pull fraud:4
  modelyard pull fraud@champion --to models/fraud

Prints the file to open: modelyard serve \"$(modelyard pull fraud)\"")]
pub struct Pull {
    /// MODEL:NUMBER, MODEL@ALIAS, or MODEL for its champion
    #[arg(value_name = "VERSION", value_parser = reference)]
    named: Reference,
    /// Folder to put the files into [default: MODEL-NUMBER]
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

/// Copies the files, and prints where the model is.
pub fn pull(args: Pull) -> Result<(), Failure> {
    let (file, version) = args.place.with(async |registry| {
        let version = registry.resolve(&args.named).await.or_failure()?;
        let name = || format!("{}-{}", version.model, version.number).into();
        let folder = args.to.clone().unwrap_or_else(name);
        let file = registry.fetch(&version, &folder).await.or_failure()?;
        Ok((file, version))
    })?;
    if args.place.json {
        return print_json(&version);
    }
    println!("{}", file.display());
    Ok(())
}
