//! Leaf bits: all nodes of a tree for many rows at once. See [`super::fast`].

use super::check::{Link, Tree};
use super::fast::{Keys, LANES, Leaves, node_index};
use crate::kernels::Real;

/// The most leaves that a tree may have: the bits of a lane.
const MOST_LEAVES: usize = 32;

#[derive(Clone, Debug)]
pub(super) struct Bits {
    /// Where each tree's nodes end.
    ends: Vec<u32>,
    /// Where each tree's leaves start.
    leaf_starts: Vec<u32>,
    nodes: Vec<BitNode>,
    has_avx2: bool,
}

#[derive(Clone, Copy, Debug)]
struct BitNode {
    threshold: i32,
    /// The leaves under the true side, which a row that fails the test cannot reach.
    under_true: u32,
    /// Where the column of keys starts.
    offset: u32,
}

impl Bits {
    /// `None` if a tree has too many leaves.
    pub fn new<T: Real>(trees: &[Tree<T>], keys: &Keys<T>) -> Option<Self> {
        let mut bits = Self {
            ends: Vec::new(),
            leaf_starts: Vec::new(),
            nodes: Vec::new(),
            has_avx2: has_avx2(),
        };
        let mut leaves = 0;
        for tree in trees {
            if tree.leaves.len() > MOST_LEAVES {
                return None;
            }
            let under = leaves_under(tree);
            for (node, _) in tree.nodes.iter().zip(&under) {
                let (column, threshold) = keys.of(node);
                let under_true = match node.if_true {
                    Link::Leaf(leaf) => 1 << leaf,
                    Link::Node(node) => under[node as usize],
                };
                let offset = u32::from(column) * LANES as u32;
                bits.nodes.push(BitNode { threshold, under_true, offset });
            }
            bits.ends.push(bits.nodes.len() as u32);
            bits.leaf_starts.push(leaves);
            leaves += tree.leaves.len() as u32;
        }
        Some(bits)
    }

    pub fn without_special_instructions(&mut self) {
        self.has_avx2 = false;
    }

    /// Adds all trees to `sums`, which hold [`LANES`] values for each target.
    pub fn add<T: Real>(&self, keys: &[i32], leaves: &Leaves<T>, sums: &mut [T]) {
        #[cfg(target_arch = "x86_64")]
        if self.has_avx2 {
            // SAFETY: the processor has AVX2 and BMI1, as `has_avx2` found.
            return unsafe { self.add_avx2(keys, leaves, sums) };
        }
        self.add_anywhere(keys, leaves, sums);
    }

    /// The same code, for the compiler to use wider registers in.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1")]
    fn add_avx2<T: Real>(&self, keys: &[i32], leaves: &Leaves<T>, sums: &mut [T]) {
        self.add_anywhere(keys, leaves, sums);
    }

    #[inline(always)]
    fn add_anywhere<T: Real>(&self, keys: &[i32], leaves: &Leaves<T>, sums: &mut [T]) {
        let mut start = 0;
        for (tree, (end, leaf_start)) in self.ends.iter().zip(&self.leaf_starts).enumerate() {
            let end = *end as usize;
            let mut words = [u32::MAX; LANES];
            for node in &self.nodes[start..end] {
                let offset = node.offset as usize;
                let keys: &[i32; LANES] =
                    keys[offset..offset + LANES].try_into().expect("as many keys");
                for lane in 0..LANES {
                    let fails = if keys[lane] > node.threshold { u32::MAX } else { 0 };
                    words[lane] &= !(fails & node.under_true);
                }
            }
            start = end;
            add_leaves(tree, *leaf_start as usize, &words, leaves, sums);
        }
    }
}

/// Adds the leaf of each lane: the first bit of its word.
#[inline(always)]
fn add_leaves<T: Real>(
    tree: usize,
    start: usize,
    words: &[u32; LANES],
    leaves: &Leaves<T>,
    sums: &mut [T],
) {
    match leaves {
        Leaves::Single { targets, values } => {
            let first = targets[tree] as usize * LANES;
            let sums: &mut [T; LANES] =
                (&mut sums[first..first + LANES]).try_into().expect("as many sums");
            let values = &values[start..];
            for lane in 0..LANES {
                sums[lane] += values[words[lane].trailing_zeros() as usize];
            }
        }
        Leaves::Dense { targets, values } => {
            for lane in 0..LANES {
                let leaf = start + words[lane].trailing_zeros() as usize;
                let values = &values[leaf * targets..(leaf + 1) * targets];
                for (target, value) in values.iter().enumerate() {
                    sums[target * LANES + lane] += *value;
                }
            }
        }
    }
}

/// The leaves under each node, as bits.
fn leaves_under<T>(tree: &Tree<T>) -> Vec<u32> {
    let mut under = vec![0u32; tree.nodes.len()];
    // What a node leads to comes after it.
    for index in (0..tree.nodes.len()).rev() {
        let node = &tree.nodes[index];
        for link in [node.if_true, node.if_false] {
            under[index] |= match link {
                Link::Leaf(leaf) => 1 << leaf,
                Link::Node(_) => under[node_index(link).expect("a node")],
            };
        }
    }
    under
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi1")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}
