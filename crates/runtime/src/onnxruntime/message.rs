//! What ONNX Runtime says went wrong, in words that a caller can act on.

use ort::ErrorCode;

use crate::Error;

/// How much of a message is kept; ONNX Runtime can print whole shapes lists and signatures.
const LONGEST: usize = 400;

/// What was being done when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    /// Preparing the model.
    Loading,
    /// Running it on the processor, where a node that fails fails because of its inputs.
    Running,
    /// Running it on other hardware, which can fail by itself.
    RunningElsewhere,
}

/// Turns its error into ours.
pub(super) fn explain(code: ErrorCode, message: &str, doing: Doing) -> Error {
    let text = shorten(message);
    let memory = message.contains("Failed to allocate memory") || message.contains("bad_alloc");
    match (doing, code) {
        (Doing::Loading, _) => Error::unsupported(text),
        (_, ErrorCode::NotImplemented) => Error::unsupported(text),
        (_, ErrorCode::InvalidArgument) => Error::invalid(text),
        (Doing::Running, _) if !memory && message.contains(NODE) => Error::invalid(text),
        _ => Error::internal(text),
    }
}

/// How ONNX Runtime begins a message about a node.
const NODE: &str = "Non-zero status code returned while running ";

/// Cuts away what speaks of ONNX Runtime's source, and keeps what speaks of the model:
/// `Gather node "g": indices element out of data bounds, idx=9`.
pub(super) fn shorten(message: &str) -> String {
    let mut text = message.trim();
    let mut place = String::new();
    if let Some(rest) = text.strip_prefix(NODE)
        && let Some((operator, rest)) = rest.split_once(" node. Name:'")
        && let Some((name, rest)) = rest.split_once("' Status Message: ")
    {
        place = match name {
            "" => format!("{operator} node: "),
            _ => format!("{operator} node \"{name}\": "),
        };
        text = rest;
    }
    // "/some/file.cc:540 void Class::Method(…) condition was false. What matters."
    if let Some((_, what)) = text.rsplit_once(" was false. ") {
        text = what;
    } else if is_source_place(text)
        && let Some((_, what)) = text.split_once(") ")
    {
        text = what;
    }
    let line = text.trim().lines().next().unwrap_or_default().trim_end();
    let mut end = line.len().min(LONGEST);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    let dots = if end < line.len() { "…" } else { "" };
    format!("{place}{}{dots}", &line[..end])
}

fn is_source_place(text: &str) -> bool {
    let first = text.split_whitespace().next().unwrap_or_default();
    [".cc:", ".h:", ".cpp:"].iter().any(|extension| first.contains(extension))
}

#[cfg(test)]
mod tests {
    use model::ErrorCode as Code;

    use super::*;

    const GATHER: &str = "Non-zero status code returned while running Gather node. Name:'look' \
        Status Message: indices element out of data bounds, idx=9 must be within the inclusive \
        range [-3,2]";
    const BROADCAST: &str = "Non-zero status code returned while running Add node. Name:'' Status \
        Message: /onnxruntime_src/onnxruntime/core/providers/cpu/math/element_wise_ops.h:540 void \
        onnxruntime::BroadcastIterator::Init(ptrdiff_t, ptrdiff_t) axis == 1 || axis == largest \
        was false. Attempting to broadcast an axis by a dimension other than 1. 3 by 4\n";

    #[test]
    fn the_node_and_the_reason_are_kept() {
        let error = explain(ErrorCode::InvalidArgument, GATHER, Doing::Running);
        assert_eq!(error.code(), Code::InvalidArgument);
        let expected = "Gather node \"look\": indices element out of data bounds, idx=9 must be \
            within the inclusive range [-3,2]";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_node_that_throws_on_the_processor_blames_its_inputs() {
        let error = explain(ErrorCode::RuntimeException, BROADCAST, Doing::Running);
        assert_eq!(error.code(), Code::InvalidArgument);
        let expected =
            "Add node: Attempting to broadcast an axis by a dimension other than 1. 3 by 4";
        assert_eq!(error.to_string(), expected);
        let elsewhere = explain(ErrorCode::RuntimeException, BROADCAST, Doing::RunningElsewhere);
        assert_eq!(elsewhere.code(), Code::Internal);
    }

    #[test]
    fn running_out_of_memory_blames_nobody_else() {
        let message =
            format!("{NODE}Conv node. Name:'c' Status Message: Failed to allocate memory");
        let error = explain(ErrorCode::RuntimeException, &message, Doing::Running);
        assert_eq!(error.code(), Code::Internal);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let text = shorten(&"ä".repeat(1000));
        assert!(text.len() <= LONGEST + "…".len() && text.ends_with('…'), "{}", text.len());
    }
}
