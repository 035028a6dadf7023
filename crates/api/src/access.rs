//! The registry as this room is given it, with what the wiring lends for it: nothing here knows how
//! a model is opened, run or laid out for others.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use ::registry::{Draft, File, Registry, Version};
use model::ErrorCode;
use rollout::Replayed;

use crate::Uploads;

/// A registry, and what callers may do with it.
#[derive(Clone)]
pub struct Access {
    /// Empty for as long as it has not answered.
    pub registry: Arc<OnceLock<Arc<Registry>>>,
    /// Opens what callers upload.
    pub examine: Examine,
    /// Answers recorded requests with candidates.
    pub replay: Replay,
    /// Lays a version out as another tool keeps it.
    pub lay_out: LayOut,
    /// Where what they upload lies until it is published.
    pub uploads: Uploads,
    /// Whether callers may change it and fetch files from it.
    pub open_to_callers: bool,
}

/// Why the wiring refuses, in words for the caller.
pub type Refused = (ErrorCode, String);

/// What callers uploaded for a version.
#[derive(Clone, Debug)]
pub struct Uploaded {
    /// The name of the model that gets the version.
    pub model: String,
    /// A model file, or a folder with one.
    pub path: PathBuf,
    /// The data that it was trained on, as CSV, TSV or Parquet, or its profile in JSON.
    pub data_profile: Option<PathBuf>,
    /// Recorded requests to warm it with.
    pub warm_up: Option<PathBuf>,
}

/// Opens what was uploaded as untrusted bytes: what is found in it is the draft of a version, with
/// its profile and its recorded requests among the attachments. Blocks.
pub type Examine = Arc<dyn Fn(&Uploaded) -> Result<Draft, Refused> + Send + Sync>;

/// Recorded requests that are to be answered by candidates.
pub struct Recorded {
    /// Where the candidates are.
    pub registry: Arc<Registry>,
    /// The model.
    pub model: String,
    /// Its versions.
    pub candidates: Vec<u64>,
    /// The tolerance, and the file, as a path of this machine.
    pub wanted: rollout::Replay,
}

/// Answers recorded requests with candidates that nobody else sees, and counts how many agree.
pub type Replay = Arc<
    dyn Fn(Recorded) -> Pin<Box<dyn Future<Output = Result<Replayed, Refused>> + Send>>
        + Send
        + Sync,
>;

/// Says which files another tool wants of a version, given the name of its layout.
pub type LayOut = Arc<dyn Fn(&Version, &str) -> Result<Vec<Entry>, Refused> + Send + Sync>;

/// One file of a version as another tool keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Where it is, relative, with `/`.
    pub path: String,
    /// What is in it.
    pub contents: Contents,
}

/// What is in a file.
#[derive(Clone, Debug, PartialEq)]
pub enum Contents {
    /// The bytes of a file of the version.
    File(File),
    /// This text.
    Text(String),
}
