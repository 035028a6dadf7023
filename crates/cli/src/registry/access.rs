//! What callers over the wire may do with the registry that is followed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use ::registry::{Draft, Registry};
use api::{Access, Uploads};
use import::foreign::{self, Layout};
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

/// Opens what was uploaded as untrusted bytes, as `push` does, and MLflow's folders as `import`.
fn examine(model: &str, path: &Path) -> Result<Draft, (ErrorCode, String)> {
    let refused = |error: import::Error| (error.code(), error.to_string());
    let mut metadata = BTreeMap::new();
    let mut path = path.to_owned();
    if path.join("MLmodel").is_file() {
        let survey = foreign::survey(&path, Some(Layout::Mlflow)).map_err(refused)?;
        for version in survey.models.into_iter().flat_map(|found| found.versions) {
            path = version.file.map_err(refused)?;
            metadata = version.metadata;
        }
    }
    let package = import::open(&path).map_err(refused)?;
    // Only a name can be wrong now.
    let mut draft = draft_of(model, &package, &path).map_err(|_| {
        let message = format!("{}: the name must be UTF-8", path.display());
        (ErrorCode::InvalidArgument, message)
    })?;
    draft.metadata = metadata;
    Ok(draft)
}
