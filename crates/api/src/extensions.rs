//! Triton's extensions to the Open Inference Protocol that REST and gRPC share.

use model::{ErrorCode, InstanceSettings};
use serde_json::Value;
use serving::Error;

/// The names of the extensions that the server has, as its metadata lists them.
pub(crate) const EXTENSIONS: [&str; 7] = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "statistics",
];

/// The settings in the model configuration (JSON) that a load request may carry.
///
/// Honoured are `max_batch_size`, the counts of `instance_group`, and `parameters` called
/// `engine` and `threads`. What else there is, is named in a warning.
///
/// # Errors
/// If it is not JSON, or what is honoured is not of its type.
pub(crate) fn settings(config: &str) -> Result<InstanceSettings, Error> {
    let wrong = |why: String| Error::new(ErrorCode::InvalidArgument, format!("config: {why}"));
    let value: Value = serde_json::from_str(config).map_err(|error| wrong(error.to_string()))?;
    let Value::Object(fields) = value else {
        return Err(wrong("expected a JSON object".into()));
    };
    let mut settings = InstanceSettings::default();
    let mut ignored = Vec::new();
    for (name, value) in &fields {
        match &**name {
            "max_batch_size" => {
                let size = whole(name, value).map_err(wrong)?;
                // 0 says that rows cannot be stacked: each request runs alone.
                settings.max_batch_size = Some(size.max(1));
            }
            "instance_group" => {
                let groups = value.as_array().ok_or_else(|| wrong("expected groups".into()))?;
                let count =
                    |group: &Value| group.get("count").map_or(Ok(1), |count| whole("count", count));
                let counts: Result<Vec<usize>, String> = groups.iter().map(count).collect();
                let total: usize = counts.map_err(wrong)?.iter().sum();
                settings.instances = Some(total.max(1));
            }
            "parameters" => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    let text = value.get("string_value").and_then(Value::as_str);
                    match (&**name, text) {
                        ("engine", Some(text)) => settings.engine = Some(text.into()),
                        ("threads", Some(text)) => {
                            let threads = text.parse().map_err(|_| {
                                wrong(format!("threads: \"{text}\" is not a number"))
                            })?;
                            settings.threads = Some(threads);
                        }
                        _ => ignored.push(format!("parameters.{name}")),
                    }
                }
            }
            // What says nothing that the model does not say itself.
            "name" | "platform" | "backend" | "input" | "output" => {}
            _ => ignored.push(name.clone()),
        }
    }
    if !ignored.is_empty() {
        tracing::warn!(fields = ignored.join(", "), "not honoured in the model's configuration");
    }
    Ok(settings)
}

fn whole(name: &str, value: &Value) -> Result<usize, String> {
    let number = match value {
        // Protobuf's JSON writes 64-bit numbers as strings.
        Value::String(text) => text.parse().ok(),
        _ => value.as_u64(),
    };
    // More than this is a mistake, and would only fail later and worse.
    number.and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= 1 << 20).ok_or_else(|| {
        format!("{name}: expected a whole number from 0 to {}, got {value}", 1 << 20)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_read_for_what_it_can_change() {
        let config = r#"{"name": "x", "max_batch_size": 8, "platform": "onnxruntime_onnx",
            "instance_group": [{"count": 2, "kind": "KIND_CPU"}, {}],
            "parameters": {"engine": {"string_value": "native"}}, "optimization": {}}"#;
        let settings = settings(config).unwrap();
        assert_eq!(settings.max_batch_size, Some(8));
        assert_eq!(settings.instances, Some(3));
        assert_eq!(settings.engine.as_deref(), Some("native"));
    }

    #[test]
    fn a_wrong_configuration_is_refused() {
        let why = |config| settings(config).unwrap_err().to_string();
        assert!(why("{").starts_with("config: EOF"));
        assert_eq!(why("[]"), "config: expected a JSON object");
        assert!(why(r#"{"max_batch_size": -1}"#).contains("max_batch_size: expected a whole"));
        assert!(why(r#"{"instance_group": [{"count": 1e9}]}"#).contains("count: expected"));
    }
}
