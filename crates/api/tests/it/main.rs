//! The wire, driven over real sockets against real models.

mod bad_input;
mod connections;
mod oip;
mod support;
mod tfs;
