//! Statistics against scipy's and Evidently's on real data, and verdicts.

use monitor::drift::{
    Change, Column, Measured, Numbers, Report, Settings, Side, Texts, Verdict, What, measure,
    significance, statistics,
};
use proptest::prelude::*;
use serde_json::Value;

fn goldens() -> Value {
    serde_json::from_str(include_str!("../goldens/drift.json")).unwrap()
}

fn numbers(values: impl IntoIterator<Item = f64>, whole: bool) -> Column {
    Numbers::new(values.into_iter().collect(), 0, whole).into()
}

fn texts<'a>(values: impl IntoIterator<Item = &'a str>) -> Column {
    let mut texts = Texts::default();
    values.into_iter().for_each(|text| texts.insert(text));
    texts.finish()
}

/// Equal to a millionth, of the number where it is large.
fn check(what: &str, found: f64, expected: f64) {
    let off = (found - expected).abs();
    assert!(off <= 1e-6 * expected.abs().max(1e-3), "{what}: {found}, expected {expected}");
}

fn check_all(case: &Value, measured: &Measured) {
    let found = serde_json::to_value(measured.statistics).unwrap();
    let expected = case["expected"].as_object().unwrap();
    assert!(expected.len() >= 5);
    for (name, expected) in expected {
        let what = format!("{}: {name}", case["name"]);
        match expected.as_f64() {
            Some(expected) => check(&what, found[name].as_f64().expect(&what), expected),
            None => assert!(found[name].is_null(), "{what}: not finite"),
        }
    }
}

#[test]
fn numbers_are_as_scipy_and_evidently_say() {
    let goldens = goldens();
    let cases = goldens["numbers"].as_array().unwrap();
    assert!(cases.len() > 25);
    for case in cases {
        let side = |name: &str| {
            let values = case[name].as_str().unwrap().split(' ').map(|v| v.parse().unwrap());
            numbers(values, case["whole"].as_bool().unwrap())
        };
        check_all(case, &measure("x", &side("before"), &side("after")));
    }
}

#[test]
fn texts_are_as_scipy_and_evidently_say() {
    for case in goldens()["texts"].as_array().unwrap() {
        let side = |name: &str| {
            texts(case[name].as_array().unwrap().iter().map(|text| text.as_str().unwrap()))
        };
        check_all(case, &measure("x", &side("before"), &side("after")));
    }
}

#[test]
fn large_samples_are_as_scipy_and_evidently_say() {
    for case in goldens()["large"].as_array().unwrap() {
        let sample = |side: usize, factor: f64, offset: f64| {
            let n = case["sizes"][side].as_u64().unwrap();
            let part = |i: u64| (i * 2_654_435_761 % (1 << 32)) as f64 / (1u64 << 32) as f64;
            numbers((1..=n).map(|i| (part(i) * factor + offset).powi(2)), false)
        };
        let (factor, offset) = (case["factor"].as_f64().unwrap(), case["offset"].as_f64().unwrap());
        check_all(case, &measure("x", &sample(0, 1.0, 0.0), &sample(1, factor, offset)));
    }
}

#[test]
fn chances_are_as_scipy_says() {
    let goldens = goldens();
    let of =
        |name: &str| -> Vec<Vec<f64>> { serde_json::from_value(goldens[name].clone()).unwrap() };
    for row in of("kstwo") {
        // As if the other sample were the distribution itself.
        let (n, d) = (row[0], row[1]);
        let found = significance::kolmogorov_smirnov_limit(n, d);
        check(&format!("kstwo.sf({d}, {n})"), found, row[2]);
    }
    for row in of("chi2") {
        let found = significance::chi_squared(row[0], row[1]);
        check(&format!("chi2.sf({}, {})", row[0], row[1]), found, row[2]);
    }
    for row in of("fisher") {
        let side = |i: usize| (row[i] as u64, row[i + 1] as u64);
        check(&format!("{row:?}"), significance::parts(side(0), side(2)), row[4]);
    }
}

fn normal(random: &mut fastrand::Rng) -> f64 {
    (-2.0 * (1.0 - random.f64()).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos()
}

fn sample(random: &mut fastrand::Rng, n: usize, shift: f64) -> Column {
    numbers((0..n).map(|_| normal(random) + shift), false)
}

fn verdict(before: &Column, after: &Column) -> Verdict {
    let measured = vec![measure("x", before, after)];
    Report::new(measured, Vec::new(), Settings::default()).columns[0].verdict
}

#[test]
fn a_verdict_does_not_depend_on_how_many_rows_there_are() {
    let mut random = fastrand::Rng::with_seed(1);
    for n in [1_000, 10_000, 100_000] {
        let before = sample(&mut random, n, 0.0);
        // A shift that p-values alone would call significant from some size on.
        for (shift, expected) in
            [(0.0, Verdict::Stable), (0.05, Verdict::Stable), (0.5, Verdict::Drifted)]
        {
            let after = sample(&mut random, n, shift);
            assert_eq!(verdict(&before, &after), expected, "{n} rows, {shift}");
        }
    }
    let (before, after) = (sample(&mut random, 100, 0.0), sample(&mut random, 60, 0.05));
    assert_eq!(verdict(&before, &after), Verdict::TooFewRows);
    // What is large enough is seen in few rows, too.
    assert_eq!(verdict(&before, &sample(&mut random, 60, 3.0)), Verdict::Drifted);
}

#[test]
fn chance_is_called_drift_as_seldom_as_is_said() {
    let mut random = fastrand::Rng::with_seed(2);
    let mut wrong = 0;
    for _ in 0..400 {
        let category = |random: &mut fastrand::Rng| {
            ["a", "b", "c", "d"][random.usize(..4).min(random.usize(..4))]
        };
        let column = |random: &mut fastrand::Rng, kind: usize, n: usize| match kind % 3 {
            0 => sample(random, n, 0.0),
            1 => texts((0..n).map(|_| category(random)).collect::<Vec<_>>()),
            _ => {
                let value = |random: &mut fastrand::Rng| {
                    if random.f64() < 0.1 { f64::NAN } else { random.u32(..6).into() }
                };
                Numbers::new((0..n).map(|_| value(random)).collect(), 0, false).into()
            }
        };
        let n = random.usize(20..300);
        let measured = (0..9).map(|kind| {
            measure(
                format!("{kind}"),
                &column(&mut random, kind, n),
                &column(&mut random, kind, 150),
            )
        });
        let settings = Settings { alpha: 0.05, shift: 0.0, missing: 0.0, new: 0.0 };
        wrong += usize::from(Report::new(measured.collect(), Vec::new(), settings).drifted);
    }
    // 5 % of 400 are 20; three standard deviations more are 33.
    assert!(wrong <= 33, "{wrong}");
}

#[test]
fn each_way_to_change_is_found() {
    let mut random = fastrand::Rng::with_seed(3);
    let n = 2000;
    let because = |before: &Column, after: &Column| {
        let measured = vec![measure("x", before, after)];
        Report::new(measured, Vec::new(), Settings::default()).columns[0].because.clone()
    };
    let values: Vec<f64> = (0..n).map(|_| normal(&mut random)).collect();
    let with = |change: &dyn Fn(usize, f64) -> f64| {
        Column::from(Numbers::new(
            values.iter().enumerate().map(|(i, v)| change(i, *v)).collect(),
            0,
            false,
        ))
    };
    let before = with(&|_, value| value);
    assert_eq!(because(&before, &before), []);
    let every =
        |nth: usize, other: f64| with(&move |i, value| if i % nth == 0 { other } else { value });
    assert_eq!(because(&before, &every(10, f64::NAN)), [What::Missing]);
    assert_eq!(because(&before, &every(10, f64::INFINITY)), [What::Infinite]);
    assert_eq!(because(&before, &every(50, 1e6)), [What::OutOfRange]);
    let city = |i: usize| ["Bonn", "Ulm", "Bonn", "Köln"][i % 4];
    let cities = texts((0..n).map(city));
    let new = texts((0..n).map(|i| if i % 50 == 0 { "Jena" } else { city(i) }));
    assert_eq!(because(&cities, &new), [What::NewCategory]);
    assert_eq!(because(&before, &cities), [What::TypeBreak]);
    assert_eq!(because(&before, &Column::Empty(50)), [What::Missing]);
    let swapped = texts((0..n).map(|i| ["Bonn", "Ulm", "Ulm", "Köln"][i % 4]));
    assert_eq!(because(&cities, &swapped), [What::Shift]);
}

#[test]
fn rare_texts_that_are_new_are_no_drift() {
    // Nine in ten rows have a text of their own on either side.
    let side = |from: u32| {
        let text = |i: u32| {
            if i.is_multiple_of(10) { "often".to_owned() } else { format!("id {}", i + from) }
        };
        let all: Vec<String> = (0..5_000).map(text).collect();
        texts(all.iter().map(String::as_str))
    };
    assert_eq!(verdict(&side(0), &side(100_000)), Verdict::NotCompared);
}

#[test]
fn identifiers_are_not_compared() {
    let side = |from: u32| {
        let all: Vec<String> = (0..150_000).map(|i| format!("{}", i + from)).collect();
        texts(all.iter().map(String::as_str))
    };
    let measured = measure("id", &side(0), &side(1_000_000));
    assert!(measured.not_compared.as_deref().unwrap().contains("150000 different"));
    assert_eq!(verdict(&side(0), &side(1_000_000)), Verdict::NotCompared);
}

#[test]
fn bad_columns_are_measured_without_fail() {
    let bad = [
        Column::Empty(0),
        Column::Empty(7),
        numbers([], false),
        numbers([f64::NAN; 4], false),
        numbers([f64::INFINITY, f64::NEG_INFINITY], false),
        numbers([f64::MAX, f64::MIN, 0.0, -0.0], false),
        numbers(
            (0..50).map(|i| f64::MAX / f64::from(i + 1) * if i % 2 == 0 { 1.0 } else { -1.0 }),
            false,
        ),
        numbers((0..50).map(f64::from_bits), false),
        numbers([1.0; 300], true),
        texts([""; 3]),
        texts(["a"]),
    ];
    for before in &bad {
        for after in &bad {
            let report =
                Report::new(vec![measure("x", before, after)], Vec::new(), Settings::default());
            assert!(serde_json::to_string(&report).unwrap().contains("\"verdict\""));
        }
    }
    let only = monitor::drift::Mismatch { column: "x".into(), only: Side::After };
    assert!(Report::new(Vec::new(), vec![only], Settings::default()).drifted);
    assert!(!Report::new(Vec::new(), Vec::new(), Settings::default()).drifted);
}

proptest! {
    #[test]
    fn distances_are_distances(
        a in prop::collection::vec(-50i32..50, 1..200),
        b in prop::collection::vec(-50i32..50, 1..200),
        scale in 0.001f64..1000.0,
    ) {
        let sorted = |values: &[i32]| {
            let mut values: Vec<f64> = values.iter().map(|v| f64::from(*v) * scale).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let (a, b) = (sorted(&a), sorted(&b));
        let ks = statistics::kolmogorov_smirnov(&a, &b);
        prop_assert!((0.0..=1.0).contains(&ks));
        prop_assert!((ks - statistics::kolmogorov_smirnov(&b, &a)).abs() < 1e-12);
        prop_assert_eq!(statistics::kolmogorov_smirnov(&a, &a), 0.0);
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let wasserstein = statistics::wasserstein(&a, &b);
        // It is no less than the way the mean goes, and no more than the largest way at all.
        prop_assert!(wasserstein + 1e-9 * scale >= (mean(&a) - mean(&b)).abs());
        prop_assert!(wasserstein <= 100.0 * scale);
        let bins = statistics::bins(&a, &b, false);
        let total = bins.iter().fold((0, 0), |(n, m), (x, y)| (n + x, m + y));
        prop_assert_eq!(total, (a.len() as u64, b.len() as u64));
        let (js, tv) = (statistics::jensen_shannon(&bins), statistics::total_variation(&bins));
        prop_assert!((0.0..=1.0 + 1e-12).contains(&tv));
        // Lin's bounds of the divergence by the variation.
        prop_assert!(js * js <= tv * std::f64::consts::LN_2 + 1e-12);
        prop_assert!(statistics::psi(&bins) >= 0.0);
        let p = significance::kolmogorov_smirnov(a.len(), b.len(), ks);
        prop_assert!((0.0..=1.0).contains(&p));
    }

    #[test]
    fn discoveries_are_the_smallest(p in prop::collection::vec(0.0f64..1.0, 1..40), alpha in 0.001f64..0.5) {
        let found = significance::discoveries(&p, alpha);
        let kept = p.iter().zip(&found).filter(|(_, f)| **f).map(|(p, _)| *p).fold(0.0, f64::max);
        let count = found.iter().filter(|f| **f).count();
        prop_assert!(kept <= alpha * count as f64 / p.len() as f64);
        let rest = p.iter().zip(&found).filter(|(_, f)| !**f).map(|(p, _)| *p);
        for (i, p) in { let mut rest: Vec<f64> = rest.collect(); rest.sort_by(f64::total_cmp); rest }.iter().enumerate() {
            prop_assert!(*p > alpha * (count + i + 1) as f64 / found.len() as f64);
        }
    }
}

/// Keeps the type in use where a change is looked at as a whole.
#[test]
fn a_change_is_written_with_effect_and_evidence() {
    let change = Change { what: What::OutOfRange, effect: 0.5, p: 0.25 };
    let json = serde_json::to_value(change).unwrap();
    assert_eq!(json, serde_json::json!({"what": "out_of_range", "effect": 0.5, "p": 0.25}));
}
