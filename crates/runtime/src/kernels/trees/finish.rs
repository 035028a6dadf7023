//! From the sums of the trees to predictions, as ONNX Runtime finishes them.

use super::super::post::{PostTransform, SecondClass};
use super::super::{Real, Rows, check_output};
use super::compiled::Output;
use super::{Ensemble, Trees};
use crate::Error;

/// Trees that predict one number or several for each row.
#[derive(Clone, Debug)]
pub struct Regressor<T: Real> {
    /// The trees. How they are run may be changed; the answers stay the same.
    pub trees: Trees<T>,
    base_values: Vec<T>,
    post: PostTransform,
}

impl<T: Real> Regressor<T> {
    /// Compiles the trees. `base_values` holds one value for each target, or none.
    pub fn new(ensemble: &Ensemble, base: &[f64], post: PostTransform) -> Result<Self, Error> {
        let targets = ensemble.targets;
        if !base.is_empty() && base.len() != targets {
            return Err(Error::unsupported(format!(
                "base_values: expected none or one for each of {targets} targets, got {}",
                base.len()
            )));
        }
        let base_values = base.iter().map(|value| T::from_f64(*value)).collect();
        Ok(Self { trees: Trees::compile(ensemble)?, base_values, post })
    }

    /// Writes `rows × targets` predictions, on at most `threads` threads.
    ///
    /// A single target is only transformed by `PROBIT`, as ONNX Runtime does.
    pub fn run<O: Real>(
        &self,
        rows: Rows<'_, T>,
        threads: usize,
        predictions: &mut [O],
    ) -> Result<(), Error> {
        let targets = self.trees.targets();
        check_output("predictions", predictions.len(), rows.count(), targets)?;
        let output = Output { classes: &mut [], scores: predictions };
        self.trees.run(rows, threads, output, &|scores, seen, predictions| {
            for (score, base) in scores.iter_mut().zip(&self.base_values) {
                *score += *base;
            }
            if targets > 1 {
                drop_unseen(scores, seen);
            }
            match &mut *scores {
                [score] => *score = self.post.apply_to_single(*score),
                scores => self.post.apply(scores),
            }
            copy(scores, predictions);
            0
        })
    }
}

/// Trees that predict a class, and a score for each class.
#[derive(Clone, Debug)]
pub struct Classifier<T: Real> {
    /// The trees. How they are run may be changed; the answers stay the same.
    pub trees: Trees<T>,
    base_values: Vec<T>,
    post: PostTransform,
    /// Two classes, and all weights belong to only one of them.
    one_sided: bool,
    all_positive: bool,
}

impl<T: Real> Classifier<T> {
    /// Compiles the trees; `ensemble.targets` is the number of classes.
    ///
    /// `base_values` holds one value for each class, or none; up to two classes may have one or
    /// two whatever their number.
    pub fn new(ensemble: &Ensemble, base: &[f64], post: PostTransform) -> Result<Self, Error> {
        let classes = ensemble.targets;
        let fits = match classes {
            0 => return Err(Error::unsupported("expected at least one class label, got none")),
            1 => base.len() <= 1,
            2 => base.len() <= 2,
            _ => base.is_empty() || base.len() == classes,
        };
        if !fits {
            return Err(Error::unsupported(format!(
                "base_values: expected none or one for each of {classes} classes, got {}",
                base.len()
            )));
        }
        let mut weights = ensemble.weights.iter();
        let first = weights.next().map(|weight| weight.target);
        Ok(Self {
            trees: Trees::compile(ensemble)?,
            base_values: base.iter().map(|value| T::from_f64(*value)).collect(),
            post,
            one_sided: classes == 2 && weights.all(|weight| Some(weight.target) == first),
            // A NaN counts as positive, as it does in ONNX Runtime.
            all_positive: !ensemble.weights.iter().any(|weight| weight.value < 0.0),
        })
    }

    /// Writes a class (an index into the labels) for each row, and `rows × classes` scores, on at
    /// most `threads` threads.
    ///
    /// With a single label the class is 1 for a score above 0, else 0: ONNX Runtime answers these
    /// numbers in place of a label. (It also does so for two labels if both have weights; the
    /// class is an index here, and means the label.)
    pub fn run<O: Real>(
        &self,
        rows: Rows<'_, T>,
        threads: usize,
        classes: &mut [usize],
        scores: &mut [O],
    ) -> Result<(), Error> {
        check_output("classes", classes.len(), rows.count(), 1)?;
        check_output("scores", scores.len(), rows.count(), self.trees.targets())?;
        let output = Output { classes, scores };
        self.trees.run(rows, threads, output, &|sums, seen, scores| match sums.len() {
            1 => self.finish_one(sums, scores),
            2 => self.finish_two(sums, seen, scores),
            _ => self.finish_many(sums, seen, scores),
        })
    }

    fn finish_one<O: Real>(&self, sums: &mut [T], scores: &mut [O]) -> usize {
        let mut sum = sums[0];
        if let [base] = self.base_values[..] {
            sum += base;
        }
        scores[0] = O::from_f64(self.post.apply_to_single(sum).to_f64());
        usize::from(sum > T::ZERO)
    }

    /// The greatest sum wins, the first one of equals, among the classes that any tree spoke for.
    fn finish_many<O: Real>(&self, sums: &mut [T], seen: &[bool], scores: &mut [O]) -> usize {
        let mut best = None;
        for (class, sum) in sums.iter_mut().enumerate() {
            if let Some(base) = self.base_values.get(class) {
                *sum += *base;
            } else if !seen[class] {
                continue;
            }
            if best.is_none_or(|(_, greatest)| *sum > greatest) {
                best = Some((class, *sum));
            }
        }
        self.post.apply(sums);
        copy(sums, scores);
        best.map_or(0, |(class, _)| class)
    }

    /// Two classes: often only one of them has weights, and the other's score follows from it.
    fn finish_two<O: Real>(&self, sums: &mut [T], seen: &[bool], scores: &mut [O]) -> usize {
        let mut both = seen[1];
        match self.base_values[..] {
            [base] => sums[0] += base,
            [_, base] if both => {
                // ONNX Runtime takes the second base value for both classes.
                sums[1] = sums[0] + base;
                sums[0] = T::from_f64(-sums[1].to_f64());
            }
            [base, other] => {
                sums[0] += base;
                sums[1] += other;
                both = true;
            }
            _ => {}
        }
        let positive = match (seen[1], seen[0]) {
            (true, _) => sums[1],
            (false, true) => sums[0],
            (false, false) => T::ZERO,
        };
        let threshold = T::from_f64(if self.one_sided && self.all_positive { 0.5 } else { 0.0 });
        if both {
            drop_unseen(sums, seen);
            self.post.apply(sums);
            copy(sums, scores);
        } else {
            let how = match (self.one_sided, self.all_positive) {
                (true, true) => SecondClass::Complement,
                _ => SecondClass::Negation,
            };
            copy(&how.expand(self.post, sums[0]), scores);
        }
        usize::from(positive > threshold)
    }
}

/// A score that no leaf spoke for is 0 to ONNX Runtime, even if there is a base value.
fn drop_unseen<T: Real>(scores: &mut [T], seen: &[bool]) {
    for (score, seen) in scores.iter_mut().zip(seen) {
        if !seen {
            *score = T::ZERO;
        }
    }
}

fn copy<T: Real, O: Real>(from: &[T], to: &mut [O]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = O::from_f64(from.to_f64());
    }
}
