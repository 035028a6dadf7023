//! Builds small ONNX models in memory.
//!
//! ```
//! use testkit::onnx::{Model, float};
//!
//! let bytes = Model::new()
//!     .input("x", model::DataType::Fp32, &[None, Some(2)])
//!     .output("y", model::DataType::Fp32, &[None, Some(2)])
//!     .initializer("two", &[], float(&[2.0]))
//!     .node("", "Mul", &["x", "two"], &["y"], &[])
//!     .encode();
//! assert!(!bytes.is_empty());
//! ```

use bytes::Bytes;
use model::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType,
    tensor_shape_proto, type_proto,
};
use model::{Data, DataType};
use prost::Message;

/// An attribute of a node.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // A handful exist at a time, and tests read better unboxed.
pub enum Attribute {
    /// A number.
    Int(i64),
    /// A number.
    Float(f32),
    /// A string.
    String(&'static str),
    /// Numbers.
    Ints(Vec<i64>),
    /// Numbers.
    Floats(Vec<f32>),
    /// Strings.
    Strings(Vec<&'static str>),
    /// A tensor.
    Tensor(TensorProto),
    /// A subgraph; [`Model::into_graph`] makes one.
    Graph(GraphProto),
}

impl Attribute {
    fn encode(&self, name: &str) -> AttributeProto {
        let mut proto = AttributeProto { name: name.into(), ..Default::default() };
        let kind = match self {
            Self::Int(i) => {
                proto.i = *i;
                AttributeType::Int
            }
            Self::Float(f) => {
                proto.f = *f;
                AttributeType::Float
            }
            Self::String(s) => {
                proto.s = Bytes::from_static(s.as_bytes());
                AttributeType::String
            }
            Self::Ints(ints) => {
                proto.ints = ints.clone();
                AttributeType::Ints
            }
            Self::Floats(floats) => {
                proto.floats = floats.clone();
                AttributeType::Floats
            }
            Self::Strings(strings) => {
                proto.strings = strings.iter().map(|s| Bytes::from_static(s.as_bytes())).collect();
                AttributeType::Strings
            }
            Self::Tensor(tensor) => {
                proto.t = Some(Box::new(tensor.clone()));
                AttributeType::Tensor
            }
            Self::Graph(graph) => {
                proto.g = Some(Box::new(graph.clone()));
                AttributeType::Graph
            }
        };
        proto.r#type = kind as i32;
        proto
    }
}

/// FP32 data.
pub fn float(values: &[f32]) -> Data {
    values.to_vec().into()
}

/// INT64 data.
pub fn int64(values: &[i64]) -> Data {
    values.to_vec().into()
}

/// The ONNX code of a type.
pub fn type_code(datatype: DataType) -> i32 {
    (1..=16).find(|code| DataType::from_onnx(*code) == Some(datatype)).expect("every type has one")
}

/// A named ONNX tensor.
pub fn tensor(name: &str, shape: &[i64], data: Data) -> TensorProto {
    let mut proto = TensorProto {
        name: name.into(),
        dims: shape.to_vec(),
        data_type: type_code(data.datatype()),
        ..Default::default()
    };
    match data {
        Data::Bytes(strings) => proto.string_data = strings,
        plain => proto.raw_data = plain.as_bytes().map(Bytes::copy_from_slice),
    }
    proto
}

/// A model under construction: opset 17 and `ai.onnx.ml` 3 unless told otherwise.
#[derive(Clone, Debug)]
pub struct Model {
    /// The message as it stands, for what this builder has no method for.
    pub proto: ModelProto,
}

impl Default for Model {
    fn default() -> Self {
        Self::new()
    }
}

impl Model {
    /// An empty model.
    pub fn new() -> Self {
        let opset = |domain: &str, version| OperatorSetIdProto { domain: domain.into(), version };
        Self {
            proto: ModelProto {
                ir_version: 8,
                producer_name: "testkit".into(),
                opset_import: vec![opset("", 17), opset("ai.onnx.ml", 3)],
                graph: Some(GraphProto { name: "g".into(), ..Default::default() }),
                ..Default::default()
            },
        }
    }

    fn graph(&mut self) -> &mut GraphProto {
        self.proto.graph.as_mut().expect("made with one")
    }

    /// Sets the version of an operator set.
    pub fn opset(mut self, domain: &str, version: i64) -> Self {
        self.proto.opset_import.retain(|set| set.domain != domain);
        self.proto.opset_import.push(OperatorSetIdProto { domain: domain.into(), version });
        self
    }

    /// Adds an input. A dimension of `None` is symbolic: the first is called `N`.
    pub fn input(mut self, name: &str, datatype: DataType, shape: &[Option<i64>]) -> Self {
        self.graph().input.push(value_info(name, datatype, shape));
        self
    }

    /// Adds an output; dimensions as for inputs.
    pub fn output(mut self, name: &str, datatype: DataType, shape: &[Option<i64>]) -> Self {
        self.graph().output.push(value_info(name, datatype, shape));
        self
    }

    /// Adds a constant.
    pub fn initializer(mut self, name: &str, shape: &[i64], data: Data) -> Self {
        self.graph().initializer.push(tensor(name, shape, data));
        self
    }

    /// Adds a node; the domain is `""` or `"ai.onnx.ml"`.
    pub fn node(
        mut self,
        domain: &str,
        operator: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: &[(&str, Attribute)],
    ) -> Self {
        let name = format!("{operator}_{}", self.graph().node.len());
        self.graph().node.push(NodeProto {
            name,
            op_type: operator.into(),
            domain: domain.into(),
            input: inputs.iter().map(|s| (*s).to_owned()).collect(),
            output: outputs.iter().map(|s| (*s).to_owned()).collect(),
            attribute: attributes.iter().map(|(name, value)| value.encode(name)).collect(),
            ..Default::default()
        });
        self
    }

    /// The graph alone, to be an attribute of a node.
    pub fn into_graph(self) -> GraphProto {
        self.proto.graph.expect("made with one")
    }

    /// The file's bytes.
    pub fn encode(&self) -> Bytes {
        self.proto.encode_to_vec().into()
    }
}

fn value_info(name: &str, datatype: DataType, shape: &[Option<i64>]) -> ValueInfoProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let symbol = |i: usize| if i == 0 { "N".to_owned() } else { format!("d{i}") };
    let dim = |(i, extent): (usize, &Option<i64>)| Dimension {
        value: Some(extent.map_or_else(|| Value::DimParam(symbol(i)), Value::DimValue)),
        ..Default::default()
    };
    let tensor = type_proto::Tensor {
        elem_type: type_code(datatype),
        shape: Some(TensorShapeProto { dim: shape.iter().enumerate().map(dim).collect() }),
    };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Tiny models that several rooms test with.
pub mod models {
    use super::*;

    /// `y = 2 * x` on FP32 `[N, width]`.
    pub fn double(width: i64) -> Bytes {
        Model::new()
            .input("x", DataType::Fp32, &[None, Some(width)])
            .output("y", DataType::Fp32, &[None, Some(width)])
            .initializer("two", &[], float(&[2.0]))
            .node("", "Mul", &["x", "two"], &["y"], &[])
            .encode()
    }
}
