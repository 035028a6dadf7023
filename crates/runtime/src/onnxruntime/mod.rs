//! ONNX Runtime, opened from a shared library that is found when the program starts.
//!
//! A process holds at most one ONNX Runtime: whoever discovers it again gets the one that is open.

mod library;
mod message;
mod program;
mod providers;
mod refusals;
mod search;
mod session;
mod value;

use std::fmt;
use std::path::Path;

use model::Package;

use crate::engine::no_thread;
use crate::{Engine, Error, LoadOptions, Session, background};
use library::Library;
pub use search::{Search, Surroundings};

/// The name that users pin the engine by.
pub const NAME: &str = "onnxruntime";

/// ONNX Runtime.
pub struct OnnxRuntime {
    library: &'static Library,
}

impl OnnxRuntime {
    /// Opens the first library that works.
    ///
    /// The error says where was looked, what was wrong with what was found, and what to do.
    pub fn discover(search: &Search) -> Result<Self, Error> {
        library::open(search).map(|library| Self { library })
    }

    /// The library's file.
    pub fn path(&self) -> &Path {
        &self.library.path
    }

    /// The execution providers that this build of the library has, as [`LoadOptions::providers`]
    /// names them, the most specialised first.
    pub fn providers(&self) -> Vec<String> {
        self.library.providers.iter().map(|name| providers::short(name)).collect()
    }
}

impl fmt::Debug for OnnxRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnnxRuntime").field(&self.version()).finish()
    }
}

impl Engine for OnnxRuntime {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        let providers = self.providers().join(", ");
        format!("{} ({}; providers: {providers})", self.library.version, self.path().display())
    }

    fn supports(&self, package: &Package) -> Result<(), Error> {
        // Which operators it has, it says itself when it loads.
        let model::Program::Onnx(model) = &package.program;
        model.graph.as_ref().map_or(Ok(()), refusals::check)
    }

    fn load(&self, package: &Package, options: &LoadOptions) -> Result<Box<dyn Session>, Error> {
        let load = || session::OrtSession::load(self.library, package, options);
        // ONNX Runtime starts its threads while it loads; they are to serve with full priority.
        let starts_threads = options.threads > 1 || !options.providers.is_empty();
        let session = if starts_threads {
            load()?
        } else {
            background(load).unwrap_or_else(|error| Err(no_thread(error)))?
        };
        Ok(Box::new(session))
    }
}
