//! What callers over the wire may do with the registry that is followed.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use ::registry::{Draft, Registry, Version};
use api::{Access, Entry, Recorded, Refused, Uploaded, Uploads};
use clap::ValueEnum;
use import::foreign;
use model::ErrorCode;
use runtime::Engines;
use tokio::sync::Semaphore;

use super::data;
use super::formats::{self, Layout};
use super::push::draft_of;
use crate::rollout::replay;
use crate::{Failure, recorded, temporary};

/// The registry, for callers: whether they may change it, and how many bytes may lie here before
/// they are published.
pub fn access(
    registry: Arc<OnceLock<Arc<Registry>>>,
    engines: Arc<Engines>,
    (open_to_callers, upload_bytes): (bool, u64),
) -> Result<Access, Failure> {
    let folder = temporary::Folder::new()?;
    Ok(Access {
        registry,
        examine: Arc::new(examine),
        replay: replaying(engines),
        lay_out: Arc::new(lay_out),
        uploads: Uploads::new(folder, upload_bytes),
        open_to_callers,
    })
}

/// Opens what was uploaded as untrusted bytes, as `push` does, and MLflow's folders as `import`.
fn examine(uploaded: &Uploaded) -> Result<Draft, Refused> {
    let refused = |error: import::Error| (error.code(), error.to_string());
    let mut metadata = BTreeMap::new();
    let mut path = uploaded.path.clone();
    if path.join("MLmodel").is_file() {
        let survey = foreign::survey(&path, Some(foreign::Layout::Mlflow)).map_err(refused)?;
        for version in survey.models.into_iter().flat_map(|found| found.versions) {
            path = version.file.map_err(refused)?;
            metadata = version.metadata;
        }
    }
    let package = import::open(&path).map_err(refused)?;
    // Only a name can be wrong now.
    let mut draft = draft_of(&uploaded.model, &package, &path).map_err(|_| {
        let message = format!("{}: the name must be UTF-8", path.display());
        (ErrorCode::InvalidArgument, message)
    })?;
    draft.metadata = metadata;
    if let Some(path) = &uploaded.data_profile {
        data::attach(&mut draft, path).map_err(unfit)?;
    }
    if let Some(path) = &uploaded.warm_up {
        recorded::attach(&mut draft, path).map_err(unfit)?;
    }
    Ok(draft)
}

/// What was uploaded beside a model and cannot be read is the caller's mistake, whatever it is.
fn unfit(failure: Failure) -> Refused {
    (ErrorCode::InvalidArgument, failure.refusal().1)
}

/// Replays one file at a time: each loads candidates beside what serves.
fn replaying(engines: Arc<Engines>) -> api::Replay {
    let turn = Arc::new(Semaphore::new(1));
    Arc::new(move |recorded| {
        let (engines, turn) = (engines.clone(), turn.clone());
        Box::pin(async move {
            let _turn = turn.try_acquire().map_err(|_| {
                let message = "another replay is under way on this server; try again later";
                (ErrorCode::ResourceExhausted, message.to_owned())
            })?;
            let Recorded { registry, model, candidates, wanted } = recorded;
            let replayed = replay::run(&registry, &engines, (&model, &candidates), &wanted).await;
            replayed.map_err(Failure::refusal)
        })
    })
}

/// Lays a version out as `export` does.
fn lay_out(version: &Version, format: &str) -> Result<Vec<Entry>, Refused> {
    let layout = <Layout as ValueEnum>::from_str(format, false).map_err(|_| {
        let shown: String = format.chars().take(40).collect();
        let message = format!("format {shown:?}: expected mlflow, triton or numbered");
        (ErrorCode::InvalidArgument, message)
    })?;
    formats::archive(layout, version).map_err(Failure::refusal)
}
