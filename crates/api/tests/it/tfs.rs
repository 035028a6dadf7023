//! TensorFlow Serving's REST protocol, with its quirks.

use serde_json::json;

use crate::support;

#[tokio::test]
async fn a_single_tensor_drops_its_name() {
    let server = support::start().await;
    let rows = server.post("/v1/models/both:predict", r#"{"instances":[[-1.5],[2]]}"#).await;
    assert_eq!(rows.status, 200, "{}", rows.text());
    assert_eq!(
        rows.json(),
        json!({"predictions": [{"y": [-1.5], "z": [1.5]}, {"y": [2.0], "z": [2.0]}]})
    );
    let columns = server.post("/v1/models/both:predict", r#"{"inputs":{"x":[[-1.5]]}}"#).await;
    assert_eq!(columns.json(), json!({"outputs": {"y": [[-1.5]], "z": [[1.5]]}}));
    let body = r#"{"instances":[{"a":[1,2],"b":[3,4]},{"b":[0,0],"a":[5,6]}]}"#;
    let single = server.post("/v1/models/add:predict", body).await;
    assert_eq!(single.json(), json!({"predictions": [[4.0, 6.0], [5.0, 6.0]]}));
    let body = r#"{"signature_name":"serving_default","inputs":{"a":[[1,2]],"b":[[3,4]]}}"#;
    let single = server.post("/V1/models/add/versions/1:PREDICT", body).await;
    assert_eq!(single.json(), json!({"outputs": [[4.0, 6.0]]}));
    assert_eq!(single.header("modelyard-version"), Some("1"));
}

#[tokio::test]
async fn numbers_look_as_in_the_original() {
    let server = support::start().await;
    let body = r#"{"instances":[[NaN],[-Infinity],[0.33333334],[9000000],[1]]}"#;
    let answer = server.post("/v1/models/both:predict", body).await.text();
    for text in [
        r#""y":[NaN]"#,
        r#""y":[-Infinity]"#,
        r#""z":[Infinity]"#,
        "[0.333333343]",
        "[9e+06]",
        "[1.0]",
    ] {
        assert!(answer.contains(text), "{text} in {answer}");
    }
}

#[tokio::test]
async fn strings_may_be_base64() {
    let server = support::start().await;
    let body = r#"{"instances":[{"b64":"aGk="},"plain"]}"#;
    let answer = server.post("/v1/models/echo:predict", body).await;
    assert_eq!(answer.json(), json!({"predictions": ["hi", "plain"]}), "{}", answer.text());
}

#[tokio::test]
async fn examples_are_classified_and_regressed() {
    let server = support::start().await;
    let body = r#"{"context":{"x":[0,1000,0]},"examples":[{"x":[1000,0,0]},{}]}"#;
    let answer = server.post("/v1/models/scores:classify", body).await;
    assert_eq!(
        answer.json(),
        json!({"results": [[["0", 1.0], ["1", 0.0], ["2", 0.0]], [["0", 0.0], ["1", 1.0], ["2", 0.0]]]}),
    );
    let answer =
        server.post("/v1/models/same:regress", r#"{"examples":[{"x":-2.5},{"x":[4]}]}"#).await;
    assert_eq!(answer.json(), json!({"results": [-2.5, 4.0]}), "{}", answer.text());
    let answer = server.post("/v1/models/scores:regress", body).await;
    assert!(
        answer.error().contains("regress needs one output of one number a row"),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn status_and_metadata() {
    let server = support::start().await;
    let status = json!({"model_version_status": [{"version": "1", "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""}}]});
    assert_eq!(server.get("/v1/models/add").await.json(), status);
    assert_eq!(server.get("/v1/models/add/versions/1").await.json(), status);
    assert_eq!(server.get("/v1/models/add/versions/2").await.status, 404);
    let metadata = server.get("/v1/models/add/metadata").await.json();
    assert_eq!(metadata["model_spec"]["version"], "1");
    let inputs =
        &metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"];
    assert_eq!(inputs["a"]["dtype"], "DT_FLOAT");
    assert_eq!(inputs["a"]["tensor_shape"]["dim"][1], json!({"size": "2", "name": ""}));
}
