//! A server that follows a registry which goes away and comes back.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use testkit::services::Postgres;

use crate::binary::modelyard_with;

/// A folder with a model, a registry and a cache.
struct Yard {
    folder: tempfile::TempDir,
    database: Option<String>,
}

impl Yard {
    fn new(database: Option<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for columns in 2..5 {
            let path = folder.path().join(format!("{columns}.onnx"));
            std::fs::write(path, testkit::onnx::models::double(columns)).unwrap();
        }
        Self { folder, database }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        let path = |name| self.path(name).to_str().unwrap().to_owned();
        let mut variables =
            vec![("MODELYARD_REGISTRY", path("registry")), ("MODELYARD_CACHE", path("cache"))];
        variables.extend(self.database.clone().map(|url| ("MODELYARD_DATABASE", url)));
        variables
    }

    fn run(&self, arguments: &[&str]) {
        let variables = self.variables();
        let variables: Vec<_> = variables.iter().map(|(n, v)| (*n, v.as_str())).collect();
        modelyard_with(arguments, &variables, b"").ok();
    }

    /// Publishes the model of so many columns, which becomes the champion.
    fn push(&self, columns: u32) {
        let file = self.path(&format!("{columns}.onnx"));
        let file = file.to_str().unwrap();
        self.run(&["push", file, "--name", "double", "--alias", "champion"]);
    }

    fn serve(&self) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_modelyard"));
        let quiet = ["serve", "--port", "0", "--engine", "native", "--log", "info"];
        if self.path("temporary").is_dir() {
            command.env("TMPDIR", self.path("temporary"));
        }
        // What is assigned no longer is to go at once.
        command.env("MODELYARD_KEEP_WARM", "1us");
        command.args(quiet).envs(self.variables());
        let process = command.stdin(Stdio::null()).stderr(Stdio::piped()).stdout(Stdio::piped());
        let mut process = process.spawn().unwrap();
        let (sender, lines) = std::sync::mpsc::channel();
        for output in [
            Box::new(process.stderr.take().unwrap()) as Box<dyn Read + Send>,
            Box::new(process.stdout.take().unwrap()),
        ] {
            let sender = sender.clone();
            // Ends with the process.
            std::thread::spawn(move || {
                BufReader::new(output)
                    .lines()
                    .map_while(Result::ok)
                    .try_for_each(|l| sender.send(l))
            });
        }
        let mut server = Server { process, address: String::new(), lines, log: String::new() };
        let line = server.wait_for("http://127.0.0.1:");
        let address = line.split("http://").nth(1).unwrap();
        let end = address.find(|c: char| c != ':' && c != '.' && !c.is_ascii_digit());
        server.address = address[..end.unwrap_or(address.len())].to_owned();
        server
    }

    /// What of the version is in the cache: the paths of `version.json`.
    fn cached(&self) -> Vec<String> {
        let mut found = Vec::new();
        find(&self.path("cache"), &mut found);
        found.sort();
        found
    }
}

/// The numbers of the versions that a cache has.
fn find(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.file_name() == "version.json" {
            found.push(folder.file_name().unwrap().to_str().unwrap().to_owned());
        } else if entry.file_type().unwrap().is_dir() {
            find(&entry.path(), found);
        }
    }
}

struct Server {
    process: Child,
    address: String,
    lines: std::sync::mpsc::Receiver<String>,
    log: String,
}

impl Server {
    /// The line of the log that has this part, once it is there.
    #[track_caller]
    fn wait_for(&mut self, part: &str) -> String {
        if let Some(line) = self.log.lines().find(|line| line.contains(part)) {
            return line.to_owned();
        }
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("no \"{part}\" in the log:\n{}", self.log));
            self.log.push_str(&line);
            self.log.push('\n');
            if line.contains(part) {
                return line;
            }
        }
    }

    /// The state of a version and why it is so; nothing if the server does not know it.
    fn state(&self, version: u32) -> Option<(String, String)> {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = "POST /v2/repository/index HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\
                    Connection: close\r\n\r\n{}";
        stream.write_all(head.as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let body = reply.split_once("\r\n\r\n").unwrap().1;
        let index: serde_json::Value = serde_json::from_str(body).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let models = index.as_array().unwrap().iter();
        let version = version.to_string();
        let mut of_version = models.filter(|model| model["version"] == *version);
        of_version.next().map(|model| (text(&model["state"]), text(&model["reason"])))
    }

    /// The status and the body of an answer.
    fn ask(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nContent-Type: {kind}\r\n\
             Connection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).unwrap();
        let end = reply.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let status = std::str::from_utf8(&reply[9..12]).unwrap().parse().unwrap();
        (status, reply[end + 4..].to_vec())
    }

    /// The same of a body in JSON, as text.
    fn post(&self, path: &str, body: &str) -> (u16, String) {
        let (status, body) = self.ask("POST", path, "application/json", body.as_bytes());
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    #[track_caller]
    fn wait_until(&mut self, what: impl Fn(&Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !what(self) {
            self.log.extend(self.lines.try_iter().map(|line| line + "\n"));
            assert!(Instant::now() < end, "it did not come to it:\n{}", self.log);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    fn wait_until_ready(&mut self, version: u32) {
        self.wait_until(|server| server.state(version).is_some_and(|(state, _)| state == "READY"));
    }
}

impl Drop for Server {
    /// Kills it, as a bad day would.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_server_starts_from_its_cache_while_the_files_are_away() {
    let yard = Yard::new(None);
    yard.push(2);
    yard.serve().wait_until_ready(1);
    std::fs::rename(yard.path("registry"), yard.path("away")).unwrap();
    let mut server = yard.serve();
    server.wait_for("the registry is away");
    server.wait_until_ready(1);
    assert!(!yard.path("registry").exists(), "nothing is made in its place");
    std::fs::rename(yard.path("away"), yard.path("registry")).unwrap();
    server.wait_for("the registry is back");
    yard.push(3);
    server.wait_until_ready(2);
    // What is assigned no longer goes.
    server.wait_until(|_| yard.cached() == ["2"]);
}

#[test]
fn a_server_starts_from_its_cache_while_postgres_is_away() {
    let Some(postgres) = Postgres::start() else { return };
    let yard = Yard::new(Some(postgres.database("follow")));
    yard.push(2);
    let mut server = yard.serve();
    server.wait_until_ready(1);
    postgres.stop();
    server.wait_for("what was last known stays");
    drop(server);
    let mut server = yard.serve();
    server.wait_for("the registry is away");
    server.wait_until_ready(1);
    postgres.resume();
    server.wait_for("the registry is back");
    yard.push(3);
    server.wait_until_ready(2);
    // And away again, while it runs: what is known now is what the next one starts with.
    postgres.stop();
    drop(server);
    yard.serve().wait_until_ready(2);
}

#[test]
fn a_damaged_cache_is_never_served() {
    let yard = Yard::new(None);
    yard.push(2);
    yard.serve().wait_until_ready(1);
    let mut files = Vec::new();
    named(&yard.path("cache"), "2.onnx", &mut files);
    let [file] = &files[..] else { panic!("{files:?}") };
    let whole = std::fs::read(file).unwrap();
    std::fs::write(file, &whole[..whole.len() - 1]).unwrap();
    std::fs::rename(yard.path("registry"), yard.path("away")).unwrap();
    let mut server = yard.serve();
    server.wait_for("the cached double:1 is not used");
    server.wait_until(|server| {
        let state = server.state(1);
        state.is_some_and(|(state, why)| state == "UNAVAILABLE" && why.contains("not in the cache"))
    });
    // Once the registry is back it is fetched, although the assignments are what they were.
    std::fs::rename(yard.path("away"), yard.path("registry")).unwrap();
    server.wait_until_ready(1);
    assert_eq!(std::fs::read(file).unwrap(), whole);
}

fn named(folder: &Path, name: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.file_name() == name {
            found.push(entry.path());
        } else if entry.file_type().unwrap().is_dir() {
            named(&entry.path(), name, found);
        }
    }
}

#[test]
fn a_fetch_that_fails_is_tried_again() {
    let yard = Yard::new(None);
    yard.push(2);
    let (blobs, away) = (yard.path("registry/blobs"), yard.path("blobs"));
    std::fs::rename(&blobs, &away).unwrap();
    let mut server = yard.serve();
    server.wait_until(|server| {
        let state = server.state(1);
        state.is_some_and(|(state, why)| state == "UNAVAILABLE" && why.contains("object store"))
    });
    std::fs::rename(&away, &blobs).unwrap();
    server.wait_until_ready(1);
}

#[test]
fn servers_that_are_killed_leave_a_cache_for_others() {
    let yard = Yard::new(None);
    yard.push(2);
    let mut random = fastrand::Rng::with_seed(7);
    for columns in [3, 4, 2, 3, 4, 2] {
        yard.push(columns);
        // Two share the cache; each is killed at some moment of its start.
        let _servers = [yard.serve(), yard.serve()];
        std::thread::sleep(Duration::from_millis(random.u64(..60)));
    }
    yard.serve().wait_until_ready(7);
    std::fs::rename(yard.path("registry"), yard.path("away")).unwrap();
    let mut server = yard.serve();
    server.wait_until_ready(7);
    assert_eq!(yard.cached(), ["7"]);
}

#[test]
fn without_a_cache_a_registry_that_is_away_is_an_error() {
    let yard = Yard::new(Some("postgres://postgres@127.0.0.1:1/nothing".into()));
    let variables = yard.variables();
    let variables: Vec<_> = variables.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let run = modelyard_with(&["serve", "--port", "0"], &variables, b"");
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.contains("the database"), "{run:?}");
}

/// A recorded request to the model of so many columns.
fn recorded(columns: usize) -> String {
    let data = vec!["1"; columns].join(", ");
    let input = format!(
        r#"{{"name": "x", "datatype": "FP32", "shape": [1, {columns}], "data": [{data}]}}"#
    );
    format!(r#"{{"request": {{"inputs": [{input}]}}, "response": {{"outputs": []}}}}"#)
}

#[test]
fn a_version_is_warmed_with_the_requests_that_were_pushed_with_it() {
    let yard = Yard::new(None);
    let (model, file) = (yard.path("2.onnx"), yard.path("recorded.jsonl"));
    let (model, file) = (model.to_str().unwrap(), file.to_str().unwrap());
    let registry = yard.variables();
    let registry: Vec<_> = registry.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let push = ["push", model, "--name", "double", "--alias", "champion", "--warm-up", file];
    std::fs::write(file, format!("{}\n{}\n", recorded(2), recorded(3))).unwrap();
    let refused = modelyard_with(&push, &registry, b"");
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("line 2: input \"x\": expected shape"), "{refused:?}");
    std::fs::write(file, format!("{}\n{}\n", recorded(2), recorded(2))).unwrap();
    modelyard_with(&push, &registry, b"").ok();
    let mut server = yard.serve();
    let line = server.wait_for("warmed with recorded requests");
    assert!(line.contains("answered") && line.contains('2'), "{line}");
    server.wait_until_ready(1);
    // Pulled, they lie where a folder's own are found.
    let to = yard.path("pulled");
    yard.run(&["pull", "double:1", "--to", to.to_str().unwrap()]);
    assert!(to.join("warmup.jsonl").is_file());
}

#[test]
fn what_a_push_knows_can_be_published_by_request() {
    let yard = Yard::new(None);
    yard.push(2);
    let mut server = yard.serve();
    server.wait_until_ready(1);
    let put = |name: &str, body: &[u8]| {
        let path = format!("/v2/registry/uploads/new/{name}");
        let (status, answer) = server.ask("PUT", &path, "application/octet-stream", body);
        assert_eq!(status, 201, "{}", String::from_utf8_lossy(&answer));
    };
    put("model.onnx", &std::fs::read(yard.path("2.onnx")).unwrap());
    put("train.csv", b"a,b\n1,2\n3,4\n");
    put("notes.txt", b"kept as it is");
    put("recorded.jsonl", recorded(3).as_bytes());
    let versions = "/v2/registry/models/double/versions";
    let body = r#"{"upload": "new", "main": "model.onnx", "data_profile": "train.csv",
                   "warm_up": "recorded.jsonl", "alias": "candidate"}"#;
    let (status, answer) = server.post(versions, body);
    assert_eq!(status, 400, "{answer}");
    assert!(answer.contains("recorded.jsonl: line 1: input"), "{answer}");
    assert!(!answer.contains("/tmp"), "{answer}");
    let (status, answer) = server.post(versions, &body.replace("train.csv", "absent.csv"));
    assert_eq!((status, answer.contains("absent.csv")), (400, true), "{answer}");
    let wrong = recorded(2).replace(
        "\"outputs\": []",
        r#""outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [2, 9]}]"#,
    );
    put("recorded.jsonl", wrong.as_bytes());
    let (status, answer) = server.post(versions, body);
    assert_eq!(status, 201, "{answer}");
    let version: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let names: Vec<_> = version["files"].as_array().unwrap().iter().map(|f| &f["name"]).collect();
    assert_eq!(names, ["model.onnx", "notes.txt", "profile.json", "warmup.jsonl"]);
    assert!(version["lineage"]["data"].as_str().unwrap().starts_with("sha256:"), "{version}");
    server.wait_for("warmed with recorded requests");
    server.wait_until_ready(2);

    // The candidate brought the requests that it is replayed with, and one that it answers otherwise.
    let rollout = "/v2/registry/models/double/rollout";
    let plan = |file: &str| format!(r#"{{"to": [2], "plan": {{"replay": {{"file": "{file}"}}}}}}"#);
    let (status, answer) = server.post(rollout, &plan("warmup.jsonl"));
    assert_eq!(status, 409, "{answer}");
    assert!(answer.contains("0 of 1 recorded requests"), "{answer}");
    let (status, answer) = server.post(rollout, &plan("notes.txt"));
    assert_eq!(status, 400, "{answer}");
    assert!(answer.contains("line 1"), "{answer}");
    let right = wrong.replace("[2, 9]", "[2, 2]");
    let path = "/v2/registry/uploads/right/recorded.jsonl";
    server.ask("PUT", path, "application/octet-stream", right.as_bytes());
    let started = plan("recorded.jsonl").replacen('{', r#"{"upload": "right", "#, 1);
    let (status, answer) = server.post(rollout, &started);
    assert_eq!(status, 200, "{answer}");

    for (format, expected) in [
        ("triton", ["double/2/model.onnx", "double/config.pbtxt"]),
        ("mlflow", ["double/MLmodel", "double/model.onnx"]),
    ] {
        let path = format!("{versions}/2/export?format={format}");
        let (status, body) = server.ask("GET", &path, "", b"");
        assert_eq!(status, 200);
        let mut archive = tar::Archive::new(&body[..]);
        let paths =
            archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned());
        let mut paths: Vec<_> = paths.map(|path| path.to_str().unwrap().to_owned()).collect();
        paths.sort();
        assert!(expected.iter().all(|name| paths.iter().any(|path| path == name)), "{paths:?}");
    }
}

#[test]
fn an_imported_configuration_is_applied_as_in_a_repository() {
    let yard = Yard::new(None);
    let folder = yard.path("triton/double");
    std::fs::create_dir_all(folder.join("1")).unwrap();
    std::fs::copy(yard.path("2.onnx"), folder.join("1/model.onnx")).unwrap();
    let config = "name: \"double\"\nmax_batch_size: 4\ninstance_group [{ count: 3 }]\n\
                  output [{ name: \"y\" data_type: TYPE_FP32 dims: [2] label_filename: \"names.txt\" }]\n";
    std::fs::write(folder.join("config.pbtxt"), config).unwrap();
    std::fs::write(folder.join("names.txt"), "cat\ndog\n").unwrap();
    let repository = yard.path("triton");
    yard.run(&["import", repository.to_str().unwrap()]);
    yard.run(&["alias", "double", "champion", "1"]);
    let mut server = yard.serve();
    server.wait_until_ready(1);
    let (status, body) = server.ask("GET", "/v2/models/double/config", "", b"");
    let config: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &config["max_batch_size"]), (200, &4.into()), "{config}");
    assert_eq!(config["instance_group"][0]["count"], 3, "{config}");
    let body = r#"{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}],
                   "outputs": [{"name": "y", "parameters": {"classification": 1}}]}"#;
    let (status, answer) = server.post("/v2/models/double/infer", body);
    assert_eq!(status, 200, "{answer}");
    assert!(answer.contains("dog"), "{answer}");
}

/// The folders in the server's folder for temporary files.
fn temporary(yard: &Yard) -> Vec<String> {
    let entries = std::fs::read_dir(yard.path("temporary")).unwrap().flatten();
    let names = entries.map(|entry| entry.file_name().to_str().unwrap().to_owned());
    let mut names: Vec<_> = names.filter(|name| !name.ends_with(".lock")).collect();
    names.sort();
    names
}

#[test]
fn what_a_killed_server_left_is_removed_by_the_next_and_nothing_else() {
    let yard = Yard::new(None);
    yard.push(2);
    std::fs::create_dir(yard.path("temporary")).unwrap();
    let upload = |server: &Server| {
        let path = "/v2/registry/uploads/half/model.onnx";
        let (status, _) = server.ask("PUT", path, "application/octet-stream", b"half of it");
        assert_eq!(status, 201);
    };
    let killed = yard.serve();
    upload(&killed);
    let left = temporary(&yard);
    let living = yard.serve();
    upload(&living);
    let both = temporary(&yard);
    assert_eq!((left.len(), both.len()), (1, 2), "{both:?}");
    // With SIGKILL.
    drop(killed);
    assert_eq!(temporary(&yard), both);
    let mut next = yard.serve();
    next.wait_for("removed what a killed process left");
    next.wait_until(|_| !temporary(&yard).contains(&left[0]));
    assert_eq!(temporary(&yard).len(), 2, "one for each that lives");
    let (status, body) = living.ask("GET", "/v2/registry/uploads/half", "", b"");
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
}
