//! The model repository extension: what there is, load and unload, for REST and gRPC alike.

use bytes::Bytes;
use model::{ErrorCode, InstanceSettings};
use serde_json::Value;
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
    model: &str,
    name: &str,
    parameter: Parameter,
) -> Result<(), Error> {
    match (name, name.strip_prefix("file:"), parameter) {
        ("config", _, Parameter::Text(text)) => {
            load.settings = Some(settings_from_config(model, &text).map_err(invalid)?);
        }
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
    if !load.files.is_empty() && load.settings.is_none() {
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

/// What a model configuration in Triton's JSON says of how the model is to be run. What it says
/// beyond that is named in the log; what it says wrongly is refused.
pub(crate) fn settings_from_config(name: &str, config: &str) -> Result<InstanceSettings, String> {
    let config: Value =
        serde_json::from_str(config).map_err(|error| format!("config is not JSON: {error}"))?;
    let Value::Object(fields) = config else {
        return Err("config: expected an object".into());
    };
    let mut settings = InstanceSettings::default();
    for (key, value) in &fields {
        match key.as_str() {
            "name" if value.as_str().is_none_or(|given| given.is_empty() || given == name) => {}
            "name" => return Err(format!("config: name is {value}, but the model is \"{name}\"")),
            "max_batch_size" => settings.max_batch_size = Some(whole_number(key, value)?),
            "instance_group" => settings.instances = instances(value)?,
            "parameters" => read_parameters(value, &mut settings)?,
            // Another name of this engine's own back end pins nothing: any engine that can run
            // the format gives the same answers.
            "backend" | "platform" if value.as_str().is_some_and(|b| b.starts_with("native")) => {
                settings.engine = Some("native".into());
            }
            "backend" | "platform" | "input" | "output" | "default_model_filename" => {}
            _ if value.is_null() || is_empty(value) => {}
            _ => tracing::warn!(model = name, field = %key, "model configuration: not honoured"),
        }
    }
    Ok(settings)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// A number, or a string of one, as protobuf's JSON writes 64-bit integers.
fn whole_number(key: &str, value: &Value) -> Result<usize, String> {
    let number = match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    };
    number
        .and_then(|number| usize::try_from(number).ok())
        .ok_or_else(|| format!("config: {key}: expected a whole number, got {value}"))
}

/// How many copies the groups ask for together.
fn instances(groups: &Value) -> Result<Option<usize>, String> {
    let groups = groups.as_array().ok_or("config: instance_group: expected an array")?;
    let mut sum = 0usize;
    for count in groups.iter().filter_map(|group| group.get("count")) {
        sum = sum.saturating_add(whole_number("instance_group.count", count)?);
    }
    Ok((sum > 0).then_some(sum))
}

fn read_parameters(value: &Value, settings: &mut InstanceSettings) -> Result<(), String> {
    let fields = value.as_object().ok_or("config: parameters: expected an object")?;
    for (key, value) in fields {
        let text = value.get("string_value").and_then(Value::as_str).unwrap_or_default();
        match key.as_str() {
            "engine" => settings.engine = Some(text.to_owned()),
            "threads" => settings.threads = Some(whole_number(key, &Value::from(text))?),
            _ => tracing::warn!(parameter = %key, "model configuration: not honoured"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_says_how_to_run_the_model() {
        let settings = settings_from_config(
            "m",
            r#"{"name": "m", "backend": "onnxruntime", "max_batch_size": 8,
                "instance_group": [{"count": 2, "kind": "KIND_CPU"}, {"count": "1"}],
                "parameters": {"threads": {"string_value": "4"}}, "dynamic_batching": {}}"#,
        )
        .unwrap();
        assert_eq!(
            settings,
            InstanceSettings {
                instances: Some(3),
                threads: Some(4),
                max_batch_size: Some(8),
                ..InstanceSettings::default()
            }
        );
        assert!(settings_from_config("m", "{").unwrap_err().contains("not JSON"));
        assert!(settings_from_config("m", r#"{"name": "n"}"#).is_err());
        assert!(settings_from_config("m", r#"{"max_batch_size": -1}"#).unwrap_err().contains("-1"));
    }
}
