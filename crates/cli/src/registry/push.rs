//! `modelyard push`: a model file becomes a version.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use ::registry::{Draft, FileKind, Lineage, Progress, Source};
use model::Package;

use super::place::{Author, Place};
use super::{OrFailure, data, digest_of, print_json};
use crate::{Failure, recorded, units};

/// Flags of `push`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard push model.onnx --name fraud
  modelyard push model.onnx --name fraud --alias candidate --parent 3 --meta auc=0.93
  modelyard push model.onnx --name fraud --card card.md --data train.csv --commit 1a2b3c
  modelyard push model.onnx --name fraud --data-profile train.parquet
  modelyard push model.onnx --name fraud --warm-up requests.jsonl
  modelyard push model.onnx --name fraud --registry s3://models --database postgres://db/models

A push that broke off is carried on with when it is run again.")]
pub struct Push {
    /// The model file, or a folder that holds one model
    path: PathBuf,
    /// The model's name
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Alias that is to name the new version
    #[arg(long, value_name = "ALIAS")]
    alias: Option<String>,
    /// Something to be known of the version; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    meta: Vec<String>,
    /// Model card in Markdown, kept with the version
    #[arg(long, value_name = "FILE")]
    card: Option<PathBuf>,
    /// Recorded requests, {"request": …} a line: servers run them before the version gets traffic
    #[arg(long, value_name = "FILE")]
    warm_up: Option<PathBuf>,
    /// The version that this one was made from
    #[arg(long, value_name = "NUMBER", help_heading = "Lineage")]
    parent: Option<u64>,
    /// The data that it was trained on: its digest is kept
    #[arg(long, value_name = "FILE", help_heading = "Lineage")]
    data: Option<PathBuf>,
    /// The same data as .parquet, .csv or .tsv: what its columns look like is kept, for drift; or a
    /// profile .json
    #[arg(long, value_name = "FILE", help_heading = "Lineage")]
    data_profile: Option<PathBuf>,
    /// The commit of the code that made it
    #[arg(long, value_name = "COMMIT", help_heading = "Lineage")]
    commit: Option<String>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    author: Author,
}

/// Publishes a model, and prints the version.
pub fn push(args: Push) -> Result<(), Failure> {
    let draft = args.draft()?;
    let version = args.place.with(async |registry| {
        let version = registry.publish(&draft, &args.author.by(), &report).await;
        version.or_failure()
    })?;
    if args.place.json {
        return print_json(&version);
    }
    let size = units::bytes(version.files.iter().map(|file| file.size).sum());
    println!("{}:{}  {size}  {}", version.model, version.number, version.digest);
    Ok(())
}

impl Push {
    fn draft(&self) -> Result<Draft, Failure> {
        let package = import::open(&self.path).map_err(|e| Failure::coded(e.code(), &e))?;
        let mut draft = draft_of(&self.name, &package, &self.path)?;
        if let Some(card) = &self.card {
            attach(&mut draft, "card.md", Source::Path(card.clone()))?;
        }
        if let Some(path) = &self.data_profile {
            data::attach(&mut draft, path).map_err(|e| e.at("--data-profile"))?;
        }
        if let Some(path) = &self.warm_up {
            recorded::attach(&mut draft, path).map_err(|e| e.at("--warm-up"))?;
        }
        draft.metadata = pairs(&self.meta)?;
        draft.alias.clone_from(&self.alias);
        draft.lineage = Lineage {
            parent: self.parent,
            data: self.data.as_deref().map(digest_of).transpose()?.or(draft.lineage.data.take()),
            commit: self.commit.clone(),
        };
        Ok(draft)
    }
}

/// Adds a file that goes with the model.
pub fn attach(draft: &mut Draft, name: &str, source: Source) -> Result<(), Failure> {
    match draft.files.insert(name.to_owned(), (FileKind::Attachment, source)) {
        None => Ok(()),
        Some(_) => Err(Failure::usage(format!("the model has a file {name} of its own"))),
    }
}

/// The files of a package that was opened at a path, as a version of a model.
pub fn draft_of(model: &str, package: &Package, path: &Path) -> Result<Draft, Failure> {
    let path = package.path.clone().unwrap_or_else(|| path.to_owned());
    let folder = path.parent().unwrap_or(Path::new(""));
    let main = name_of(&path)?;
    let manifest = package.manifest.as_ref().clone();
    let mut draft = Draft::new(model, manifest, main, Source::Path(path.clone()));
    for location in &package.external {
        let plain = location.trim_start_matches("./").to_owned();
        let source = Source::Path(folder.join(location));
        draft.files.insert(plain, (FileKind::Model, source));
    }
    Ok(draft)
}

fn name_of(path: &Path) -> Result<String, Failure> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.map(ToOwned::to_owned)
        .ok_or_else(|| Failure::usage(format!("{}: the name must be UTF-8", path.display())))
}

fn pairs(texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut pairs = BTreeMap::new();
    for text in texts {
        let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(Failure::usage(format!("--meta \"{text}\": expected KEY=VALUE")));
        };
        if pairs.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(Failure::usage(format!("--meta \"{text}\": {key} is given twice")));
        }
    }
    Ok(pairs)
}

/// Shows how far it has come, to somebody who looks on.
pub fn report(progress: Progress) {
    let mut stderr = std::io::stderr().lock();
    if !stderr.is_terminal() || progress.total < 16 << 20 {
        return;
    }
    let (done, total) = (units::bytes(progress.done), units::bytes(progress.total));
    let end = if progress.done == progress.total { "\n" } else { "" };
    // A closed standard error is nobody's to be told about.
    let _ = write!(stderr, "\r{done} of {total} stored   {end}");
}
