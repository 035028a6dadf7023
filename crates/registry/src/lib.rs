//! Durable versions of models: published once, named by aliases, never silently changed.
//!
//! Blobs lie in an object store (a folder, S3, Google Cloud Storage, Azure Blob), rows in SQLite or
//! PostgreSQL. Every change is a transaction that appends to a history from which the whole state
//! can be told for any time. Knows nothing of how models are served: servers follow the
//! [`model::Assignments`] that [`Registry::watch`] hands out.
//!
//! ```
//! use registry::{By, Clock, Draft, Expected, Location, Registry, Source};
//! # use model::{Format, Manifest, Signature};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> registry::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let text = folder.path().to_str().unwrap();
//! let location = Location::parse(text, Default::default())?;
//! let registry = Registry::open(&location, None, Clock::system()).await?;
//!
//! # let digest = "sha256:9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0".into();
//! # let manifest = Manifest::new(Format::Onnx, digest, 3, Signature::default());
//! let by = By::new("ada").because("first model");
//! let draft = Draft::new("fraud", manifest, "model.onnx", Source::Bytes("aaa".into()));
//! let version = registry.publish(&draft, &by, &|_| ()).await?;
//! registry.set_alias("fraud", "champion", Some(version.number), Expected::Nothing, &by).await?;
//!
//! assert_eq!(registry.resolve(&"fraud@champion".parse()?).await?.number, 1);
//! assert_eq!(registry.assignments(Default::default()).await?.models["fraud"][0].version, "1");
//! # Ok(())
//! # }
//! ```

mod blobs;
mod check;
mod clock;
mod collect;
mod compare;
mod database;
mod error;
mod list;
mod location;
mod names;
mod notes;
mod publish;
mod rollouts;
mod servers;
mod state;
mod upload;
mod version;
mod watch;

pub use blobs::Reader;
pub use check::Inconsistency;
pub use clock::Clock;
pub use collect::{Collected, Grace};
pub use compare::differences;
pub use error::{Error, Result};
pub use list::Page;
pub use location::Location;
pub use names::{CHAMPION, Reference, Selector, check_alias, check_file, check_key, check_model};
pub use notes::{Described, Entry};
pub use publish::{Draft, Progress, Source};
pub use registry::{By, Expected, Registry};
pub use rollouts::{Decision, Feedback, Measurement, Rollout, Start};
pub use servers::{Holding, Server};
pub use state::{
    Event, Former, ModelState, Outcome, Record, Share, Stage, Underway, before_champion,
};
pub use version::{File, FileKind, Lineage, Model, Summary, Version};

mod registry;
