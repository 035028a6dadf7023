//! Drives the real binary, as a user would.
#![allow(missing_docs)]

mod binary;
mod client;
mod follow;
mod registry;
mod serve;
mod server;
mod simulate;
mod tidy;
mod verbs;
