//! Help, completions, exit codes, environment.

use crate::binary::{modelyard, modelyard_with};

const VERBS: [&str; 22] = [
    "serve",
    "inspect",
    "engines",
    "infer",
    "bench",
    "completions",
    "push",
    "pull",
    "import",
    "export",
    "models",
    "versions",
    "show",
    "diff",
    "alias",
    "archive",
    "restore",
    "delete",
    "history",
    "at",
    "collect",
    "check",
];

#[test]
fn every_verb_has_help_with_examples() {
    for verb in VERBS {
        let help = modelyard(&[verb, "--help"]).ok().stdout;
        assert!(help.contains("Examples:\n  modelyard"), "{verb}: {help}");
        assert!(help.contains("MODELYARD_LOG"), "{verb}: {help}");
    }
    let help = modelyard(&["--help"]).ok().stdout;
    assert!(VERBS.iter().all(|verb| help.contains(verb)), "{help}");
    assert!(help.contains("Exit codes"), "{help}");
}

#[test]
fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = modelyard(&["completions", shell]).ok().stdout;
        assert!(VERBS.iter().all(|verb| script.contains(verb)), "{shell}");
    }
    assert_eq!(modelyard(&["completions", "dos"]).code, 2);
}

#[test]
fn wrong_usage_exits_with_2() {
    for arguments in [&["bogus"][..], &[], &["serve"], &["bench"], &["inspect", "--bogus", "x"]] {
        let run = modelyard(arguments);
        assert_eq!(run.code, 2, "{arguments:?}: {run:?}");
        assert!(!run.stderr.is_empty());
    }
}

#[test]
fn a_variable_stands_in_for_a_flag_and_the_flag_wins() {
    let broken = [("MODELYARD_LOG", "[")];
    let run = modelyard_with(&["engines"], &broken, b"");
    assert!(run.stderr.contains("the log filter cannot be read"), "{run:?}");
    let run = modelyard_with(&["engines", "--log", "info"], &broken, b"");
    assert!(!run.stderr.contains("the log filter cannot be read"), "{run:?}");
}

fn saved(bytes: &[u8]) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("double.onnx");
    std::fs::write(&path, bytes).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

#[test]
fn a_model_is_inspected() {
    let (_folder, path) = saved(&testkit::onnx::models::double(3));
    let text = modelyard(&["inspect", &path]).ok().stdout;
    for part in ["x     FP32  [N, 3]", "Mul ×1", "ai.onnx 17", "sha256:", "native"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json = modelyard(&["inspect", &path, "--json"]).ok().json();
    assert_eq!(json["inputs"][0]["shape"], serde_json::json!(["N", 3]));
    assert_eq!(json["operators"], serde_json::json!({"Mul": 1}));
    assert_eq!(json["batched"], true);
    assert_eq!(json["engines"][0]["name"], "native");
    assert_eq!(json["engines"][0]["runs"], true);
}

#[test]
fn what_is_no_model_exits_with_3() {
    let (_folder, path) = saved(b"<html>Not found</html>");
    let run = modelyard(&["inspect", &path]);
    assert_eq!(run.code, 3, "{run:?}");
    assert!(run.stderr.starts_with("error: ") && run.stderr.contains("web page"), "{run:?}");
    assert_eq!(modelyard(&["inspect", "/nowhere/model.onnx"]).code, 1);
}

#[test]
fn engines_are_listed() {
    let json = modelyard(&["engines", "--json"]).ok().json();
    assert_eq!(json["engines"][0]["name"], "native");
    assert_eq!(json["engines"][0]["found"], true);
    let elsewhere = ["engines", "--json", "--onnxruntime", "/nowhere"];
    let json = modelyard(&elsewhere).ok().json();
    assert_eq!(json["engines"][1]["found"], false);
    assert_eq!(json["engines"][1]["get"], "pip install onnxruntime");
    let text = modelyard(&elsewhere[..1]).ok().stdout;
    assert!(text.contains("native"), "{text}");
}
