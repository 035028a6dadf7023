//! JSON without an intermediate tree: numbers go from the body straight into a tensor's buffer,
//! and from the buffer into the answer.
//!
//! The reader accepts what RFC 8259 does and nothing else, except that `NaN`, `Infinity` and
//! `-Infinity` are numbers where the protocol says so. It refuses duplicate keys, limits depth,
//! and never holds more than the body's size.

mod number;
mod reader;
mod tensor;
mod writer;

pub(crate) use reader::{Error, NonFinite, Reader, quote};
pub(crate) use tensor::{Elements, read_array, read_shape};
pub(crate) use writer::{non_finite, write_data, write_string};
