//! The binary tensor extension: blobs behind the JSON, little-endian and row-major.

use bytes::Bytes;
use model::{Data, DataType};

/// What follows the JSON, handed out tensor by tensor in the JSON's order, without a copy.
pub(super) struct Blobs {
    rest: Bytes,
}

impl Blobs {
    pub(super) fn new(rest: Bytes) -> Self {
        Self { rest }
    }

    /// The next tensor's bytes.
    pub(super) fn take(&mut self, size: usize) -> Result<Bytes, String> {
        if size > self.rest.len() {
            return Err(format!(
                "binary_data_size is {size}, but only {} bytes of binary data are left",
                self.rest.len()
            ));
        }
        Ok(self.rest.split_to(size))
    }

    /// Refuses bytes that no tensor has asked for.
    pub(super) fn finish(self) -> Result<(), String> {
        match self.rest.len() {
            0 => Ok(()),
            more => Err(format!(
                "{more} bytes of binary data more than the inputs' binary_data_size add up to"
            )),
        }
    }
}

/// A blob as `count` elements of a type.
pub(super) fn decode(blob: Bytes, datatype: DataType, count: usize) -> Result<Data, String> {
    let Some(size) = datatype.size() else {
        return decode_strings(blob, count).map(Data::Bytes);
    };
    let expected = count.checked_mul(size);
    if expected != Some(blob.len()) {
        return Err(format!(
            "expected {} bytes for {count} elements of {datatype}, got {}",
            expected.map_or("more than memory has".into(), |n| n.to_string()),
            blob.len()
        ));
    }
    Data::from_bytes(datatype, blob)
        .ok_or_else(|| "expected 0 or 1 for each BOOL, got another byte".to_owned())
}

/// A blob of strings, each preceded by its length as a 32-bit integer.
fn decode_strings(mut blob: Bytes, count: usize) -> Result<Vec<Bytes>, String> {
    // Each string takes at least its length's four bytes: a lie in `count` reserves no more.
    let mut strings = Vec::with_capacity(count.min(blob.len() / 4));
    while !blob.is_empty() {
        let index = strings.len();
        let Some((head, rest)) = blob.split_first_chunk::<4>() else {
            return Err(format!("string {index}: its length is cut short"));
        };
        let (length, left) = (u32::from_le_bytes(*head) as usize, rest.len());
        if length > left {
            return Err(format!("string {index} has {length} bytes, but only {left} are left"));
        }
        if index == count {
            return Err(format!("expected {count} strings, got more"));
        }
        let _ = blob.split_to(4);
        strings.push(blob.split_to(length));
    }
    if strings.len() < count {
        return Err(format!("expected {count} strings, got {}", strings.len()));
    }
    Ok(strings)
}

/// How many bytes [`encode`] will write.
pub(super) fn encoded_length(data: &Data) -> usize {
    match data {
        Data::Bytes(strings) => strings.iter().map(|s| 4 + s.len()).sum(),
        plain => plain.as_bytes().map_or(0, <[u8]>::len),
    }
}

/// A tensor's elements as a blob. Strings beyond 4 GiB do not occur: no body is that large.
pub(super) fn encode(out: &mut Vec<u8>, data: &Data) {
    match data {
        Data::Bytes(strings) => {
            for string in strings {
                out.extend_from_slice(&(string.len() as u32).to_le_bytes());
                out.extend_from_slice(string);
            }
        }
        plain => out.extend_from_slice(plain.as_bytes().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(
            floats in prop::collection::vec(any::<i32>(), 0..9),
            strings in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..9),
        ) {
            let strings: Vec<Bytes> = strings.into_iter().map(Bytes::from).collect();
            for data in [Data::from(floats), strings.into()] {
                let mut blob = Vec::new();
                encode(&mut blob, &data);
                prop_assert_eq!(blob.len(), encoded_length(&data));
                prop_assert_eq!(decode(blob.into(), data.datatype(), data.len()).unwrap(), data);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..40), count in 0usize..9) {
            for datatype in DataType::ALL {
                let _ = decode(bytes.clone().into(), datatype, count);
            }
        }
    }

    #[test]
    fn lying_sizes_are_refused() {
        let mut blobs = Blobs::new(Bytes::from_static(&[0; 8]));
        assert!(blobs.take(9).unwrap_err().contains("only 8 bytes"));
        assert_eq!(blobs.take(3).unwrap().len(), 3);
        assert!(blobs.finish().unwrap_err().contains("5 bytes of binary data more"));
        assert!(
            decode(Bytes::from_static(&[0; 7]), DataType::Fp32, 2)
                .unwrap_err()
                .contains("expected 8 bytes")
        );
        assert!(decode(Bytes::new(), DataType::Fp64, usize::MAX).is_err());
        assert!(
            decode(Bytes::from_static(&[255, 255, 255, 255, 1]), DataType::Bytes, 1)
                .unwrap_err()
                .contains("only 1 are left")
        );
        assert!(
            decode(Bytes::from_static(&[1, 0]), DataType::Bytes, 1)
                .unwrap_err()
                .contains("cut short")
        );
        assert!(decode(Bytes::new(), DataType::Bytes, usize::MAX).unwrap_err().contains("got 0"));
        assert!(decode(Bytes::from_static(&[2]), DataType::Bool, 1).is_err());
    }
}
