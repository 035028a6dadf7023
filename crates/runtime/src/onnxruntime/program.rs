//! The bytes that ONNX Runtime is given for a package.

use std::borrow::Cow;

use model::{Package, Program, onnx};
use prost::Message;

/// What ONNX Runtime reads a model from.
#[derive(Debug)]
pub(super) enum Source<'a> {
    /// Bytes in memory.
    Memory(Cow<'a, [u8]>),
    /// A file with its external data beside it.
    File(&'a std::path::Path),
}

/// The largest message that protobuf can hold.
const LARGEST_MESSAGE: usize = i32::MAX as usize;

/// Chooses how the package reaches ONNX Runtime: as it was read where possible, else encoded anew
/// with its external data inside and without `ZipMap`.
pub(super) fn source(package: &Package) -> Source<'_> {
    let Program::Onnx(program) = &package.program;
    let external = package.manifest.size > package.bytes.len() as u64;
    let zipped = program.graph.as_ref().is_some_and(|graph| graph.node.iter().any(is_zip_map));
    if !external && !zipped {
        return Source::Memory(Cow::Borrowed(&package.bytes));
    }
    if program.encoded_len() > LARGEST_MESSAGE
        && let Some(path) = &package.path
    {
        return Source::File(path);
    }
    if !zipped {
        return Source::Memory(Cow::Owned(program.encode_to_vec()));
    }
    let mut program = onnx::ModelProto::clone(program);
    unzip(&mut program);
    Source::Memory(Cow::Owned(program.encode_to_vec()))
}

fn is_zip_map(node: &onnx::NodeProto) -> bool {
    node.op_type == "ZipMap" && node.domain == "ai.onnx.ml"
}

/// Lets every `ZipMap` pass its input on: a map for each row is slow to build, no protocol can
/// carry it, and the signature promises the tensor that it is made of.
fn unzip(program: &mut onnx::ModelProto) {
    let Some(graph) = &mut program.graph else { return };
    let mut passed = Vec::new();
    for node in graph.node.iter_mut().filter(|node| is_zip_map(node)) {
        node.op_type = "Identity".into();
        node.domain.clear();
        node.attribute.clear();
        passed.extend(node.output.iter().cloned());
    }
    let tensor = onnx::type_proto::Tensor { elem_type: onnx::data_type::FLOAT, shape: None };
    let changed = |value: &&mut onnx::ValueInfoProto| passed.contains(&value.name);
    for value in graph.output.iter_mut().chain(&mut graph.value_info).filter(changed) {
        value.r#type = Some(onnx::TypeProto {
            value: Some(onnx::type_proto::Value::TensorType(tensor.clone())),
            ..Default::default()
        });
    }
}
