//! ONNX bytes → checked package.

mod batching;
mod classes;
mod dictionaries;
mod external;
mod functions;
mod graph;
mod signature;
mod tensors;
mod versions;
mod wire;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use model::onnx::{GraphProto, ModelProto};
use model::{Dimension, ErrorCode, Format, Manifest, Package, Program, Signature};
use prost::Message;
use sha2::{Digest, Sha256};

use crate::{Error, sniff};

pub(crate) use graph::subgraphs;
pub(crate) use tensors::element_count;

/// A refusal of what the file says.
pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidArgument, message)
}

/// A refusal of what is valid but cannot be served.
pub(crate) fn unsupported(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::Unimplemented, message)
}

/// Checks a model; `file` is where its bytes were read from, if they were.
///
/// The digest is the SHA-256 of the file, so that `sha256sum` agrees. Where there is external
/// data, each of its files follows, ordered by location: the location's length, the location, the
/// file's length, the file; lengths as little-endian 64-bit integers.
pub fn package(bytes: Bytes, file: Option<&Path>) -> Result<Package, Error> {
    let mut model = decode(&bytes)?;
    versions::normalise(&mut model);
    versions::check(&mut model)?;
    let mut notes = Vec::new();

    let (zipped, program_bytes) = without_maps(&mut model, &bytes, &mut notes)?;
    functions::inline(&mut model)?;
    versions::check_domains(&model)?;
    let mut external = external::External::new(file, bytes.len() as u64);
    let graph = graph_of(&mut model)?;
    graph::sort(graph)?;
    graph::each_tensor(graph, &mut |tensor| external.read_in(tensor))?;
    graph::check(graph)?;

    let signature = describe(&model, &zipped, &mut notes)?;
    let manifest = Manifest {
        format: Format::Onnx,
        digest: digest(&bytes, external.files()),
        size: external.total(),
        signature,
        metadata: metadata(&model),
        notes,
    };
    Ok(Package {
        manifest: Arc::new(manifest),
        program: Program::Onnx(Arc::new(model)),
        bytes: program_bytes,
        path: file.map(Path::to_owned),
        external: external.files().keys().cloned().collect(),
    })
}

fn decode(bytes: &Bytes) -> Result<ModelProto, Error> {
    let not_a_model = |detail: String| match sniff::looks_like(bytes) {
        Some(what) => invalid(format!("not an ONNX model: {what}")),
        None => invalid(format!("not an ONNX model, or a damaged one: {detail}")),
    };
    wire::check(bytes).map_err(not_a_model)?;
    let model =
        ModelProto::decode(bytes.clone()).map_err(|error| not_a_model(error.to_string()))?;
    // An arbitrary protobuf message decodes too: its fields are skipped as unknown.
    if model.graph.is_none() {
        return Err(not_a_model("it has no graph".into()));
    }
    Ok(model)
}

fn graph_of(model: &mut ModelProto) -> Result<&mut GraphProto, Error> {
    model.graph.as_mut().ok_or_else(|| invalid("the model has no graph"))
}

/// Takes maps out of the model's inputs and outputs; gives the class names of outputs that were
/// maps, and the bytes that engines parse, encoded again if there were any.
fn without_maps(
    model: &mut ModelProto,
    bytes: &Bytes,
    notes: &mut Vec<String>,
) -> Result<(HashMap<String, Vec<String>>, Bytes), Error> {
    notes.extend(dictionaries::to_columns(model)?);
    let zipped = model.graph.as_mut().map(classes::drop_zip_maps).unwrap_or_default();
    let mut names: Vec<_> = zipped.keys().collect();
    names.sort();
    for name in names {
        notes.push(format!(
            "output \"{name}\" was a list of maps (ZipMap); it is served as a matrix with one \
             column for each class"
        ));
    }
    let encoded = if notes.is_empty() { bytes.clone() } else { model.encode_to_vec().into() };
    Ok((zipped, encoded))
}

/// The signature, with what can be told about rows and classes.
fn describe(
    model: &ModelProto,
    zipped: &HashMap<String, Vec<String>>,
    notes: &mut Vec<String>,
) -> Result<Signature, Error> {
    let graph = model.graph.as_ref().ok_or_else(|| invalid("the model has no graph"))?;
    let mut signature = signature::read(graph, model.ir_version)?;
    let opset = model.opset_import.iter().find(|set| set.domain.is_empty());
    let verdict = batching::decide(graph, opset.map_or(1, |set| set.version), &signature);
    match verdict.refusal {
        Some(reason) => notes.push(format!("batching: requests are not stacked: {reason}")),
        None => {
            signature.batched = true;
            signature::refine(&mut signature, &verdict.outputs, notes);
        }
    }
    for output in &mut signature.outputs {
        let labels = match zipped.get(&*output.name) {
            Some(labels) => Some(labels.clone()),
            None => classes::labels_of(graph, &output.name),
        };
        let last = output.shape.as_ref().and_then(|dims| dims.last());
        let fits = |labels: &Vec<String>| match last {
            Some(Dimension::Fixed(extent)) => *extent == labels.len(),
            _ => true,
        };
        output.labels = labels.filter(fits).unwrap_or_default();
    }
    Ok(signature)
}

fn digest(bytes: &Bytes, files: &BTreeMap<String, Bytes>) -> String {
    let mut hash = Sha256::new();
    hash.update(bytes);
    for (location, contents) in files {
        hash.update((location.len() as u64).to_le_bytes());
        hash.update(location);
        hash.update((contents.len() as u64).to_le_bytes());
        hash.update(contents);
    }
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
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
