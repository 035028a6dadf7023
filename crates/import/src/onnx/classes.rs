//! Class names of classifiers, and the maps that exporters wrap probabilities in.

use std::collections::HashMap;

use model::onnx::{AttributeProto, GraphProto, NodeProto, type_proto};
use model::onnx::{TensorShapeProto, TypeProto, data_type, tensor_shape_proto};

use super::graph;

/// The operator set of the classical models.
const ML: &str = "ai.onnx.ml";

/// Removes the `ZipMap` nodes that make outputs of the graph.
///
/// `ZipMap` turns the row `[0.2, 0.8]` into the map `{"no": 0.2, "yes": 0.8}`, which no serving
/// protocol can carry. The output keeps its name and becomes the FP32 matrix `[rows, classes]`
/// that the node was given; the keys become the signature's labels, so nothing is lost.
///
/// Returns the keys of each such output.
pub fn drop_zip_maps(graph: &mut GraphProto) -> HashMap<String, Vec<String>> {
    let mut dropped = HashMap::new();
    for position in 0..graph.output.len() {
        let output = graph.output[position].name.clone();
        let maker = graph.node.iter().position(|node| {
            node.op_type == "ZipMap" && node.domain == ML && node.output == [output.as_str()]
        });
        let Some(maker) = maker else { continue };
        let [input] = graph.node[maker].input.as_slice() else { continue };
        let (input, labels) = (input.clone(), class_names(&graph.node[maker]));
        let is_output = graph.output.iter().any(|other| other.name == input);
        let is_made = graph.node.iter().any(|node| node.output.contains(&input));
        if is_made && !is_output && !input.is_empty() {
            graph.node.remove(maker);
            rename(graph, &input, &output);
        } else {
            graph.node[maker] = NodeProto {
                op_type: "Identity".into(),
                input: vec![input],
                output: vec![output.clone()],
                name: std::mem::take(&mut graph.node[maker].name),
                ..Default::default()
            };
        }
        graph.output[position].r#type = Some(matrix(labels.len()));
        dropped.insert(output, labels);
    }
    dropped
}

/// FP32 `[?, width]`.
fn matrix(width: usize) -> TypeProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let width = i64::try_from(width).ok().map(Value::DimValue);
    let dim = |value| Dimension { value, ..Default::default() };
    let shape = TensorShapeProto { dim: vec![dim(None), dim(width)] };
    let tensor = type_proto::Tensor { elem_type: data_type::FLOAT, shape: Some(shape) };
    TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() }
}

fn rename(graph: &mut GraphProto, from: &str, to: &str) {
    for node in &mut graph.node {
        for name in node.input.iter_mut().chain(&mut node.output).filter(|name| *name == from) {
            to.clone_into(name);
        }
        graph::subgraphs_mut(node).for_each(|inner| rename(inner, from, to));
    }
    graph.value_info.retain(|info| info.name != from);
}

/// The class names along the last dimension of an output, where it can be traced back to a
/// classifier's scores through operators that keep classes in their places.
pub fn labels_of(graph: &GraphProto, output: &str) -> Option<Vec<String>> {
    let mut makers: HashMap<&str, (&NodeProto, usize)> = HashMap::new();
    for node in &graph.node {
        for (index, name) in node.output.iter().enumerate() {
            makers.insert(name, (node, index));
        }
    }
    let mut name = output;
    // The graph is known to have no cycle; the bound only keeps the trace short.
    for _ in 0..16 {
        let (node, index) = *makers.get(name)?;
        match (node.domain.as_str(), node.op_type.as_str()) {
            (ML, "TreeEnsembleClassifier" | "LinearClassifier" | "SVMClassifier") => {
                let names = class_names(node);
                return (index == 1 && !names.is_empty()).then_some(names);
            }
            (ML, "Normalizer") | ("", "Identity" | "Cast" | "Softmax" | "Sigmoid") => {
                name = node.input.first()?;
            }
            _ => return None,
        }
    }
    None
}

/// The class names that a node lists, as strings or as integers.
fn class_names(node: &NodeProto) -> Vec<String> {
    let attribute = |names: &[&str], has: fn(&AttributeProto) -> bool| {
        let named = |a: &&AttributeProto| names.contains(&a.name.as_str()) && has(a);
        node.attribute.iter().find(named)
    };
    if let Some(found) = attribute(&["classlabels_strings"], |a| !a.strings.is_empty()) {
        return found.strings.iter().map(|s| String::from_utf8_lossy(s).into_owned()).collect();
    }
    attribute(&["classlabels_int64s", "classlabels_ints"], |a| !a.ints.is_empty())
        .map(|found| found.ints.iter().map(i64::to_string).collect())
        .unwrap_or_default()
}
