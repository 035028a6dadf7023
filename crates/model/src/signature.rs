//! What a model takes and gives.

use std::fmt;
use std::sync::Arc;

use crate::DataType;

/// The extent of one dimension, as far as the model says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Dimension {
    /// Always this many.
    Fixed(usize),
    /// Any number, the same wherever the name appears in one request.
    Symbolic(Arc<str>),
    /// Any number.
    Any,
}

impl Dimension {
    /// The extent as the protocols write it: -1 where it varies.
    pub fn extent(&self) -> i64 {
        match self {
            Self::Fixed(n) => i64::try_from(*n).unwrap_or(i64::MAX),
            Self::Symbolic(_) | Self::Any => -1,
        }
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(n) => write!(f, "{n}"),
            Self::Symbolic(name) => f.write_str(name),
            Self::Any => f.write_str("?"),
        }
    }
}

/// One named input or output.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct TensorSpec {
    /// The name that requests and replies use.
    pub name: Arc<str>,
    /// Its element type.
    pub datatype: DataType,
    /// Its dimensions; `None` if the model does not say how many there are.
    pub shape: Option<Vec<Dimension>>,
    /// Whether a request may leave it out (an input with a default).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// The class names along the last dimension, where the model carries them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
}

impl TensorSpec {
    /// A required tensor without labels.
    pub fn new(name: impl Into<Arc<str>>, datatype: DataType, shape: Vec<Dimension>) -> Self {
        Self {
            name: name.into(),
            datatype,
            shape: Some(shape),
            optional: false,
            labels: Vec::new(),
        }
    }

    /// The shape as the protocols write it: -1 where a dimension varies, `[-1]` if the rank is unknown.
    pub fn extents(&self) -> Vec<i64> {
        match &self.shape {
            Some(dims) => dims.iter().map(Dimension::extent).collect(),
            None => vec![-1],
        }
    }
}

/// A model's named inputs and outputs.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Signature {
    /// In the model's own order, which is the order that engines take.
    pub inputs: Vec<TensorSpec>,
    /// In the model's own order, which is the order that engines return.
    pub outputs: Vec<TensorSpec>,
    /// Whether the first dimension of every input and output is the batch: rows that do not
    /// influence each other and may be stacked and cut at will.
    pub batched: bool,
}

impl Signature {
    /// The position and spec of an input.
    pub fn input(&self, name: &str) -> Option<(usize, &TensorSpec)> {
        self.inputs.iter().enumerate().find(|(_, spec)| &*spec.name == name)
    }

    /// The position and spec of an output.
    pub fn output(&self, name: &str) -> Option<(usize, &TensorSpec)> {
        self.outputs.iter().enumerate().find(|(_, spec)| &*spec.name == name)
    }
}
