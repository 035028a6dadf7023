//! ONNX bytes → checked package.

mod signature;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use model::onnx::ModelProto;
use model::{ErrorCode, Format, Manifest, Package, Program};
use prost::Message;
use sha2::{Digest, Sha256};

use crate::{Error, sniff};

/// A refusal of what the file says.
pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidArgument, message)
}

/// A refusal of what is valid but cannot be served.
pub(crate) fn unsupported(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::Unimplemented, message)
}

/// Checks a model; `file` is where its bytes were read from, if they were.
pub fn package(bytes: Bytes, file: Option<&Path>) -> Result<Package, Error> {
    let model = decode(&bytes)?;
    let graph = model.graph.as_ref().ok_or_else(|| {
        invalid("the model has no graph; the file is cut off, or is not an ONNX model")
    })?;
    let signature = signature::read(graph, model.ir_version)?;
    let digest = Sha256::digest(&bytes);
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let manifest = Manifest {
        format: Format::Onnx,
        digest: format!("sha256:{digest}"),
        size: bytes.len() as u64,
        signature,
        metadata: metadata(&model),
        notes: Vec::new(),
    };
    Ok(Package {
        manifest: Arc::new(manifest),
        program: Program::Onnx(Arc::new(model)),
        bytes,
        path: file.map(Path::to_owned),
    })
}

fn decode(bytes: &Bytes) -> Result<ModelProto, Error> {
    let not_a_model = |detail: String| match sniff::looks_like(bytes) {
        Some(what) => invalid(format!("not an ONNX model: {what}")),
        None => invalid(format!("not an ONNX model, or a damaged one: {detail}")),
    };
    let model =
        ModelProto::decode(bytes.clone()).map_err(|error| not_a_model(error.to_string()))?;
    // An arbitrary protobuf message decodes too: its fields are skipped as unknown.
    if model.graph.is_none() && (model.ir_version == 0 || model.opset_import.is_empty()) {
        return Err(not_a_model("it has neither a graph nor a version".into()));
    }
    Ok(model)
}

/// What the file says of itself. The custom entries come last, so they cannot be hidden.
fn metadata(model: &ModelProto) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::new();
    let mut put = |key: &str, value: String| {
        if !value.is_empty() {
            metadata.insert(key.to_owned(), value);
        }
    };
    put("producer_name", model.producer_name.clone());
    put("producer_version", model.producer_version.clone());
    put("domain", model.domain.clone());
    put("description", model.doc_string.clone());
    if model.model_version != 0 {
        put("model_version", model.model_version.to_string());
    }
    for entry in &model.metadata_props {
        put(&entry.key, entry.value.clone());
    }
    metadata
}
