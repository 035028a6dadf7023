//! The alerts' part of the description.

use model::ErrorCode;
use serde_json::{Value, json};

/// Adds the alerts to a description.
pub(crate) fn describe(document: &mut Value) {
    let tag = json!({ "name": "alerts", "description": "What is wrong, and what is kept quiet" });
    if let Some(tags) = document["tags"].as_array_mut() {
        tags.push(tag);
    }
    let look = |id: &str, summary: &str, schema: Value| {
        json!({
            "operationId": id, "tags": ["alerts"], "summary": summary,
            "responses": { "200": done(Some(schema)) },
        })
    };
    let paths = &mut document["paths"];
    let alerts = json!({
        "type": "object", "required": ["alerts", "looked", "notifiers"],
        "properties": {
            "alerts": { "type": "array", "items": schema("Alert") },
            "looked": { "type": ["string", "null"], "format": "date-time",
                "description": "When the rules were looked at last" },
            "notifiers": { "type": "object", "description": "What became of messages, by notifier" },
        },
    });
    paths["/v2/alerts"] = json!({ "get": look("listAlerts", "What is or was wrong", alerts) });
    let list = |name: &str, items: Value| {
        json!({ "type": "object", "required": [name],
            "properties": { name: { "type": "array", "items": items } } })
    };
    let rules = list("rules", json!({ "type": "object" }));
    paths["/v2/alerts/rules"] = json!({ "get": look("listRules", "The rules that hold", rules) });
    let silences = list("silences", schema("Silence"));
    paths["/v2/alerts/silences"] = json!({
        "get": look("listSilences", "What is kept quiet", silences),
        "post": {
            "operationId": "silence", "tags": ["alerts"], "summary": "Keep alerts quiet",
            "requestBody": { "required": true, "content": {
                "application/json": { "schema": schema("Silence") },
            } },
            "responses": changed("201", Some(json!({
                "type": "object", "required": ["id"], "properties": { "id": { "type": "string" } },
            })), ErrorCode::InvalidArgument),
        },
    });
    paths["/v2/alerts/silences/{id}"] = json!({
        "parameters": [
            { "name": "id", "in": "path", "required": true, "schema": { "type": "string" } },
        ],
        "delete": {
            "operationId": "endSilence", "tags": ["alerts"], "summary": "End a silence",
            "responses": changed("204", None, ErrorCode::NotFound),
        },
    });
    for (name, schema) in [("Alert", alert()), ("Silence", silence())] {
        document["components"]["schemas"][name] = schema;
    }
}

fn schema(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn done(schema: Option<Value>) -> Value {
    let mut done = json!({ "description": "Done" });
    if let Some(schema) = schema {
        done["content"] = json!({ "application/json": { "schema": schema } });
    }
    done
}

fn changed(status: &str, schema: Option<Value>, code: ErrorCode) -> Value {
    let failed = crate::http_status(code).to_string();
    json!({
        status: done(schema),
        failed: { "$ref": format!("#/components/responses/{code}") },
        "403": { "description": "This server does not let callers keep alerts quiet" },
    })
}

fn alert() -> Value {
    let time = json!({ "type": "string", "format": "date-time" });
    let labels = json!({ "type": "object", "additionalProperties": { "type": "string" } });
    json!({
        "type": "object", "required": ["fingerprint", "labels", "stage", "since", "summary"],
        "properties": {
            "fingerprint": { "type": "string", "description": "The same for the same rule and labels" },
            "labels": labels,
            "stage": { "enum": ["pending", "firing", "resolved"] },
            "since": time, "fired": time, "ended": time,
            "value": { "type": "number" },
            "summary": { "type": "string" },
            "runbook": { "type": "string" },
            "quiet": { "type": "array", "items": { "type": "string" },
                "description": "The silences and alerts that keep it quiet" },
        },
    })
}

fn silence() -> Value {
    let time = json!({ "type": "string", "format": "date-time" });
    json!({
        "type": "object", "required": ["where", "until"],
        "properties": {
            "id": { "type": "string", "readOnly": true },
            "where": { "type": "object", "minProperties": 1,
                "additionalProperties": { "type": "string" },
                "description": "Labels of the alerts, where * stands for any text" },
            "from": time, "until": time,
            "by": { "type": "string", "readOnly": true },
            "why": { "type": "string" },
        },
    })
}
