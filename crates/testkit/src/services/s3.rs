use std::process::Command;

use super::{Process, free_port, request};
use crate::python;

/// Amazon S3, as moto has it; preconditions included.
pub struct S3 {
    _process: Process,
    port: u16,
}

impl S3 {
    /// Starts it with the bucket `models`.
    pub fn start() -> Option<Self> {
        let python = python::interpreter()?;
        let found = Command::new(&python).args(["-c", "import moto.server"]).output();
        if !found.is_ok_and(|output| output.status.success()) {
            println!("SKIPPED: moto is not installed; ./test installs it");
            return None;
        }
        let port = free_port();
        let mut command = Command::new(python);
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
        let process = Process::start(&mut command, port);
        assert_eq!(request(port, "PUT", "/models"), 200);
        Some(Self { _process: process, port })
    }

    /// Where it answers: `http://HOST:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What the environment would say to Amazon's tools.
    pub fn settings(&self) -> Vec<(String, String)> {
        [
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ENDPOINT_URL", &self.endpoint()),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }
}
