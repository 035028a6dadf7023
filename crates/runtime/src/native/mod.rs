//! The engine that is always there.

use model::Package;

use crate::{Engine, Error, LoadOptions, Session};

/// The native engine.
#[derive(Debug, Default)]
pub struct Native {}

impl Engine for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    fn supports(&self, _package: &Package) -> Result<(), Error> {
        Err(Error::unsupported("not built yet"))
    }

    fn load(&self, _package: &Package, _options: &LoadOptions) -> Result<Box<dyn Session>, Error> {
        Err(Error::unsupported("not built yet"))
    }
}
