//! Why a verb failed: one clear line, advice where there is some, and an exit code.

use std::fmt::Display;
use std::process::ExitCode;

use model::ErrorCode;

/// A verb's failure. Not a [`std::error::Error`], so that every error converts into it with `?`.
#[derive(Debug)]
pub struct Failure {
    kind: Kind,
    message: String,
    help: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Failed = 1,
    Usage = 2,
    Refused = 3,
    Found = 4,
}

impl Failure {
    /// It was tried and did not work: exit code 1.
    pub fn new(message: impl Display) -> Self {
        Self { kind: Kind::Failed, message: message.to_string(), help: None }
    }

    /// It was asked for wrongly: exit code 2.
    pub fn usage(message: impl Display) -> Self {
        Self { kind: Kind::Usage, ..Self::new(message) }
    }

    /// A model was refused or is not supported: exit code 3.
    pub fn refused(message: impl Display) -> Self {
        Self { kind: Kind::Refused, ..Self::new(message) }
    }

    /// It was done, and what the caller wanted to be warned of is there: exit code 4.
    pub fn found(message: impl Display) -> Self {
        Self { kind: Kind::Found, ..Self::new(message) }
    }

    /// A room's error: refused if the model is at fault, failed otherwise.
    pub fn coded(code: ErrorCode, message: impl Display) -> Self {
        match code {
            ErrorCode::InvalidArgument | ErrorCode::Unimplemented => Self::refused(message),
            _ => Self::new(message),
        }
    }

    /// The same failure with what to do about it.
    pub fn help(mut self, advice: impl Display) -> Self {
        self.help = Some(advice.to_string());
        self
    }

    /// The same failure with where it happened put in front.
    pub fn at(mut self, place: impl Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// What a caller over the wire is told of it.
    pub fn refusal(self) -> (ErrorCode, String) {
        let code = match self.kind {
            Kind::Failed | Kind::Found => ErrorCode::Internal,
            Kind::Usage => ErrorCode::InvalidArgument,
            Kind::Refused => ErrorCode::FailedPrecondition,
        };
        (code, self.message)
    }

    /// Prints `error: …` and `help: …` on standard error.
    pub fn report(&self) {
        print_line("error", &self.message);
        if let Some(help) = &self.help {
            print_line("help", help);
        }
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind as u8)
    }
}

/// One `label: text` line; the label is coloured on a terminal.
fn print_line(label: &str, text: &str) {
    use std::io::{IsTerminal, Write};
    let mut stderr = std::io::stderr().lock();
    let colour = if label == "error" { "31" } else { "36" };
    // A closed standard error is nobody's to be told about.
    let _ = if stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        writeln!(stderr, "\x1b[1;{colour}m{label}\x1b[0m: {text}")
    } else {
        writeln!(stderr, "{label}: {text}")
    };
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error: anyhow::Error = error.into();
        Self::new(format!("{error:#}"))
    }
}
