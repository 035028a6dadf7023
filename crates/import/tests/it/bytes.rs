//! Arbitrary, damaged and spliced bytes are refused or accepted, never more.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::DataType;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use testkit::corpus::hex;
use testkit::onnx::{Attribute, Model, float, models, tensor};

/// Models that reach most of the code.
fn seeds() -> Vec<Bytes> {
    let classifier = Model::new()
        .input("x", DataType::Fp32, &[None, Some(2)])
        .output("label", DataType::Int64, &[None])
        .output("p", DataType::Fp32, &[None, Some(2)])
        .node(
            "ai.onnx.ml",
            "LinearClassifier",
            &["x"],
            &["label", "scores"],
            &[
                ("coefficients", Attribute::Floats(vec![1.0, 2.0, 3.0, 4.0])),
                ("classlabels_ints", Attribute::Ints(vec![0, 1])),
            ],
        )
        .node(
            "ai.onnx.ml",
            "Normalizer",
            &["scores"],
            &["p"],
            &[("norm", Attribute::String("L1"))],
        );
    let branch =
        Model::new().node("", "Relu", &["x"], &["r"], &[]).output("r", DataType::Fp32, &[None]);
    let branch = Attribute::Graph(branch.into_graph());
    let conditional = Model::new()
        .input("x", DataType::Fp32, &[None, Some(4)])
        .output("y", DataType::Fp32, &[None])
        .node(
            "",
            "Constant",
            &[],
            &["c"],
            &[("value", Attribute::Tensor(tensor("", &[1], vec![true].into())))],
        )
        .node(
            "",
            "If",
            &["c"],
            &["y"],
            &[("then_branch", branch.clone()), ("else_branch", branch)],
        );
    let shapes = Model::new()
        .input("x", DataType::Fp32, &[None, Some(3), Some(8), Some(8)])
        .output("y", DataType::Fp32, &[None, Some(2)])
        .initializer("w", &[2, 3, 3, 3], float(&[0.5; 54]))
        .initializer("zero", &[1], vec![0i64].into())
        .initializer("rest", &[1], vec![-1i64].into())
        .node("", "Conv", &["x", "w"], &["c"], &[("pads", Attribute::Ints(vec![1; 4]))])
        .node("", "Shape", &["c"], &["s"], &[])
        .node("", "Gather", &["s", "zero"], &["n"], &[])
        .node("", "Concat", &["n", "rest"], &["shape"], &[("axis", Attribute::Int(0))])
        .node("", "Reshape", &["c", "shape"], &["f"], &[])
        .node("", "ReduceMax", &["f"], &["m"], &[("axes", Attribute::Ints(vec![1]))])
        .node("", "Concat", &["m", "m"], &["y"], &[("axis", Attribute::Int(1))]);
    vec![models::double(3), classifier.encode(), conditional.encode(), shapes.encode()]
}

fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let seeds = seeds();
    let pick = 0..seeds.len();
    let change = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..5u8, any::<u8>());
    (pick.clone(), pick, prop::collection::vec(change, 1..6)).prop_map(
        move |(seed, other, changes)| {
            let mut bytes = seeds[seed].to_vec();
            for (at, to, kind, byte) in changes {
                if bytes.is_empty() {
                    break;
                }
                let (at, end) = (at.index(bytes.len()), to.index(bytes.len()));
                match kind {
                    0 => bytes[at] = byte,
                    1 => bytes[at] ^= 1 << (byte % 8),
                    2 => bytes.truncate(at),
                    3 => drop(bytes.drain(at.min(end)..at.max(end))),
                    _ => {
                        let source = &seeds[other];
                        let part = source[to.index(source.len())..].to_vec();
                        drop(bytes.splice(at..at, part));
                    }
                }
            }
            bytes
        },
    )
}

/// What holds for every input: no panic, and what is accepted can be described and cut again.
fn try_it(bytes: Vec<u8>) {
    let bytes = Bytes::from(bytes);
    match import::onnx(bytes.clone()) {
        Ok(package) => {
            let inspection = import::inspect(&package);
            assert_eq!(inspection.size, bytes.len() as u64);
            assert!(!inspection.signature.outputs.is_empty());
            if inspection.signature.batched {
                let specs = inspection.signature.inputs.iter().chain(&inspection.signature.outputs);
                assert!(specs.into_iter().all(|spec| spec.extents().first() == Some(&-1)));
            }
            // What was accepted once is accepted again from what engines are given.
            import::onnx(package.bytes.clone()).unwrap();
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn runner(cases: u32) -> TestRunner {
    let seed = [7; 32];
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
}

#[test]
fn seeds_are_accepted() {
    for seed in seeds() {
        import::onnx(seed).unwrap();
    }
}

#[test]
fn mutated_models_do_no_harm() {
    let checked = |bytes| {
        try_it(bytes);
        Ok(())
    };
    runner(20_000).run(&mutated(), checked).unwrap();
}

#[test]
fn arbitrary_bytes_do_no_harm() {
    let checked = |bytes| {
        try_it(bytes);
        Ok(())
    };
    runner(5_000).run(&prop::collection::vec(any::<u8>(), 0..400), checked).unwrap();
}

#[test]
fn every_cut_of_a_model_is_refused_or_complete() {
    for seed in seeds() {
        for end in 0..seed.len() {
            try_it(seed[..end].to_vec());
        }
    }
}

#[test]
fn configurations_do_no_harm() {
    let words = prop::sample::select(vec![
        "input",
        "dims",
        "name",
        ":",
        "{",
        "}",
        "[",
        "]",
        "<",
        ">",
        "\"a\\n\\x41\\101\"",
        "'b'",
        "1",
        "-2",
        "3.5e-7",
        "TYPE_FP32",
        ",",
        ";",
        "# comment\n",
        "version_policy",
        "latest",
        "num_versions",
        "\\",
        "\"",
        "é",
        " ",
    ]);
    let texts = prop::collection::vec(words, 0..40).prop_map(|words| words.concat());
    let read = |text: String| {
        let _ = import::repository::Config::from_text(&text);
        let _ = import::repository::Config::from_json(&text);
        Ok(())
    };
    runner(5_000).run(&texts, read).unwrap();
    runner(2_000).run(&any::<String>(), read).unwrap();
}

/// Fuzzing on stable Rust: `FUZZ_SECONDS=600 cargo test -p import --release -- --ignored fuzz`.
///
/// Mutates the seeds above and every file in `tests/corpus`. A failure prints the input; put it
/// into the corpus as a file, so that [`the_corpus_does_no_harm`] keeps it fixed.
#[test]
#[ignore = "runs for a minute, or for FUZZ_SECONDS"]
fn fuzz() {
    #[allow(clippy::disallowed_methods)] // A test has no command line to take the time from.
    let seconds =
        std::env::var("FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let end = Instant::now() + Duration::from_secs(seconds);
    let config = Config { cases: u32::MAX, failure_persistence: None, ..Config::default() };
    let corpus = corpus();
    let mut runs = 0u64;
    let mut runner = TestRunner::new(config);
    while Instant::now() < end {
        for _ in 0..1000 {
            let bytes = mutated().new_tree(&mut runner).unwrap().current();
            let check = std::panic::AssertUnwindSafe(|| try_it(bytes.clone()));
            assert!(std::panic::catch_unwind(check).is_ok(), "failing input: {}", hex(&bytes));
        }
        for seed in &corpus {
            let at = 0..seed.len().max(1);
            let (at, byte) = (at, any::<u8>()).new_tree(&mut runner).unwrap().current();
            let mut bytes = seed.clone();
            if let Some(target) = bytes.get_mut(at) {
                *target = byte;
            }
            let check = std::panic::AssertUnwindSafe(|| try_it(bytes.clone()));
            assert!(std::panic::catch_unwind(check).is_ok(), "failing input: {}", hex(&bytes));
        }
        runs += 1000 + corpus.len() as u64;
    }
    println!("{runs} inputs");
}

#[test]
fn the_corpus_does_no_harm() {
    let corpus = corpus();
    assert!(!corpus.is_empty());
    corpus.into_iter().for_each(try_it);
}

fn corpus() -> Vec<Vec<u8>> {
    testkit::corpus::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus"))
}
