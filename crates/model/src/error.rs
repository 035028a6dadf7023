//! The codes that every room's error maps to; one table in `api` turns them into statuses.

use std::fmt;

/// What kind of failure an error is, independent of protocol.
///
/// A room's own error type carries the message; this says who has to act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The caller sent something that can never work: wrong shape, type, name or syntax.
    InvalidArgument,
    /// No such model, version, file or route.
    NotFound,
    /// It exists already.
    AlreadyExists,
    /// The caller asked for something that is understood but not supported.
    Unimplemented,
    /// Too much was asked at once; asking again later may work.
    ResourceExhausted,
    /// The model is not ready, or is being taken down.
    Unavailable,
    /// The caller's time was up before the work was done.
    DeadlineExceeded,
    /// The state of the system does not allow it now.
    FailedPrecondition,
    /// The caller did not say who it is.
    Unauthenticated,
    /// The caller may not do this.
    PermissionDenied,
    /// Ours: an engine failed, or an invariant did not hold.
    Internal,
}

impl ErrorCode {
    /// How requests end that the server is to blame for; others failed by their callers.
    pub const TO_BLAME: [Self; 4] =
        [Self::Internal, Self::Unavailable, Self::ResourceExhausted, Self::DeadlineExceeded];

    /// The code's name as gRPC and Google's error model write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::Unavailable => "UNAVAILABLE",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::Internal => "INTERNAL",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
