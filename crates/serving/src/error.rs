//! Why a request was not answered.

use std::fmt;
use std::time::Duration;

use model::ErrorCode;

/// A refusal or failure, with the advice that the caller is given.
#[derive(Clone, Debug)]
pub struct Error {
    code: ErrorCode,
    message: String,
    retry_after: Option<Duration>,
    is_counted: bool,
}

impl Error {
    /// An error of the given kind.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None, is_counted: false }
    }

    /// The same error, with when asking again makes sense.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The same error, once it has been counted.
    pub(crate) fn counted(mut self) -> Self {
        self.is_counted = true;
        self
    }

    /// Whether the request that it ended has been counted; see
    /// [`Serving::refuse`](crate::Serving::refuse).
    pub fn is_counted(&self) -> bool {
        self.is_counted
    }

    /// The same error in other words.
    pub fn in_words(self, message: impl Into<String>) -> Self {
        Self { message: message.into(), ..self }
    }

    /// Who has to act on it.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// When asking again makes sense, if it does.
    pub fn wait(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
