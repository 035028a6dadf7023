//! What there is to tell about a package without running it.

use std::collections::BTreeMap;

use model::onnx::{GraphProto, TensorProto};
use model::{Package, Program, Signature};
use serde::Serialize;

use crate::onnx::{element_count, subgraphs};

/// A package, described.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// The kind of file, such as `onnx`.
    pub format: &'static str,
    /// `sha256:` and the digest of the model's bytes.
    pub digest: String,
    /// Bytes, external data included.
    pub size: u64,
    /// Version of the file format.
    pub ir_version: i64,
    /// Version of each operator set that the model imports; the default one is called `ai.onnx`.
    pub opsets: BTreeMap<String, i64>,
    /// How often each operator appears, subgraphs included, most frequent first.
    pub operators: Vec<Operator>,
    /// Nodes of the graph, subgraphs included.
    pub nodes: usize,
    /// Elements of all constants: weights, but not the trees and coefficients that operators carry
    /// as attributes.
    pub parameters: u64,
    /// Numbers in attributes: trees, coefficients, categories.
    pub attribute_values: u64,
    /// Inputs and outputs.
    pub signature: Signature,
    /// What the file says of itself.
    pub metadata: BTreeMap<String, String>,
    /// Why requests cannot be stacked, what was rewritten.
    pub notes: Vec<String>,
}

/// One operator and how often it appears.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Operator {
    /// Its operator set; `ai.onnx` for the default one.
    pub domain: String,
    /// Its name.
    pub name: String,
    /// How many nodes use it.
    pub count: usize,
}

/// Describes a package.
pub fn inspect(package: &Package) -> Inspection {
    let manifest = &package.manifest;
    let Program::Onnx(model) = &package.program;
    let mut counts = Counts::default();
    model.graph.iter().for_each(|graph| counts.graph(graph));
    let operator = |((domain, name), count): ((&str, &str), usize)| Operator {
        domain: spell(domain),
        name: name.to_owned(),
        count,
    };
    let nodes = counts.operators.values().sum();
    let mut operators: Vec<Operator> = counts.operators.into_iter().map(operator).collect();
    // A stable sort: among equals by operator set and name.
    operators.sort_by_key(|operator| std::cmp::Reverse(operator.count));
    Inspection {
        format: manifest.format.as_str(),
        digest: manifest.digest.clone(),
        size: manifest.size,
        ir_version: model.ir_version,
        opsets: model.opset_import.iter().map(|set| (spell(&set.domain), set.version)).collect(),
        operators,
        nodes,
        parameters: counts.parameters,
        attribute_values: counts.attribute_values,
        signature: manifest.signature.clone(),
        metadata: manifest.metadata.clone(),
        notes: manifest.notes.clone(),
    }
}

fn spell(domain: &str) -> String {
    if domain.is_empty() { "ai.onnx".into() } else { domain.to_owned() }
}

#[derive(Default)]
struct Counts<'a> {
    operators: BTreeMap<(&'a str, &'a str), usize>,
    parameters: u64,
    attribute_values: u64,
}

impl<'a> Counts<'a> {
    fn graph(&mut self, graph: &'a GraphProto) {
        graph.initializer.iter().for_each(|tensor| self.tensor(tensor));
        for node in &graph.node {
            *self.operators.entry((&node.domain, &node.op_type)).or_default() += 1;
            for attribute in &node.attribute {
                let lists = attribute.floats.len() + attribute.ints.len() + attribute.strings.len();
                self.attribute_values += lists as u64;
                attribute.t.iter().for_each(|tensor| self.tensor(tensor));
                attribute.tensors.iter().for_each(|tensor| self.tensor(tensor));
            }
            subgraphs(node).for_each(|inner| self.graph(inner));
        }
    }

    fn tensor(&mut self, tensor: &TensorProto) {
        // The package was checked, so there are no overflows.
        self.parameters += element_count(tensor).unwrap_or(0) as u64;
    }
}
