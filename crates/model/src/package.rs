//! A checked model: what `import` makes and `runtime` loads.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::{Signature, onnx};

/// The kinds of model file that can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Open Neural Network Exchange.
    Onnx,
}

impl Format {
    /// The format's usual name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Onnx => "onnx",
        }
    }
}

/// What is known of a package without running it.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Manifest {
    /// The kind of file that the model came in.
    pub format: Format,
    /// `sha256:` and the hexadecimal digest of the model's bytes, external data included.
    pub digest: String,
    /// Size of those bytes.
    pub size: u64,
    /// Inputs and outputs.
    pub signature: Signature,
    /// What the file says of itself: producer, version, description, custom metadata.
    pub metadata: BTreeMap<String, String>,
    /// What `import` found worth telling: why requests cannot be stacked, what it rewrote.
    #[serde(default)]
    pub notes: Vec<String>,
}

impl Manifest {
    /// A manifest of what every model has; the rest is empty.
    pub fn new(format: Format, digest: String, size: u64, signature: Signature) -> Self {
        Self { format, digest, size, signature, metadata: BTreeMap::new(), notes: Vec::new() }
    }
}

/// Immutable bytes of one model plus its manifest. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Package {
    /// What is known of it.
    pub manifest: Arc<Manifest>,
    /// The checked program, for engines that run it themselves.
    pub program: Program,
    /// The main file for engines that parse it themselves: as it was read, or encoded again where
    /// `import` rewrote the graph (`notes` says so). External data is still outside of it.
    pub bytes: Bytes,
    /// Where the main file was read from, if it was a file. Engines need it only to resolve
    /// external data, which `import` has checked to stay inside this file's folder.
    pub path: Option<PathBuf>,
    /// The files of external data that were read, as the model calls them: paths in the folder of
    /// its own file, with `/`.
    pub external: Vec<String>,
}

/// The checked program of a package, by format.
#[derive(Clone, Debug)]
pub enum Program {
    /// An ONNX graph whose external tensors have been read in (every initializer has its bytes),
    /// whose nodes are in topological order, whose local functions are inlined, and where the
    /// default domain is always spelled `""`.
    Onnx(Arc<onnx::ModelProto>),
}
