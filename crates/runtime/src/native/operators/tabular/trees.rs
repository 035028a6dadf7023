//! Tree ensembles, in all versions of their operators.

use model::{DataType, Tensor};

use super::super::cast::cast;
use super::super::shape::{count, tensor};
use super::super::{Argument, Arguments, Built, Context, Operator};
use super::{Labels, doubles, post_transform, rows, singles};
use crate::Error;
use crate::kernels::post::PostTransform;
use crate::kernels::trees::onnx::{NodeArrays, TreeArrays};
use crate::kernels::trees::{Aggregate, Classifier, Comparison, Ensemble, Regressor};

/// Double precision is for inputs of double precision; everything else is compared in single.
fn is_double(context: &Context<'_>) -> bool {
    let kind = context.inputs.first().copied().flatten().and_then(|kind| kind.tensor());
    kind == Some(DataType::Fp64)
}

/// A list of numbers that is a float attribute, or a tensor of any precision.
fn numbers(context: &Context<'_>, name: &str) -> Result<Vec<f64>, Error> {
    let full = format!("{name}_as_tensor");
    match context.attributes.tensor(&full)? {
        Some(found) => Ok(doubles(&found)?.into_owned()),
        None => Ok(context.attributes.floats(name)?.iter().map(|v| f64::from(*v)).collect()),
    }
}

const NODES: [&str; 11] = [
    "nodes_falsenodeids",
    "nodes_featureids",
    "nodes_hitrates",
    "nodes_hitrates_as_tensor",
    "nodes_missing_value_tracks_true",
    "nodes_modes",
    "nodes_nodeids",
    "nodes_treeids",
    "nodes_truenodeids",
    "nodes_values",
    "nodes_values_as_tensor",
];

/// Reads the nodes, and the weights under `prefix` (`class` or `target`).
fn nodes(context: &Context<'_>, prefix: &str, targets: usize) -> Result<Ensemble, Error> {
    let attributes = context.attributes;
    let mut modes = Vec::new();
    for mode in attributes.strings("nodes_modes")? {
        let name = std::str::from_utf8(mode).unwrap_or_default();
        let comparison = Comparison::from_name(name);
        if comparison.is_none() && name != "LEAF" {
            return Err(Error::unsupported(format!("node mode \"{name}\" is not supported")));
        }
        modes.push(comparison);
    }
    let aggregate = attributes.string("aggregate_function")?.unwrap_or("SUM");
    let aggregate = Aggregate::from_name(aggregate).ok_or_else(|| {
        Error::unsupported(format!("aggregate_function \"{aggregate}\" is not supported"))
    })?;
    let ints = |name: &str| attributes.ints(name);
    let values = numbers(context, "nodes_values")?;
    let weights = numbers(context, &format!("{prefix}_weights"))?;
    NodeArrays {
        tree_ids: ints("nodes_treeids")?,
        node_ids: ints("nodes_nodeids")?,
        feature_ids: ints("nodes_featureids")?,
        modes: &modes,
        values: &values,
        true_ids: ints("nodes_truenodeids")?,
        false_ids: ints("nodes_falsenodeids")?,
        missing_to_true: ints("nodes_missing_value_tracks_true")?,
        weight_tree_ids: ints(&format!("{prefix}_treeids"))?,
        weight_node_ids: ints(&format!("{prefix}_nodeids"))?,
        weight_targets: ints(&format!("{prefix}_ids"))?,
        weights: &weights,
        targets,
        aggregate,
    }
    .ensemble()
}

fn only(context: &Context<'_>, more: &[&str]) -> Result<(), Error> {
    let known: Vec<&str> = NODES.iter().chain(more).copied().collect();
    context.attributes.only(&known)
}

pub(super) fn classifier(context: &Context<'_>) -> Built {
    only(
        context,
        &[
            "base_values",
            "base_values_as_tensor",
            "class_ids",
            "class_nodeids",
            "class_treeids",
            "class_weights",
            "class_weights_as_tensor",
            "classlabels_int64s",
            "classlabels_strings",
            "post_transform",
        ],
    )?;
    let labels = Labels::of(context, "classlabels_int64s")?;
    let ensemble = nodes(context, "class", labels.len())?;
    let base = numbers(context, "base_values")?;
    let post = post_transform(context)?;
    let trees = if is_double(context) {
        ClassifyIn::Double(Classifier::new(&ensemble, &base, post)?)
    } else {
        ClassifyIn::Single(Classifier::new(&ensemble, &base, post)?)
    };
    Ok(Box::new(Classify { labels, trees, threads: context.threads }))
}

enum ClassifyIn {
    Single(Classifier<f32>),
    Double(Classifier<f64>),
}

struct Classify {
    labels: Labels,
    trees: ClassifyIn,
    threads: usize,
}

impl Operator for Classify {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let input = inputs.required(0)?;
        let width = self.labels.len();
        let rows_of = |count_: usize| -> Result<(Vec<usize>, Vec<f32>), Error> {
            Ok((vec![0; count_], vec![0.0; count(&[count_, width])?]))
        };
        let (classes, scores) = match &self.trees {
            ClassifyIn::Single(trees) => {
                let values = singles(input)?;
                let rows = rows(input, &values)?;
                let (mut classes, mut scores) = rows_of(rows.count())?;
                trees.run(rows, self.threads, &mut classes, &mut scores)?;
                (classes, scores)
            }
            ClassifyIn::Double(trees) => {
                let values = doubles(input)?;
                let rows = rows(input, &values)?;
                let (mut classes, mut scores) = rows_of(rows.count())?;
                trees.run(rows, self.threads, &mut classes, &mut scores)?;
                (classes, scores)
            }
        };
        let shape = vec![classes.len(), width];
        Ok(vec![self.labels.tensor(&classes)?, tensor(shape, scores)?])
    }
}

pub(super) fn regressor(context: &Context<'_>) -> Built {
    only(
        context,
        &[
            "aggregate_function",
            "base_values",
            "base_values_as_tensor",
            "n_targets",
            "post_transform",
            "target_ids",
            "target_nodeids",
            "target_treeids",
            "target_weights",
            "target_weights_as_tensor",
        ],
    )?;
    let ensemble = nodes(context, "target", targets(context)?)?;
    let base = numbers(context, "base_values")?;
    // This operator answers in single precision whatever it computes in.
    predict(context, &ensemble, &base, post_transform(context)?, DataType::Fp32)
}

fn targets(context: &Context<'_>) -> Result<usize, Error> {
    let targets = context.attributes.int_or("n_targets", 1)?;
    usize::try_from(targets).map_err(|_| Error::invalid("a negative number of targets"))
}

/// The operator that replaces both others in version 5 of the operator set.
pub(super) fn ensemble(context: &Context<'_>) -> Built {
    let attributes = context.attributes;
    attributes.only(&[
        "aggregate_function",
        "leaf_targetids",
        "leaf_weights",
        "membership_values",
        "n_targets",
        "nodes_falseleafs",
        "nodes_falsenodeids",
        "nodes_featureids",
        "nodes_hitrates",
        "nodes_missing_value_tracks_true",
        "nodes_modes",
        "nodes_splits",
        "nodes_trueleafs",
        "nodes_truenodeids",
        "post_transform",
        "tree_roots",
    ])?;
    let list = |name: &str| -> Result<Vec<f64>, Error> {
        let found = attributes.tensor(name)?;
        found.map_or(Ok(Vec::new()), |found| Ok(doubles(&found)?.into_owned()))
    };
    let ints = |name: &str| attributes.ints(name);
    let modes = attributes.tensor("nodes_modes")?.map(|modes| cast(&modes, DataType::Uint8));
    let modes = modes.transpose()?;
    let aggregate = attributes.int_or("aggregate_function", 1)?;
    let post = attributes.int_or("post_transform", 0)?;
    let (splits, members) = (list("nodes_splits")?, list("membership_values")?);
    let weights = list("leaf_weights")?;
    let ensemble = TreeArrays {
        roots: ints("tree_roots")?,
        feature_ids: ints("nodes_featureids")?,
        modes: modes.as_ref().and_then(|modes| modes.as_slice()).unwrap_or_default(),
        splits: &splits,
        true_ids: ints("nodes_truenodeids")?,
        true_leaves: ints("nodes_trueleafs")?,
        false_ids: ints("nodes_falsenodeids")?,
        false_leaves: ints("nodes_falseleafs")?,
        missing_to_true: ints("nodes_missing_value_tracks_true")?,
        members: &members,
        leaf_targets: ints("leaf_targetids")?,
        leaf_weights: &weights,
        targets: targets(context)?,
        aggregate: Aggregate::from_code(aggregate)
            .ok_or_else(|| Error::unsupported(format!("aggregate_function {aggregate}")))?,
    }
    .ensemble()?;
    let post = PostTransform::from_code(post)
        .ok_or_else(|| Error::unsupported(format!("post_transform {post}")))?;
    let answer = if is_double(context) { DataType::Fp64 } else { DataType::Fp32 };
    predict(context, &ensemble, &[], post, answer)
}

fn predict(
    context: &Context<'_>,
    ensemble: &Ensemble,
    base: &[f64],
    post: PostTransform,
    answer: DataType,
) -> Built {
    let trees = match (is_double(context), answer) {
        (true, DataType::Fp64) => PredictIn::Double(Regressor::new(ensemble, base, post)?),
        (true, _) => PredictIn::DoubleToSingle(Regressor::new(ensemble, base, post)?),
        (false, _) => PredictIn::Single(Regressor::new(ensemble, base, post)?),
    };
    Ok(Box::new(Predict { trees, threads: context.threads }))
}

enum PredictIn {
    Single(Regressor<f32>),
    DoubleToSingle(Regressor<f64>),
    Double(Regressor<f64>),
}

struct Predict {
    trees: PredictIn,
    threads: usize,
}

impl Operator for Predict {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let input = inputs.required(0)?;
        let shape = |rows: usize, targets: usize| -> Result<Vec<usize>, Error> {
            count(&[rows, targets])?;
            Ok(vec![rows, targets])
        };
        Ok(vec![match &self.trees {
            PredictIn::Single(trees) => {
                let values = singles(input)?;
                let rows = rows(input, &values)?;
                let shape = shape(rows.count(), trees.trees.targets())?;
                let mut out = vec![0f32; shape[0] * shape[1]];
                trees.run(rows, self.threads, &mut out)?;
                tensor(shape, out)?
            }
            PredictIn::DoubleToSingle(trees) => {
                let values = doubles(input)?;
                let rows = rows(input, &values)?;
                let shape = shape(rows.count(), trees.trees.targets())?;
                let mut out = vec![0f32; shape[0] * shape[1]];
                trees.run(rows, self.threads, &mut out)?;
                tensor(shape, out)?
            }
            PredictIn::Double(trees) => {
                let values = doubles(input)?;
                let rows = rows(input, &values)?;
                let shape = shape(rows.count(), trees.trees.targets())?;
                let mut out = vec![0f64; shape[0] * shape[1]];
                trees.run(rows, self.threads, &mut out)?;
                tensor(shape, out)?
            }
        }])
    }
}
