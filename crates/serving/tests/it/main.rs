//! Serving, driven through its door with an engine that does what a test tells it to.

mod fake;
mod on_demand;
mod scenarios;
mod shadows;
mod versions;
mod warm_up;
