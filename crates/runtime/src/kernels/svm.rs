//! Support vector machines: classification by pairwise votes (as libsvm), regression, one-class.

use super::linear::{dot, first_greatest};
use super::post::{PostTransform, SecondClass, logistic};
use super::{Rows, check_output, check_width};
use crate::Error;

/// How alike two rows are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kernel {
    /// `x · y`
    Linear,
    /// `(gamma x · y + coef0) ^ degree`
    Poly {
        /// Scale of the product.
        gamma: f32,
        /// What is added to it.
        coef0: f32,
        /// The power.
        degree: f32,
    },
    /// `exp(-gamma |x - y|²)`
    Rbf {
        /// Scale of the squared distance.
        gamma: f32,
    },
    /// `tanh(gamma x · y + coef0)`
    Sigmoid {
        /// Scale of the product.
        gamma: f32,
        /// What is added to it.
        coef0: f32,
    },
}

impl Kernel {
    /// The kernel of an ONNX name (`LINEAR`, `POLY`, `RBF`, `SIGMOID`) with ONNX's parameters
    /// `[gamma, coef0, degree]`; no parameters mean zeros, as in ONNX Runtime.
    pub fn from_name(name: &str, parameters: &[f32]) -> Result<Self, Error> {
        let [gamma, coef0, degree] = match parameters {
            [] => [0.0; 3],
            [gamma, coef0, degree] => [*gamma, *coef0, *degree],
            other => {
                return Err(Error::unsupported(format!(
                    "kernel_params: expected gamma, coef0 and degree, got {} values",
                    other.len()
                )));
            }
        };
        Ok(match name {
            "LINEAR" => Self::Linear,
            "POLY" => Self::Poly { gamma, coef0, degree },
            "RBF" => Self::Rbf { gamma },
            "SIGMOID" => Self::Sigmoid { gamma, coef0 },
            other => {
                return Err(Error::unsupported(format!(
                    "kernel_type: expected LINEAR, POLY, RBF or SIGMOID, got {other}"
                )));
            }
        })
    }

    fn of(self, left: &[f32], right: &[f32]) -> f32 {
        match self {
            Self::Linear => dot(left, right),
            Self::Rbf { gamma } => (-gamma * squared_distance(left, right)).exp(),
            Self::Sigmoid { gamma, coef0 } => (gamma * dot(left, right) + coef0).tanh(),
            Self::Poly { gamma, coef0, degree } => {
                let base = gamma * dot(left, right) + coef0;
                // A whole power of a negative base is exact this way, and faster.
                match degree {
                    2.0 => base * base,
                    3.0 => base * base * base,
                    _ => base.powf(degree),
                }
            }
        }
    }
}

fn squared_distance(left: &[f32], right: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let (left_chunks, left_rest) = left.as_chunks::<8>();
    let (right_chunks, right_rest) = right.as_chunks::<8>();
    for (l, r) in left_chunks.iter().zip(right_chunks) {
        for lane in 0..8 {
            let difference = l[lane] - r[lane];
            sums[lane] += difference * difference;
        }
    }
    let rest = left_rest.iter().zip(right_rest).map(|(l, r)| (l - r) * (l - r));
    sums.iter().sum::<f32>() + rest.sum::<f32>()
}

/// A support vector machine as plain arrays, under the names that ONNX has for them.
#[derive(Clone, Debug)]
pub struct SvmModel {
    /// How alike two rows are. Ignored without support vectors.
    pub kernel: Kernel,
    /// `vectors × features` values, vector after vector; empty for a linear model.
    pub support_vectors: Vec<f32>,
    /// Regression: one for each vector. Classification: `(classes - 1) × vectors`, as libsvm has
    /// them. Linear: `outputs × features` factors.
    pub coefficients: Vec<f32>,
    /// What is added: one for each pair of classes (libsvm's `-rho`), else a single value.
    pub rho: Vec<f32>,
}

impl SvmModel {
    /// Checks the arrays of a model with `vectors` support vectors and returns its features.
    fn features(&self, vectors: usize, outputs: usize) -> Result<usize, Error> {
        let (name, values, parts) = match vectors {
            0 => ("coefficients", self.coefficients.len(), outputs),
            _ => ("support_vectors", self.support_vectors.len(), vectors),
        };
        if parts == 0 || values == 0 || values % parts != 0 {
            return Err(Error::unsupported(format!(
                "{name}: expected the same number of values for each of {parts}, got {values}"
            )));
        }
        Ok(values / parts)
    }

    fn expect(what: &str, got: usize, wanted: usize) -> Result<(), Error> {
        if got >= wanted {
            return Ok(());
        }
        Err(Error::unsupported(format!("{what}: expected {wanted} values, got {got}")))
    }
}

/// Predicts one number for each row, or whether the row belongs to the one class.
#[derive(Clone, Debug)]
pub struct SvmRegressor {
    model: SvmModel,
    vectors: usize,
    features: usize,
    one_class: bool,
}

impl SvmRegressor {
    /// Checks the model, which has `vectors` support vectors (0 for a linear one).
    ///
    /// With `one_class` the answer is 1 for a score above 0, else -1.
    pub fn new(model: SvmModel, vectors: usize, one_class: bool) -> Result<Self, Error> {
        let features = model.features(vectors, 1)?;
        SvmModel::expect("rho", model.rho.len(), 1)?;
        SvmModel::expect("coefficients", model.coefficients.len(), vectors)?;
        Ok(Self { model, vectors, features, one_class })
    }

    /// How many columns a row must have.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Writes one prediction for each row.
    pub fn run(&self, rows: Rows<'_, f32>, predictions: &mut [f32]) -> Result<(), Error> {
        check_width(&rows, self.features)?;
        check_output("predictions", predictions.len(), rows.count(), 1)?;
        let SvmModel { kernel, support_vectors, coefficients, rho } = &self.model;
        for (index, prediction) in predictions.iter_mut().enumerate() {
            let row = rows.row(index);
            let sum = if self.vectors == 0 {
                dot(row, coefficients)
            } else {
                // Large terms of both signs nearly cancel out: single precision would show.
                let vectors = support_vectors.chunks_exact(self.features);
                let terms = vectors.zip(coefficients).map(|(v, factor)| kernel.of(row, v) * factor);
                terms.map(f64::from).sum::<f64>() as f32
            };
            let score = sum + rho[0];
            *prediction = match (self.one_class, score > 0.0) {
                (false, _) => score,
                (true, true) => 1.0,
                (true, false) => -1.0,
            };
        }
        Ok(())
    }
}

/// What a classifier has beside its [`SvmModel`].
#[derive(Clone, Debug, Default)]
pub struct SvmClasses {
    /// How many classes there are.
    pub classes: usize,
    /// How many support vectors belong to each class; empty for a linear model.
    pub vectors_per_class: Vec<usize>,
    /// Platt scaling for each pair of classes; empty for none.
    pub prob_a: Vec<f32>,
    /// Platt scaling for each pair of classes; empty for none.
    pub prob_b: Vec<f32>,
    /// What happens to a row's scores.
    pub post: PostTransform,
}

/// Predicts a class, and scores.
#[derive(Clone, Debug)]
pub struct SvmClassifier {
    model: SvmModel,
    classes: SvmClasses,
    vectors: usize,
    features: usize,
    all_positive: bool,
}

impl SvmClassifier {
    /// Checks the model.
    pub fn new(model: SvmModel, classes: SvmClasses) -> Result<Self, Error> {
        let vectors = classes
            .vectors_per_class
            .iter()
            .try_fold(0usize, |sum, count| sum.checked_add(*count))
            .ok_or_else(|| Error::unsupported("vectors_per_class: the sum is too large"))?;
        let features = model.features(vectors, classes.classes)?;
        if vectors == 0 {
            SvmModel::expect("rho", model.rho.len(), 1)?;
        } else {
            Self::check_pairs(&model, &classes, vectors)?;
        }
        if classes.prob_a.len() != classes.prob_b.len() {
            return Err(Error::unsupported(format!(
                "prob_a and prob_b: expected as many values in both, got {} and {}",
                classes.prob_a.len(),
                classes.prob_b.len()
            )));
        }
        let all_positive = model.coefficients.iter().all(|factor| *factor >= 0.0);
        Ok(Self { model, classes, vectors, features, all_positive })
    }

    fn check_pairs(model: &SvmModel, classes: &SvmClasses, vectors: usize) -> Result<(), Error> {
        let count = classes.classes;
        if count < 2 || classes.vectors_per_class.len() != count {
            return Err(Error::unsupported(format!(
                "vectors_per_class: expected one count for each of at least two classes, got {} \
                 for {count} classes",
                classes.vectors_per_class.len()
            )));
        }
        let pairs = (count.checked_mul(count - 1).map(|twice| twice / 2))
            .ok_or_else(|| Error::unsupported(format!("{count} classes are too many")))?;
        let factors = (count - 1).saturating_mul(vectors);
        SvmModel::expect("coefficients", model.coefficients.len(), factors)?;
        SvmModel::expect("rho", model.rho.len(), pairs)?;
        if !classes.prob_a.is_empty() {
            SvmModel::expect("prob_a", classes.prob_a.len(), pairs)?;
        }
        Ok(())
    }

    /// How many columns a row must have.
    pub fn features(&self) -> usize {
        self.features
    }

    /// How many scores it gives for a row: one for each class if the model is linear, has
    /// probabilities or has two classes; else one for each pair of classes, as ONNX Runtime does.
    pub fn scores(&self) -> usize {
        let classes = self.classes.classes;
        let by_class = self.vectors == 0 || !self.classes.prob_a.is_empty() || classes == 2;
        if by_class { classes } else { classes * (classes - 1) / 2 }
    }

    /// Writes a class (an index into the labels) for each row, and `rows × scores` scores.
    pub fn run(
        &self,
        rows: Rows<'_, f32>,
        classes: &mut [usize],
        scores: &mut [f32],
    ) -> Result<(), Error> {
        check_width(&rows, self.features)?;
        check_output("classes", classes.len(), rows.count(), 1)?;
        check_output("scores", scores.len(), rows.count(), self.scores())?;
        let count = self.classes.classes;
        let mut room = Room {
            kernels: vec![0.0; self.vectors],
            pairs: vec![0.0; if self.vectors == 0 { 0 } else { count * (count - 1) / 2 }],
            votes: vec![0; count],
        };
        for (index, scores) in scores.chunks_exact_mut(self.scores()).enumerate() {
            classes[index] = match self.vectors {
                0 => self.run_linear(rows.row(index), scores),
                _ => self.run_pairs(rows.row(index), scores, &mut room),
            };
        }
        Ok(())
    }

    fn run_linear(&self, row: &[f32], scores: &mut [f32]) -> usize {
        let factors = self.model.coefficients.chunks_exact(self.features);
        for (score, factors) in scores.iter_mut().zip(factors) {
            *score = dot(row, factors) + self.model.rho[0];
        }
        let mut class = first_greatest(scores);
        let greatest = scores[class];
        // Two classes without probabilities: a threshold decides, not the greater score.
        let threshold_met = if self.all_positive { greatest >= 0.5 } else { greatest > 0.0 };
        if scores.len() == 2 && self.classes.prob_a.is_empty() && threshold_met {
            class = 1;
        }
        match scores {
            [score] => *score = self.classes.post.apply_to_single(*score),
            scores => self.classes.post.apply(scores),
        }
        class
    }

    fn run_pairs(&self, row: &[f32], scores: &mut [f32], room: &mut Room) -> usize {
        let vectors = self.model.support_vectors.chunks_exact(self.features);
        for (value, vector) in room.kernels.iter_mut().zip(vectors) {
            *value = self.model.kernel.of(row, vector);
        }
        self.vote(room);
        let mut class = 0;
        for (candidate, votes) in room.votes.iter().enumerate() {
            if *votes > room.votes[class] {
                class = candidate;
            }
        }
        let post = self.classes.post;
        if !self.classes.prob_a.is_empty() {
            self.couple(&room.pairs, scores);
            post.apply(scores);
        } else if let ([margin], [first, second]) = (&*room.pairs, &mut *scores) {
            // ONNX Runtime takes the margin as a probability when a transform is asked for.
            let how = match post {
                PostTransform::None => SecondClass::Negation,
                _ => SecondClass::Complement,
            };
            [*first, *second] = how.expand(post, *margin);
        } else {
            scores.copy_from_slice(&room.pairs);
            post.apply(scores);
        }
        class
    }

    /// Decides every pair of classes from the kernel values, and counts the votes.
    ///
    /// Row `j - 1` of the coefficients holds, at the vectors of class `i < j`, the factors of the
    /// pair `(i, j)`; row `i` holds them at the vectors of class `j`.
    fn vote(&self, room: &mut Room) {
        let per_class = &self.classes.vectors_per_class;
        let rows = |index: usize| &self.model.coefficients[index * self.vectors..];
        room.votes.fill(0);
        let mut pair = 0;
        let mut start_i = 0;
        for i in 0..per_class.len() {
            let end_i = start_i + per_class[i];
            let mut start_j = end_i;
            for (j, count) in per_class.iter().enumerate().skip(i + 1) {
                let end_j = start_j + count;
                let sum = weighted(&rows(j - 1)[start_i..end_i], &room.kernels[start_i..end_i])
                    + weighted(&rows(i)[start_j..end_j], &room.kernels[start_j..end_j])
                    + f64::from(self.model.rho[pair]);
                room.pairs[pair] = sum as f32;
                room.votes[if sum > 0.0 { i } else { j }] += 1;
                pair += 1;
                start_j = end_j;
            }
            start_i = end_i;
        }
    }

    /// Probabilities of the classes from the margins of their pairs.
    fn couple(&self, margins: &[f32], probabilities: &mut [f32]) {
        /// Keeps a pair's probability off 0 and 1, where the coupling has no answer.
        const LEAST: f32 = 1e-7;
        let count = probabilities.len();
        let mut pairwise = vec![0.0; count * count];
        let mut pair = 0;
        for i in 0..count {
            for j in i + 1..count {
                let margin = margins[pair] * self.classes.prob_a[pair] + self.classes.prob_b[pair];
                let probability = (1.0 - logistic(margin)).clamp(LEAST, 1.0 - LEAST);
                pairwise[i * count + j] = probability;
                pairwise[j * count + i] = 1.0 - probability;
                pair += 1;
            }
        }
        couple_pairs(&pairwise, probabilities);
    }
}

/// Space that is used again for each row.
struct Room {
    kernels: Vec<f32>,
    pairs: Vec<f32>,
    votes: Vec<u32>,
}

/// Sums in double precision, where libsvm and ONNX Runtime do.
fn weighted(factors: &[f32], values: &[f32]) -> f64 {
    factors.iter().zip(values).map(|(f, v)| f64::from(f * v)).sum()
}

/// Pairwise coupling: Wu, Lin and Weng, "Probability estimates for multi-class classification by
/// pairwise coupling" (JMLR 5, 2004), algorithm 2.
///
/// `pairwise[i * count + j]` is the probability of `i` against `j`. The iteration stops at the
/// reference's tolerance, in its precision: going further would give other answers.
fn couple_pairs(pairwise: &[f32], probabilities: &mut [f32]) {
    let count = probabilities.len();
    let tolerance = 0.005 / count as f32;
    let mut matrix = vec![0.0f32; count * count];
    for i in 0..count {
        for j in (0..count).filter(|j| *j != i) {
            let against = pairwise[j * count + i];
            matrix[i * count + i] += against * against;
            matrix[i * count + j] = -against * pairwise[i * count + j];
        }
    }
    probabilities.fill(1.0 / count as f32);
    let mut products = vec![0.0f32; count];
    for _ in 0..100 {
        let mut quadratic = 0.0;
        for (i, product) in products.iter_mut().enumerate() {
            let row = &matrix[i * count..(i + 1) * count];
            *product = row.iter().zip(&*probabilities).map(|(q, p)| q * p).sum();
            quadratic += probabilities[i] * *product;
        }
        let error = products.iter().map(|p| (p - quadratic).abs()).fold(0.0, f32::max);
        if error < tolerance {
            break;
        }
        for i in 0..count {
            let diagonal = matrix[i * count + i];
            let step = (quadratic - products[i]) / diagonal;
            let scale = 1.0 + step;
            probabilities[i] += step;
            quadratic = (quadratic + step * (step * diagonal + 2.0 * products[i])) / scale / scale;
            for j in 0..count {
                products[j] = (products[j] + step * matrix[i * count + j]) / scale;
                probabilities[j] /= scale;
            }
        }
    }
}
