//! The models that the team develops against, where they are at hand.

use std::path::Path;

use model::{DataType, TensorSpec};

fn words(spec: &TensorSpec) -> String {
    format!("{} {} {:?}", spec.name, spec.datatype, spec.extents())
}

#[test]
fn import_with_the_right_signature() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models");
    if !folder.is_dir() {
        println!("SKIPPED: no folder ../shared/models beside the repository");
        return;
    }
    let expected: [(&str, &str, &[&str]); 8] = [
        ("tab", "X FP32 [-1, 30]", &["label INT64 [-1]", "probabilities FP32 [-1, 2]"]),
        ("enc", "tokens INT64 [-1, 64]", &["embedding FP32 [-1, 256]"]),
        ("cnn", "input FP32 [-1, 3, 64, 64]", &["probs FP32 [-1, 1000]"]),
        ("cancer_gb", "X FP32 [-1, 30]", &["label INT64 [-1]", "probabilities FP32 [-1, 2]"]),
        ("cancer_rf", "X FP32 [-1, 30]", &["label INT64 [-1]", "probabilities FP32 [-1, 2]"]),
        ("cancer_logreg", "X FP32 [-1, 30]", &["label INT64 [-1]", "probabilities FP32 [-1, 2]"]),
        ("iris_logreg", "X FP32 [-1, 4]", &["label INT64 [-1]", "probabilities FP32 [-1, 3]"]),
        ("reg_gb", "X FP32 [-1, 10]", &["variable FP32 [-1, 1]"]),
    ];
    for (name, input, outputs) in expected {
        let package = import::open(&folder.join(format!("{name}.onnx"))).unwrap();
        let signature = &package.manifest.signature;
        assert_eq!(signature.inputs.iter().map(words).collect::<Vec<_>>(), [input], "{name}");
        assert_eq!(signature.outputs.iter().map(words).collect::<Vec<_>>(), outputs, "{name}");
        assert!(signature.batched, "{name}");
        assert_eq!(signature.inputs[0].datatype == DataType::Int64, name == "enc");
        let labels =
            signature.outputs.iter().map(|output| output.labels.join(",")).collect::<Vec<_>>();
        let classes = match name {
            "iris_logreg" => vec!["", "0,1,2"],
            "tab" => vec!["", "0,1"],
            other if other.starts_with("cancer") => vec!["", "0,1"],
            _ => vec![""],
        };
        assert_eq!(labels, classes, "{name}");
    }
}
