//! What a request is refused for, in the words that every protocol uses.

use model::{DataType, ErrorCode};
use serving::Error;

/// The most dimensions that a tensor may have.
pub(crate) const MAX_RANK: usize = 16;

/// A request that can never work.
pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidArgument, message)
}

/// A refusal that names the input.
pub(crate) fn refuse(name: &str, why: impl std::fmt::Display) -> Error {
    invalid(format!("input \"{name}\": {why}"))
}

/// The type that a text names, or why it names none.
pub(crate) fn datatype(text: &str) -> Result<DataType, String> {
    DataType::parse(text).ok_or_else(|| {
        let known: Vec<_> = DataType::ALL.iter().map(|datatype| datatype.as_str()).collect();
        let shown: String = text.chars().take(40).collect();
        format!("{shown:?} is not a datatype; there are {}", known.join(", "))
    })
}

/// The shape that an input claims; every extent has to be said.
pub(crate) fn shape(name: &str, extents: &[i64]) -> Result<Vec<usize>, Error> {
    if extents.len() > MAX_RANK {
        return Err(refuse(name, format!("shape: more than {MAX_RANK} dimensions")));
    }
    let extent = |extent: &i64| {
        usize::try_from(*extent).map_err(|_| {
            let why =
                format!("shape: expected a dimension that is 0 or more, got the number {extent}");
            refuse(name, why)
        })
    };
    extents.iter().map(extent).collect()
}

/// A tensor that is said to lie in memory that we cannot see. `what` is the input or the output.
pub(crate) fn shared_memory(what: &str) -> Error {
    let message = format!("{what}: shared memory is not supported; send the tensor itself");
    Error::new(ErrorCode::Unimplemented, message)
}

/// A request of a sequence. They depend on each other; answering them as if they did not would be
/// silently wrong.
pub(crate) fn sequence() -> Error {
    let message = "parameter \"sequence_id\": sequences are not supported";
    Error::new(ErrorCode::Unimplemented, message)
}

/// What a parameter has to be that counts something.
pub(crate) const WHOLE_NUMBER: &str = "a whole number, 0 or more";
