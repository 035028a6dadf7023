//! Tensors as bytes: little-endian, row-major; each `BYTES` element after its length as a u32.
//!
//! The form that gRPC's raw contents and REST's binary extension share.

#[cfg(target_endian = "big")]
compile_error!("tensors are kept as they lie in memory, which must be little-endian");

use bytes::Bytes;
use model::{Data, DataType, Tensor, element_count};
use serving::Error;

use crate::refusals::refuse;

/// The tensor that an input's bytes are; a view of them where alignment allows, and for `BYTES`.
pub(crate) fn decode(
    name: &str,
    datatype: DataType,
    shape: Vec<usize>,
    bytes: Bytes,
) -> Result<Tensor, Error> {
    let count = element_count(&shape).ok_or_else(|| {
        refuse(name, format!("shape {shape:?} has more elements than memory has addresses"))
    })?;
    let Some(size) = datatype.size() else {
        let strings = strings(name, count, bytes)?;
        return Tensor::new(shape, strings).map_err(|error| refuse(name, error));
    };
    if count.checked_mul(size) != Some(bytes.len()) {
        let needed = count as u128 * size as u128;
        let got = bytes.len();
        let why = format!("shape {shape:?} {datatype} needs {needed} bytes, got {got}");
        return Err(refuse(name, why));
    }
    let data = Data::from_bytes(datatype, bytes)
        .ok_or_else(|| refuse(name, "a BOOL byte is neither 0 nor 1"))?;
    Tensor::new(shape, data).map_err(|error| refuse(name, error))
}

/// Exactly `count` strings, each after its length. The lengths are not trusted.
fn strings(name: &str, count: usize, mut bytes: Bytes) -> Result<Vec<Bytes>, Error> {
    let total = bytes.len();
    // A string takes 4 bytes at least, which bounds what a claimed shape can make us reserve.
    let mut strings = Vec::with_capacity(count.min(total / 4));
    while !bytes.is_empty() {
        let at = total - bytes.len();
        let Some(length) = bytes.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes)) else {
            let why = format!("BYTES end at byte {total}, inside the length that starts at {at}");
            return Err(refuse(name, why));
        };
        let end = 4 + length as usize;
        if bytes.len() < end {
            let left = bytes.len() - 4;
            let why = format!("the string at byte {at} claims {length} bytes, {left} are left");
            return Err(refuse(name, why));
        }
        strings.push(bytes.split_to(end).slice(4..));
        if strings.len() > count {
            let why = format!("BYTES hold more strings than the {count} of the shape");
            return Err(refuse(name, why));
        }
    }
    Ok(strings)
}

/// How many bytes [`encode`] writes.
pub(crate) fn encoded_len(data: &Data) -> usize {
    match data {
        Data::Bytes(strings) => strings.iter().map(|string| 4 + string.len()).sum(),
        plain => plain.as_bytes().map_or(0, <[u8]>::len),
    }
}

/// Appends the data's bytes.
pub(crate) fn encode(data: &Data, out: &mut Vec<u8>) {
    match data {
        Data::Bytes(strings) => {
            for string in strings {
                // No string is over 4 GiB: it came in a message or from an engine's memory.
                out.extend_from_slice(&(string.len() as u32).to_le_bytes());
                out.extend_from_slice(string);
            }
        }
        plain => out.extend_from_slice(plain.as_bytes().unwrap_or_default()),
    }
}

/// The data's bytes alone: its own memory if it is large, a copy if that is cheaper.
pub(crate) fn into_bytes(data: Data) -> Bytes {
    struct Owner(Data);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            self.0.as_bytes().unwrap_or_default()
        }
    }
    if data.as_bytes().is_some_and(|bytes| bytes.len() > 1024) {
        return Bytes::from_owner(Owner(data));
    }
    let mut bytes = Vec::with_capacity(encoded_len(&data));
    encode(&data, &mut bytes);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn why(result: Result<Tensor, Error>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn a_lie_about_length_is_refused_by_name() {
        let short = decode("x", DataType::Fp32, vec![2, 3], Bytes::from_static(&[0; 20]));
        assert_eq!(why(short), "input \"x\": shape [2, 3] FP32 needs 24 bytes, got 20");
        let huge = decode("x", DataType::Fp64, vec![usize::MAX / 4, 2], Bytes::new());
        assert!(why(huge).contains("needs 73786976294838206448 bytes, got 0"));
        let beyond = decode("x", DataType::Fp64, vec![usize::MAX, 2], Bytes::new());
        assert!(why(beyond).contains("more elements than memory"));
    }

    #[test]
    fn strings_that_lie_are_refused() {
        let decode = |bytes: &'static [u8]| {
            why(decode("s", DataType::Bytes, vec![2], Bytes::from_static(bytes)))
        };
        assert!(decode(&[1, 0, 0, 0, b'a', 9, 0]).contains("inside the length that starts at 5"));
        assert!(decode(&[5, 0, 0, 0, b'a']).contains("at byte 0 claims 5 bytes, 1 are left"));
        assert!(decode(&[0; 12]).contains("more strings than the 2"));
        assert!(decode(&[0; 4]).contains("needs 2 elements, got 1"));
    }

    proptest! {
        #[test]
        fn what_was_encoded_decodes_to_itself(
            strings in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..9),
            floats in proptest::collection::vec(any::<u32>(), 0..600),
        ) {
            let strings: Vec<Bytes> = strings.into_iter().map(Bytes::from).collect();
            let floats: Vec<f32> = floats.into_iter().map(|bits| (bits % 1000) as f32).collect();
            for tensor in [
                Tensor::new(vec![strings.len()], strings).unwrap(),
                Tensor::new(vec![floats.len()], floats).unwrap(),
            ] {
                let mut copied = Vec::new();
                encode(tensor.data(), &mut copied);
                prop_assert_eq!(copied.len(), encoded_len(tensor.data()));
                let bytes = into_bytes(tensor.data().clone());
                prop_assert_eq!(&bytes[..], &copied);
                let shape = tensor.shape().to_vec();
                prop_assert_eq!(decode("x", tensor.datatype(), shape, bytes).unwrap(), tensor);
            }
        }

        #[test]
        fn any_bytes_are_answered(
            code in 0usize..14,
            shape in proptest::collection::vec(0usize..4, 0..3),
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let _ = decode("x", DataType::ALL[code], shape, bytes.into());
        }
    }
}
