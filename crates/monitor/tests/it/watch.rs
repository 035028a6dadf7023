//! Watching a served model: what is found, what is not, and what a watch outlives.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use model::{Data, DataType, Dimension, Observation, Outcome, Signature, Tensor, TensorSpec};
use monitor::drift::What;
use monitor::drift::watch::{Seen, Settings, Status, Watch, WatchReport};
use monitor::profile::{Builder, Input, Matched, Profile, Value};
use proptest::prelude::*;

const START: u64 = 1_790_000_000;

fn spec(name: &str, datatype: DataType, width: usize) -> TensorSpec {
    TensorSpec::new(name, datatype, vec![Dimension::Any, Dimension::Fixed(width)])
}

fn signature(inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>) -> Arc<Signature> {
    Arc::new(Signature { inputs, outputs, batched: true })
}

fn observation(
    signature: &Arc<Signature>,
    seconds: u64,
    inputs: Vec<Option<Tensor>>,
    outputs: Vec<Tensor>,
) -> Observation {
    Observation {
        model: "m".into(),
        version: "1".into(),
        signature: signature.clone(),
        id: None,
        key: None,
        at: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        queue: Duration::ZERO,
        compute: Duration::ZERO,
        batch_size: 1,
        outcome: Outcome::Answered,
        inputs: inputs.into(),
        outputs: outputs.into(),
        shadow: None,
    }
}

fn normal(random: &mut fastrand::Rng) -> f64 {
    (-2.0 * (1.0 - random.f64()).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos()
}

/// Numbers `a` and `b` as one matrix, and a text.
struct Customers {
    random: fastrand::Rng,
    signature: Arc<Signature>,
    profile: Profile,
    seconds: u64,
}

impl Customers {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut builder = Builder::new(["a", "b", "city"]);
        for _ in 0..20_000 {
            let row = [normal(&mut random), gap(&mut random)];
            builder.row([
                Value::Number(row[0]),
                Value::Number(row[1]),
                Value::Text(city(&mut random)),
            ]);
        }
        let mut profile = builder.finish();
        let input = |name: &str, columns: &[&str]| Input {
            name: name.into(),
            columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        };
        let inputs = vec![input("x", &["a", "b"]), input("city", &["city"])];
        profile.matched = Some(Matched { inputs, ..Matched::default() });
        let inputs = vec![spec("x", DataType::Fp32, 2), spec("city", DataType::Bytes, 1)];
        let signature = signature(inputs, vec![spec("score", DataType::Fp32, 1)]);
        Self { random, signature, profile, seconds: START }
    }

    fn watch(&self) -> Watch {
        Watch::new(&self.signature, Some(&self.profile), Settings::default())
    }

    /// A row, ten seconds after the one before, changed on its way.
    fn next(
        &mut self,
        change: impl Fn(&mut fastrand::Rng, &mut [f32; 2], &mut &str),
    ) -> Observation {
        let mut numbers = [normal(&mut self.random) as f32, gap(&mut self.random) as f32];
        let mut city = city(&mut self.random);
        change(&mut self.random, &mut numbers, &mut city);
        self.seconds += 10;
        let score = numbers[0] * 0.5;
        let x = Tensor::new(vec![1, 2], numbers.to_vec()).unwrap();
        let city =
            Tensor::new(vec![1, 1], Data::Bytes(vec![Bytes::copy_from_slice(city.as_bytes())]));
        let score = Tensor::new(vec![1, 1], vec![score]).unwrap();
        observation(&self.signature, self.seconds, vec![Some(x), Some(city.unwrap())], vec![score])
    }

    /// How many rows it takes until something is found.
    fn until_drift(
        &mut self,
        watch: &mut Watch,
        most: usize,
        change: impl Fn(&mut fastrand::Rng, &mut [f32; 2], &mut &str),
    ) -> Option<usize> {
        (0..most).find(|_| {
            watch.observe(&self.next(&change));
            watch.has_drifted()
        })
    }
}

fn gap(random: &mut fastrand::Rng) -> f64 {
    if random.f64() < 0.1 { f64::NAN } else { random.f64() }
}

fn city(random: &mut fastrand::Rng) -> &'static str {
    ["Bonn", "Ulm", "Köln"][random.usize(..3)]
}

fn feature<'a>(report: &'a WatchReport, name: &str) -> &'a Seen {
    report.features.iter().find(|seen| seen.feature == name).unwrap()
}

#[test]
fn a_shift_is_found_dated_and_over_when_it_is_gone() {
    let mut customers = Customers::new(1);
    let mut watch = customers.watch();
    assert_eq!(customers.until_drift(&mut watch, 5_000, |_, _, _| ()), None);
    let began = customers.seconds as i64;
    let took = customers.until_drift(&mut watch, 2_000, |_, row, _| row[0] += 0.5).unwrap();
    assert!(took > 20);
    let report = watch.report(0);
    assert!(report.drifted);
    let first = &report.features[0];
    assert_eq!((first.feature.as_str(), first.status), ("a", Status::Drifted));
    let drift = first.drift.as_ref().unwrap();
    assert_eq!(drift.what, What::Shift);
    // Within some hundreds of rows of ten seconds.
    assert!((drift.since - began).abs() < 3_000, "{} after", drift.since - began);
    assert!((0.1..0.35).contains(&drift.effect), "{}", drift.effect);
    assert!(drift.evidence >= 3.0 / 0.01);
    assert_eq!(feature(&report, "city").status, Status::Watched);

    (0..4_000).for_each(|_| watch.observe(&customers.next(|_, row, _| row[0] += 0.5)));
    assert!(watch.has_drifted(), "it lasts while the shift does");
    (0..6_000).for_each(|_| watch.observe(&customers.next(|_, _, _| ())));
    assert!(!watch.has_drifted());
    let report = watch.report(0);
    let past = &feature(&report, "a").past;
    assert_eq!(past.len(), 1);
    assert!(past[0].over.unwrap() > drift.found);
    assert_eq!(feature(&watch.report(past[0].over.unwrap() + 1), "a").past, []);
}

#[test]
fn what_is_too_small_to_matter_is_no_drift_however_many_rows_show_it() {
    let mut customers = Customers::new(2);
    let mut watch = customers.watch();
    let found = customers.until_drift(&mut watch, 200_000, |_, row, _| row[0] += 0.08);
    assert_eq!(found, None);
    let shift = feature(&watch.report(0), "a").changes[0].1;
    assert!((0.005..0.09).contains(&shift), "it is shown: {shift}");
}

#[test]
fn each_way_to_change_is_found() {
    type Change = fn(&mut fastrand::Rng, &mut [f32; 2], &mut &str);
    let ways: [(&str, What, Change); 6] = [
        ("b", What::Missing, |random, row, _| {
            if random.f64() < 0.2 {
                row[1] = f32::NAN
            }
        }),
        ("a", What::Infinite, |random, row, _| {
            if random.f64() < 0.1 {
                row[0] = f32::INFINITY
            }
        }),
        ("b", What::OutOfRange, |random, row, _| {
            if random.f64() < 0.04 {
                row[1] = -5.0
            }
        }),
        ("city", What::NewCategory, |random, _, city| {
            if random.f64() < 0.04 {
                *city = "Jena"
            }
        }),
        ("city", What::Missing, |random, _, city| {
            if random.f64() < 0.2 {
                *city = ""
            }
        }),
        ("city", What::Shift, |random, _, city| {
            if random.f64() < 0.5 {
                *city = "Ulm"
            }
        }),
    ];
    for (i, (name, what, change)) in ways.into_iter().enumerate() {
        let mut customers = Customers::new(10 + i as u64);
        let mut watch = customers.watch();
        customers.until_drift(&mut watch, 1_000, |_, _, _| ());
        assert!(customers.until_drift(&mut watch, 4_000, change).is_some(), "{name} {what:?}");
        let report = watch.report(0);
        let drift = feature(&report, name).drift.as_ref().unwrap();
        assert_eq!(drift.what, what, "{name}");
    }
}

#[test]
fn what_has_no_profile_is_learned_from_its_first_rows() {
    let mut customers = Customers::new(3);
    let mut watch = Watch::new(&customers.signature, None, Settings::default());
    customers.until_drift(&mut watch, 1_000, |_, _, _| ());
    let report = watch.report(0);
    assert_eq!(report.features.len(), 4);
    assert!(
        report.features.iter().all(|seen| seen.status == Status::Learning && seen.rows == 1_000)
    );
    customers.until_drift(&mut watch, 6_000, |_, _, _| ());
    let report = watch.report(0);
    assert!(report.features.iter().all(|seen| seen.status == Status::Watched && seen.first_rows));
    assert!(feature(&report, "score").predicted);
    assert!(customers.until_drift(&mut watch, 4_000, |_, row, _| row[0] += 1.0).is_some());
    let report = watch.report(0);
    let drifted: Vec<&str> = report
        .features
        .iter()
        .filter(|seen| seen.status == Status::Drifted)
        .map(|seen| seen.feature.as_str())
        .collect();
    // Whichever of both is found first.
    assert!(drifted.contains(&"x[0]") || drifted.contains(&"score"), "{drifted:?}");
}

#[test]
fn what_comes_every_week_is_no_drift_once_it_is_known() {
    let mut random = fastrand::Rng::with_seed(4);
    let signature = signature(vec![spec("x", DataType::Fp64, 1)], Vec::new());
    let mut builder = Builder::new(["x"]);
    (0..20_000).for_each(|_| builder.row([Value::Number(normal(&mut random))]));
    let mut watch = Watch::new(&signature, Some(&builder.finish()), Settings::default());
    let (hours, rows) = (5 * 168, 200);
    let mut alarms = vec![0; 5];
    for hour in 0..hours {
        // Each night is another world.
        let night = if hour % 24 < 8 { 1.0 } else { 0.0 };
        for row in 0..rows {
            let before = watch.has_drifted();
            let x = Tensor::new(vec![1, 1], vec![normal(&mut random) + night]).unwrap();
            let at = START / 3600 * 3600 + hour * 3600 + row * 3600 / rows;
            watch.observe(&observation(&signature, at, vec![Some(x)], Vec::new()));
            alarms[hour as usize / 168] += usize::from(watch.has_drifted() && !before);
        }
    }
    assert!(alarms[0] > 0, "{alarms:?}");
    assert_eq!(alarms[3..], [0, 0], "{alarms:?}");
    let bytes = watch.keep().unwrap().len();
    assert!(bytes < 200_000, "{bytes}");
}

#[test]
fn a_watch_outlives_a_restart() {
    let mut customers = Customers::new(5);
    let mut watch = customers.watch();
    customers.until_drift(&mut watch, 3_000, |_, _, _| ());
    let kept = watch.keep().unwrap();
    let mut restored = Watch::restore(&kept, &customers.watch()).unwrap();
    for i in 0..3_000 {
        let observation = customers.next(|_, row, _| {
            if i > 500 {
                row[0] += 0.4
            }
        });
        watch.observe(&observation);
        restored.observe(&observation);
    }
    let json = |watch: &Watch| serde_json::to_value(watch.report(0)).unwrap();
    let (before, after) = (json(&watch), json(&restored));
    assert_eq!(before["features"][0]["drift"]["since"], after["features"][0]["drift"]["since"]);
    assert_eq!((&before["drifted"], &before["rows"]), (&after["drifted"], &after["rows"]));

    let other = Watch::new(
        &signature(vec![spec("x", DataType::Fp32, 3)], Vec::new()),
        None,
        Settings::default(),
    );
    assert!(Watch::restore(&kept, &other).unwrap_err().contains("another signature"));
    let stricter = Settings { alpha: 0.001, ..Settings::default() };
    let stricter = Watch::new(&customers.signature, Some(&customers.profile), stricter);
    assert!(Watch::restore(&kept, &stricter).unwrap_err().contains("other settings"));
    assert!(Watch::restore(b"{}", &stricter).is_err());
    // A bin too few would be counted beyond its end.
    let text = String::from_utf8(kept).unwrap();
    let damaged = text.replacen("\"bins\":[0,", "\"bins\":[", 1);
    assert_ne!(damaged, text);
    assert!(Watch::restore(damaged.as_bytes(), &customers.watch()).is_err());
}

#[test]
fn wide_rows_are_watched_by_their_statistics() {
    let mut random = fastrand::Rng::with_seed(6);
    let shape =
        vec![Dimension::Any, Dimension::Fixed(3), Dimension::Fixed(32), Dimension::Fixed(32)];
    let signature = signature(vec![TensorSpec::new("image", DataType::Uint8, shape)], Vec::new());
    let mut watch = Watch::new(&signature, None, Settings { first: 500, ..Settings::default() });
    let mut show = |watch: &mut Watch, i: u64, brighter: u8| {
        let pixels: Vec<u8> = (0..3072).map(|_| random.u8(0..100) + brighter).collect();
        let image = Tensor::new(vec![1, 3, 32, 32], Data::Uint8(pixels.into())).unwrap();
        watch.observe(&observation(&signature, START + i * 30, vec![Some(image)], Vec::new()));
    };
    (0..800).for_each(|i| show(&mut watch, i, 0));
    assert!(!watch.has_drifted());
    assert_eq!(watch.report(0).features.len(), 5);
    (800..1_300).for_each(|i| show(&mut watch, i, 40));
    let report = watch.report(0);
    assert_eq!(feature(&report, "image: mean").status, Status::Drifted);
}

#[test]
fn a_profile_of_another_signature_is_told_and_not_used() {
    let customers = Customers::new(7);
    let other =
        signature(vec![spec("x", DataType::Fp32, 3), spec("y", DataType::Fp32, 1)], Vec::new());
    let watch = Watch::new(&other, Some(&customers.profile), Settings::default());
    let report = watch.report(0);
    assert_eq!(report.notes.len(), 2);
    assert!(
        report.notes[0].contains("has 2 columns for the input \"x\", which has 3"),
        "{}",
        report.notes[0]
    );
    assert!(report.features.iter().all(|seen| seen.status == Status::Learning));
}

#[test]
fn bad_observations_are_looked_at_without_fail() {
    let customers = Customers::new(8);
    let signature = &customers.signature;
    let mut watch = customers.watch();
    let numbers = |rows: usize, width: usize, value: f32| {
        Some(Tensor::new(vec![rows, width], vec![value; rows * width]).unwrap())
    };
    let text = |text: &'static [u8]| {
        Some(Tensor::new(vec![1, 1], Data::Bytes(vec![Bytes::from_static(text)])).unwrap())
    };
    let score = || vec![Tensor::new(vec![1, 1], vec![f32::NAN]).unwrap()];
    for (i, (x, city)) in [
        (numbers(1, 2, f32::NAN), None),
        (numbers(1, 2, f32::NEG_INFINITY), text(b"\xff\xfe")),
        (numbers(0, 2, 0.0), text(b"")),
        (numbers(1, 3, 0.0), numbers(1, 1, 7.0)),
        (numbers(100_000, 2, 0.0), text(b"Bonn")),
        (text(b"12"), text(b"Bonn")),
        (Some(Tensor::scalar(vec![1.0f32])), None),
        (None, None),
    ]
    .into_iter()
    .enumerate()
    {
        // The clock goes back, and far ahead.
        let seconds = if i % 2 == 0 { START - 100_000 * i as u64 } else { u32::MAX.into() };
        watch.observe(&observation(signature, seconds, vec![x, city], score()));
    }
    watch.observe(&observation(signature, START, Vec::new(), Vec::new()));
    let mut failed = observation(signature, START, vec![numbers(1, 2, 0.0), None], Vec::new());
    failed.outcome = Outcome::Failed(model::ErrorCode::Internal);
    let rows = watch.report(0).rows;
    watch.observe(&failed);
    let report = watch.report(0);
    assert_eq!(report.rows, rows, "what failed is not looked at");
    assert_eq!(report.skipped, 100_000 - 16);
    assert!(serde_json::to_string(&report).is_ok());
    // As many different texts as one likes.
    let mut watch = Watch::new(signature, None, Settings::default());
    for i in 0..30_000u64 {
        let city = Data::Bytes(vec![Bytes::from(format!("id {i} {}", "x".repeat(300)))]);
        let city = Tensor::new(vec![1, 1], city).unwrap();
        watch.observe(&observation(
            signature,
            START + i,
            vec![numbers(1, 2, i as f32), Some(city)],
            score(),
        ));
    }
    assert!(watch.keep().unwrap().len() < 4 * 200_000);
    assert!(!watch.report(0).features.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_that_is_observed_breaks_a_watch(
        profiled in prop::collection::vec(prop::num::f64::ANY, 0..60),
        shown in prop::collection::vec((prop::num::f32::ANY, 0u64..4_000_000_000), 0..300),
    ) {
        let mut builder = Builder::new(["x"]);
        profiled.iter().for_each(|x| builder.row([Value::Number(*x)]));
        let signature = signature(vec![spec("x", DataType::Fp32, 1)], Vec::new());
        let settings = Settings { first: 50, ..Settings::default() };
        let mut watch = Watch::new(&signature, Some(&builder.finish()), settings);
        for (x, seconds) in &shown {
            let x = Tensor::new(vec![1, 1], vec![*x]).unwrap();
            watch.observe(&observation(&signature, *seconds, vec![Some(x)], Vec::new()));
        }
        let report = watch.report(0);
        prop_assert_eq!(report.rows, shown.len() as u64);
        prop_assert!(report.features.iter().all(|seen| seen.changes.iter().all(|(_, e)| (0.0..=1.0 + 1e-9).contains(e))));
        let kept = watch.keep().unwrap();
        prop_assert!(Watch::restore(&kept, &watch).is_ok());
    }
}
