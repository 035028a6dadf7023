//! Tests of the import room through its public door.

mod bytes;
mod dictionaries;
mod external;
mod foreign;
mod graphs;
mod refusals;
mod repository;
mod shared_models;
mod stacking;
mod support;
