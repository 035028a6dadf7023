//! Local functions: operators that the model itself defines are replaced by what they stand for.

use std::collections::HashMap;

use model::onnx::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto};
use prost::Message;

use super::{graph, invalid, unsupported};
use crate::Error;

/// How deep functions may call each other.
const MAX_CALLS: usize = 32;

/// What a function is called by: domain, name, overload.
type Key = (String, String, String);

/// Inlines every call; the model has no functions left.
pub fn inline(model: &mut ModelProto) -> Result<(), Error> {
    if model.functions.is_empty() {
        return Ok(());
    }
    // Each call copies the body: what that adds up to is bounded by the size of the model.
    let budget = (256 << 20) + model.encoded_len().saturating_mul(8);
    let mut functions = HashMap::new();
    for function in std::mem::take(&mut model.functions) {
        import_sets(model, &function)?;
        let key = (function.domain.clone(), function.name.clone(), function.overload.clone());
        if functions.insert(key, function).is_some() {
            return Err(invalid("a local function is defined twice"));
        }
    }
    let Some(graph) = &mut model.graph else { return Ok(()) };
    let mut inliner = Inliner { prefix: free_prefix(graph), functions, calls: 0, budget };
    let nodes = std::mem::take(&mut graph.node);
    graph.node = inliner.expand(nodes, 0)?;
    Ok(())
}

/// A function may import operator sets of its own; they have to agree with the model's.
fn import_sets(model: &mut ModelProto, function: &FunctionProto) -> Result<(), Error> {
    for set in &function.opset_import {
        match model.opset_import.iter().find(|own| own.domain == set.domain) {
            Some(own) if own.version != set.version => {
                return Err(unsupported(format!(
                    "the local function \"{}\" uses version {} of an operator set of which the \
                     model uses version {}; export the model without functions",
                    function.name, set.version, own.version
                )));
            }
            Some(_) => {}
            None => model.opset_import.push(set.clone()),
        }
    }
    Ok(())
}

/// A beginning that no name in the graph has.
fn free_prefix(graph: &GraphProto) -> String {
    fn taken(graph: &GraphProto, prefix: &str) -> bool {
        let begins = |name: &String| name.starts_with(prefix);
        graph.initializer.iter().any(|tensor| begins(&tensor.name))
            || graph.input.iter().any(|input| begins(&input.name))
            || graph.node.iter().any(|node| {
                node.output.iter().any(begins)
                    || graph::subgraphs(node).any(|inner| taken(inner, prefix))
            })
    }
    let mut prefix = "inlined/".to_owned();
    while taken(graph, &prefix) {
        prefix.insert(0, '_');
    }
    prefix
}

struct Inliner {
    functions: HashMap<Key, FunctionProto>,
    prefix: String,
    calls: usize,
    budget: usize,
}

impl Inliner {
    fn expand(&mut self, nodes: Vec<NodeProto>, depth: usize) -> Result<Vec<NodeProto>, Error> {
        let mut expanded = Vec::with_capacity(nodes.len());
        for mut node in nodes {
            for inner in graph::subgraphs_mut(&mut node) {
                inner.node = self.expand(std::mem::take(&mut inner.node), depth)?;
            }
            let key = (node.domain.clone(), node.op_type.clone(), node.overload.clone());
            match self.functions.get(&key) {
                None => expanded.push(node),
                Some(_) if depth >= MAX_CALLS => {
                    return Err(unsupported(format!(
                        "the local function \"{}\" calls itself, or functions call each other \
                         more than {MAX_CALLS} deep",
                        node.op_type
                    )));
                }
                Some(function) => {
                    let cost = function.encoded_len();
                    self.budget = self.budget.checked_sub(cost).ok_or_else(|| {
                        unsupported("the model is too large once its local functions are inlined")
                    })?;
                    let prefix = format!("{}{}/", self.prefix, self.calls);
                    self.calls += 1;
                    let body = instantiate(function, &node, &prefix)
                        .map_err(|e| e.at(format!("local function \"{}\"", node.op_type)))?;
                    expanded.extend(self.expand(body, depth + 1)?);
                }
            }
        }
        Ok(expanded)
    }
}

/// The body of a function with the caller's values, results and attributes put in.
fn instantiate(
    function: &FunctionProto,
    call: &NodeProto,
    prefix: &str,
) -> Result<Vec<NodeProto>, Error> {
    if call.input.len() > function.input.len() || call.output.len() > function.output.len() {
        return Err(invalid(format!(
            "takes {} inputs and gives {} outputs, but is called with {} and {}",
            function.input.len(),
            function.output.len(),
            call.input.len(),
            call.output.len()
        )));
    }
    let mut names: HashMap<&str, &str> = HashMap::new();
    for (index, name) in function.input.iter().enumerate() {
        names.insert(name, call.input.get(index).map_or("", String::as_str));
    }
    let mut forwarded = Vec::new();
    for (name, wanted) in function.output.iter().zip(&call.output) {
        if wanted.is_empty() {
            continue;
        }
        // A result that is an argument, or a result given twice, has to be copied.
        if let Some(known) = names.get(name.as_str()) {
            forwarded.push(NodeProto {
                op_type: "Identity".into(),
                input: vec![(*known).to_owned()],
                output: vec![wanted.clone()],
                ..Default::default()
            });
        } else {
            names.insert(name, wanted);
        }
    }
    let renaming = Renaming { names, prefix, function, call };
    let mut nodes: Vec<NodeProto> = function.node.iter().map(|node| renaming.node(node)).collect();
    nodes.append(&mut forwarded);
    Ok(nodes)
}

struct Renaming<'a> {
    names: HashMap<&'a str, &'a str>,
    prefix: &'a str,
    function: &'a FunctionProto,
    call: &'a NodeProto,
}

impl Renaming<'_> {
    fn name(&self, name: &str) -> String {
        match self.names.get(name) {
            _ if name.is_empty() => String::new(),
            Some(outer) => (*outer).to_owned(),
            None => format!("{}{name}", self.prefix),
        }
    }

    fn node(&self, node: &NodeProto) -> NodeProto {
        let named = |names: &[String]| names.iter().map(|name| self.name(name)).collect();
        NodeProto {
            input: named(&node.input),
            output: named(&node.output),
            name: format!("{}{}", self.prefix, node.name),
            op_type: node.op_type.clone(),
            attribute: node.attribute.iter().filter_map(|a| self.attribute(a)).collect(),
            domain: node.domain.clone(),
            overload: node.overload.clone(),
        }
    }

    /// The attribute, the caller's value for it, or the default; `None` leaves it to the operator.
    fn attribute(&self, attribute: &AttributeProto) -> Option<AttributeProto> {
        let wanted = &attribute.ref_attr_name;
        if !wanted.is_empty() {
            let given = self.call.attribute.iter().find(|given| given.name == *wanted);
            let default = || self.function.attribute_proto.iter().find(|d| d.name == *wanted);
            let mut value = given.or_else(default)?.clone();
            value.name.clone_from(&attribute.name);
            return Some(value);
        }
        let mut attribute = attribute.clone();
        let subgraphs = attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs);
        subgraphs.for_each(|graph| self.graph(graph));
        Some(attribute)
    }

    fn graph(&self, graph: &mut GraphProto) {
        graph.value_info.clear();
        for info in graph.input.iter_mut().chain(&mut graph.output) {
            info.name = self.name(&info.name);
        }
        for tensor in &mut graph.initializer {
            tensor.name = self.name(&tensor.name);
        }
        for node in &mut graph.node {
            *node = self.node(node);
        }
    }
}
