//! Tests of the import room through its public door.

mod shared_models;
mod stacking;
