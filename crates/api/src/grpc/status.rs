//! What went wrong, as gRPC says it.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use serving::Error;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::error::grpc_code;

/// The most bytes of a message that are sent. It travels in a header, and clients take few of
/// those; names in it may be the caller's own and of any length.
const MAX_MESSAGE: usize = 2048;

/// The status of an error. Where asking again makes sense it says when: as `retry-after` in
/// seconds like HTTP, as `grpc-retry-pushback-ms` for clients that retry by themselves, and as
/// `google.rpc.RetryInfo` in the details.
pub(super) fn status(error: &Error) -> Status {
    let code = grpc_code(error.code());
    let message = shorten(error.to_string());
    let asks_again = matches!(code, Code::ResourceExhausted | Code::Unavailable);
    match error.wait().or(asks_again.then_some(Duration::from_secs(1))) {
        Some(wait) => {
            let details = retry_info(code, &message, wait);
            Status::with_details_and_metadata(code, message, details, retry_metadata(wait))
        }
        None => Status::new(code, message),
    }
}

pub(super) fn shorten(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}

fn retry_metadata(wait: Duration) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    let seconds = (wait.as_secs_f64().ceil() as u64).max(1);
    metadata.insert("retry-after", MetadataValue::from(seconds));
    let milliseconds = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    metadata.insert("grpc-retry-pushback-ms", MetadataValue::from(milliseconds));
    metadata
}

/// `google.rpc.Status`, which is what the details of a status are.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

fn retry_info(code: Code, message: &str, wait: Duration) -> Bytes {
    let info = RetryInfo { retry_delay: prost_types::Duration::try_from(wait).ok() };
    let any = prost_types::Any {
        type_url: "type.googleapis.com/google.rpc.RetryInfo".into(),
        value: info.encode_to_vec(),
    };
    let status = RpcStatus { code: code as i32, message: message.into(), details: vec![any] };
    status.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::ErrorCode;

    #[test]
    fn a_refusal_says_when_to_ask_again() {
        let error = Error::new(ErrorCode::ResourceExhausted, "the queue is full");
        let status = status(&error.retry_after(Duration::from_millis(1500)));
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.metadata().get("retry-after").unwrap(), "2");
        assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "1500");
        let details = RpcStatus::decode(status.details()).unwrap();
        let info = RetryInfo::decode(&*details.details[0].value).unwrap();
        assert_eq!(info.retry_delay.unwrap().nanos, 500_000_000);
    }

    #[test]
    fn a_mistake_is_not_worth_a_retry() {
        let status = status(&Error::new(ErrorCode::InvalidArgument, "no"));
        assert!(status.metadata().get("retry-after").is_none());
        assert!(status.details().is_empty());
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let message = shorten("é".repeat(5000));
        assert!(message.len() < MAX_MESSAGE + 4 && message.ends_with("é…"));
    }
}
