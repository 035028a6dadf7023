//! What other tools want to be told of a model, in their own words. Pure.

use std::fmt::Write;

use ::registry::{FileKind, Version};
use api::{Contents, Entry};
use model::{DataType, TensorSpec};
use serde_json::{Value, json};

use crate::Failure;

/// How other tools lay out a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Layout {
    /// A folder with `MLmodel`
    Mlflow,
    /// NAME/VERSION/model.onnx and config.pbtxt
    Triton,
    /// NAME/VERSION/model.onnx
    #[value(alias = "tfserving")]
    Numbered,
}

impl Layout {
    /// The folder of a version below the one that an export is written to, for a model's versions
    /// side by side; `None` if a folder holds one version.
    pub fn folder(self, version: &Version) -> Option<String> {
        match self {
            Self::Mlflow => None,
            Self::Triton | Self::Numbered => Some(format!("{}/{}", version.model, version.number)),
        }
    }
}

/// The files of a version's folder.
pub fn entries(layout: Layout, version: &Version) -> Result<Vec<Entry>, Failure> {
    let mut entries = Vec::new();
    for file in &version.files {
        // Every tool looks for the model under this name; external data keeps its own.
        let name = if file.name == version.main { "model.onnx" } else { &file.name };
        if let Some(path) = place(layout, name, file.kind) {
            entries.push(Entry { path, contents: Contents::File(file.clone()) });
        }
    }
    for (name, text) in texts(layout, version)? {
        entries.push(Entry { path: name.to_owned(), contents: Contents::Text(text) });
    }
    Ok(entries)
}

/// All files of an export of one version, in a folder with the model's name.
pub fn archive(layout: Layout, version: &Version) -> Result<Vec<Entry>, Failure> {
    let folder = layout.folder(version).unwrap_or_else(|| version.model.clone());
    let mut entries = entries(layout, version)?;
    for entry in &mut entries {
        entry.path = format!("{folder}/{}", entry.path);
    }
    if layout == Layout::Triton {
        let path = format!("{}/{CONFIG}", version.model);
        let contents = Contents::Text(triton_config(version)?);
        entries.push(Entry { path, contents });
    }
    Ok(entries)
}

/// The name of Triton's configuration.
pub const CONFIG: &str = "config.pbtxt";

/// Where a file of a version goes in its folder; `None` if the tool would not know what it is.
fn place(layout: Layout, name: &str, kind: FileKind) -> Option<String> {
    match (layout, kind) {
        (_, FileKind::Model) => Some(name.to_owned()),
        // MLflow keeps what it does not know; the others take every file for part of the model.
        (Layout::Mlflow, FileKind::Attachment) if name == "mlflow-requirements.txt" => {
            Some("requirements.txt".to_owned())
        }
        (Layout::Mlflow, FileKind::Attachment) => Some(name.to_owned()),
        (Layout::Triton | Layout::Numbered, FileKind::Attachment) => None,
    }
}

/// The further files of a version's folder, by name.
fn texts(layout: Layout, version: &Version) -> Result<Vec<(&'static str, String)>, Failure> {
    if layout != Layout::Mlflow {
        return Ok(Vec::new());
    }
    let mut texts = vec![("MLmodel", mlmodel(version)?)];
    if !version.files.iter().any(|file| file.name == "mlflow-requirements.txt") {
        texts.push(("requirements.txt", REQUIREMENTS.join("\n") + "\n"));
    }
    Ok(texts)
}

/// What MLflow needs to run the model.
const REQUIREMENTS: [&str; 4] = ["mlflow", "onnx", "onnxruntime", "numpy"];

/// MLflow's description. JSON strings are YAML as well, so nothing in it can break out.
fn mlmodel(version: &Version) -> Result<String, Failure> {
    let signature = &version.manifest.signature;
    let known = version.metadata.get("mlflow.signature");
    let known = known.and_then(|text| serde_json::from_str::<Value>(text).ok());
    let (inputs, outputs) = match &known {
        Some(known) => (known["inputs"].clone(), known["outputs"].clone()),
        None => (tensors(&signature.inputs)?, tensors(&signature.outputs)?),
    };
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "flavors:\n  \
           onnx:\n    \
             data: model.onnx\n    \
             code: null\n    \
             providers:\n    \
             - CPUExecutionProvider\n  \
           python_function:\n    \
             data: model.onnx\n    \
             loader_module: mlflow.onnx\n\
         signature:\n  \
           inputs: {inputs}\n  \
           outputs: {outputs}\n  \
           params: null\n\
         utc_time_created: {created}\n\
         metadata:\n",
        created = json!(version.published.strftime("%Y-%m-%d %H:%M:%S.%6f").to_string()),
    );
    let own = [
        ("modelyard.model".to_owned(), version.model.clone()),
        ("modelyard.version".to_owned(), version.number.to_string()),
        ("modelyard.digest".to_owned(), version.digest.clone()),
    ];
    let others = version.metadata.iter().filter(|(key, _)| !key.starts_with("mlflow."));
    for (key, value) in own.iter().map(|(k, v)| (k, v)).chain(others) {
        let _ = writeln!(text, "  {}: {}", json!(key), json!(value));
    }
    Ok(text)
}

/// MLflow keeps the columns as JSON in a string.
fn tensors(specs: &[TensorSpec]) -> Result<Value, Failure> {
    let tensor = |spec: &TensorSpec| {
        let dtype = numpy(spec.datatype).ok_or_else(|| unknown(spec, "MLflow"))?;
        Ok(json!({
            "type": "tensor",
            "name": &*spec.name,
            "tensor-spec": { "dtype": dtype, "shape": spec.extents() },
            "required": !spec.optional,
        }))
    };
    let tensors = specs.iter().map(tensor).collect::<Result<Vec<_>, Failure>>()?;
    Ok(Value::String(Value::Array(tensors).to_string()))
}

fn unknown(spec: &TensorSpec, tool: &str) -> Failure {
    Failure::refused(format!("\"{}\": {tool} has no type {}", spec.name, spec.datatype))
}

/// A type as numpy calls it.
fn numpy(datatype: DataType) -> Option<&'static str> {
    Some(match datatype {
        DataType::Bool => "bool",
        DataType::Uint8 => "uint8",
        DataType::Uint16 => "uint16",
        DataType::Uint32 => "uint32",
        DataType::Uint64 => "uint64",
        DataType::Int8 => "int8",
        DataType::Int16 => "int16",
        DataType::Int32 => "int32",
        DataType::Int64 => "int64",
        DataType::Fp16 => "float16",
        DataType::Fp32 => "float32",
        DataType::Fp64 => "float64",
        DataType::Bytes => "object",
        DataType::Bf16 => return None,
    })
}

/// Triton's configuration for its ONNX Runtime backend.
pub fn triton_config(version: &Version) -> Result<String, Failure> {
    let signature = &version.manifest.signature;
    let specs = || signature.inputs.iter().chain(&signature.outputs);
    // Without the batch every tensor must have a dimension left.
    let batched = signature.batched && specs().all(|spec| spec.extents().len() > 1);
    let mut text = format!(
        "name: {}\nbackend: \"onnxruntime\"\nmax_batch_size: {}\n",
        quoted(&version.model),
        if batched { 1024 } else { 0 }
    );
    for (side, specs) in [("input", &signature.inputs), ("output", &signature.outputs)] {
        for spec in specs {
            let known = spec.shape.as_ref().filter(|shape| !shape.is_empty());
            let Some(_) = known else {
                return Err(Failure::refused(format!(
                    "{side} \"{}\" has no dimensions, which Triton cannot be told",
                    spec.name
                )));
            };
            let dims = &spec.extents()[usize::from(batched)..];
            let data_type = match spec.datatype {
                DataType::Bytes => "STRING",
                other => other.as_str(),
            };
            let optional = if spec.optional { "\n  optional: true" } else { "" };
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "{side} {{\n  name: {}\n  data_type: TYPE_{data_type}\n  dims: {dims:?}{optional}\n}}\n",
                quoted(&spec.name)
            );
        }
    }
    if batched {
        text.push_str("dynamic_batching { }\n");
    }
    Ok(text)
}

/// A string of protobuf's text format.
fn quoted(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', char::from(byte)]),
            b' '..=b'~' => quoted.push(char::from(byte)),
            other => quoted.push_str(&format!("\\{other:03o}")),
        }
    }
    quoted + "\""
}
