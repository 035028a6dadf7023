//! What can go wrong when a model is loaded or run.

use std::fmt;

use model::ErrorCode;

/// A failure to load or run a model, with the place in the model where there is one.
#[derive(Clone, Debug)]
pub struct Error {
    code: ErrorCode,
    message: String,
}

impl Error {
    /// The model, or something in it, is not supported by the engine.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self { code: ErrorCode::Unimplemented, message: message.into() }
    }

    /// The inputs cannot be run: the rows are at fault, not the engine.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { code: ErrorCode::InvalidArgument, message: message.into() }
    }

    /// The engine failed.
    pub fn internal(message: impl Into<String>) -> Self {
        Self { code: ErrorCode::Internal, message: message.into() }
    }

    /// Something that has to be there first is not, such as an engine's library.
    pub fn precondition(message: impl Into<String>) -> Self {
        Self { code: ErrorCode::FailedPrecondition, message: message.into() }
    }

    /// Who has to act on it.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The same error with where it happened put in front.
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
