//! Tensor data as JSON.

use model::{Data, DataType};

/// A tensor's elements as a flat JSON array.
///
/// JSON has no word for a value that is not finite. It is written as `NaN`, `Infinity` or
/// `-Infinity`, as Triton and TensorFlow Serving do and as Python's `json` reads it: `null` would
/// silently turn an infinity into a missing value.
///
/// # Errors
/// The index of a `BYTES` element that is not UTF-8, which JSON cannot hold.
pub(crate) fn write_data(out: &mut Vec<u8>, data: &Data) -> Result<(), usize> {
    out.reserve(data.len() * typical_length(data.datatype()) + 2);
    out.push(b'[');
    match data {
        Data::Bool(values) => join(out, values, |out, v| {
            out.extend_from_slice(if *v == 0 { b"false" } else { b"true" });
        }),
        Data::Uint8(values) => join(out, values, |out, v| write_integer(out, *v)),
        Data::Uint16(values) => join(out, values, |out, v| write_integer(out, *v)),
        Data::Uint32(values) => join(out, values, |out, v| write_integer(out, *v)),
        Data::Uint64(values) => join(out, values, |out, v| write_integer(out, *v)),
        Data::Int8(values) => join(out, values, |out, v| write_integer(out, *v)),
        Data::Int16(values) => join(out, values, |out, v| write_integer(out, *v)),
        Data::Int32(values) => join(out, values, |out, v| write_integer(out, *v)),
        Data::Int64(values) => join(out, values, |out, v| write_integer(out, *v)),
        Data::Fp16(values) => join(out, values, |out, v| write_float(out, v.to_f32())),
        Data::Bf16(values) => join(out, values, |out, v| write_float(out, v.to_f32())),
        Data::Fp32(values) => join(out, values, |out, v| write_float(out, *v)),
        Data::Fp64(values) => join(out, values, |out, v| write_float(out, *v)),
        Data::Bytes(strings) => {
            for (index, string) in strings.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_string(out, std::str::from_utf8(string).map_err(|_| index)?);
            }
        }
    }
    out.push(b']');
    Ok(())
}

/// A guess that is seldom too small, in bytes per element with its comma.
fn typical_length(datatype: DataType) -> usize {
    match datatype {
        DataType::Fp64 => 20,
        DataType::Fp16 | DataType::Bf16 | DataType::Fp32 => 14,
        DataType::Int64 | DataType::Uint64 | DataType::Bytes => 8,
        _ => 6,
    }
}

#[inline(always)]
fn join<T>(out: &mut Vec<u8>, values: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, value);
    }
}

#[inline(always)]
fn write_integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// The shortest text that reads back as the same value.
#[inline(always)]
pub(crate) fn write_float(out: &mut Vec<u8>, value: impl zmij::Float + Into<f64> + Copy) {
    let wide: f64 = value.into();
    if wide.is_finite() {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    } else {
        out.extend_from_slice(non_finite(wide).as_bytes());
    }
}

/// The word for a value that is not finite.
pub(crate) fn non_finite(value: f64) -> &'static str {
    if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    }
}

/// A JSON string with its quotes.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut plain = 0;
    for (index, byte) in bytes.iter().enumerate() {
        if !matches!(byte, b'"' | b'\\' | 0..0x20) {
            continue;
        }
        out.extend_from_slice(&bytes[plain..index]);
        plain = index + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
        }
    }
    out.extend_from_slice(&bytes[plain..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::super::{NonFinite, Reader, read_array};
    use super::*;
    use bytes::Bytes;
    use model::{bf16, f16};
    use proptest::prelude::*;

    fn round_trip(data: &Data) -> Data {
        let mut text = Vec::new();
        write_data(&mut text, data).unwrap();
        let body = Bytes::from(text);
        let mut reader = Reader::new(&body, NonFinite::Allowed);
        let array = read_array(&mut reader, &body, data.datatype(), None).unwrap();
        reader.end().unwrap();
        array.data
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_the_same(
            bits in prop::collection::vec(any::<u64>(), 0..16),
            strings in prop::collection::vec(any::<String>(), 0..4),
        ) {
            let doubles: Vec<f64> = bits.iter().map(|b| f64::from_bits(*b)).filter(|v| !v.is_nan()).collect();
            let floats: Vec<f32> = bits.iter().map(|b| f32::from_bits(*b as u32)).filter(|v| !v.is_nan()).collect();
            let halves: Vec<f16> = bits.iter().map(|b| f16::from_bits(*b as u16)).filter(|v| !v.is_nan()).collect();
            let brains: Vec<bf16> = bits.iter().map(|b| bf16::from_bits(*b as u16)).filter(|v| !v.is_nan()).collect();
            for data in [
                Data::from(doubles), floats.into(), halves.into(), brains.into(), strings.into(),
                bits.iter().map(|b| *b as i8).collect::<Vec<_>>().into(),
                bits.iter().map(|b| *b as i64).collect::<Vec<_>>().into(),
                bits.iter().map(|b| b % 2 == 0).collect::<Vec<_>>().into(),
                bits.into(),
            ] {
                prop_assert_eq!(round_trip(&data), data);
            }
        }

        #[test]
        fn strings_are_written_as_serde_json_reads_them(text in any::<String>()) {
            let mut out = Vec::new();
            write_string(&mut out, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }

    #[test]
    fn values_that_are_not_finite_have_words() {
        let mut out = Vec::new();
        let values = vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        write_data(&mut out, &values.into()).unwrap();
        assert_eq!(out, b"[NaN,Infinity,-Infinity]");
    }

    #[test]
    fn bytes_that_json_cannot_hold_are_refused_by_index() {
        let data = Data::Bytes(vec![Bytes::from_static(b"a"), Bytes::from_static(&[0xff])]);
        assert_eq!(write_data(&mut Vec::new(), &data), Err(1));
    }
}
