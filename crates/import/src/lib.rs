//! Untrusted bytes in, checked packages out.
//!
//! Reads ONNX files and model repositories; knows nothing of how a model is run.
#![forbid(unsafe_code)]

mod error;
pub mod repository;

use std::path::Path;

use bytes::Bytes;
use model::Package;

pub use error::Error;

/// Opens a model file, or a folder that holds exactly one model.
pub fn open(_path: &Path) -> Result<Package, Error> {
    Err(Error::new(model::ErrorCode::Unimplemented, "not built yet"))
}

/// Reads an ONNX model that is in memory. External data cannot be resolved and is refused.
pub fn onnx(_bytes: Bytes) -> Result<Package, Error> {
    Err(Error::new(model::ErrorCode::Unimplemented, "not built yet"))
}
