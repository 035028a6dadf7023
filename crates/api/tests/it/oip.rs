//! The Open Inference Protocol over REST, as clients see it.

use serde_json::json;

use crate::support;

const SCORES: &str = "/v2/models/scores/infer";

#[tokio::test]
async fn json_in_json_out_with_the_id() {
    let server = support::start().await;
    // The data comes before what says how to read it.
    let body = r#"{"id":"q\"1","inputs":[
        {"data":[[1,2],[3,4]],"name":"a","datatype":"FP32","shape":[2,2]},
        {"name":"b","shape":[2,2],"datatype":"FP32","data":[0.5,-1e1,0,0]}]}"#;
    let answer = server.post("/v2/models/add/infer", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        answer.json(),
        json!({"model_name": "add", "model_version": "1", "id": "q\"1", "outputs": [
            {"name": "sum", "datatype": "FP32", "shape": [2, 2], "data": [1.5, -8.0, 3.0, 4.0]}]})
    );
    assert_eq!(answer.header("modelyard-version"), Some("1"));
    assert_eq!(answer.header("modelyard-batch-size"), Some("2"));
    assert!(answer.header("modelyard-queue-us").is_some_and(|v| v.parse::<u64>().is_ok()));
    assert!(answer.header("modelyard-compute-us").is_some_and(|v| v.parse::<u64>().is_ok()));
    let same = server.post("/v2/models/add/versions/1/infer", body).await;
    assert_eq!(same.json(), answer.json());
}

#[tokio::test]
async fn no_rows_give_no_rows() {
    let server = support::start().await;
    let body = r#"{"inputs":[{"name":"x","shape":[0,3],"datatype":"FP32","data":[]}]}"#;
    let answer = server.post(SCORES, body).await;
    assert_eq!(answer.json()["outputs"][0]["shape"], json!([0, 3]), "{}", answer.text());
}

#[tokio::test]
async fn json_and_binary_may_be_mixed() {
    let server = support::start().await;
    let head = r#"{"inputs":[
        {"name":"a","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}},
        {"name":"b","shape":[1,2],"datatype":"FP32","data":[1,2]}],
        "outputs":[{"name":"sum","parameters":{"binary_data":true}}]}"#;
    let blob: Vec<u8> = [10f32, 20.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let body = [head.as_bytes(), &blob].concat();
    let length = head.len().to_string();
    let headers = [("inference-header-content-length", length.as_str())];
    let answer = server.send("POST", "/v2/models/add/infer", &headers, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    let split: usize = answer.header("inference-header-content-length").unwrap().parse().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&answer.body[..split]).unwrap();
    assert_eq!(json["outputs"][0]["parameters"], json!({"binary_data_size": 8}));
    let sum: Vec<u8> = [11f32, 22.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(answer.body[split..], sum);
    // A byte more than the inputs take is refused.
    let more = [body.as_slice(), b"x"].concat();
    let answer = server.send("POST", "/v2/models/add/infer", &headers, &more).await;
    assert!(answer.error().contains("1 bytes of binary data more"), "{}", answer.text());
}

#[tokio::test]
async fn raw_requests_are_nothing_but_data() {
    let server = support::start().await;
    let blob: Vec<u8> = [0f32; 6].iter().flat_map(|v| v.to_le_bytes()).collect();
    let headers = [("inference-header-content-length", "0")];
    let answer = server.send("POST", SCORES, &headers, &blob).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let split: usize = answer.header("inference-header-content-length").unwrap().parse().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&answer.body[..split]).unwrap();
    assert_eq!(json["outputs"][0]["shape"], json!([2, 3]));
    assert_eq!(answer.body.len() - split, 24);
    let answer = server.send("POST", "/v2/models/echo/infer", &headers, b"a string").await;
    assert!(answer.body.ends_with(b"\x08\0\0\0a string"), "{}", answer.text());
}

#[tokio::test]
async fn the_best_classes_are_given_when_asked_for() {
    let server = support::start().await;
    let body = r#"{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[0,100,0]}],
        "outputs":[{"name":"p","parameters":{"classification":2}}]}"#;
    let answer = server.post(SCORES, body).await.json();
    assert_eq!(answer["outputs"][0]["shape"], json!([1, 2]));
    assert_eq!(answer["outputs"][0]["data"], json!(["1.000000:1", "0.000000:0"]));
}

#[tokio::test]
async fn strings_and_long_integers_keep_their_value() {
    let server = support::start().await;
    let body =
        r#"{"inputs":[{"name":"x","shape":[2],"datatype":"BYTES","data":["a\u00e9\n",""]}]}"#;
    let answer = server.post("/v2/models/echo/infer", body).await.json();
    assert_eq!(answer["outputs"][0]["data"], json!(["aé\n", ""]));
    let body = r#"{"inputs":[{"name":"x","shape":[2],"datatype":"INT64","data":[9007199254740993,-9223372036854775808]}]}"#;
    let answer = server.post("/v2/models/number/infer", body).await;
    assert!(answer.text().contains("[9007199254740993,-9223372036854775808]"), "{}", answer.text());
}

#[tokio::test]
async fn what_is_said_of_server_and_models() {
    let server = support::start().await;
    let metadata = server.get("/v2").await.json();
    assert_eq!(metadata["name"], "modelyard");
    assert!(metadata["extensions"].as_array().unwrap().contains(&json!("binary_tensor_data")));
    assert_eq!(server.get("/v2/health/live").await.status, 200);
    assert_eq!(server.get("/v2/health/ready").await.status, 200);
    assert_eq!(server.get("/v2/models/add/ready").await.status, 200);
    assert_eq!(server.get("/v2/models/nothing/ready").await.status, 404);
    let model = server.get("/v2/models/add").await.json();
    assert_eq!(model["versions"], json!(["1"]));
    assert_eq!(model["platform"], "native_onnx");
    assert_eq!(model["inputs"][0], json!({"name": "a", "datatype": "FP32", "shape": [-1, 2]}));
    let config = server.get("/v2/models/add/config").await.json();
    assert_eq!(config["input"][0]["data_type"], "TYPE_FP32");
    assert_eq!(config["input"][0]["dims"], json!([2]));
    assert!(config["max_batch_size"].as_u64().unwrap() > 0);
    let head = server.send("HEAD", "/v2", &[], b"").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    let missing = server.get("/v2/models/nothing").await;
    assert!(missing.error().contains("Request for unknown model: 'nothing' is not found"));
}

#[tokio::test]
async fn statistics_count_what_was_answered() {
    let server = support::start().await;
    let body = r#"{"inputs":[{"name":"x","shape":[2,3],"datatype":"FP32","data":[1,2,3,4,5,6]}]}"#;
    server.post(SCORES, body).await;
    let statistics = server.get("/v2/models/scores/stats").await.json();
    let model = &statistics["model_stats"][0];
    assert_eq!((&model["name"], &model["version"]), (&json!("scores"), &json!("1")));
    assert_eq!(model["inference_count"], 2);
    assert_eq!(model["inference_stats"]["success"]["count"], 1);
    assert_eq!(model["batch_stats"][0]["batch_size"], 2);
    let all = server.get("/v2/models/stats").await.json();
    assert!(all["model_stats"].as_array().unwrap().len() >= 5);
    assert_eq!(server.get("/v2/models/nothing/stats").await.status, 404);
}

#[tokio::test]
async fn the_repository_is_listed_and_changed() {
    let server = support::start().await;
    let index = server.post("/v2/repository/index", "").await.json();
    let has = |name: &str, state: &str| {
        index.as_array().unwrap().iter().any(|m| m["name"] == name && m["state"] == state)
    };
    assert!(has("add", "READY") && has("sleeping", "UNAVAILABLE"), "{index}");
    let ready = server.post("/v2/repository/index", r#"{"ready":true}"#).await.json();
    assert!(!ready.to_string().contains("sleeping"));
    let body = r#"{"parameters":{"config":"{\"max_batch_size\":4}","file:1/model.onnx":"aGk="}}"#;
    assert_eq!(server.post("/v2/repository/models/add/load", body).await.status, 200);
    let (name, load) = server.control.loads.lock().unwrap().pop().unwrap();
    assert_eq!((name.as_str(), load.config.unwrap().as_str()), ("add", "{\"max_batch_size\":4}"));
    assert_eq!(load.files, [("1/model.onnx".to_owned(), bytes::Bytes::from_static(b"hi"))]);
    let failed = server.post("/v2/repository/models/broken/load", "{}").await;
    assert_eq!(failed.status, 400);
    assert!(failed.error().contains("failed to load 'broken'"), "{}", failed.error());
    assert_eq!(server.post("/v2/repository/models/add/unload", "{}").await.status, 200);
    assert_eq!(server.post("/v2/repository/models/nothing/unload", "").await.status, 404);
}

#[tokio::test]
async fn answers_are_compressed_when_that_is_asked_for_and_worth_it() {
    use std::io::Read;
    let server = support::start().await;
    let values = vec!["1"; 3000].join(",");
    let body = format!(
        r#"{{"inputs":[{{"name":"x","shape":[1000,3],"datatype":"FP32","data":[{values}]}}]}}"#
    );
    let plain = server.post(SCORES, &body).await;
    let headers = [("accept-encoding", "gzip, deflate")];
    let packed = server.send("POST", SCORES, &headers, body.as_bytes()).await;
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert!(packed.body.len() * 4 < plain.body.len());
    let mut unpacked = String::new();
    flate2::read::GzDecoder::new(&packed.body[..]).read_to_string(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain.text());
    let small = server.send("GET", "/v2", &headers, b"").await;
    assert_eq!(small.header("content-encoding"), None);
}

#[tokio::test]
async fn a_deadline_that_has_passed_is_a_504() {
    let server = support::start().await;
    let body = r#"{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}"#;
    let headers = [("x-request-timeout-ms", "0")];
    let answer = server.send("POST", SCORES, &headers, body.as_bytes()).await;
    assert_eq!(answer.status, 504, "{}", answer.text());
}
