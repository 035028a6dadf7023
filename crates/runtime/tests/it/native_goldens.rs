//! The native engine on small models of scikit-learn, LightGBM and XGBoost, and on single
//! operators, against ONNX Runtime's answers. `golden/make_native.py` makes both.

use std::path::PathBuf;

use bytes::Bytes;
use model::{Data, Tensor};
use runtime::native::Native;
use runtime::{Engine, LoadOptions};
use serde_json::Value;

use crate::support::{close, onnx_runtime};

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/native"))
}

fn tensor(value: &Value) -> Tensor {
    let list = |key: &str| value[key].as_array().expect("a list").clone();
    let shape = list("shape").iter().map(|n| n.as_u64().unwrap() as usize).collect();
    let data = list("data");
    let float = |v: &Value| v.as_str().unwrap().parse::<f64>().unwrap();
    let whole = |v: &Value| v.as_i64().unwrap();
    let data: Data = match value["type"].as_str().unwrap() {
        "FP32" => data.iter().map(|v| float(v) as f32).collect::<Vec<_>>().into(),
        "FP64" => data.iter().map(float).collect::<Vec<_>>().into(),
        "INT64" => data.iter().map(whole).collect::<Vec<_>>().into(),
        "INT32" => data.iter().map(|v| whole(v) as i32).collect::<Vec<_>>().into(),
        "BOOL" => data.iter().map(|v| whole(v) != 0).collect::<Vec<_>>().into(),
        "BYTES" => {
            let text = |v: &Value| Bytes::from(v.as_str().unwrap().to_owned());
            data.iter().map(text).collect::<Vec<_>>().into()
        }
        other => panic!("unknown type {other}"),
    };
    Tensor::new(shape, data).unwrap()
}

fn compare(got: &Tensor, wanted: &Tensor, noise: f32) -> Result<(), String> {
    if (got.datatype(), got.shape()) != (wanted.datatype(), wanted.shape()) {
        let (a, b) = (got.datatype(), wanted.datatype());
        return Err(format!("{a} {:?} instead of {b} {:?}", got.shape(), wanted.shape()));
    }
    let pairs: Vec<(f32, f32)> = match (got.data(), wanted.data()) {
        (Data::Fp32(a), Data::Fp32(b)) => a.iter().copied().zip(b.iter().copied()).collect(),
        (Data::Fp64(a), Data::Fp64(b)) => {
            a.iter().zip(b.iter()).map(|(a, b)| (*a as f32, *b as f32)).collect()
        }
        _ if got == wanted => return Ok(()),
        _ => return Err(format!("{got:?} instead of {wanted:?}")),
    };
    match pairs.iter().find(|(a, b)| !close(*a, *b) && (a - b).abs() > noise) {
        Some((a, b)) => Err(format!("{a} instead of {b}")),
        None => Ok(()),
    }
}

/// Runs one model; `Ok(false)` if the engine says that it cannot.
fn check(engine: &dyn Engine, name: &str, answers: &Value) -> Result<bool, String> {
    let bytes = std::fs::read(folder().join(format!("{name}.onnx"))).unwrap();
    let package = import::onnx(bytes.into()).map_err(|error| format!("import: {error}"))?;
    if let Err(error) = engine.supports(&package) {
        println!("{name} is refused: {error}");
        return Ok(false);
    }
    let session = engine.load(&package, &LoadOptions::default()).map_err(|e| e.to_string())?;
    let noise = NOISY.iter().find(|(noisy, _)| *noisy == name).map_or(0.0, |(_, noise)| *noise);
    let signature = &package.manifest.signature;
    let inputs: Vec<Tensor> =
        signature.inputs.iter().map(|spec| tensor(&answers["inputs"][&*spec.name])).collect();
    let inputs: Vec<_> = inputs.iter().map(Some).collect();
    let outputs = session.run(&inputs).map_err(|error| error.to_string())?;
    for (spec, got) in signature.outputs.iter().zip(&outputs) {
        let wanted = tensor(&answers["outputs"][&*spec.name]);
        compare(got, &wanted, noise).map_err(|what| format!("output \"{}\": {what}", spec.name))?;
    }
    Ok(true)
}

/// Models that the engine is known to refuse. It must refuse nothing else, and run none of these
/// by accident.
const REFUSED: &[&str] = &[];

/// Distances that a model computes as small differences of large squares: the last digits are
/// noise in every engine.
const NOISY: &[(&str, f32)] = &[("transform_k_means", 1e-3)];

fn check_all(engine: &dyn Engine) {
    let text = std::fs::read_to_string(folder().join("answers.json")).unwrap();
    let answers: Value = serde_json::from_str(&text).unwrap();
    let mut faults = Vec::new();
    for (name, answers) in answers["models"].as_object().unwrap() {
        let refusal_expected = engine.name() == "native" && REFUSED.contains(&name.as_str());
        match check(engine, name, answers) {
            Ok(ran) if ran != refusal_expected => {}
            Ok(_) => faults.push(format!("{name}: refused or run against expectation")),
            Err(what) => faults.push(format!("{name}: {what}")),
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn native_answers_as_onnx_runtime_does() {
    check_all(&Native::default());
}

/// What import rewrites (maps) and how values cross the border: the answers were made with the
/// files as they are, by another language's bindings.
#[test]
fn onnx_runtime_answers_the_same_through_us() {
    if let Some(engine) = onnx_runtime() {
        check_all(&engine);
    }
}
