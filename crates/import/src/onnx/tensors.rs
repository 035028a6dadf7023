//! Whether tensors in the file hold what they say they hold.

use model::onnx::{DataLocation, TensorProto, data_type};

use super::{invalid, unsupported};
use crate::Error;

/// Bits per element of each plain `TensorProto.DataType`, by its number; 0 for strings and unknown.
const BITS: [usize; 27] =
    [0, 32, 8, 8, 16, 16, 32, 64, 0, 8, 16, 64, 32, 64, 64, 128, 16, 8, 8, 8, 8, 4, 4, 4, 8, 2, 2];

/// Number of elements, from the dimensions alone.
pub fn element_count(tensor: &TensorProto) -> Result<usize, Error> {
    let too_many =
        || invalid(format!("has dimensions {:?}, which is too many elements", tensor.dims));
    let mut dims = Vec::with_capacity(tensor.dims.len());
    for dim in &tensor.dims {
        let dim = usize::try_from(*dim)
            .map_err(|_| invalid(format!("has the negative dimension {dim}")))?;
        dims.push(dim);
    }
    model::element_count(&dims).ok_or_else(too_many)
}

/// Bytes that the elements take when they lie side by side, as in `raw_data` or an external file.
pub fn byte_size(tensor: &TensorProto) -> Result<usize, Error> {
    let bits = usize::try_from(tensor.data_type).ok().and_then(|code| BITS.get(code)).copied();
    let bits = match (bits, tensor.data_type) {
        (_, data_type::STRING) => {
            return Err(invalid("holds strings, which have to be listed in the file itself"));
        }
        (None | Some(0), code) => {
            return Err(unsupported(format!("has the unknown element type {code}")));
        }
        (Some(bits), _) => bits,
    };
    let count = element_count(tensor)?;
    let bits = count.checked_mul(bits).ok_or_else(|| invalid("is larger than memory can be"))?;
    Ok(bits.div_ceil(8))
}

/// Checks that the contents are there, once, and as many as the dimensions ask for.
pub fn check(tensor: &TensorProto) -> Result<(), Error> {
    if tensor.data_location == DataLocation::External as i32 {
        return Err(invalid("is stored outside the file and was not read in"));
    }
    let count = element_count(tensor)?;
    if tensor.data_type != data_type::STRING {
        let size = byte_size(tensor)?;
        if let Some(raw) = &tensor.raw_data
            && (!raw.is_empty() || listed(tensor) == 0)
        {
            if listed(tensor) != 0 {
                return Err(invalid("holds its contents twice, as raw bytes and as a list"));
            }
            return if raw.len() == size {
                Ok(())
            } else {
                let (dims, got) = (&tensor.dims, raw.len());
                Err(invalid(format!(
                    "has dimensions {dims:?}, which take {size} bytes, but holds {got}"
                )))
            };
        }
    } else if tensor.raw_data.as_ref().is_some_and(|raw| !raw.is_empty()) {
        return Err(invalid("holds strings as raw bytes, which have no boundaries"));
    }
    let (expected, got) = list(tensor, count);
    if got != expected {
        let dims = &tensor.dims;
        return Err(invalid(format!(
            "has dimensions {dims:?}, which take {expected} list entries, but holds {got}"
        )));
    }
    if listed(tensor) != got {
        return Err(invalid("holds list entries of another type than its own"));
    }
    Ok(())
}

/// Entries in all typed lists together.
fn listed(tensor: &TensorProto) -> usize {
    tensor.float_data.len()
        + tensor.int32_data.len()
        + tensor.string_data.len()
        + tensor.int64_data.len()
        + tensor.double_data.len()
        + tensor.uint64_data.len()
}

/// How many entries the list of the tensor's own type has to have, and has.
fn list(tensor: &TensorProto, count: usize) -> (usize, usize) {
    match tensor.data_type {
        data_type::FLOAT => (count, tensor.float_data.len()),
        data_type::COMPLEX64 => (count.saturating_mul(2), tensor.float_data.len()),
        data_type::DOUBLE => (count, tensor.double_data.len()),
        data_type::COMPLEX128 => (count.saturating_mul(2), tensor.double_data.len()),
        data_type::STRING => (count, tensor.string_data.len()),
        data_type::INT64 => (count, tensor.int64_data.len()),
        data_type::UINT32 | data_type::UINT64 => (count, tensor.uint64_data.len()),
        // Two 4-bit or four 2-bit elements share an entry.
        21..=23 => (count.div_ceil(2), tensor.int32_data.len()),
        25 | 26 => (count.div_ceil(4), tensor.int32_data.len()),
        _ => (count, tensor.int32_data.len()),
    }
}
