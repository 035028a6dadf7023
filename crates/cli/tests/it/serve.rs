//! `serve`, from its flags to its answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use crate::binary::modelyard;

/// A server that ends with the test.
struct Server {
    process: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// Starts with these arguments and waits until it listens.
    fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_modelyard"))
            .args(["serve", "--port", "0", "--engine", "native"])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let address = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "the server stopped");
            if let Some((_, after)) = line.split_once("http://") {
                let end = after.find(|c: char| c != ':' && c != '.' && !c.is_ascii_digit());
                break after[..end.unwrap_or(after.len())].to_owned();
            }
        };
        // What else it logs must not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { process, address }
    }

    /// The status and the body of an answer.
    fn ask(&self, method: &str, path: &str, header: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\
             \r\n{header}\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn wait_until_ready(&self) {
        while self.ask("GET", "/v2/health/ready", "", "").0 != 200 {
            std::thread::yield_now();
        }
    }
}

/// A repository of models that double, each with these versions.
fn repository(models: &[(&str, &[&str])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, versions) in models {
        for version in *versions {
            let path = folder.path().join(name).join(version);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("model.onnx"), testkit::onnx::models::double(2)).unwrap();
        }
    }
    folder
}

const BODY: &str = r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#;

#[test]
fn more_models_than_may_be_loaded_are_all_answered() {
    let folder = repository(&[("a", &["1"]), ("b", &["1"]), ("c", &["1"])]);
    for limit in [["--max-loaded", "1"], ["--memory", "100KiB"]] {
        let server = Server::start(&[&[folder.path().to_str().unwrap()], &limit[..]].concat());
        server.wait_until_ready();
        for name in ["a", "b", "c", "a", "c", "b"] {
            let path = format!("/v2/models/{name}/infer");
            let (status, body) = server.ask("POST", &path, "", BODY);
            assert_eq!(status, 200, "{limit:?}: {body}");
        }
        let (_, index) = server.ask("POST", "/v2/repository/index", "", "");
        assert_eq!(index.matches("loaded on demand").count(), 2, "{limit:?}: {index}");
        assert_eq!(index.matches("\"READY\"").count(), 3, "{limit:?}: {index}");
    }
}

#[test]
fn a_caller_names_its_version_by_header() {
    let folder = repository(&[("a", &["1", "2"])]);
    let server = Server::start(&[folder.path().to_str().unwrap(), "--versions", "all"]);
    server.wait_until_ready();
    let ask = |header: &str| server.ask("POST", "/v2/models/a/infer", header, BODY);
    for (header, version) in [("", "2"), ("modelyard-version: 1\r\n", "1")] {
        let (status, body) = ask(header);
        assert_eq!(status, 200, "{body}");
        assert!(body.contains(&format!("\"model_version\":\"{version}\"")), "{body}");
    }
    let (status, body) = ask("modelyard-key: \r\n");
    assert_eq!(status, 400, "{body}");
}

#[test]
fn limits_that_cannot_be_meant_are_refused() {
    for (flag, value, expected) in [
        ("--memory", "plenty", "a size such as 64MiB"),
        ("--memory", "0", "a size such as 64MiB"),
        ("--max-loaded", "0", "expected at least 1"),
        ("--max-loaded", "few", "invalid value"),
    ] {
        let run = modelyard(&["serve", "m.onnx", flag, value]);
        assert_eq!(run.code, 2, "{run:?}");
        assert!(run.stderr.contains(expected), "{run:?}");
    }
}
