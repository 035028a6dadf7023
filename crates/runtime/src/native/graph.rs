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
use super::ranks::{self, Form};
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
    /// The graphs inside the node: the branches of an `If`, the body of a `Loop`.
    pub(super) bodies: Vec<Body<'a>>,
}

/// A graph inside a node.
pub(super) struct Body<'a> {
    /// Its inputs are the parameters that it declares, then what it captures.
    pub(super) graph: Graph<'a>,
    /// The values of the graph around it that it reads, constants excepted.
    pub(super) captures: Vec<usize>,
    /// The parameters as they are declared.
    pub(super) parameters: &'a [ValueInfoProto],
    /// The outputs as they are declared.
    pub(super) results: &'a [ValueInfoProto],
}

/// One value.
pub(super) struct Value<'a> {
    pub(super) name: &'a str,
    pub(super) kind: Kind,
    pub(super) form: Form,
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

    /// What a run is given: its inputs, then what its graphs capture.
    pub(super) fn arguments(&self) -> impl Iterator<Item = Option<usize>> {
        let captured = self.bodies.iter().flat_map(|body| &body.captures);
        self.inputs.iter().copied().chain(captured.map(|id| Some(*id)))
    }

    /// All values that it reads, those of its graphs included.
    pub(super) fn reads(&self) -> impl Iterator<Item = usize> {
        self.arguments().flatten()
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
        let mut builder = Builder::new(model);
        for spec in &signature.inputs {
            let declared = proto.input.iter().find(|input| input.name == *spec.name);
            let Some(declared) = declared else {
                let message = format!("the graph has no input \"{}\"", spec.name);
                return Err(Error::invalid(message));
            };
            let kind = Kind::from_proto(declared.r#type.as_ref());
            builder.add_input(declared, kind, declared_form(declared))?;
        }
        let mut outputs = Vec::with_capacity(signature.outputs.len());
        for spec in &signature.outputs {
            let declared = proto.output.iter().find(|output| output.name == *spec.name);
            let Some(declared) = declared else {
                return Err(Error::invalid(format!("the graph has no output \"{}\"", spec.name)));
            };
            outputs.push(declared.name.as_str());
        }
        builder.build(proto, &outputs)
    }

    pub(super) fn kinds(&self, ids: &[Option<usize>]) -> Vec<Option<Kind>> {
        ids.iter().map(|id| id.map(|id| self.values[id].kind)).collect()
    }

    pub(super) fn forms(&self, ids: &[Option<usize>]) -> Vec<Form> {
        let form = |id: &Option<usize>| id.map(|id| self.values[id].form).unwrap_or_default();
        ids.iter().map(form).collect()
    }
}

/// The form that a value is declared with. Nothing checks the extents of what a body declares,
/// so only the rank counts.
fn declared_form(declared: &ValueInfoProto) -> Form {
    match declared.r#type.as_ref().and_then(|kind| kind.value.as_ref()) {
        Some(type_proto::Value::TensorType(tensor)) => {
            Form { rank: tensor.shape.as_ref().map(|shape| shape.dim.len()), length: None }
        }
        _ => Form::default(),
    }
}

struct Builder<'a> {
    graph: Graph<'a>,
    by_name: HashMap<&'a str, usize>,
    needed: HashSet<&'a str>,
}

impl<'a> Builder<'a> {
    fn new(model: &'a ModelProto) -> Self {
        let graph = Graph { nodes: vec![], values: vec![], inputs: vec![], outputs: vec![], model };
        Self { graph, by_name: HashMap::new(), needed: HashSet::new() }
    }

    /// Reads a graph whose inputs have been added.
    fn build(mut self, proto: &'a GraphProto, outputs: &[&'a str]) -> Result<Graph<'a>, Error> {
        if let Some(sparse) = proto.sparse_initializer.first() {
            let name = sparse.values.as_ref().map_or("", |values| &values.name);
            return Err(Error::unsupported(format!(
                "sparse initializer \"{name}\" is not supported by the native engine"
            )));
        }
        for tensor in &proto.initializer {
            match self.by_name.get(tensor.name.as_str()) {
                Some(id) => self.graph.values[*id].default = Some(tensor),
                None => self.add_constant(&tensor.name, Cow::Borrowed(tensor))?,
            }
        }
        for node in self.live_order(proto, outputs)? {
            self.add_node(node)?;
        }
        for name in outputs {
            let id = self.resolve(name)?;
            let id = id.ok_or_else(|| Error::invalid("a graph has an output without a name"))?;
            self.graph.outputs.push(id);
        }
        Ok(self.graph)
    }

    fn add_input(
        &mut self,
        declared: &'a ValueInfoProto,
        kind: Kind,
        form: Form,
    ) -> Result<(), Error> {
        let id = self.add_value(&declared.name, kind)?;
        self.graph.values[id].declared = Some(declared);
        self.graph.values[id].form = form;
        self.graph.inputs.push(id);
        Ok(())
    }

    fn add_value(&mut self, name: &'a str, kind: Kind) -> Result<usize, Error> {
        let id = self.graph.values.len();
        if self.by_name.insert(name, id).is_some() {
            return Err(Error::invalid(format!("the graph has two values called \"{name}\"")));
        }
        self.graph.values.push(Value {
            name,
            kind,
            form: Form::default(),
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
        self.graph.values[id].form = Form::of(&tensor);
        self.graph.values[id].constant = Some(tensor);
        self.graph.values[id].shape_like = true;
        Ok(())
    }

    /// The nodes that the outputs need, each after those that it reads from.
    fn live_order(
        &mut self,
        proto: &'a GraphProto,
        outputs: &[&'a str],
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
        for output in outputs {
            self.needed.insert(output);
            let Some(root) = producers.get(output) else { continue };
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
        let mut bodies = Vec::new();
        for graph in Attributes::of(proto).graphs() {
            bodies.push(self.body(graph, proto, &inputs).map_err(at)?);
        }
        let (kinds, forms) = results(proto, &self.graph, &inputs, &bodies).map_err(at)?;
        let captured = bodies.iter().flat_map(|body| &body.captures);
        let shape_like = is_shape(proto)
            || inputs.iter().flatten().chain(captured).all(|id| self.graph.values[*id].shape_like);
        let mut outputs = Vec::with_capacity(proto.output.len());
        for (index, name) in proto.output.iter().enumerate() {
            if name.is_empty() || !self.needed.contains(name.as_str()) {
                outputs.push(None);
                continue;
            }
            let id = self.add_value(name, kinds.get(index).copied().unwrap_or(Kind::Unknown))?;
            self.graph.values[id].form = forms.get(index).copied().unwrap_or_default();
            self.graph.values[id].shape_like = shape_like;
            outputs.push(Some(id));
        }
        let opset = opset(self.graph.model, &proto.domain).map_err(at)?;
        self.graph.nodes.push(Node { proto, opset, inputs, outputs, bodies });
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

    /// Reads a graph inside a node.
    fn body(
        &self,
        proto: &'a GraphProto,
        node: &NodeProto,
        given: &[Option<usize>],
    ) -> Result<Body<'a>, Error> {
        let mut inner = Builder::new(self.graph.model);
        for (index, declared) in proto.input.iter().enumerate() {
            let given = given.get(index).copied().flatten().map(|id| &self.graph.values[id]);
            let kind = match (node.op_type.as_str(), Kind::from_proto(declared.r#type.as_ref())) {
                // Bodies may leave types out: a loop's carried values have those of its inputs.
                ("Loop", Kind::Unknown) if index == 0 => Kind::Tensor(DataType::Int64),
                ("Loop", Kind::Unknown) if index == 1 => Kind::Tensor(DataType::Bool),
                (_, Kind::Unknown) => given.map_or(Kind::Unknown, |value| value.kind),
                (_, declared) => declared,
            };
            inner.add_input(declared, kind, declared_form(declared))?;
        }
        let mut captures = Vec::new();
        for name in captured_by(proto) {
            let Some(id) = self.resolve(name)? else { continue };
            if inner.by_name.contains_key(name) {
                continue;
            }
            let value = &self.graph.values[id];
            if let Some(constant) = &value.constant {
                inner.add_constant(value.name, constant.clone())?;
                continue;
            }
            let own = inner.add_value(value.name, value.kind)?;
            inner.graph.values[own].form = value.form;
            inner.graph.values[own].shape_like = value.shape_like;
            inner.graph.inputs.push(own);
            captures.push(id);
        }
        let outputs: Vec<&str> = proto.output.iter().map(|output| output.name.as_str()).collect();
        let graph = inner.build(proto, &outputs)?;
        Ok(Body { graph, captures, parameters: &proto.input, results: &proto.output })
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

/// What is known of a node's outputs.
fn results(
    node: &NodeProto,
    graph: &Graph<'_>,
    inputs: &[Option<usize>],
    bodies: &[Body<'_>],
) -> Result<(Vec<Kind>, Vec<Form>), Error> {
    if bodies.is_empty() {
        let kinds = kinds::infer(node, &graph.kinds(inputs))?;
        return Ok((kinds, ranks::infer(node, &graph.forms(inputs))?));
    }
    let made = |body: &Body<'_>| -> Vec<Kind> {
        body.graph.outputs.iter().map(|id| body.graph.values[*id].kind).collect()
    };
    let standard = matches!(node.domain.as_str(), "" | "ai.onnx");
    let kinds = match (standard, node.op_type.as_str(), bodies) {
        (true, "If", [one, two]) if made(one) == made(two) => made(one),
        // The body also gives the condition to go on, which the node does not return.
        (true, "Loop", [body]) => made(body).get(1..).unwrap_or(&[]).to_vec(),
        (true, "Scan", [body]) => made(body),
        _ => Vec::new(),
    };
    // Branches may make different shapes, and rounds of a loop too.
    Ok((kinds, Vec::new()))
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
