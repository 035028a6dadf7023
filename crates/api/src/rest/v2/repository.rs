//! The model repository extension: what there is, load and unload.

use base64::Engine;
use bytes::Bytes;
use hyper::Response;
use model::{ErrorCode, InstanceSettings};
use serde_json::{Value, json};
use serving::State;

use super::super::json::{NonFinite, Reader};
use super::super::json_response;
use crate::error::Failure;
use crate::server::Body;
use crate::{Api, Load};

/// Every model that is known and its state; only the ready ones if the request says so.
pub(super) fn index(api: &Api, body: &Bytes) -> Result<Response<Body>, Failure> {
    let mut only_ready = false;
    read_object(body, |reader, key| match key {
        "ready" => reader.boolean().map(|ready| only_ready = ready),
        _ => reader.skip().map(drop),
    })?;
    let mut models = Vec::new();
    for status in api.serving.status() {
        let (state, reason) = match status.state {
            State::Loading => ("LOADING", None),
            State::Ready => ("READY", None),
            State::Unloading => ("UNLOADING", None),
            State::Unavailable(reason) => ("UNAVAILABLE", reason),
        };
        if only_ready && state != "READY" {
            continue;
        }
        models.push(json!({
            "name": status.name,
            "version": status.version,
            "state": state,
            "reason": reason.unwrap_or_default(),
        }));
    }
    if !only_ready {
        for (name, version) in api.control.available() {
            models.push(json!({
                "name": name, "version": version, "state": "UNAVAILABLE", "reason": "unloaded",
            }));
        }
    }
    Ok(json_response(&Value::Array(models)))
}

/// Loads or reloads a model, with the settings and files that the request gives.
pub(super) async fn load(api: &Api, name: &str, body: &Bytes) -> Result<Response<Body>, Failure> {
    let mut load = Load::default();
    read_object(body, |reader, key| match key {
        "parameters" => reader.object(|reader, key| {
            if key == "config" {
                let config = reader.string()?;
                let settings = settings_from_config(name, &config);
                load.settings = Some(settings.map_err(|why| reader.error(why))?);
            } else if let Some(path) = key.strip_prefix("file:") {
                let text = reader.string()?;
                let contents = base64::engine::general_purpose::STANDARD.decode(&*text);
                let contents = contents
                    .map_err(|error| reader.error(format!("{key:?} is not base64: {error}")))?;
                load.files.push((path.to_owned(), contents.into()));
            } else {
                reader.skip()?;
            }
            Ok(())
        }),
        _ => reader.skip().map(drop),
    })?;
    if !load.files.is_empty() && load.settings.is_none() {
        let message = "files can be given only together with \"config\" in the parameters";
        return Err(Failure::invalid(message));
    }
    match api.control.load(name, load).await {
        Ok(()) => Ok(json_response(&json!({}))),
        Err((code, message)) if message.contains("failed to load") => {
            Err(Failure::new(code, message))
        }
        // The words that stock clients look for.
        Err((code, message)) => {
            Err(Failure::new(code, format!("failed to load '{name}': {message}")))
        }
    }
}

/// Unloads all versions of a model.
pub(super) async fn unload(api: &Api, name: &str, body: &Bytes) -> Result<Response<Body>, Failure> {
    read_object(body, |reader, _| reader.skip().map(drop))?;
    api.control.unload(name).await?;
    Ok(json_response(&json!({})))
}

/// Reads a body that may be empty, or an object.
fn read_object(
    body: &Bytes,
    member: impl FnMut(&mut Reader<'_>, &str) -> Result<(), super::super::json::Error>,
) -> Result<(), Failure> {
    let mut reader = Reader::new(body, NonFinite::Refused);
    if reader.peek().is_none() {
        return Ok(());
    }
    let result = reader.object(member).and_then(|()| reader.end());
    result.map_err(|error| Failure::invalid(error.to_string()))
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

impl From<super::super::json::Error> for Failure {
    fn from(error: super::super::json::Error) -> Self {
        Self::new(ErrorCode::InvalidArgument, error.to_string())
    }
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
