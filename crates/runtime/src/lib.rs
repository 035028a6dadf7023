//! Runs checked packages: `load(&Package) -> Loaded`, then `Loaded::run(inputs) -> outputs`.
//!
//! Everything here is synchronous and knows nothing of HTTP, queues or the registry. Each engine
//! is one module behind the trait [`Engine`]:
//! - [`native`] is always there: `rten` for neural networks, our own kernels for `ai.onnx.ml`;
//! - [`onnxruntime`] is a shared library found on the machine.

mod background;
mod engine;
mod error;
pub mod kernels;
pub mod native;
pub mod onnxruntime;

pub use background::{background, yield_to_others};
pub use engine::{
    Engine, Engines, LoadOptions, Loaded, Measured, Session, Supported, example_inputs, zeros,
};
pub use error::Error;
