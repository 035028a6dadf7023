//! The statistics against those of `tests/golden/reference.py`.

use serde_json::Value;

use crate::evidence::rate_bounds;
use crate::guard;
use crate::odds::{ONE, Table};
use crate::sketch::Latencies;

fn golden() -> Value {
    serde_json::from_str(include_str!("../tests/golden/reference.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn assert_near(got: f64, wanted: f64, what: &Value) {
    assert!((got - wanted).abs() <= 1e-7 * wanted.abs().max(1.0), "{got} {wanted}: {what}");
}

#[test]
fn odds_are_those_of_the_noncentral_hypergeometric_distribution() {
    let golden = golden();
    let places = numbers(&golden["ratio_powers"]);
    for case in golden["odds"].as_array().unwrap() {
        let counts = numbers(&case["table"]);
        let table = Table {
            champion: counts[0] as u64,
            champion_failed: counts[1] as u64,
            candidate: counts[2] as u64,
            candidate_failed: counts[3] as u64,
        };
        let logs = table.logs().unwrap();
        for (power, wanted) in places.iter().zip(numbers(&case["logs"])) {
            assert_near(logs[(power + ONE as f64) as usize], wanted, case);
        }
        let excess = table.excess_logs([1.5, 2.5, 4.5, 9.0, 30.0]).unwrap();
        for (got, wanted) in excess.into_iter().zip(numbers(&case["excess"])) {
            assert_near(got, wanted, case);
        }
    }
}

#[test]
fn bounds_of_a_rate_are_those_of_the_mixture() {
    for case in golden()["rates"].as_array().unwrap() {
        let count = |name: &str| case[name].as_u64().unwrap();
        let bounds =
            rate_bounds(count("successes"), count("trials"), case["alpha"].as_f64().unwrap());
        for (got, wanted) in bounds.into_iter().zip(numbers(&case["bounds"])) {
            assert_near(got, wanted, case);
        }
    }
}

#[test]
fn the_sign_is_that_of_mann_and_whitney() {
    let sketch = |value: &Value| {
        let mut latencies = Latencies::default();
        numbers(value).into_iter().for_each(|bucket| latencies.add_to(bucket as u16, 1));
        latencies
    };
    for case in golden()["signs"].as_array().unwrap() {
        let slower = guard::slower(&sketch(&case["champion"]), &sketch(&case["candidate"]));
        let got = slower.map_or(0.0, |slower| if slower { 1.0 } else { -1.0 });
        assert_eq!(got, case["sign"].as_f64().unwrap(), "{case}");
    }
}
