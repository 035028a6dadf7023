//! What is not left to `rten`, although it would take it: types that it does not have, and
//! operators or attributes whose answers differ from the specification.
//!
//! Each entry was found with ONNX's backend node tests (`examples/backend_tests.rs`).

use model::DataType;
use model::onnx::NodeProto;

use super::graph::operator_name;
use super::kinds::Kind;

/// The standard operators that `rten` has.
const STANDARD: &[&str] = &[
    "Abs",
    "Acos",
    "Acosh",
    "Add",
    "And",
    "ArgMax",
    "ArgMin",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "Attention",
    "AveragePool",
    "BatchNormalization",
    "BitCast",
    "Cast",
    "CastLike",
    "Ceil",
    "Clip",
    "Concat",
    "ConcatFromSequence",
    "Conv",
    "ConvInteger",
    "Constant",
    "ConstantOfShape",
    "ConvTranspose",
    "Cos",
    "Cosh",
    "CumSum",
    "DFT",
    "DequantizeLinear",
    "DepthToSpace",
    "Div",
    "Dropout",
    "DynamicQuantizeLinear",
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
    "NonMaxSuppression",
    "NonZero",
    "Not",
    "OneHot",
    "Or",
    "Pad",
    "Pow",
    "PRelu",
    "QuantizeLinear",
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
    "SequenceAt",
    "SequenceConstruct",
    "SequenceEmpty",
    "SequenceErase",
    "SequenceInsert",
    "SequenceLength",
    "Shape",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Size",
    "Slice",
    "Softmax",
    "Softplus",
    "Softsign",
    "Split",
    "SplitToSequence",
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

/// Why a node must not be left to `rten`; `None` if it may.
pub(super) fn reason(
    node: &NodeProto,
    opset: i64,
    inputs: &[Option<Kind>],
    outputs: &[Kind],
) -> Option<String> {
    let operator = node.op_type.as_str();
    let known = match node.domain.as_str() {
        "" => STANDARD.contains(&operator),
        "ai.onnx" => STANDARD.contains(&operator) || operator == "SimplifiedLayerNormalization",
        "com.microsoft" => CONTRIBUTED.contains(&operator),
        _ => false,
    };
    if !known {
        return Some(format!("operator {} is not supported", operator_name(node)));
    }
    let kinds = inputs.iter().flatten().chain(outputs.iter().take(node.output.len()));
    for kind in kinds {
        match kind {
            Kind::Tensor(datatype) | Kind::Sequence(datatype) if fits(*datatype) => {}
            other => {
                return Some(format!("{} is not supported on {other}", operator_name(node)));
            }
        }
    }
    differs(operator, opset).map(|what| format!("{}: {what}", operator_name(node)))
}

fn fits(datatype: DataType) -> bool {
    use DataType::{Bool, Fp32, Int8, Int32, Int64, Uint8};
    matches!(datatype, Fp32 | Int32 | Int64 | Int8 | Uint8 | Bool)
}

fn differs(operator: &str, opset: i64) -> Option<&'static str> {
    match operator {
        "Softmax" | "LogSoftmax" if opset < 13 => {
            Some("operator sets before 13 flatten the tensor, which is not supported")
        }
        _ => None,
    }
}
