//! Sends what a notifier has made of a message.

use std::process::Stdio;
use std::time::Duration;

use lettre::message::header::ContentType;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use tokio::io::AsyncWriteExt;

use super::notifier::{Mailing, Sending};

/// How long one sending may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why something could not be sent. Never shows an address, which may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub why: String,
    /// Whether another try may help.
    pub passes: bool,
}

impl Failure {
    fn passing(why: impl Into<String>) -> Self {
        Self { why: why.into(), passes: true }
    }

    fn lasting(why: impl Into<String>) -> Self {
        Self { why: why.into(), passes: false }
    }
}

/// Sends over HTTP, by mail and to programs.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    client: reqwest::Client,
}

impl Sender {
    pub fn new() -> Result<Self, String> {
        // Two crates of TLS ask for a default; whoever set one before us is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(PATIENCE)
            // What is sent is for the one who was named.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("modelyard/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self { client: client.map_err(|error| error.to_string())? })
    }

    pub async fn send(&self, sending: Sending) -> Result<(), Failure> {
        let sent = async {
            match sending {
                Sending::Post { url, headers, body } => self.post(&url, headers, body).await,
                Sending::Mail { server, subject, text, thread } => {
                    mail(server, &subject, text, &thread).await
                }
                Sending::Run { command, input } => run(command, input).await,
            }
        };
        match tokio::time::timeout(PATIENCE * 2, sent).await {
            Ok(sent) => sent,
            Err(_) => Err(Failure::passing("took too long")),
        }
    }

    async fn post(
        &self,
        url: &str,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
    ) -> Result<(), Failure> {
        let mut request = self.client.post(url).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let response = request.body(body).send().await;
        let response = response.map_err(|error| {
            let is_ours = error.is_builder();
            let why = reasons(&error.without_url());
            if is_ours { Failure::lasting(why) } else { Failure::passing(why) }
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let said = response.text().await.unwrap_or_default();
        let said: String = said.chars().filter(|c| !c.is_control()).take(200).collect();
        let why = format!("answered {status}: {said}");
        let passes = status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429);
        Err(Failure { why, passes })
    }
}

/// An error and what is behind it.
fn reasons(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text += &format!(": {source}");
        next = source.source();
    }
    text
}

async fn mail(server: Mailing, subject: &str, text: String, thread: &str) -> Result<(), Failure> {
    let wrong =
        |what: &str, error: &dyn std::fmt::Display| Failure::lasting(format!("{what}: {error}"));
    let mut address = url::Url::parse(&server.smtp).map_err(|e| wrong("`smtp`", &e))?;
    if let Some(password) = &server.password {
        let set = address.set_password(Some(password));
        set.map_err(|()| Failure::lasting("`smtp` cannot have a password"))?;
    }
    let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(address.as_str());
    let transport = transport.map_err(|error| wrong("`smtp`", &error))?;
    let transport = transport.timeout(Some(PATIENCE)).build();
    let from = server.from.parse().map_err(|error| wrong("`from`", &error))?;
    // The first mail of a group is never seen to begin the thread; mail programs do not mind.
    let reference = format!("<{:016x}@modelyard>", hash(thread));
    let mut message = lettre::Message::builder()
        .from(from)
        .subject(subject)
        .references(reference)
        .header(ContentType::TEXT_PLAIN);
    for receiver in &server.to {
        message = message.to(receiver.parse().map_err(|error| wrong("`to`", &error))?);
    }
    let message = message.body(text).map_err(|error| wrong("the mail", &error))?;
    match transport.send(message).await {
        Ok(_) => Ok(()),
        Err(error) => {
            let passes = !error.is_permanent();
            Err(Failure { why: reasons(&error), passes })
        }
    }
}

fn hash(text: &str) -> u64 {
    use std::hash::Hasher;
    let mut hasher = twox_hash::XxHash64::with_seed(1);
    hasher.write(text.as_bytes());
    hasher.finish()
}

async fn run(command: Vec<String>, input: Vec<u8>) -> Result<(), Failure> {
    let (program, arguments) = command.split_first().expect("checked: there is a program");
    let child = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = child.map_err(|error| Failure::lasting(format!("{program}: {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program need not read it.
        let _ = stdin.write_all(&input).await;
    }
    let output = child.wait_with_output().await;
    let output = output.map_err(|error| Failure::passing(format!("{program}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: String = said.trim().chars().take(200).collect();
    Err(Failure::passing(format!("{program}: {}: {said}", output.status)))
}
