//! Untrusted bytes in, checked packages out.
//!
//! Reads ONNX files and model repositories; knows nothing of how a model is run. Nothing that a
//! file says is believed before it is checked: sizes are compared with the bytes that are there,
//! names with what is defined, paths with the model's own folder.
//!
//! ```
//! use testkit::onnx::models;
//!
//! let package = import::onnx(models::double(3)).unwrap();
//! assert_eq!(&*package.manifest.signature.inputs[0].name, "x");
//! assert!(package.manifest.signature.batched);
//!
//! let error = import::onnx("<html>Not found</html>".into()).unwrap_err();
//! assert!(error.to_string().contains("web page"));
//! ```
#![forbid(unsafe_code)]

mod error;
pub mod foreign;
mod inspect;
mod onnx;
pub mod repository;
mod sniff;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use model::{ErrorCode, Package};

pub use error::Error;
pub use inspect::{Inspection, Operator, inspect};

/// The largest model that is read, external data included.
pub const MAX_SIZE: u64 = 16 << 30;

/// Opens a model file, or a folder that holds exactly one model.
///
/// External data is read from files in the model's own folder and nowhere else. The error says
/// what the file looks like when it is not a model that can be read.
pub fn open(path: &Path) -> Result<Package, Error> {
    let file = model_file(path)?;
    let bytes = read(&file).map_err(|error| error.at(file.display()))?;
    onnx::package(bytes, Some(&file)).map_err(|error| error.at(file.display()))
}

/// Reads an ONNX model that is in memory. External data cannot be resolved and is refused.
pub fn onnx(bytes: Bytes) -> Result<Package, Error> {
    onnx::package(bytes, None)
}

/// The file of the one model that a path stands for.
fn model_file(path: &Path) -> Result<PathBuf, Error> {
    let metadata = std::fs::metadata(path).map_err(|error| {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorCode::NotFound,
            std::io::ErrorKind::PermissionDenied => ErrorCode::PermissionDenied,
            _ => ErrorCode::FailedPrecondition,
        };
        Error::new(code, format!("{}: {error}", path.display()))
    })?;
    if metadata.is_dir() { repository::only_model_in(path) } else { Ok(path.to_owned()) }
}

fn read(file: &Path) -> Result<Bytes, Error> {
    let failed =
        |error: std::io::Error| Error::new(ErrorCode::FailedPrecondition, error.to_string());
    let metadata = std::fs::metadata(file).map_err(failed)?;
    // A pipe or a device has no end to check against.
    if !metadata.is_file() {
        return Err(Error::new(ErrorCode::InvalidArgument, "is not a regular file"));
    }
    if metadata.len() > MAX_SIZE {
        let message = format!("is {} bytes long; at most {MAX_SIZE} are read", metadata.len());
        return Err(Error::new(ErrorCode::InvalidArgument, message));
    }
    std::fs::read(file).map(Bytes::from).map_err(failed)
}
