use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::free_port;

/// A PostgreSQL server with its own data, on its own port.
pub struct Postgres {
    programs: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
}

impl Postgres {
    /// Makes a cluster and starts it.
    pub fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            println!("SKIPPED: PostgreSQL is not installed; ./test installs it");
            return None;
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        // PostgreSQL refuses to run as root, so the folder is also another's.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777))
            .expect("it is our folder");
        let server = Self { programs, folder, port: free_port() };
        server.run("initdb", &["--auth=trust", "--username=postgres", "--no-sync", "-E", "UTF8"]);
        server.resume();
        Some(server)
    }

    /// Makes an empty database, and returns its URL.
    pub fn database(&self, name: &str) -> String {
        let port = self.port.to_string();
        let made = self
            .command("createdb")
            .args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", name])
            .output();
        let made = made.expect("it is installed");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        format!("postgres://postgres@127.0.0.1:{port}/{name}")
    }

    /// Stops the server, whatever it is doing.
    pub fn stop(&self) {
        self.run("pg_ctl", &["stop", "-m", "immediate", "-w"]);
    }

    /// Starts it again, on the same port with the same data.
    pub fn resume(&self) {
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off",
            self.port
        );
        let log = self.folder.path().join("log");
        self.run("pg_ctl", &["start", "-w", "-l", log.to_str().expect("UTF-8"), "-o", &options]);
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        // Its output is not ours to wait for: a server that was started keeps it open.
        let status = self
            .command(program)
            .arg("-D")
            .arg(self.folder.path().join("data"))
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status();
        let status = status.unwrap_or_else(|e| panic!("{program}: {e}"));
        assert!(status.success(), "{program} {arguments:?}: {status}");
    }

    fn command(&self, program: &str) -> Command {
        let path = self.programs.join(program);
        // The working folder may be one that nobody may look into.
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        command.current_dir("/");
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let data = self.folder.path().join("data");
        // It may be stopped already. pg_ctl ends the server by the process id in its own folder.
        let _ =
            self.command("pg_ctl").args(["stop", "-m", "immediate", "-w", "-D"]).arg(data).output();
    }
}

/// The folder of the server's programs: Debian keeps them out of the path.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let mut debian: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|found| found.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    debian.sort();
    folders.extend(debian);
    let needed = ["initdb", "pg_ctl", "createdb"];
    let whole = |folder: &PathBuf| needed.iter().all(|program| folder.join(program).exists());
    folders.into_iter().rev().find(whole)
}

fn is_root() -> bool {
    let own = Path::new("/proc/self");
    std::fs::metadata(own).is_ok_and(|data| std::os::unix::fs::MetadataExt::uid(&data) == 0)
}
