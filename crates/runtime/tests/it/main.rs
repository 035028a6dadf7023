//! The crate's integration tests, in one binary.

mod control;
mod kernels;
mod kernels_trees;
mod native;
mod native_goldens;
mod onnxruntime;
mod shared_models;
mod support;
