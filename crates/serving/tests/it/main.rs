//! Serving, driven through its door with an engine that does what a test tells it to.

mod fake;
mod scenarios;
