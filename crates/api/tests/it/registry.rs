//! The registry over REST, on a real one in a folder.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use api::{Access, ApiOptions, Contents, Entry, Recorded, Refused, Uploaded, Uploads};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::{ErrorCode, Format, Manifest, Signature};
use registry::{By, Clock, Draft, Location, Registry, Source};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use crate::support::{Answer, Server, start_registry};

const JSON: (&str, &str) = ("content-type", "application/json");

/// A server and its registry.
pub struct Shop {
    pub server: Server,
    pub registry: Arc<Registry>,
    folder: tempfile::TempDir,
}

async fn open(folder: &std::path::Path) -> Arc<Registry> {
    let text = folder.join("registry").to_str().unwrap().to_owned();
    let location = Location::parse(&text, Default::default()).unwrap();
    Arc::new(Registry::open(&location, None, Clock::system()).await.unwrap())
}

impl Shop {
    pub async fn start() -> Self {
        Self::start_with(true).await
    }

    async fn start_with(open_to_callers: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = open(folder.path()).await;
        let access = access(OnceLock::from(registry.clone()), open_to_callers, 1 << 20);
        let server = start_registry(access, ApiOptions::default()).await;
        Self { server, registry, folder }
    }

    /// Publishes as many versions.
    pub async fn publish(&self, model: &str, count: usize) {
        for n in 0..count {
            self.publish_bytes(model, format!("bytes {n} of {model}").into()).await;
        }
    }

    async fn publish_bytes(&self, model: &str, bytes: bytes::Bytes) {
        let size = bytes.len() as u64;
        let manifest = Manifest::new(Format::Onnx, hex(&bytes), size, Signature::default());
        let draft = Draft::new(model, manifest, "model.onnx", Source::Bytes(bytes));
        self.registry.publish(&draft, &By::new("ada"), &|_| ()).await.unwrap();
    }

    pub async fn get(&self, path: &str) -> Value {
        let answer = self.server.get(&format!("/v2/registry{path}")).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    pub async fn send(&self, method: &str, path: &str, body: Value) -> Answer {
        let headers = [JSON, ("modelyard-by", "bo")];
        let path = format!("/v2/registry{path}");
        self.server.send(method, &path, &headers, body.to_string().as_bytes()).await
    }
}

/// Opens whatever does not say that it is broken; a folder has the model `model.onnx` in it.
fn examine(uploaded: &Uploaded) -> Result<Draft, (ErrorCode, String)> {
    let (model, path) = (&uploaded.model, &uploaded.path);
    let path = if path.is_dir() { path.join("model.onnx") } else { path.clone() };
    let refused = |why: String| (ErrorCode::InvalidArgument, format!("{}: {why}", path.display()));
    let bytes = std::fs::read(&path).map_err(|error| refused(error.to_string()))?;
    if bytes.starts_with(b"broken") {
        return Err(refused("it is not an ONNX model".to_owned()));
    }
    let (size, name) = (bytes.len() as u64, path.file_name().unwrap().to_str().unwrap().to_owned());
    let manifest = Manifest::new(Format::Onnx, hex(&bytes), size, Signature::default());
    Ok(Draft::new(model, manifest, name, Source::Path(path)))
}

/// Each line is a request; a candidate answers all but those that say "wrong" as recorded.
async fn replay(recorded: Recorded) -> Result<rollout::Replayed, Refused> {
    let file = &recorded.wanted.file;
    let text = std::fs::read_to_string(file).unwrap();
    if text.contains("broken") {
        return Err((ErrorCode::InvalidArgument, format!("replay: {file}: line 1: broken")));
    }
    let requests = text.lines().count() as u64;
    let wrong = text.lines().filter(|line| line.contains("wrong")).count() as u64;
    Ok(rollout::Replayed { requests, agreed: requests - wrong, failed: 0 })
}

fn lay_out(version: &registry::Version, format: &str) -> Result<Vec<Entry>, Refused> {
    if format != "flat" {
        return Err((ErrorCode::InvalidArgument, format!("format {format:?}: expected flat")));
    }
    let files = version.files.iter().cloned();
    let mut entries: Vec<Entry> = files
        .map(|file| Entry {
            path: format!("{}/{}", "d".repeat(120), file.name),
            contents: Contents::File(file),
        })
        .collect();
    entries.push(Entry { path: "about.txt".into(), contents: Contents::Text("hello".into()) });
    Ok(entries)
}

fn access(registry: OnceLock<Arc<Registry>>, open_to_callers: bool, limit: u64) -> Access {
    Access {
        registry: Arc::new(registry),
        examine: Arc::new(examine),
        replay: Arc::new(|recorded| Box::pin(replay(recorded))),
        lay_out: Arc::new(lay_out),
        uploads: Uploads::new(tempfile::tempdir().unwrap(), limit),
        open_to_callers,
    }
}

fn hex(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_registry_knows_can_be_asked() {
    let shop = Shop::start().await;
    assert_eq!(shop.get("/models").await, json!({ "models": [], "next": null }));
    shop.publish("fraud", 3).await;
    shop.publish("ads", 1).await;
    let moved = json!({ "version": 2, "reason": "better", "evidence": { "auc": 0.9 } });
    let record = shop.send("PUT", "/models/fraud/aliases/champion", moved).await;
    assert_eq!(record.status, 200, "{}", record.text());
    assert_eq!(record.json()["who"], "bo");
    assert_eq!(record.json()["event"]["to"], 2);

    let models = shop.get("/models").await;
    assert_eq!(models["models"][0]["name"], "ads");
    assert_eq!(models["models"][1]["aliases"], json!({ "champion": 2 }));
    let model = shop.get("/models/fraud").await;
    assert_eq!((&model["versions"], &model["traffic"]), (&json!(3), &json!([])));
    assert_eq!(model["assigned"][0]["version"], 2);
    let version = shop.get("/models/fraud/versions/2").await;
    assert_eq!((&version["who"], &version["aliases"][0]), (&json!("ada"), &json!("champion")));
    let mut whole = shop.get("/models/fraud/aliases/champion").await;
    whole["notes"] = json!({});
    assert_eq!(whole, version);
    assert_eq!(shop.get("/models/fraud/aliases").await["aliases"]["champion"], 2);
    let history = shop.get("/models/fraud/history").await;
    assert_eq!(history["history"].as_array().unwrap().len(), 4);
    assert_eq!(history["history"][3]["evidence"]["auc"], 0.9);
    let time = history["history"][2]["time"].as_str().unwrap();
    let before = shop.get(&format!("/models/fraud/at?time={time}")).await;
    assert_eq!(before["state"]["aliases"], json!({}));
    let diff = shop.get("/models/fraud/diff?from=1&to=champion").await;
    assert_eq!((&diff["from"], &diff["to"]), (&json!(1), &json!(2)));
    assert_eq!(
        diff["differences"]["digest"][0],
        shop.get("/models/fraud/versions/1").await["digest"]
    );
    let check = shop.get("/check?bytes=true").await;
    assert_eq!(check, json!({ "consistent": true, "inconsistencies": [] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn long_lists_come_in_pages() {
    let shop = Shop::start().await;
    shop.publish("fraud", 7).await;
    for name in ["a", "b", "c"] {
        shop.publish(name, 1).await;
    }
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = shop.get(&format!("/models/fraud/versions?limit=3{after}")).await;
        seen.extend(
            page["versions"].as_array().unwrap().iter().map(|v| v["number"].as_u64().unwrap()),
        );
        let Some(next) = page["next"].as_u64() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(seen, [7, 6, 5, 4, 3, 2, 1]);
    let first = shop.get("/models?limit=2").await;
    assert_eq!((&first["models"][1]["name"], &first["next"]), (&json!("b"), &json!("b")));
    let rest = shop.get("/models?limit=2&after=b").await;
    assert_eq!((&rest["models"][1]["name"], &rest["next"]), (&json!("fraud"), &Value::Null));
    let history = shop.get("/models/fraud/history?limit=5").await;
    let next = history["next"].as_u64().unwrap();
    let rest = shop.get(&format!("/models/fraud/history?limit=5&after={next}")).await;
    assert_eq!(rest["history"].as_array().unwrap().len(), 2);
    assert_eq!(rest["next"], Value::Null);
    // Exactly as many as asked for are all.
    assert_eq!(shop.get("/models/fraud/versions?limit=7").await["next"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_lives_by_request() {
    let shop = Shop::start().await;
    shop.publish("fraud", 3).await;
    let shares = json!({ "shares": [{ "version": 1, "share": 9 }, { "version": 2, "share": 1 }] });
    assert_eq!(shop.send("PUT", "/models/fraud/traffic", shares.clone()).await.status, 200);
    assert_eq!(shop.get("/models/fraud/traffic").await["shares"][0]["share"], 9);
    // What is in use stays.
    let refused = shop.send("POST", "/models/fraud/versions/1/delete", json!({})).await;
    assert_eq!(refused.status, 409);
    assert!(refused.error().contains("in use"), "{}", refused.error());
    // Somebody who saw another split.
    let late = json!({ "shares": [], "expect": [] });
    assert_eq!(shop.send("PUT", "/models/fraud/traffic", late).await.status, 409);
    let stage = async || shop.get("/models/fraud/versions/3").await["stage"].clone();
    for (verb, expected) in [("archive", "archived"), ("restore", "active"), ("delete", "deleted")]
    {
        let path = format!("/models/fraud/versions/3/{verb}");
        let why = json!({ "reason": "tidying" });
        assert_eq!(shop.send("POST", &path, why).await.status, 200, "{verb}");
        assert_eq!(stage().await, expected);
    }
    let collected = shop.send("POST", "/collect", json!({ "grace_seconds": 0 })).await;
    assert_eq!(collected.json()["versions"], 1, "{}", collected.text());
    assert_eq!(stage().await, "purged");
    let gone = shop.server.get("/v2/registry/models/fraud/versions/3/files/model.onnx").await;
    assert_eq!(gone.status, 404, "{}", gone.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_move_an_alias_one_is_told() {
    let shop = Shop::start().await;
    shop.publish("fraud", 9).await;
    let moves = (1..=8).map(|version| {
        shop.send(
            "PUT",
            "/models/fraud/aliases/champion",
            json!({ "version": version, "expect": 0 }),
        )
    });
    let mut statuses = Vec::new();
    for answer in futures_util::future::join_all(moves).await {
        statuses.push(answer.status);
    }
    statuses.sort();
    assert_eq!(statuses, [200, 409, 409, 409, 409, 409, 409, 409]);
    let path = "/v2/registry/models/fraud/aliases/champion";
    let now = shop.get("/models/fraud/aliases/champion").await["number"].as_u64().unwrap();
    let other = now % 8 + 1;
    let wrong = shop.server.send("DELETE", &format!("{path}?expect={other}"), &[], b"").await;
    assert_eq!(wrong.status, 409);
    let right =
        shop.server.send("DELETE", &format!("{path}?expect={now}&reason=x"), &[], b"").await;
    assert_eq!(right.status, 200, "{}", right.text());
    assert_eq!(right.json()["reason"], "x");
    assert_eq!(shop.server.send("DELETE", path, &[], b"").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_come_with_their_digest_and_damage_breaks_them_off() {
    let shop = Shop::start().await;
    shop.publish("fraud", 1).await;
    let path = "/v2/registry/models/fraud/versions/1/files/model.onnx";
    let answer = shop.server.get(path).await;
    assert_eq!(answer.body, b"bytes 0 of fraud");
    let digest = STANDARD.encode(Sha256::digest(&answer.body));
    assert_eq!(answer.header("repr-digest"), Some(&*format!("sha-256=:{digest}:")));
    let head = shop.server.send("HEAD", path, &[], b"").await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("16")));
    let missing = shop.server.get("/v2/registry/models/fraud/versions/1/files/other").await;
    assert_eq!(missing.status, 404);
    assert!(missing.error().contains("it has model.onnx"), "{}", missing.error());

    let blob = |size: u64| {
        let shelves = std::fs::read_dir(shop.folder.path().join("registry/blobs")).unwrap();
        let blobs = shelves.flat_map(|shelf| std::fs::read_dir(shelf.unwrap().path()).unwrap());
        let mut paths = blobs.map(|blob| blob.unwrap().path());
        paths.find(|path| path.metadata().unwrap().len() == size).unwrap()
    };
    std::fs::write(blob(16), b"BYTES 0 of fraud").unwrap();
    let damaged = shop.server.get(path).await;
    assert_eq!(damaged.status, 500);
    assert!(damaged.error().contains("have the digest"), "{}", damaged.error());

    // Of what is longer the head is gone already: nobody gets to its end.
    let long: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
    shop.publish_bytes("long", long.clone().into()).await;
    let path = "/v2/registry/models/long/versions/1/files/model.onnx";
    assert!(shop.server.get(path).await.body == long);
    let mut damage = long.clone();
    damage[1_000_000] ^= 1;
    std::fs::write(blob(3_000_000), damage).unwrap();
    let damaged = shop.server.get(path).await;
    assert_eq!(damaged.status, 200);
    assert!(damaged.body.len() < long.len(), "nobody gets to the end of damaged bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_with_what_was_expected() {
    let shop = Shop::start().await;
    shop.publish("fraud", 1).await;
    let alias = "/models/fraud/aliases/champion";
    let long = format!("/models/{}", "x".repeat(300));
    for (method, path, body, status, says) in [
        ("PUT", alias, json!({ "version": 9 }), 404, "no version 9"),
        ("PUT", alias, json!({ "version": "1" }), 400, "invalid type"),
        ("PUT", alias, json!({ "version": -1 }), 400, "invalid value"),
        ("PUT", alias, json!({ "version": 1, "excpect": 2 }), 400, "unknown field"),
        ("PUT", alias, json!([1]), 400, "invalid"),
        ("PUT", alias, json!({ "version": 1, "expect": 3 }), 409, "somebody else has moved it"),
        ("PUT", "/models/fraud/aliases/7", json!({ "version": 1 }), 400, "is a number"),
        ("PUT", "/models/fraud/aliases/a%20b", json!({ "version": 1 }), 400, "characters other"),
        ("PUT", "/models/no/aliases/champion", json!({ "version": 1 }), 404, "no model \"no\""),
        ("PUT", "/models/%2e%2e/aliases/champion", json!({ "version": 1 }), 400, "dot"),
        (
            "PUT",
            "/models/fraud/traffic",
            json!({ "shares": [{ "version": 1, "share": 0 }] }),
            400,
            "above 0",
        ),
        (
            "PUT",
            "/models/fraud/traffic",
            json!({ "shares": [{ "version": 1, "share": -1 }] }),
            400,
            "u32",
        ),
        ("POST", "/models/fraud/versions/x/delete", json!({}), 400, "expected a number"),
        ("POST", "/models/fraud/versions/0/delete", json!({}), 400, "expected a number"),
        ("POST", "/models/fraud/versions/2/delete", json!({}), 404, "no version 2"),
        ("POST", "/models/fraud/versions/1/restore", json!({}), 409, "is active"),
        ("POST", "/models", json!({}), 405, "not possible"),
        ("GET", &long, json!(null), 404, "no model"),
        ("GET", "/models/fraud/versions?limit=0", json!(null), 400, "expected 1 to"),
        ("GET", "/models/fraud/versions?limit=many", json!(null), 400, "limit"),
        ("GET", "/models/fraud/versions?before=3", json!(null), 400, "unknown field"),
        ("GET", "/models/fraud/versions/18446744073709551615", json!(null), 400, "too large"),
        ("GET", "/models/fraud/at?time=yesterday", json!(null), 400, "expected a time"),
        ("GET", "/models/fraud/at", json!(null), 400, "time"),
        ("GET", "/models/fraud/diff?from=1&to=nobody", json!(null), 404, "no alias \"nobody\""),
        (
            "GET",
            "/models/fraud/versions/1/files/..%2f..%2fregistry.db",
            json!(null),
            404,
            "no file",
        ),
        ("GET", "/models/%ff", json!(null), 400, "UTF-8"),
        ("GET", "/nothing", json!(null), 404, "nothing of the registry"),
    ] {
        let answer = shop.send(method, path, body).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        assert!(answer.error().contains(says), "{method} {path}: {}", answer.error());
    }
    let path = format!("/v2/registry{alias}");
    let cut = shop.server.send("PUT", &path, &[JSON], b"{\"version\": 1").await;
    assert_eq!((cut.status, cut.error().contains("EOF")), (400, true), "{}", cut.error());
    let huge = format!("{{\"version\": 1, \"reason\": \"{}\"}}", "x".repeat(2 << 20));
    assert_eq!(shop.server.send("PUT", &path, &[JSON], huge.as_bytes()).await.status, 413);
    let packed = [JSON, ("content-encoding", "gzip")];
    assert_eq!(shop.server.send("PUT", &path, &packed, b"{}").await.status, 415);
    let nameless = [JSON, ("modelyard-by", " ")];
    assert_eq!(shop.server.send("PUT", &path, &nameless, b"{}").await.status, 400);
    assert_eq!(shop.registry.history("fraud").await.unwrap().len(), 1, "nothing has changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_others_change_nothing() {
    let shop = Shop::start().await;
    shop.publish("fraud", 1).await;
    let path = "/v2/registry/models/fraud/versions/1/archive";
    // What a page can send without asking: no type, or one of three.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        let answer = shop.server.send("POST", path, &[("content-type", kind)], b"{}").await;
        assert_eq!(answer.status, 415, "{kind}");
    }
    assert_eq!(shop.server.send("POST", path, &[], b"{}").await.status, 415);
    let origin = [JSON, ("origin", "https://example.org")];
    assert_eq!(shop.server.send("POST", path, &origin, b"{}").await.status, 403);
    let alias = "/v2/registry/models/fraud/aliases/champion";
    assert_eq!(shop.server.send("DELETE", alias, &origin, b"").await.status, 403);
    let own = [JSON, ("origin", "http://localhost")];
    assert_eq!(shop.server.send("POST", path, &own, b"{}").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_others_can_reach_shows_but_does_not_change() {
    let shop = Shop::start_with(false).await;
    shop.publish("fraud", 1).await;
    assert_eq!(shop.get("/models").await["models"][0]["name"], "fraud");
    for (method, path) in [
        ("PUT", "/models/fraud/aliases/champion"),
        ("DELETE", "/models/fraud/aliases/champion"),
        ("PUT", "/models/fraud/traffic"),
        ("POST", "/models/fraud/versions/1/archive"),
        ("POST", "/models/fraud/versions/1/restore"),
        ("POST", "/models/fraud/versions/1/delete"),
        ("POST", "/collect"),
        ("GET", "/check"),
        ("GET", "/models/fraud/versions/1/files/model.onnx"),
        ("GET", "/models/fraud/versions/1/export?format=flat"),
    ] {
        let answer = shop.send(method, path, json!({})).await;
        assert_eq!(answer.status, 403, "{method} {path}");
        assert!(answer.error().contains("--model-control"), "{}", answer.error());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_registry_the_paths_say_so() {
    let server = crate::support::start().await;
    let answer = server.get("/v2/registry/models").await;
    assert_eq!(answer.status, 404);
    assert!(answer.error().contains("--registry"), "{}", answer.error());

    let access = access(OnceLock::new(), true, 1 << 20);
    let server = start_registry(access, ApiOptions::default()).await;
    let answer = server.get("/v2/registry/models").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_callers_are_told_to_come_back() {
    let Some(postgres) = testkit::services::Postgres::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let location = Location::parse(folder.path().to_str().unwrap(), Default::default()).unwrap();
    let database = postgres.database("away");
    let registry = Registry::open(&location, Some(&database), Clock::system()).await.unwrap();
    let access = access(OnceLock::from(Arc::new(registry)), true, 1 << 20);
    let server = start_registry(access, ApiOptions::default()).await;
    assert_eq!(server.get("/v2/registry/models").await.status, 200);
    drop(postgres);
    let body = br#"{"version": 1}"#;
    let alias = "/v2/registry/models/fraud/aliases/champion";
    // All at once: each waits a while for the database to come back.
    let (away, change, page, mlflow) = tokio::join!(
        server.get("/v2/registry/models"),
        server.send("PUT", alias, &[JSON], body),
        server.get("/registry"),
        server.get("/api/2.0/mlflow/registered-models/search"),
    );
    assert_eq!((away.status, away.header("retry-after")), (503, Some("1")));
    assert!(!away.error().contains("postgres://"), "{}", away.error());
    assert_eq!((change.status, page.status), (503, 503), "{}", change.text());
    assert_eq!((mlflow.status, mlflow.header("retry-after")), (503, Some("1")));
    assert_eq!(mlflow.json()["error_code"], "TEMPORARILY_UNAVAILABLE");
}

#[tokio::test(flavor = "multi_thread")]
async fn models_have_names_in_any_script() {
    let shop = Shop::start().await;
    shop.publish("größe", 1).await;
    let model = shop.get("/models/gr%C3%B6%C3%9Fe").await;
    assert_eq!(model["name"], "größe");
    let names: BTreeSet<_> = shop.get("/models").await["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["größe".to_owned()].into());
}

impl Shop {
    /// Sends bytes.
    async fn put(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let headers = [&[("content-type", "application/octet-stream")], headers].concat();
        self.server.send(method, &format!("/v2/registry{path}"), &headers, body).await
    }

    async fn upload(&self, path: &str, body: &[u8]) {
        let answer = self.put("PUT", &format!("/uploads/{path}"), &[], body).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        assert_eq!(answer.json()["digest"], hex(body));
    }

    /// How many versions a model has.
    async fn count(&self, model: &str) -> usize {
        self.registry.versions(model).await.map_or(0, |versions| versions.len())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_the_body_becomes_a_version() {
    let shop = Shop::start().await;
    let path = "/models/fraud/versions?alias=champion&meta.auc=0.93&commit=abc&reason=weekly";
    let by = [("modelyard-by", "bo")];
    let first = shop.put("POST", path, &by, b"weights").await;
    assert_eq!(first.status, 201, "{}", first.text());
    assert_eq!(first.header("location"), Some("/v2/registry/models/fraud/versions/1"));
    let version = shop.get("/models/fraud/aliases/champion").await;
    assert_eq!(version, first.json());
    let note = json!({ "value": "looks right", "reason": "review" });
    assert_eq!(
        shop.send("PUT", "/models/fraud/versions/1/notes/review", note.clone()).await.status,
        200
    );
    assert_eq!(shop.send("PUT", "/models/fraud/notes/owner", note).await.status, 200);
    assert_eq!(shop.get("/models/fraud/versions/1").await["notes"]["review"], "looks right");
    let gone = shop.send("PUT", "/models/fraud/notes/owner", json!({ "value": null })).await;
    assert_eq!(gone.status, 200, "{}", gone.text());
    assert_eq!(shop.get("/models/fraud").await["notes"], json!({}));
    assert_eq!((&version["who"], &version["metadata"]["auc"]), (&json!("bo"), &json!("0.93")));
    assert_eq!(
        (&version["lineage"]["commit"], &version["main"]),
        (&json!("abc"), &json!("model.onnx"))
    );
    let history = shop.get("/models/fraud/history").await;
    assert_eq!(history["history"][0]["reason"], "weekly");

    let digest = STANDARD.encode(Sha256::digest(b"other"));
    let right = format!("sha-256=:{digest}:");
    for header in ["repr-digest", "content-digest"] {
        let path = "/models/fraud/versions";
        let sent = shop.put("POST", path, &[(header, &right)], b"other").await;
        assert_eq!(sent.status, 201, "{}", sent.text());
        let wrong = shop.put("POST", path, &[(header, &right)], b"otter").await;
        assert_eq!(wrong.status, 400);
        assert!(wrong.error().contains("digest of what arrived"), "{}", wrong.error());
        let odd = shop.put("POST", path, &[(header, "md5=:AAAA:")], b"other").await;
        assert!(odd.error().contains("expected sha-256"), "{}", odd.error());
    }
    let asked = format!("/models/fraud/versions?digest={}", hex(b"x"));
    assert_eq!(shop.put("POST", &asked, &[], b"y").await.status, 400);
    assert_eq!(shop.put("POST", &asked, &[], b"x").await.status, 201);
    assert_eq!(shop.count("fraud").await, 4);
    assert_eq!(shop.get("/check?bytes=true").await["consistent"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_files_are_uploaded_and_then_published() {
    let shop = Shop::start().await;
    shop.upload("mine/model.onnx", b"weights").await;
    shop.upload("mine/extra/words.txt", b"a b c").await;
    let files = shop.get("/uploads/mine").await;
    assert_eq!(files["files"][0], json!({ "file": "extra/words.txt", "size": 5 }));
    let about = json!({ "upload": "mine", "card": "# Fraud", "alias": "candidate",
        "lineage": { "data": "sha256:12" }, "metadata": { "team": "risk" }, "reason": "weekly" });
    let published = shop.send("POST", "/models/fraud/versions", about.clone()).await;
    assert_eq!(published.status, 201, "{}", published.text());
    let names: Vec<String> = published.json()["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| {
            format!("{} {}", file["name"].as_str().unwrap(), file["kind"].as_str().unwrap())
        })
        .collect();
    assert_eq!(names, ["card.md attachment", "extra/words.txt attachment", "model.onnx model"]);
    let words = shop.server.get("/v2/registry/models/fraud/versions/1/files/extra/words.txt").await;
    assert_eq!(words.body, b"a b c");
    // What has been published is no longer waiting.
    assert_eq!(shop.send("POST", "/models/fraud/versions", about).await.status, 404);

    shop.upload("sub/data/model.onnx", b"deep").await;
    let about = json!({ "upload": "sub", "main": "data/model.onnx" });
    let published = shop.send("POST", "/models/fraud/versions", about).await;
    assert_eq!(published.json()["main"], "data/model.onnx", "{}", published.text());
    shop.upload("none/readme.txt", b"x").await;
    assert_eq!(shop.server.send("DELETE", "/v2/registry/uploads/none", &[], b"").await.status, 200);
    assert_eq!(shop.server.get("/v2/registry/uploads/none").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_whole_or_no_model_becomes_no_version() {
    let shop = Shop::start().await;
    let versions = "/models/fraud/versions";
    let broken = shop.put("POST", versions, &[], b"broken").await;
    assert_eq!((broken.status, &*broken.error()), (400, "model.onnx: it is not an ONNX model"));
    for (path, says) in [
        ("/models/fraud/versions?file=..%2fx", "dot"),
        ("/models/fraud/versions?file=%2fetc%2fpasswd", "empty"),
        ("/models/fraud/versions?file=a%00b", "characters other"),
        ("/models/..%2fx/versions", "dot"),
        ("/models/fraud/versions?alias=7", "is a number"),
        ("/models/fraud/versions?parent=9", "does not exist"),
        ("/models/fraud/versions?parent=x", "expected a number"),
        ("/models/fraud/versions?size=3", "expected one of"),
        ("/models/fraud/versions?digest=12", "64 hexadecimal digits"),
    ] {
        let answer = shop.put("POST", path, &[], b"weights").await;
        assert!((400..=404).contains(&answer.status), "{path}: {}", answer.text());
        assert!(answer.error().contains(says), "{path}: {}", answer.error());
    }
    for (path, says) in [
        ("/uploads/..%2f..%2fx/model.onnx", "dot"),
        ("/uploads/mine/..%2f..%2fx", "dot"),
        ("/uploads/mine/a%2f%2fb", "empty"),
        ("/uploads/mine/.hidden", "dot"),
        ("/uploads/.scratch/x", "dot"),
    ] {
        let answer = shop.put("PUT", path, &[], b"x").await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        assert!(answer.error().contains(says), "{path}: {}", answer.error());
    }
    shop.upload("mine/model.onnx", b"weights").await;
    let inside = shop.put("PUT", "/uploads/mine/model.onnx/inside", &[], b"x").await;
    assert_eq!(inside.status, 400, "{}", inside.text());
    shop.upload("mine/model.pkl", b"code").await;
    let pickle = shop.send("POST", versions, json!({ "upload": "mine" })).await;
    assert_eq!(pickle.status, 501);
    assert!(pickle.error().contains("model.pkl"), "{}", pickle.error());
    let huge = vec![0; 2 << 20];
    let large = shop.put("POST", versions, &[], &huge).await;
    assert_eq!(large.status, 413, "{}", large.text());

    // A sender that goes away in the middle.
    let mut stream = shop.server.connect().await;
    let head = b"POST /v2/registry/models/fraud/versions HTTP/1.1\r\nhost: localhost\r\n\
        content-type: application/octet-stream\r\ncontent-length: 1000\r\n\r\nhalf of it";
    stream.write_all(head).await.unwrap();
    stream.shutdown().await.unwrap();
    let answer = crate::support::read_answer(&mut stream, false).await;
    assert!(answer.is_none_or(|answer| answer.status == 400));
    // And one that ends a chunked body without its last chunk.
    let mut stream = shop.server.connect().await;
    let head = b"POST /v2/registry/models/fraud/versions HTTP/1.1\r\nhost: localhost\r\n\
        content-type: application/octet-stream\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    stream.write_all(head).await.unwrap();
    stream.shutdown().await.unwrap();
    let answer = crate::support::read_answer(&mut stream, false).await;
    assert!(answer.is_none_or(|answer| answer.status == 400));
    assert_eq!(shop.count("fraud").await, 0);
    assert!(shop.registry.models().await.unwrap().is_empty());
    // What was held for all that is free again.
    let most = vec![1; (1 << 20) - 100];
    assert_eq!(shop.put("POST", versions, &[], &most).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_exported_as_a_tar() {
    let shop = Shop::start().await;
    let bytes: Vec<u8> = (0..300_001u32).map(|n| (n % 251) as u8).collect();
    shop.publish_bytes("fraud", bytes.clone().into()).await;
    shop.publish_bytes("fraud", vec![7; 1024].into()).await;
    for (version, expected) in [(1, bytes), (2, vec![7; 1024])] {
        let path = format!("/v2/registry/models/fraud/versions/{version}/export?format=flat");
        let answer = shop.server.get(&path).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("application/x-tar"))
        );
        let length: usize = answer.header("content-length").unwrap().parse().unwrap();
        assert_eq!(length, answer.body.len());
        let mut archive = tar::Archive::new(&answer.body[..]);
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
            found.push((entry.path().unwrap().to_str().unwrap().to_owned(), bytes));
        }
        let long = format!("{}/model.onnx", "d".repeat(120));
        assert_eq!(found, [(long, expected), ("about.txt".to_owned(), b"hello".to_vec())]);
    }
    for (query, status, part) in [
        ("1/export?format=zip", 400, "expected flat"),
        ("1/export", 400, "format"),
        ("9/export?format=flat", 404, "no version 9"),
    ] {
        let answer = shop.server.get(&format!("/v2/registry/models/fraud/versions/{query}")).await;
        assert_eq!(answer.status, status, "{query}");
        assert!(answer.text().contains(part), "{}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_exported_to_nobody() {
    let shop = Shop::start().await;
    shop.publish_bytes("fraud", vec![7; 100_000].into()).await;
    let folder = shop.folder.path().join("registry/blobs");
    let mut blobs = Vec::new();
    files_below(&folder, &mut blobs);
    let [blob] = &blobs[..] else { panic!("{blobs:?}") };
    let mut bytes = std::fs::read(blob).unwrap();
    bytes[50_000] = 8;
    std::fs::write(blob, bytes).unwrap();
    let path = "/v2/registry/models/fraud/versions/1/export?format=flat";
    let damaged = shop.server.get(path).await;
    let length: usize = damaged.header("content-length").unwrap().parse().unwrap();
    assert!(damaged.body.len() < length, "nobody gets to the end of damaged bytes");
}

fn files_below(folder: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => files_below(&entry.path(), found),
            false => found.push(entry.path()),
        }
    }
}
