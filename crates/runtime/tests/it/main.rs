//! The crate's integration tests, in one binary.

mod kernels;
mod native;
mod onnxruntime;
mod support;
