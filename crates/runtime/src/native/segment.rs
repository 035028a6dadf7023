//! A run of nodes that `rten` executes as a model of its own.
//!
//! `rten` knows four element types; INT64 and BOOL become INT32 on the way in and come back on
//! the way out. Values that do not fit are refused, never cut.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use model::onnx::attribute_proto::AttributeType;
use model::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use model::{Data, DataType, Tensor};
use prost::Message;
use rten::{Model, ModelOptions, NodeId, RunErrorKind, RunOptions, ThreadPool, Value, ValueOrView};
use rten_tensor::prelude::*;

use super::attributes::Attributes;
use super::graph::{Graph, Node};
use super::ranks;
use crate::Error;

/// What a segment is made of, before `rten` has compiled it.
pub(super) struct Source {
    /// Indices of the graph's nodes, in an order that runs.
    pub(super) nodes: Vec<usize>,
    /// Values that come from outside, constants excepted.
    pub(super) inputs: Vec<usize>,
    /// Values that are used outside.
    pub(super) outputs: Vec<usize>,
}

/// A compiled segment.
pub(super) struct Segment {
    model: Model,
    inputs: Vec<(NodeId, String)>,
    outputs: Vec<(NodeId, DataType, String)>,
}

/// Constants above this size are left out of a trial: only operators and attributes matter there.
const TRIAL_BYTES: usize = 1024;

impl Source {
    /// Compiles without the weights, to learn whether `rten` takes every node.
    pub(super) fn check(&self, graph: &Graph<'_>) -> Result<(), Error> {
        let bytes = self.encode(graph, true)?;
        let mut options = ModelOptions::with_all_ops();
        options.enable_optimization(false);
        load(&options, bytes).map(drop)
    }

    /// Compiles.
    pub(super) fn compile(&self, graph: &Graph<'_>) -> Result<Segment, Error> {
        let bytes = self.encode(graph, false)?;
        let mut options = ModelOptions::with_all_ops();
        options.prepack_weights(true);
        let model = load(&options, bytes)?;
        let find = |id: usize| {
            let name = graph.values[id].name;
            let node = model.find_node(name);
            node.ok_or_else(|| Error::internal(format!("value \"{name}\" was lost in compiling")))
        };
        let inputs: Result<Vec<_>, Error> = self
            .inputs
            .iter()
            .map(|id| Ok((find(*id)?, graph.values[*id].name.to_owned())))
            .collect();
        let outputs: Result<Vec<_>, Error> = self
            .outputs
            .iter()
            .map(|id| {
                let value = &graph.values[*id];
                let datatype = value.kind.tensor().ok_or_else(|| {
                    Error::unsupported(format!("value \"{}\" is a {}", value.name, value.kind))
                })?;
                Ok((find(*id)?, datatype, value.name.to_owned()))
            })
            .collect();
        let (inputs, outputs) = (inputs?, outputs?);
        Ok(Segment { model, inputs, outputs })
    }

    fn encode(&self, graph: &Graph<'_>, trial: bool) -> Result<Vec<u8>, Error> {
        let mut proto = GraphProto { name: "segment".into(), ..Default::default() };
        let mut constants: Vec<usize> = Vec::new();
        for index in &self.nodes {
            let node = &graph.nodes[*index];
            proto.node.push(normalized(graph, node));
            let reads = node.reads().filter(|id| graph.values[*id].constant.is_some());
            constants.extend(reads);
        }
        constants.sort_unstable();
        constants.dedup();
        for id in constants {
            let value = &graph.values[id];
            let tensor = value.constant.as_deref().expect("kept because it is one");
            if trial && tensor.encoded_len() > TRIAL_BYTES {
                proto.input.push(named(value.name));
                continue;
            }
            proto.initializer.push(TensorProto { name: value.name.to_owned(), ..tensor.clone() });
        }
        for id in &self.inputs {
            let value = &graph.values[*id];
            proto.input.push(value.declared.cloned().unwrap_or_else(|| named(value.name)));
        }
        proto.output = self.outputs.iter().map(|id| named(graph.values[*id].name)).collect();
        let model = ModelProto {
            ir_version: graph.model.ir_version,
            opset_import: graph.model.opset_import.clone(),
            graph: Some(proto),
            ..Default::default()
        };
        Ok(model.encode_to_vec())
    }
}

fn named(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: name.to_owned(), ..Default::default() }
}

fn load(options: &ModelOptions, bytes: Vec<u8>) -> Result<Model, Error> {
    // Its optimizer can trip over graphs that are broken, or only unusual.
    let loaded = catch_unwind(AssertUnwindSafe(|| options.load(bytes)));
    match loaded {
        Ok(Ok(model)) => Ok(model),
        Ok(Err(error)) => Err(Error::unsupported(error.to_string())),
        Err(_) => Err(Error::unsupported("rten gave up on compiling this part of the model")),
    }
}

/// The node as `rten` wants it: with a name for its errors, without outputs that nothing reads,
/// with defaults written out that it does not fill in itself.
fn normalized(graph: &Graph<'_>, node: &Node<'_>) -> NodeProto {
    let mut proto = node.proto.clone();
    if proto.name.is_empty() {
        let output = proto.output.first().cloned().unwrap_or_default();
        proto.name = format!("{} that makes {output}", proto.op_type);
    }
    proto.output.truncate(node.wanted_outputs());
    let attributes = Attributes::of(node.proto);
    match proto.op_type.as_str() {
        "Conv" | "ConvTranspose" | "ConvInteger" | "MaxPool" | "AveragePool" => {}
        // The specification's default, which differs from rten's.
        "QuantizeLinear" | "DequantizeLinear" => {
            add_ints(&mut proto, "axis", None);
            return proto;
        }
        _ => return proto,
    }
    let Some(spatial) = ranks::spatial(node.proto, &graph.forms(&node.inputs)) else {
        return proto;
    };
    let weights = node.inputs.get(1).copied().flatten();
    let weights = weights.and_then(|id| graph.values[id].constant.as_deref());
    if let Some(windows) = weights.and_then(|tensor| tensor.dims.get(2..))
        && windows.len() == spatial
        && proto.op_type.starts_with("Conv")
    {
        add_ints(&mut proto, "kernel_shape", Some(windows.to_vec()));
    }
    add_ints(&mut proto, "strides", Some(vec![1; spatial]));
    if proto.op_type != "AveragePool" || attributes.has("dilations") {
        add_ints(&mut proto, "dilations", Some(vec![1; spatial]));
    }
    if matches!(attributes.string("auto_pad"), Ok(None | Some("NOTSET"))) {
        add_ints(&mut proto, "pads", Some(vec![0; 2 * spatial]));
    }
    proto
}

/// Adds an attribute that is not there: a list, or the number 1.
fn add_ints(proto: &mut NodeProto, name: &str, ints: Option<Vec<i64>>) {
    if proto.attribute.iter().any(|attribute| attribute.name == name) {
        return;
    }
    let kind = if ints.is_some() { AttributeType::Ints } else { AttributeType::Int };
    proto.attribute.push(AttributeProto {
        name: name.to_owned(),
        r#type: kind as i32,
        i: 1,
        ints: ints.unwrap_or_default(),
        ..Default::default()
    });
}

impl Segment {
    /// Runs it. Takes and gives values in the source's order.
    pub(super) fn run(
        &self,
        inputs: &[&Tensor],
        pool: Option<&Arc<ThreadPool>>,
    ) -> Result<Vec<Tensor>, Error> {
        let mut given = Vec::with_capacity(inputs.len());
        for ((id, name), tensor) in self.inputs.iter().zip(inputs) {
            let value = to_rten(tensor).map_err(|e| e.at(format!("value \"{name}\"")))?;
            given.push((*id, value));
        }
        let wanted: Vec<NodeId> = self.outputs.iter().map(|(id, ..)| *id).collect();
        let options = RunOptions::default().with_thread_pool(pool.cloned());
        let values = self.model.run(given, &wanted, Some(options)).map_err(|error| {
            let message = error.to_string();
            match error.kind() {
                RunErrorKind::OperatorError | RunErrorKind::InvalidInput => Error::invalid(message),
                _ => Error::internal(message),
            }
        })?;
        let outputs = self.outputs.iter().zip(values);
        outputs
            .map(|((_, datatype, name), value)| {
                from_rten(value, *datatype).map_err(|e| e.at(format!("value \"{name}\"")))
            })
            .collect()
    }
}

fn to_rten(tensor: &Tensor) -> Result<ValueOrView<'_>, Error> {
    fn view<'a, T>(tensor: &'a Tensor, data: &'a [T]) -> Result<ValueOrView<'a>, Error>
    where
        rten::ValueView<'a>: From<rten_tensor::TensorView<'a, T>>,
    {
        let view = rten::ValueView::from_shape(tensor.shape(), data);
        view.map(ValueOrView::View).map_err(|error| Error::internal(error.to_string()))
    }
    let narrowed = match tensor.data() {
        Data::Fp32(data) => return view(tensor, data),
        Data::Int32(data) => return view(tensor, data),
        Data::Int8(data) => return view(tensor, data),
        Data::Uint8(data) => return view(tensor, data),
        Data::Bool(data) => data.iter().map(|value| i32::from(*value)).collect(),
        Data::Int64(data) => narrow(data)?,
        other => {
            let message = format!("{} values cannot go to rten", other.datatype());
            return Err(Error::internal(message));
        }
    };
    let value = Value::from_shape::<i32>(tensor.shape(), narrowed);
    value.map(ValueOrView::Value).map_err(|error| Error::internal(error.to_string()))
}

fn narrow(values: &[i64]) -> Result<Vec<i32>, Error> {
    let fits = |value: &i64| {
        i32::try_from(*value).map_err(|_| {
            Error::invalid(format!(
                "the native engine computes this part of the model with 32-bit integers, and {value} does not fit; pin the engine \"onnxruntime\" for such values"
            ))
        })
    };
    values.iter().map(fits).collect()
}

fn from_rten(value: Value, datatype: DataType) -> Result<Tensor, Error> {
    let shape = value.shape().to_vec();
    let data: Data = match (value, datatype) {
        (Value::FloatTensor(t), DataType::Fp32) => t.into_data().into(),
        (Value::Int32Tensor(t), DataType::Int32) => t.into_data().into(),
        (Value::Int8Tensor(t), DataType::Int8) => t.into_data().into(),
        (Value::UInt8Tensor(t), DataType::Uint8) => t.into_data().into(),
        (Value::Int32Tensor(t), DataType::Int64) => {
            t.into_data().into_iter().map(i64::from).collect::<Vec<_>>().into()
        }
        (Value::Int32Tensor(t), DataType::Bool) => {
            t.into_data().into_iter().map(|value| value != 0).collect::<Vec<_>>().into()
        }
        (other, _) => {
            let message = format!("expected {datatype}, but rten made {:?}", other.dtype());
            return Err(Error::internal(message));
        }
    };
    Tensor::new(shape, data).map_err(|error| Error::internal(error.to_string()))
}
