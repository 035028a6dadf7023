//! TensorFlow Serving's scenarios.

use serde_json::{Value, json};

use super::tfs_forms::{FORMS, Form, Question, Sketch, Version};
use super::{Differences, invalid, scenario};
use crate::support;

type Scenario = super::Scenario<Sketch, Form>;

fn predict(model: &'static str, inputs: &[(&'static str, Value)]) -> Sketch {
    Sketch::new(model, Question::Predict(inputs.to_vec()))
}

fn classify(model: &'static str, examples: &[Value]) -> Sketch {
    Sketch::new(model, Question::Classify { examples: examples.to_vec(), context: None })
}

fn regress(model: &'static str, examples: &[Value]) -> Sketch {
    Sketch::new(model, Question::Regress { examples: examples.to_vec(), context: None })
}

fn add() -> Sketch {
    predict("add", &[("a", json!([[1.0, 2.0]])), ("b", json!([[3.0, 4.0]]))])
}

const SUM: &str = "version 1, 1 rows; [[4.0,6.0]]";
const REST: [Form; 2] = [Form::Rows, Form::Columns];

fn predictions() -> Vec<Scenario> {
    let takes = "the model takes \"a\" FP32 [-1, 2], \"b\" FP32 [-1, 2]";
    vec![
        scenario("one row", add(), SUM),
        scenario("a version", Sketch { version: Version::Number(1), ..add() }, SUM),
        scenario("a label", Sketch { version: Version::Label("1"), ..add() }, SUM),
        scenario("the signature", Sketch { signature: "serving_default", ..add() }, SUM),
        scenario(
            "two outputs",
            predict("both", &[("x", json!([[-1.5], [2.0]]))]),
            "version 1, 2 rows; {\"y\":[[-1.5],[2.0]],\"z\":[[1.5],[2.0]]}",
        ),
        scenario(
            "strings",
            predict("echo", &[("x", json!(["a", ""]))]),
            "version 1, 2 rows; [\"a\",\"\"]",
        ),
        scenario(
            "unknown model",
            Sketch { model: "nothing", ..add() },
            "NOT_FOUND: Servable not found for request: Latest(nothing)",
        ),
        scenario(
            "unknown version",
            Sketch { version: Version::Number(9), ..add() },
            "NOT_FOUND: Servable not found for request: Specific(add, 9)",
        ),
        scenario(
            "unknown label",
            Sketch { version: Version::Label("x"), ..add() },
            invalid("Unrecognized servable version label: x"),
        ),
        scenario(
            "unknown signature",
            Sketch { signature: "x", ..add() },
            invalid("Serving signature name: \"x\" not found; there is \"serving_default\""),
        ),
        scenario(
            "missing input",
            predict("add", &[("a", json!([[1.0, 2.0]]))]),
            invalid(&format!("missing input \"b\"; {takes}")),
        )
        .but(&[Form::Rows], invalid("row 0 has no input \"b\"")),
        scenario(
            "unknown input",
            predict("add", &[("a", json!([[1.0, 2.0]])), ("c", json!([[1.0, 2.0]]))]),
            invalid(&format!("unknown input \"c\"; {takes}")),
        )
        .but(&[Form::Rows], invalid(&format!("instances[0]: unknown input \"c\"; {takes}"))),
        scenario(
            "one column too many",
            predict("wide", &[("x", json!([vec![0.5; 31]]))]),
            invalid("input \"x\": expected shape [-1, 30] FP32, got [1, 31] FP32"),
        ),
        scenario(
            "string for float",
            predict("same", &[("x", json!([["x"]]))]),
            invalid("input \"x\": expected shape [-1, 1] FP32, got [1, 1] BYTES"),
        )
        .but(
            &[Form::Columns],
            invalid("input \"x\": inputs[0][0]: expected FP32, got the string \"x\""),
        )
        .but(
            &[Form::Rows],
            invalid("instances[0]: input \"x\": value[0]: expected FP32, got the string \"x\""),
        ),
        scenario(
            "time that is up",
            Sketch { timeout: Some(0), ..add() },
            "DEADLINE_EXCEEDED: the request's time is already up",
        ),
    ]
}

fn examples() -> Vec<Scenario> {
    let context = |question: fn(Vec<Value>, Option<Value>) -> Question, model| {
        let examples = vec![json!({"x": [1000, 0, 0]}), json!({})];
        Sketch::new(model, question(examples, Some(json!({"x": [0, 1000, 0]}))))
    };
    let with_context = |examples, context| Question::Classify { examples, context };
    vec![
        scenario(
            "classes of each example",
            context(with_context, "scores"),
            "version 1, 2 rows; [[[\"0\",1.0],[\"1\",0.0],[\"2\",0.0]],\
             [[\"0\",0.0],[\"1\",1.0],[\"2\",0.0]]]",
        ),
        scenario(
            "labels without scores",
            classify("echo", &[json!({"x": "cat"}), json!({"x": ["dog"]})]),
            "version 1, 2 rows; [[[\"cat\",0.0]],[[\"dog\",0.0]]]",
        ),
        scenario(
            "two outputs that could be the scores",
            classify("both", &[json!({"x": 1.5})]),
            "FAILED_PRECONDITION: classify needs one output of scores, or one of labels; model \
             'both' has \"y\" FP32 [-1, 1], \"z\" FP32 [-1, 1]; use predict",
        ),
        scenario(
            "a number of each example",
            regress("same", &[json!({"x": -2.5}), json!({"x": [4]}), json!({"x": 1, "more": "y"})]),
            "version 1, 3 rows; [-2.5,4.0,1.0]",
        ),
        scenario(
            "two outputs that could be the number",
            regress("both", &[json!({"x": 1.5})]),
            "FAILED_PRECONDITION: regress needs one output of one number a row; model 'both' has \
             \"y\" FP32 [-1, 1], \"z\" FP32 [-1, 1]; use predict",
        ),
        scenario(
            "no output that could be the number",
            regress("scores", &[json!({"x": [1, 2, 3]})]),
            "FAILED_PRECONDITION: regress needs one output of one number a row; model 'scores' has \
             \"p\" FP32 [-1, 3]; use predict",
        ),
        scenario(
            "no examples",
            classify("scores", &[]),
            invalid("there are no examples; a request has at least one"),
        ),
        scenario(
            "a missing feature",
            regress("same", &[json!({"x": 1}), json!({"y": 1})]),
            invalid("example 1 has no feature \"x\""),
        ),
        scenario(
            "a short feature",
            classify("scores", &[json!({"x": [1, 2]})]),
            invalid("input \"x\": an example has 2 values, expected shape [-1, 3]"),
        ),
        scenario(
            "ragged features",
            classify("scores", &[json!({"x": [1, 2, 3]}), json!({"x": [1]})]),
            invalid("input \"x\": example 1 has 1 values, example 0 has 3"),
        ),
        scenario(
            "an empty feature",
            regress("same", &[json!({"x": []})]),
            invalid("input \"x\": an example has 0 values, expected shape [-1, 1]"),
        ),
        scenario(
            "strings for floats",
            regress("same", &[json!({"x": "one"})]),
            invalid("input \"x\": expected FP32, got a feature of strings"),
        )
        .but(
            &REST,
            invalid("examples[0]: input \"x\": feature: expected FP32, got the string \"one\""),
        ),
        scenario(
            "floats for integers",
            regress("number", &[json!({"x": 1.5})]),
            invalid("input \"x\": expected INT64, got a feature of floating-point numbers"),
        )
        .but(
            &REST,
            invalid("examples[0]: input \"x\": feature: expected an integer for INT64, got the number 1.5"),
        ),
        scenario(
            "examples for an unknown model",
            classify("nothing", &[json!({})]),
            "NOT_FOUND: Servable not found for request: Latest(nothing)",
        ),
    ]
}

/// The same three versions as in the other protocol.
fn callers() -> Vec<Scenario> {
    let headers = |headers: &[(&'static str, &str)]| Sketch {
        headers: headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
        ..add()
    };
    let sum = |version| format!("version {version}, 1 rows; [[4.0,6.0]]");
    let (key, version) = ("modelyard-key", "modelyard-version");
    let twice = |named| {
        invalid(&format!(
            "modelyard-version: the request names version \"{named}\", but this says \"2\"; leave \
             one of them away"
        ))
    };
    vec![
        scenario("nobody", headers(&[]), sum(1)),
        scenario("a key", headers(&[(key, "user")]), sum(1)),
        scenario("a pinned key", headers(&[(key, "tester")]), sum(2)),
        scenario("a version", headers(&[(version, "3")]), sum(3)),
        scenario(
            "a label and its version",
            Sketch { version: Version::Label("2"), ..headers(&[(version, "2")]) },
            sum(2),
        ),
        scenario(
            "two versions",
            Sketch { version: Version::Number(1), ..headers(&[(version, "2")]) },
            twice("1"),
        ),
        scenario(
            "a label and another version",
            Sketch { version: Version::Label("x"), ..headers(&[(version, "2")]) },
            twice("x"),
        ),
        scenario(
            "a version that is not there",
            headers(&[(version, "9")]),
            "NOT_FOUND: Servable not found for request: Specific(add, 9)",
        ),
        scenario(
            "a long key",
            headers(&[(key, &"k".repeat(257))]),
            invalid("modelyard-key: expected 1 to 256 printable ASCII characters, got 257"),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rest_and_grpc_agree_on_which_version_answers() {
    let server = support::start_versions().await;
    let mut grpc = server.grpc().await;
    let mut differences = Differences::default();
    for scenario in callers() {
        for form in FORMS {
            let seen = scenario.sketch.send(form, &server, &mut grpc).await;
            differences.compare(scenario.name, form, &seen, scenario.expected(&form));
        }
    }
    differences.none();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rest_and_grpc_agree_on_what_they_answer() {
    let server = support::start().await;
    let mut grpc = server.grpc().await;
    let mut differences = Differences::default();
    let mut table = predictions();
    table.extend(examples());
    for scenario in table {
        for form in FORMS {
            let seen = scenario.sketch.send(form, &server, &mut grpc).await;
            differences.compare(scenario.name, form, &seen, scenario.expected(&form));
        }
    }
    differences.none();
}

#[tokio::test]
async fn rest_and_grpc_agree_on_states() {
    use api::proto::tensorflow::serving::{GetModelStatusRequest, ModelSpec};
    let server = support::start().await;
    let mut client = server.grpc().await.models();
    for (name, version, path) in [("add", 0, "add"), ("no", 0, "no"), ("add", 9, "add/versions/9")]
    {
        use api::proto::tensorflow::serving::model_spec::VersionChoice;
        let version_choice = (version > 0).then_some(VersionChoice::Version(version));
        let spec = ModelSpec { name: name.into(), version_choice, ..Default::default() };
        let request = GetModelStatusRequest { model_spec: Some(spec) };
        let grpc = match client.get_model_status(request).await {
            Ok(answer) => {
                let states = answer.into_inner().model_version_status;
                format!("{:?}", states.iter().map(|s| (s.version, s.state)).collect::<Vec<_>>())
            }
            Err(status) => super::grpc_refusal(&status),
        };
        let answer = server.get(&format!("/v1/models/{path}")).await;
        let rest = match answer.status {
            200 => {
                let states = answer.json();
                let states = states["model_version_status"].as_array().unwrap();
                let available = |state: &Value| if state["state"] == "AVAILABLE" { 30 } else { 0 };
                let number = |state: &Value| state["version"].as_str().unwrap().parse().unwrap();
                let states = states.iter().map(|s| (number(s), available(s)));
                format!("{:?}", states.collect::<Vec<(i64, i32)>>())
            }
            _ => super::rest_refusal(&answer),
        };
        assert_eq!(rest.trim_start_matches("HTTP "), grpc);
    }
}
