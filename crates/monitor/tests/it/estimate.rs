//! Estimates of performance without labels, against NannyML's on its own data.

use monitor::drift::estimate::{Calibration, Prediction, estimate};
use proptest::prelude::*;
use serde_json::Value;

fn numbers(text: &Value) -> Vec<f64> {
    text.as_str().unwrap().split(' ').map(|number| number.parse().unwrap()).collect()
}

fn bits(text: &Value) -> Vec<bool> {
    text.as_str().unwrap().chars().map(|bit| bit == '1').collect()
}

#[test]
fn estimates_are_as_nannyml_says() {
    let goldens: Value = serde_json::from_str(include_str!("../goldens/estimate.json")).unwrap();
    let labelled =
        numbers(&goldens["reference_scores"]).into_iter().zip(bits(&goldens["reference_labels"]));
    let calibration = Calibration::new(labelled).unwrap();
    let chunks = goldens["chunks"].as_array().unwrap();
    assert!(chunks.len() > 2);
    for chunk in chunks {
        let (scores, decided) = (numbers(&chunk["scores"]), bits(&chunk["decided"]));
        for (score, expected) in scores.iter().zip(chunk["calibrated"].as_array().unwrap()) {
            let found = calibration.probability(*score);
            assert!(
                (found - expected.as_f64().unwrap()).abs() < 1e-9,
                "{score}: {found}, {expected}"
            );
        }
        for (kind, calibrated) in [("expected", true), ("uncalibrated", false)] {
            let all = scores.iter().zip(&decided).map(|(score, positive)| Prediction {
                score: *score,
                probability: if calibrated { calibration.probability(*score) } else { *score },
                positive: *positive,
            });
            let found = serde_json::to_value(estimate(all).unwrap()).unwrap();
            for (name, expected) in chunk[kind].as_object().unwrap() {
                let value = found[name].get("value").unwrap_or(&found[name]).as_f64().unwrap();
                let expected = expected.as_f64().unwrap();
                assert!(
                    (value - expected).abs() < 1e-6,
                    "{kind} {name}: {value}, expected {expected}"
                );
            }
        }
    }
}

#[test]
fn intervals_hold_as_often_as_they_say() {
    let mut random = fastrand::Rng::with_seed(1);
    let mut held = [0; 5];
    let runs = 600;
    for _ in 0..runs {
        let all: Vec<Prediction> = (0..400)
            .map(|_| {
                let score = random.f64();
                Prediction { score, probability: score, positive: score > 0.4 }
            })
            .collect();
        let found = estimate(all.iter().copied()).unwrap();
        let labels: Vec<bool> = all.iter().map(|one| random.f64() < one.probability).collect();
        let count = |positive: bool, label: bool| {
            let same =
                |(one, known): &(&Prediction, &bool)| one.positive == positive && **known == label;
            all.iter().zip(&labels).filter(same).count() as f64
        };
        let (tp, fp) = (count(true, true), count(true, false));
        let (fn_, tn) = (count(false, true), count(false, false));
        let real = [
            (found.accuracy, (tp + tn) / 400.0),
            (found.precision, tp / (tp + fp)),
            (found.recall, tp / (tp + fn_)),
            (found.specificity, tn / (tn + fp)),
            (found.f1, 2.0 * tp / (2.0 * tp + fp + fn_)),
        ];
        for (held, (measure, real)) in held.iter_mut().zip(real) {
            *held += usize::from(measure.low <= real && real <= measure.high);
        }
    }
    // 95 %, give or take four standard deviations.
    assert!(held.iter().all(|held| (548..=591).contains(held)), "{held:?}");
}

#[test]
fn what_cannot_be_estimated_is_not() {
    assert_eq!(estimate([]), None);
    let bad = [(f64::NAN, 0.5), (0.5, f64::NAN), (0.5, 1.5), (f64::INFINITY, 0.5)];
    let bad = bad.map(|(score, probability)| Prediction { score, probability, positive: true });
    assert_eq!(estimate(bad), None);
    let sure = Prediction { score: 1.0, probability: 1.0, positive: false };
    let found = estimate([sure; 3]).unwrap();
    assert_eq!((found.roc_auc, found.precision.value, found.accuracy.value), (None, 0.0, 0.0));
    assert_eq!(Calibration::new([]), None);
    assert!(Calibration::new([(0.5, true)]).unwrap().probability(f64::NAN).is_nan());
}

proptest! {
    #[test]
    fn calibration_ascends_and_keeps_the_mean(
        labelled in prop::collection::vec((0u8..40, any::<bool>()), 1..200),
    ) {
        let all: Vec<(f64, bool)> = labelled.iter().map(|(s, l)| (f64::from(*s), *l)).collect();
        let calibration = Calibration::new(all.iter().copied()).unwrap();
        let found: Vec<f64> = (0..=400).map(|i| calibration.probability(f64::from(i) / 10.0 - 1.0)).collect();
        prop_assert!(found.windows(2).all(|pair| pair[0] <= pair[1] + 1e-12));
        prop_assert!(found.iter().all(|p| (0.0..=1.0).contains(p)));
        let sum: f64 = all.iter().map(|(score, _)| calibration.probability(*score)).sum();
        let positive = all.iter().filter(|(_, label)| *label).count() as f64;
        prop_assert!((sum - positive).abs() < 1e-9);
    }
}
