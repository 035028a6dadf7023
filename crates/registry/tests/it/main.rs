//! The registry, on every store and database that it can have.

mod bad_days;
mod crash;
mod history;
mod place;
mod rollouts;
mod scenarios;
mod stores;
