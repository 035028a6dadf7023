//! Which type every value of a graph has: the part of ONNX's type inference that decides who may
//! run a node.

use model::onnx::{NodeProto, TypeProto, type_proto};
use model::{DataType, Tensor};

use super::attributes::Attributes;
use crate::Error;

/// What a value is, as far as it is known before running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A tensor.
    Tensor(DataType),
    /// A sequence of tensors of one type.
    Sequence(DataType),
    /// Something that no engine of ours takes: maps, optionals, 8-bit floats, unknown operators.
    Unknown,
}

impl Kind {
    pub(super) fn tensor(self) -> Option<DataType> {
        match self {
            Self::Tensor(datatype) => Some(datatype),
            _ => None,
        }
    }

    pub(super) fn from_proto(proto: Option<&TypeProto>) -> Self {
        match proto.and_then(|proto| proto.value.as_ref()) {
            Some(type_proto::Value::TensorType(t)) => Self::from_code(i64::from(t.elem_type)),
            Some(type_proto::Value::SequenceType(sequence)) => {
                match Self::from_proto(sequence.elem_type.as_deref()) {
                    Self::Tensor(datatype) => Self::Sequence(datatype),
                    _ => Self::Unknown,
                }
            }
            _ => Self::Unknown,
        }
    }

    fn from_code(code: i64) -> Self {
        let datatype = i32::try_from(code).ok().and_then(DataType::from_onnx);
        datatype.map_or(Self::Unknown, Self::Tensor)
    }

    fn of(tensor: Option<Tensor>) -> Self {
        tensor.map_or(Self::Tensor(DataType::Fp32), |tensor| Self::Tensor(tensor.datatype()))
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tensor(datatype) => write!(f, "{datatype}"),
            Self::Sequence(datatype) => write!(f, "sequence of {datatype}"),
            Self::Unknown => f.write_str("unknown type"),
        }
    }
}

/// The kinds of a node's outputs, given those of its inputs (`None`: left out).
///
/// Covers operators without graphs of their own; those are inferred from their bodies.
pub(super) fn infer(node: &NodeProto, inputs: &[Option<Kind>]) -> Result<Vec<Kind>, Error> {
    let input = |index: usize| inputs.get(index).copied().flatten().unwrap_or(Kind::Unknown);
    let attributes = Attributes::of(node);
    let first = match node.domain.as_str() {
        "" | "ai.onnx" => standard(node, attributes, &input)?,
        "ai.onnx.ml" => tabular(node, attributes, &input)?,
        _ => contributed(node, &input),
    };
    let mut kinds = first;
    kinds.resize(node.output.len().max(kinds.len()), Kind::Unknown);
    Ok(kinds)
}

fn code_attribute(attributes: Attributes<'_>, name: &str, default: Kind) -> Result<Kind, Error> {
    Ok(match attributes.int(name)? {
        None | Some(0) => default,
        Some(code) => Kind::from_code(code),
    })
}

fn standard(
    node: &NodeProto,
    attributes: Attributes<'_>,
    input: &dyn Fn(usize) -> Kind,
) -> Result<Vec<Kind>, Error> {
    use DataType::{Bool, Bytes, Fp32, Int32, Int64, Uint8};
    let tensor = Kind::Tensor;
    let kinds = match node.op_type.as_str() {
        "Shape" | "Size" | "NonZero" | "ArgMax" | "ArgMin" | "NonMaxSuppression"
        | "SequenceLength" => vec![tensor(Int64)],
        "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "And" | "Or" | "Xor"
        | "Not" | "IsNaN" | "IsInf" => vec![tensor(Bool)],
        "Cast" => vec![code_attribute(attributes, "to", Kind::Unknown)?],
        "BitCast" => vec![code_attribute(attributes, "to", Kind::Unknown)?],
        "CastLike" | "Where" => vec![input(1)],
        "TopK" | "MaxPool" => vec![input(0), tensor(Int64)],
        "Unique" => vec![input(0), tensor(Int64), tensor(Int64), tensor(Int64)],
        "Constant" => vec![constant_kind(node)],
        "ConstantOfShape" => vec![Kind::of(attributes.tensor("value")?)],
        "EyeLike" | "RandomNormalLike" | "RandomUniformLike" | "Bernoulli" => {
            vec![code_attribute(attributes, "dtype", input(0))?]
        }
        "RandomNormal" | "RandomUniform" => {
            vec![code_attribute(attributes, "dtype", tensor(Fp32))?]
        }
        "Multinomial" => vec![code_attribute(attributes, "dtype", tensor(Int32))?],
        "HannWindow" | "HammingWindow" | "BlackmanWindow" => {
            vec![code_attribute(attributes, "output_datatype", tensor(Fp32))?]
        }
        "OneHot" => vec![input(2)],
        "QuantizeLinear" => {
            let default = if input(2) == Kind::Unknown { tensor(Uint8) } else { input(2) };
            vec![code_attribute(attributes, "output_dtype", default)?]
        }
        "DequantizeLinear" => vec![code_attribute(attributes, "output_dtype", input(1))?],
        "DynamicQuantizeLinear" => vec![tensor(Uint8), tensor(Fp32), tensor(Uint8)],
        "MatMulInteger" | "ConvInteger" => vec![tensor(Int32)],
        "QLinearMatMul" | "QLinearConv" => vec![input(7)],
        "Dropout" => vec![input(0), tensor(Bool)],
        "StringNormalizer" | "StringConcat" => vec![tensor(Bytes)],
        "TfIdfVectorizer" => vec![tensor(Fp32)],
        "SequenceAt" | "ConcatFromSequence" => match input(0) {
            Kind::Sequence(datatype) => vec![tensor(datatype)],
            _ => vec![Kind::Unknown],
        },
        "SequenceConstruct" | "SplitToSequence" => match input(0) {
            Kind::Tensor(datatype) => vec![Kind::Sequence(datatype)],
            _ => vec![Kind::Unknown],
        },
        "SequenceEmpty" => match code_attribute(attributes, "dtype", tensor(Fp32))? {
            Kind::Tensor(datatype) => vec![Kind::Sequence(datatype)],
            other => vec![other],
        },
        // All outputs have the first input's type: arithmetic, data movement, layers.
        _ => vec![input(0); node.output.len()],
    };
    Ok(kinds)
}

fn constant_kind(node: &NodeProto) -> Kind {
    let tensor = Kind::Tensor;
    let Some(attribute) = node.attribute.first() else { return Kind::Unknown };
    match attribute.name.as_str() {
        "value" => {
            attribute.t.as_ref().map_or(Kind::Unknown, |t| Kind::from_code(t.data_type.into()))
        }
        "value_int" | "value_ints" => tensor(DataType::Int64),
        "value_float" | "value_floats" => tensor(DataType::Fp32),
        "value_string" | "value_strings" => tensor(DataType::Bytes),
        _ => Kind::Unknown,
    }
}

fn tabular(
    node: &NodeProto,
    attributes: Attributes<'_>,
    input: &dyn Fn(usize) -> Kind,
) -> Result<Vec<Kind>, Error> {
    use DataType::{Bytes, Fp32, Int64};
    let tensor = Kind::Tensor;
    let labels = |strings: &str| -> Result<Kind, Error> {
        let text = !attributes.strings(strings)?.is_empty();
        Ok(tensor(if text { Bytes } else { Int64 }))
    };
    Ok(match node.op_type.as_str() {
        "Scaler"
        | "Normalizer"
        | "OneHotEncoder"
        | "FeatureVectorizer"
        | "LinearRegressor"
        | "SVMRegressor"
        | "TreeEnsembleRegressor" => vec![tensor(Fp32)],
        "LinearClassifier" => vec![labels("classlabels_strings")?, tensor(Fp32)],
        "SVMClassifier" => vec![labels("classlabels_strings")?, tensor(Fp32)],
        "TreeEnsembleClassifier" => vec![labels("classlabels_strings")?, tensor(Fp32)],
        "CategoryMapper" => match input(0) {
            Kind::Tensor(Bytes) => vec![tensor(Int64)],
            Kind::Tensor(Int64) => vec![tensor(Bytes)],
            _ => vec![Kind::Unknown],
        },
        "LabelEncoder" => vec![label_encoder_kind(node, attributes, input(0))?],
        // Imputer, Binarizer, ArrayFeatureExtractor and TreeEnsemble keep their input's type.
        _ => vec![input(0); node.output.len()],
    })
}

fn label_encoder_kind(
    node: &NodeProto,
    attributes: Attributes<'_>,
    input: Kind,
) -> Result<Kind, Error> {
    let tensor = Kind::Tensor;
    if attributes.has("classes_strings") {
        // The first version: strings to numbers or back.
        return Ok(match input {
            Kind::Tensor(DataType::Bytes) => tensor(DataType::Int64),
            _ => tensor(DataType::Bytes),
        });
    }
    for (name, datatype) in [
        ("values_strings", DataType::Bytes),
        ("values_int64s", DataType::Int64),
        ("values_floats", DataType::Fp32),
    ] {
        if attributes.has(name) {
            return Ok(tensor(datatype));
        }
    }
    let values = node.attribute.iter().find(|attribute| attribute.name == "values_tensor");
    let code = values.and_then(|attribute| attribute.t.as_ref()).map(|t| t.data_type);
    Ok(code.map_or(Kind::Unknown, |code| Kind::from_code(code.into())))
}

/// Operators that ONNX Runtime adds; all that we know keep their first input's type.
fn contributed(node: &NodeProto, input: &dyn Fn(usize) -> Kind) -> Vec<Kind> {
    match node.op_type.as_str() {
        "DynamicQuantizeLSTM"
        | "BiasGelu"
        | "FastGelu"
        | "Gelu"
        | "QuickGelu"
        | "GroupQueryAttention"
        | "MatMulNBits"
        | "MultiHeadAttention"
        | "SkipLayerNormalization"
        | "SkipSimplifiedLayerNormalization"
        | "RotaryEmbedding"
        | "CDist" => {
            vec![input(0); node.output.len()]
        }
        _ => Vec::new(),
    }
}
