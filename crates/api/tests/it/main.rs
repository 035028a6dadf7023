//! The wire, driven over real sockets against real models.

mod agreement;
mod bad_input;
mod connections;
mod memory;
mod metrics;
mod oip;
mod operations;
mod registry;
mod rollout;
mod support;
mod tfs;
mod time;
