//! The registry, on every store and database that it can have.

mod place;
mod scenarios;
mod stores;
