use std::path::Path;
use std::process::Command;

use super::{Process, free_port};
use crate::python;

/// The account and the key that are built into Azurite, and printed in its manual.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Makes a container: needs a signed request, which Python has all for.
const MAKE_CONTAINER: &str = r#"
import base64, datetime, hashlib, hmac, sys, urllib.request
port, account, key = sys.argv[1:]
date = datetime.datetime.now(datetime.timezone.utc).strftime("%a, %d %b %Y %H:%M:%S GMT")
headers = f"x-ms-date:{date}\nx-ms-version:2021-08-06\n"
text = f"PUT\n\n\n\n\n\n\n\n\n\n\n\n{headers}/{account}/{account}/models\nrestype:container"
signature = base64.b64encode(hmac.digest(base64.b64decode(key), text.encode(), "sha256")).decode()
request = urllib.request.Request(
    f"http://127.0.0.1:{port}/{account}/models?restype=container", method="PUT",
    headers={"x-ms-date": date, "x-ms-version": "2021-08-06",
             "Authorization": f"SharedKey {account}:{signature}"})
print(urllib.request.urlopen(request).status)
"#;

/// Azure Blob Storage, as Azurite has it.
pub struct Azure {
    _process: Process,
    _folder: tempfile::TempDir,
    port: u16,
}

impl Azure {
    /// Starts it with the container `models`.
    pub fn start() -> Option<Self> {
        let python = python::interpreter()?;
        let modules =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/services/node_modules");
        let program = modules.join("azurite/dist/src/blob/main.js");
        if !program.exists() {
            println!("SKIPPED: Azurite is not installed; ./test installs it");
            return None;
        }
        let port = free_port();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new("node");
        command.arg(program).args(["--skipApiVersionCheck", "--silent", "--disableTelemetry"]);
        command.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string(), "--location"]);
        let process = Process::start(command.arg(folder.path()), port);
        let made = Command::new(python)
            .args(["-c", MAKE_CONTAINER, &port.to_string(), ACCOUNT, KEY])
            .output()
            .expect("Python runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Some(Self { _process: process, _folder: folder, port })
    }

    /// What the environment would say to Azure's tools.
    pub fn settings(&self) -> Vec<(String, String)> {
        [
            ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT),
            ("AZURE_STORAGE_ACCOUNT_KEY", KEY),
            ("AZURE_ALLOW_HTTP", "true"),
            ("AZURE_STORAGE_ENDPOINT", &format!("http://127.0.0.1:{}/{ACCOUNT}", self.port)),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }
}
