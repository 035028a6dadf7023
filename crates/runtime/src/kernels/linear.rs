//! Linear regression and classification.

use super::post::{PostTransform, SecondClass};
use super::{Rows, check_output, check_width};
use crate::Error;

/// A linear model as plain arrays.
#[derive(Clone, Debug, Default)]
pub struct LinearModel {
    /// `outputs × features` factors, output after output.
    pub coefficients: Vec<f32>,
    /// What is added for each output; empty for none.
    pub intercepts: Vec<f32>,
    /// Targets of a regression, or the scores that a classifier computes: one for each class, or
    /// a single one for two classes.
    pub outputs: usize,
    /// What happens to a row's scores.
    pub post: PostTransform,
}

/// The checked model: scores of all outputs for each row.
#[derive(Clone, Debug)]
struct Linear {
    model: LinearModel,
    features: usize,
}

impl Linear {
    fn new(mut model: LinearModel) -> Result<Self, Error> {
        let LinearModel { coefficients, intercepts, outputs, .. } = &mut model;
        if *outputs == 0 || coefficients.is_empty() || !coefficients.len().is_multiple_of(*outputs)
        {
            return Err(Error::unsupported(format!(
                "a linear model of {outputs} outputs needs as many coefficients for each of them, \
                 got {}",
                coefficients.len()
            )));
        }
        if intercepts.is_empty() {
            intercepts.resize(*outputs, 0.0);
        }
        if intercepts.len() != *outputs {
            return Err(Error::unsupported(format!(
                "a linear model of {outputs} outputs needs as many intercepts, got {}",
                intercepts.len()
            )));
        }
        let features = coefficients.len() / *outputs;
        Ok(Self { model, features })
    }

    /// The raw scores of one row.
    fn scores(&self, row: &[f32], scores: &mut [f32]) {
        let LinearModel { coefficients, intercepts, .. } = &self.model;
        let factors = coefficients.chunks_exact(self.features);
        for ((score, factors), intercept) in scores.iter_mut().zip(factors).zip(intercepts) {
            *score = dot(row, factors) + intercept;
        }
    }
}

/// The sum of products, in eight partial sums: short chains, and less rounding than one.
pub(super) fn dot(left: &[f32], right: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let (left_chunks, left_rest) = left.as_chunks::<8>();
    let (right_chunks, right_rest) = right.as_chunks::<8>();
    for (l, r) in left_chunks.iter().zip(right_chunks) {
        for lane in 0..8 {
            sums[lane] += l[lane] * r[lane];
        }
    }
    let rest: f32 = left_rest.iter().zip(right_rest).map(|(l, r)| l * r).sum();
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + e) + (b + f)) + ((c + g) + (d + h)) + rest
}

/// Predicts one number or several for each row.
#[derive(Clone, Debug)]
pub struct LinearRegressor(Linear);

impl LinearRegressor {
    /// Checks the model.
    pub fn new(model: LinearModel) -> Result<Self, Error> {
        Linear::new(model).map(Self)
    }

    /// How many columns a row must have.
    pub fn features(&self) -> usize {
        self.0.features
    }

    /// How many numbers it predicts for a row.
    pub fn targets(&self) -> usize {
        self.0.model.outputs
    }

    /// Writes `rows × targets` predictions.
    ///
    /// A single target is only transformed by `PROBIT`, as ONNX Runtime does.
    pub fn run(&self, rows: Rows<'_, f32>, predictions: &mut [f32]) -> Result<(), Error> {
        check_width(&rows, self.features())?;
        check_output("predictions", predictions.len(), rows.count(), self.targets())?;
        let post = self.0.model.post;
        for (index, scores) in predictions.chunks_exact_mut(self.targets()).enumerate() {
            self.0.scores(rows.row(index), scores);
            match scores {
                [score] => *score = post.apply_to_single(*score),
                scores => post.apply(scores),
            }
        }
        Ok(())
    }
}

/// Predicts a class, and a score for each class.
#[derive(Clone, Debug)]
pub struct LinearClassifier {
    linear: Linear,
    second: bool,
}

impl LinearClassifier {
    /// Checks the model. `classes` is the number of labels: 2 with a model of a single output
    /// makes that output the score of the second class.
    pub fn new(model: LinearModel, classes: usize) -> Result<Self, Error> {
        let second = model.outputs == 1 && classes == 2;
        // With one output, ONNX Runtime takes any number of labels and answers 0 or 1.
        if model.outputs > 1 && classes < model.outputs {
            return Err(Error::unsupported(format!(
                "a linear classifier of {} outputs needs as many class labels, got {classes}",
                model.outputs
            )));
        }
        Ok(Self { linear: Linear::new(model)?, second })
    }

    /// How many columns a row must have.
    pub fn features(&self) -> usize {
        self.linear.features
    }

    /// How many scores it gives for a row: one for each class, or a single one if the model has
    /// one output and no two labels.
    pub fn scores(&self) -> usize {
        if self.second { 2 } else { self.linear.model.outputs }
    }

    /// Writes a class (an index into the labels) for each row, and `rows × scores` scores.
    ///
    /// The class is the first of those with the greatest raw score; a single output means class 1
    /// if it is above 0, else class 0. The scores of a single output with two labels are those of
    /// [`SecondClass::Complement`].
    pub fn run(
        &self,
        rows: Rows<'_, f32>,
        classes: &mut [usize],
        scores: &mut [f32],
    ) -> Result<(), Error> {
        check_width(&rows, self.features())?;
        check_output("classes", classes.len(), rows.count(), 1)?;
        check_output("scores", scores.len(), rows.count(), self.scores())?;
        let post = self.linear.model.post;
        let outputs = self.linear.model.outputs;
        for (index, scores) in scores.chunks_exact_mut(self.scores()).enumerate() {
            self.linear.scores(rows.row(index), &mut scores[..outputs]);
            if outputs > 1 {
                classes[index] = first_greatest(scores);
                post.apply(scores);
                continue;
            }
            classes[index] = usize::from(scores[0] > 0.0);
            match scores {
                [score] => *score = post.apply_to_single(*score),
                both => both.copy_from_slice(&SecondClass::Complement.expand(post, both[0])),
            }
        }
        Ok(())
    }
}

/// The index of the greatest score, the first one of equals. NaN is only picked in first place.
pub(super) fn first_greatest(scores: &[f32]) -> usize {
    let mut best = 0;
    for (index, score) in scores.iter().enumerate().skip(1) {
        if *score > scores[best] {
            best = index;
        }
    }
    best
}
