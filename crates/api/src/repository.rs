//! The model repository extension: what there is, load and unload, for REST and gRPC alike.

use bytes::Bytes;
use model::ErrorCode;
use serving::{Error, State};

use crate::refusals::invalid;
use crate::{Api, Load};

/// A version and the state that it is in, in Triton's words.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) state: &'static str,
    pub(crate) reason: String,
}

/// Every version that is known, or only those that are ready; then what could be loaded.
pub(crate) fn index(api: &Api, only_ready: bool) -> Vec<Entry> {
    let mut entries: Vec<Entry> = api.serving.status().into_iter().map(entry).collect();
    for (name, version) in api.control.available() {
        if !entries.iter().any(|entry| entry.name == name && entry.version == version) {
            let (state, reason) = ("UNAVAILABLE", "unloaded".into());
            entries.push(Entry { name, version, state, reason });
        }
    }
    entries.retain(|entry| !only_ready || entry.state == "READY");
    entries
}

fn entry(of: serving::Status) -> Entry {
    let (state, reason) = match of.state {
        State::Loading => ("LOADING", None),
        State::Ready => ("READY", None),
        State::OnDemand => ("READY", Some("loaded on demand".into())),
        State::Unloading => ("UNLOADING", None),
        State::Unavailable(reason) => ("UNAVAILABLE", Some(reason.unwrap_or("unloaded".into()))),
    };
    Entry {
        name: of.name.to_string(),
        version: of.version.to_string(),
        state,
        reason: reason.unwrap_or_default(),
    }
}

/// There is one repository, without a name.
pub(crate) fn only_repository(name: &str) -> Result<(), Error> {
    if name.is_empty() {
        return Ok(());
    }
    let message = format!("there is no repository {name:?}; leave the name away");
    Err(Error::new(ErrorCode::NotFound, message))
}

/// What a parameter of a load request may hold.
pub(crate) enum Parameter {
    Text(String),
    Contents(Bytes),
    Other,
}

/// Takes a parameter of a load request.
pub(crate) fn add_parameter(
    load: &mut Load,
    name: &str,
    parameter: Parameter,
) -> Result<(), Error> {
    match (name, name.strip_prefix("file:"), parameter) {
        ("config", _, Parameter::Text(text)) => load.config = Some(text),
        ("config", ..) => return Err(invalid("parameter \"config\": expected a string of JSON")),
        (_, Some(path), Parameter::Contents(contents)) => {
            load.files.push((path.to_owned(), contents));
        }
        (_, Some(_), _) => {
            return Err(invalid(format!("parameter {name:?}: expected a file's bytes")));
        }
        _ => {
            let known = "load takes config and file:VERSION/NAME";
            return Err(invalid(format!("parameter {name:?} is not known; {known}")));
        }
    }
    Ok(())
}

/// Loads or reloads a model, and waits until it is ready or has failed.
pub(crate) async fn load(api: &Api, name: &str, load: Load) -> Result<(), Error> {
    if !load.files.is_empty() && load.config.is_none() {
        return Err(invalid("files can be given only together with the parameter \"config\""));
    }
    api.control.load(name, load).await.map_err(|(code, message)| {
        // The words that stock clients look for.
        let has_words = message.contains("failed to load");
        let words = if has_words { String::new() } else { format!("failed to load '{name}': ") };
        Error::new(code, words + &message)
    })
}

/// Refuses what an unload request cannot have.
pub(crate) fn check_unload_parameter(name: &str) -> Result<(), Error> {
    // No model depends on another here.
    if name == "unload_dependents" {
        return Ok(());
    }
    Err(invalid(format!("parameter {name:?} is not known; unload takes none")))
}

/// Unloads all versions of a model, and waits until its last request is answered.
pub(crate) async fn unload(api: &Api, name: &str) -> Result<(), Error> {
    api.control.unload(name).await.map_err(|(code, message)| Error::new(code, message))
}
