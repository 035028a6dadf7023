//! What is not left to ONNX Runtime, although it loads it: where its answers differ from the
//! standard's, or where it is sure to fail.
//!
//! Each entry was found with ONNX's backend node tests (`examples/backend_tests.rs`).

use std::collections::HashMap;

use model::onnx::{GraphProto, NodeProto, TensorProto, tensor_shape_proto::dimension, type_proto};

use crate::Error;

/// Refuses a graph with such a node; the error names it.
pub(super) fn check(graph: &GraphProto) -> Result<(), Error> {
    let scope = Scope::new(graph);
    for node in &graph.node {
        if matches!(node.domain.as_str(), "" | "ai.onnx")
            && let Some(what) = differs(node, &scope)
        {
            return Err(Error::unsupported(format!(
                "operator {} is not supported {what}",
                node.op_type
            )));
        }
        for attribute in &node.attribute {
            let inside = attribute.g.iter().map(|graph| &**graph).chain(&attribute.graphs);
            inside.into_iter().try_for_each(check)?;
        }
    }
    Ok(())
}

/// What a graph says of its values.
struct Scope<'a> {
    constants: HashMap<&'a str, &'a TensorProto>,
    extents: HashMap<&'a str, Vec<Option<i64>>>,
}

impl<'a> Scope<'a> {
    fn new(graph: &'a GraphProto) -> Self {
        let own = graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor));
        let made = graph.node.iter().filter(|node| node.op_type == "Constant").filter_map(|node| {
            Some((node.output.first()?.as_str(), node.attribute.first()?.t.as_deref()?))
        });
        let constants: HashMap<_, _> = own.chain(made).collect();
        let mut extents = HashMap::new();
        for value in graph.value_info.iter().chain(&graph.input) {
            let kind = value.r#type.as_ref().and_then(|kind| kind.value.as_ref());
            let Some(type_proto::Value::TensorType(tensor)) = kind else { continue };
            let Some(shape) = &tensor.shape else { continue };
            let extent = |dim: &model::onnx::tensor_shape_proto::Dimension| match dim.value {
                Some(dimension::Value::DimValue(extent)) => Some(extent),
                _ => None,
            };
            extents.insert(value.name.as_str(), shape.dim.iter().map(extent).collect());
        }
        for (name, tensor) in &constants {
            extents.insert(name, tensor.dims.iter().copied().map(Some).collect());
        }
        Self { constants, extents }
    }
}

fn differs(node: &NodeProto, scope: &Scope<'_>) -> Option<&'static str> {
    let input = |index: usize| node.input.get(index).filter(|name| !name.is_empty());
    let text = |name: &str| {
        let found = node.attribute.iter().find(|attribute| attribute.name == name);
        found.map_or(&b""[..], |attribute| &attribute.s)
    };
    match node.op_type.as_str() {
        "MaxUnpool" if input(2).is_some() => {
            Some("with output_shape: ONNX Runtime puts the values elsewhere than the standard")
        }
        "ConvInteger" => {
            let extents = scope.extents.get(input(3)?.as_str())?;
            let single = extents.iter().all(|extent| *extent == Some(1));
            (!single).then_some("with a zero point for each channel")
        }
        "Resize" if text("coordinate_transformation_mode") == b"align_corners" => {
            uneven(node, scope).then_some(
                "with align_corners and scales that make no whole number of elements: \
                 ONNX Runtime rounds the extent first, the standard's tests do not",
            )
        }
        _ => None,
    }
}

/// Whether scales times extents are no whole numbers, as far as the file tells; scales that come
/// with the request may be anything.
fn uneven(node: &NodeProto, scope: &Scope<'_>) -> bool {
    let Some(name) = node.input.get(2).filter(|name| !name.is_empty()) else { return false };
    let Some(scales) = scope.constants.get(name.as_str()) else { return true };
    let Ok(scales) = scales.to_tensor() else { return true };
    let extents = node.input.first().and_then(|name| scope.extents.get(name.as_str()));
    scales.as_slice::<f32>().unwrap_or_default().iter().enumerate().any(|(axis, scale)| {
        let extent = extents.and_then(|extents| extents.get(axis).copied().flatten());
        extent.is_some_and(|extent| (extent as f32 * scale).fract() != 0.0)
    })
}
