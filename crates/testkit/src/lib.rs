//! Tiny models and helpers for the tests of every room.

pub mod corpus;
pub mod fake;
pub mod onnx;
pub mod python;
#[cfg(unix)]
pub mod services;
