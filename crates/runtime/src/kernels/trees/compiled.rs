//! The compiled form of an ensemble, and how it runs on rows.

use super::check::{check, normalize};
use super::fast::{Fast, Room};
use super::walk::Walk;
use super::{Aggregate, Ensemble};
use crate::Error;
use crate::kernels::{Real, Rows};

/// How many rows are worked on before their sums are finished: few enough that rows and sums stay
/// in the first-level cache, many enough that a tree's nodes are used again while they are there.
const BLOCK: usize = 128;

/// A checked ensemble, laid out for this machine.
///
/// `T` is the arithmetic of thresholds, weights and sums: `f32` for models whose values are single
/// precision, as ONNX Runtime runs them; `f64` for the others.
#[derive(Clone, Debug)]
pub struct Trees<T: Real> {
    targets: usize,
    features: usize,
    aggregate: Aggregate,
    count: usize,
    walk: Walk<T>,
    fast: Option<Fast<T>>,
}

impl<T: Real> Trees<T> {
    /// Checks the ensemble and lays it out.
    ///
    /// Refuses indices out of range, and nodes that are shared, on a cycle or without a place.
    pub fn compile(ensemble: &Ensemble) -> Result<Self, Error> {
        let features = check(ensemble)?;
        let trees = normalize::<T>(ensemble);
        Ok(Self {
            targets: ensemble.targets,
            features,
            aggregate: ensemble.aggregate,
            count: trees.len(),
            walk: Walk::new(ensemble, &trees),
            fast: Fast::new(ensemble, &trees),
        })
    }

    /// How many numbers it sums up for a row.
    pub fn targets(&self) -> usize {
        self.targets
    }

    /// How many columns a row needs at least.
    pub fn features(&self) -> usize {
        self.features
    }

    /// The layout that was chosen, and why, for people.
    pub fn describe(&self) -> String {
        let layout = self.fast.as_ref().map(Fast::describe);
        let layout = layout.unwrap_or_else(|| "walked node by node".to_owned());
        format!("{} trees: {layout}", self.count)
    }

    /// Pins a layout, to test and compare them. The answers are the same, to the bit.
    pub fn pin(&mut self, layout: Layout) {
        match (layout, &mut self.fast) {
            (Layout::Plain, fast) => *fast = None,
            (Layout::LeafBits, Some(fast)) => fast.force(true),
            (Layout::PortableLeafBits, Some(fast)) => {
                fast.force(true);
                fast.without_special_instructions();
            }
            (Layout::Descent, Some(fast)) => fast.force(false),
            (_, None) => {}
        }
    }

    /// Writes `rows × targets` aggregated scores, without base values and transforms, on at most
    /// `threads` threads.
    ///
    /// A target that no leaf spoke for has a score of 0.
    pub fn scores(&self, rows: Rows<'_, T>, threads: usize, scores: &mut [T]) -> Result<(), Error> {
        super::super::check_output("scores", scores.len(), rows.count(), self.targets)?;
        self.run(rows, threads, Output { classes: &mut [], scores }, &|sums, _, scores| {
            scores.copy_from_slice(sums);
            0
        })
    }

    /// Aggregates each row's scores and has them finished: `finish` is given the sums, for which
    /// targets any leaf spoke, and the row's place in the output; it returns the row's class.
    pub(super) fn run<O: Real>(
        &self,
        rows: Rows<'_, T>,
        threads: usize,
        output: Output<'_, O>,
        finish: &(impl Fn(&mut [T], &[bool], &mut [O]) -> usize + Sync),
    ) -> Result<(), Error> {
        if rows.width() < self.features {
            return Err(Error::invalid(format!(
                "expected rows of at least {} values, got rows of {}",
                self.features,
                rows.width()
            )));
        }
        let parts = threads.min(rows.count() / BLOCK).max(1);
        if parts == 1 {
            self.run_part(rows, output, finish);
            return Ok(());
        }
        rayon::scope(|scope| {
            let (mut start, mut rest) = (0, output);
            for part in 0..parts {
                let count = (rows.count() - start) / (parts - part);
                let (own, others) = rest.split(count, self.targets);
                let rows = rows.slice(start, count);
                scope.spawn(move |_| self.run_part(rows, own, finish));
                (start, rest) = (start + count, others);
            }
        });
        Ok(())
    }

    fn run_part<O: Real>(
        &self,
        rows: Rows<'_, T>,
        output: Output<'_, O>,
        finish: &impl Fn(&mut [T], &[bool], &mut [O]) -> usize,
    ) {
        let targets = self.targets;
        let block = BLOCK.min(rows.count());
        let mut sums = vec![T::ZERO; block * targets];
        let mut seen = vec![false; block * targets];
        let mut room = Room::new();
        for start in (0..rows.count()).step_by(BLOCK) {
            let count = BLOCK.min(rows.count() - start);
            let (sums, seen) = (&mut sums[..count * targets], &mut seen[..count * targets]);
            sums.fill(T::ZERO);
            seen.fill(false);
            let rows = rows.slice(start, count);
            match &self.fast {
                Some(fast) => fast.add(rows, &mut room, sums, seen),
                None => self.walk.add(rows, self.aggregate, sums, seen),
            }
            if self.aggregate == Aggregate::Average {
                let count = T::from_f64(self.count as f64);
                sums.iter_mut().for_each(|sum| *sum = *sum / count);
            }
            for row in 0..count {
                let range = row * targets..(row + 1) * targets;
                let place = (start + row) * targets;
                let scores = &mut output.scores[place..place + targets];
                let class = finish(&mut sums[range.clone()], &seen[range], scores);
                if let Some(place) = output.classes.get_mut(start + row) {
                    *place = class;
                }
            }
        }
    }
}

/// The layouts that [`Trees`] choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Rows walk the trees one after the other; runs everything.
    Plain,
    /// A word of leaf bits for each row, where no tree has more leaves than bits.
    LeafBits,
    /// The same, without instructions that only some processors have.
    PortableLeafBits,
    /// Compact nodes, several walks side by side.
    Descent,
}

/// Where a run writes: a class for each row (or none at all), and scores.
pub(super) struct Output<'a, O> {
    pub classes: &'a mut [usize],
    pub scores: &'a mut [O],
}

impl<'a, O> Output<'a, O> {
    fn split(self, rows: usize, targets: usize) -> (Self, Self) {
        let at = rows.min(self.classes.len());
        let (own_classes, classes) = self.classes.split_at_mut(at);
        let (own_scores, scores) = self.scores.split_at_mut(rows * targets);
        (Self { classes: own_classes, scores: own_scores }, Self { classes, scores })
    }
}
