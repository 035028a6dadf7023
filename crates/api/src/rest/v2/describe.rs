//! What the server and its models are: metadata, readiness, configuration and statistics.

use std::time::UNIX_EPOCH;

use hyper::{Response, StatusCode};
use model::{DataType, ErrorCode, TensorSpec};
use serde_json::{Value, json};
use serving::{Count, ModelInfo, Statistics};

use super::super::json_response;
use super::with_status;
use crate::Api;
use crate::error::Failure;
use crate::server::Body;

/// The extensions of the protocol that are answered.
pub(crate) const EXTENSIONS: [&str; 7] = [
    "classification",
    "model_repository",
    "model_configuration",
    "schedule_policy",
    "binary_tensor_data",
    "parameters",
    "statistics",
];

pub(super) fn server(api: &Api) -> Response<Body> {
    json_response(&json!({
        "name": api.options.server_name,
        "version": api.options.server_version,
        "extensions": EXTENSIONS,
    }))
}

/// 200 or, as Triton has it, 400.
pub(super) fn ready(ready: bool, name: Option<&str>) -> Response<Body> {
    let body = match name {
        Some(name) => json!({ "name": name, "ready": ready }),
        None => json!({ "ready": ready }),
    };
    let status = if ready { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    with_status(json_response(&body), status)
}

pub(super) async fn metadata(
    api: &Api,
    name: &str,
    version: Option<&str>,
) -> Result<Response<Body>, Failure> {
    let info = api.serving.model(name, version).await?;
    let tensor = |spec: &TensorSpec| json!({ "name": spec.name, "datatype": spec.datatype, "shape": spec.extents() });
    Ok(json_response(&json!({
        "name": info.name,
        "versions": ready_versions(api, name),
        "platform": platform(&info),
        "inputs": info.signature.inputs.iter().map(tensor).collect::<Vec<_>>(),
        "outputs": info.signature.outputs.iter().map(tensor).collect::<Vec<_>>(),
    })))
}

/// Such as `onnxruntime_onnx`: what runs it, and what it was made of.
/// What Triton calls the way a model is run; its clients only show it.
pub(crate) fn platform(info: &ModelInfo) -> String {
    format!("{}_{}", info.engine, info.manifest.format.as_str())
}

fn ready_versions(api: &Api, name: &str) -> Vec<String> {
    let is_ready = |status: &serving::Status| &*status.name == name && status.state.answers();
    api.serving.status().iter().filter(|s| is_ready(s)).map(|s| s.version.to_string()).collect()
}

/// The configuration as Triton writes it, with every choice made.
pub(super) async fn config(
    api: &Api,
    name: &str,
    version: Option<&str>,
) -> Result<Response<Body>, Failure> {
    let info = api.serving.model(name, version).await?;
    // Where rows are stacked, Triton leaves the batch out of the dimensions.
    let dims = |spec: &TensorSpec| {
        let extents = spec.extents();
        let skipped = usize::from(info.max_batch_size > 0);
        extents.get(skipped..).unwrap_or_default().to_vec()
    };
    let input = |spec: &TensorSpec| {
        json!({
            "name": spec.name,
            "data_type": triton_type(spec.datatype),
            "format": "FORMAT_NONE",
            "dims": dims(spec),
            "is_shape_tensor": false,
            "allow_ragged_batch": false,
            "optional": spec.optional,
        })
    };
    let output = |spec: &TensorSpec| {
        json!({
            "name": spec.name,
            "data_type": triton_type(spec.datatype),
            "dims": dims(spec),
            "label_filename": "",
            "is_shape_tensor": false,
        })
    };
    let mut config = json!({
        "name": info.name,
        "platform": platform(&info),
        "backend": info.engine,
        "version_policy": { "latest": { "num_versions": 1 } },
        "max_batch_size": info.max_batch_size,
        "input": info.signature.inputs.iter().map(input).collect::<Vec<_>>(),
        "output": info.signature.outputs.iter().map(output).collect::<Vec<_>>(),
        "instance_group": [{
            "name": info.name,
            "kind": "KIND_CPU",
            "count": info.settings.instances.unwrap_or(1),
        }],
        "default_model_filename": "model.onnx",
        "parameters": {
            "threads": { "string_value": info.settings.threads.unwrap_or(1).to_string() },
        },
    });
    if info.max_batch_size > 0 {
        config["dynamic_batching"] = json!({});
    }
    Ok(json_response(&config))
}

fn triton_type(datatype: DataType) -> String {
    match datatype {
        DataType::Bytes => "TYPE_STRING".into(),
        other => format!("TYPE_{other}"),
    }
}

pub(super) fn statistics(
    api: &Api,
    name: Option<&str>,
    version: Option<&str>,
) -> Result<Response<Body>, Failure> {
    let statistics = api.serving.statistics(name, version);
    if let (true, Some(name)) = (statistics.is_empty(), name) {
        // Says which of the two is unknown, model or version.
        api.serving.check(name, version)?;
        let message = format!("Request for unknown model: '{name}' has no statistics yet");
        return Err(Failure::new(ErrorCode::NotFound, message));
    }
    let models: Vec<Value> = statistics.iter().map(model_statistics).collect();
    Ok(json_response(&json!({ "model_stats": models })))
}

/// What is known of a model's drift; `since=SECONDS` leaves out what was over before so long ago.
pub(super) fn drift(
    api: &Api,
    name: &str,
    version: Option<&str>,
    query: Option<&str>,
) -> Result<Response<Body>, Failure> {
    let mut since = 0;
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let seconds = pair.strip_prefix("since=").and_then(|text| text.parse::<u32>().ok());
        let Some(seconds) = seconds else {
            let message = format!("\"{pair}\": expected since=SECONDS, such as since=604800");
            return Err(Failure::new(ErrorCode::InvalidArgument, message));
        };
        let now = UNIX_EPOCH.elapsed().map_or(0, |now| now.as_secs() as i64);
        since = now - i64::from(seconds);
    }
    let Some(drift) = &api.drift else {
        let message = "drift is not watched by this server: it was started with --drift false";
        return Err(Failure::new(ErrorCode::NotFound, message));
    };
    let versions = drift(name, version, since);
    if versions.is_empty() {
        api.serving.check(name, version)?;
    }
    Ok(json_response(&json!({ "model": name, "versions": versions })))
}

fn model_statistics(statistics: &Statistics) -> Value {
    let count = |count: Count| json!({ "count": count.count, "ns": count.time.as_nanos() as u64 });
    let none = json!({ "count": 0, "ns": 0 });
    let shadows = statistics.shadows;
    let last = statistics.last_inference.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let batches: Vec<Value> = statistics
        .batches
        .iter()
        .map(|batch| {
            json!({
                "batch_size": batch.batch_size,
                "compute_input": none,
                "compute_infer": count(batch.compute),
                "compute_output": none,
            })
        })
        .collect();
    json!({
        "name": statistics.name,
        "version": statistics.version,
        "last_inference": last.map_or(0, |since| since.as_millis() as u64),
        "inference_count": statistics.inference_count,
        "execution_count": statistics.execution_count,
        "inference_stats": {
            "success": count(statistics.success),
            "fail": count(statistics.fail),
            "queue": count(statistics.queue),
            "compute_input": none,
            "compute_infer": count(statistics.compute),
            "compute_output": none,
            "cache_hit": none,
            "cache_miss": none,
        },
        "batch_stats": batches,
        "memory_usage": memory_usage(statistics.memory),
        "response_stats": {},
        "shadow_stats": {
            "run": count(shadows.run),
            "failed": shadows.failed,
            "dropped": shadows.dropped,
        },
    })
}

/// What a version is reckoned to hold; nothing while it is not loaded.
fn memory_usage(bytes: u64) -> Value {
    if bytes == 0 {
        return json!([]);
    }
    json!([{ "type": "CPU", "id": 0, "byte_size": bytes }])
}
