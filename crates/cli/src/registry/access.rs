//! What callers over the wire may do with the registry that is followed.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use ::registry::{Draft, Registry};
use api::{Access, Uploads};
use model::ErrorCode;

use super::push::draft_of;
use crate::Failure;

/// The registry, for callers: whether they may change it, and how many bytes may lie here before
/// they are published.
pub fn access(
    registry: Arc<OnceLock<Arc<Registry>>>,
    open_to_callers: bool,
    upload_bytes: u64,
) -> Result<Access, Failure> {
    let folder = tempfile::Builder::new().prefix("modelyard-uploads-").tempdir()?;
    Ok(Access {
        registry,
        examine: Arc::new(examine),
        uploads: Uploads::new(folder, upload_bytes),
        open_to_callers,
    })
}

/// Opens what was uploaded as untrusted bytes, as `push` does.
fn examine(model: &str, path: &Path) -> Result<Draft, (ErrorCode, String)> {
    let package = import::open(path).map_err(|error| (error.code(), error.to_string()))?;
    // Only a name can be wrong now.
    draft_of(model, &package, path).map_err(|_| {
        let message = format!("{}: the name must be UTF-8", path.display());
        (ErrorCode::InvalidArgument, message)
    })
}
