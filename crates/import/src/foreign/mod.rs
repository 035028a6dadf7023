//! Where other tools keep their models: MLflow's model folders and exports, Triton's repositories,
//! TensorFlow Serving's base paths.
//!
//! [`survey`] only looks at names and descriptions; whether a file is a model that can be read is
//! for [`crate::open`] to say. What it cannot take it refuses by name, one version at a time.

mod mlflow;
mod mlflow_export;
mod numbered;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use model::ErrorCode;

use crate::{Error, repository};

pub use mlflow::disagreements as mlflow_disagreements;

/// The most bytes of a file that describes a model.
const MAX_DESCRIPTION: u64 = 4 << 20;

/// How a tool lays out its models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A folder with a file `MLmodel`.
    Mlflow,
    /// What the tool mlflow-export-import writes of a registered model: `model.json` and the runs.
    MlflowExport,
    /// `NAME/VERSION/model.onnx`, with a `config.pbtxt` beside the versions.
    Triton,
    /// `VERSION/model.onnx`: numbered folders.
    TensorflowServing,
}

impl Layout {
    /// Its name on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mlflow => "mlflow",
            Self::MlflowExport => "mlflow-export",
            Self::Triton => "triton",
            Self::TensorflowServing => "tfserving",
        }
    }
}

/// What was found at a path.
#[derive(Clone, Debug)]
pub struct Survey {
    /// How it is laid out.
    pub layout: Layout,
    /// The models, by name.
    pub models: Vec<Found>,
}

/// One model of another tool.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Its name, where the layout has one.
    pub name: Option<String>,
    /// What is said of it, in words.
    pub description: Option<String>,
    /// What each alias names.
    pub aliases: BTreeMap<String, String>,
    /// Its versions, oldest first.
    pub versions: Vec<Version>,
    /// What is not taken over, for whoever imports it.
    pub notes: Vec<String>,
}

/// One version of a model of another tool.
#[derive(Clone, Debug)]
pub struct Version {
    /// What the tool calls it, where it does.
    pub number: Option<String>,
    /// The file to open, or why there is none.
    pub file: Result<PathBuf, Error>,
    /// Files that belong to it without being needed to run it, and what they are to be called.
    pub attachments: Vec<(String, PathBuf)>,
    /// What the tool knows of it: tags, parameters, measures.
    pub metadata: BTreeMap<String, String>,
    /// What is said of it, in words.
    pub description: Option<String>,
    /// The commit of the code that made it.
    pub commit: Option<String>,
}

impl Version {
    fn new(number: Option<String>, file: Result<PathBuf, Error>) -> Self {
        Self {
            number,
            file,
            attachments: Vec::new(),
            metadata: BTreeMap::new(),
            description: None,
            commit: None,
        }
    }
}

/// Looks at what another tool keeps at a path; how it is laid out is found out unless it is said.
pub fn survey(path: &Path, layout: Option<Layout>) -> Result<Survey, Error> {
    if !path.is_dir() {
        let message = match path.exists() {
            true => "is a file; to publish a model file use modelyard push",
            false => "there is no such folder",
        };
        return Err(invalid(message).at(path.display()));
    }
    let layout = match layout {
        Some(layout) => layout,
        None => detect(path)?,
    };
    let models = match layout {
        Layout::Mlflow => vec![mlflow::folder(path)?],
        Layout::MlflowExport => mlflow_export::models(path)?,
        Layout::Triton => numbered::repository(path)?,
        Layout::TensorflowServing => vec![numbered::base_path(path)?],
    };
    Ok(Survey { layout, models })
}

fn detect(path: &Path) -> Result<Layout, Error> {
    if path.join("MLmodel").is_file() {
        return Ok(Layout::Mlflow);
    }
    if !mlflow_export::descriptions(path).is_empty() {
        return Ok(Layout::MlflowExport);
    }
    if path.join("config.pbtxt").is_file() {
        return Ok(Layout::Triton);
    }
    let folders = repository::folders(path)?;
    if folders.iter().any(|folder| numbered::is_number(folder)) {
        return Ok(Layout::TensorflowServing);
    }
    let holds_versions = |folder: &PathBuf| {
        let inner = repository::folders(folder).unwrap_or_default();
        folder.join("config.pbtxt").is_file() || inner.iter().any(|f| numbered::is_number(f))
    };
    if folders.iter().any(holds_versions) {
        return Ok(Layout::Triton);
    }
    Err(invalid(
        "nothing that can be imported was found; expected an MLflow model (a folder with a file \
         MLmodel), an export of mlflow-export-import (model.json), a Triton repository \
         (NAME/VERSION/model.onnx) or a TensorFlow Serving base path (VERSION/model.onnx)",
    )
    .at(path.display()))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidArgument, message)
}

/// The text of a file that describes a model.
fn read_description(path: &Path) -> Result<String, Error> {
    let failed = |error: std::io::Error| {
        Error::new(ErrorCode::FailedPrecondition, error.to_string()).at(path.display())
    };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > MAX_DESCRIPTION {
        let message = format!("is {size} bytes long; at most {MAX_DESCRIPTION} are read");
        return Err(invalid(message).at(path.display()));
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// A path that a file names, if it stays in the folder.
fn inside(folder: &Path, relative: &str) -> Result<PathBuf, Error> {
    let path = Path::new(relative);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let shown = relative.chars().take(200).collect::<String>().escape_debug().to_string();
    if relative.is_empty() || !plain || relative.contains(['\\', '\0']) {
        return Err(invalid(format!("names the file \"{shown}\", which is not in its folder")));
    }
    let found = folder.canonicalize().and_then(|folder| {
        let path = folder.join(path).canonicalize()?;
        Ok(path.starts_with(&folder))
    });
    match found {
        Ok(true) => Ok(folder.join(path)),
        Ok(false) => Err(invalid(format!("\"{shown}\" is a link that leads out of its folder"))),
        Err(error) => Err(invalid(format!("names the file \"{shown}\": {error}"))),
    }
}
