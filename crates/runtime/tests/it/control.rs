//! `If`, `Loop` and `Scan` on the native engine: their graphs are held to what the model's own is.

use bytes::Bytes;
use model::onnx::GraphProto;
use model::{Data, DataType, ErrorCode, Tensor};
use runtime::native::Native;
use runtime::{Engine, Error, LoadOptions};
use testkit::onnx::{Attribute, Model, float, int64};

use crate::support::package;

fn run(bytes: Bytes, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
    let package = package(bytes);
    let engine = Native::default();
    engine.supports(&package)?;
    let session = engine.load(&package, &LoadOptions::default())?;
    session.run(&inputs.iter().map(Some).collect::<Vec<_>>())
}

fn tensor(shape: &[usize], data: impl Into<Data>) -> Tensor {
    Tensor::new(shape.to_vec(), data).unwrap()
}

/// A body that goes on, adds `step` to the value that it carries, and shows each sum.
fn adding(datatype: DataType, step: Data) -> GraphProto {
    Model::new()
        .input("i", DataType::Int64, &[])
        .input("on", DataType::Bool, &[])
        .input("sum", datatype, &[])
        .output("go", DataType::Bool, &[])
        .output("more", datatype, &[])
        .output("shown", datatype, &[])
        .initializer("step", &[], step)
        .node("", "Identity", &["on"], &["go"], &[])
        .node("", "Add", &["sum", "step"], &["more"], &[])
        .node("", "Identity", &["more"], &["shown"], &[])
        .into_graph()
}

fn looping(datatype: DataType, body: GraphProto) -> Bytes {
    Model::new()
        .input("rounds", DataType::Int64, &[])
        .input("start", datatype, &[])
        .output("end", datatype, &[])
        .output("way", datatype, &[None])
        .node(
            "",
            "Loop",
            &["rounds", "", "start"],
            &["end", "way"],
            &[("body", Attribute::Graph(body))],
        )
        .encode()
}

#[test]
fn a_loop_counts_in_64_bits() {
    let large = 1i64 << 40;
    let model = looping(DataType::Int64, adding(DataType::Int64, int64(&[large])));
    let outputs = run(model, &[Tensor::scalar(vec![3i64]), Tensor::scalar(vec![5i64])]).unwrap();
    assert_eq!(outputs[0].as_slice::<i64>(), Some(&[3 * large + 5][..]));
    assert_eq!(outputs[1].as_slice::<i64>().unwrap()[..], [1, 2, 3].map(|n| n * large + 5));
}

#[test]
fn a_loop_without_rounds_gives_nothing_of_the_right_type() {
    let model = looping(DataType::Fp64, adding(DataType::Fp64, vec![1f64].into()));
    let outputs = run(model, &[Tensor::scalar(vec![0i64]), Tensor::scalar(vec![5f64])]).unwrap();
    assert_eq!(outputs[0].as_slice::<f64>(), Some(&[5f64][..]));
    assert_eq!((outputs[1].shape(), outputs[1].datatype()), (&[0][..], DataType::Fp64));
}

#[test]
fn a_loop_without_end_is_stopped_before_memory_is() {
    let model = looping(DataType::Fp32, adding(DataType::Fp32, float(&[1.0])));
    let inputs = [Tensor::scalar(vec![i64::MAX]), Tensor::scalar(vec![0f32])];
    let error = run(model, &inputs).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidArgument);
    assert!(error.to_string().contains("too large"), "{error}");
}

/// Chooses between two branches that each read `x` from around them.
fn choosing(yes: GraphProto, no: GraphProto) -> Model {
    Model::new().input("which", DataType::Bool, &[]).node(
        "",
        "If",
        &["which"],
        &["y"],
        // Exporters list them by name.
        &[("else_branch", Attribute::Graph(no)), ("then_branch", Attribute::Graph(yes))],
    )
}

#[test]
fn a_branch_may_hold_tabular_operators() {
    let binarizer = Model::new()
        .output("bits", DataType::Fp32, &[None, Some(2)])
        .node("ai.onnx.ml", "Binarizer", &["x"], &["bits"], &[("threshold", Attribute::Float(1.5))])
        .into_graph();
    let negated = Model::new()
        .output("less", DataType::Fp32, &[None, Some(2)])
        .node("", "Neg", &["x"], &["less"], &[])
        .into_graph();
    let model = choosing(binarizer, negated)
        .input("x", DataType::Fp32, &[None, Some(2)])
        .output("y", DataType::Fp32, &[None, Some(2)])
        .encode();
    for (which, wanted) in [(true, [0.0, 1.0]), (false, [-1.0, -2.0])] {
        let which = Tensor::scalar(Data::Bool(vec![u8::from(which)].into()));
        let outputs = run(model.clone(), &[which, tensor(&[1, 2], vec![1f32, 2.0])]).unwrap();
        assert_eq!(outputs[0].as_slice::<f32>(), Some(&wanted[..]));
    }
}

#[test]
fn what_a_branch_cannot_do_is_refused_at_load_by_name() {
    let branch = |operator: &str| {
        Model::new()
            .output("z", DataType::Fp32, &[None, Some(2)])
            .node("", operator, &["x"], &["z"], &[])
            .into_graph()
    };
    let model = choosing(branch("Neg"), branch("Det"))
        .input("x", DataType::Fp32, &[None, Some(2)])
        .output("y", DataType::Fp32, &[None, Some(2)]);
    let error = Native::default().supports(&package(model.encode())).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unimplemented);
    assert!(error.to_string().contains("operator Det is not supported"), "{error}");
}

/// Rows of `x` times `m`, one at a time, forwards or backwards.
fn scanning(backwards: bool) -> Bytes {
    let body = Model::new()
        .input("state", DataType::Fp32, &[])
        .input("row", DataType::Fp32, &[Some(2)])
        .output("next", DataType::Fp32, &[])
        .output("product", DataType::Fp32, &[Some(2)])
        .node("", "MatMul", &["m", "row"], &["product"], &[])
        .node("", "ReduceMax", &["row"], &["most"], &[("keepdims", Attribute::Int(0))])
        .node("", "Max", &["state", "most"], &["next"], &[])
        .into_graph();
    let direction = Attribute::Ints(vec![i64::from(backwards)]);
    Model::new()
        .input("start", DataType::Fp32, &[])
        .input("x", DataType::Fp32, &[None, Some(2)])
        .input("m", DataType::Fp32, &[Some(2), Some(2)])
        .output("largest", DataType::Fp32, &[])
        .output("products", DataType::Fp32, &[None, Some(2)])
        .node(
            "",
            "Scan",
            &["start", "x"],
            &["largest", "products"],
            &[
                ("body", Attribute::Graph(body)),
                ("num_scan_inputs", Attribute::Int(1)),
                ("scan_input_directions", direction),
            ],
        )
        .encode()
}

#[test]
fn a_scan_walks_both_ways_and_keeps_its_state() {
    let x = tensor(&[3, 2], vec![1f32, 2.0, 3.0, 9.0, 5.0, 6.0]);
    let m = tensor(&[2, 2], vec![1f32, 0.0, 0.0, 10.0]);
    let forwards = [1f32, 20.0, 3.0, 90.0, 5.0, 60.0];
    let backwards = [5f32, 60.0, 3.0, 90.0, 1.0, 20.0];
    for (direction, wanted) in [(false, forwards), (true, backwards)] {
        let inputs = [Tensor::scalar(vec![-1f32]), x.clone(), m.clone()];
        let outputs = run(scanning(direction), &inputs).unwrap();
        assert_eq!(outputs[0].as_slice::<f32>(), Some(&[9f32][..]));
        assert_eq!(outputs[1].shape(), [3, 2]);
        assert_eq!(outputs[1].as_slice::<f32>(), Some(&wanted[..]));
    }
}

#[test]
fn a_batch_of_matrices_may_meet_a_vector_of_undeclared_rank() {
    // `keep` has any rank, so the product must not be left to an engine that guesses.
    let model = Model::new()
        .input("a", DataType::Fp32, &[Some(2), Some(1), Some(2)])
        .input("b", DataType::Fp32, &[None])
        .input("to", DataType::Int64, &[None])
        .output("y", DataType::Fp32, &[])
        .node("", "Reshape", &["b", "to"], &["keep"], &[])
        .node("", "MatMul", &["a", "keep"], &["y"], &[])
        .encode();
    let a = tensor(&[2, 1, 2], vec![1f32, 2.0, 3.0, 4.0]);
    let b = tensor(&[2], vec![10f32, 1.0]);
    for (to, shape) in [(vec![2i64], vec![2, 1]), (vec![2, 1], vec![2, 1, 1])] {
        let inputs = [a.clone(), b.clone(), tensor(&[to.len()], to.clone())];
        let outputs = run(model.clone(), &inputs).unwrap();
        assert_eq!(outputs[0].shape(), shape, "{to:?}");
        assert_eq!(outputs[0].as_slice::<f32>(), Some(&[12f32, 34.0][..]));
    }
}
