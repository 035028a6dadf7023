//! An ONNX graph made ready for planning: nodes in an order that runs, names turned into numbers,
//! every value's kind known, everything that no output needs left out.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use model::onnx::{
    GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, data_type, type_proto,
};
use model::{DataType, Signature};

use super::attributes::Attributes;
use super::kinds::{self, Kind};
use crate::Error;

/// The graph of a model.
pub(super) struct Graph<'a> {
    /// Each node comes after those that it reads from.
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) values: Vec<Value<'a>>,
    /// The values that the signature's inputs fill, in the signature's order.
    pub(super) inputs: Vec<usize>,
    /// The values that the signature's outputs take, in the signature's order.
    pub(super) outputs: Vec<usize>,
    pub(super) model: &'a ModelProto,
}

/// One node. Inputs and outputs are indices of [`Graph::values`].
pub(super) struct Node<'a> {
    pub(super) proto: &'a NodeProto,
    /// The version of the operator set that the node's operator is from.
    pub(super) opset: i64,
    /// `None`: left out.
    pub(super) inputs: Vec<Option<usize>>,
    /// `None`: left out, or nothing reads it.
    pub(super) outputs: Vec<Option<usize>>,
    /// Values that the graphs inside the node read from around it.
    pub(super) captures: Vec<usize>,
    /// The nodes of the graphs inside the node, at any depth.
    pub(super) nested: Vec<Nested<'a>>,
}

/// A node inside a node's graph: enough to say whether it can be run.
pub(super) struct Nested<'a> {
    pub(super) proto: &'a NodeProto,
    pub(super) inputs: Vec<Option<Kind>>,
    pub(super) outputs: Vec<Kind>,
}

/// One value.
pub(super) struct Value<'a> {
    pub(super) name: &'a str,
    pub(super) kind: Kind,
    /// The tensor that it always is. An input with a default is not constant.
    pub(super) constant: Option<Cow<'a, TensorProto>>,
    /// The tensor that it is when the caller leaves it out.
    pub(super) default: Option<&'a TensorProto>,
    /// How the model declares it, for graph inputs.
    pub(super) declared: Option<&'a ValueInfoProto>,
    /// Whether it is computed from shapes and constants only: its integers are extents, which
    /// memory bounds, not data.
    pub(super) shape_like: bool,
}

impl Node<'_> {
    /// How errors name it.
    pub(super) fn place(&self) -> String {
        place(self.proto)
    }

    /// How many outputs it has, up to the last one that anything reads.
    pub(super) fn wanted_outputs(&self) -> usize {
        self.outputs.iter().rposition(Option::is_some).map_or(0, |last| last + 1)
    }

    /// All values that it reads, those of its graphs included.
    pub(super) fn reads(&self) -> impl Iterator<Item = usize> {
        self.inputs.iter().flatten().chain(&self.captures).copied()
    }
}

pub(super) fn place(node: &NodeProto) -> String {
    let operator = operator_name(node);
    match (node.name.as_str(), node.output.first()) {
        ("", Some(output)) => format!("{operator} node that makes \"{output}\""),
        ("", None) => format!("{operator} node"),
        (name, _) => format!("{operator} node \"{name}\""),
    }
}

/// The operator with its domain, as the specification writes it.
pub(super) fn operator_name(node: &NodeProto) -> String {
    match node.domain.as_str() {
        "" | "ai.onnx" => node.op_type.clone(),
        domain => format!("{domain}.{}", node.op_type),
    }
}

impl<'a> Graph<'a> {
    pub(super) fn new(model: &'a ModelProto, signature: &Signature) -> Result<Self, Error> {
        let proto = model.graph.as_ref().ok_or_else(|| Error::invalid("the model has no graph"))?;
        if let Some(sparse) = proto.sparse_initializer.first() {
            let name = sparse.values.as_ref().map_or("", |values| &values.name);
            return Err(Error::unsupported(format!(
                "sparse initializer \"{name}\" is not supported by the native engine"
            )));
        }
        let mut builder = Builder::new(model, proto, signature)?;
        let order = builder.live_order(proto, signature)?;
        for node in order {
            builder.add_node(node)?;
        }
        builder.finish(signature)
    }

    /// How many dimensions a value has, where the file says so.
    pub(super) fn rank(&self, id: usize) -> Option<usize> {
        let value = &self.values[id];
        if let Some(tensor) = &value.constant {
            return Some(tensor.dims.len());
        }
        match value.declared?.r#type.as_ref()?.value.as_ref()? {
            type_proto::Value::TensorType(tensor) => Some(tensor.shape.as_ref()?.dim.len()),
            _ => None,
        }
    }

    pub(super) fn kinds(&self, ids: &[Option<usize>]) -> Vec<Option<Kind>> {
        ids.iter().map(|id| id.map(|id| self.values[id].kind)).collect()
    }
}

struct Builder<'a> {
    graph: Graph<'a>,
    by_name: HashMap<&'a str, usize>,
    needed: HashSet<&'a str>,
}

impl<'a> Builder<'a> {
    fn new(
        model: &'a ModelProto,
        proto: &'a GraphProto,
        signature: &Signature,
    ) -> Result<Self, Error> {
        let graph = Graph { nodes: vec![], values: vec![], inputs: vec![], outputs: vec![], model };
        let mut this = Self { graph, by_name: HashMap::new(), needed: HashSet::new() };
        let defaults: HashMap<&str, &TensorProto> =
            proto.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        for spec in &signature.inputs {
            let declared = proto.input.iter().find(|input| input.name == *spec.name);
            let Some(declared) = declared else {
                let message = format!("the graph has no input \"{}\"", spec.name);
                return Err(Error::invalid(message));
            };
            let id = this.add_value(&declared.name, Kind::from_proto(declared.r#type.as_ref()))?;
            this.graph.values[id].declared = Some(declared);
            this.graph.values[id].default = defaults.get(declared.name.as_str()).copied();
            this.graph.inputs.push(id);
        }
        for tensor in &proto.initializer {
            if !this.by_name.contains_key(tensor.name.as_str()) {
                this.add_constant(&tensor.name, Cow::Borrowed(tensor))?;
            }
        }
        Ok(this)
    }

    fn add_value(&mut self, name: &'a str, kind: Kind) -> Result<usize, Error> {
        let id = self.graph.values.len();
        if self.by_name.insert(name, id).is_some() {
            return Err(Error::invalid(format!("the graph has two values called \"{name}\"")));
        }
        self.graph.values.push(Value {
            name,
            kind,
            constant: None,
            default: None,
            declared: None,
            shape_like: false,
        });
        Ok(id)
    }

    fn add_constant(&mut self, name: &'a str, tensor: Cow<'a, TensorProto>) -> Result<(), Error> {
        let datatype = DataType::from_onnx(tensor.data_type);
        let id = self.add_value(name, datatype.map_or(Kind::Unknown, Kind::Tensor))?;
        self.graph.values[id].constant = Some(tensor);
        self.graph.values[id].shape_like = true;
        Ok(())
    }

    /// The nodes that the outputs need, each after those that it reads from.
    fn live_order(
        &mut self,
        proto: &'a GraphProto,
        signature: &Signature,
    ) -> Result<Vec<&'a NodeProto>, Error> {
        let mut producers: HashMap<&'a str, usize> = HashMap::new();
        for (index, node) in proto.node.iter().enumerate() {
            for output in node.output.iter().filter(|name| !name.is_empty()) {
                if producers.insert(output, index).is_some() {
                    let message = format!("the graph has two values called \"{output}\"");
                    return Err(Error::invalid(message));
                }
            }
        }
        let reads: Vec<Vec<&'a str>> = proto.node.iter().map(reads_of).collect();
        // Depth first from the outputs, with a stack of our own: a chain can be very long.
        const OPEN: u8 = 1;
        const DONE: u8 = 2;
        let mut state = vec![0u8; proto.node.len()];
        let mut order = Vec::with_capacity(proto.node.len());
        for spec in &signature.outputs {
            let name = proto.output.iter().find(|output| output.name == *spec.name);
            let Some(output) = name else {
                return Err(Error::invalid(format!("the graph has no output \"{}\"", spec.name)));
            };
            self.needed.insert(&output.name);
            let Some(root) = producers.get(output.name.as_str()) else { continue };
            let mut stack = vec![(*root, 0)];
            while let Some((node, next)) = stack.pop() {
                if state[node] == DONE {
                    continue;
                }
                state[node] = OPEN;
                let Some(name) = reads[node].get(next) else {
                    state[node] = DONE;
                    order.push(&proto.node[node]);
                    continue;
                };
                stack.push((node, next + 1));
                self.needed.insert(name);
                match producers.get(name) {
                    Some(producer) if state[*producer] == OPEN => {
                        let place = place(&proto.node[node]);
                        return Err(Error::invalid(format!("{place} reads what it makes")));
                    }
                    Some(producer) if state[*producer] != DONE => stack.push((*producer, 0)),
                    _ => {}
                }
            }
        }
        Ok(order)
    }

    fn add_node(&mut self, proto: &'a NodeProto) -> Result<(), Error> {
        let at = |error: Error| error.at(place(proto));
        let inputs = proto.input.iter().map(|name| self.resolve(name)).collect::<Result<_, _>>();
        let inputs: Vec<Option<usize>> = inputs.map_err(at)?;
        if proto.op_type == "Constant"
            && matches!(proto.domain.as_str(), "" | "ai.onnx")
            && let ([output], Some(tensor)) = (&proto.output[..], constant(proto).map_err(at)?)
        {
            return self.add_constant(output, tensor);
        }
        let mut captures = Vec::new();
        for graph in Attributes::of(proto).graphs() {
            for name in captured_by(graph) {
                captures.extend(self.resolve(name).map_err(at)?);
            }
        }
        captures.sort_unstable();
        captures.dedup();
        let kinds = self.graph.kinds(&inputs);
        let mut nested = Vec::new();
        let outer = |name: &str| self.by_name.get(name).map(|id| self.graph.values[*id].kind);
        let made = kinds_of(proto, &kinds, &outer, &mut nested).map_err(at)?;
        let shape_like = is_shape(proto)
            || inputs.iter().flatten().chain(&captures).all(|id| self.graph.values[*id].shape_like);
        let mut outputs = Vec::with_capacity(proto.output.len());
        for (name, kind) in proto.output.iter().zip(made) {
            if name.is_empty() || !self.needed.contains(name.as_str()) {
                outputs.push(None);
                continue;
            }
            let id = self.add_value(name, kind)?;
            self.graph.values[id].shape_like = shape_like;
            outputs.push(Some(id));
        }
        let opset = opset(self.graph.model, &proto.domain).map_err(at)?;
        self.graph.nodes.push(Node { proto, opset, inputs, outputs, captures, nested });
        Ok(())
    }

    fn resolve(&self, name: &str) -> Result<Option<usize>, Error> {
        if name.is_empty() {
            return Ok(None);
        }
        let id = self.by_name.get(name).copied();
        let missing = || Error::invalid(format!("nothing in the graph makes \"{name}\""));
        id.map(Some).ok_or_else(missing)
    }

    fn finish(mut self, signature: &Signature) -> Result<Graph<'a>, Error> {
        for spec in &signature.outputs {
            let id = self
                .resolve(&spec.name)?
                .ok_or_else(|| Error::invalid("the graph has an output without a name"))?;
            self.graph.outputs.push(id);
        }
        Ok(self.graph)
    }
}

fn opset(model: &ModelProto, domain: &str) -> Result<i64, Error> {
    let standard = |domain: &str| matches!(domain, "" | "ai.onnx");
    model
        .opset_import
        .iter()
        .find(|set| set.domain == domain || standard(&set.domain) && standard(domain))
        .map(|set| set.version)
        .ok_or_else(|| {
            let name = if standard(domain) { "ai.onnx" } else { domain };
            Error::invalid(format!("the model does not import the operator set \"{name}\""))
        })
}

fn is_shape(node: &NodeProto) -> bool {
    matches!(node.domain.as_str(), "" | "ai.onnx")
        && matches!(node.op_type.as_str(), "Shape" | "Size")
}

/// Everything that a node reads: its inputs, and what its graphs capture.
fn reads_of(node: &NodeProto) -> Vec<&str> {
    let own = node.input.iter().map(String::as_str).filter(|name| !name.is_empty());
    let captured = Attributes::of(node).graphs().flat_map(captured_by);
    own.chain(captured).collect()
}

/// The names that a node's graph reads from around it.
fn captured_by(graph: &GraphProto) -> Vec<&str> {
    let mut defined: HashSet<&str> = graph.input.iter().map(|v| v.name.as_str()).collect();
    defined.extend(graph.initializer.iter().map(|tensor| tensor.name.as_str()));
    defined.extend(graph.node.iter().flat_map(|node| node.output.iter().map(String::as_str)));
    let outputs = graph.output.iter().map(|v| v.name.as_str());
    let read = graph.node.iter().flat_map(reads_of).chain(outputs);
    read.filter(|name| !defined.contains(name)).collect()
}

/// Infers a node's output kinds, going into its graphs.
fn kinds_of<'a>(
    node: &'a NodeProto,
    inputs: &[Option<Kind>],
    outer: &dyn Fn(&str) -> Option<Kind>,
    nested: &mut Vec<Nested<'a>>,
) -> Result<Vec<Kind>, Error> {
    let mut results = Vec::new();
    for graph in Attributes::of(node).graphs() {
        results.push(infer_graph(graph, node, inputs, outer, nested)?);
    }
    let standard = matches!(node.domain.as_str(), "" | "ai.onnx");
    let mut kinds = match (standard, node.op_type.as_str(), &results[..]) {
        (true, "If", [one, two]) if one == two => one.clone(),
        // The body also gives the condition to go on, which the node does not return.
        (true, "Loop", [body]) => body.get(1..).unwrap_or(&[]).to_vec(),
        (true, "Scan", [body]) => body.clone(),
        (_, _, []) => kinds::infer(node, inputs)?,
        _ => Vec::new(),
    };
    kinds.resize(node.output.len().max(kinds.len()), Kind::Unknown);
    Ok(kinds)
}

fn infer_graph<'a>(
    graph: &'a GraphProto,
    node: &NodeProto,
    given: &[Option<Kind>],
    outer: &dyn Fn(&str) -> Option<Kind>,
    nested: &mut Vec<Nested<'a>>,
) -> Result<Vec<Kind>, Error> {
    let mut known: HashMap<&str, Kind> = HashMap::new();
    for (index, input) in graph.input.iter().enumerate() {
        let kind = match (node.op_type.as_str(), Kind::from_proto(input.r#type.as_ref())) {
            // Bodies may leave types out: a loop's carried values have those of its inputs.
            ("Loop", Kind::Unknown) if index == 0 => Kind::Tensor(DataType::Int64),
            ("Loop", Kind::Unknown) => given.get(index).copied().flatten().unwrap_or(Kind::Unknown),
            (_, declared) => declared,
        };
        known.insert(&input.name, kind);
    }
    for tensor in &graph.initializer {
        let datatype = DataType::from_onnx(tensor.data_type);
        known.insert(&tensor.name, datatype.map_or(Kind::Unknown, Kind::Tensor));
    }
    for inner in &graph.node {
        let inputs: Vec<Option<Kind>> = inner
            .input
            .iter()
            .map(|name| {
                let found = || known.get(name.as_str()).copied().or_else(|| outer(name));
                (!name.is_empty()).then(|| found().unwrap_or(Kind::Unknown))
            })
            .collect();
        let around = |name: &str| known.get(name).copied().or_else(|| outer(name));
        let outputs = kinds_of(inner, &inputs, &around, nested)?;
        for (name, kind) in inner.output.iter().zip(&outputs) {
            known.insert(name, *kind);
        }
        nested.push(Nested { proto: inner, inputs, outputs });
    }
    let kind = |output: &ValueInfoProto| {
        let name = output.name.as_str();
        known.get(name).copied().or_else(|| outer(name)).unwrap_or(Kind::Unknown)
    };
    Ok(graph.output.iter().map(kind).collect())
}

/// The tensor of a `Constant` node; `None` for what we do not read (sparse).
fn constant(node: &NodeProto) -> Result<Option<Cow<'_, TensorProto>>, Error> {
    let attributes = Attributes::of(node);
    let [attribute] = &node.attribute[..] else {
        return Err(Error::invalid("expected exactly one attribute"));
    };
    let mut proto = TensorProto::default();
    match attribute.name.as_str() {
        "value" => return Ok(attribute.t.as_deref().map(Cow::Borrowed)),
        "value_int" => {
            proto.data_type = data_type::INT64;
            proto.int64_data = vec![attributes.int("value_int")?.unwrap_or_default()];
        }
        "value_ints" => {
            proto.data_type = data_type::INT64;
            proto.int64_data = attributes.ints("value_ints")?.to_vec();
            proto.dims = vec![proto.int64_data.len() as i64];
        }
        "value_float" => {
            proto.data_type = data_type::FLOAT;
            proto.float_data = vec![attributes.float("value_float")?.unwrap_or_default()];
        }
        "value_floats" => {
            proto.data_type = data_type::FLOAT;
            proto.float_data = attributes.floats("value_floats")?.to_vec();
            proto.dims = vec![proto.float_data.len() as i64];
        }
        "value_string" => {
            proto.data_type = data_type::STRING;
            let string: Option<&Bytes> = attributes.bytes("value_string")?;
            proto.string_data = vec![string.cloned().unwrap_or_default()];
        }
        "value_strings" => {
            proto.data_type = data_type::STRING;
            proto.string_data = attributes.strings("value_strings")?.to_vec();
            proto.dims = vec![proto.string_data.len() as i64];
        }
        _ => return Ok(None),
    }
    Ok(Some(Cow::Owned(proto)))
}
