//! The crate's integration tests, in one binary.

mod native;
mod onnxruntime;
mod support;
