//! How many dimensions each value of a graph has, as far as that is sure before it runs.

use model::onnx::{AttributeProto, NodeProto, TensorProto};

use super::attributes::Attributes;
use crate::Error;

/// What is known of a value's shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Form {
    /// The number of dimensions.
    pub(super) rank: Option<usize>,
    /// The extent of a value of one dimension. Such values become shapes.
    pub(super) length: Option<usize>,
}

impl Form {
    pub(super) fn rank(rank: usize) -> Self {
        Self { rank: Some(rank), length: None }
    }

    pub(super) fn vector(length: Option<usize>) -> Self {
        Self { rank: Some(1), length }
    }

    pub(super) fn of(tensor: &TensorProto) -> Self {
        match tensor.dims[..] {
            [length] => Self::vector(usize::try_from(length).ok()),
            _ => Self::rank(tensor.dims.len()),
        }
    }
}

/// The forms of a node's outputs, given those of its inputs (nothing is known of one left out).
/// Covers standard operators without graphs of their own; of others it knows nothing.
pub(super) fn infer(node: &NodeProto, inputs: &[Form]) -> Result<Vec<Form>, Error> {
    let mut forms = vec![Form::default(); node.output.len()];
    if !matches!(node.domain.as_str(), "" | "ai.onnx") {
        return Ok(forms);
    }
    let attributes = Attributes::of(node);
    if let Some(rank) = same_for_all(node, attributes, inputs)? {
        forms.fill(Form { rank, length: None });
    } else if let Some(first) = forms.first_mut() {
        *first = of_first(node, attributes, inputs)?.unwrap_or_default();
    }
    Ok(forms)
}

fn rank_of(inputs: &[Form], index: usize) -> Option<usize> {
    inputs.get(index)?.rank
}

/// Operators whose outputs all have the rank of one input, or of the largest.
fn same_for_all(
    node: &NodeProto,
    attributes: Attributes<'_>,
    inputs: &[Form],
) -> Result<Option<Option<usize>>, Error> {
    let first = rank_of(inputs, 0);
    Ok(Some(match node.op_type.as_str() {
        "Abs"
        | "Acos"
        | "Acosh"
        | "Asin"
        | "Asinh"
        | "Atan"
        | "Atanh"
        | "AveragePool"
        | "CastLike"
        | "Ceil"
        | "Celu"
        | "Clip"
        | "Conv"
        | "ConvInteger"
        | "ConvTranspose"
        | "Cos"
        | "Cosh"
        | "CumSum"
        | "DepthToSpace"
        | "DequantizeLinear"
        | "Dropout"
        | "Elu"
        | "Erf"
        | "Exp"
        | "Floor"
        | "GatherElements"
        | "Gelu"
        | "GlobalAveragePool"
        | "GlobalMaxPool"
        | "HardSigmoid"
        | "HardSwish"
        | "InstanceNormalization"
        | "IsInf"
        | "IsNaN"
        | "LayerNormalization"
        | "LeakyRelu"
        | "Log"
        | "LogSoftmax"
        | "LpNormalization"
        | "MaxPool"
        | "Neg"
        | "Not"
        | "PRelu"
        | "Pad"
        | "QuantizeLinear"
        | "RMSNormalization"
        | "Reciprocal"
        | "Relu"
        | "Resize"
        | "ReverseSequence"
        | "RotaryEmbedding"
        | "Round"
        | "ScatterElements"
        | "ScatterND"
        | "Selu"
        | "Sigmoid"
        | "Sign"
        | "Sin"
        | "Sinh"
        | "Slice"
        | "Softmax"
        | "Softplus"
        | "Softsign"
        | "SpaceToDepth"
        | "Split"
        | "Sqrt"
        | "Swish"
        | "Tan"
        | "Tanh"
        | "Tile"
        | "TopK"
        | "Trilu"
        | "Upsample" => first,
        "Transpose" => match attributes.ints("perm")? {
            [] => first,
            permutation => Some(permutation.len()),
        },
        "Add" | "And" | "BitwiseAnd" | "BitwiseOr" | "BitwiseXor" | "Div" | "Equal" | "Greater"
        | "GreaterOrEqual" | "Less" | "LessOrEqual" | "Max" | "Mean" | "Min" | "Mod" | "Mul"
        | "Or" | "Pow" | "Sub" | "Sum" | "Where" | "Xor" => largest(inputs),
        _ => return Ok(None),
    }))
}

/// The rank that tensors have after broadcasting.
fn largest(inputs: &[Form]) -> Option<usize> {
    inputs.iter().map(|form| form.rank).try_fold(0, |most, rank| Some(most.max(rank?)))
}

fn of_first(
    node: &NodeProto,
    attributes: Attributes<'_>,
    inputs: &[Form],
) -> Result<Option<Form>, Error> {
    let input = |index: usize| inputs.get(index).copied().unwrap_or_default();
    let (first, second) = (rank_of(inputs, 0), rank_of(inputs, 1));
    // How many axes an attribute or the second input lists; `None`: not known, or none listed.
    let listed = |axes: &[i64]| if axes.is_empty() { input(1).length } else { Some(axes.len()) };
    let rank = match node.op_type.as_str() {
        "Identity" | "Cast" => return Ok(Some(input(0))),
        "BatchNormalization" => first,
        "Shape" => {
            let whole = !attributes.has("start") && !attributes.has("end");
            return Ok(Some(Form::vector(first.filter(|_| whole))));
        }
        "Concat" => {
            let lengths = inputs.iter().map(|form| form.length);
            let length = lengths.reduce(|sum, length| sum?.checked_add(length?)).flatten();
            return Ok(first.map(|rank| Form { rank: Some(rank), length }));
        }
        "Unsqueeze" => {
            let added = listed(attributes.ints("axes")?);
            let rank = first.zip(added).map(|(rank, added)| rank.saturating_add(added));
            return Ok(Some(Form { rank, length: (rank == Some(1)).then_some(1) }));
        }
        "Squeeze" => {
            first.zip(listed(attributes.ints("axes")?)).and_then(|(a, b)| a.checked_sub(b))
        }
        "Reshape" => match attributes.ints("shape")? {
            [] => input(1).length,
            shape => Some(shape.len()),
        },
        "Expand" => first.zip(input(1).length).map(|(a, b)| a.max(b)),
        "ConstantOfShape" => input(0).length,
        "Gather" => first.zip(second).and_then(|(data, at)| (data + at).checked_sub(1)),
        "Flatten" | "Gemm" | "NonZero" | "EyeLike" => Some(2),
        "Range" => Some(1),
        "Size" => Some(0),
        "OneHot" => first.map(|rank| rank + 1),
        "MatMul" | "MatMulInteger" => match (first, second) {
            (Some(1), Some(1)) => Some(0),
            (Some(a), Some(1)) => a.checked_sub(1),
            (Some(1), Some(b)) => b.checked_sub(1),
            (Some(a), Some(b)) => Some(a.max(b)),
            _ => None,
        },
        "ArgMax" | "ArgMin" => {
            let keep = attributes.flag("keepdims", true)?;
            if keep { first } else { first.and_then(|rank| rank.checked_sub(1)) }
        }
        name if name.starts_with("Reduce") => reduced(node, attributes, inputs)?,
        _ => None,
    };
    Ok(rank.map(Form::rank))
}

fn reduced(
    node: &NodeProto,
    attributes: Attributes<'_>,
    inputs: &[Form],
) -> Result<Option<usize>, Error> {
    let first = rank_of(inputs, 0);
    if attributes.flag("keepdims", true)? {
        return Ok(first);
    }
    let axes = attributes.ints("axes")?;
    let given = node.input.get(1).is_some_and(|name| !name.is_empty());
    let nothing = attributes.flag("noop_with_empty_axes", false)?;
    Ok(match (axes.len(), given) {
        (0, true) => match inputs.get(1).and_then(|form| form.length) {
            Some(0) | None => None,
            Some(count) => first.and_then(|rank| rank.checked_sub(count)),
        },
        (0, false) if nothing => first,
        (0, false) => Some(0),
        (count, _) => first.and_then(|rank| rank.checked_sub(count)),
    })
}

/// In how many dimensions a convolution or a pooling works, as far as it is sure.
pub(super) fn spatial(node: &NodeProto, inputs: &[Form]) -> Option<usize> {
    let length = |name: &str| {
        let found: Option<&AttributeProto> = node.attribute.iter().find(|a| a.name == name);
        found.map(|attribute| attribute.ints.len()).filter(|length| *length > 0)
    };
    length("kernel_shape")
        .or_else(|| length("strides"))
        .or_else(|| length("dilations"))
        .or_else(|| length("pads").map(|length| length / 2))
        .or_else(|| rank_of(inputs, 0)?.checked_sub(2))
        .or_else(|| rank_of(inputs, 1)?.checked_sub(2))
}
