//! Inputs that are maps.

use import::Error;
use model::onnx::{TypeProto, ValueInfoProto, type_proto};
use model::{DataType, Package, Program};
use testkit::onnx::{Attribute, Model, type_code};

/// A model with the map `x` from strings to FP32.
fn with_map(keys: DataType) -> Model {
    let mut model = Model::new();
    let number = type_proto::Tensor { elem_type: type_code(DataType::Fp32), shape: None };
    let value = Some(type_proto::Value::TensorType(number));
    let value = TypeProto { value, ..Default::default() };
    let map = type_proto::Map { key_type: type_code(keys), value_type: Some(Box::new(value)) };
    let value = Some(type_proto::Value::MapType(Box::new(map)));
    let kind = Some(TypeProto { value, ..Default::default() });
    let input = ValueInfoProto { name: "x".into(), r#type: kind, ..Default::default() };
    model.proto.graph.as_mut().unwrap().input.push(input);
    model
}

fn vectorized(keys: Vec<&'static str>) -> Model {
    let width = keys.len() as i64;
    let vocabulary = [("string_vocabulary", Attribute::Strings(keys))];
    with_map(DataType::Bytes).output("y", DataType::Fp32, &[Some(1), Some(width)]).node(
        "ai.onnx.ml",
        "DictVectorizer",
        &["x"],
        &["y"],
        &vocabulary,
    )
}

fn import(model: &Model) -> Result<Package, Error> {
    import::onnx(model.encode())
}

fn names(package: &Package) -> Vec<String> {
    package.manifest.signature.inputs.iter().map(|spec| spec.name.to_string()).collect()
}

#[test]
fn a_map_becomes_an_input_for_each_key() {
    let package = import(&vectorized(vec!["age", "city=Oslo"])).unwrap();
    assert_eq!(names(&package), ["age", "city=Oslo"]);
    let signature = &package.manifest.signature;
    assert!(signature.batched, "{:?}", package.manifest.notes);
    assert!(signature.inputs.iter().all(|spec| spec.extents() == [-1] && !spec.optional));
    assert_eq!(signature.outputs[0].extents(), [-1, 2]);
    assert!(package.manifest.notes[0].contains("input \"x\" was a map"));
    // Engines that parse the model themselves see the same one.
    let again = import::onnx(package.bytes.clone()).unwrap();
    assert_eq!(again.manifest.signature, package.manifest.signature);
}

#[test]
fn integers_as_keys_are_written_out() {
    let vocabulary = [("int64_vocabulary", Attribute::Ints(vec![7, -3]))];
    let model = with_map(DataType::Int64).output("y", DataType::Fp32, &[None, None]).node(
        "ai.onnx.ml",
        "DictVectorizer",
        &["x"],
        &["y"],
        &vocabulary,
    );
    assert_eq!(names(&import(&model).unwrap()), ["7", "-3"]);
}

#[test]
fn keys_that_are_names_already_get_the_inputs_name_in_front() {
    let package = import(&vectorized(vec!["y", "age"])).unwrap();
    assert_eq!(names(&package), ["x.y", "x.age"]);
    let Program::Onnx(model) = &package.program;
    let nodes = &model.graph.as_ref().unwrap().node;
    assert_eq!((&nodes[0].input[0], &nodes[1].input[0]), (&"x.y".to_owned(), &"x.age".to_owned()));
    assert_eq!(names(&import(&vectorized(vec![""])).unwrap()), ["x."]);
}

#[test]
fn a_key_that_is_listed_twice_is_one_input_and_two_columns() {
    let package = import(&vectorized(vec!["a", "b", "a"])).unwrap();
    assert_eq!(names(&package), ["a", "b"]);
    assert_eq!(package.manifest.signature.outputs[0].extents(), [-1, 3]);
}

#[test]
fn a_map_that_goes_elsewhere_is_refused() {
    let cast = with_map(DataType::Int64).output("y", DataType::Fp32, &[None]).node(
        "ai.onnx.ml",
        "CastMap",
        &["x"],
        &["y"],
        &[],
    );
    let unused = with_map(DataType::Bytes)
        .input("z", DataType::Fp32, &[None])
        .output("y", DataType::Fp32, &[None])
        .node("", "Neg", &["z"], &["y"], &[]);
    for model in [cast, unused] {
        let error = import(&model).unwrap_err().to_string();
        assert!(error.starts_with("input \"x\": is a map"), "{error}");
    }
}

#[test]
fn vocabularies_that_make_no_sense_are_refused() {
    let integers = [("int64_vocabulary", Attribute::Ints(vec![1]))];
    let wrong_type = with_map(DataType::Bytes).output("y", DataType::Fp32, &[None, None]).node(
        "ai.onnx.ml",
        "DictVectorizer",
        &["x"],
        &["y"],
        &integers,
    );
    for model in [wrong_type, vectorized(vec![])] {
        let error = import(&model).unwrap_err().to_string();
        assert!(error.contains("expected a vocabulary"), "{error}");
    }
    let many = (0..2000).map(|i| &*format!("k{i}").leak()).collect();
    let error = import(&vectorized(many)).unwrap_err().to_string();
    assert!(error.contains("2000 keys") && error.contains("without its DictVectorizer"), "{error}");
}
