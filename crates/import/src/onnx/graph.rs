//! Whether the graph is a program: every value defined once, and before it is used.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use model::onnx::{AttributeProto, GraphProto, NodeProto, TensorProto};

use super::{invalid, tensors, unsupported};
use crate::Error;

/// The deepest nesting of subgraphs (the bodies of `If`, `Loop` and `Scan`).
const MAX_DEPTH: usize = 16;

/// A node in words, for messages.
pub fn describe(index: usize, node: &NodeProto) -> String {
    if node.name.is_empty() {
        format!("node {index} ({})", node.op_type)
    } else {
        format!("node \"{}\" ({})", node.name, node.op_type)
    }
}

/// The subgraphs of a node.
pub fn subgraphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute
        .iter()
        .flat_map(|attribute| attribute.g.as_deref().into_iter().chain(&attribute.graphs))
}

/// The subgraphs of a node, to be changed.
pub fn subgraphs_mut(node: &mut NodeProto) -> impl Iterator<Item = &mut GraphProto> {
    node.attribute
        .iter_mut()
        .flat_map(|attribute| attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs))
}

/// Applies a function to every tensor of a graph, those in attributes and subgraphs included.
pub fn each_tensor(
    graph: &mut GraphProto,
    visit: &mut dyn FnMut(&mut TensorProto) -> Result<(), Error>,
) -> Result<(), Error> {
    for tensor in &mut graph.initializer {
        visit(tensor).map_err(|error| error.at(format!("tensor \"{}\"", tensor.name)))?;
    }
    for (index, node) in graph.node.iter_mut().enumerate() {
        let place = |node: &NodeProto, attribute: &str| {
            format!("{}: attribute \"{attribute}\"", describe(index, node))
        };
        for position in 0..node.attribute.len() {
            let attribute = &mut node.attribute[position];
            let held = attribute.t.as_deref_mut().into_iter().chain(&mut attribute.tensors);
            let result = held.into_iter().try_for_each(&mut *visit);
            result.map_err(|error| error.at(place(node, &node.attribute[position].name)))?;
        }
        for inner in subgraphs_mut(node) {
            each_tensor(inner, visit)?;
        }
    }
    Ok(())
}

/// Brings the nodes into an order in which every value is made before it is used; nodes that
/// are in order already keep their places.
pub fn sort(graph: &mut GraphProto) -> Result<(), Error> {
    sort_at(graph, 0)
}

fn sort_at(graph: &mut GraphProto, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(unsupported(format!("subgraphs are nested more than {MAX_DEPTH} deep")));
    }
    for node in &mut graph.node {
        for inner in subgraphs_mut(node) {
            sort_at(inner, depth + 1)?;
        }
    }
    if let Some(order) = order(&graph.node)? {
        let mut nodes: Vec<Option<NodeProto>> = graph.node.drain(..).map(Some).collect();
        graph.node = order.into_iter().filter_map(|index| nodes[index].take()).collect();
    }
    Ok(())
}

/// The order of the nodes, unless it is the one that they are in.
fn order(nodes: &[NodeProto]) -> Result<Option<Vec<usize>>, Error> {
    let outputs = |(index, node): (usize, &'_ NodeProto)| (index, node.output.len());
    let mut makers: HashMap<&str, usize> =
        HashMap::with_capacity(nodes.iter().enumerate().map(outputs).map(|(_, n)| n).sum());
    for (index, node) in nodes.iter().enumerate() {
        for output in node.output.iter().filter(|name| !name.is_empty()) {
            makers.insert(output, index);
        }
    }
    let mut users = vec![Vec::new(); nodes.len()];
    let mut waiting = vec![0usize; nodes.len()];
    let mut sorted = true;
    let mut names = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        names.clear();
        reads(node, &mut names);
        for maker in names.iter().filter_map(|name| makers.get(name)) {
            sorted &= *maker < index;
            users[*maker].push(index);
            waiting[index] += 1;
        }
    }
    if sorted {
        return Ok(None);
    }
    let free = waiting.iter().enumerate().filter(|(_, count)| **count == 0);
    let mut ready: BinaryHeap<_> = free.map(|(index, _)| Reverse(index)).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(Reverse(index)) = ready.pop() {
        order.push(index);
        for user in &users[index] {
            waiting[*user] -= 1;
            if waiting[*user] == 0 {
                ready.push(Reverse(*user));
            }
        }
    }
    match waiting.iter().position(|count| *count > 0) {
        Some(stuck) => {
            let node = describe(stuck, &nodes[stuck]);
            Err(invalid(format!("the graph has a cycle: {node} needs its own result")))
        }
        None => Ok(Some(order)),
    }
}

/// The names that a node needs: its inputs and what its subgraphs take from around them.
pub fn reads<'a>(node: &'a NodeProto, into: &mut Vec<&'a str>) {
    into.extend(node.input.iter().map(String::as_str));
    for graph in subgraphs(node) {
        let mut inner = Vec::new();
        graph.node.iter().for_each(|node| reads(node, &mut inner));
        let mut own: HashSet<&str> = graph.input.iter().map(|input| input.name.as_str()).collect();
        own.extend(graph.initializer.iter().map(|tensor| tensor.name.as_str()));
        own.extend(graph.node.iter().flat_map(|node| &node.output).map(String::as_str));
        into.extend(inner.into_iter().filter(|name| !own.contains(name)));
    }
}

/// Checks names, attributes and tensors of a sorted graph.
pub fn check(graph: &GraphProto) -> Result<(), Error> {
    Scope::default().graph(graph, true)
}

/// The names that are defined so far, here and around.
#[derive(Default)]
struct Scope<'a> {
    defined: HashSet<&'a str>,
}

impl<'a> Scope<'a> {
    fn graph(&mut self, graph: &'a GraphProto, outermost: bool) -> Result<(), Error> {
        if let Some(sparse) = graph.sparse_initializer.first() {
            let name = sparse.values.as_ref().map_or("", |values| values.name.as_str());
            return Err(unsupported(format!(
                "tensor \"{name}\" is sparse, which is not supported; convert it to a dense one"
            )));
        }
        let mut own = HashSet::new();
        self.inputs_and_initializers(graph, &mut own)?;
        for (index, node) in graph.node.iter().enumerate() {
            self.node(node, &mut own).map_err(|error| error.at(describe(index, node)))?;
        }
        let mut outputs = HashSet::new();
        for output in &graph.output {
            let name = output.name.as_str();
            if !outputs.insert(name) && outermost {
                return Err(invalid(format!("the output \"{name}\" is listed twice")));
            }
            if !own.contains(name) {
                return Err(invalid(format!("the output \"{name}\" is not made by any node")));
            }
        }
        for name in &own {
            self.defined.remove(name);
        }
        Ok(())
    }

    fn inputs_and_initializers(
        &mut self,
        graph: &'a GraphProto,
        own: &mut HashSet<&'a str>,
    ) -> Result<(), Error> {
        for input in &graph.input {
            if input.name.is_empty() {
                return Err(invalid("an input of the graph has no name"));
            }
            if !own.insert(&input.name) {
                return Err(invalid(format!("the input \"{}\" is listed twice", input.name)));
            }
        }
        let mut tensors = HashSet::new();
        for tensor in &graph.initializer {
            if tensor.name.is_empty() {
                return Err(invalid("a tensor of the graph has no name"));
            }
            if !tensors.insert(tensor.name.as_str()) {
                return Err(invalid(format!("the tensor \"{}\" is listed twice", tensor.name)));
            }
            tensors::check(tensor).map_err(|e| e.at(format!("tensor \"{}\"", tensor.name)))?;
        }
        own.extend(tensors);
        if let Some(name) = own.iter().find(|name| self.defined.contains(**name)) {
            return Err(invalid(format!("a subgraph defines \"{name}\" again")));
        }
        self.defined.extend(own.iter());
        Ok(())
    }

    fn node(&mut self, node: &'a NodeProto, own: &mut HashSet<&'a str>) -> Result<(), Error> {
        if node.op_type.is_empty() {
            return Err(invalid("has no operator"));
        }
        for input in node.input.iter().filter(|name| !name.is_empty()) {
            if !self.defined.contains(input.as_str()) {
                return Err(invalid(format!(
                    "its input \"{input}\" is neither an input of the graph, nor a tensor, nor \
                     made by a node"
                )));
            }
        }
        let mut names = HashSet::new();
        for attribute in &node.attribute {
            if !names.insert(attribute.name.as_str()) {
                return Err(invalid(format!(
                    "the attribute \"{}\" is given twice",
                    attribute.name
                )));
            }
            check_attribute(attribute)
                .map_err(|error| error.at(format!("attribute \"{}\"", attribute.name)))?;
        }
        for graph in subgraphs(node) {
            self.graph(graph, false)?;
        }
        for output in node.output.iter().filter(|name| !name.is_empty()) {
            if !self.defined.insert(output) {
                return Err(invalid(format!("its output \"{output}\" is defined already")));
            }
            own.insert(output);
        }
        Ok(())
    }
}

fn check_attribute(attribute: &AttributeProto) -> Result<(), Error> {
    if !attribute.ref_attr_name.is_empty() {
        return Err(invalid("refers to a function's attribute outside of a function"));
    }
    if attribute.sparse_tensor.is_some() || !attribute.sparse_tensors.is_empty() {
        return Err(unsupported("is a sparse tensor, which is not supported"));
    }
    attribute.t.as_deref().into_iter().chain(&attribute.tensors).try_for_each(tensors::check)
}
