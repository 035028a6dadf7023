//! Every refusal says what is wrong.

use bytes::Bytes;
use model::onnx::{OperatorSetIdProto, SparseTensorProto, type_proto};
use model::{DataType, ErrorCode};
use testkit::onnx::{Attribute, Model, float, models, tensor};

use crate::support::{frame, refusal, with_tensor};

#[track_caller]
fn assert_says(message: &str, expected: &str) {
    assert!(message.contains(expected), "{message:?} does not say {expected:?}");
}

#[test]
fn other_files_are_recognised() {
    let zip = |name: &[u8]| [b"PK\x03\x04\0\0\0\0".as_slice(), name].concat();
    let cases: [(Vec<u8>, &str); 21] = [
        (vec![], "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n".to_vec(), "git lfs pull"),
        (b"<!DOCTYPE html><html><body>404".to_vec(), "web page"),
        (b"<?xml version=\"1.0\"?><PMML version=\"4.4\">".to_vec(), "PMML"),
        (b"<?xml version=\"1.0\"?><net>".to_vec(), "XML"),
        (zip(b"archive/data.pkl"), "PyTorch checkpoint"),
        (zip(b"archive/constants.pkl archive/data.pkl"), "TorchScript"),
        (zip(b"MAR-INF/MANIFEST.json"), "TorchServe"),
        (zip(b"readme"), "zip archive"),
        (b"\x80\x04\x95\x10\0\0\0".to_vec(), "pickle"),
        (b"\x1f\x8b\x08\0".to_vec(), "compressed"),
        (b"\x89HDF\r\n\x1a\n\0".to_vec(), "HDF5"),
        (b"\x1c\0\0\0TFL3".to_vec(), "TensorFlow Lite"),
        (b"\x1c\0\0\0ORTM".to_vec(), "ORT format"),
        (b"GGUF\x03\0".to_vec(), "GGUF"),
        (b"tree\nversion=v4\n".to_vec(), "LightGBM"),
        (b"{\"learner\": {}}".to_vec(), "XGBoost"),
        (b"{}".to_vec(), "JSON"),
        (b"\x10\0\0\0\0\0\0\0{\"w\":{\"data_offsets\":[0,4]}}".to_vec(), "safetensors"),
        (b"\x08\x01\x12\xff\x01\x0a\x05serve serving_default".to_vec(), "SavedModel"),
        (vec![0; 4096], "only zeros"),
    ];
    for (bytes, expected) in cases {
        let message = refusal(bytes);
        assert_says(&message, "not an ONNX model");
        assert_says(&message, expected);
    }
}

#[test]
fn damaged_files_say_where_they_break_off() {
    let whole = models::double(3);
    assert_says(&refusal(whole.slice(..whole.len() - 3)), "cut off");
    assert_says(&refusal(&b"\x08\x08\x3a"[..]), "cut off");
    assert_says(&refusal(&b"\x08\x08"[..]), "it has no graph");
    assert_says(&refusal(&b"random bytes here"[..]), "not an ONNX model, or a damaged one");
}

#[test]
fn a_small_file_cannot_ask_for_much_memory() {
    // Two bytes in the file are an empty node, which takes hundreds in memory.
    let nodes = [0x0au8, 0x00].repeat(2 << 20);
    let mut bytes = vec![0x08, 0x08, 0x3a];
    prost::encoding::encode_varint(nodes.len() as u64, &mut bytes);
    bytes.extend(nodes);
    assert_says(&refusal(bytes), "far more memory than its size");
    let mut nested = Vec::new();
    for _ in 0..200 {
        // A graph in an attribute in a node, again and again.
        for key in [0x32u8, 0x2a, 0x0a] {
            let mut outer = vec![key];
            prost::encoding::encode_varint(nested.len() as u64, &mut outer);
            outer.extend(&nested);
            nested = outer;
        }
    }
    let mut bytes = vec![0x08, 0x08, 0x3a];
    prost::encoding::encode_varint(nested.len() as u64, &mut bytes);
    bytes.extend(nested);
    assert_says(&refusal(bytes), "nested more than");
}

#[test]
fn versions_are_checked() {
    let with = |change: fn(&mut Model)| {
        let mut model = frame().node("", "Relu", &["x"], &["y"], &[]);
        change(&mut model);
        refusal(model.encode())
    };
    assert_says(&with(|m| m.proto.ir_version = 99), "version 99 of the ONNX format");
    assert_says(&with(|m| m.proto.ir_version = -1), "the format version -1 does not exist");
    assert_says(&with(|m| m.proto.opset_import.clear()), "does not say which operator sets");
    assert_says(
        &with(|m| m.proto.opset_import[0].version = 99),
        "version 99 of the operator set ai.onnx",
    );
    assert_says(&with(|m| m.proto.opset_import[0].version = 0), "does not exist");
    let twice = |m: &mut Model| {
        m.proto.opset_import.push(OperatorSetIdProto { domain: "ai.onnx".into(), version: 13 });
    };
    assert_says(&with(twice), "imported twice, in versions 17 and 13");
    let custom = frame().opset("my.ops", 1).node("my.ops", "Magic", &["x"], &["y"], &[]);
    assert_says(&refusal(custom.encode()), "(Magic): uses the custom operator set \"my.ops\"");
    let absent = frame().node("com.microsoft", "Gelu", &["x"], &["y"], &[]);
    assert_says(&refusal(absent.encode()), "com.microsoft, which the model does not import");
}

#[test]
fn tensors_hold_what_they_say() {
    let says = |change: fn(&mut model::onnx::TensorProto), expected: &str| {
        let message = refusal(with_tensor(change));
        assert_says(&message, "tensor \"w\": ");
        assert_says(&message, expected);
    };
    says(|t| t.dims = vec![5], "dimensions [5], which take 20 bytes, but holds 16");
    says(|t| t.dims = vec![1_000_000_000], "take 4000000000 bytes, but holds 16");
    says(|t| t.dims = vec![i64::MAX, i64::MAX], "too many elements");
    says(|t| t.dims = vec![-4], "negative dimension -4");
    says(|t| t.data_type = 0, "unknown element type 0");
    says(|t| t.data_type = 77, "unknown element type 77");
    says(|t| t.float_data = vec![1.0], "twice, as raw bytes and as a list");
    says(|t| t.data_type = 8, "strings as raw bytes");
    says(
        |t| {
            t.raw_data = None;
            t.float_data = vec![1.0; 3];
        },
        "take 4 list entries, but holds 3",
    );
    says(
        |t| {
            t.raw_data = None;
            t.float_data = vec![1.0; 4];
            t.int64_data = vec![1];
        },
        "list entries of another type",
    );
    says(|t| t.data_location = 1, "stored outside, but in no file");
}

#[test]
fn graphs_are_programs() {
    let says = |model: Model, expected: &str| assert_says(&refusal(model.encode()), expected);
    says(
        frame().node("", "Add", &["x", "z"], &["y"], &[]),
        "node \"Add_0\" (Add): its input \"z\" is neither",
    );
    says(frame(), "the output \"y\" is not made by any node");
    says(frame().node("", "", &["x"], &["y"], &[]), "has no operator");
    let cycle =
        frame().node("", "Add", &["x", "b"], &["a"], &[]).node("", "Relu", &["a"], &["b"], &[]);
    says(cycle.node("", "Relu", &["b"], &["y"], &[]), "the graph has a cycle");
    let twice = frame().node("", "Relu", &["x"], &["y"], &[]);
    says(twice.node("", "Abs", &["x"], &["y"], &[]), "its output \"y\" is defined already");
    let attributes = [("axis", Attribute::Int(1)), ("axis", Attribute::Int(0))];
    says(frame().node("", "Softmax", &["x"], &["y"], &attributes), "\"axis\" is given twice");
    let again = frame().input("x", DataType::Fp32, &[None]).node("", "Relu", &["x"], &["y"], &[]);
    says(again, "the input \"x\" is listed twice");
    let again = frame().output("y", DataType::Fp32, &[None]).node("", "Relu", &["x"], &["y"], &[]);
    says(again, "the output \"y\" is listed twice");
    let again = frame().initializer("w", &[], float(&[1.0])).initializer("w", &[], float(&[1.0]));
    says(again.node("", "Add", &["x", "w"], &["y"], &[]), "the tensor \"w\" is listed twice");
    let mut sparse = frame().node("", "Relu", &["x"], &["y"], &[]);
    let values = Some(tensor("s", &[1], float(&[1.0])));
    let proto = SparseTensorProto { values, ..Default::default() };
    sparse.proto.graph.as_mut().unwrap().sparse_initializer.push(proto);
    says(sparse, "tensor \"s\" is sparse");
    let constant = tensor("", &[3], float(&[1.0])); // Three elements are claimed, one is there.
    let bad = frame().node("", "Constant", &[], &["y"], &[("value", Attribute::Tensor(constant))]);
    says(bad, "attribute \"value\": has dimensions [3]");
}

#[test]
fn subgraphs_see_what_is_around_them_and_no_more() {
    let branch = |input: &str| {
        let graph = Model::new().node("", "Relu", &[input], &["inner"], &[]).output(
            "inner",
            DataType::Fp32,
            &[None],
        );
        Attribute::Graph(graph.into_graph())
    };
    let with = |input: &str| {
        let branches = [("then_branch", branch(input)), ("else_branch", branch(input))];
        frame()
            .initializer("c", &[], vec![true].into())
            .node("", "If", &["c"], &["y"], &branches)
            .node("", "Abs", &["x"], &["later"], &[])
            .encode()
    };
    import::onnx(with("x")).unwrap();
    // A node further down is moved in front of the one that needs it.
    import::onnx(with("later")).unwrap();
    assert_says(&refusal(with("absent")), "its input \"absent\" is neither");
    let mut graph = Model::new().node("", "Relu", &["x"], &["deep"], &[]).output(
        "deep",
        DataType::Fp32,
        &[None],
    );
    for _ in 0..20 {
        let inner = Attribute::Graph(graph.into_graph());
        graph = Model::new().node("", "Loop", &[], &["deep"], &[("body", inner)]).output(
            "deep",
            DataType::Fp32,
            &[None],
        );
    }
    let deep =
        frame().node("", "Loop", &[], &["y"], &[("body", Attribute::Graph(graph.into_graph()))]);
    assert_says(&refusal(deep.encode()), "subgraphs are nested more than 16 deep");
}

#[test]
fn what_no_protocol_carries_is_named() {
    let with = |value: Option<type_proto::Value>| {
        let mut model = frame().node("", "Relu", &["x"], &["y"], &[]);
        let output = &mut model.proto.graph.as_mut().unwrap().output[0];
        output.r#type.as_mut().unwrap().value = value;
        import::onnx(model.encode()).unwrap_err()
    };
    let sequence = with(Some(type_proto::Value::SequenceType(Box::default())));
    assert_eq!(sequence.code(), ErrorCode::Unimplemented);
    assert_says(&sequence.to_string(), "output \"y\": is a sequence");
    assert_says(&with(Some(type_proto::Value::MapType(Box::default()))).to_string(), "is a map");
    let optional = with(Some(type_proto::Value::OptionalType(Box::default())));
    assert_says(&optional.to_string(), "is an optional");
    assert_says(&with(None).to_string(), "output \"y\": has no type");
    let complex = type_proto::Tensor { elem_type: 14, shape: None };
    assert_says(
        &with(Some(type_proto::Value::TensorType(complex))).to_string(),
        "element type complex64",
    );
}

#[test]
fn signatures_are_checked() {
    let mut model = frame().node("", "Relu", &["x"], &["y"], &[]);
    model.proto.graph.as_mut().unwrap().output.clear();
    assert_says(&refusal(model.encode()), "the model has no outputs");
    let negative = Model::new()
        .input("x", DataType::Fp32, &[None, Some(-7)])
        .output("y", DataType::Fp32, &[None])
        .node("", "Relu", &["x"], &["y"], &[]);
    assert_says(&refusal(negative.encode()), "input \"x\": has the negative dimension -7");
    let shape = [None; 65];
    let many = Model::new().input("x", DataType::Fp32, &shape).output("y", DataType::Fp32, &[None]);
    assert_says(&refusal(many.node("", "Relu", &["x"], &["y"], &[]).encode()), "has 65 dimensions");
}

#[test]
fn paths_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let error = import::open(&folder.path().join("absent.onnx")).unwrap_err();
    assert_eq!(error.code(), ErrorCode::NotFound);
    assert_says(&import::open(folder.path()).unwrap_err().to_string(), "no model found");
    let path = folder.path().join("bad.onnx");
    std::fs::write(&path, Bytes::from_static(b"nonsense")).unwrap();
    assert_says(&import::open(&path).unwrap_err().to_string(), "bad.onnx: not an ONNX model");
}
