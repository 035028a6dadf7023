//! What is told of versions that are not in memory.

use api::proto::inference as pb;

use crate::support::{self, Server};

const ADD: &str = r#"{"inputs":[
    {"name":"a","shape":[1,2],"datatype":"FP32","data":[1,2]},
    {"name":"b","shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#;

/// Three versions of which two fit; the first two have been asked last.
async fn start() -> Server {
    let server = support::start_versions().await;
    for version in [3, 1, 2] {
        let path = format!("/v2/models/add/versions/{version}/infer");
        assert_eq!(server.post(&path, ADD).await.status, 200);
    }
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unloaded_for_memory_is_ready_and_the_index_says_so() {
    let server = start().await;
    assert_eq!(server.get("/v2/health/ready").await.status, 200);
    assert_eq!(server.get("/v2/models/add/versions/3/ready").await.status, 200);
    let index = server.post("/v2/repository/index", r#"{"ready":true}"#).await.json();
    let said: Vec<_> = index
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| format!("{} {}", entry["state"], entry["reason"]))
        .collect();
    assert_eq!(said, ["\"READY\" \"\"", "\"READY\" \"\"", "\"READY\" \"loaded on demand\""]);
    let mut grpc = server.grpc().await.inference();
    let only_ready = pb::RepositoryIndexRequest { ready: true, ..Default::default() };
    let index = grpc.repository_index(only_ready).await.unwrap();
    let reasons: Vec<_> = index.into_inner().models.into_iter().map(|m| m.reason).collect();
    assert_eq!(reasons, ["", "", "loaded on demand"]);
    // Neither question has loaded it.
    let ready = pb::ModelReadyRequest { name: "add".into(), version: "3".into() };
    assert!(grpc.model_ready(ready).await.unwrap().into_inner().ready);
    assert_eq!(
        server.get("/v1/models/add/versions/3").await.json()["model_version_status"][0]["state"],
        "AVAILABLE"
    );
    let page = server.get("/").await.text();
    assert!(page.contains("on demand"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_and_shadows_are_counted_over_rest_and_grpc() {
    let server = start().await;
    let rest = server.get("/v2/models/add/stats").await.json();
    let request = pb::ModelStatisticsRequest { name: "add".into(), version: String::new() };
    let answer = server.grpc().await.inference().model_statistics(request).await;
    let grpc = answer.unwrap().into_inner().model_stats;
    for (position, is_loaded) in [true, true, false].into_iter().enumerate() {
        let rest = &rest["model_stats"][position];
        let held = grpc[position].memory_usage.first().map(|usage| usage.byte_size);
        assert_eq!(rest["memory_usage"][0]["byte_size"].as_u64(), held);
        assert_eq!(held.is_some_and(|bytes| bytes > 0), is_loaded);
        // Everyone named a version.
        assert_eq!(rest["shadow_stats"]["run"]["count"], 0);
        assert_eq!(rest["shadow_stats"]["dropped"], 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_tells_of_the_headers() {
    let server = start().await;
    let described = server.get("/openapi.json").await.json();
    let post = &described["paths"]["/v2/models/add/infer"]["post"];
    assert_eq!(post["parameters"][0]["$ref"], "#/components/parameters/Key");
    let parameters = &described["components"]["parameters"];
    assert_eq!(parameters["Key"]["name"], "modelyard-key");
    assert_eq!(parameters["Version"]["schema"]["maxLength"], 256);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_is_no_ascii_is_refused() {
    let server = support::start_versions().await;
    for header in ["modelyard-key", "modelyard-version"] {
        let path = "/v2/models/add/infer";
        let answer = server.send("POST", path, &[(header, "schlüssel")], ADD.as_bytes()).await;
        assert_eq!(answer.status, 400);
        let expected =
            format!("{header}: expected 1 to 256 printable ASCII characters, got others");
        assert_eq!(answer.error(), expected);
    }
}
