//! The registry's part of the description.

use model::ErrorCode;
use serde_json::{Value, json};

/// One operation: method, path, identifier, what it does, its query, its body, its answer, and what
/// can go wrong beside wrong input.
struct Operation {
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    query: &'static [(&'static str, &'static str, &'static str)],
    body: Option<&'static str>,
    answer: &'static str,
}

macro_rules! operation {
    ($method:literal $path:literal $id:literal $summary:literal [$($query:expr),*] $body:expr, $answer:literal) => {
        Operation {
            method: $method, path: $path, id: $id, summary: $summary,
            query: &[$($query),*], body: $body, answer: $answer,
        }
    };
}

const LIMIT: (&str, &str, &str) =
    ("limit", "integer", "How many at most: 1 to 10000; 100 if left out");
const AFTER: (&str, &str, &str) = ("after", "string", "The `next` of the page before");
const EXPECT: (&str, &str, &str) = ("expect", "integer", "The version that it must name now");
const REASON: (&str, &str, &str) = ("reason", "string", "Why, for the history");

const FORMAT: (&str, &str, &str) = ("format", "string", "mlflow, triton or numbered");

const OPERATIONS: [Operation; 32] = [
    operation!("get" "/models" "listModels" "The models, by name" [LIMIT, AFTER] None, "Models"),
    operation!("get" "/models/{model}" "getModel" "A model, its aliases and its traffic" [] None, "Model"),
    operation!("get" "/models/{model}/versions" "listVersions" "A model's versions, newest first" [LIMIT, AFTER] None, "Versions"),
    operation!("get" "/models/{model}/versions/{version}" "getVersion" "Everything that is known of a version" [] None, "Version"),
    operation!("post" "/models/{model}/versions/{version}/archive" "archiveVersion" "Put a version aside" [] Some("Why"), "Record"),
    operation!("post" "/models/{model}/versions/{version}/restore" "restoreVersion" "Make an archived or deleted version active again" [] Some("Why"), "Record"),
    operation!("post" "/models/{model}/versions/{version}/delete" "deleteVersion" "Delete a version; it can be restored for a week" [] Some("Why"), "Record"),
    operation!("get" "/models/{model}/aliases" "listAliases" "What a model's aliases name" [] None, "Aliases"),
    operation!("get" "/models/{model}/aliases/{alias}" "getAlias" "The version that an alias names" [] None, "Version"),
    operation!("put" "/models/{model}/aliases/{alias}" "setAlias" "Make an alias name a version: promote, or roll back" [] Some("SetAlias"), "Record"),
    operation!("delete" "/models/{model}/aliases/{alias}" "removeAlias" "Take an alias away" [EXPECT, REASON] None, "Record"),
    operation!("get" "/models/{model}/traffic" "getTraffic" "How a model's traffic is split" [] None, "Traffic"),
    operation!("put" "/models/{model}/traffic" "splitTraffic" "Split a model's traffic among versions" [] Some("SplitTraffic"), "Record"),
    operation!("get" "/models/{model}/history" "getHistory" "What happened to a model, oldest first" [LIMIT, AFTER] None, "History"),
    operation!("get" "/models/{model}/at" "getStateAt" "What a model was at a time" [("time", "string", "Such as 2026-11-20T14:03Z")] None, "StateAt"),
    operation!("get" "/models/{model}/diff" "diffVersions" "What is different between two versions" [("from", "string", "A number or an alias"), ("to", "string", "A number or an alias")] None, "Differences"),
    operation!("get" "/check" "checkRegistry" "Whether everything that is stored fits together" [("bytes", "boolean", "Read every file")] None, "Check"),
    operation!("post" "/collect" "collectGarbage" "Remove what was deleted long enough ago" [] Some("Collect"), "Collected"),
    operation!("get" "/uploads/{upload}" "listUpload" "The files of an upload that have arrived" [] None, "Upload"),
    operation!("get" "/models/{model}/versions/{version}/files/{file}" "getFile" "The bytes of a file, whose digest is checked" [] None, ""),
    operation!("get" "/models/{model}/versions/{version}/export" "exportVersion" "A version as another tool keeps it, as a tar" [FORMAT] None, "tar"),
    operation!("get" "/models/{model}/rollout" "getRollout" "The rollout that is under way" [] None, "Object"),
    operation!("post" "/models/{model}/rollout" "startRollout" "Let candidates take the champion's place by evidence" [] Some("StartRollout"), "Object"),
    operation!("post" "/models/{model}/rollout/pause" "pauseRollout" "Let a rollout stay at its step" [] Some("Why"), "Record"),
    operation!("post" "/models/{model}/rollout/resume" "resumeRollout" "Let a paused rollout go on" [] Some("Why"), "Record"),
    operation!("post" "/models/{model}/rollout/stop" "stopRollout" "Give the champion all the traffic again" [] Some("Why"), "Record"),
    operation!("post" "/models/{model}/rollback" "rollBack" "Go back to the champion before this one" [] Some("RollBack"), "Record"),
    operation!("put" "/models/{model}/notes/{key}" "noteModel" "Write a note about a model" [] Some("Note"), "Record"),
    operation!("put" "/models/{model}/versions/{version}/notes/{key}" "noteVersion" "Write a note about a version" [] Some("Note"), "Record"),
    operation!("get" "/rollouts" "listRollouts" "The rollouts that are under way" [] None, "Object"),
    operation!("get" "/servers" "listServers" "The servers that follow the registry, and what they hold" [] None, "Object"),
    operation!("delete" "/uploads/{upload}" "removeUpload" "Forget an upload" [] None, "UploadName"),
];

/// Where feedback is given.
const FEEDBACK: &str = "/v2/models/{model}/feedback";

/// Adds the registry to a description.
pub(crate) fn describe(document: &mut Value) {
    let tag =
        json!({ "name": "registry", "description": "Versions, aliases, traffic and history" });
    if let Some(tags) = document["tags"].as_array_mut() {
        tags.push(tag);
    }
    let paths = &mut document["paths"];
    for operation in &OPERATIONS {
        let path = &mut paths[format!("/v2/registry{}", operation.path)];
        path["parameters"] = names(operation.path);
        path[operation.method] = described(operation);
    }
    paths["/v2/registry/models/{model}/versions"]["post"] = publish();
    let file = "/uploads/{upload}/{file}";
    paths[format!("/v2/registry{file}")] = json!({ "parameters": names(file), "put": upload() });
    paths[FEEDBACK] = json!({ "parameters": names(FEEDBACK), "post": feedback() });
    for (name, schema) in all_schemas() {
        document["components"]["schemas"][format!("Registry{name}")] = schema;
    }
}

/// The names in a path.
fn names(path: &str) -> Value {
    let names = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    let name = |name: &str| {
        let schema = match name {
            "version" => json!({ "type": "integer", "minimum": 1 }),
            _ => json!({ "type": "string" }),
        };
        json!({ "name": name, "in": "path", "required": true, "schema": schema })
    };
    names.map(name).collect()
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/Registry{name}") })
}

fn media(schema: Value) -> Value {
    json!({ "application/json": { "schema": schema } })
}

fn described(operation: &Operation) -> Value {
    let changes = operation.method != "get";
    let mut parameters: Vec<Value> = operation
        .query
        .iter()
        .map(|(name, kind, description)| {
            let required = matches!(*name, "time" | "from" | "to" | "format");
            json!({ "name": name, "in": "query", "required": required, "description": description,
                "schema": { "type": kind } })
        })
        .collect();
    if changes {
        parameters.push(by());
    }
    let content = match operation.answer {
        "" => json!({ "application/octet-stream": {} }),
        "tar" => json!({ "application/x-tar": {} }),
        answer => media(reference(answer)),
    };
    let mut described = json!({
        "operationId": operation.id, "tags": ["registry"], "summary": operation.summary,
        "parameters": parameters,
        "responses": responses("200", content, changes),
    });
    if let Some(body) = operation.body {
        described["requestBody"] = json!({ "required": true, "content": media(reference(body)) });
    }
    described
}

/// Who makes a change.
fn by() -> Value {
    json!({ "name": "modelyard-by", "in": "header", "schema": { "type": "string" },
            "description": "Who makes the change, for the history" })
}

fn responses(status: &str, content: Value, changes: bool) -> Value {
    let mut responses = json!({ status: { "description": "Done", "content": content } });
    let mut codes = vec![ErrorCode::InvalidArgument, ErrorCode::NotFound, ErrorCode::Unavailable];
    if changes {
        codes.push(ErrorCode::ResourceExhausted);
        responses["403"] =
            json!({ "description": "This server does not let callers change the registry" });
        responses["409"] =
            json!({ "description": "Somebody else was faster, or what is to go is in use" });
    }
    for code in codes {
        let status = crate::http_status(code).to_string();
        responses[status] = json!({ "$ref": format!("#/components/responses/{code}") });
    }
    responses
}

fn publish() -> Value {
    let query = |name: &str, description: &str| json!({ "name": name, "in": "query", "schema": { "type": "string" }, "description": description });
    json!({
        "operationId": "publishVersion", "tags": ["registry"],
        "summary": "Publish a version: the model's file itself, or what was uploaded before",
        "parameters": [
            by(),
            query("file", "The name of the file that is the body; model.onnx if left out"),
            query("digest", "sha256: and the digest of the body, which is compared"),
            query("alias", "The alias that is to name it"),
            query("parent", "The version that it was made from"),
            query("data", "The digest of the data that it was trained on"),
            query("commit", "The commit of the code that made it"),
            query("reason", "Why, for the history"),
        ],
        "requestBody": { "required": true, "content": {
            "application/octet-stream": {},
            "application/json": { "schema": reference("Publish") },
        } },
        "responses": responses("201", media(reference("Version")), true),
    })
}

fn feedback() -> Value {
    let mut responses = responses("202", media(reference("Accepted")), false);
    let code = ErrorCode::ResourceExhausted;
    responses[crate::http_status(code).to_string()] =
        json!({ "$ref": format!("#/components/responses/{code}") });
    json!({
        "operationId": "giveFeedback", "tags": ["registry"],
        "summary": "Say what became known of answers, for the rollout that is under way",
        "requestBody": { "required": true, "content": media(json!({ "oneOf": [
            reference("Feedback"),
            object(&["feedback"], json!({ "feedback": {
                "type": "array", "minItems": 1, "maxItems": 1000, "items": reference("Feedback"),
            } })),
        ] })) },
        "responses": responses,
    })
}

fn upload() -> Value {
    json!({
        "operationId": "uploadFile", "tags": ["registry"],
        "summary": "Upload a file that is to be part of a version",
        "parameters": [by()],
        "requestBody": { "required": true, "content": { "application/octet-stream": {} } },
        "responses": responses("201", media(reference("Received")), true),
    })
}

/// What is said of one answer.
fn given() -> Value {
    let text = |description: &str| json!({ "type": "string", "minLength": 1, "maxLength": 1024, "description": description });
    object(
        &["id"],
        json!({
            "id": text("The id of the request"),
            "feedback_id": text("Makes saying it twice saying it once"),
            "model_version": text("The version that answered"),
            "label": { "description": "What the answer should have been" },
            "right": { "type": "boolean", "description": "Whether the answer was right" },
            "metrics": { "type": "object", "additionalProperties": { "type": "number" } },
        }),
    )
}

fn object(required: &[&str], properties: Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties })
}

fn list(of: &str) -> Value {
    json!({ "type": "array", "items": reference(of) })
}

fn all_schemas() -> Vec<(&'static str, Value)> {
    let text = || json!({ "type": "string" });
    let number = || json!({ "type": "integer", "minimum": 0 });
    let time = || json!({ "type": "string", "format": "date-time" });
    let numbers = || json!({ "type": "object", "additionalProperties": { "type": "integer" } });
    let texts = || json!({ "type": "object", "additionalProperties": { "type": "string" } });
    let page = |name: &str, of: &str| {
        object(
            &[name, "next"],
            json!({ name: list(of), "next": {
            "description": "What to ask for the next page with; null if this is the last" } }),
        )
    };
    let model = json!({
        "name": text(), "versions": number(), "aliases": numbers(), "published": time(),
        "traffic": list("Share"), "assigned": list("Share"), "notes": texts(),
    });
    let version = json!({
        "model": text(), "number": number(),
        "stage": { "enum": ["active", "archived", "deleted", "purged"] },
        "aliases": { "type": "array", "items": text() },
        "published": time(), "who": text(), "digest": text(), "size": number(),
        "lineage": reference("Lineage"), "metadata": texts(), "main": text(),
        "manifest": { "type": "object" }, "notes": texts(),
        "files": { "type": "array", "items": object(&["name", "kind", "digest", "size"], json!({
            "name": text(), "kind": { "enum": ["model", "attachment"] }, "digest": text(),
            "size": number() })) },
    });
    let lineage = json!({ "parent": number(), "data": text(), "commit": text() });
    let share = json!({
        "version": number(), "share": number(), "shadow": { "type": "boolean" },
        "pinned": { "type": "array", "items": text() },
    });
    let record = json!({
        "sequence": number(), "time": time(), "model": text(), "event": { "type": "object" },
        "who": text(), "reason": text(), "evidence": {},
    });
    let publish = json!({
        "upload": text(), "main": text(), "card": text(), "alias": text(),
        "data_profile": { "type": "string", "description": "The file of the upload that has the \
            training data (.csv, .tsv, .parquet), or its profile (.json)" },
        "warm_up": { "type": "string", "description": "The file of the upload that has recorded \
            requests; warmup.jsonl if there is one" },
        "lineage": reference("Lineage"), "metadata": texts(), "reason": text(), "evidence": {},
    });
    let set_alias = json!({
        "version": { "type": "integer", "minimum": 1 }, "reason": text(), "evidence": {},
        "expect": { "type": "integer", "minimum": 0,
                    "description": "The version that it must name now; 0: it must not exist" },
    });
    let split = json!({
        "shares": list("Share"), "expect": list("Share"), "reason": text(), "evidence": {},
    });
    let collected = json!({
        "versions": number(), "blobs": number(), "bytes": number(), "leftovers": number(),
    });
    let files = json!({ "type": "array", "items": object(&["file", "size"], json!({
        "file": text(), "size": number() })) });
    let received = json!({ "upload": text(), "file": text(), "size": number(), "digest": text() });
    vec![
        ("Model", object(&["name", "versions", "aliases", "published"], model)),
        ("Models", page("models", "Model")),
        (
            "Version",
            object(
                &["model", "number", "stage", "aliases", "published", "who", "digest", "size"],
                version,
            ),
        ),
        ("Versions", page("versions", "Version")),
        ("Lineage", object(&[], lineage)),
        ("Share", object(&["version", "share"], share)),
        ("Record", object(&["sequence", "time", "model", "event", "who"], record)),
        ("History", page("history", "Record")),
        ("Aliases", object(&["aliases"], json!({ "aliases": numbers() }))),
        (
            "Traffic",
            object(
                &["shares", "assigned"],
                json!({ "shares": list("Share"), "assigned": list("Share") }),
            ),
        ),
        (
            "StateAt",
            object(
                &["state", "assigned"],
                json!({ "state": { "type": "object" }, "assigned": list("Share") }),
            ),
        ),
        (
            "Differences",
            object(
                &["from", "to", "differences"],
                json!({
            "from": number(), "to": number(), "differences": { "type": "object" } }),
            ),
        ),
        (
            "Check",
            object(
                &["consistent", "inconsistencies"],
                json!({
            "consistent": { "type": "boolean" }, "inconsistencies": { "type": "array", "items": text() } }),
            ),
        ),
        ("Collect", object(&[], json!({ "grace_seconds": number(), "reason": text() }))),
        ("Collected", object(&["versions", "blobs", "bytes", "leftovers"], collected)),
        ("Why", object(&[], json!({ "reason": text(), "evidence": {} }))),
        ("SetAlias", object(&["version"], set_alias)),
        ("SplitTraffic", object(&["shares"], split)),
        ("Publish", object(&["upload"], publish)),
        ("Upload", object(&["upload", "files"], json!({ "upload": text(), "files": files }))),
        (
            "Note",
            object(
                &[],
                json!({
            "value": { "type": ["string", "null"], "description": "null takes it away" },
            "reason": text() }),
            ),
        ),
        ("Object", json!({ "type": "object" })),
        ("Accepted", object(&["accepted"], json!({ "accepted": number() }))),
        ("Feedback", given()),
        ("RollBack", object(&[], json!({ "expect": number(), "reason": text(), "evidence": {} }))),
        (
            "StartRollout",
            object(
                &["to"],
                json!({
            "to": { "type": "array", "items": number() }, "plan": { "type": "object" },
            "upload": { "type": "string", "description": "The upload that has the file which the \
                plan replays; if it is left out, the first candidate has it" },
            "reason": text() }),
            ),
        ),
        ("UploadName", object(&["upload"], json!({ "upload": text() }))),
        ("Received", object(&["upload", "file", "size", "digest"], received)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every schema that is named is there, and every operation has a name of its own.
    #[test]
    fn the_description_holds_together() {
        let mut document = super::super::document("m", "1", &[]);
        describe(&mut document);
        let text = document.to_string();
        for part in text.split("#/components/").skip(1) {
            let path = part.split('"').next().unwrap();
            let found = path.split('/').fold(&document["components"], |at, name| &at[name]);
            assert!(!found.is_null(), "{path}");
        }
        let mut ids: Vec<&str> = text
            .split("\"operationId\":\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!((ids.len(), all > 20), (all, true));
    }
}
