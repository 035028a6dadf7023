//! The operators that we run ourselves: `ai.onnx.ml`, and the standard ones around it in all types.

mod arithmetic;
mod cast;
mod layout;
mod matrix;
mod reduce;
mod shape;
mod tabular;
mod unary;

use model::Tensor;
use model::onnx::TensorProto;

use super::attributes::Attributes;
use super::graph::{Graph, Node};
use super::kinds::Kind;
use crate::Error;

pub(super) use layout::{Rounds, extent, slice_at};
pub(super) use shape::integer;

/// A node made ready to run.
pub(super) trait Operator: Send + Sync {
    /// Runs it on the node's inputs; gives one tensor for each of the node's outputs.
    fn run(&self, inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error>;
}

/// An input of an operator: its own to use up when nobody reads it afterwards.
pub(super) enum Argument<'a> {
    Borrowed(&'a Tensor),
    Owned(Tensor),
}

impl std::ops::Deref for Argument<'_> {
    type Target = Tensor;
    fn deref(&self) -> &Tensor {
        match self {
            Self::Borrowed(tensor) => tensor,
            Self::Owned(tensor) => tensor,
        }
    }
}

/// The inputs of one run.
struct Arguments<'a, 'b>(&'a mut Vec<Option<Argument<'b>>>);

impl Arguments<'_, '_> {
    fn optional(&self, index: usize) -> Option<&Tensor> {
        self.0.get(index)?.as_deref()
    }

    fn required(&self, index: usize) -> Result<&Tensor, Error> {
        let missing = || Error::invalid(format!("input {index} is missing"));
        self.optional(index).ok_or_else(missing)
    }

    /// All of them, none left out.
    fn all(&self) -> Result<Vec<&Tensor>, Error> {
        (0..self.0.len()).map(|index| self.required(index)).collect()
    }

    /// The tensor itself, copied only if someone else still needs it.
    fn take(&mut self, index: usize) -> Result<Tensor, Error> {
        let missing = || Error::invalid(format!("input {index} is missing"));
        let argument = self.0.get_mut(index).and_then(Option::take).ok_or_else(missing)?;
        Ok(match argument {
            Argument::Borrowed(tensor) => tensor.clone(),
            Argument::Owned(tensor) => tensor,
        })
    }
}

/// What an operator is made from.
struct Context<'a> {
    attributes: Attributes<'a>,
    /// The version of the operator set.
    opset: i64,
    /// The kinds of the inputs; `None`: left out.
    inputs: Vec<Option<Kind>>,
    /// The inputs that are the same in every run.
    constants: Vec<Option<&'a TensorProto>>,
    /// How many outputs the node lists.
    outputs: usize,
    /// How many threads a run may use.
    threads: usize,
}

type Built = Result<Box<dyn Operator>, Error>;

/// Makes a node ready to run; `None` if it is not one of ours.
pub(super) fn build(
    graph: &Graph<'_>,
    node: &Node<'_>,
    threads: usize,
) -> Result<Option<Box<dyn Operator>>, Error> {
    let context = Context {
        attributes: Attributes::of(node.proto),
        opset: node.opset,
        inputs: graph.kinds(&node.inputs),
        constants: node.inputs.iter().map(|id| graph.values[(*id)?].constant.as_deref()).collect(),
        outputs: node.proto.output.len(),
        threads,
    };
    let built = match node.proto.domain.as_str() {
        "" | "ai.onnx" => standard(&node.proto.op_type, &context),
        "ai.onnx.ml" if tensors_only(&context) => tabular::build(&node.proto.op_type, &context),
        _ => None,
    };
    built.transpose()
}

/// Nodes with inputs that are no tensors, or of a type without a name, are not ours.
fn tensors_only(context: &Context<'_>) -> bool {
    context.inputs.iter().flatten().all(|kind| kind.tensor().is_some())
}

fn standard(operator: &str, context: &Context<'_>) -> Option<Built> {
    if !tensors_only(context) {
        return None;
    }
    let plain = |run| Ok(Box::new(layout::Plain(run)) as Box<dyn Operator>);
    if let Some(built) = arithmetic::build(operator, context)
        .or_else(|| unary::build(operator, context))
        .or_else(|| reduce::build(operator, context))
    {
        return Some(built);
    }
    Some(match operator {
        "Identity" => plain(layout::identity),
        "Dropout" => layout::dropout(context),
        "Reshape" => layout::reshape(context),
        "Flatten" => layout::flatten(context),
        "Squeeze" => layout::squeeze(context, false),
        "Unsqueeze" => layout::squeeze(context, true),
        "Transpose" => layout::transpose(context),
        "Concat" => layout::concat(context),
        "Slice" => layout::slice(context),
        "Split" => layout::split(context),
        "Expand" => plain(layout::expand),
        "Tile" if context.opset >= 6 => plain(layout::tile),
        "Shape" => layout::shape_of(context),
        "Size" => plain(layout::size_of),
        "ConstantOfShape" => layout::constant_of_shape(context),
        "Gather" => layout::gather_operator(context, layout::Pick::Slices),
        "GatherElements" => layout::gather_operator(context, layout::Pick::Elements),
        "OneHot" => layout::one_hot(context),
        "Cast" => cast::build(context),
        "CastLike" => cast::build_like(context),
        "MatMul" => matrix::matmul(context),
        "Gemm" => matrix::gemm(context),
        _ => return None,
    })
}
