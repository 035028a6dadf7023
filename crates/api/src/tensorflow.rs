//! What REST and gRPC of TensorFlow Serving have in common: which version a request means, and the
//! words of the original where there is none.

use std::sync::Arc;

use model::ErrorCode;
use serving::{Chosen, Error, ModelInfo, Request, Serving, Status, Target};

use crate::caller::Caller;
use crate::refusals::invalid;

/// The one signature that a model has.
pub(crate) const SIGNATURE: &str = "serving_default";

/// Which version of a model is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The one that traffic gets.
    Latest,
    /// The one of this name.
    Version(String),
    /// The one of this name, which is no number.
    Label(String),
}

impl Choice {
    /// Its name.
    pub(crate) fn version(&self) -> Option<&str> {
        match self {
            Self::Latest => None,
            Self::Version(version) | Self::Label(version) => Some(version),
        }
    }

    /// The same, or what the call's headers say where the request names none.
    pub(crate) fn or_of(self, caller: &Caller) -> Result<Self, Error> {
        let version = caller.version(self.version())?;
        Ok(match (self, version) {
            (Self::Latest, Some(version)) => Self::Version(version),
            (named, _) => named,
        })
    }

    /// A label names a version by its string.
    fn check_label(&self, serving: &Serving, name: &str) -> Result<(), Error> {
        let Self::Label(label) = self else { return Ok(()) };
        if serving.status_of(name).iter().any(|s| &*s.version == label) {
            return Ok(());
        }
        Err(invalid(format!("Unrecognized servable version label: {}", short(label))))
    }
}

/// The version that is to answer, as soon as it can.
pub(crate) async fn find(
    serving: &Serving,
    target: Target<'_>,
    of: &Choice,
) -> Result<Chosen, Error> {
    of.check_label(serving, target.model)?;
    let chosen = serving.choose(target).await;
    chosen.map_err(|error| in_its_words(error, target.model, of))
}

/// What the version that is meant is.
pub(crate) async fn describe(
    serving: &Serving,
    name: &str,
    of: &Choice,
) -> Result<Arc<ModelInfo>, Error> {
    of.check_label(serving, name)?;
    let info = serving.model(name, of.version()).await;
    info.map_err(|error| in_its_words(error, name, of))
}

fn in_its_words(error: Error, name: &str, of: &Choice) -> Error {
    if error.code() != ErrorCode::NotFound {
        return error;
    }
    let name = short(name);
    let wanted = match of.version() {
        Some(version) => format!("Specific({name}, {})", short(version)),
        None => format!("Latest({name})"),
    };
    error.in_words(format!("Servable not found for request: {wanted}"))
}

/// A request for a target, without inputs as yet.
pub(crate) fn request(of: Target<'_>) -> Request {
    Request {
        model: of.model.to_owned(),
        version: of.version.map(str::to_owned),
        key: of.key.map(str::to_owned),
        deadline: of.deadline,
        protocol: of.protocol,
        ..Request::default()
    }
}

/// The state of the versions that are meant (of all, if none is named), the newest first.
pub(crate) fn states(serving: &Serving, name: &str, of: &Choice) -> Result<Vec<Status>, Error> {
    of.check_label(serving, name)?;
    let mut all = serving.status_of(name);
    all.retain(|s| of.version().is_none_or(|version| *s.version == *version));
    if all.is_empty() {
        let version = of.version().map(|version| format!(" with version {}", short(version)));
        let (name, version) = (short(name), version.unwrap_or_default());
        let message = format!("Could not find any versions of model {name}{version}");
        return Err(Error::new(ErrorCode::NotFound, message));
    }
    let number = |status: &Status| status.version.parse::<i64>().unwrap_or_default();
    all.sort_by_key(|status| std::cmp::Reverse(number(status)));
    Ok(all)
}

/// Refuses a signature that no model has.
pub(crate) fn check_signature(name: &str) -> Result<(), Error> {
    if name.is_empty() || name == SIGNATURE {
        return Ok(());
    }
    let name = short(name);
    Err(invalid(format!("Serving signature name: {name:?} not found; there is {SIGNATURE:?}")))
}

/// A caller's name may be as long as the body; a message need not be.
fn short(name: &str) -> String {
    name.chars().take(100).collect()
}
