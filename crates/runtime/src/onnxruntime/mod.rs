//! ONNX Runtime, opened from a shared library that is found when the program starts.

use std::path::PathBuf;

use model::Package;

use crate::{Engine, Error, LoadOptions, Session};

/// The name that users pin the engine by.
pub const NAME: &str = "onnxruntime";

/// Where to look for the library.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// The one place to look, if the user named one.
    pub explicit: Option<PathBuf>,
    /// Further files or folders to look in, in order.
    pub candidates: Vec<PathBuf>,
}

/// ONNX Runtime.
#[derive(Debug)]
pub struct OnnxRuntime {}

impl OnnxRuntime {
    /// Opens the first library that works.
    pub fn discover(_search: &Search) -> Result<Self, Error> {
        Err(Error::precondition("not built yet"))
    }
}

impl Engine for OnnxRuntime {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        String::new()
    }

    fn supports(&self, _package: &Package) -> Result<(), Error> {
        Ok(())
    }

    fn load(&self, _package: &Package, _options: &LoadOptions) -> Result<Box<dyn Session>, Error> {
        Err(Error::unsupported("not built yet"))
    }
}
