//! What is not left to `rten`, although it would take it: types that it does not have, and
//! operators or attributes whose answers differ from the specification.
//!
//! Each entry was found with ONNX's backend node tests (`examples/backend_tests.rs`).

use model::DataType;
use model::onnx::NodeProto;

use super::attributes::Attributes;
use super::graph::operator_name;
use super::kinds::Kind;

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
    "If",
    "InstanceNormalization",
    "IsInf",
    "IsNaN",
    "LayerNormalization",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "LogSoftmax",
    "Loop",
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
    let spatial = attributes.ints("kernel_shape").map_or(0, <[i64]>::len);
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
        "Conv" | "ConvTranspose" | "ConvInteger" | "MaxPool" | "AveragePool" if spatial > 2 => {
            Some("in three dimensions")
        }
        "ConvTranspose" if spatial == 1 => Some("in one dimension"),
        "ReduceMax" | "ReduceMin" if facts.inputs.first() == Some(&Some(BOOL)) => Some("on BOOL"),
        "Pow" if facts.inputs.first() != facts.inputs.get(1) => Some("on two types"),
        "OneHot" if facts.inputs.iter().take(2).any(|kind| *kind == Some(FP32)) => {
            Some("with floating-point indices")
        }
        _ => None,
    }
}

const BOOL: Kind = Kind::Tensor(DataType::Bool);
const FP32: Kind = Kind::Tensor(DataType::Fp32);
