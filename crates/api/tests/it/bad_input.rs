//! What can be wrong with a request that only REST can say: each is a 4xx that says what was wrong,
//! and none of them changes an answer beside it. What every protocol can say is in `agreement`.

use crate::support::{self, Server};

struct Scenario {
    name: &'static str,
    path: &'static str,
    body: Vec<u8>,
    headers: &'static [(&'static str, &'static str)],
    status: u16,
    /// What the message must say.
    says: &'static str,
}

const ADD: &str = "/v2/models/add/infer";
const ECHO: &str = "/v2/models/echo/infer";

/// An `add` request whose input `a` is this, with a `b` that is right.
fn a(input: &str) -> String {
    let b = r#"{"name":"b","shape":[1,2],"datatype":"FP32","data":[1,2]}"#;
    format!(r#"{{"inputs":[{input},{b}]}}"#)
}

fn scenario(
    name: &'static str,
    body: impl Into<Vec<u8>>,
    status: u16,
    says: &'static str,
) -> Scenario {
    Scenario { name, path: ADD, body: body.into(), headers: &[], status, says }
}

fn at(path: &'static str, scenario: Scenario) -> Scenario {
    Scenario { path, ..scenario }
}

fn scenarios() -> Vec<Scenario> {
    let input = |rest: &str| a(&format!(r#"{{"name":"a",{rest}}}"#));
    let good = r#""shape":[1,2],"datatype":"FP32","data":[1,2]"#;
    vec![
        scenario(
            "ragged rows",
            input(r#""shape":[2,2],"datatype":"FP32","data":[[1,2],[3]]"#),
            400,
            "data[1] has 1 elements, but its neighbours have 2",
        ),
        scenario(
            "nested otherwise than the shape",
            input(r#""shape":[1,2],"datatype":"FP32","data":[[1],[2]]"#),
            400,
            "shape is [1, 2], but data is nested as [2, 1]",
        ),
        scenario("input without a name", a(&format!("{{{good}}}")), 400, "\"name\""),
        scenario(
            "input without data",
            input(r#""shape":[1,2],"datatype":"FP32""#),
            400,
            "neither \"data\"",
        ),
        scenario("no inputs", r#"{"id":"1"}"#, 400, "\"inputs\""),
        scenario("empty body", "", 400, "expected an object, got the end of the JSON"),
        scenario(
            "truncated JSON",
            &input(good).as_bytes()[..60],
            400,
            "the JSON ends inside a string",
        ),
        scenario("malformed JSON", "{inputs: []}", 400, "expected a key in double quotes"),
        scenario("trailing garbage", input(good) + "x", 400, "expected the end of the JSON"),
        scenario("not an object", "[]", 400, "expected an object, got an array"),
        scenario(
            "duplicate key",
            format!(r#"{{"inputs":[{{"name":"a","name":"a",{good}}}]}}"#),
            400,
            "the key \"name\" is given twice",
        ),
        scenario(
            "deep nesting",
            format!("{{\"x\":{}", "[".repeat(100_000)),
            400,
            "nested deeper than",
        ),
        scenario(
            "deep data",
            input(&format!(r#""shape":[1,2],"datatype":"FP32","data":{}"#, "[".repeat(100_000))),
            400,
            "more than 16 dimensions",
        ),
        scenario(
            "null",
            input(r#""shape":[1,2],"datatype":"FP32","data":[null,2]"#),
            400,
            "got null",
        ),
        at(
            ECHO,
            scenario(
                "number for string",
                r#"{"inputs":[{"name":"x","shape":[1],"datatype":"BYTES","data":[1]}]}"#,
                400,
                "expected BYTES (a string), got the number 1",
            ),
        ),
        at(
            ECHO,
            scenario(
                "not UTF-8",
                [
                    br#"{"inputs":[{"name":"x","shape":[1],"datatype":"BYTES","data":[""#
                        .as_slice(),
                    &[0xff],
                    br#""]}]}"#,
                ]
                .concat(),
                400,
                "not UTF-8",
            ),
        ),
        at("/v2/models/add/nothing", scenario("unknown path", "", 404, "no such path")),
        Scenario {
            headers: &[("inference-header-content-length", "1000000")],
            ..scenario(
                "JSON longer than the body",
                input(good),
                400,
                "expected a number up to the body's length",
            )
        },
        Scenario {
            headers: &[("inference-header-content-length", "-1")],
            ..scenario("negative JSON length", input(good), 400, "Inference-Header-Content-Length")
        },
        scenario(
            "binary size without data",
            input(r#""shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}"#),
            400,
            "only 0 bytes of binary data are left",
        ),
        Scenario {
            headers: &[("inference-header-content-length", "0")],
            ..scenario(
                "raw to a model of two inputs",
                "12345678",
                400,
                "needs a model with one input",
            )
        },
        Scenario {
            headers: &[("inference-header-content-length", "0")],
            path: "/v2/models/scores/infer",
            ..scenario("raw that is no whole row", "1234567", 400, "needs 0 bytes, got 7")
        },
        Scenario {
            headers: &[("content-encoding", "br")],
            ..scenario("unknown encoding", input(good), 415, "use gzip, deflate or identity")
        },
        Scenario {
            headers: &[("content-encoding", "gzip")],
            ..scenario("not gzip", input(good), 400, "not valid gzip")
        },
        Scenario {
            headers: &[("x-request-timeout-ms", "soon")],
            ..scenario(
                "a timeout that is no number",
                input(good),
                400,
                "whole number of milliseconds",
            )
        },
        at(
            "/v2/repository/models/add/load",
            scenario("load with bad JSON", "{", 400, "expected a key"),
        ),
        at(
            "/v1/models/add:predict",
            scenario("both formats", r#"{"instances":[],"inputs":[]}"#, 400, "only one of"),
        ),
        at(
            "/v1/models/add:predict",
            scenario("neither format", "{}", 400, "Missing 'inputs' or 'instances' key"),
        ),
        at(
            "/v1/models/add:predict",
            scenario(
                "plain list for two inputs",
                r#"{"instances":[[1,2]]}"#,
                400,
                "several inputs",
            ),
        ),
        at(
            "/v1/models/add:predict",
            scenario(
                "a row lacks an input",
                r#"{"instances":[{"a":[1,2]}]}"#,
                400,
                "no input \"b\"",
            ),
        ),
        at(
            "/v1/models/scores:predict",
            scenario("no rows", r#"{"instances":[]}"#, 400, "No values in 'instances' array"),
        ),
        at(
            "/v1/models/scores:predict",
            scenario(
                "ragged instances",
                r#"{"instances":[[1,2,3],[1]]}"#,
                400,
                "its neighbours have 3",
            ),
        ),
        at(
            "/v1/models/scores:predict",
            scenario(
                "another signature",
                r#"{"signature_name":"x","instances":[[1,2,3]]}"#,
                400,
                "Serving signature name",
            ),
        ),
        at(
            "/v1/models/nothing:predict",
            scenario(
                "TFS: unknown model",
                "{}",
                404,
                "Servable not found for request: Latest(nothing)",
            ),
        ),
        at(
            "/v1/models/add/versions/9:predict",
            scenario("TFS: unknown version", "{}", 404, "Specific(add, 9)"),
        ),
        at(
            "/v1/models/add/labels/x:predict",
            scenario("TFS: unknown label", "{}", 400, "Unrecognized servable version label: x"),
        ),
        at(
            "/v1/models/add:explain",
            scenario(
                "TFS: unknown verb",
                "{}",
                400,
                "Malformed request: POST /v1/models/add:explain",
            ),
        ),
    ]
}

async fn good_answer(server: &Server) -> String {
    let body = a(r#"{"name":"a","shape":[1,2],"datatype":"FP32","data":[3,4]}"#);
    server.post(ADD, &body).await.text()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_is_refused_by_name_and_changes_nothing_beside_it() {
    let server = support::start().await;
    let before = good_answer(&server).await;
    assert!(before.contains("[4.0,6.0]"), "{before}");
    let mut wrong = Vec::new();
    for scenario in scenarios() {
        let (answer, beside) = tokio::join!(
            server.send("POST", scenario.path, scenario.headers, &scenario.body),
            good_answer(&server)
        );
        let text = answer.text();
        let message = serde_json::from_slice::<serde_json::Value>(&answer.body)
            .ok()
            .and_then(|json| json["error"].as_str().map(str::to_owned))
            .unwrap_or_default();
        if answer.status != scenario.status || !message.contains(scenario.says) {
            wrong.push(format!("{}: {} {text}", scenario.name, answer.status));
        }
        assert_eq!(beside, before, "beside {}", scenario.name);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn wrong_methods_say_which_are_right() {
    let server = support::start().await;
    for (method, path, allow) in [
        ("GET", ADD, "POST"),
        ("DELETE", "/v2/models/add", "GET, HEAD"),
        ("POST", "/v2/health/live", "GET, HEAD"),
        ("GET", "/v2/repository/index", "POST"),
    ] {
        let answer = server.send(method, path, &[], b"").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{path}");
        assert!(answer.error().contains(path));
    }
    let answer = server.send("DELETE", "/v1/models/add", &[], b"").await;
    assert_eq!(answer.error(), "Malformed request: DELETE /v1/models/add");
}
