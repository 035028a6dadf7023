//! The versions of the format and of the operator sets that a model asks for.

use std::collections::HashMap;

use model::onnx::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto};

use super::{graph, invalid, unsupported};
use crate::Error;

/// The newest version of the file format that is known.
const NEWEST_IR: i64 = 14;

/// The operator sets that are known, and the newest released version of each.
const KNOWN: [(&str, i64); 6] = [
    ("", 28),
    ("ai.onnx.ml", 5),
    ("com.microsoft", 1),
    ("com.microsoft.nchwc", 1),
    ("com.ms.internal.nhwc", 28),
    ("ai.onnx.preview.training", 1),
];

/// The default operator set in words.
fn spell(domain: &str) -> &str {
    if domain.is_empty() { "ai.onnx" } else { domain }
}

/// Spells the default domain `""` everywhere, as operators are looked up by it.
pub fn normalise(model: &mut ModelProto) {
    let fix = |domain: &mut String| {
        if domain == "ai.onnx" {
            domain.clear();
        }
    };
    fn nodes(nodes: &mut [NodeProto], fix: &dyn Fn(&mut String)) {
        for node in nodes {
            fix(&mut node.domain);
            graph::subgraphs_mut(node).for_each(|graph| nodes_of(graph, fix));
        }
    }
    fn nodes_of(graph: &mut GraphProto, fix: &dyn Fn(&mut String)) {
        nodes(&mut graph.node, fix);
    }
    model.opset_import.iter_mut().for_each(|set| fix(&mut set.domain));
    for function in &mut model.functions {
        function.opset_import.iter_mut().for_each(|set| fix(&mut set.domain));
        nodes(&mut function.node, &fix);
    }
    if let Some(graph) = &mut model.graph {
        nodes_of(graph, &fix);
    }
}

/// Checks the versions; operator sets that are unknown are refused only if a node uses them.
pub fn check(model: &mut ModelProto) -> Result<(), Error> {
    match model.ir_version {
        1..=NEWEST_IR => {}
        newer if newer > NEWEST_IR => {
            return Err(unsupported(format!(
                "the file is in version {newer} of the ONNX format; versions up to {NEWEST_IR} are \
                 known. Export it with an older version of onnx"
            )));
        }
        other => return Err(invalid(format!("the format version {other} does not exist"))),
    }
    if model.opset_import.is_empty() && model.ir_version < 3 {
        // The first versions of the format had no operator sets; theirs is called the first.
        model.opset_import.push(OperatorSetIdProto { domain: String::new(), version: 1 });
    }
    if model.opset_import.is_empty() {
        return Err(invalid("the model does not say which operator sets it uses (opset_import)"));
    }
    let mut imported: HashMap<&str, i64> = HashMap::new();
    for set in &model.opset_import {
        let (domain, version) = (spell(&set.domain), set.version);
        if let Some(other) = imported.insert(&set.domain, version)
            && other != version
        {
            return Err(invalid(format!(
                "the operator set {domain} is imported twice, in versions {other} and {version}"
            )));
        }
        let newest =
            KNOWN.iter().find(|(known, _)| *known == set.domain).map(|(_, newest)| *newest);
        if newest.is_some_and(|newest| version > newest) {
            let newest = newest.unwrap_or_default();
            return Err(unsupported(format!(
                "the model uses version {version} of the operator set {domain}; versions up to \
                 {newest} are known. Export it with target_opset={newest}"
            )));
        }
        if newest.is_some() && version < 1 {
            return Err(invalid(format!(
                "version {version} of the operator set {domain} does not exist"
            )));
        }
    }
    Ok(())
}

/// Checks that every node's operator set is known and imported. Local functions are inlined by now.
pub fn check_domains(model: &ModelProto) -> Result<(), Error> {
    let imported: Vec<&str> = model.opset_import.iter().map(|set| set.domain.as_str()).collect();
    model.graph.as_ref().map_or(Ok(()), |graph| check_nodes(graph, &imported))
}

fn check_nodes(graph: &GraphProto, imported: &[&str]) -> Result<(), Error> {
    for (index, node) in graph.node.iter().enumerate() {
        let (domain, place) = (spell(&node.domain), || graph::describe(index, node));
        if !KNOWN.iter().any(|(known, _)| *known == node.domain) {
            let known: Vec<_> = KNOWN.iter().take(3).map(|(domain, _)| spell(domain)).collect();
            return Err(unsupported(format!(
                "{}: uses the custom operator set \"{domain}\"; known are {}",
                place(),
                known.join(", ")
            )));
        }
        if !imported.contains(&node.domain.as_str()) {
            return Err(invalid(format!(
                "{}: uses the operator set {domain}, which the model does not import",
                place()
            )));
        }
        graph::subgraphs(node).try_for_each(|inner| check_nodes(inner, imported))?;
    }
    Ok(())
}
