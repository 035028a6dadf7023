use std::path::Path;
use std::process::Command;

use super::{Process, free_port};
use crate::python;

/// Google Cloud Storage, as a stand-in of our own has it: see `google.py`.
pub struct Google {
    _process: Process,
    port: u16,
}

impl Google {
    /// Starts it; every bucket is there.
    pub fn start() -> Option<Self> {
        let port = free_port();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/services/google.py");
        let mut command = Command::new(python::interpreter()?);
        let process = Process::start(command.arg(program).arg(port.to_string()), port);
        Some(Self { _process: process, port })
    }

    /// What the environment would say to Google's tools.
    pub fn settings(&self) -> Vec<(String, String)> {
        // A service account that needs no token, at an address of its own.
        let account = format!(
            r#"{{"gcs_base_url": "http://127.0.0.1:{}", "disable_oauth": true,
                "client_email": "", "private_key": "", "private_key_id": ""}}"#,
            self.port
        );
        vec![("GOOGLE_SERVICE_ACCOUNT_KEY".to_owned(), account)]
    }
}
