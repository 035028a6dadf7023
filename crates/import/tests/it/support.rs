//! What several tests need.

use bytes::Bytes;
use model::DataType;
use testkit::onnx::{Model, float};

/// The message with which a model is refused.
pub fn refusal(bytes: impl Into<Bytes>) -> String {
    match import::onnx(bytes.into()) {
        Ok(_) => panic!("was accepted"),
        Err(error) => error.to_string(),
    }
}

/// `x`, FP32 `[N, 4]`, and `y` without a node yet.
pub fn frame() -> Model {
    Model::new().input("x", DataType::Fp32, &[None, Some(4)]).output(
        "y",
        DataType::Fp32,
        &[None, Some(4)],
    )
}

/// `y = x + w`, with the tensor `w` changed.
pub fn with_tensor(change: impl FnOnce(&mut model::onnx::TensorProto)) -> Bytes {
    let mut model = frame().initializer("w", &[4], float(&[1.0, 2.0, 3.0, 4.0])).node(
        "",
        "Add",
        &["x", "w"],
        &["y"],
        &[],
    );
    change(&mut model.proto.graph.as_mut().unwrap().initializer[0]);
    model.encode()
}
