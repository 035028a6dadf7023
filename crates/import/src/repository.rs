//! Model repositories: folders laid out `name/version/model.onnx`.

use std::path::{Path, PathBuf};

use model::InstanceSettings;

use crate::Error;

/// One model found on disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Its versions and the file or folder of each, oldest first.
    pub versions: Vec<(String, PathBuf)>,
    /// What a `config.pbtxt` beside the versions asked for.
    pub settings: InstanceSettings,
    /// What a `config.pbtxt` asked for that is not honoured, for the log.
    pub warnings: Vec<String>,
}

/// Finds the models at a path: one file, a folder that holds one model, or a repository.
pub fn scan(_path: &Path) -> Result<Vec<Found>, Error> {
    Err(Error::new(model::ErrorCode::Unimplemented, "not built yet"))
}
