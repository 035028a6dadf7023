//! The operators that we run ourselves: `ai.onnx.ml`, and the standard ones around it in all types.

use model::Tensor;

use super::graph::{Graph, Node};
use crate::Error;

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

#[allow(dead_code)] // Until the operators are here.
impl Argument<'_> {
    /// The tensor, copied only if someone else still needs it.
    pub(super) fn into_tensor(self) -> Tensor {
        match self {
            Self::Borrowed(tensor) => tensor.clone(),
            Self::Owned(tensor) => tensor,
        }
    }
}

/// Makes a node ready to run; `None` if it is not one of ours.
pub(super) fn build(
    _graph: &Graph<'_>,
    _node: &Node<'_>,
) -> Result<Option<Box<dyn Operator>>, Error> {
    Ok(None)
}
