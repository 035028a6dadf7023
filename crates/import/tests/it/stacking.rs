//! The verdicts on stacking, held against ONNX Runtime on all of ONNX's operator tests.

use std::path::Path;
use std::process::Command;

fn run(python: &Path, what: &str, folder: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/stacking.py");
    let status = Command::new(python).arg(script).arg(what).arg(folder).status().unwrap();
    assert!(status.success(), "{what}: {status}");
}

/// Takes about a minute: `cargo test -p import --test it -- --ignored stacked_rows`.
#[test]
#[ignore = "slow; needs Python with onnx and onnxruntime"]
fn stacked_rows_give_what_single_rows_give() {
    let Some(python) = testkit::python::interpreter() else { return };
    let folder = tempfile::tempdir().unwrap();
    run(&python, "make", folder.path());
    let mut batched = Vec::new();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "onnx") {
            // What is refused altogether is not stacked either.
            if import::open(&path).is_ok_and(|package| package.manifest.signature.batched) {
                batched.push(path.file_stem().unwrap().to_string_lossy().into_owned());
            }
        }
    }
    println!("{} are called batched", batched.len());
    std::fs::write(folder.path().join("batched.txt"), batched.join("\n")).unwrap();
    run(&python, "check", folder.path());
}
