//! The plain layout: one row after the other walks each tree from its root to a leaf.
//!
//! It runs every ensemble, whatever its comparisons, weights and aggregate are, and is what the
//! other layouts are tested against.

use super::check::{Link, Node, Test, Tree};
use super::{Aggregate, Ensemble, Weight};
use crate::kernels::{Real, Rows};

#[derive(Clone, Debug)]
pub(super) struct Walk<T> {
    trees: Vec<Tree<T>>,
    leaves: Vec<std::ops::Range<u32>>,
    weights: Vec<(u32, T)>,
    sets: Vec<Vec<T>>,
    targets: usize,
}

impl<T: Real> Walk<T> {
    pub fn new(ensemble: &Ensemble, trees: &[Tree<T>]) -> Self {
        let sorted = |set: &Vec<f64>| {
            let mut set: Vec<T> = set.iter().map(|v| T::from_f64(*v)).collect();
            set.retain(|value| !value.to_f64().is_nan());
            set.sort_by(|a, b| a.partial_cmp(b).expect("no NaN is left"));
            set
        };
        let weight = |weight: &Weight| (weight.target, T::from_f64(weight.value));
        Self {
            trees: trees.to_vec(),
            leaves: ensemble.leaves.clone(),
            weights: ensemble.weights.iter().map(weight).collect(),
            sets: ensemble.sets.iter().map(sorted).collect(),
            targets: ensemble.targets,
        }
    }

    /// Adds all trees to the sums of a block of rows, and marks the targets that a leaf spoke for.
    pub fn add(&self, rows: Rows<'_, T>, how: Aggregate, sums: &mut [T], seen: &mut [bool]) {
        for tree in &self.trees {
            for index in 0..rows.count() {
                let leaf = tree.leaves[self.leaf(tree, rows.row(index))];
                let range = self.leaves[leaf as usize].clone();
                for (target, value) in &self.weights[range.start as usize..range.end as usize] {
                    let place = index * self.targets + *target as usize;
                    let (sum, seen) = (&mut sums[place], &mut seen[place]);
                    match how {
                        Aggregate::Sum | Aggregate::Average => *sum += *value,
                        Aggregate::Min if *seen && *value >= *sum => {}
                        Aggregate::Max if *seen && *value <= *sum => {}
                        Aggregate::Min | Aggregate::Max => *sum = *value,
                    }
                    *seen = true;
                }
            }
        }
    }

    fn leaf(&self, tree: &Tree<T>, row: &[T]) -> usize {
        let mut link = tree.root;
        loop {
            match link {
                Link::Leaf(leaf) => return leaf as usize,
                Link::Node(node) => {
                    let node = &tree.nodes[node as usize];
                    let value = row[node.feature as usize];
                    link = if self.answer(node, value) { node.if_true } else { node.if_false };
                }
            }
        }
    }

    fn answer(&self, node: &Node<T>, value: T) -> bool {
        // Only NaN differs from itself.
        #[allow(clippy::eq_op)]
        if value != value {
            return node.missing_to_true;
        }
        match node.test {
            Test::LessOrEqual(threshold) => value <= threshold,
            Test::Equal(threshold) => value == threshold,
            Test::Member(set) => self.sets[set as usize]
                .binary_search_by(|member| member.partial_cmp(&value).expect("neither is NaN"))
                .is_ok(),
        }
    }
}
