//! What is not left to `rten`, although it would take it: types that it does not have, and
//! operators or attributes whose answers differ from the specification.
//!
//! Each entry was found with ONNX's backend node tests (`examples/backend_tests.rs`).

use model::DataType;
use model::onnx::NodeProto;

use super::attributes::Attributes;
use super::graph::operator_name;
use super::kinds::Kind;
use super::ranks::{self, Form};

/// The standard operators that `rten` has.
const STANDARD: &[&str] = &[
    "Abs",
    "Acos",
    "Acosh",
    "Add",
    "And",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "Attention",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "CastLike",
    "Ceil",
    "Clip",
    "Concat",
    "Conv",
    "ConvInteger",
    "Constant",
    "ConstantOfShape",
    "ConvTranspose",
    "Cos",
    "Cosh",
    "CumSum",
    "DequantizeLinear",
    "DepthToSpace",
    "Div",
    "Einsum",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "Expand",
    "EyeLike",
    "Flatten",
    "Floor",
    "Gather",
    "GatherElements",
    "GatherND",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Greater",
    "GreaterOrEqual",
    "GridSample",
    "GRU",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "InstanceNormalization",
    "IsInf",
    "IsNaN",
    "LayerNormalization",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "LogSoftmax",
    "LpNormalization",
    "LSTM",
    "MatMul",
    "MatMulInteger",
    "Max",
    "MaxPool",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Neg",
    "NonZero",
    "Not",
    "OneHot",
    "Or",
    "Pad",
    "Pow",
    "PRelu",
    "RMSNormalization",
    "Range",
    "Reciprocal",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "Relu",
    "Reshape",
    "Resize",
    "ReverseSequence",
    "RotaryEmbedding",
    "Round",
    "Scatter",
    "ScatterElements",
    "ScatterND",
    "Shape",
    "Sigmoid",
    "Sin",
    "Sinh",
    "Size",
    "Slice",
    "Softmax",
    "Softplus",
    "Softsign",
    "Split",
    "Sqrt",
    "Squeeze",
    "STFT",
    "Sub",
    "Sum",
    "Swish",
    "Tan",
    "Tanh",
    "Tile",
    "TopK",
    "Transpose",
    "Trilu",
    "Unsqueeze",
    "Upsample",
    "Where",
    "Xor",
];

/// The operators of ONNX Runtime's that `rten` has.
const CONTRIBUTED: &[&str] = &[
    "BiasGelu",
    "DynamicQuantizeLSTM",
    "FastGelu",
    "Gelu",
    "GroupQueryAttention",
    "MatMulNBits",
    "MultiHeadAttention",
    "QuickGelu",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
    "RotaryEmbedding",
];

/// What a node looks like to whoever is to run it.
pub(super) struct Facts<'a> {
    pub(super) node: &'a NodeProto,
    pub(super) opset: i64,
    /// `None`: left out.
    pub(super) inputs: &'a [Option<Kind>],
    pub(super) forms: &'a [Form],
    pub(super) outputs: &'a [Kind],
    /// How many outputs, counted up to the last one that anything reads.
    pub(super) wanted: usize,
}

/// Why a node must not be left to `rten`; `None` if it may.
pub(super) fn reason(facts: &Facts<'_>) -> Option<String> {
    let node = facts.node;
    let operator = node.op_type.as_str();
    let known = match node.domain.as_str() {
        "" => STANDARD.contains(&operator),
        "ai.onnx" => STANDARD.contains(&operator) || operator == "SimplifiedLayerNormalization",
        "com.microsoft" => CONTRIBUTED.contains(&operator),
        _ => false,
    };
    let name = operator_name(node);
    if !known {
        return Some(format!("operator {name} is not supported"));
    }
    for kind in facts.inputs.iter().flatten().chain(facts.outputs.iter().take(facts.wanted)) {
        match kind {
            Kind::Tensor(datatype) if fits(operator, *datatype) => {}
            other => return Some(format!("operator {name} is not supported on {other}")),
        }
    }
    differs(facts).map(|what| format!("operator {name} is not supported {what}"))
}

fn fits(operator: &str, datatype: DataType) -> bool {
    use DataType::{Bool, Fp32, Int8, Int32, Int64, Uint8};
    match datatype {
        Fp32 | Int32 | Int64 | Bool => true,
        // Only the operators of quantized models, and those that just move elements.
        Int8 | Uint8 => BYTES.contains(&operator),
        _ => false,
    }
}

/// The operators that `rten` has for 8-bit integers.
const BYTES: &[&str] = &[
    "Cast",
    "Concat",
    "ConvInteger",
    "DequantizeLinear",
    "DynamicQuantizeLSTM",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "MatMulInteger",
    "MatMulNBits",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
];

/// Where `rten` differs from the specification or lacks a part of it.
fn differs(facts: &Facts<'_>) -> Option<&'static str> {
    let attributes = Attributes::of(facts.node);
    let text = |name: &str| attributes.string(name).ok().flatten().unwrap_or("");
    let has_input = |index: usize| facts.inputs.get(index).copied().flatten().is_some();
    let rank = |index: usize| facts.forms.get(index).and_then(|form| form.rank);
    let spatial = ranks::spatial(facts.node, facts.forms);
    match facts.node.op_type.as_str() {
        "Softmax" | "LogSoftmax" if facts.opset < 13 => Some("as before operator set 13"),
        "Resize" if text("mode") == "cubic" => Some("with mode cubic"),
        "Resize" if text("coordinate_transformation_mode") == "align_corners" => {
            Some("with align_corners")
        }
        "Pad" if has_input(3) => Some("with axes"),
        "Attention" if has_input(6) => Some("with nonpad_kv_seqlen"),
        "Attention" if facts.wanted > 3 => Some("with output qk_matmul_output"),
        "LayerNormalization" if facts.wanted > 1 => Some("with outputs Mean and InvStdDev"),
        "MaxPool" if facts.wanted > 1 => Some("with output Indices"),
        "GRU" if !attributes.flag("linear_before_reset", false).unwrap_or(false) => {
            Some("with linear_before_reset 0")
        }
        "Conv" | "ConvTranspose" | "ConvInteger" | "MaxPool" | "AveragePool"
            if text("auto_pad") == "SAME_LOWER" =>
        {
            Some("with auto_pad SAME_LOWER")
        }
        "ConvInteger" if has_input(3) && rank(3) != Some(0) => {
            Some("with a zero point for each channel")
        }
        "ConvInteger" if has_input(2) && pads(attributes) => Some("with padding and a zero point"),
        "Conv" | "ConvTranspose" | "ConvInteger" | "MaxPool" | "AveragePool" => match spatial {
            None => Some("in a number of dimensions that the model does not tell"),
            Some(1) if facts.node.op_type == "ConvTranspose" => Some("in one dimension"),
            Some(1 | 2) => None,
            Some(_) => Some("in three dimensions"),
        },
        "GridSample" if rank(0) != Some(4) => Some("on anything but images of 4 dimensions"),
        // It leaves a dimension too many when a batch of matrices meets a vector.
        "MatMul" if rank(1) == Some(1) => Some("with a vector on the right"),
        "MatMul" if rank(1).is_none() => Some("with something on the right that may be a vector"),
        "MatMulInteger" if (2..4).any(|i| has_input(i) && rank(i) != Some(0)) => {
            Some("with zero points that are not single")
        }
        "PRelu" if facts.opset < 7 && facts.forms.get(1).is_none_or(|f| f.length != Some(1)) => {
            Some("as before operator set 7")
        }
        "ReduceMax" | "ReduceMin" if facts.inputs.first() == Some(&Some(BOOL)) => Some("on BOOL"),
        "Pow" if facts.inputs.first() != facts.inputs.get(1) => Some("on two types"),
        "OneHot" if facts.inputs.iter().take(2).any(|kind| *kind == Some(FP32)) => {
            Some("with floating-point indices")
        }
        _ => None,
    }
}

fn pads(attributes: Attributes<'_>) -> bool {
    let explicit = attributes.ints("pads").is_ok_and(|pads| pads.iter().any(|pad| *pad != 0));
    explicit || attributes.string("auto_pad").is_ok_and(|mode| mode == Some("SAME_UPPER"))
}

const BOOL: Kind = Kind::Tensor(DataType::Bool);
const FP32: Kind = Kind::Tensor(DataType::Fp32);
