//! Arbitrary, damaged and spliced bytes at every door: they are refused or accepted, never more, and
//! what is kept of them is bounded by what they are.
//!
//! `FUZZ_SECONDS=600 cargo test -p api --release -- --ignored fuzz` runs for longer.
#![cfg(test)]

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{DataType, Dimension, Signature, Tensor, TensorSpec};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use prost::Message;

use crate::proto::inference as pb;
use crate::proto::tensorflow as tf;
use crate::proto::tensorflow::serving as tfs;
use crate::{binary, examples, grpc, rest};

/// The largest tensor that a short list or a context may be filled up to.
const LIMIT: usize = 1 << 16;

fn signatures() -> [Signature; 3] {
    let spec = |name: &str, datatype, row: &[Dimension]| {
        TensorSpec::new(name, datatype, [&[Dimension::Any], row].concat())
    };
    let signature = |inputs| Signature { inputs, outputs: Vec::new(), batched: true };
    let any = TensorSpec { shape: None, ..spec("y", DataType::Fp64, &[]) };
    let optional = TensorSpec { optional: true, ..spec("s", DataType::Bytes, &[]) };
    let two = [Dimension::Any, Dimension::Fixed(2)];
    [
        signature(vec![spec("x", DataType::Fp32, &[Dimension::Fixed(3)])]),
        signature(vec![spec("x", DataType::Int8, &two), any, optional]),
        signature(vec![spec("x", DataType::Bytes, &[])]),
    ]
}

/// Memory that a tensor's elements take beside the message that they are views of.
fn size(tensor: &Tensor) -> usize {
    let (len, size) = (tensor.len(), tensor.datatype().size());
    len * size.unwrap_or(size_of::<Bytes>())
}

/// The elements and the shape agree, there are no more of them than the bytes could hold, and the
/// tensor survives being written as bytes.
fn check<'a>(tensors: impl IntoIterator<Item = &'a (String, Tensor)>, most: usize) {
    let mut total = 0;
    for (name, tensor) in tensors {
        assert_eq!(model::element_count(tensor.shape()), Some(tensor.len()));
        total += size(tensor);
        let bytes = binary::into_bytes(tensor.data().clone());
        let shape = tensor.shape().to_vec();
        let again = binary::decode(name, tensor.datatype(), shape, bytes.clone()).unwrap();
        assert_eq!(binary::into_bytes(again.data().clone()), bytes);
    }
    assert!(total <= most, "{total} bytes of tensors, expected at most {most}");
}

/// What holds for every input.
fn try_it(bytes: &[u8]) {
    let body = Bytes::copy_from_slice(bytes);
    // The shortest string in JSON takes two bytes and a comma.
    let most = body.len() * size_of::<Bytes>() + 64;
    let last = bytes.iter().rposition(|byte| *byte == b'}').map_or(0, |at| at + 1);
    for split in [bytes.len(), last] {
        if let Ok(inputs) = rest::fuzz::infer(&body, split) {
            check(&inputs, most);
            // What we read is JSON, save for numbers that nobody wanted.
            let theirs = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes[..split]);
            assert!(theirs.is_ok() || theirs.unwrap_err().to_string().contains("out of range"));
        }
    }
    for signature in &signatures() {
        if let Ok(inputs) = rest::fuzz::raw(body.clone(), signature) {
            check(&inputs, most);
        }
        if let Ok(inputs) = rest::fuzz::predict(&body, signature) {
            check(&inputs, most);
        }
        if let Ok(inputs) = rest::fuzz::examples(&body, signature, LIMIT) {
            check(&inputs, LIMIT);
        }
        if let Ok(request) = tfs::ClassificationRequest::decode(body.clone())
            && let Some(tfs::input::Kind::ExampleListWithContext(list)) =
                request.input.and_then(|input| input.kind)
        {
            let context = list.context.as_ref();
            let inputs = examples::inputs(signature, &list.examples, context, LIMIT);
            inputs.iter().for_each(|inputs| check(inputs, LIMIT));
        }
    }
    if let Ok(request) = pb::ModelInferRequest::decode(body.clone())
        && let Ok(inputs) = grpc::fuzz::infer(request)
    {
        check(&inputs, most);
    }
    if let Ok(request) = tfs::PredictRequest::decode(body.clone()) {
        for (name, tensor) in request.inputs {
            let decoded = grpc::fuzz::tensor(&name, tensor, LIMIT);
            decoded.into_iter().for_each(|tensor| check(&[(name.clone(), tensor)], most + LIMIT));
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        rest::fuzz::path(text);
        rest::fuzz::registry(text);
        grpc::fuzz::timeout(text);
    }
}

/// Requests that reach most of the code.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = [
        r#"{"id":"1","inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,-2.5e3],[0.1,4]]}],"outputs":[{"name":"y","parameters":{"binary_data":true,"classification":2}}],"parameters":{"timeout":5,"priority":1,"sequence_id":0,"binary_data_output":false}}"#,
        r#"{"inputs":[{"data":["a\u00e9\n","\ud83d\ude00"],"name":"s","datatype":"BYTES","shape":[2]},{"name":"b","shape":[3],"datatype":"BOOL","data":[true,0,1]}]}"#,
        r#"{"inputs":[{"name":"n","shape":[2],"datatype":"INT64","data":[-9223372036854775808,1]},{"name":"h","shape":[1,1],"datatype":"FP16","data":[65504]},{"name":"u","shape":[0],"datatype":"UINT8","data":[]}]}"#,
        "{\"inputs\":[{\"name\":\"x\",\"shape\":[1,2],\"datatype\":\"FP32\",\"parameters\":{\"binary_data_size\":8}}]}abcdefgh",
        "{\"inputs\":[{\"name\":\"s\",\"shape\":[2],\"datatype\":\"BYTES\",\"parameters\":{\"binary_data_size\":11}}]}\u{2}\0\0\0ab\u{1}\0\0\0c",
        r#"{"signature_name":"serving_default","instances":[[1,2,3],[NaN,-Infinity,6e0]]}"#,
        r#"{"instances":[{"x":[[1,2]],"y":3,"s":{"b64":"aGk="}},{"x":[[3,4]],"y":4,"s":"t"}]}"#,
        r#"{"inputs":{"x":[[[1,2]]],"y":[[0.5]],"s":["a"]}}"#,
        r#"{"examples":[{"x":[1,2,3],"other":{}},{"x":[4,5.5,6]},{}],"context":{"x":[7,8,9]}}"#,
        "/v2/models/a%20b/versions/v%C3%A9/infer",
        "20000000u",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    let input =
        |datatype: &str, shape: &[i64], contents| pb::model_infer_request::InferInputTensor {
            name: "x".into(),
            datatype: datatype.into(),
            shape: shape.to_vec(),
            contents,
            ..Default::default()
        };
    let infer = pb::ModelInferRequest {
        model_name: "m".into(),
        parameters: [("timeout".to_owned(), parameter(7)), ("priority".to_owned(), parameter(1))]
            .into(),
        inputs: vec![input("FP32", &[1, 2], None), input("BYTES", &[2], None)],
        raw_input_contents: vec![
            Bytes::from_static(b"abcdefgh"),
            Bytes::from_static(b"\x02\0\0\0ab\x01\0\0\0c"),
        ],
        ..Default::default()
    };
    seeds.push(infer.encode_to_vec());
    let ints = pb::InferTensorContents { int_contents: vec![1, -2, 3], ..Default::default() };
    let texts = pb::InferTensorContents { bytes_contents: vec!["a".into()], ..Default::default() };
    let typed = pb::ModelInferRequest {
        inputs: vec![input("INT8", &[3], Some(ints)), input("BYTES", &[1], Some(texts))],
        ..Default::default()
    };
    seeds.push(typed.encode_to_vec());
    let dim = |size| tf::tensor_shape_proto::Dim { size, ..Default::default() };
    let tensor = tf::TensorProto {
        dtype: tf::DataType::DtFloat.into(),
        tensor_shape: Some(tf::TensorShapeProto { dim: vec![dim(2), dim(3)], unknown_rank: false }),
        float_val: vec![1.0, 2.0],
        ..Default::default()
    };
    let predict =
        tfs::PredictRequest { inputs: [("x".to_owned(), tensor)].into(), ..Default::default() };
    seeds.push(predict.encode_to_vec());
    let kind = tf::feature::Kind::FloatList(tf::FloatList { value: vec![1.0, 2.0, 3.0] });
    let feature = [("x".to_owned(), tf::Feature { kind: Some(kind) })].into();
    let example = tf::Example { features: Some(tf::Features { feature }) };
    let list = tfs::ExampleListWithContext {
        examples: vec![example.clone(), tf::Example::default()],
        context: Some(example),
    };
    let kind = Some(tfs::input::Kind::ExampleListWithContext(list));
    let input = Some(tfs::Input { kind });
    seeds.push(tfs::ClassificationRequest { input, ..Default::default() }.encode_to_vec());
    seeds.extend(
        [
            "name LIKE 'fr%' AND tags.`a b` != 'x''y' AND version_number >= 4 AND name IN ('a', \"b\")",
            "mlflow-artifacts://host/upload/model/data",
            "md5=:AAAA:, sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:",
            r#"{"upload":"u","main":"a/b.onnx","alias":"c","lineage":{"parent":3},"metadata":{"k":"v"},"evidence":[1]}"#,
        ]
        .map(|text| text.as_bytes().to_vec()),
    );
    seeds
}

fn parameter(number: i64) -> pb::InferParameter {
    let choice = pb::infer_parameter::ParameterChoice::Int64Param(number);
    pb::InferParameter { parameter_choice: Some(choice) }
}

/// Words that a flipped bit seldom makes.
const WORDS: [&str; 20] = [
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "\"",
    "\\u",
    "NaN",
    "-",
    "1e39",
    "1e-400",
    "18446744073709551615",
    "-1",
    "0.1",
    "null",
    "true",
    "\"datatype\":\"BYTES\"",
    "[[[[[[[[[[[[[[[[[",
    "{\"b64\":\"aGk=\"}",
];

fn mutated(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let pick = 0..seeds.len();
    let change = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..6u8, any::<u8>());
    (pick.clone(), pick, prop::collection::vec(change, 0..6)).prop_map(
        move |(seed, other, changes)| {
            let mut bytes = seeds[seed].clone();
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
                    4 => {
                        let word = WORDS[usize::from(byte) % WORDS.len()];
                        drop(bytes.splice(at..at, word.bytes()));
                    }
                    _ => {
                        let source = &seeds[other];
                        let part = source[to.index(source.len().max(1))..].to_vec();
                        drop(bytes.splice(at..at, part));
                    }
                }
            }
            bytes
        },
    )
}

fn all_seeds() -> Vec<Vec<u8>> {
    [seeds(), corpus()].concat()
}

fn runner(cases: u32) -> TestRunner {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]))
}

#[test]
fn seeds_reach_what_they_are_for() {
    let [plain, mixed, texts] = signatures();
    let seeds = seeds();
    let body = |index: usize| Bytes::from(seeds[index].clone());
    let json = |body: &Bytes| body.iter().rposition(|byte| *byte == b'}').unwrap() + 1;
    for index in 0..5 {
        rest::fuzz::infer(&body(index), json(&body(index))).unwrap();
    }
    rest::fuzz::predict(&body(5), &plain).unwrap();
    rest::fuzz::predict(&body(6), &mixed).unwrap();
    rest::fuzz::predict(&body(7), &mixed).unwrap();
    assert_eq!(rest::fuzz::examples(&body(8), &plain, LIMIT).unwrap()[0].1.shape(), [3, 3]);
    rest::fuzz::raw(Bytes::from_static(b"text"), &texts).unwrap();
    for index in [11, 12] {
        let request = pb::ModelInferRequest::decode(body(index)).unwrap();
        assert_eq!(grpc::fuzz::infer(request).unwrap().len(), 2);
    }
}

#[test]
fn mutated_requests_do_no_harm() {
    let checked = |bytes: Vec<u8>| {
        try_it(&bytes);
        Ok(())
    };
    runner(20_000).run(&mutated(all_seeds()), checked).unwrap();
}

#[test]
fn arbitrary_bytes_do_no_harm() {
    let checked = |bytes: Vec<u8>| {
        try_it(&bytes);
        Ok(())
    };
    runner(5_000).run(&prop::collection::vec(any::<u8>(), 0..200), checked).unwrap();
}

#[test]
fn every_cut_of_a_request_does_no_harm() {
    for seed in all_seeds() {
        (0..=seed.len()).for_each(|end| try_it(&seed[..end]));
    }
}

#[test]
#[ignore = "runs for a minute, or for FUZZ_SECONDS"]
fn fuzz() {
    #[expect(clippy::disallowed_methods, reason = "a test has no command line for the time")]
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(60));
    let strategy = mutated(all_seeds());
    let config = Config { cases: u32::MAX, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let mut runs = 0u64;
    while Instant::now() < end {
        for _ in 0..1000 {
            let bytes = strategy.new_tree(&mut runner).unwrap().current();
            let check = std::panic::AssertUnwindSafe(|| try_it(&bytes));
            let fine = std::panic::catch_unwind(check).is_ok();
            assert!(
                fine,
                "failing input, for a .hex file in the corpus: {}",
                testkit::corpus::hex(&bytes)
            );
        }
        runs += 1000;
    }
    println!("{runs} inputs");
}

fn corpus() -> Vec<Vec<u8>> {
    testkit::corpus::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus"))
}
