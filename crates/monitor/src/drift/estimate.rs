//! How well a binary classifier does, before anybody knows what was right: from how sure it says
//! to be (confidence-based performance estimation, as NannyML defines it).
//!
//! A prediction with the probability `p` is right with that probability, if probabilities mean what
//! they say. So they are [calibrated](Calibration) first, on data of which the labels are known; what
//! no calibration sees is a change of what the features *mean* for the label.
//!
//! ```
//! use monitor::drift::estimate::{Prediction, estimate};
//!
//! let sure = |score: f64| Prediction { score, probability: score, positive: score >= 0.5 };
//! let estimated = estimate([0.9, 0.8, 0.1].map(sure).iter().copied()).unwrap();
//! assert!((estimated.accuracy.value - (0.9 + 0.8 + 0.9) / 3.0).abs() < 1e-12);
//! ```

use serde::Serialize;

/// What the interval of an estimate is wide by, in deviations: 95 % of the normal distribution.
const DEVIATIONS: f64 = 1.959_963_984_540_054;

/// One prediction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// What the model gave.
    pub score: f64,
    /// The calibrated probability that the label is positive, from 0 to 1.
    pub probability: f64,
    /// What was decided.
    pub positive: bool,
}

/// A measure as it is expected to be, and where it lies in 95 of 100 cases by the chance of the labels
/// alone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Measure {
    /// The estimate.
    pub value: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
}

/// What is expected of predictions. A measure that divides by nothing is 0, as NannyML has it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs)] // Each field is its own name.
pub struct Estimate {
    pub rows: u64,
    pub accuracy: Measure,
    pub precision: Measure,
    pub recall: Measure,
    pub specificity: Measure,
    pub f1: Measure,
    /// Nothing if all labels are expected to be the same. It has no interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roc_auc: Option<f64>,
}

/// Estimates each measure; nothing if there is no prediction. Those whose score or probability is no
/// number are passed over.
pub fn estimate(predictions: impl IntoIterator<Item = Prediction>) -> Option<Estimate> {
    let usable = |one: &Prediction| one.score.is_finite() && (0.0..=1.0).contains(&one.probability);
    let mut all: Vec<Prediction> = predictions.into_iter().filter(usable).collect();
    if all.is_empty() {
        return None;
    }
    let (mut right, mut wrong) = ([0.0; 2], [0.0; 2]);
    // What the chance of a label adds to the variance is the same on either side of the decision.
    let mut variance = [0.0; 2];
    for one in &all {
        let side = usize::from(one.positive);
        let hit = if one.positive { one.probability } else { 1.0 - one.probability };
        right[side] += hit;
        wrong[side] += 1.0 - hit;
        variance[side] += hit * (1.0 - hit);
    }
    let ([tn, tp], [fn_, fp], [of_no, of_yes]) = (right, wrong, variance);
    // By the delta method: how the measure moves with each count that chance moves.
    let measure = |value: f64, by_yes: f64, by_no: f64, over: f64| {
        let value = if over > 0.0 { value / over } else { 0.0 };
        let spread = (by_yes * by_yes * of_yes + by_no * by_no * of_no).sqrt();
        let half = if over > 0.0 { DEVIATIONS * spread / over } else { 0.0 };
        Measure { value, low: (value - half).max(0.0), high: (value + half).min(1.0) }
    };
    let part = |of: f64, all: f64| if all > 0.0 { of / all } else { 0.0 };
    let (recall, specificity) = (part(tp, tp + fn_), part(tn, tn + fp));
    let f1 = part(tp, tp + 0.5 * (fp + fn_));
    Some(Estimate {
        rows: all.len() as u64,
        accuracy: measure(tp + tn, 1.0, 1.0, all.len() as f64),
        precision: measure(tp, 1.0, 0.0, tp + fp),
        recall: measure(tp, 1.0 - recall, recall, tp + fn_),
        specificity: measure(tn, specificity, 1.0 - specificity, tn + fp),
        f1: measure(2.0 * tp, 2.0 - f1, f1, 2.0 * tp + fp + fn_),
        roc_auc: roc_auc(&mut all),
    })
}

/// The area under the curve of expected true over expected false positives, from the highest
/// score down.
fn roc_auc(predictions: &mut [Prediction]) -> Option<f64> {
    predictions.sort_by(|a, b| b.score.total_cmp(&a.score));
    let (mut hits, mut misses, mut area) = (0.0, 0.0, 0.0);
    for one in predictions.iter() {
        let (before, miss) = (hits, 1.0 - one.probability);
        hits += one.probability;
        misses += miss;
        area += miss * (before + hits) / 2.0;
    }
    (hits > 0.0 && misses > 0.0).then(|| area / (hits * misses))
}

/// From scores to probabilities: the ascending function that is closest to the labels (isotonic
/// regression by pooling adjacent violators), with lines between its points, and level beyond them.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    points: Vec<(f64, f64)>,
}

impl Calibration {
    /// Learns from scores and labels; nothing if there is no finite score.
    pub fn new(labelled: impl IntoIterator<Item = (f64, bool)>) -> Option<Self> {
        let mut all: Vec<(f64, bool)> =
            labelled.into_iter().filter(|(score, _)| score.is_finite()).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        // Scores from and to, the sum of their labels, and how many there are.
        let mut blocks: Vec<(f64, f64, f64, f64)> = Vec::new();
        for same in all.chunk_by(|a, b| a.0 == b.0) {
            let positive = same.iter().filter(|(_, label)| *label).count() as f64;
            blocks.push((same[0].0, same[0].0, positive, same.len() as f64));
            while let [.., a, b] = &blocks[..]
                && a.2 / a.3 >= b.2 / b.3
            {
                let pooled = (a.0, b.1, a.2 + b.2, a.3 + b.3);
                blocks.truncate(blocks.len() - 2);
                blocks.push(pooled);
            }
        }
        let mut points = Vec::with_capacity(2 * blocks.len());
        for (from, to, positive, count) in blocks {
            points.push((from, positive / count));
            if to > from {
                points.push((to, positive / count));
            }
        }
        (!points.is_empty()).then_some(Self { points })
    }

    /// The probability that a score stands for; NaN for NaN.
    pub fn probability(&self, score: f64) -> f64 {
        let after = self.points.partition_point(|(known, _)| *known < score);
        match (after.checked_sub(1).map(|i| self.points[i]), self.points.get(after).copied()) {
            _ if score.is_nan() => f64::NAN,
            (Some((from, low)), Some((to, high))) => {
                low + (high - low) * (score - from) / (to - from)
            }
            (None, Some((_, only))) | (Some((_, only)), None) => only,
            (None, None) => f64::NAN,
        }
    }
}
