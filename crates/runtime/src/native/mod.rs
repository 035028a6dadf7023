//! The engine that is always there.
//!
//! Runs an ONNX graph node by node. Nodes of `ai.onnx.ml`, and the standard operators around
//! them, are our own (`operators`); runs of neural-network nodes go to `rten` as models of their
//! own (`segment`). What neither can do is refused by name (`refusals`, `plan`).

mod attributes;
mod control;
mod graph;
mod kinds;
mod operators;
mod plan;
mod pools;
mod ranks;
mod refusals;
mod segment;
mod session;

use model::Package;

use crate::{Engine, Error, LoadOptions, Session};

/// The native engine.
#[derive(Debug, Default)]
pub struct Native {
    prefer_rten: bool,
}

impl Native {
    /// The engine with every node left to `rten` that it takes, to test it by.
    pub fn preferring_rten() -> Self {
        Self { prefer_rten: true }
    }
}

impl Engine for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    fn supports(&self, package: &Package) -> Result<(), Error> {
        session::check(package, self.prefer_rten)
    }

    fn load(&self, package: &Package, options: &LoadOptions) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(session::NativeSession::new(package, options, self.prefer_rten)?))
    }
}
