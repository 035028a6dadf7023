//! Post transforms: from raw scores to what a model answers.
//!
//! The formulas are those of the ONNX-ML specification as ONNX Runtime evaluates them: always in
//! single precision, `PROBIT` by an approximation of the inverse error function.

use super::Real;

/// What happens to the scores of a row after they have been summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PostTransform {
    /// They stay as they are.
    #[default]
    None,
    /// Each goes through the logistic function.
    Logistic,
    /// They become shares of 1 by their exponentials.
    Softmax,
    /// As [`Softmax`](Self::Softmax), except that scores of 0 stay 0.
    SoftmaxZero,
    /// Each goes through the inverse of the normal distribution's cumulative function.
    Probit,
}

impl PostTransform {
    /// The transform of an ONNX name such as `SOFTMAX_ZERO`; `None` if there is no such name.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "NONE" => Self::None,
            "LOGISTIC" => Self::Logistic,
            "SOFTMAX" => Self::Softmax,
            "SOFTMAX_ZERO" => Self::SoftmaxZero,
            "PROBIT" => Self::Probit,
            _ => return None,
        })
    }

    /// The transform of an ONNX number, as operator `TreeEnsemble` (opset 5) has it:
    /// 0 NONE, 1 SOFTMAX, 2 LOGISTIC, 3 SOFTMAX_ZERO, 4 PROBIT.
    pub fn from_code(code: i64) -> Option<Self> {
        Some(match code {
            0 => Self::None,
            1 => Self::Softmax,
            2 => Self::Logistic,
            3 => Self::SoftmaxZero,
            4 => Self::Probit,
            _ => return None,
        })
    }

    /// Transforms the scores of one row that has at least two.
    ///
    /// A row of a single score follows [`apply_to_single`](Self::apply_to_single).
    pub fn apply<T: Real>(self, scores: &mut [T]) {
        match self {
            Self::None => {}
            Self::Logistic => each(scores, logistic),
            Self::Probit => each(scores, probit),
            Self::Softmax => softmax(scores),
            Self::SoftmaxZero => softmax_zero(scores),
        }
    }

    /// Transforms the only score of a row: ONNX Runtime applies `PROBIT` there and nothing else.
    pub fn apply_to_single<T: Real>(self, score: T) -> T {
        match self {
            Self::Probit => T::from_f64(probit(score.to_f32()).into()),
            _ => score,
        }
    }
}

/// How one score of a model with two classes becomes two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecondClass {
    /// The score is a probability `p`: `[1 - p, p]`.
    Complement,
    /// The score is a margin `s`: `[-s, s]`.
    Negation,
}

impl SecondClass {
    /// The two scores, negative class first.
    ///
    /// Under `LOGISTIC` they are the logistic values of `[-s, s]` either way, under `PROBIT` the
    /// complement of the transformed score; no other transform is applied, as in ONNX Runtime.
    pub fn expand<T: Real>(self, post: PostTransform, score: T) -> [T; 2] {
        let from = |value: f32| T::from_f64(value.into());
        match (self, post) {
            (_, PostTransform::Probit) => {
                let p = probit(score.to_f32());
                [from(1.0 - p), from(p)]
            }
            (_, PostTransform::Logistic) => {
                [from(logistic(-score.to_f32())), from(logistic(score.to_f32()))]
            }
            (Self::Complement, _) => [T::from_f64(1.0 - score.to_f64()), score],
            (Self::Negation, _) => [T::from_f64(-score.to_f64()), score],
        }
    }
}

fn each<T: Real>(scores: &mut [T], function: fn(f32) -> f32) {
    for score in scores {
        *score = T::from_f64(function(score.to_f32()).into());
    }
}

/// The logistic function, kept exact for large negative scores.
pub fn logistic(score: f32) -> f32 {
    let upper = 1.0 / (1.0 + (-score.abs()).exp());
    if score < 0.0 { 1.0 - upper } else { upper }
}

/// The inverse of the standard normal distribution's cumulative function, approximated.
///
/// Only finite for scores strictly between 0 and 1.
pub fn probit(score: f32) -> f32 {
    std::f32::consts::SQRT_2 * inverse_error_function(2.0 * score - 1.0)
}

/// Winitzki's approximation with a = 0.147 (relative error about 2e-3), the one that models in
/// use were checked with; a better one would give other answers.
fn inverse_error_function(x: f32) -> f32 {
    const A: f32 = 0.147;
    // Not the constant π: the reference has this many digits.
    #[allow(clippy::approx_constant)]
    const PI: f32 = 3.14159;
    let log = ((1.0 - x) * (1.0 + x)).ln();
    let half = 2.0 / (PI * A) + 0.5 * log;
    let root = (half * half - log / A).sqrt() - half;
    if x < 0.0 { -root.sqrt() } else { root.sqrt() }
}

fn softmax<T: Real>(scores: &mut [T]) {
    let greatest = greatest(scores);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        let value = (score.to_f32() - greatest).exp();
        sum += value;
        *score = T::from_f64(value.into());
    }
    for score in scores {
        *score = T::from_f64((score.to_f32() / sum).into());
    }
}

fn softmax_zero<T: Real>(scores: &mut [T]) {
    // Scores this near to 0 count as "no score".
    const NEARLY_ZERO: f32 = 1e-7;
    let greatest = greatest(scores);
    let scale = (-greatest).exp();
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        let value = score.to_f32();
        let value = if value.abs() > NEARLY_ZERO {
            let value = (value - greatest).exp();
            sum += value;
            value
        } else {
            value * scale
        };
        *score = T::from_f64(value.into());
    }
    for score in scores {
        *score = T::from_f64((score.to_f32() / sum).into());
    }
}

fn greatest<T: Real>(scores: &[T]) -> f32 {
    // `f32::max` would do the same but for NaN, which the reference never picks either.
    scores.iter().map(|s| s.to_f32()).fold(f32::MIN, f32::max)
}
