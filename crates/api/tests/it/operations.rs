//! What the description says that can be asked of the registry: a list that changes only on purpose.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::registry::Shop;

/// One operation in a line.
fn line(method: &str, path: &str, operation: &Value) -> String {
    let names = |of: &Value| -> Vec<String> {
        let all = of.as_array().into_iter().flatten();
        let query = all.filter(|parameter| parameter["in"] == "query");
        query.filter_map(|parameter| parameter["name"].as_str().map(str::to_owned)).collect()
    };
    let content = &operation["requestBody"]["content"];
    let schema = &content["application/json"]["schema"];
    let schema = match schema["$ref"].as_str() {
        Some(reference) => reference.trim_start_matches("#/components/schemas/").to_owned(),
        None => content.as_object().map_or("-", |_| "*").to_owned(),
    };
    let answers: Vec<&str> =
        operation["responses"].as_object().unwrap().keys().map(String::as_str).collect();
    let id = operation["operationId"].as_str().unwrap();
    let (query, answers) = (names(&operation["parameters"]).join(","), answers.join(","));
    format!("{} {path} {id}({query}) {schema} {answers}", method.to_uppercase())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_described_is_there_and_changes_only_on_purpose() {
    let shop = Shop::start().await;
    let document = shop.server.get("/openapi.json").await.json();
    let mut lines = String::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        if !path.starts_with("/v2/registry") && !path.ends_with("/feedback") {
            continue;
        }
        for (method, operation) in item.as_object().unwrap() {
            if method == "parameters" {
                continue;
            }
            writeln!(lines, "{}", line(method, path, operation)).unwrap();
            let some = path.replace(['{', '}'], "");
            let headers = [("content-type", "application/json")];
            let body = json!({}).to_string();
            let answer =
                shop.server.send(&method.to_uppercase(), &some, &headers, body.as_bytes()).await;
            let text = answer.text();
            assert!(answer.status != 405 && !text.contains("nothing of the registry"), "{text}");
        }
    }
    let expected = include_str!("../golden/operations.txt");
    assert_eq!(
        lines, expected,
        "if it is meant, write it to tests/golden/operations.txt:\n{lines}"
    );
}
