//! Tree ensembles: boosted trees and forests, for regression, classification and ranking.
//!
//! An [`Ensemble`] describes the trees neutrally; [`onnx`] makes one from the arrays that
//! `ai.onnx.ml` operators have. [`Trees::compile`] checks it and lays it out for this machine;
//! [`Regressor`] and [`Classifier`] add what the sums mean.

mod bits;
mod check;
mod compiled;
mod descent;
mod fast;
mod finish;
pub mod onnx;
mod walk;

pub use compiled::{Layout, Trees};
pub use finish::{Classifier, Regressor};

/// The trees of a model, in plain arrays.
///
/// Every branch and leaf belongs to exactly one place of one tree.
#[derive(Clone, Debug, Default)]
pub struct Ensemble {
    /// Where each tree begins.
    pub roots: Vec<Child>,
    /// The inner nodes of all trees, in any order.
    pub branches: Vec<Branch>,
    /// The leaves of all trees, in any order: which of `weights` each adds.
    pub leaves: Vec<std::ops::Range<u32>>,
    /// What leaves add, and to which target.
    pub weights: Vec<Weight>,
    /// The sets that [`Comparison::Member`] speaks of.
    pub sets: Vec<Vec<f64>>,
    /// How many numbers the trees sum up for a row: targets of a regression, or classes.
    pub targets: usize,
    /// How what the trees give is put together.
    pub aggregate: Aggregate,
}

/// An inner node.
#[derive(Clone, Copy, Debug)]
pub struct Branch {
    /// The column that it looks at.
    pub feature: u32,
    /// What it asks.
    pub comparison: Comparison,
    /// What it compares with; rounded to the arithmetic that the trees are compiled for.
    pub threshold: f64,
    /// Whether a missing value (NaN) goes the way of `if_true`, whatever the comparison says.
    pub missing_to_true: bool,
    /// Where a row goes on for which the comparison is true.
    pub if_true: Child,
    /// Where any other row goes on.
    pub if_false: Child,
}

/// Where a branch leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Child {
    /// To the branch of this index.
    Branch(u32),
    /// To the leaf of this index.
    Leaf(u32),
}

/// What a branch asks of the row's value `x` and its threshold `t`, as IEEE 754 compares them:
/// a NaN on either side makes every answer false, except that of `NotEqual`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `x <= t`
    LessOrEqual,
    /// `x < t`
    Less,
    /// `x >= t`
    GreaterOrEqual,
    /// `x > t`
    Greater,
    /// `x == t`
    Equal,
    /// `x != t`
    NotEqual,
    /// `x` is in the set of this index. The threshold means nothing.
    Member(u32),
}

impl Comparison {
    /// The comparison of an ONNX mode such as `BRANCH_LEQ`; `None` for `LEAF` and unknown ones.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "BRANCH_LEQ" => Self::LessOrEqual,
            "BRANCH_LT" => Self::Less,
            "BRANCH_GTE" => Self::GreaterOrEqual,
            "BRANCH_GT" => Self::Greater,
            "BRANCH_EQ" => Self::Equal,
            "BRANCH_NEQ" => Self::NotEqual,
            _ => return None,
        })
    }
}

/// What a leaf adds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weight {
    /// The target or class that it is for.
    pub target: u32,
    /// How much; rounded to the arithmetic that the trees are compiled for.
    pub value: f64,
}

/// How what the trees give is put together, for each target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aggregate {
    /// The sum, in the trees' order.
    #[default]
    Sum,
    /// The sum divided by the number of trees.
    Average,
    /// The least.
    Min,
    /// The greatest.
    Max,
}

impl Aggregate {
    /// The aggregate of an ONNX name: `SUM`, `AVERAGE`, `MIN` or `MAX`.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "SUM" => Self::Sum,
            "AVERAGE" => Self::Average,
            "MIN" => Self::Min,
            "MAX" => Self::Max,
            _ => return None,
        })
    }

    /// The aggregate of an ONNX number, as operator `TreeEnsemble` (opset 5) has it:
    /// 0 AVERAGE, 1 SUM, 2 MIN, 3 MAX.
    pub fn from_code(code: i64) -> Option<Self> {
        Some(match code {
            0 => Self::Average,
            1 => Self::Sum,
            2 => Self::Min,
            3 => Self::Max,
            _ => return None,
        })
    }
}
