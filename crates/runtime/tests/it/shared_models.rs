//! The models of `shared/models` on both engines, against answers that `golden/make_shared.py`
//! recorded. Skips, loudly, where the folder is absent; `native_goldens` holds small models of the
//! same kinds that ship.

use model::{Data, Tensor};
use runtime::native::Native;
use runtime::{Engine, LoadOptions};
use serde_json::Value;

use crate::support::{onnx_runtime, shared_folder};

/// Whole numbers that look random, as the script makes them.
fn steps(count: usize) -> Vec<i64> {
    (0..count as i64).map(|i| (i * i * 31 + i * 17 + 5) % 7993).collect()
}

fn input(name: &str, answers: &Value, rows: usize) -> Tensor {
    let width = answers["width"].as_u64().unwrap() as usize;
    let shape = if name == "cnn" { vec![rows, 3, 64, 64] } else { vec![rows, width] };
    let values = steps(rows * width);
    let data: Data = match answers["scale"].as_f64() {
        None => values.into(),
        Some(scale) => {
            values.iter().map(|v| *v as f32 / 7993.0 * scale as f32).collect::<Vec<_>>().into()
        }
    };
    Tensor::new(shape, data).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    match tensor.data() {
        Data::Fp32(data) => data.iter().map(|v| f64::from(*v)).collect(),
        Data::Int64(data) => data.iter().map(|v| *v as f64).collect(),
        other => panic!("an output of {}", other.datatype()),
    }
}

fn check(engine: &dyn Engine) {
    let Some(folder) = shared_folder() else { return };
    let recorded: Value = serde_json::from_str(include_str!("../golden/shared.json")).unwrap();
    let rows = recorded["rows"].as_u64().unwrap() as usize;
    for (name, answers) in recorded["models"].as_object().unwrap() {
        let package = import::open(&folder.join(format!("{name}.onnx"))).unwrap();
        engine.supports(&package).unwrap();
        let session = engine.load(&package, &LoadOptions::default()).unwrap();
        let outputs = session.run(&[Some(&input(name, answers, rows))]).unwrap();
        for (spec, output) in package.manifest.signature.outputs.iter().zip(&outputs) {
            let wanted = &answers["outputs"][&*spec.name];
            let shape: Vec<usize> = serde_json::from_value(wanted["shape"].clone()).unwrap();
            let wanted: Vec<f64> = serde_json::from_value(wanted["data"].clone()).unwrap();
            assert_eq!(output.shape(), shape, "{name}: {}", spec.name);
            for (index, (got, wanted)) in numbers(output).iter().zip(&wanted).enumerate() {
                let difference = (got - wanted).abs();
                // Probabilities of a thousand classes are all small: an absolute 1e-5 would let
                // anything pass, so those are held to it relatively.
                let absolute = if name == "cnn" { 1e-8 } else { 1e-5 };
                assert!(
                    difference <= absolute + 1e-5 * wanted.abs(),
                    "{name}, {}, element {index}: {got} instead of {wanted}",
                    spec.name
                );
            }
        }
    }
}

#[test]
fn native_answers_as_recorded() {
    check(&Native::default());
}

#[test]
fn onnx_runtime_answers_as_recorded() {
    if let Some(engine) = onnx_runtime() {
        check(&engine);
    }
}
