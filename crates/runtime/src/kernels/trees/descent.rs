//! Descent: compact nodes, several walks side by side. See [`super::fast`].

use super::check::{Link, Tree};
use super::fast::{Keys, Leaves};
use crate::kernels::Real;

/// Walks that step down together, to keep the processor busy while each waits for its node.
const WALKS: usize = 8;

#[derive(Clone, Debug)]
pub(super) struct Descent {
    nodes: Vec<Compact>,
    /// The leaf (counted over all trees) that each node is, where it is one.
    leaves: Vec<u32>,
    /// Where each tree's nodes start.
    starts: Vec<u32>,
    depths: Vec<u32>,
}

/// Both children lie side by side, the true one first. A leaf leads to itself: no key is greater
/// than its threshold.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Compact {
    threshold: i32,
    column: u16,
    /// The true child's index in the tree.
    child: u16,
}

impl Descent {
    /// `None` if a tree has too many nodes.
    pub fn new<T: Real>(trees: &[Tree<T>], keys: &Keys<T>) -> Option<Self> {
        let mut descent =
            Self { nodes: Vec::new(), leaves: Vec::new(), starts: Vec::new(), depths: Vec::new() };
        let mut leaves = 0;
        for tree in trees {
            let start = descent.nodes.len();
            if tree.nodes.len() + tree.leaves.len() > usize::from(u16::MAX)
                || start > u32::MAX as usize / 2
            {
                return None;
            }
            descent.starts.push(start as u32);
            descent.depths.push(tree.depth as u32);
            // Breadth first, so that the nodes that most rows meet lie close together.
            let mut links = vec![tree.root];
            let mut next = 0;
            while next < links.len() {
                let (compact, leaf) = match links[next] {
                    Link::Leaf(leaf) => {
                        let child = next as u16;
                        (Compact { threshold: i32::MAX, column: 0, child }, leaves + leaf)
                    }
                    Link::Node(index) => {
                        let node = &tree.nodes[index as usize];
                        let (column, threshold) = keys.of(node);
                        let child = links.len() as u16;
                        links.extend([node.if_true, node.if_false]);
                        (Compact { threshold, column, child }, 0)
                    }
                };
                descent.nodes.push(compact);
                descent.leaves.push(leaf);
                next += 1;
            }
            leaves += tree.leaves.len() as u32;
        }
        Some(descent)
    }

    /// How many steps a row takes at most.
    pub fn steps(&self) -> usize {
        self.depths.iter().map(|depth| *depth as usize).sum()
    }

    /// Adds all trees to the sums of rows of keys: `sums` row after row. `widths` are the columns
    /// of keys and of sums.
    pub fn add<T: Real>(
        &self,
        keys: &[i32],
        widths: (usize, usize),
        leaves: &Leaves<T>,
        sums: &mut [T],
    ) {
        let (width, targets) = widths;
        let count = sums.len() / targets;
        if count < WALKS {
            for (row, sums) in sums.chunks_exact_mut(targets).enumerate() {
                self.add_row(&keys[row * width..(row + 1) * width], leaves, sums);
            }
            return;
        }
        for tree in 0..self.starts.len() {
            let start = self.starts[tree] as usize;
            let end = self.starts.get(tree + 1).map_or(self.nodes.len(), |next| *next as usize);
            let nodes = &self.nodes[start..end];
            for first in (0..count).step_by(WALKS) {
                // The last walks go over rows again, rather than past the end.
                let first_row = first.min(count - WALKS);
                let rows = std::array::from_fn(|walk| &keys[(first_row + walk) * width..]);
                let ends = walk_rows(nodes, self.depths[tree], rows);
                for (walk, end) in ends.iter().enumerate().skip(first - first_row) {
                    let row = first_row + walk;
                    let sums = &mut sums[row * targets..(row + 1) * targets];
                    add_leaf(tree, self.leaves[start + *end as usize] as usize, leaves, sums);
                }
            }
        }
    }

    /// One row: several trees at a time.
    fn add_row<T: Real>(&self, keys: &[i32], leaves: &Leaves<T>, sums: &mut [T]) {
        let trees = self.starts.len();
        for first in (0..trees).step_by(WALKS) {
            let count = WALKS.min(trees - first);
            let depth = self.depths[first..first + count].iter().copied().max().unwrap_or(0);
            let tree = |walk: usize| self.starts[first + walk.min(count - 1)] as usize;
            let starts: [usize; WALKS] = std::array::from_fn(tree);
            let mut ends = starts;
            for _ in 0..depth {
                for walk in 0..WALKS {
                    let node = &self.nodes[ends[walk]];
                    let fails = usize::from(step_key(keys, node) > node.threshold);
                    ends[walk] = starts[walk] + usize::from(node.child) + fails;
                }
            }
            for (walk, end) in ends.iter().enumerate().take(count) {
                add_leaf(first + walk, self.leaves[*end] as usize, leaves, sums);
            }
        }
    }
}

/// Several rows walk one tree; returns the node that each ends at.
#[inline]
fn walk_rows(nodes: &[Compact], depth: u32, rows: [&[i32]; WALKS]) -> [u16; WALKS] {
    /// Deep trees are rarely deep everywhere: this often it is asked whether all have arrived.
    const STRIDE: u32 = 4;
    let mut ends = [0u16; WALKS];
    let mut left = depth;
    while left > 0 {
        let before = ends;
        for _ in 0..left.min(STRIDE) {
            for walk in 0..WALKS {
                let node = &nodes[usize::from(ends[walk])];
                ends[walk] = node.child + u16::from(step_key(rows[walk], node) > node.threshold);
            }
        }
        if ends == before {
            break;
        }
        left -= left.min(STRIDE);
    }
    ends
}

#[inline(always)]
fn step_key(keys: &[i32], node: &Compact) -> i32 {
    keys[usize::from(node.column)]
}

#[inline(always)]
fn add_leaf<T: Real>(tree: usize, leaf: usize, leaves: &Leaves<T>, sums: &mut [T]) {
    match leaves {
        Leaves::Single { targets, values } => sums[targets[tree] as usize] += values[leaf],
        Leaves::Dense { targets, values } => {
            for (sum, value) in sums.iter_mut().zip(&values[leaf * targets..]) {
                *sum += *value;
            }
        }
    }
}
