//! The one table from what went wrong to what each protocol says, and the REST error body.

use std::time::Duration;

use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use model::ErrorCode;
use serving::Protocol;
use tonic::Code;

use crate::server::Body;

/// Each code with its HTTP status, which the Open Inference Protocol and TensorFlow Serving share,
/// and its gRPC status.
pub const TABLE: [(ErrorCode, u16, Code); 11] = [
    (ErrorCode::InvalidArgument, 400, Code::InvalidArgument),
    (ErrorCode::NotFound, 404, Code::NotFound),
    (ErrorCode::AlreadyExists, 409, Code::AlreadyExists),
    (ErrorCode::Unimplemented, 501, Code::Unimplemented),
    (ErrorCode::ResourceExhausted, 429, Code::ResourceExhausted),
    (ErrorCode::Unavailable, 503, Code::Unavailable),
    (ErrorCode::DeadlineExceeded, 504, Code::DeadlineExceeded),
    (ErrorCode::FailedPrecondition, 400, Code::FailedPrecondition),
    (ErrorCode::Unauthenticated, 401, Code::Unauthenticated),
    (ErrorCode::PermissionDenied, 403, Code::PermissionDenied),
    (ErrorCode::Internal, 500, Code::Internal),
];

/// The HTTP status of a code.
pub fn http_status(code: ErrorCode) -> u16 {
    TABLE.iter().find(|row| row.0 == code).map_or(500, |row| row.1)
}

/// The gRPC status of a code.
pub fn grpc_code(code: ErrorCode) -> Code {
    TABLE.iter().find(|row| row.0 == code).map_or(Code::Unknown, |row| row.2)
}

/// Why a REST request is not answered: a status, and a message for whoever sent it.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// What it is in the table, unless it is HTTP's alone.
    pub(crate) code: Option<ErrorCode>,
    pub(crate) retry_after: Option<Duration>,
    /// The methods that a 405 says would have worked.
    pub(crate) allow: Option<&'static str>,
    /// Whether the request has been counted already.
    is_counted: bool,
}

impl Failure {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(http_status(code)).expect("the table has real statuses");
        Self { code: Some(code), ..Self::status(status, message) }
    }

    /// A failure that only HTTP knows, such as 413.
    pub(crate) fn status(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            code: None,
            retry_after: None,
            allow: None,
            is_counted: false,
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::status(StatusCode::BAD_REQUEST, message)
    }

    /// 405 with the methods that would have worked.
    pub(crate) fn method(method: &hyper::Method, path: &str, allow: &'static str) -> Self {
        let message = format!("{method} is not possible on {path}; use {allow}");
        Self { allow: Some(allow), ..Self::status(StatusCode::METHOD_NOT_ALLOWED, message) }
    }

    /// The failure of a request that has been counted: its version did answer it.
    pub(crate) fn counted(self) -> Self {
        Self { is_counted: true, ..self }
    }

    /// Counts an inference request that this ends, unless it has been.
    pub(crate) fn count(self, serving: &serving::Serving, of: &str, by: Protocol) -> Self {
        if !self.is_counted {
            let code = self.code.unwrap_or(match self.status.as_u16() {
                408 => ErrorCode::DeadlineExceeded,
                413 => ErrorCode::ResourceExhausted,
                400..=499 => ErrorCode::InvalidArgument,
                _ => ErrorCode::Internal,
            });
            serving.refuse(of, by, code);
        }
        self.counted()
    }

    /// The answer, in the body that both REST protocols use: `{"error": message}`.
    pub(crate) fn into_response(self) -> Response<Body> {
        #[derive(serde::Serialize)]
        struct ErrorBody<'a> {
            error: &'a str,
        }
        let body = serde_json::to_vec(&ErrorBody { error: &self.message }).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        let asks_again = matches!(self.status.as_u16(), 429 | 503);
        if let Some(wait) = self.retry_after.or(asks_again.then_some(Duration::from_secs(1))) {
            // The header counts whole seconds; 0 would ask for a retry at once.
            let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<serving::Error> for Failure {
    fn from(error: serving::Error) -> Self {
        Self {
            retry_after: error.wait(),
            is_counted: error.is_counted(),
            ..Self::new(error.code(), error.to_string())
        }
    }
}

/// What the state of a registry does not allow is a conflict, to HTTP: somebody else was faster, or
/// what is to go is in use.
impl From<registry::Error> for Failure {
    fn from(error: registry::Error) -> Self {
        let failure = Self::new(error.code(), error.to_string());
        match error.code() {
            ErrorCode::FailedPrecondition => Self { status: StatusCode::CONFLICT, ..failure },
            _ => failure,
        }
    }
}

impl axum::response::IntoResponse for Failure {
    fn into_response(self) -> axum::response::Response {
        let mut response = Self::into_response(self.clone()).map(axum::body::Body::new);
        // For whoever says it in the words of another protocol.
        response.extensions_mut().insert(self);
        response
    }
}

impl From<(ErrorCode, String)> for Failure {
    fn from((code, message): (ErrorCode, String)) -> Self {
        Self::new(code, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_what_the_protocols_agreed_on() {
        let lines: Vec<String> = TABLE
            .iter()
            .map(|(code, http, grpc)| format!("{code} {http} {}", *grpc as i32))
            .collect();
        assert_eq!(
            lines.join("\n"),
            "INVALID_ARGUMENT 400 3\nNOT_FOUND 404 5\nALREADY_EXISTS 409 6\nUNIMPLEMENTED 501 12\n\
             RESOURCE_EXHAUSTED 429 8\nUNAVAILABLE 503 14\nDEADLINE_EXCEEDED 504 4\n\
             FAILED_PRECONDITION 400 9\nUNAUTHENTICATED 401 16\nPERMISSION_DENIED 403 7\n\
             INTERNAL 500 13"
        );
    }

    #[test]
    fn a_refusal_says_when_to_ask_again() {
        let error = serving::Error::new(ErrorCode::ResourceExhausted, "full")
            .retry_after(Duration::from_millis(1200));
        let response = Failure::from(error).into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[RETRY_AFTER], "2");
    }
}
