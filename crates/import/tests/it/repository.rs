//! Repositories and the configurations beside models.

use std::fs;
use std::path::Path;

use import::repository::{Config, Found, Versions, check_name, scan};
use testkit::onnx::models;

/// Writes a model (or, for other names, text) to a path below the folder.
fn put(folder: &Path, path: &str, text: &str) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    if path.extension().is_some_and(|extension| extension == "onnx") {
        fs::write(path, models::double(2)).unwrap();
    } else {
        fs::write(path, text).unwrap();
    }
}

fn versions(found: &Found) -> Vec<&str> {
    found.versions.iter().map(|(version, _)| version.as_str()).collect()
}

/// The versions that are served where the server's default is the newest one.
fn served(found: &Found) -> Vec<&str> {
    found.served(&Versions::default()).iter().map(|(version, _)| version.as_str()).collect()
}

#[test]
fn a_file_is_a_model() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "churn.onnx", "");
    let found = scan(&folder.path().join("churn.onnx")).unwrap();
    assert_eq!((found.len(), found[0].name.as_str(), versions(&found[0])), (1, "churn", vec!["1"]));
    // The only model of a folder is called after itself.
    assert_eq!(scan(folder.path()).unwrap()[0].name, "churn");
    put(folder.path(), "other.onnx", "");
    let message = scan(folder.path()).unwrap_err().to_string();
    assert!(message.contains("has several models"), "{message}");
}

#[test]
fn a_repository_has_models_and_versions() {
    let folder = tempfile::tempdir().unwrap();
    for path in [
        "a/2/model.onnx",
        "a/10/model.onnx",
        "a/1/odd_name.onnx",
        "a/.hidden/model.onnx",
        "a/docs/model.onnx",
        "b/v10/model.onnx",
        "b/v9/model.onnx",
        "c/model.onnx",
        ".git/1/model.onnx",
        "empty/readme.txt",
    ] {
        put(folder.path(), path, "");
    }
    let found = scan(folder.path()).unwrap();
    let names: Vec<_> = found.iter().map(|found| found.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(versions(&found[0]), ["1", "2", "10"]);
    assert_eq!(versions(&found[1]), ["v9", "v10"]);
    assert_eq!(versions(&found[2]), ["1"]);
    // One model's own folder stands for its newest version.
    let found = scan(&folder.path().join("a")).unwrap();
    assert_eq!((found.len(), found[0].name.as_str()), (1, "a"));
    assert!(
        import::open(&folder.path().join("a")).unwrap().path.unwrap().ends_with("10/model.onnx")
    );
    let message = scan(&folder.path().join("empty")).unwrap_err().to_string();
    assert!(message.contains("NAME/VERSION/model.onnx"), "{message}");
    assert!(scan(&folder.path().join("absent")).is_err());
}

#[cfg(unix)]
#[test]
fn links_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "..data/7/model.onnx", "");
    fs::create_dir(folder.path().join("m")).unwrap();
    std::os::unix::fs::symlink("../..data/7", folder.path().join("m/7")).unwrap();
    let found = scan(folder.path()).unwrap();
    assert_eq!((found[0].name.as_str(), versions(&found[0])), ("m", vec!["7"]));
}

#[test]
fn names_are_checked() {
    for name in ["a", "résumé-2", "a.b_c+d", "x=1"] {
        check_name(name).unwrap();
    }
    for name in ["", ".x", "a/b", "a\nb", "a?b", &"x".repeat(256)] {
        let message = check_name(name).unwrap_err().to_string();
        assert!(message.contains("--model NAME=PATH"), "{message}");
    }
}

const CONFIG: &str = r#"
# What Triton's examples look like.
name: "renamed"
platform: "onnxruntime_onnx"
max_batch_size: 16
input [
  { name: "x" data_type: TYPE_FP32 dims: [ 2 ] },
  { name: 'z', data_type: TYPE_STRING, dims: -1, dims: 3 }
]
output { name: "y"; data_type: TYPE_FP64; dims: [ 3 ]; label_filename: "labels.txt" }
instance_group [ { count: 2 kind: KIND_CPU }, { count: 1 kind: KIND_GPU gpus: [ 0, 1 ] } ]
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 }
version_policy: { latest { num_versions: 2 } }
default_model_filename: "net.onnx"
parameters { key: "intra_op_thread_count" value: { string_value: "4" } }
optimization < graph: < level: 1 > >
"#;

#[test]
fn a_configuration_is_honoured_or_named() {
    let folder = tempfile::tempdir().unwrap();
    for version in ["1", "2", "3"] {
        put(folder.path(), &format!("m/{version}/net.onnx"), "");
    }
    put(folder.path(), "m/2/other.onnx", "");
    put(folder.path(), "m/config.pbtxt", CONFIG);
    let found = scan(folder.path()).unwrap().remove(0);
    assert_eq!(found.name, "renamed");
    assert_eq!(served(&found), ["2", "3"]);
    assert!(found.versions[0].1.ends_with("1/net.onnx"));
    let settings = found.config.settings();
    assert_eq!(settings.instances, Some(3));
    assert_eq!(settings.max_batch_size, Some(16));
    assert_eq!(settings.engine, None);
    let warnings = found.warnings();
    let warned: Vec<&str> = warnings.iter().map(|w| w.split(": ").nth(1).unwrap()).collect();
    assert_eq!(
        warned,
        [
            "instance_group.kind",
            "instance_group.gpus",
            "dynamic_batching.preferred_batch_size",
            "dynamic_batching.max_queue_delay_microseconds",
            "parameters.intra_op_thread_count",
            "optimization",
            "output.label_filename",
        ]
    );
    let package = import::open(&found.versions[0].1).unwrap();
    let disagreements = found.config.disagreements(&package.manifest.signature);
    assert_eq!(
        disagreements,
        [
            "config: input \"z\": the model has none of that name",
            "config: output \"y\": declared as FP64, the model has FP32",
        ]
    );
}

#[test]
fn versions_can_be_chosen() {
    let folder = tempfile::tempdir().unwrap();
    for version in ["1", "2", "3"] {
        put(folder.path(), &format!("m/{version}/model.onnx"), "");
    }
    let with = |text: &str| {
        put(folder.path(), "m/config.pbtxt", text);
        scan(folder.path()).unwrap().remove(0)
    };
    assert_eq!(served(&with("version_policy { all {} }")), ["1", "2", "3"]);
    assert_eq!(served(&with("version_policy { latest {} }")), ["3"]);
    assert_eq!(served(&with("version_policy { latest { num_versions: 9 } }")), ["1", "2", "3"]);
    let silent = with("max_batch_size: 0");
    assert_eq!(served(&silent), ["3"]);
    assert_eq!(silent.served(&Versions::All).len(), 3);
    assert_eq!(silent.config.settings().max_batch_size, Some(0));
    let specific = with("version_policy { specific { versions: [1, 3, 9] } }");
    assert_eq!(served(&specific), ["1", "3"]);
    assert!(specific.warnings()[0].contains("there are no versions [\"9\"]"));
    // A policy that fits nothing does not hide the model.
    assert_eq!(served(&with("version_policy { specific { versions: [9] } }")), ["3"]);
    // A configuration that cannot be read does not keep a model from being served.
    let broken = with("max_batch_size: 8\ninput [ {");
    assert_eq!(served(&broken), ["3"]);
    assert!(
        broken.warnings()[0].contains("line 2: the file ends where a } is missing"),
        "{broken:?}"
    );
    assert_eq!(broken.config, Config::default());
}

#[test]
fn text_that_is_no_configuration_is_refused() {
    let cases = [
        ("name \"x\"", "line 1: expected : or {"),
        ("\n\nname: ", "line 3: expected a value, got the end of the file"),
        ("name: \"x", "a string has no end"),
        ("name: \"\\q\"", "the escape \\q is not known"),
        ("name: \"\\777\"", "is no byte"),
        ("name: \"\\xff\"", "is not UTF-8"),
        ("}", "expected the name of a field, got \"}\""),
        ("dims: [1 2]", "expected , or ] in the list \"dims\""),
        ("max_batch_size: many", "\"max_batch_size\": expected an integer, got \"many\""),
        ("max_batch_size: -1", "expected a number from 0 on, got -1"),
        ("input: 3", "\"input\": expected a message"),
        ("instance_group { count: 0 }", "expected a count of at least 1"),
        ("version_policy { newest {} }", "expected all, latest or specific"),
        ("default_model_filename: \"../x\"", "expected a file name"),
        ("parameters: 3", "\"parameters\": expected a message"),
        (
            "parameters { key: 'threads' value { string_value: 'all' } }",
            "\"parameters\": threads: expected an integer, got \"all\"",
        ),
    ];
    for (text, expected) in cases {
        let message = Config::from_text(text).unwrap_err();
        assert!(message.contains(expected), "{text:?}: {message}");
    }
    let deep = "a{".repeat(100);
    assert!(Config::from_text(&deep).unwrap_err().contains("nested more than 32 deep"));
    assert!(Config::from_text(&" ".repeat(2 << 20)).unwrap_err().contains("is longer than"));
    let escapes = Config::from_text("name: \"a\\tb\" 'c\\x41\\101\\u00e9'").unwrap();
    assert_eq!(escapes.name.unwrap(), "a\tbcAAé");
}

#[test]
fn json_says_the_same_as_text() {
    let json = r#"{"name": "m", "maxBatchSize": 8, "backend": "onnxruntime", "extra": null,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["2", 3]}],
        "instance_group": [{"count": 2, "kind": "KIND_CPU"}],
        "version_policy": {"specific": {"versions": ["3"]}},
        "parameters": {"threads": {"string_value": "4"}}}"#;
    let text = "name: 'm' max_batch_size: 8 backend: 'onnxruntime'
        input { name: 'x' data_type: TYPE_FP32 dims: [2, 3] }
        instance_group { count: 2 kind: KIND_CPU }
        version_policy { specific { versions: 3 } }
        parameters { key: 'threads' value { string_value: '4' } }";
    let (json, text) = (Config::from_json(json).unwrap(), Config::from_text(text).unwrap());
    assert_eq!(json, text);
    assert_eq!(json.versions, Some(Versions::Specific(vec!["3".into()])));
    assert_eq!((json.threads, json.engine.as_deref()), (Some(4), None));
    let pinned = Config::from_text("backend: 'native'").unwrap();
    assert_eq!(pinned.settings().engine.as_deref(), Some("native"));
    assert!(Config::from_json("[1]").unwrap_err().contains("expected a JSON object"));
    assert!(Config::from_json("{").is_err());
}

#[test]
fn classes_are_named_by_a_file_in_the_models_folder() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "m/1/model.onnx", "");
    let config = r#"max_batch_size: 8
        output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] label_filename: "l.txt" }"#;
    put(folder.path(), "m/config.pbtxt", config);
    let named = |labels: &str| {
        put(folder.path(), "m/l.txt", labels);
        let found = scan(folder.path()).unwrap().remove(0);
        assert!(found.warnings().is_empty(), "{:?}", found.warnings());
        let config = found.config;
        let mut package = import::open(&found.versions[0].1).unwrap();
        let disagreements = config.disagreements(&package.manifest.signature);
        config.name_classes(&mut package);
        (package.manifest.signature.outputs[0].labels.clone(), disagreements.concat())
    };
    assert_eq!(named("cat\r\nblack dog\n"), (vec!["cat".into(), "black dog".into()], "".into()));
    let (labels, disagreement) = named("a\nb\nc\n");
    assert_eq!(labels, ["a", "b"]);
    assert!(disagreement.contains("names 3 classes, the model has 2"), "{disagreement}");
}

#[test]
fn files_of_labels_outside_or_too_long_are_warned_about() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "m/1/model.onnx", "");
    let config = r#"output { name: "y" label_filename: "l.txt" }"#;
    put(folder.path(), "m/config.pbtxt", config);
    put(folder.path(), "secret.txt", "password\n");
    let labels = folder.path().join("m/l.txt");
    let warning = || {
        let found = scan(folder.path()).unwrap().remove(0);
        assert!(found.config.outputs[0].labels.is_empty());
        found.warnings().concat()
    };
    assert!(warning().contains("l.txt is ignored"), "{}", warning());
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(folder.path().join("secret.txt"), &labels).unwrap();
        assert!(warning().contains("leaves the model's folder"), "{}", warning());
        std::fs::remove_file(&labels).unwrap();
    }
    std::fs::write(&labels, vec![b'x'; (1 << 20) + 1]).unwrap();
    assert!(warning().contains("at most 1048576 bytes"), "{}", warning());
    put(folder.path(), "m/config.pbtxt", &config.replace("l.txt", "../secret.txt"));
    let found = scan(folder.path()).unwrap().remove(0);
    assert_eq!(found.config, Config::default());
    assert!(found.warnings.concat().contains("expected a file name"), "{:?}", found.warnings);
}
