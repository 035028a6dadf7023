//! From the arrays of `ai.onnx.ml` tree operators to an [`Ensemble`].

use std::collections::HashMap;

use super::{Aggregate, Branch, Child, Comparison, Ensemble, Weight};
use crate::Error;

/// The attributes of `TreeEnsembleClassifier` and `TreeEnsembleRegressor` (opsets 1 and 3), with
/// the prefixes `nodes_`, `class_` and `target_` left off.
#[derive(Clone, Debug, Default)]
pub struct NodeArrays<'a> {
    /// `nodes_treeids`
    pub tree_ids: &'a [i64],
    /// `nodes_nodeids`
    pub node_ids: &'a [i64],
    /// `nodes_featureids`
    pub feature_ids: &'a [i64],
    /// `nodes_modes`: `None` for a leaf. See [`Comparison::from_name`].
    pub modes: &'a [Option<Comparison>],
    /// `nodes_values` or `nodes_values_as_tensor`
    pub values: &'a [f64],
    /// `nodes_truenodeids`
    pub true_ids: &'a [i64],
    /// `nodes_falsenodeids`
    pub false_ids: &'a [i64],
    /// `nodes_missing_value_tracks_true`; may be empty or short, and is 0 where it is missing.
    pub missing_to_true: &'a [i64],
    /// `class_treeids` or `target_treeids`
    pub weight_tree_ids: &'a [i64],
    /// `class_nodeids` or `target_nodeids`
    pub weight_node_ids: &'a [i64],
    /// `class_ids` or `target_ids`
    pub weight_targets: &'a [i64],
    /// `class_weights` or `target_weights`, or their `_as_tensor`
    pub weights: &'a [f64],
    /// `n_targets`, or the number of class labels
    pub targets: usize,
    /// `aggregate_function`
    pub aggregate: Aggregate,
}

impl NodeArrays<'_> {
    /// Puts the arrays together. The first node listed of a tree is its root.
    pub fn ensemble(&self) -> Result<Ensemble, Error> {
        let count = self.tree_ids.len();
        same_length("nodes_nodeids", self.node_ids, count)?;
        same_length("nodes_featureids", self.feature_ids, count)?;
        same_length("nodes_modes", self.modes, count)?;
        same_length("nodes_values", self.values, count)?;
        same_length("nodes_truenodeids", self.true_ids, count)?;
        same_length("nodes_falsenodeids", self.false_ids, count)?;
        let weights = self.weight_tree_ids.len();
        same_length("class_nodeids or target_nodeids", self.weight_node_ids, weights)?;
        same_length("class_ids or target_ids", self.weight_targets, weights)?;
        same_length("class_weights or target_weights", self.weights, weights)?;

        let mut ensemble =
            Ensemble { targets: self.targets, aggregate: self.aggregate, ..Ensemble::default() };
        let children = self.number(&mut ensemble)?;
        self.add_branches(&children, &mut ensemble)?;
        self.add_weights(&children, &mut ensemble)?;
        Ok(ensemble)
    }

    /// Gives each node its index among the branches or the leaves, and finds the roots.
    fn number(&self, ensemble: &mut Ensemble) -> Result<HashMap<(i64, i64), Child>, Error> {
        let mut children = HashMap::with_capacity(self.tree_ids.len());
        let mut trees = std::collections::HashSet::new();
        let (mut branches, mut leaves) = (0, 0);
        for ((tree, node), mode) in self.tree_ids.iter().zip(self.node_ids).zip(self.modes) {
            let next = if mode.is_some() { &mut branches } else { &mut leaves };
            let child = if mode.is_some() { Child::Branch(*next) } else { Child::Leaf(*next) };
            *next += 1;
            if children.insert((*tree, *node), child).is_some() {
                return Err(Error::unsupported(format!(
                    "node {node} of tree {tree} is there more than once"
                )));
            }
            if trees.insert(*tree) {
                ensemble.roots.push(child);
            }
        }
        ensemble.leaves = vec![0..0; leaves as usize];
        Ok(children)
    }

    fn add_branches(
        &self,
        children: &HashMap<(i64, i64), Child>,
        ensemble: &mut Ensemble,
    ) -> Result<(), Error> {
        for (index, mode) in self.modes.iter().enumerate() {
            let Some(comparison) = *mode else { continue };
            let tree = self.tree_ids[index];
            let find = |attribute: &str, node: i64| {
                children.get(&(tree, node)).copied().ok_or_else(|| {
                    let from = self.node_ids[index];
                    Error::unsupported(format!(
                        "{attribute} of node {from} of tree {tree}: there is no node {node}"
                    ))
                })
            };
            ensemble.branches.push(Branch {
                feature: feature(self.feature_ids[index])?,
                comparison,
                threshold: self.values[index],
                missing_to_true: self.missing_to_true.get(index).is_some_and(|flag| *flag == 1),
                if_true: find("nodes_truenodeids", self.true_ids[index])?,
                if_false: find("nodes_falsenodeids", self.false_ids[index])?,
            });
        }
        Ok(())
    }

    fn add_weights(
        &self,
        children: &HashMap<(i64, i64), Child>,
        ensemble: &mut Ensemble,
    ) -> Result<(), Error> {
        let mut of_leaves = Vec::with_capacity(self.weights.len());
        for (index, node) in self.weight_node_ids.iter().enumerate() {
            let tree = self.weight_tree_ids[index];
            match children.get(&(tree, *node)) {
                Some(Child::Leaf(leaf)) => of_leaves.push((*leaf, index)),
                // Old versions of onnxmltools wrote weights for inner nodes; they mean nothing.
                Some(Child::Branch(_)) => {}
                None => {
                    return Err(Error::unsupported(format!(
                        "a weight belongs to node {node} of tree {tree}, which does not exist"
                    )));
                }
            }
        }
        of_leaves.sort_unstable();
        let leaves = ensemble.leaves.len();
        for run in of_leaves.chunk_by(|a, b| a.0 == b.0) {
            let start = ensemble.weights.len() as u32;
            for (_, index) in run {
                let target = target(self.weight_targets[*index])?;
                ensemble.weights.push(Weight { target, value: self.weights[*index] });
            }
            ensemble.leaves[run[0].0 as usize] = start..ensemble.weights.len() as u32;
        }
        match ensemble.leaves.iter().position(|range| range.is_empty()) {
            Some(leaf) => Err(Error::unsupported(format!(
                "leaf {leaf} of {leaves} has no weight; expected at least one for each leaf"
            ))),
            None => Ok(()),
        }
    }
}

/// The attributes of `TreeEnsemble` (opset 5).
#[derive(Clone, Debug, Default)]
pub struct TreeArrays<'a> {
    /// `tree_roots`
    pub roots: &'a [i64],
    /// `nodes_featureids`
    pub feature_ids: &'a [i64],
    /// `nodes_modes`: 0 to 6 for `<=`, `<`, `>=`, `>`, `==`, `!=` and membership
    pub modes: &'a [u8],
    /// `nodes_splits`
    pub splits: &'a [f64],
    /// `nodes_truenodeids`
    pub true_ids: &'a [i64],
    /// `nodes_trueleafs`
    pub true_leaves: &'a [i64],
    /// `nodes_falsenodeids`
    pub false_ids: &'a [i64],
    /// `nodes_falseleafs`
    pub false_leaves: &'a [i64],
    /// `nodes_missing_value_tracks_true`; may be empty.
    pub missing_to_true: &'a [i64],
    /// `membership_values`: the sets of the membership nodes in their order, NaN after each
    pub members: &'a [f64],
    /// `leaf_targetids`
    pub leaf_targets: &'a [i64],
    /// `leaf_weights`
    pub leaf_weights: &'a [f64],
    /// `n_targets`
    pub targets: usize,
    /// `aggregate_function`
    pub aggregate: Aggregate,
}

impl TreeArrays<'_> {
    /// Puts the arrays together.
    pub fn ensemble(&self) -> Result<Ensemble, Error> {
        let count = self.feature_ids.len();
        same_length("nodes_modes", self.modes, count)?;
        same_length("nodes_splits", self.splits, count)?;
        same_length("nodes_truenodeids", self.true_ids, count)?;
        same_length("nodes_trueleafs", self.true_leaves, count)?;
        same_length("nodes_falsenodeids", self.false_ids, count)?;
        same_length("nodes_falseleafs", self.false_leaves, count)?;
        same_length("leaf_weights", self.leaf_weights, self.leaf_targets.len())?;
        let mut ensemble =
            Ensemble { targets: self.targets, aggregate: self.aggregate, ..Ensemble::default() };
        for (leaf, value) in self.leaf_weights.iter().enumerate() {
            let target = target(self.leaf_targets[leaf])?;
            ensemble.weights.push(Weight { target, value: *value });
        }
        self.add_branches(&mut ensemble)?;
        for root in self.roots {
            let root =
                usize::try_from(*root).ok().filter(|root| *root < count).ok_or_else(|| {
                    Error::unsupported(format!("tree_roots: there is no node {root} of {count}"))
                })?;
            let if_true = ensemble.branches[root].if_true;
            // A tree of a single leaf is written as a node that leads to it both ways.
            let single = self.true_leaves[root] != 0
                && self.false_leaves[root] != 0
                && self.true_ids[root] == self.false_ids[root];
            ensemble.roots.push(if single { if_true } else { Child::Branch(root as u32) });
        }
        self.drop_single_leaf_nodes(ensemble)
    }

    fn add_branches(&self, ensemble: &mut Ensemble) -> Result<(), Error> {
        let mut members = self.members;
        for (index, mode) in self.modes.iter().enumerate() {
            let comparison = match mode {
                0 => Comparison::LessOrEqual,
                1 => Comparison::Less,
                2 => Comparison::GreaterOrEqual,
                3 => Comparison::Greater,
                4 => Comparison::Equal,
                5 => Comparison::NotEqual,
                6 => {
                    let end = members.iter().position(|v| v.is_nan()).unwrap_or(members.len());
                    ensemble.sets.push(members[..end].to_vec());
                    members = &members[(end + 1).min(members.len())..];
                    Comparison::Member(ensemble.sets.len() as u32 - 1)
                }
                other => {
                    return Err(Error::unsupported(format!(
                        "nodes_modes: expected 0 to 6, got {other}"
                    )));
                }
            };
            let if_true = self.child(ensemble, self.true_ids[index], self.true_leaves[index])?;
            let if_false = self.child(ensemble, self.false_ids[index], self.false_leaves[index])?;
            ensemble.branches.push(Branch {
                feature: feature(self.feature_ids[index])?,
                comparison,
                threshold: self.splits[index],
                missing_to_true: self.missing_to_true.get(index).is_some_and(|flag| *flag == 1),
                if_true,
                if_false,
            });
        }
        Ok(())
    }

    /// The format lets several nodes share a leaf; each gets a leaf of its own here.
    fn child(&self, ensemble: &mut Ensemble, id: i64, is_leaf: i64) -> Result<Child, Error> {
        let (what, count) = match is_leaf {
            0 => ("node", self.feature_ids.len()),
            _ => ("leaf", self.leaf_weights.len()),
        };
        let id = usize::try_from(id).ok().filter(|id| *id < count).ok_or_else(|| {
            Error::unsupported(format!("a node leads to {what} {id}, but there are {count}"))
        })?;
        if is_leaf == 0 {
            return Ok(Child::Branch(id as u32));
        }
        ensemble.leaves.push(id as u32..id as u32 + 1);
        Ok(Child::Leaf(ensemble.leaves.len() as u32 - 1))
    }

    /// Takes out the nodes that only stand for a leaf, so that every node has its place in a tree.
    fn drop_single_leaf_nodes(&self, mut ensemble: Ensemble) -> Result<Ensemble, Error> {
        let single: Vec<bool> = {
            let mut single = vec![false; ensemble.branches.len()];
            for (root, child) in self.roots.iter().zip(&ensemble.roots) {
                single[*root as usize] = matches!(child, Child::Leaf(_));
            }
            single
        };
        if !single.contains(&true) {
            return Ok(ensemble);
        }
        let mut leaves = Vec::with_capacity(ensemble.leaves.len());
        let mut new_index = Vec::with_capacity(single.len());
        let mut kept = 0;
        for gone in &single {
            new_index.push(kept);
            kept += u32::from(!gone);
        }
        let mut place = |child: Child, old: &[std::ops::Range<u32>]| match child {
            Child::Branch(index) if single[index as usize] => Err(Error::unsupported(format!(
                "node {index} is a tree of its own, but another node leads to it"
            ))),
            Child::Branch(index) => Ok(Child::Branch(new_index[index as usize])),
            Child::Leaf(index) => {
                leaves.push(old[index as usize].clone());
                Ok(Child::Leaf(leaves.len() as u32 - 1))
            }
        };
        let mut branches = Vec::with_capacity(kept as usize);
        for (branch, gone) in ensemble.branches.iter().zip(&single) {
            if !gone {
                let if_true = place(branch.if_true, &ensemble.leaves)?;
                let if_false = place(branch.if_false, &ensemble.leaves)?;
                branches.push(Branch { if_true, if_false, ..*branch });
            }
        }
        let roots = ensemble.roots.iter().map(|root| place(*root, &ensemble.leaves));
        ensemble.roots = roots.collect::<Result<_, _>>()?;
        ensemble.branches = branches;
        ensemble.leaves = leaves;
        Ok(ensemble)
    }
}

fn same_length<T>(what: &str, values: &[T], wanted: usize) -> Result<(), Error> {
    if values.len() == wanted {
        return Ok(());
    }
    Err(Error::unsupported(format!("{what}: expected {wanted} values, got {}", values.len())))
}

fn feature(id: i64) -> Result<u32, Error> {
    u32::try_from(id)
        .map_err(|_| Error::unsupported(format!("nodes_featureids: expected 0 or more, got {id}")))
}

fn target(id: i64) -> Result<u32, Error> {
    u32::try_from(id).map_err(|_| {
        Error::unsupported(format!("a weight's target or class: expected 0 or more, got {id}"))
    })
}
