//! The design's rules that can be checked by reading the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What each room may depend on of ours. A room that is not here is not in the design.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("monitor", &["model"]),
    ("import", &["model"]),
    ("registry", &["model"]),
    ("rollout", &["model", "registry"]),
    ("runtime", &["model"]),
    ("serving", &["model", "runtime"]),
    ("api", &["model", "monitor", "registry", "rollout", "serving", "telemetry"]),
    ("telemetry", &[]),
    (
        "cli",
        &[
            "api",
            "import",
            "model",
            "monitor",
            "registry",
            "rollout",
            "runtime",
            "serving",
            "telemetry",
        ],
    ),
    ("testkit", &["model", "runtime", "serving"]),
];

/// Crates that only these rooms may name: who else knows the wire, or an engine?
const ONLY: &[(&str, &[&str])] = &[
    ("axum", &["api"]),
    ("hyper", &["api", "cli"]),
    ("tonic", &["api", "cli", "telemetry"]),
    ("object_store", &["monitor", "registry"]),
    ("sqlx", &["registry"]),
    ("rten", &["runtime"]),
    ("ort", &["runtime"]),
    ("clap", &["cli"]),
    ("anyhow", &["cli"]),
];

/// Names that say nothing of what is inside.
const EMPTY_NAMES: &[&str] =
    &["common", "core", "utils", "util", "types", "helpers", "shared", "misc"];

/// The most lines of a file that people read. The design says about 800.
const MAX_LINES: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn rooms() -> BTreeMap<String, toml::Table> {
    let folders = std::fs::read_dir(root().join("crates")).unwrap().map(|e| e.unwrap().path());
    let manifest = |folder: PathBuf| {
        let text = std::fs::read_to_string(folder.join("Cargo.toml")).ok()?;
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        Some((name, text.parse().unwrap()))
    };
    folders.filter_map(manifest).collect()
}

fn dependencies(manifest: &toml::Table, section: &str) -> BTreeSet<String> {
    let own = manifest.get(section).and_then(|section| section.as_table());
    let targets = manifest.get("target").and_then(|targets| targets.as_table());
    let conditional = targets.into_iter().flat_map(|targets| targets.values());
    let conditional = conditional.filter_map(|target| target.get(section)?.as_table());
    own.into_iter().chain(conditional).flat_map(|section| section.keys().cloned()).collect()
}

/// Every file that is or would be committed, with its text; binary files are left out.
fn files() -> Vec<(PathBuf, String)> {
    let output = std::process::Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(root())
        .output();
    let Ok(output) = output.map_err(|_| ()).and_then(|o| o.status.success().then_some(o).ok_or(()))
    else {
        eprintln!("SKIPPED: this is not a git checkout, so its files are not known");
        return Vec::new();
    };
    let names = String::from_utf8(output.stdout).unwrap();
    let read =
        |name: &str| Some((PathBuf::from(name), std::fs::read_to_string(root().join(name)).ok()?));
    names.split('\0').filter(|name| !name.is_empty()).filter_map(read).collect()
}

fn rust_files() -> impl Iterator<Item = (PathBuf, String)> {
    files().into_iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "rs"))
}

#[test]
fn rooms_know_only_whom_they_may() {
    let rooms = rooms();
    for (name, manifest) in &rooms {
        let may = MAY_KNOW.iter().find(|(room, _)| room == name);
        let (_, may) = may.unwrap_or_else(|| panic!("crates/{name} is not in the design"));
        for dependency in dependencies(manifest, "dependencies") {
            let ours = rooms.contains_key(&dependency);
            assert!(
                !ours || may.contains(&dependency.as_str()),
                "{name} may not know {dependency}"
            );
            let only = ONLY.iter().find(|(library, _)| *library == dependency);
            if let Some((_, who)) = only {
                assert!(who.contains(&name.as_str()), "{name} may not depend on {dependency}");
            }
        }
        assert!(!EMPTY_NAMES.contains(&name.as_str()), "{name} says nothing of what is inside");
    }
    assert_eq!(rooms.len(), MAY_KNOW.len());
}

#[test]
fn nobody_but_tests_uses_the_testkit() {
    for (name, manifest) in rooms() {
        assert!(!dependencies(&manifest, "dependencies").contains("testkit"), "{name}");
    }
}

#[test]
fn every_room_says_what_it_is_for() {
    for (name, manifest) in rooms() {
        let entry = if name == "cli" { "src/main.rs" } else { "src/lib.rs" };
        let text = std::fs::read_to_string(root().join("crates").join(&name).join(entry)).unwrap();
        assert!(text.starts_with("//! "), "crates/{name}/{entry} begins with the crate's doc");
        let lints = manifest.get("lints").and_then(|lints| lints.get("workspace")?.as_bool());
        assert_eq!(lints, Some(true), "{name} takes the workspace's lints");
    }
}

#[test]
fn untrusted_bytes_meet_no_unsafe_code() {
    let entry = std::fs::read_to_string(root().join("crates/import/src/lib.rs")).unwrap();
    assert!(entry.contains("#![forbid(unsafe_code)]"));
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    for (path, text) in rust_files() {
        let lines: Vec<&str> = text.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap();
            let block = code.contains("unsafe {") || code.contains("unsafe impl");
            if !block || path.ends_with("tidy.rs") {
                continue;
            }
            let near = &lines[i.saturating_sub(10)..=i];
            assert!(near.iter().any(|l| l.contains("SAFETY")), "{}:{}", path.display(), i + 1);
        }
    }
}

#[test]
fn files_can_be_read_in_one_sitting() {
    for (path, text) in rust_files() {
        let lines = text.lines().count();
        assert!(lines <= MAX_LINES, "{} has {lines} lines", path.display());
    }
}

#[test]
fn nothing_of_the_machine_it_was_made_on_is_committed() {
    // Put together here, so that this file does not hold what it looks for.
    let places = ["work", "root"].map(|folder| format!("/{folder}/"));
    for (path, text) in files() {
        for place in &places {
            assert!(!text.contains(place.as_str()), "{} names {place}", path.display());
        }
    }
}

#[test]
fn no_format_that_runs_code_is_read() {
    let manifests: Vec<String> = rooms().values().map(ToString::to_string).collect();
    for library in ["serde-pickle", "serde_pickle", "pyo3", "mlua"] {
        assert!(manifests.iter().all(|text| !text.contains(library)), "{library}");
    }
}

#[test]
fn only_the_binary_reads_the_environment() {
    for (path, text) in rust_files() {
        let text_path = path.to_string_lossy();
        let below = text_path.starts_with("crates/") && !text_path.starts_with("crates/cli/");
        if below && text_path.contains("/src/") && !text_path.contains("/testkit/") {
            let code = text.split("[cfg(test)]").next().unwrap();
            assert!(!code.contains("env::var"), "{text_path} reads the environment");
        }
    }
}
