//! Rollouts and feedback over REST.

use serde_json::json;

use crate::registry::Shop;

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_started_watched_and_ended_by_request() {
    let shop = Shop::start().await;
    shop.publish("m", 3).await;
    let rollout = "/models/m/rollout";
    let start = json!({ "to": [2], "reason": "newer data" });
    // Without a champion there is nothing to replace.
    assert_eq!(shop.send("POST", rollout, start.clone()).await.status, 404);
    shop.send("PUT", "/models/m/aliases/champion", json!({ "version": 1 })).await;
    for (body, part) in [
        (json!({ "to": [] }), "candidates"),
        (json!({ "to": [1] }), "version 1"),
        (json!({ "to": [2, 3] }), "experiment"),
        (json!({ "to": [2], "plan": { "alpha": 0.9 } }), "alpha"),
        (json!({ "to": [2], "plan": { "alhpa": 0.01 } }), "alhpa"),
        (json!({ "to": [2], "plan": { "replay": { "file": "x" } } }), "modelyard rollout start"),
        (
            json!({ "to": [2], "plan": { "replay": { "file": "../x" } }, "upload": "u" }),
            "starts with a dot",
        ),
    ] {
        let refused = shop.send("POST", rollout, body.clone()).await;
        assert_eq!(refused.status, 400, "{body}: {}", refused.text());
        assert!(refused.text().contains(part), "{body}: {}", refused.text());
    }
    assert_eq!(shop.send("POST", rollout, json!({ "to": [9] })).await.status, 404);
    let started = shop.send("POST", rollout, start.clone()).await;
    assert_eq!(started.status, 200, "{}", started.text());
    assert_eq!(
        (&started.json()["who"], &started.json()["reason"]),
        (&"bo".into(), &"newer data".into())
    );
    let again = shop.send("POST", rollout, start).await;
    assert!(again.text().contains("under way already"), "{}", again.text());
    let split = shop.send("PUT", "/models/m/traffic", json!({ "shares": [] })).await;
    assert!(split.text().contains("under way"), "{}", split.text());

    let status = shop.get(rollout).await;
    assert_eq!((&status["step"], &status["champion"]), (&0.into(), &1.into()));
    assert_eq!(status["candidates"][0]["candidate"]["version"], 2);
    assert_eq!(shop.get("/rollouts").await["rollouts"].as_array().unwrap().len(), 1);
    assert_eq!(shop.get("/servers").await, json!({ "servers": [] }));
    for (change, status) in [("pause", 200), ("pause", 409), ("resume", 200), ("stop", 200)] {
        let answer = shop.send("POST", &format!("{rollout}/{change}"), json!({})).await;
        assert_eq!(answer.status, status, "{change}: {}", answer.text());
    }
    let gone = shop.server.get("/v2/registry/models/m/rollout").await;
    assert_eq!(gone.status, 404, "{}", gone.text());

    shop.send("PUT", "/models/m/aliases/champion", json!({ "version": 3 })).await;
    let late = shop.send("POST", "/models/m/rollback", json!({ "expect": 2 })).await;
    assert_eq!(late.status, 409, "{}", late.text());
    let back =
        shop.send("POST", "/models/m/rollback", json!({ "expect": 3, "reason": "worse" })).await;
    assert_eq!(back.json()["event"]["to"], 1, "{}", back.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_is_kept_or_refused_with_the_reason() {
    let shop = Shop::start().await;
    shop.publish("m", 2).await;
    shop.send("PUT", "/models/m/aliases/champion", json!({ "version": 1 })).await;
    let give = async |body: serde_json::Value| {
        let headers = [("content-type", "application/json")];
        let body = body.to_string();
        shop.server.send("POST", "/v2/models/m/feedback", &headers, body.as_bytes()).await
    };
    let early = give(json!({ "id": "r1", "right": true })).await;
    assert_eq!(early.status, 409, "{}", early.text());
    assert!(early.text().contains("is under way, and nothing else"), "{}", early.text());
    shop.send("POST", "/models/m/rollout", json!({ "to": [2] })).await;
    for body in [
        json!({ "id": "r1", "label": "cat" }),
        json!({ "id": "r1", "label": 3, "metrics": { "clicks": 1 } }),
        json!({ "id": "r1", "label": true, "model_version": "2" }),
        json!({ "feedback": [{ "id": "r1", "right": true, "feedback_id": "f1" },
                             { "id": "r1", "right": true, "feedback_id": "f1" }] }),
    ] {
        let taken = give(body.clone()).await;
        assert_eq!(taken.status, 202, "{body}: {}", taken.text());
    }
    let rollout = shop.registry.rollout("m").await.unwrap().unwrap();
    let kept = shop.registry.feedback(rollout.number, jiff::Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(kept.len(), 4, "the one that was said twice is there once");
    for (body, part) in [
        (json!({ "id": "r1" }), "says nothing"),
        (json!({ "right": true }), "missing field `id`"),
        (json!({ "id": "", "right": true }), "1 to 1024 bytes"),
        (json!({ "id": "r1", "rigth": true }), "rigth"),
        (json!({ "id": "r1", "metrics": { "clicks": "many" } }), "feedback"),
        (json!({ "feedback": [] }), "1 to 1000"),
        (json!([1, 2]), "feedback"),
        (json!("yes"), "feedback"),
    ] {
        let refused = give(body.clone()).await;
        assert_eq!(refused.status, 400, "{body}: {}", refused.text());
        assert!(refused.text().contains(part), "{body}: {}", refused.text());
    }
    let unknown = shop.server.send(
        "POST",
        "/v2/models/nobody/feedback",
        &[("content-type", "application/json")],
        br#"{"id": "r", "right": true}"#,
    );
    assert_eq!(unknown.await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_requests_are_replayed_from_an_upload_or_the_candidate_itself() {
    let shop = Shop::start().await;
    shop.publish("m", 1).await;
    shop.send("PUT", "/models/m/aliases/champion", json!({ "version": 1 })).await;
    let put = async |path: &str, body: &[u8]| {
        let path = format!("/v2/registry/uploads/{path}");
        let answer = shop.server.send("PUT", &path, &[], body).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    };
    put("v2/model.onnx", b"another").await;
    put("v2/recorded.jsonl", b"one\nwrong\n").await;
    let published = shop.send("POST", "/models/m/versions", json!({ "upload": "v2" })).await;
    assert_eq!(published.status, 201, "{}", published.text());
    let rollout = "/models/m/rollout";
    let start = |file: &str, agreement: f64| {
        let replay = json!({ "file": file, "agreement": agreement });
        json!({ "to": [2], "plan": { "replay": replay } })
    };
    // What the candidate was published with is not good enough, and the history says so.
    let failed = shop.send("POST", rollout, start("recorded.jsonl", 1.0)).await;
    assert_eq!(failed.status, 409, "{}", failed.text());
    let history = shop.get("/models/m/history").await;
    assert!(history.to_string().contains("\"agreed\":1"), "{history}");

    put("asked/today.jsonl", b"one\ntwo\n").await;
    put("asked/bad.jsonl", b"broken").await;
    let mut bad = start("bad.jsonl", 1.0);
    bad["upload"] = "asked".into();
    let refused = shop.send("POST", rollout, bad).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("replay: bad.jsonl: line 1"), "{}", refused.text());
    for upload in ["asked", "nobody"] {
        let mut absent = start("absent.jsonl", 1.0);
        absent["upload"] = upload.into();
        let answer = shop.send("POST", rollout, absent).await;
        assert!([400, 404].contains(&answer.status), "{}", answer.text());
    }
    let mut good = start("today.jsonl", 1.0);
    good["upload"] = "asked".into();
    let started = shop.send("POST", rollout, good).await;
    assert_eq!(started.status, 200, "{}", started.text());
    assert_eq!(started.json()["evidence"]["replay"]["agreed"], 2, "{}", started.text());
}
