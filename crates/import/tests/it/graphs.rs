//! What import makes of graphs: order, functions, classifiers, rows.

use model::onnx::{
    AttributeProto, FunctionProto, GraphProto, NodeProto, OperatorSetIdProto, type_proto,
};
use model::{DataType, Package, Program};
use testkit::onnx::{Attribute, Model, float, int64};

use crate::support::{frame, refusal};

fn graph(package: &Package) -> &GraphProto {
    let Program::Onnx(program) = &package.program;
    program.graph.as_ref().unwrap()
}

fn operators(package: &Package) -> Vec<&str> {
    graph(package).node.iter().map(|node| node.op_type.as_str()).collect()
}

/// The note on why requests are not stacked; `None` if they are.
fn unstacked(model: &Model) -> Option<String> {
    let package = import::onnx(model.encode()).unwrap();
    let note = package.manifest.notes.iter().find(|note| note.starts_with("batching: ")).cloned();
    assert_eq!(note.is_none(), package.manifest.signature.batched);
    note
}

#[test]
fn nodes_are_put_in_order() {
    let model = frame()
        .node("", "Relu", &["b"], &["y"], &[])
        .node("", "Abs", &["a"], &["b"], &[])
        .node("", "Neg", &["x"], &["a"], &[]);
    let package = import::onnx(model.encode()).unwrap();
    assert_eq!(operators(&package), ["Neg", "Abs", "Relu"]);
    assert_eq!(package.bytes, model.encode());
}

#[test]
fn the_default_domain_has_one_spelling() {
    let mut model = frame().node("ai.onnx", "Relu", &["x"], &["y"], &[]);
    model.proto.opset_import[0].domain = "ai.onnx".into();
    let package = import::onnx(model.encode()).unwrap();
    assert_eq!(graph(&package).node[0].domain, "");
    assert_eq!(import::inspect(&package).opsets["ai.onnx"], 17);
}

fn node(operator: &str, domain: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    NodeProto {
        op_type: operator.into(),
        domain: domain.into(),
        input: own(inputs),
        output: own(outputs),
        ..Default::default()
    }
}

fn function(name: &str, inputs: &[&str], outputs: &[&str], nodes: Vec<NodeProto>) -> FunctionProto {
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    FunctionProto {
        name: name.into(),
        domain: "f".into(),
        input: own(inputs),
        output: own(outputs),
        node: nodes,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
        ..Default::default()
    }
}

#[test]
fn local_functions_are_inlined() {
    let mut leaky = node("LeakyRelu", "", &["t"], &["r"]);
    leaky.attribute.push(AttributeProto {
        name: "alpha".into(),
        ref_attr_name: "slope".into(),
        r#type: 1,
        ..Default::default()
    });
    let inner = function("Inner", &["a"], &["r"], vec![node("Neg", "", &["a"], &["t"]), leaky]);
    let mut call = node("Inner", "f", &["p"], &["q"]);
    call.attribute.push(AttributeProto {
        name: "slope".into(),
        f: 0.5,
        r#type: 1,
        ..Default::default()
    });
    let outer = function("Outer", &["p"], &["q", "p"], vec![call]);
    let mut model = frame()
        .opset("f", 1)
        .node("f", "Outer", &["x"], &["m", "same"], &[])
        .node("f", "Inner", &["m"], &["n"], &[])
        .node("", "Add", &["n", "same"], &["y"], &[]);
    model.proto.functions = vec![inner, outer];
    let package = import::onnx(model.encode()).unwrap();
    assert_eq!(operators(&package), ["Neg", "LeakyRelu", "Identity", "Neg", "LeakyRelu", "Add"]);
    let nodes = &graph(&package).node;
    assert_eq!((nodes[1].attribute[0].name.as_str(), nodes[1].attribute[0].f), ("alpha", 0.5));
    assert!(
        nodes[4].attribute.is_empty(),
        "an attribute that nobody gives is left to the operator"
    );
    assert!(package.manifest.signature.batched);
}

#[test]
fn functions_that_cannot_be_inlined_are_named() {
    let with = |function: FunctionProto| {
        let mut model = frame().opset("f", 1).node("f", "F", &["x"], &["y"], &[]);
        model.proto.functions = vec![function];
        refusal(model.encode())
    };
    let itself = function("F", &["a"], &["b"], vec![node("F", "f", &["a"], &["b"])]);
    assert!(with(itself).contains("the local function \"F\" calls itself"));
    let mut newer = function("F", &["a"], &["b"], vec![node("Relu", "", &["a"], &["b"])]);
    newer.opset_import[0].version = 18;
    assert!(
        with(newer)
            .contains("uses version 18 of an operator set of which the model uses version 17")
    );
    assert!(
        with(function("F", &[], &["b"], vec![])).contains("takes 0 inputs and gives 1 outputs")
    );
}

/// A classifier as sklearn's exporter makes it, with names for its classes.
fn classifier(labels: (&'static str, Attribute)) -> Model {
    let coefficients = ("coefficients", Attribute::Floats(vec![1.0; 4]));
    Model::new()
        .input("x", DataType::Fp32, &[None, Some(2)])
        .output("label", DataType::Int64, &[None])
        .node("ai.onnx.ml", "LinearClassifier", &["x"], &["label", "raw"], &[coefficients, labels])
        .node(
            "ai.onnx.ml",
            "Normalizer",
            &["raw"],
            &["scores"],
            &[("norm", Attribute::String("L1"))],
        )
}

fn ints() -> (&'static str, Attribute) {
    ("classlabels_ints", Attribute::Ints(vec![3, 5]))
}

#[test]
fn class_names_are_traced() {
    let model = classifier(ints()).output("p", DataType::Fp32, &[None, Some(2)]).node(
        "",
        "Identity",
        &["scores"],
        &["p"],
        &[],
    );
    let package = import::onnx(model.encode()).unwrap();
    let signature = &package.manifest.signature;
    assert_eq!(signature.outputs[1].labels, ["3", "5"]);
    assert!(signature.outputs[0].labels.is_empty());
    let names = ("classlabels_strings", Attribute::Strings(vec!["no", "yes"]));
    let model = classifier(names).output("scores", DataType::Fp32, &[None, Some(2)]);
    let package = import::onnx(model.encode()).unwrap();
    assert_eq!(package.manifest.signature.outputs[1].labels, ["no", "yes"]);
}

#[test]
fn zip_maps_become_matrices() {
    let keys = [("classlabels_int64s", Attribute::Ints(vec![3, 5]))];
    let mut model = classifier(ints()).output("maps", DataType::Fp32, &[]).node(
        "ai.onnx.ml",
        "ZipMap",
        &["scores"],
        &["maps"],
        &keys,
    );
    let sequence = type_proto::Value::SequenceType(Box::default());
    model.proto.graph.as_mut().unwrap().output[1].r#type.as_mut().unwrap().value = Some(sequence);
    let package = import::onnx(model.encode()).unwrap();
    let output = &package.manifest.signature.outputs[1];
    assert_eq!(
        (&*output.name, output.datatype, output.extents()),
        ("maps", DataType::Fp32, vec![-1, 2])
    );
    assert_eq!(output.labels, ["3", "5"]);
    assert!(package.manifest.signature.batched);
    assert_eq!(operators(&package), ["LinearClassifier", "Normalizer"]);
    assert_ne!(package.bytes, model.encode());
    assert!(package.manifest.notes[0].contains("was a list of maps"));

    // Engines are given the same program; the digest is that of the file.
    let again = import::onnx(package.bytes.clone()).unwrap();
    assert_eq!(operators(&again), operators(&package));
    assert_ne!(again.manifest.digest, package.manifest.digest);

    // Where the scores are an output too, they are copied.
    let model = model.output("scores", DataType::Fp32, &[None, Some(2)]);
    let package = import::onnx(model.encode()).unwrap();
    assert_eq!(operators(&package), ["LinearClassifier", "Normalizer", "Identity"]);
}

#[test]
fn defaults_make_inputs_optional() {
    let model = frame()
        .input("w", DataType::Fp32, &[Some(4)])
        .initializer("w", &[4], float(&[1.0; 4]))
        .node("", "Add", &["x", "w"], &["y"], &[]);
    let package = import::onnx(model.encode()).unwrap();
    let optional: Vec<bool> =
        package.manifest.signature.inputs.iter().map(|i| i.optional).collect();
    assert_eq!(optional, [false, true]);
    assert!(unstacked(&model).unwrap().contains("input \"w\" has a default"));
    // The oldest files had to list every weight as an input.
    let mut old = model;
    old.proto.ir_version = 3;
    assert_eq!(import::onnx(old.encode()).unwrap().manifest.signature.inputs.len(), 1);
    assert_eq!(unstacked(&old), None);
}

#[test]
fn all_types_of_the_protocol_are_read() {
    for datatype in DataType::ALL {
        let model = Model::new().input("x", datatype, &[None]).output("y", datatype, &[None]).node(
            "",
            "Identity",
            &["x"],
            &["y"],
            &[],
        );
        let package = import::onnx(model.encode()).unwrap();
        assert_eq!(package.manifest.signature.outputs[0].datatype, datatype);
    }
}

#[test]
fn outputs_are_described_better_than_they_are_declared() {
    let mut model = Model::new()
        .input("x", DataType::Fp32, &[None, Some(6)])
        .output("a", DataType::Fp32, &[])
        .output("b", DataType::Fp32, &[Some(1), None])
        .output("c", DataType::Fp32, &[Some(6)])
        .node("", "Relu", &["x"], &["a"], &[])
        .node("", "Neg", &["x"], &["b"], &[])
        .node("", "Abs", &["x"], &["c"], &[]);
    let kind = model.proto.graph.as_mut().unwrap().output[0].r#type.as_mut().unwrap();
    kind.value =
        Some(type_proto::Value::TensorType(type_proto::Tensor { elem_type: 1, shape: None }));
    let package = import::onnx(model.encode()).unwrap();
    let signature = &package.manifest.signature;
    assert!(signature.batched);
    let extents: Vec<_> = signature.outputs.iter().map(|output| output.extents()).collect();
    assert_eq!(extents[0], [-1, 6]);
    assert_eq!(extents[1][0], -1);
    assert_eq!(extents[2], [-1, 6]);
    assert!(package.manifest.notes[0].contains("output \"b\" declares the first dimension 1"));
    assert!(package.manifest.notes[1].contains("output \"c\" declares 1 dimensions, but has 2"));
}

#[test]
fn what_mixes_rows_is_named() {
    let axis = |axis| vec![("axis", Attribute::Int(axis))];
    let cases = [
        ("Softmax", axis(0), "(Softmax): normalises across the rows"),
        ("LogSoftmax", axis(-2), "normalises across the rows"),
        ("ReduceMean", vec![("axes", Attribute::Ints(vec![0]))], "reduces over the rows"),
        ("ReduceSum", vec![], "reduces over the rows"),
        ("ArgMax", vec![], "looks for the largest or smallest row"),
        ("Transpose", vec![], "the rows along another than its first dimension"),
        ("Flatten", axis(0), "folds the rows"),
        ("LayerNormalization", axis(0), "normalises across the rows"),
        ("DynamicQuantizeLinear", vec![], "is not known to keep rows apart"),
        ("NonZero", vec![], "is not known to keep rows apart"),
    ];
    for (operator, attributes, expected) in cases {
        let model = frame().node("", operator, &["x"], &["y"], &attributes);
        let note = unstacked(&model).unwrap_or_else(|| panic!("{operator} was called safe"));
        assert!(note.contains(expected), "{operator}: {note}");
    }
    let binary = |operator: &str, shape: &[i64], attributes: &[(&str, Attribute)]| {
        let count = shape.iter().product::<i64>() as usize;
        let model = frame().initializer("w", shape, float(&vec![1.0; count]));
        unstacked(&model.node("", operator, &["x", "w"], &["y"], attributes))
    };
    assert_eq!(binary("Add", &[4], &[]), None);
    assert_eq!(binary("Add", &[1, 4], &[]), None);
    assert_eq!(binary("MatMul", &[4, 4], &[]), None);
    assert!(binary("Add", &[8, 4], &[]).unwrap().contains("fixes the number of rows to 8"));
    assert!(binary("Add", &[2, 1, 4], &[]).unwrap().contains("another than its first dimension"));
    assert!(binary("Concat", &[1, 4], &axis(0)).unwrap().contains("joins rows"));
    assert!(binary("Concat", &[1, 4], &axis(1)).unwrap().contains("fixes the number of rows to 1"));
    let transposed = [("transA", Attribute::Int(1))];
    assert!(binary("Gemm", &[4, 4], &transposed).unwrap().contains("adds up over the rows"));
    let own = frame().node("", "Transpose", &["x"], &["t"], &[]).node(
        "",
        "MatMul",
        &["x", "t"],
        &["y"],
        &[],
    );
    assert!(unstacked(&own).unwrap().contains("relates rows to each other"));
}

#[test]
fn what_inputs_say_counts() {
    let with = |shapes: [&[Option<i64>]; 2]| {
        let model = Model::new()
            .input("a", DataType::Fp32, shapes[0])
            .input("b", DataType::Fp32, shapes[1])
            .output("y", DataType::Fp32, &[None, None]);
        model.node("", "Add", &["a", "b"], &["y"], &[])
    };
    assert_eq!(unstacked(&with([&[None, Some(1)], &[None, Some(1)]])), None);
    let fixed = with([&[Some(1), Some(1)], &[None, Some(1)]]);
    assert!(unstacked(&fixed).unwrap().contains("input \"a\" has the fixed first dimension 1"));
    let scalar = with([&[], &[None, Some(1)]]);
    assert!(unstacked(&scalar).unwrap().contains("input \"a\" has no dimensions"));
    let mut different = with([&[None, Some(1)], &[None, Some(1)]]);
    let input = &mut different.proto.graph.as_mut().unwrap().input[1];
    let other = Model::new().input("b", DataType::Fp32, &[Some(1), None]).into_graph();
    *input = other.input[0].clone();
    if let Some(type_proto::Value::TensorType(tensor)) = &mut input.r#type.as_mut().unwrap().value {
        tensor.shape.as_mut().unwrap().dim.swap(0, 1);
    }
    assert!(unstacked(&different).unwrap().contains("different first dimensions, N and d1"));
}

#[test]
fn shapes_computed_from_the_number_of_rows_are_followed() {
    let start = || {
        Model::new()
            .input("x", DataType::Fp32, &[None, Some(2), Some(6)])
            .output("y", DataType::Fp32, &[None, None])
            .initializer("zero", &[1], int64(&[0]))
            .initializer("rest", &[1], int64(&[-1]))
            .initializer("half", &[1], int64(&[2]))
            .node("", "Shape", &["x"], &["s"], &[])
            .node("", "Gather", &["s", "zero"], &["n"], &[])
    };
    let axis = [("axis", Attribute::Int(0))];
    let kept = start().node("", "Concat", &["n", "rest"], &["shape"], &axis).node(
        "",
        "Reshape",
        &["x", "shape"],
        &["y"],
        &[],
    );
    assert_eq!(unstacked(&kept), None);
    let doubled = start()
        .node("", "Mul", &["n", "half"], &["m"], &[])
        .node("", "Concat", &["m", "rest"], &["shape"], &axis)
        .node("", "Reshape", &["x", "shape"], &["y"], &[]);
    assert!(unstacked(&doubled).unwrap().contains("computes with the number of rows"));
    for (shape, expected) in [
        (vec![-1, 12], None),
        (vec![0, -1], None),
        (vec![0, 3, 4], None),
        (vec![-1, 6], Some("folds the rows")),
        (vec![-1, 24], Some("folds the rows")),
        (vec![12, -1], Some("moves elements from row to row")),
        (vec![1, 12], Some("a fixed number of rows")),
    ] {
        let count = shape.len() as i64;
        let model = start().initializer("shape", &[count], int64(&shape));
        let note = unstacked(&model.node("", "Reshape", &["x", "shape"], &["y"], &[]));
        match expected {
            None => assert_eq!(note, None, "{shape:?}"),
            Some(expected) => assert!(note.unwrap().contains(expected), "{shape:?}"),
        }
    }
}

#[test]
fn packages_are_described() {
    let inspection = import::inspect(&import::onnx(classifier(ints()).encode()).unwrap());
    assert_eq!(inspection.nodes, 2);
    assert_eq!(inspection.operators[0].domain, "ai.onnx.ml");
    assert_eq!(inspection.attribute_values, 6);
    assert_eq!(inspection.opsets["ai.onnx.ml"], 3);
    let json = serde_json::to_value(&inspection).unwrap();
    assert_eq!(json["metadata"]["producer_name"], "testkit");
}
