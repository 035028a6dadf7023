//! The verbs on a registry, from the first push to garbage.

use crate::binary::{Run, modelyard_with};

/// A folder with two models and, later, a registry.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for columns in [2, 3] {
            let path = folder.path().join(format!("{columns}.onnx"));
            std::fs::write(path, testkit::onnx::models::double(columns)).unwrap();
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let registry = self.path("registry");
        let variables = [("MODELYARD_REGISTRY", registry.as_str()), ("MODELYARD_BY", "ada")];
        modelyard_with(arguments, &variables, b"")
    }

    fn push(&self, columns: u32, more: &[&str]) -> Run {
        let path = self.path(&format!("{columns}.onnx"));
        self.run(&[&["push", &path, "--name", "double"], more].concat())
    }
}

#[test]
fn a_model_goes_from_push_to_garbage() {
    let bench = Bench::new();
    let card = bench.path("card.md");
    std::fs::write(&card, "# Doubles\n").unwrap();
    let pushed = bench.push(2, &["--card", &card, "--meta", "auc=0.9", "--json"]).ok().json();
    assert_eq!((&pushed["number"], &pushed["who"]), (&1.into(), &"ada".into()));
    bench.push(3, &["--alias", "candidate", "--parent", "1", "--commit", "1a2b"]).ok();
    bench.run(&["alias", "double", "champion", "1", "--expect", "0"]).ok();
    bench.run(&["alias", "double", "champion", "2", "--expect", "1", "--reason", "wider"]).ok();
    let late = bench.run(&["alias", "double", "champion", "1", "--expect", "1"]);
    assert_eq!(late.code, 1);
    assert!(late.stderr.contains("names version 2 and not version 1"), "{}", late.stderr);

    let models = bench.run(&["models"]).ok().stdout;
    assert!(models.contains("candidate=2 champion=2"), "{models}");
    let shown = bench.run(&["show", "double"]).ok().stdout;
    for part in ["double:2", "FP32 [-1, 3]", "parent", "1a2b", "champion"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let different = bench.run(&["diff", "double:1", "double:2", "--json"]).ok().json();
    assert_eq!(different["input x"][0], "FP32 [-1, 2]");
    assert_eq!(different["meta auc"][1], serde_json::Value::Null);

    let history = bench.run(&["history", "double"]).ok().stdout;
    for part in ["version 1 published", "champion: 1 → 2", "wider", "ada"] {
        assert!(history.contains(part), "{part}: {history}");
    }
    let records = bench.run(&["history", "double", "--json"]).ok().json();
    let then = records[3]["time"].as_str().unwrap();
    let at = bench.run(&["at", "double", then, "--json"]).ok().json();
    assert_eq!(at["state"]["aliases"]["champion"], 1, "{at}");

    let target = bench.path("pulled");
    let pulled = bench.run(&["pull", "double:1", "--to", &target]).ok().stdout;
    let inspected = bench.run(&["inspect", pulled.trim(), "--json"]);
    assert_eq!(inspected.ok().json()["digest"], pushed["digest"]);
    assert_eq!(std::fs::read_to_string(bench.path("pulled/card.md")).unwrap(), "# Doubles\n");

    assert!(bench.run(&["delete", "double:2"]).stderr.contains("in use as"));
    bench.run(&["delete", "double:1"]).ok();
    bench.run(&["restore", "double:1"]).ok();
    bench.run(&["archive", "double:1"]).ok();
    bench.run(&["delete", "double:1"]).ok();
    let collected = bench.run(&["collect", "--grace", "0s", "--json"]).ok().json();
    assert_eq!(collected["versions"], 1);
    let gone = bench.run(&["pull", "double:1"]);
    assert!(gone.stderr.contains("its files are gone"), "{}", gone.stderr);
    bench.run(&["check", "--bytes"]).ok();
}

#[test]
fn mistakes_are_told() {
    let bench = Bench::new();
    bench.push(2, &[]).ok();
    for (arguments, code, part) in [
        (&["show", "double:7"][..], 1, "its newest is 1"),
        (&["show", "nobody:1"], 1, "no model \"nobody\""),
        (&["show", "double"], 1, "no alias \"champion\""),
        (&["show", "double:x"], 2, "expected MODEL:NUMBER"),
        (&["delete", "double@champion"], 2, "double:NUMBER"),
        (&["alias", "double", "champion"], 2, "VERSION"),
        (&["alias", "double", "7", "1"], 2, "is a number"),
        (&["at", "double", "yesterday"], 2, "2026-11-20T14:03Z"),
        (&["models", "--registry", "ftp://x/y"], 2, "expected a folder, s3://"),
        (&["models", "--registry", "s3://x/y"], 2, "--database"),
    ] {
        let run = bench.run(arguments);
        assert_eq!(run.code, code, "{arguments:?}: {run:?}");
        assert!(run.stderr.contains(part), "{arguments:?}: {run:?}");
    }
    let page = bench.path("page.onnx");
    std::fs::write(&page, "<html>").unwrap();
    assert_eq!(bench.run(&["push", &page, "--name", "page"]).code, 3);
}
