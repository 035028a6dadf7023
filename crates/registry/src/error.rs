//! Why the registry did not do what it was asked.

use std::fmt;

use model::ErrorCode;

/// A refusal or a failure: who has to act, and on what.
#[derive(Clone, Debug)]
pub struct Error {
    code: ErrorCode,
    message: String,
}

/// What every door of this room returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of the given kind.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
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

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidArgument, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, message)
    }

    /// The state of the registry does not allow it.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::FailedPrecondition, message)
    }

    /// What is stored contradicts itself.
    pub(crate) fn damaged(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Internal, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        let code = match &error {
            E::Configuration(_) => ErrorCode::InvalidArgument,
            E::Io(_) | E::Tls(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed => {
                ErrorCode::Unavailable
            }
            E::Database(inner) => database_code(inner.code().as_deref().unwrap_or_default()),
            _ => ErrorCode::Internal,
        };
        // The text of a configuration error may hold the URL, and that a password.
        let message = match &error {
            E::Configuration(_) => "the database's URL cannot be used; expected \
                                    postgres://USER@HOST/NAME or the path of a SQLite file"
                .to_owned(),
            _ => format!("the database: {error}"),
        };
        Self::new(code, message)
    }
}

/// What a code of SQLite (a number) or PostgreSQL (five characters) asks of whom.
fn database_code(code: &str) -> ErrorCode {
    match code {
        // SQLite: busy, locked, read-only or cannot be opened.
        "5" | "6" | "261" | "262" | "517" | "8" | "14" => ErrorCode::Unavailable,
        // SQLite: the disk is full, or refuses to be written.
        "13" | "10" | "778" | "1034" | "4874" => ErrorCode::ResourceExhausted,
        _ if code.len() != 5 => ErrorCode::Internal,
        // PostgreSQL: connection lost, shutting down, starting, read-only.
        _ if code.starts_with("08") || code.starts_with("57") || code == "25006" => {
            ErrorCode::Unavailable
        }
        // PostgreSQL: out of disk, of memory, of connections.
        _ if code.starts_with("53") => ErrorCode::ResourceExhausted,
        _ if code.starts_with("28") => ErrorCode::Unauthenticated,
        "42501" => ErrorCode::PermissionDenied,
        _ => ErrorCode::Internal,
    }
}

impl From<object_store::Error> for Error {
    fn from(error: object_store::Error) -> Self {
        use object_store::Error as E;
        let code = match &error {
            E::NotFound { .. } => ErrorCode::NotFound,
            E::AlreadyExists { .. } => ErrorCode::AlreadyExists,
            E::Precondition { .. } | E::NotModified { .. } => ErrorCode::FailedPrecondition,
            E::InvalidPath { .. } | E::UnknownConfigurationKey { .. } => ErrorCode::InvalidArgument,
            E::NotSupported { .. } | E::NotImplemented { .. } => ErrorCode::Unimplemented,
            E::PermissionDenied { .. } => ErrorCode::PermissionDenied,
            E::Unauthenticated { .. } => ErrorCode::Unauthenticated,
            _ if is_full(&error) => ErrorCode::ResourceExhausted,
            // Retried already: the store is away, or answers too slowly.
            _ => ErrorCode::Unavailable,
        };
        Self::new(code, format!("the object store: {error}"))
    }
}

/// Whether an error comes from a disk, or a quota, that is full.
fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return matches!(io.kind(), StorageFull | QuotaExceeded | FileTooLarge);
        }
        next = error.source();
    }
    false
}

/// An error of a file outside the registry, with its path.
pub(crate) fn file(path: &std::path::Path, error: &std::io::Error) -> Error {
    use std::io::ErrorKind as K;
    let code = match error.kind() {
        K::NotFound => ErrorCode::NotFound,
        K::PermissionDenied => ErrorCode::PermissionDenied,
        K::AlreadyExists => ErrorCode::AlreadyExists,
        K::StorageFull | K::QuotaExceeded | K::FileTooLarge => ErrorCode::ResourceExhausted,
        _ => ErrorCode::FailedPrecondition,
    };
    Error::new(code, format!("{}: {error}", path.display()))
}
