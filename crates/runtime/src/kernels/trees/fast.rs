//! The fast layouts: trees over integer keys, many rows or many trees at a time.
//!
//! Every value of a row becomes an integer *key* first, so that `x <= t` is `key(x) <= key(t)`:
//! single-precision values by their bits, double-precision ones by their rank among the model's
//! own thresholds. NaN becomes the greatest key in the columns of nodes that send it to the false
//! side, and the least in those of nodes that send it to the true side; missing values cost
//! nothing after that.
//!
//! Two layouts then share the keys and the leaves:
//! - [`Bits`]: a word of leaf bits for each row; every node whose test fails clears the leaves
//!   under its true side, and the first bit that is left is the row's leaf. All nodes of a tree
//!   are looked at, but for [`LANES`] rows at once, without a branch or a gather. (After
//!   QuickScorer, Lucchese et al., SIGIR 2015, but tree by tree and with the words in registers.)
//! - [`Descent`]: eight-byte nodes, whose leaves lead to themselves, so that several trees (of one
//!   row) or several rows (of one tree) step down together without a branch.
//!
//! The sums add up in the order of the trees in both, so they give the same answers to the bit.

use super::bits::Bits;
use super::check::{Link, Node, Test, Tree};
use super::descent::Descent;
use super::{Aggregate, Ensemble};
use crate::kernels::{Real, Rows};

/// Rows that are looked at together.
pub(super) const LANES: usize = 16;

/// The trees in the fast layouts.
#[derive(Clone, Debug)]
pub(super) struct Fast<T> {
    keys: Keys<T>,
    leaves: Leaves<T>,
    /// Which targets any leaf speaks for; the same for every row.
    seen: Vec<bool>,
    bits: Option<Bits>,
    descent: Descent,
    /// From how many rows on the bits are used.
    bits_from: usize,
}

impl<T: Real> Fast<T> {
    /// `None` if the ensemble needs the plain walk: tests other than `<=`, an aggregate other than
    /// a sum, targets that only some rows have a score for, or trees beyond the compact nodes.
    pub fn new(ensemble: &Ensemble, trees: &[Tree<T>]) -> Option<Self> {
        if !matches!(ensemble.aggregate, Aggregate::Sum | Aggregate::Average) {
            return None;
        }
        let seen = seen(ensemble, trees)?;
        let leaves = Leaves::new(ensemble, trees)?;
        let keys = Keys::new(trees)?;
        let descent = Descent::new(trees, &keys)?;
        let bits = Bits::new(trees, &keys);
        // A step of the descent takes about as long as a node of the bits takes for LANES rows
        // (measured; see docs/kernels.md).
        let nodes: usize = trees.iter().map(|tree| tree.nodes.len()).sum();
        let bits_from = (nodes / descent.steps().max(1) + 1).min(LANES);
        Some(Self { keys, leaves, seen, bits, descent, bits_from })
    }

    /// What was chosen, for people.
    pub fn describe(&self) -> String {
        let keys = if self.keys.ranks.is_empty() { "32-bit keys" } else { "ranks as keys" };
        match &self.bits {
            Some(_) if self.bits_from > 1 => format!(
                "leaf bits over {keys}, {LANES} rows at a time; below {} rows trees step down 8 at \
                 a time",
                self.bits_from
            ),
            Some(_) => format!("leaf bits over {keys}, {LANES} rows at a time"),
            None => format!("nodes of 8 bytes over {keys}, 8 rows or trees stepping down together"),
        }
    }

    /// Leaves one of the layouts out, to compare them: `None` brings back the choice.
    pub fn force(&mut self, bits: bool) {
        self.bits_from = if bits { 1 } else { usize::MAX };
    }

    /// Runs the leaf bits as a processor does that lacks what this one has.
    pub fn without_special_instructions(&mut self) {
        if let Some(bits) = &mut self.bits {
            bits.without_special_instructions();
        }
    }

    /// Adds all trees to the sums of a block of rows: `sums` row after row.
    pub fn add(&self, rows: Rows<'_, T>, room: &mut Room<T>, sums: &mut [T], seen: &mut [bool]) {
        let targets = self.seen.len();
        for row in seen.chunks_exact_mut(targets) {
            row.copy_from_slice(&self.seen);
        }
        match &self.bits {
            Some(bits) if rows.count() >= self.bits_from => {
                for start in (0..rows.count()).step_by(LANES) {
                    let count = LANES.min(rows.count() - start);
                    self.keys.columns(rows.slice(start, count), &mut room.keys);
                    room.sums.clear();
                    room.sums.resize(targets * LANES, T::ZERO);
                    bits.add(&room.keys, &self.leaves, &mut room.sums);
                    for row in 0..count {
                        for target in 0..targets {
                            sums[(start + row) * targets + target] =
                                room.sums[target * LANES + row];
                        }
                    }
                }
            }
            _ => {
                self.keys.rows(rows, &mut room.keys);
                let width = self.keys.width();
                self.descent.add(&room.keys, (width, targets), &self.leaves, sums);
            }
        }
    }
}

/// Space that is used again for each block of rows.
#[derive(Debug)]
pub(super) struct Room<T> {
    keys: Vec<i32>,
    sums: Vec<T>,
}

impl<T> Room<T> {
    pub fn new() -> Self {
        Self { keys: Vec::new(), sums: Vec::new() }
    }
}

/// Which targets have a score: `None` if that depends on the row.
fn seen<T>(ensemble: &Ensemble, trees: &[Tree<T>]) -> Option<Vec<bool>> {
    let mut always = vec![false; ensemble.targets];
    let mut ever = vec![false; ensemble.targets];
    let mut met = vec![0; ensemble.targets];
    for tree in trees {
        met.fill(0);
        for leaf in &tree.leaves {
            let range = ensemble.leaves[*leaf as usize].clone();
            let mut last = None;
            for weight in &ensemble.weights[range.start as usize..range.end as usize] {
                if last != Some(weight.target) {
                    met[weight.target as usize] += 1;
                }
                last = Some(weight.target);
            }
        }
        for (target, met) in met.iter().enumerate() {
            ever[target] |= *met > 0;
            always[target] |= *met == tree.leaves.len();
        }
    }
    (always == ever).then_some(always)
}

/// What the leaves of all trees add, in the order of the trees, from left to right.
#[derive(Clone, Debug)]
pub(super) enum Leaves<T> {
    /// Each tree speaks for one target: that, and a value for each leaf.
    Single { targets: Vec<u32>, values: Vec<T> },
    /// A value for each target of each leaf.
    Dense { targets: usize, values: Vec<T> },
}

impl<T: Real> Leaves<T> {
    fn new(ensemble: &Ensemble, trees: &[Tree<T>]) -> Option<Self> {
        Self::single(ensemble, trees).or_else(|| Self::dense(ensemble, trees))
    }

    fn single(ensemble: &Ensemble, trees: &[Tree<T>]) -> Option<Self> {
        let (mut targets, mut values) = (Vec::new(), Vec::new());
        for tree in trees {
            let mut target = None;
            for leaf in &tree.leaves {
                let range = ensemble.leaves[*leaf as usize].clone();
                let [weight] = ensemble.weights[range.start as usize..range.end as usize] else {
                    return None;
                };
                if *target.get_or_insert(weight.target) != weight.target {
                    return None;
                }
                values.push(T::from_f64(weight.value));
            }
            targets.push(target?);
        }
        Some(Self::Single { targets, values })
    }

    /// Zeros are added where a leaf says nothing, so this is only for few targets or full leaves.
    fn dense(ensemble: &Ensemble, trees: &[Tree<T>]) -> Option<Self> {
        let targets = ensemble.targets;
        let count: usize = trees.iter().map(|tree| tree.leaves.len()).sum();
        if count.checked_mul(targets)? > 4 * ensemble.weights.len() + 1024 {
            return None;
        }
        let mut values = vec![T::ZERO; count * targets];
        let leaves = trees.iter().flat_map(|tree| &tree.leaves);
        for (place, leaf) in values.chunks_exact_mut(targets).zip(leaves) {
            let range = ensemble.leaves[*leaf as usize].clone();
            for weight in &ensemble.weights[range.start as usize..range.end as usize] {
                place[weight.target as usize] += T::from_f64(weight.value);
            }
        }
        Some(Self::Dense { targets, values })
    }
}

/// How the values of a row become keys.
#[derive(Clone, Debug)]
pub(super) struct Keys<T> {
    /// Each column of keys: the feature that it is made from, and the key of NaN.
    columns: Vec<(u32, i32)>,
    /// The sorted thresholds of each column, where keys are ranks among them.
    ranks: Vec<Vec<T>>,
}

impl<T: Real> Keys<T> {
    fn new(trees: &[Tree<T>]) -> Option<Self> {
        let mut thresholds: Vec<(u32, i32, T)> = Vec::new();
        for node in trees.iter().flat_map(|tree| &tree.nodes) {
            let Test::LessOrEqual(threshold) = node.test else { return None };
            thresholds.push((node.feature, nan_key(node), threshold));
        }
        thresholds.sort_by(|a, b| {
            let by_value = a.2.partial_cmp(&b.2).expect("thresholds are numbers");
            (a.0, a.1).cmp(&(b.0, b.1)).then(by_value)
        });
        thresholds.dedup();
        let (mut columns, mut ranks) = (Vec::new(), Vec::new());
        for column in thresholds.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            columns.push((column[0].0, column[0].1));
            if T::BY_RANK {
                ranks.push(column.iter().map(|entry| entry.2).collect());
            }
        }
        (columns.len() <= usize::from(u16::MAX)).then_some(Self { columns, ranks })
    }

    /// How many columns of keys there are.
    fn width(&self) -> usize {
        self.columns.len()
    }

    /// The column and the threshold's key of a node.
    pub fn of(&self, node: &Node<T>) -> (u16, i32) {
        let Test::LessOrEqual(threshold) = node.test else { unreachable!("checked by `new`") };
        let column = self
            .columns
            .binary_search(&(node.feature, nan_key(node)))
            .expect("every node's column is there");
        (column as u16, self.key(column, threshold))
    }

    #[inline(always)]
    fn key(&self, column: usize, value: T) -> i32 {
        if T::BY_RANK {
            self.ranks[column].partition_point(|threshold| *threshold < value) as i32
        } else {
            value.key()
        }
    }

    #[inline(always)]
    fn key_or_missing(&self, column: usize, value: T, missing: i32) -> i32 {
        // Only NaN differs from itself.
        #[allow(clippy::eq_op)]
        if value != value { missing } else { self.key(column, value) }
    }

    /// The keys of at most [`LANES`] rows, column after column.
    fn columns(&self, rows: Rows<'_, T>, keys: &mut Vec<i32>) {
        keys.resize(self.width() * LANES, 0);
        let (data, width) = (rows.data(), rows.width());
        for (index, keys) in keys.chunks_exact_mut(LANES).enumerate() {
            let (feature, missing) = self.columns[index];
            for (row, key) in keys[..rows.count()].iter_mut().enumerate() {
                *key = self.key_or_missing(index, data[row * width + feature as usize], missing);
            }
        }
    }

    /// The keys of rows, row after row.
    fn rows(&self, rows: Rows<'_, T>, keys: &mut Vec<i32>) {
        keys.clear();
        for index in 0..rows.count() {
            let row = rows.row(index);
            keys.extend(self.columns.iter().enumerate().map(|(index, (feature, missing))| {
                self.key_or_missing(index, row[*feature as usize], *missing)
            }));
        }
    }
}

/// The key that sends NaN the node's way. No number has either of the two.
fn nan_key<T>(node: &Node<T>) -> i32 {
    if node.missing_to_true { i32::MIN } else { i32::MAX }
}

/// The index of a link's target if it is a node.
pub(super) fn node_index(link: Link) -> Option<usize> {
    match link {
        Link::Node(index) => Some(index as usize),
        Link::Leaf(_) => None,
    }
}
