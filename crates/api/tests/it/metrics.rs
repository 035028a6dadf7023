//! `/metrics`: what is counted, under which labels, and in which formats.

use api::metrics::table::METRICS;
use api::proto::inference as oip;
use api::proto::tensorflow::serving as tfs;
use api::{ApiOptions, Doors};

use crate::support::{self, Server};

const ADD: &str = r#"{"inputs":[
    {"name":"a","shape":[1,2],"datatype":"FP32","data":[1,2]},
    {"name":"b","shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#;

/// The lines of a scrape that are not 0, without comments.
async fn scrape(server: &Server) -> Vec<String> {
    let answer = server.get("/metrics").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.ends_with(" 0"));
    lines.map(str::to_owned).collect()
}

/// The requests that were counted, as `model version protocol code number`.
async fn requests(server: &Server) -> Vec<String> {
    let lines = scrape(server).await;
    let of = lines.iter().filter_map(|line| line.strip_prefix("modelyard_requests_total{"));
    let short = |line: &str| {
        let (labels, number) = line.split_once("} ").unwrap();
        let values = labels.split(',').map(|pair| pair.split('"').nth(1).unwrap());
        format!("{} {number}", values.collect::<Vec<_>>().join(" "))
    };
    of.map(short).collect()
}

#[tokio::test]
async fn each_request_is_counted_once_under_its_protocol_and_its_end() {
    let server = support::start().await;
    // Answered, by each protocol.
    assert_eq!(server.post("/v2/models/add/infer", ADD).await.status, 200);
    let rows = r#"{"instances":[{"a":[1,2],"b":[3,4]}]}"#;
    assert_eq!(server.post("/v1/models/add:predict", rows).await.status, 200);
    let tensor = |name: &str| oip::model_infer_request::InferInputTensor {
        name: name.into(),
        datatype: "FP32".into(),
        shape: vec![1, 2],
        ..Default::default()
    };
    let message = oip::ModelInferRequest {
        model_name: "add".into(),
        inputs: vec![tensor("a"), tensor("b")],
        raw_input_contents: vec![vec![0; 8].into(), vec![0; 8].into()],
        ..Default::default()
    };
    let mut client = server.grpc().await.inference();
    client.model_infer(message.clone()).await.unwrap();
    // Refused when it was decoded, and when it was validated.
    assert_eq!(server.post("/v2/models/add/infer", "{").await.status, 400);
    assert_eq!(server.post("/v2/models/add/infer", r#"{"inputs":[]}"#).await.status, 400);
    assert_eq!(server.post("/v1/models/add:predict", "[").await.status, 400);
    let short = oip::ModelInferRequest { raw_input_contents: vec![], ..message.clone() };
    client.model_infer(short).await.unwrap_err();
    // For a version and for models that there are not.
    assert_eq!(server.post("/v2/models/add/versions/9/infer", ADD).await.status, 404);
    assert_eq!(server.post("/v2/models/made/infer", ADD).await.status, 404);
    assert_eq!(server.post("/v1/models/up:predict", rows).await.status, 404);
    let up = oip::ModelInferRequest { model_name: "up".into(), ..message };
    client.model_infer(up).await.unwrap_err();
    let spec = tfs::ModelSpec { name: "up".into(), ..Default::default() };
    let predict = tfs::PredictRequest { model_spec: Some(spec), ..Default::default() };
    server.grpc().await.predictions().predict(predict).await.unwrap_err();
    // What asks for no answer of a model is not counted here.
    server.get("/v2/models/add").await;
    server.get("/v2/models/nothing").await;
    assert_eq!(
        requests(&server).await,
        [
            "  rest NOT_FOUND 1",
            "  grpc NOT_FOUND 1",
            "  tfs_rest NOT_FOUND 1",
            "  tfs_grpc NOT_FOUND 1",
            "add  rest INVALID_ARGUMENT 1",
            "add  rest NOT_FOUND 1",
            "add  grpc INVALID_ARGUMENT 1",
            "add  tfs_rest INVALID_ARGUMENT 1",
            "add 1 rest OK 1",
            "add 1 rest INVALID_ARGUMENT 1",
            "add 1 grpc OK 1",
            "add 1 tfs_rest OK 1",
        ]
    );
}

#[tokio::test]
async fn names_that_callers_make_up_make_no_series() {
    let server = support::start().await;
    let before = scrape(&server).await.len();
    for number in 0..50 {
        server.post(&format!("/v2/models/made_up_{number}/infer"), ADD).await;
        server.post(&format!("/v2/models/add/versions/{number}x/infer"), ADD).await;
    }
    let lines = scrape(&server).await;
    assert!(lines.iter().all(|line| !line.contains("made_up")));
    assert_eq!(lines.len(), before + 2);
}

#[tokio::test]
async fn what_a_request_took_is_measured() {
    let server = support::start().await;
    let wide = format!("[{}1]", "1,".repeat(29));
    let body = format!(r#"{{"instances":[{wide},{wide},{wide}]}}"#);
    for _ in 0..3 {
        assert_eq!(server.post("/v1/models/wide:predict", &body).await.status, 200);
    }
    let lines = scrape(&server).await;
    for expected in [
        r#"modelyard_request_duration_seconds_count{model="wide",version="1",protocol="tfs_rest"} 3"#,
        r#"modelyard_request_duration_seconds_bucket{model="wide",version="1",protocol="tfs_rest",le="+Inf"} 3"#,
        r#"modelyard_queue_duration_seconds_count{model="wide",version="1"} 3"#,
        r#"modelyard_compute_duration_seconds_count{model="wide",version="1"} 3"#,
        r#"modelyard_batch_rows_bucket{model="wide",version="1",le="4.0"} 3"#,
        r#"modelyard_batch_rows_sum{model="wide",version="1"} 9"#,
        r#"modelyard_instances{model="wide",version="1"} 1"#,
        r#"modelyard_traffic_share_ratio{model="wide",version="1"} 1"#,
        r#"modelyard_model_ready{model="wide",version="1"} 1"#,
        r#"modelyard_loads_total{model="wide",version="1",result="succeeded"} 1"#,
        "modelyard_ready 1",
    ] {
        assert!(lines.iter().any(|line| line == expected), "{expected} in {lines:#?}");
    }
    // What has not been asked takes no buckets.
    assert!(!lines.iter().any(|line| line.contains("_bucket{model=\"add\"")));
}

#[tokio::test]
async fn every_series_has_the_labels_of_the_table() {
    let server = support::start_versions().await;
    server.post("/v2/models/add/infer", ADD).await;
    let text = server.get("/metrics").await.text();
    let mut names = std::collections::BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap());
        let family = METRICS.iter().find(|metric| {
            let suffix = name.strip_prefix(metric.name);
            suffix.is_some_and(|suffix| ["", "_bucket", "_sum", "_count"].contains(&suffix))
        });
        let family = family.unwrap_or_else(|| panic!("{line} is not in the table"));
        let labels: Vec<&str> = rest
            .split(['{', ','])
            .filter_map(|pair| Some(pair.split_once("=\"")?.0))
            .filter(|label| *label != "le")
            .collect();
        assert_eq!(labels, family.labels, "{line}");
        names.insert(family.name);
    }
    // All but what needs a registry, and a promise.
    let missing: Vec<&str> =
        METRICS.iter().map(|m| m.name).filter(|name| !names.contains(name)).collect();
    let expected =
        ["modelyard_alias_info", "modelyard_slo_target_seconds", "modelyard_telemetry_items_total"];
    assert!(missing.iter().all(|name| expected.contains(name) || name.contains("shadow")));
}

#[tokio::test]
async fn the_formats_are_negotiated() {
    let server = support::start().await;
    let ask = |accept: &'static str| {
        let server = &server;
        async move { server.send("GET", "/metrics", &[("accept", accept)], b"").await }
    };
    let text = ask("*/*").await;
    assert!(text.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    let open = ask("application/openmetrics-text; version=1.0.0").await;
    assert!(open.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    assert!(open.text().ends_with("# EOF\n"));
    let proto = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
        encoding=delimited";
    let proto = ask(proto).await;
    assert!(proto.header("content-type").unwrap().contains("encoding=delimited"));
    let packed = server.send("GET", "/metrics", &[("accept-encoding", "gzip")], b"").await;
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert!(packed.body.len() * 3 < text.body.len());
    assert_eq!(server.post("/metrics", "").await.status, 405);
}

#[tokio::test]
async fn a_port_may_have_the_metrics_alone_or_not_at_all() {
    let with = |doors| support::start_with(ApiOptions { doors, ..ApiOptions::default() });
    let metrics = with(Doors::Metrics).await;
    assert_eq!(metrics.get("/metrics").await.status, 200);
    for path in ["/", "/v2", "/v2/models/add", "/v1/models/add", "/openapi.json"] {
        assert_eq!(metrics.get(path).await.status, 404, "{path}");
    }
    assert!(metrics.get("/v2").await.error().contains("/metrics"));
    let others = with(Doors::AllButMetrics).await;
    assert_eq!(others.get("/metrics").await.status, 404);
    assert_eq!(others.get("/v2").await.status, 200);
}
