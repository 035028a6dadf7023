//! The graph's declared inputs and outputs as a signature.

use std::collections::HashSet;

use model::onnx::{GraphProto, TypeProto, ValueInfoProto, tensor_shape_proto, type_proto};
use model::{DataType, Dimension, Signature, TensorSpec};

use super::batching::Extent;
use super::{invalid, unsupported};
use crate::Error;

/// The most dimensions that a tensor may have.
const MAX_RANK: usize = 64;

/// Reads the signature as it is declared; `batched` is left false.
pub fn read(graph: &GraphProto, ir_version: i64) -> Result<Signature, Error> {
    let initializers: HashSet<&str> =
        graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    let mut inputs = Vec::new();
    for input in &graph.input {
        let has_default = initializers.contains(input.name.as_str());
        // Before version 4 every weight had to be listed as an input; none could be overridden.
        if has_default && ir_version < 4 {
            continue;
        }
        let mut spec = tensor_spec(input).map_err(|e| e.at(format!("input \"{}\"", input.name)))?;
        spec.optional = has_default;
        inputs.push(spec);
    }
    let outputs = graph
        .output
        .iter()
        .map(|output| tensor_spec(output).map_err(|e| e.at(format!("output \"{}\"", output.name))))
        .collect::<Result<Vec<_>, _>>()?;
    if outputs.is_empty() {
        return Err(invalid("the model has no outputs"));
    }
    Ok(Signature { inputs, outputs, batched: false })
}

/// Fills in what the declared outputs of a batched model leave open or get wrong.
///
/// Exporters often leave out the shape of an output, give its number of rows a name of its own, or
/// declare the single row that they traced with. A declaration is only a hint to the engines, so
/// what was found by following the rows through the graph takes precedence.
pub fn refine(signature: &mut Signature, outputs: &[Vec<Extent>], notes: &mut Vec<String>) {
    let firsts = signature.inputs.iter().filter_map(|spec| spec.shape.as_ref()?.first());
    let named = |dim: &&Dimension| matches!(dim, Dimension::Symbolic(_));
    let rows = firsts.clone().find(named).cloned().unwrap_or(Dimension::Any);
    let dimension = |extent: &Extent| match extent {
        Extent::Batch => rows.clone(),
        Extent::Fixed(extent) => usize::try_from(*extent).map_or(Dimension::Any, Dimension::Fixed),
        Extent::Other => Dimension::Any,
    };
    for (spec, found) in signature.outputs.iter_mut().zip(outputs) {
        let found: Vec<Dimension> = found.iter().map(dimension).collect();
        match &mut spec.shape {
            Some(declared) if declared.len() == found.len() => {
                if let Dimension::Fixed(extent) = declared[0] {
                    notes.push(format!(
                        "output \"{}\" declares the first dimension {extent}, but has as many rows \
                         as the inputs",
                        spec.name
                    ));
                }
                declared[0] = rows.clone();
                for (dim, found) in declared.iter_mut().zip(found).skip(1) {
                    if *dim == Dimension::Any {
                        *dim = found;
                    }
                }
            }
            Some(declared) => {
                notes.push(format!(
                    "output \"{}\" declares {} dimensions, but has {}",
                    spec.name,
                    declared.len(),
                    found.len()
                ));
                *declared = found;
            }
            None => spec.shape = Some(found),
        }
    }
}

fn tensor_spec(info: &ValueInfoProto) -> Result<TensorSpec, Error> {
    let kind = info.r#type.as_ref().and_then(|kind| kind.value.as_ref());
    let tensor = match kind {
        Some(type_proto::Value::TensorType(tensor)) => tensor,
        Some(other) => {
            return Err(unsupported(format!(
                "is {}, but only tensors can be sent over the wire",
                describe(other)
            )));
        }
        None => return Err(invalid("has no type")),
    };
    let datatype = DataType::from_onnx(tensor.elem_type).ok_or_else(|| {
        unsupported(format!(
            "has element type {}, which the serving protocols have no name for",
            type_name(tensor.elem_type)
        ))
    })?;
    let shape = match &tensor.shape {
        Some(shape) if shape.dim.len() > MAX_RANK => {
            let rank = shape.dim.len();
            return Err(invalid(format!("has {rank} dimensions; at most {MAX_RANK} are allowed")));
        }
        Some(shape) => Some(shape.dim.iter().map(dimension).collect::<Result<Vec<_>, _>>()?),
        None => None,
    };
    let name = info.name.as_str();
    Ok(TensorSpec { name: name.into(), datatype, shape, optional: false, labels: Vec::new() })
}

fn dimension(dim: &tensor_shape_proto::Dimension) -> Result<Dimension, Error> {
    use tensor_shape_proto::dimension::Value;
    Ok(match &dim.value {
        Some(Value::DimParam(name)) if !name.is_empty() => {
            Dimension::Symbolic(name.as_str().into())
        }
        // Exporters write -1 where they mean "any", though the format has no such value.
        Some(Value::DimValue(-1) | Value::DimParam(_)) | None => Dimension::Any,
        Some(Value::DimValue(extent)) => Dimension::Fixed(
            usize::try_from(*extent)
                .map_err(|_| invalid(format!("has the negative dimension {extent}")))?,
        ),
    })
}

/// A type in words.
fn describe(kind: &type_proto::Value) -> String {
    let inner = |kind: &Option<Box<TypeProto>>| match kind.as_ref().and_then(|k| k.value.as_ref()) {
        Some(value) => describe(value),
        None => "an unknown type".into(),
    };
    match kind {
        type_proto::Value::TensorType(tensor) => {
            format!("a tensor of {}", type_name(tensor.elem_type))
        }
        type_proto::Value::SparseTensorType(_) => "a sparse tensor".into(),
        type_proto::Value::SequenceType(sequence) => {
            format!("a sequence, each {}", inner(&sequence.elem_type))
        }
        type_proto::Value::MapType(map) => {
            format!("a map from {} to {}", type_name(map.key_type), inner(&map.value_type))
        }
        type_proto::Value::OptionalType(optional) => {
            format!("an optional value, if there {}", inner(&optional.elem_type))
        }
    }
}

/// An element type as the ONNX specification spells it.
fn type_name(code: i32) -> String {
    const NAMES: [&str; 27] = [
        "undefined",
        "float",
        "uint8",
        "int8",
        "uint16",
        "int16",
        "int32",
        "int64",
        "string",
        "bool",
        "float16",
        "double",
        "uint32",
        "uint64",
        "complex64",
        "complex128",
        "bfloat16",
        "float8e4m3fn",
        "float8e4m3fnuz",
        "float8e5m2",
        "float8e5m2fnuz",
        "uint4",
        "int4",
        "float4e2m1",
        "float8e8m0",
        "uint2",
        "int2",
    ];
    let name = usize::try_from(code).ok().and_then(|code| NAMES.get(code));
    name.map_or_else(|| format!("number {code}"), |name| (*name).to_owned())
}
