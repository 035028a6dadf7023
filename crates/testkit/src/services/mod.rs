//! Real services for tests, each on a free port of this machine and gone when it is dropped.
//!
//! Where one is not installed its test is skipped, loudly; `./test` installs them all.

mod azure;
mod google;
mod postgres;
mod s3;

pub use azure::Azure;
pub use google::Google;
pub use postgres::Postgres;
pub use s3::S3;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A process that ends when this is dropped.
struct Process(Child);

impl Process {
    /// Starts a program and waits until it listens on the port.
    fn start(command: &mut Command, port: u16) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Self(child.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")));
        let end = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if let Some(status) = process.0.try_wait().expect("a child can be asked") {
                panic!("{command:?} ended with {status} before it listened");
            }
            assert!(Instant::now() < end, "{command:?} does not listen on port {port}");
            std::thread::sleep(Duration::from_millis(50));
        }
        process
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that nobody listens on.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}

/// Sends a request without a body, and returns the status.
fn request(port: u16, method: &str, path: &str) -> u16 {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("it reads");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("it answers");
    reply.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line")
}
