//! Reading models for tests.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use model::onnx::{ModelProto, ValueInfoProto, tensor_shape_proto::dimension, type_proto};
use model::{DataType, Dimension, Format, Manifest, Package, Program, Signature, TensorSpec};
use prost::Message;
use runtime::onnxruntime::{OnnxRuntime, Search, Surroundings};

/// A package of an ONNX model, decoded without `import`: just names, types and shapes.
pub fn package(bytes: impl Into<Bytes>) -> Package {
    let bytes = bytes.into();
    let proto = ModelProto::decode(bytes.clone()).expect("an ONNX model");
    let graph = proto.graph.as_ref().expect("a graph");
    let constant = |name: &str| graph.initializer.iter().any(|tensor| tensor.name == name);
    let inputs = graph.input.iter().filter(|input| !constant(&input.name));
    let signature = Signature {
        inputs: inputs.map(spec).collect(),
        outputs: graph.output.iter().map(spec).collect(),
        batched: false,
    };
    let manifest = Manifest {
        format: Format::Onnx,
        digest: String::new(),
        size: bytes.len() as u64,
        signature,
        metadata: BTreeMap::new(),
        notes: Vec::new(),
    };
    let program = Program::Onnx(Arc::new(proto));
    Package { manifest: Arc::new(manifest), program, bytes, path: None, external: Vec::new() }
}

fn spec(value: &ValueInfoProto) -> TensorSpec {
    let kind = value.r#type.as_ref().and_then(|t| t.value.as_ref());
    let Some(type_proto::Value::TensorType(tensor)) = kind else {
        panic!("\"{}\" is not a tensor", value.name)
    };
    let dimension = |dim: &model::onnx::tensor_shape_proto::Dimension| match &dim.value {
        Some(dimension::Value::DimValue(n)) => Dimension::Fixed(*n as usize),
        Some(dimension::Value::DimParam(name)) => Dimension::Symbolic(name.as_str().into()),
        None => Dimension::Any,
    };
    TensorSpec {
        name: value.name.as_str().into(),
        datatype: DataType::from_onnx(tensor.elem_type).expect("a type of the protocol"),
        shape: tensor.shape.as_ref().map(|shape| shape.dim.iter().map(dimension).collect()),
        optional: false,
        labels: Vec::new(),
    }
}

/// The folder of shared models; `None`, loudly, where it is absent.
pub fn shared_folder() -> Option<PathBuf> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/models"));
    if folder.is_dir() {
        return Some(folder);
    }
    println!("SKIPPED: there is no folder shared/models beside the checkout");
    None
}

/// One of the shared models.
pub fn shared(name: &str) -> Option<Package> {
    let bytes = std::fs::read(shared_folder()?.join(name));
    Some(package(bytes.expect("a shared model that can be read")))
}

/// Whether two numbers agree to 1e-5, relatively or absolutely.
pub fn close(got: f32, wanted: f32) -> bool {
    let difference = (got - wanted).abs();
    got.to_bits() == wanted.to_bits()
        || got.is_nan() && wanted.is_nan()
        || difference <= 1e-5
        || difference <= 1e-5 * wanted.abs()
}

/// The engine of the tests' Python environment.
pub fn onnx_runtime() -> Option<OnnxRuntime> {
    let environment = testkit::python::environment()?;
    let variables = [("VIRTUAL_ENV".to_owned(), environment.into_os_string())];
    let surroundings = Surroundings { variables: variables.into(), ..Surroundings::default() };
    match OnnxRuntime::discover(&Search::around(&surroundings)) {
        Ok(engine) => Some(engine),
        Err(error) => {
            println!("SKIPPED: {error}");
            None
        }
    }
}
