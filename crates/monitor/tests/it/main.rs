//! Profiles, as others build and read them.
#![allow(missing_docs)]

mod alerts;
mod drift;
mod estimate;
mod log;
mod watch;

use monitor::profile::{Builder, Kind, Profile, Value};
use proptest::prelude::*;

fn of(cells: &[Value<'_>]) -> Profile {
    let mut builder = Builder::new(["x"]);
    cells.iter().for_each(|cell| builder.row([*cell]));
    builder.finish()
}

#[test]
fn a_column_is_described() {
    let numbers = [1.0, 2.0, 2.0, f64::NAN, 4.0, f64::INFINITY].map(Value::Number);
    let profile = of(&[&numbers[..], &[Value::Missing]].concat());
    let x = &profile.columns[0];
    assert_eq!((x.kind, x.count, x.missing, x.infinite), (Kind::Number, 5, 2, 1));
    assert_eq!((x.min, x.max, x.mean), (Some(1.0), Some(4.0), Some(2.25)));
    assert!((x.std.unwrap() - 1.258_305_739_211_791_6).abs() < 1e-12);
    assert_eq!(x.quantiles, [1.0, 2.0, 2.0, 4.0, 1e308]);
    assert_eq!((x.distinct, &x.top[0]), (4, &("2".to_owned(), 2)));
    assert_eq!((x.fraction_up_to(2.0), x.quantile(0.5)), (Some(0.6), Some(2.0)));
}

#[test]
fn what_is_not_all_numbers_is_text() {
    let x = of(&["1", " 2", "x"].map(Value::Untyped)).columns.remove(0);
    assert_eq!((x.kind, x.distinct, x.mean), (Kind::Text, 3, None));
    assert_eq!(of(&["1", " 2"].map(Value::Untyped)).columns[0].mean, Some(1.5));
    assert_eq!(of(&[Value::Missing]).columns[0].kind, Kind::Empty);
}

#[test]
fn distances_are_those_of_the_books() {
    let numbers = |from: i32, to: i32| {
        let cells: Vec<_> = (from..to).map(|n| Value::Number(f64::from(n))).collect();
        of(&cells).columns.remove(0)
    };
    let (a, b) = (numbers(0, 100), numbers(30, 130));
    assert!((a.distance(&b).unwrap() - 0.3).abs() < 1e-9);
    assert_eq!(a.distance(&a), Some(0.0));
    assert_eq!(a.distance(&numbers(500, 600)), Some(1.0));
    let texts = |cells: &[&str]| {
        let cells: Vec<_> = cells.iter().map(|text| Value::Text(text)).collect();
        of(&cells).columns.remove(0)
    };
    let (a, b) = (texts(&["a", "a", "b", "b"]), texts(&["a", "c"]));
    assert!((a.distance(&b).unwrap() - 0.5).abs() < 1e-9);
    assert_eq!(a.distance(&numbers(0, 9)), None);
}

#[test]
fn another_schema_is_refused() {
    let json = serde_json::to_string(&of(&[])).unwrap();
    assert!(Profile::read(json.as_bytes()).is_ok());
    let newer = json.replace("profile/1", "profile/2");
    let error = Profile::read(newer.as_bytes()).unwrap_err();
    assert!(error.contains("modelyard.profile/2"), "{error}");
    assert!(Profile::read(b"{}").is_err() && Profile::read(b"[").is_err());
}

/// Numbers that serde_json reads as they were written: it may be off by the last bit elsewhere.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        10 => any::<i32>().prop_map(|n| f64::from(n) / 8.0),
        1 => prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the values, nothing is lost, what is written can be read, and parts that are
    /// merged say the same as the whole.
    #[test]
    fn parts_are_as_good_as_the_whole(
        cells in proptest::collection::vec(number(), 0..200),
        cut in 0usize..200,
    ) {
        let cut = cut.min(cells.len());
        let build = |cells: &[f64]| {
            let mut builder = Builder::new(["x"]);
            cells.iter().for_each(|cell| builder.row([Value::Number(*cell)]));
            builder
        };
        let whole = build(&cells).finish();
        let mut merged = build(&cells[..cut]);
        merged.merge(&build(&cells[cut..]));
        let merged = merged.finish();
        let json = serde_json::to_vec(&whole).unwrap();
        let mut read = Profile::read(&json).unwrap();
        for (read, written) in read.columns.iter_mut().zip(&whole.columns) {
            for (read, written) in [(&mut read.mean, written.mean), (&mut read.std, written.std)] {
                let (a, b) = (read.unwrap_or_default(), written.unwrap_or_default());
                prop_assert!((a - b).abs() <= 1e-15 * b.abs(), "{} {}", a, b);
                *read = written;
            }
        }
        prop_assert_eq!(&read, &whole);
        let (a, b) = (&whole.columns[0], &merged.columns[0]);
        prop_assert_eq!(a.count + a.missing, cells.len() as u64);
        prop_assert_eq!((a.count, a.missing, a.min, a.max), (b.count, b.missing, b.min, b.max));
        prop_assert_eq!(&a.quantiles, &b.quantiles);
        prop_assert_eq!(&a.top, &b.top);
        prop_assert!(a.quantiles.is_sorted());
    }

    /// Texts of any kind are counted.
    #[test]
    fn texts_are_counted(cells in proptest::collection::vec(".{0,8}", 1..100)) {
        let cells: Vec<_> = cells.iter().map(|cell| Value::Text(cell)).collect();
        let x = of(&cells).columns.remove(0);
        prop_assert_eq!(x.kind, Kind::Text);
        let distinct: std::collections::BTreeSet<String> =
            cells.iter().map(|cell| format!("{cell:?}")).collect();
        prop_assert_eq!(x.distinct, distinct.len() as u64);
    }
}
