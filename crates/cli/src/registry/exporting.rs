//! `modelyard export`: a version, or all of a model, as another tool keeps it.

use std::path::{Path, PathBuf};

use ::registry::{Reference, Registry, Selector, Stage, Version};

use api::Contents;

use super::formats::{self, Layout};
use super::place::Place;
use super::{OrFailure, print_json, reference};
use crate::Failure;

/// Flags of `export`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard export fraud@champion --as mlflow --to fraud-model      mlflow.pyfunc.load_model reads it
  modelyard export fraud --all --as triton --to models              models/fraud/N/, config.pbtxt
  modelyard export fraud:4 --as numbered --to models                models/fraud/4/model.onnx

mlflow: a folder with MLmodel, model.onnx and the requirements. triton: NAME/VERSION/model.onnx and a
config.pbtxt for Triton's ONNX Runtime backend. numbered: NAME/VERSION/model.onnx alone, the layout
of TensorFlow Serving's base paths; OpenVINO Model Server reads ONNX from it, TensorFlow Serving
itself reads only SavedModels. Nothing that is there is overwritten.")]
pub struct Export {
    /// MODEL:NUMBER, MODEL@ALIAS, or MODEL for its champion
    #[arg(value_name = "VERSION", value_parser = reference)]
    named: Reference,
    /// How to lay it out: mlflow, triton or numbered
    #[arg(long = "as", value_name = "LAYOUT")]
    layout: Layout,
    /// The folder: the model's own for mlflow, else the one that gets the model's folder
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
    /// Every active version of the model
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    place: Place,
}

/// Writes the files, and prints where they are.
pub fn export(args: Export) -> Result<(), Failure> {
    if args.all && args.layout == Layout::Mlflow {
        return Err(Failure::usage("--all: an MLflow folder holds one version")
            .help("export one version, or all of them with --as triton"));
    }
    let written = args.place.with(async |registry| args.write(&registry).await)?;
    if args.place.json {
        return print_json(&written);
    }
    written.iter().for_each(|folder| println!("{}", folder.display()));
    Ok(())
}

impl Export {
    async fn write(&self, registry: &Registry) -> Result<Vec<PathBuf>, Failure> {
        let mut written = Vec::new();
        for version in self.versions(registry).await? {
            written.push(self.write_version(registry, &version).await?);
        }
        Ok(written)
    }

    async fn versions(&self, registry: &Registry) -> Result<Vec<Version>, Failure> {
        if !self.all {
            return Ok(vec![registry.resolve(&self.named).await.or_failure()?]);
        }
        let model = &self.named.model;
        let mut versions = Vec::new();
        for summary in registry.versions(model).await.or_failure()?.iter().rev() {
            if summary.stage == Stage::Active {
                let version = Selector::Number(summary.number);
                let reference = Reference { model: model.clone(), version };
                versions.push(registry.resolve(&reference).await.or_failure()?);
            }
        }
        Ok(versions)
    }

    /// Writes one version into a folder that is whole or not there.
    async fn write_version(
        &self,
        registry: &Registry,
        version: &Version,
    ) -> Result<PathBuf, Failure> {
        let target = match self.layout.folder(version) {
            None => self.to.clone(),
            Some(folder) => self.to.join(folder),
        };
        if target.exists() {
            return Err(Failure::new(format!("{} is there already", target.display()))
                .help("remove it, or export to another folder"));
        }
        let parent = target.parent().filter(|path| !path.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).map_err(|e| failed(parent, &e))?;
        let unfinished = tempfile::Builder::new().prefix(".modelyard-").tempdir_in(parent)?;
        if version.files.is_empty() {
            let (model, number) = (&version.model, version.number);
            return Err(Failure::new(format!("{model}:{number} was deleted, its files are gone")));
        }
        for entry in formats::entries(self.layout, version)? {
            let path = unfinished.path().join(entry.path);
            match entry.contents {
                Contents::File(file) => registry.copy(version, &file, &path).await.or_failure()?,
                Contents::Text(text) => {
                    std::fs::write(&path, text).map_err(|e| failed(&path, &e))?;
                }
            }
        }
        std::fs::rename(unfinished.keep(), &target).map_err(|e| failed(&target, &e))?;
        readable(&target)?;
        if self.layout == Layout::Triton {
            let path = parent.join(formats::CONFIG);
            if !path.exists() {
                let text = formats::triton_config(version)?;
                std::fs::write(&path, text).map_err(|e| failed(&path, &e))?;
            }
        }
        Ok(target)
    }
}

/// A temporary folder is its owner's alone; what is exported is for other programs.
fn readable(folder: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;
    let permissions = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder, permissions).map_err(|e| failed(folder, &e))
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
}
