//! The log of predictions: what was asked and answered, as Parquet files in a folder or an object
//! store, for whoever wants to know later.
//!
//! [`Watcher`] sees predictions and leaves those that the [`Rules`] keep to a thread, which makes
//! rows of them ([`columns`]) and files of rows ([`gather`]); another stores them. Whatever the
//! store does, seeing a prediction takes no longer: what is too much is dropped, and counted.
//! [`files`] says where files are, and which are kept.

pub mod columns;
pub mod files;
pub mod gather;
pub mod labels;
pub mod performance;
pub mod read;
pub mod rules;
pub mod scores;
mod store;
mod writer;

pub use labels::{Known, Label};
pub use rules::{ModelRules, Pattern, Rules, Salt, Treatment};
pub use store::Store;
pub use writer::{Counts, Labels, Log, Options, Watcher};
