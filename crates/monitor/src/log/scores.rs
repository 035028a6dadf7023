//! How good predictions were, once it is known what they should have been. Pure; every figure is
//! scikit-learn's of the same name, with the weights of the rows as sample weights.

use std::collections::BTreeMap;

use serde::Serialize;

/// Bins of the calibration curve, of equal width from 0 to 1.
pub const BINS: usize = 10;

/// A prediction of a class, and the class that it should have been.
#[derive(Clone, Debug, PartialEq)]
pub struct Classified {
    /// The place of the class that was predicted.
    pub predicted: usize,
    /// The place of the class that was right.
    pub actual: usize,
    /// The probability of each class, or nothing if the model does not say.
    pub probabilities: Vec<f64>,
    /// How many predictions it stands for.
    pub weight: f64,
}

/// A number that was predicted, and what it should have been.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimated {
    /// What was predicted.
    pub predicted: f64,
    /// What was right.
    pub actual: f64,
    /// How many predictions it stands for.
    pub weight: f64,
}

/// How good classes were predicted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Classification {
    /// The part that was right.
    pub accuracy: f64,
    /// Each class, in order.
    pub classes: Vec<OfClass>,
    /// The weight of what was predicted as the column's class and is the row's.
    pub confusion: Vec<Vec<f64>>,
    /// The area under the curve of true over false positives: of the second class of two, or
    /// the mean of each against the rest. Nothing without probabilities or with a class that does
    /// not occur.
    pub roc_auc: Option<f64>,
    /// The mean of -ln of the right class's probability.
    pub log_loss: Option<f64>,
    /// The mean square between probability and what came: of the second class of two; summed over
    /// the classes of more.
    pub brier: Option<f64>,
    /// The mean distance of the calibration curve from the diagonal, weighted.
    pub calibration_error: Option<f64>,
    /// Where there is anything in a bin: the mean probability and the part that came. Of the second
    /// class of two, or of the most probable of more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calibration: Vec<Calibrated>,
}

/// How good one class was predicted. Nothing where it divides by 0.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OfClass {
    /// Its name.
    pub class: String,
    /// Of those predicted as it, the part that is.
    pub precision: Option<f64>,
    /// Of those that are, the part predicted as it.
    pub recall: Option<f64>,
    /// The harmonic mean of both.
    pub f1: Option<f64>,
    /// The weight of those that are.
    pub support: f64,
}

/// A bin of the calibration curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Calibrated {
    /// The mean of the probabilities in it.
    pub predicted: f64,
    /// The part that came.
    pub observed: f64,
    /// The weight of what is in it.
    pub weight: f64,
}

/// How good numbers were predicted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Regression {
    /// The mean of the distances.
    pub mean_absolute_error: f64,
    /// The root of the mean of their squares.
    pub root_mean_squared_error: f64,
    /// The mean of predicted - actual: above 0 where too much is predicted.
    pub bias: f64,
    /// The part of the variance that is explained; nothing where there is none.
    pub r2: Option<f64>,
}

/// Scores classes, whose names give their number and order. Nothing if there are no cases.
pub fn classification(cases: &[Classified], names: &[String]) -> Option<Classification> {
    let count = names.len();
    let total: f64 = cases.iter().map(|case| case.weight).sum();
    if total <= 0.0 {
        return None;
    }
    let mut confusion = vec![vec![0.0; count]; count];
    for case in cases {
        *confusion.get_mut(case.actual)?.get_mut(case.predicted)? += case.weight;
    }
    let ratio = |a: f64, b: f64| (b > 0.0).then(|| a / b);
    let classes = names.iter().enumerate().map(|(k, name)| {
        let (hit, support) = (confusion[k][k], confusion[k].iter().sum::<f64>());
        let named: f64 = confusion.iter().map(|row| row[k]).sum();
        OfClass {
            class: name.clone(),
            precision: ratio(hit, named),
            recall: ratio(hit, support),
            f1: ratio(2.0 * hit, named + support),
            support,
        }
    });
    let right: f64 = (0..count).map(|k| confusion[k][k]).sum();
    let classes = classes.collect();
    let known = cases.iter().all(|case| case.probabilities.len() == count) && count >= 2;
    let calibration = if known { calibration(cases, count) } else { Vec::new() };
    let error = calibration.iter().map(|bin| bin.weight * (bin.predicted - bin.observed).abs());
    Some(Classification {
        accuracy: right / total,
        classes,
        confusion,
        roc_auc: known.then(|| areas(cases, count)).flatten(),
        log_loss: known.then(|| log_loss(cases) / total),
        brier: known.then(|| brier(cases, count) / total),
        calibration_error: known.then(|| error.sum::<f64>() / total),
        calibration,
    })
}

fn areas(cases: &[Classified], count: usize) -> Option<f64> {
    let of = |class: usize| {
        let scored =
            cases.iter().map(|case| (case.probabilities[class], case.actual == class, case.weight));
        area(scored.collect())
    };
    match count {
        2 => of(1),
        _ => Some((0..count).map(of).sum::<Option<f64>>()? / count as f64),
    }
}

/// The chance that one that is so has a higher score than one that is not; ties count half.
fn area(mut scored: Vec<(f64, bool, f64)>) -> Option<f64> {
    scored.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut positive, mut sum) = (0.0, 0.0, 0.0);
    for tied in scored.chunk_by(|a, b| a.0 == b.0) {
        let weight = |so: bool| tied.iter().filter(|one| one.1 == so).map(|one| one.2).sum::<f64>();
        let (are, are_not) = (weight(true), weight(false));
        sum += are * (below + are_not / 2.0);
        below += are_not;
        positive += are;
    }
    (below > 0.0 && positive > 0.0).then(|| sum / (below * positive))
}

fn log_loss(cases: &[Classified]) -> f64 {
    let loss = |case: &Classified| {
        let p = case.probabilities[case.actual].clamp(f64::EPSILON, 1.0 - f64::EPSILON);
        -case.weight * p.ln()
    };
    cases.iter().map(loss).sum()
}

fn brier(cases: &[Classified], count: usize) -> f64 {
    let square = |case: &Classified, class: usize| {
        let came = f64::from(u8::from(case.actual == class));
        (case.probabilities[class] - came).powi(2)
    };
    let of = |case: &Classified| match count {
        2 => square(case, 1),
        _ => (0..count).map(|class| square(case, class)).sum(),
    };
    cases.iter().map(|case| case.weight * of(case)).sum()
}

fn calibration(cases: &[Classified], count: usize) -> Vec<Calibrated> {
    let mut bins = vec![(0.0, 0.0, 0.0); BINS];
    for case in cases {
        let class = if count == 2 { 1 } else { highest(&case.probabilities) };
        let probability = case.probabilities[class];
        // A probability on a border is in the bin below it, as with scikit-learn.
        let bin = ((probability * BINS as f64).ceil() as usize).clamp(1, BINS) - 1;
        let (predicted, observed, weight) = &mut bins[bin];
        *predicted += case.weight * probability;
        *observed += case.weight * f64::from(u8::from(case.actual == class));
        *weight += case.weight;
    }
    let filled = bins.into_iter().filter(|(_, _, weight)| *weight > 0.0);
    filled
        .map(|(predicted, observed, weight)| Calibrated {
            predicted: predicted / weight,
            observed: observed / weight,
            weight,
        })
        .collect()
}

/// The place of the highest number; the first of equal ones.
pub fn highest(numbers: &[f64]) -> usize {
    let mut best = 0;
    for (place, number) in numbers.iter().enumerate() {
        if *number > numbers[best] {
            best = place;
        }
    }
    best
}

/// Scores numbers. Nothing if there are no cases.
pub fn regression(cases: &[Estimated]) -> Option<Regression> {
    let total: f64 = cases.iter().map(|case| case.weight).sum();
    if total <= 0.0 {
        return None;
    }
    let mean = |of: &dyn Fn(&Estimated) -> f64| {
        cases.iter().map(|case| case.weight * of(case)).sum::<f64>() / total
    };
    let actual = mean(&|case| case.actual);
    let square = mean(&|case| (case.predicted - case.actual).powi(2));
    let variance = mean(&|case| (case.actual - actual).powi(2));
    Some(Regression {
        mean_absolute_error: mean(&|case| (case.predicted - case.actual).abs()),
        root_mean_squared_error: square.sqrt(),
        bias: mean(&|case| case.predicted - case.actual),
        r2: (variance > 0.0).then(|| 1.0 - square / variance),
    })
}

/// Cases by the value of something, the most weight first; of more than `most` values the rest
/// together under `rest`.
pub fn slices<T: Clone>(
    cases: &[(String, T)],
    weight: impl Fn(&T) -> f64,
    (most, rest): (usize, &str),
) -> Vec<(String, Vec<T>)> {
    let mut groups: BTreeMap<&str, (f64, Vec<T>)> = BTreeMap::new();
    for (value, case) in cases {
        let group = groups.entry(value).or_default();
        group.0 += weight(case);
        group.1.push(case.clone());
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
    let others = groups.split_off(groups.len().min(most));
    let mut slices: Vec<(String, Vec<T>)> =
        groups.into_iter().map(|(value, (_, cases))| (value.to_owned(), cases)).collect();
    if !others.is_empty() {
        let cases = others.into_iter().flat_map(|(_, (_, cases))| cases).collect();
        slices.push((rest.to_owned(), cases));
    }
    slices
}
