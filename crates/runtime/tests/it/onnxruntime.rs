//! ONNX Runtime, where a library can be found.

use std::path::PathBuf;

use bytes::Bytes;
use model::{Data, DataType, ErrorCode, Package, Tensor, bf16, f16};
use runtime::onnxruntime::{OnnxRuntime, Search};
use runtime::{Engine, LoadOptions, Session};
use testkit::onnx::{Attribute, Model, float, models};

use crate::support::{close, onnx_runtime, package, shared};

fn load(engine: &OnnxRuntime, package: &Package) -> Box<dyn Session> {
    engine.supports(package).unwrap();
    engine.load(package, &LoadOptions::default()).unwrap()
}

fn run(engine: &OnnxRuntime, package: &Package, inputs: &[&Tensor]) -> Vec<Tensor> {
    let inputs: Vec<_> = inputs.iter().map(|tensor| Some(*tensor)).collect();
    load(engine, package).run(&inputs).unwrap()
}

#[test]
fn it_says_what_it_is() {
    let Some(engine) = onnx_runtime() else { return };
    assert_eq!(engine.name(), "onnxruntime");
    assert!(engine.version().starts_with("1."), "{}", engine.version());
    assert!(engine.path().is_absolute());
    assert!(engine.providers().contains(&"cpu".to_owned()), "{:?}", engine.providers());
    // A second look finds the library that is open.
    let again = OnnxRuntime::discover(&Search::only(engine.path())).unwrap();
    assert_eq!(again.version(), engine.version());
}

#[test]
fn what_is_not_the_library_is_refused_with_a_reason() {
    let folder = std::env::temp_dir().join(format!("modelyard-library-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(18, 0);
    // 8 is MIPS: nobody's.
    elf.extend([8, 0]);
    elf.resize(4096, 0);
    let mut broken = elf.clone();
    broken[18] = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
    let cases: [(&str, &[u8], &str); 4] = [
        ("text.so", b"not a library", "not a shared library"),
        ("empty.so", b"", "not a shared library"),
        ("foreign.so", &elf, "built for another processor"),
        ("broken.so", &broken, ""),
    ];
    for (name, content, reason) in cases {
        let file = folder.join(name);
        std::fs::write(&file, content).unwrap();
        let error = OnnxRuntime::discover(&Search::only(&file)).unwrap_err();
        assert_eq!(error.code(), ErrorCode::FailedPrecondition);
        let text = error.to_string();
        assert!(text.contains(reason) && text.contains(name), "{text}");
    }
    let nowhere: PathBuf = folder.join("nowhere.so");
    let error = OnnxRuntime::discover(&Search::only(&nowhere)).unwrap_err().to_string();
    assert!(error.contains("there is no ONNX Runtime library here"), "{error}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_library_without_the_function_is_refused() {
    let Some(engine) = onnx_runtime() else { return };
    let other = engine.path().with_file_name("libonnxruntime_providers_shared.so");
    let error = OnnxRuntime::discover(&Search::only(other)).unwrap_err().to_string();
    assert!(error.contains("already uses") || error.contains("no OrtGetApiBase"), "{error}");
}

#[test]
fn a_model_runs_from_several_threads_at_once() {
    let Some(engine) = onnx_runtime() else { return };
    let session = load(&engine, &package(models::double(3)));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let session = &session;
            scope.spawn(move || {
                for round in 0..50 {
                    let rows = 1 + (thread + round) % 5;
                    let values: Vec<f32> = (0..rows * 3).map(|n| (n + thread) as f32).collect();
                    let doubled: Vec<f32> = values.iter().map(|x| 2.0 * x).collect();
                    let input = Tensor::new(vec![rows, 3], values).unwrap();
                    let output = session.run(&[Some(&input)]).unwrap();
                    assert_eq!(output[0].as_slice::<f32>().unwrap(), doubled);
                    assert_eq!(output[0].shape(), [rows, 3]);
                }
            });
        }
    });
}

#[test]
fn every_type_passes_through_unchanged() {
    let Some(engine) = onnx_runtime() else { return };
    let strings = ["", "a", "with\0zero", "größer"].map(|s| Bytes::from(s.as_bytes())).to_vec();
    let cases: [Data; 14] = [
        vec![true, false, true, true].into(),
        vec![0u8, 1, 2, 255].into(),
        vec![0u16, 1, 2, 65535].into(),
        vec![0u32, 1, 2, u32::MAX].into(),
        vec![0u64, 1, 2, u64::MAX].into(),
        vec![0i8, 1, -2, -128].into(),
        vec![0i16, 1, -2, i16::MIN].into(),
        vec![0i32, 1, -2, i32::MIN].into(),
        vec![0i64, 1, -2, i64::MIN].into(),
        vec![f16::ONE, f16::MAX, f16::ZERO, f16::EPSILON].into(),
        vec![bf16::ONE, bf16::MAX, bf16::ZERO, bf16::EPSILON].into(),
        vec![0.0f32, -1.5, f32::MAX, f32::INFINITY].into(),
        vec![0.0f64, -1.5, f64::MAX, f64::NEG_INFINITY].into(),
        strings.into(),
    ];
    for data in cases {
        let datatype = data.datatype();
        let model = Model::new()
            .input("x", datatype, &[None, Some(2)])
            .output("y", datatype, &[None, Some(2)])
            .node("", "Identity", &["x"], &["y"], &[]);
        let package = package(model.encode());
        let full = Tensor::new(vec![2, 2], data).unwrap();
        assert_eq!(run(&engine, &package, &[&full])[0], full, "{datatype}");
        let empty = Tensor::new(vec![0, 2], Data::empty(datatype)).unwrap();
        assert_eq!(run(&engine, &package, &[&empty])[0], empty, "{datatype}");
    }
}

#[test]
fn a_scalar_and_an_input_with_a_default() {
    let Some(engine) = onnx_runtime() else { return };
    let model = Model::new()
        .input("x", DataType::Fp32, &[])
        .input("addend", DataType::Fp32, &[])
        .output("y", DataType::Fp32, &[])
        .initializer("addend", &[], float(&[10.0]))
        .node("", "Add", &["x", "addend"], &["y"], &[]);
    let mut package = package(model.encode());
    let mut manifest = (*package.manifest).clone();
    let addend = model::TensorSpec {
        optional: true,
        ..model::TensorSpec::new("addend", DataType::Fp32, vec![])
    };
    if manifest.signature.inputs.len() == 1 {
        manifest.signature.inputs.push(addend);
    }
    package.manifest = manifest.into();
    let session = load(&engine, &package);
    let (x, addend) = (Tensor::scalar(vec![1f32]), Tensor::scalar(vec![2f32]));
    assert_eq!(session.run(&[Some(&x), None]).unwrap()[0], Tensor::scalar(vec![11f32]));
    assert_eq!(session.run(&[Some(&x), Some(&addend)]).unwrap()[0], Tensor::scalar(vec![3f32]));
}

#[test]
fn a_bad_row_is_the_callers_fault_and_the_next_run_works() {
    let Some(engine) = onnx_runtime() else { return };
    let model = Model::new()
        .input("i", DataType::Int64, &[None])
        .output("y", DataType::Fp32, &[None])
        .initializer("table", &[3], float(&[0.5, 1.5, 2.5]))
        .node("", "Gather", &["table", "i"], &["y"], &[]);
    let session = load(&engine, &package(model.encode()));
    let bad = Tensor::new(vec![2], vec![0i64, 9]).unwrap();
    let error = session.run(&[Some(&bad)]).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidArgument);
    let text = error.to_string();
    assert!(text.starts_with("Gather node") && text.contains("idx=9"), "{text}");
    let good = Tensor::new(vec![2], vec![0i64, 2]).unwrap();
    assert_eq!(session.run(&[Some(&good)]).unwrap()[0].as_slice::<f32>().unwrap(), [0.5, 2.5]);
}

#[test]
fn shapes_that_do_not_agree_are_the_callers_fault() {
    let Some(engine) = onnx_runtime() else { return };
    let model = Model::new()
        .input("a", DataType::Fp32, &[None])
        .input("b", DataType::Fp32, &[None])
        .output("y", DataType::Fp32, &[None])
        .node("", "Add", &["a", "b"], &["y"], &[]);
    let session = load(&engine, &package(model.encode()));
    let (a, b) = (vec![1f32; 3], vec![1f32; 4]);
    let (a, b) = (Tensor::new(vec![3], a).unwrap(), Tensor::new(vec![4], b).unwrap());
    let error = session.run(&[Some(&a), Some(&b)]).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidArgument, "{error}");
    assert!(!error.to_string().contains("onnxruntime_src"), "{error}");
}

#[test]
fn what_it_cannot_load_is_refused_by_name() {
    let Some(engine) = onnx_runtime() else { return };
    let refuse = |model: &Model| {
        let error = engine.load(&package(model.encode()), &LoadOptions::default()).err().unwrap();
        assert_eq!(error.code(), ErrorCode::Unimplemented, "{error}");
        error.to_string()
    };
    let unknown = Model::new()
        .input("x", DataType::Fp32, &[None])
        .output("y", DataType::Fp32, &[None])
        .node("", "Frobnicate", &["x"], &["y"], &[]);
    assert!(refuse(&unknown).contains("Frobnicate"));
    let future = Model::new()
        .opset("", 999)
        .input("x", DataType::Fp32, &[None])
        .output("y", DataType::Fp32, &[None])
        .node("", "Relu", &["x"], &["y"], &[]);
    assert!(refuse(&future).contains("999"));
}

#[test]
fn a_provider_that_is_not_there_is_refused() {
    let Some(engine) = onnx_runtime() else { return };
    let options = LoadOptions { providers: vec!["frobnicator".into()], ..LoadOptions::default() };
    let error = engine.load(&package(models::double(1)), &options).err().unwrap();
    assert_eq!(error.code(), ErrorCode::FailedPrecondition);
    assert!(error.to_string().contains("it has: ") && error.to_string().contains("cpu"), "{error}");
}

#[test]
fn a_zip_map_gives_the_tensor_that_it_zips() {
    let Some(engine) = onnx_runtime() else { return };
    let mut model = Model::new()
        .input("x", DataType::Fp32, &[None, Some(2)])
        .output("p", DataType::Fp32, &[None, Some(2)])
        .node("", "Identity", &["x"], &["inside"], &[])
        .node(
            "ai.onnx.ml",
            "ZipMap",
            &["inside"],
            &["p"],
            &[("classlabels_int64s", Attribute::Ints(vec![0, 1]))],
        );
    let package_with_tensor = package(model.encode());
    // Files say that it is a sequence of maps.
    use model::onnx::{TypeProto, type_proto};
    let float = TypeProto {
        value: Some(type_proto::Value::TensorType(type_proto::Tensor {
            elem_type: 1,
            shape: None,
        })),
        ..Default::default()
    };
    let map = type_proto::Map { key_type: 7, value_type: Some(Box::new(float)) };
    let map =
        TypeProto { value: Some(type_proto::Value::MapType(Box::new(map))), ..Default::default() };
    let sequence = type_proto::Sequence { elem_type: Some(Box::new(map)) };
    model.proto.graph.as_mut().unwrap().output[0].r#type = Some(TypeProto {
        value: Some(type_proto::Value::SequenceType(Box::new(sequence))),
        ..Default::default()
    });
    let bytes = model.encode();
    let package = Package {
        program: model::Program::Onnx(model.proto.clone().into()),
        bytes,
        ..package_with_tensor
    };
    let x = Tensor::new(vec![1, 2], vec![0.25f32, 0.75]).unwrap();
    assert_eq!(run(&engine, &package, &[&x])[0], x);
}

#[test]
fn weights_that_were_in_another_file_are_passed_on() {
    let Some(engine) = onnx_runtime() else { return };
    let mut package = package(models::double(2));
    // As `import` leaves it: the program is whole, the file's own bytes are not.
    let mut manifest = (*package.manifest).clone();
    manifest.size += 4;
    package.manifest = manifest.into();
    package.bytes = Bytes::from_static(b"only half of it");
    let x = Tensor::new(vec![1, 2], vec![1f32, 2.0]).unwrap();
    assert_eq!(run(&engine, &package, &[&x])[0].as_slice::<f32>().unwrap(), [2.0, 4.0]);
}

#[test]
fn a_name_that_the_model_lacks_is_found_at_load() {
    let Some(engine) = onnx_runtime() else { return };
    let mut package = package(models::double(2));
    let mut manifest = (*package.manifest).clone();
    manifest.signature.outputs[0].name = "nothing".into();
    package.manifest = manifest.into();
    let error = engine.load(&package, &LoadOptions::default()).err().unwrap();
    assert!(error.to_string().contains("\"nothing\""), "{error}");
}

#[test]
fn the_shared_models_give_their_documented_answers() {
    let Some(engine) = onnx_runtime() else { return };
    let (Some(tab), Some(encoder)) = (shared("tab.onnx"), shared("enc.onnx")) else { return };
    let body = |name: &str| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/models");
        let text = std::fs::read_to_string(format!("{folder}/{name}")).unwrap();
        let data = text.split("\"data\":").nth(1).unwrap();
        let numbers = data[data.find('[').unwrap() + 1..data.find(']').unwrap()].split(',');
        numbers.map(|number| number.trim().parse::<f64>().unwrap()).collect::<Vec<_>>()
    };
    let row: Vec<f32> = body("tab_v2.json").iter().map(|x| *x as f32).collect();
    let outputs = run(&engine, &tab, &[&Tensor::new(vec![1, 30], row).unwrap()]);
    assert_eq!(outputs[0].as_slice::<i64>().unwrap(), [0]);
    let probabilities = outputs[1].as_slice::<f32>().unwrap();
    assert!(close(probabilities[0], 0.999_999_17) && close(probabilities[1], 8.34e-07));
    let tokens: Vec<i64> = body("enc_v2.json").iter().map(|x| *x as i64).collect();
    let outputs = run(&engine, &encoder, &[&Tensor::new(vec![1, 64], tokens).unwrap()]);
    let embedding = outputs[0].as_slice::<f32>().unwrap();
    for (got, wanted) in embedding.iter().zip([-0.866_528_75, 0.358_649_64, -0.708_299_5]) {
        assert!(close(*got, wanted), "{got} {wanted}");
    }
}

/// Resident memory of this process in MiB.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}

#[cfg(target_os = "linux")]
#[test]
fn unloading_gives_the_memory_back_whatever_ran() {
    let Some(engine) = onnx_runtime() else { return };
    // 16 MiB of weights, and rows whose number changes with every run.
    let width = 2048;
    let weights = vec![0.5f32; width * width];
    let model = Model::new()
        .input("x", DataType::Fp32, &[None, Some(width as i64)])
        .output("y", DataType::Fp32, &[None, Some(width as i64)])
        .initializer("w", &[width as i64, width as i64], weights.into())
        .node("", "MatMul", &["x", "w"], &["y"], &[]);
    let package = package(model.encode());
    let cycle = |rows: usize| {
        let session = load(&engine, &package);
        for rows in [rows, 1, rows / 2 + 1] {
            let x = Tensor::new(vec![rows, width], vec![1f32; rows * width]).unwrap();
            assert_eq!(session.run(&[Some(&x)]).unwrap()[0].shape(), [rows, width]);
        }
    };
    (1..5).for_each(cycle);
    let before = resident();
    (1..25).for_each(cycle);
    let after = resident();
    // Keeping the weights of each would be 384 MiB.
    assert!(after < before + 64, "{before} MiB before 24 cycles, {after} MiB after");
    println!("{before} MiB before, {after} MiB after");
}
