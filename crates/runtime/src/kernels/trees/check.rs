//! Checks an [`Ensemble`] and brings it into the normal form that layouts are made from.
//!
//! In the normal form a branch asks `x <= t`, `x == t` or for membership, with a threshold that is
//! a number, and says where NaN goes. Every other comparison is one of these with its ends
//! exchanged, or is always answered the same way and then dropped:
//! - `x > t` is `!(x <= t)` and `x >= t` is `!(x < t)`, NaN aside;
//! - `x < t` is `x <= next_down(t)`, because nothing lies between the two;
//! - "is NaN" is `!(x <= inf)`.

use super::{Branch, Child, Comparison, Ensemble};
use crate::Error;
use crate::kernels::Real;

/// One tree in the normal form: nodes before what they lead to, `if_true` side first; leaves from
/// left (true) to right.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tree<T> {
    pub nodes: Vec<Node<T>>,
    /// Which leaf of the ensemble each leaf is.
    pub leaves: Vec<u32>,
    /// The most nodes that a row can meet.
    pub depth: usize,
    pub root: Link,
}

/// A branch in the normal form.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Node<T> {
    pub feature: u32,
    pub test: Test<T>,
    /// Where NaN goes.
    pub missing_to_true: bool,
    pub if_true: Link,
    pub if_false: Link,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Test<T> {
    LessOrEqual(T),
    Equal(T),
    /// In the ensemble's set of this index.
    Member(u32),
}

/// Where a node leads: the index of a node or of a leaf of the same tree.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Link {
    Node(u32),
    Leaf(u32),
}

/// Checks that every branch and leaf has exactly one place in one tree, and that every index is in
/// range. Returns how many columns a row needs.
pub(super) fn check(ensemble: &Ensemble) -> Result<usize, Error> {
    if ensemble.targets == 0 {
        return Err(Error::unsupported("expected trees with at least one target, got none"));
    }
    let limit = u32::MAX as usize / 2;
    if ensemble.branches.len() > limit || ensemble.leaves.len() > limit {
        return Err(Error::unsupported(format!("expected at most {limit} nodes of a kind")));
    }
    for range in &ensemble.leaves {
        if range.start > range.end || range.end as usize > ensemble.weights.len() {
            return Err(Error::unsupported(format!(
                "a leaf has weights {range:?}, but there are {}",
                ensemble.weights.len()
            )));
        }
    }
    for weight in &ensemble.weights {
        if weight.target as usize >= ensemble.targets {
            return Err(Error::unsupported(format!(
                "a weight is for target or class {}, but there are {}",
                weight.target, ensemble.targets
            )));
        }
    }
    check_places(ensemble)?;
    let mut width = 0;
    for branch in &ensemble.branches {
        width = width.max(branch.feature as usize + 1);
        if let Comparison::Member(set) = branch.comparison
            && set as usize >= ensemble.sets.len()
        {
            return Err(Error::unsupported(format!(
                "a node asks for set {set}, but there are {}",
                ensemble.sets.len()
            )));
        }
    }
    Ok(width)
}

/// Walks every tree and counts how often each node is met. A node that is met twice has two
/// parents or lies on a cycle.
fn check_places(ensemble: &Ensemble) -> Result<(), Error> {
    let mut branches = vec![false; ensemble.branches.len()];
    let mut leaves = vec![false; ensemble.leaves.len()];
    let mut open: Vec<Child> = ensemble.roots.clone();
    while let Some(child) = open.pop() {
        let (what, index, met) = match child {
            Child::Branch(index) => ("node", index, branches.get_mut(index as usize)),
            Child::Leaf(index) => ("leaf", index, leaves.get_mut(index as usize)),
        };
        let Some(met) = met else {
            return Err(Error::unsupported(format!("there is no {what} {index} in the trees")));
        };
        if std::mem::replace(met, true) {
            return Err(Error::unsupported(format!(
                "{what} {index} can be reached in two ways: the trees share it, or lead in a circle"
            )));
        }
        if let Child::Branch(index) = child {
            let Branch { if_true, if_false, .. } = ensemble.branches[index as usize];
            open.extend([if_true, if_false]);
        }
    }
    let unmet = |met: &[bool]| met.iter().position(|met| !met);
    if let Some(index) = unmet(&branches) {
        return Err(Error::unsupported(format!(
            "no root leads to node {index}: it lies on a circle or its tree has a second root"
        )));
    }
    if let Some(index) = unmet(&leaves) {
        return Err(Error::unsupported(format!("no node leads to leaf {index}")));
    }
    Ok(())
}

/// The trees of a checked ensemble in the normal form.
pub(super) fn normalize<T: Real>(ensemble: &Ensemble) -> Vec<Tree<T>> {
    ensemble.roots.iter().map(|root| normalize_tree(ensemble, *root)).collect()
}

fn normalize_tree<T: Real>(ensemble: &Ensemble, root: Child) -> Tree<T> {
    let mut tree = Tree { nodes: Vec::new(), leaves: Vec::new(), depth: 0, root: Link::Leaf(0) };
    // What is to be placed, the node that leads to it and on which side, and how deep it lies.
    type Parent = Option<(usize, bool)>;
    let mut open: Vec<(Child, Parent, usize)> = vec![(root, None, 0)];
    while let Some((child, parent, depth)) = open.pop() {
        let (child, branch) = match resolve::<T>(ensemble, child) {
            Resolved::Leaf(leaf) => {
                tree.leaves.push(leaf);
                tree.depth = tree.depth.max(depth);
                (Link::Leaf(tree.leaves.len() as u32 - 1), None)
            }
            Resolved::Branch(branch) => (Link::Node(tree.nodes.len() as u32), Some(branch)),
        };
        match parent {
            None => tree.root = child,
            Some((parent, true)) => tree.nodes[parent].if_true = child,
            Some((parent, false)) => tree.nodes[parent].if_false = child,
        }
        if let Some((feature, test, missing_to_true, if_true, if_false)) = branch {
            let index = tree.nodes.len();
            let placeholder = Link::Leaf(0);
            tree.nodes.push(Node {
                feature,
                test,
                missing_to_true,
                if_true: placeholder,
                if_false: placeholder,
            });
            // The true side is placed first, being on top.
            open.push((if_false, Some((index, false)), depth + 1));
            open.push((if_true, Some((index, true)), depth + 1));
        }
    }
    tree
}

enum Resolved<T> {
    Leaf(u32),
    Branch((u32, Test<T>, bool, Child, Child)),
}

/// Follows branches whose answer is always the same, down to a real one or a leaf.
fn resolve<T: Real>(ensemble: &Ensemble, mut child: Child) -> Resolved<T> {
    loop {
        let index = match child {
            Child::Leaf(leaf) => return Resolved::Leaf(leaf),
            Child::Branch(index) => index,
        };
        let branch = &ensemble.branches[index as usize];
        let Branch { feature, missing_to_true, if_true, if_false, .. } = *branch;
        match simplify::<T>(branch) {
            Simple::Ask(test) => {
                return Resolved::Branch((feature, test, missing_to_true, if_true, if_false));
            }
            // True and false trade places, so NaN's way has to, as well.
            Simple::AskOpposite(test, missing_to_true) => {
                return Resolved::Branch((feature, test, missing_to_true, if_false, if_true));
            }
            Simple::Always(answer) => child = if answer { if_true } else { if_false },
        }
    }
}

enum Simple<T> {
    Ask(Test<T>),
    /// The opposite question, and whether NaN answers it with true.
    AskOpposite(Test<T>, bool),
    Always(bool),
}

fn simplify<T: Real>(branch: &Branch) -> Simple<T> {
    let t = T::from_f64(branch.threshold);
    let missing = branch.missing_to_true;
    let never = if missing {
        // Only NaN is true: the opposite of "x <= infinity, NaN not being so".
        Simple::AskOpposite(Test::LessOrEqual(T::from_f64(f64::INFINITY)), false)
    } else {
        Simple::Always(false)
    };
    let is_nan = t.to_f64().is_nan();
    let is_least = t.to_f64() == f64::NEG_INFINITY;
    match branch.comparison {
        Comparison::Member(set) => Simple::Ask(Test::Member(set)),
        Comparison::NotEqual if is_nan => Simple::Always(true),
        _ if is_nan => never,
        Comparison::LessOrEqual => Simple::Ask(Test::LessOrEqual(t)),
        Comparison::Equal => Simple::Ask(Test::Equal(t)),
        // NaN is not equal to anything, so it goes to `if_true` with or without the flag.
        Comparison::NotEqual => Simple::AskOpposite(Test::Equal(t), false),
        Comparison::Greater => Simple::AskOpposite(Test::LessOrEqual(t), !missing),
        Comparison::Less if is_least => never,
        Comparison::Less => Simple::Ask(Test::LessOrEqual(t.next_down())),
        Comparison::GreaterOrEqual if is_least => {
            // Every number is; only NaN may go the other way.
            if missing {
                Simple::Always(true)
            } else {
                Simple::Ask(Test::LessOrEqual(T::from_f64(f64::INFINITY)))
            }
        }
        Comparison::GreaterOrEqual => {
            Simple::AskOpposite(Test::LessOrEqual(t.next_down()), !missing)
        }
    }
}
