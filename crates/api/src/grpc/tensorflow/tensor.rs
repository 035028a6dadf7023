//! TensorFlow's tensors.

use model::{Data, DataType, Tensor, bf16, element_count, f16};
use serving::Error;

use crate::binary;
use crate::grpc::tensor::narrow;
use crate::proto::tensorflow as pb;
use crate::refusals::{self, refuse};

/// The tensor that a message holds, in whichever of its two forms.
///
/// A list that is shorter than the shape goes on with its last element, as the format has it; the
/// tensor may have at most `limit` bytes then.
pub(crate) fn decode(name: &str, message: pb::TensorProto, limit: usize) -> Result<Tensor, Error> {
    let datatype = datatype(name, message.dtype)?;
    let shape = message.tensor_shape.clone().unwrap_or_default();
    if shape.unknown_rank {
        return Err(refuse(name, "the tensor's shape has an unknown rank; a request states it"));
    }
    let extents: Vec<i64> = shape.dim.iter().map(|dim| dim.size).collect();
    let shape = refusals::shape(name, &extents)?;
    let list = list_of(datatype);
    let lists = lists(&message);
    if let Some((other, _)) = lists.iter().find(|(other, len)| *len > 0 && *other != list) {
        return Err(refuse(name, format!("{datatype} elements belong in {list}, not {other}")));
    }
    let given = lists.iter().map(|(_, len)| len).sum::<usize>();
    if !message.tensor_content.is_empty() {
        if given > 0 {
            return Err(refuse(name, format!("has {list} beside tensor_content; use one")));
        }
        if datatype == DataType::Bytes {
            return Err(refuse(name, "DT_STRING elements belong in string_val"));
        }
        return binary::decode(name, datatype, shape, message.tensor_content);
    }
    let data = data(name, datatype, message)?;
    let data = match element_count(&shape) {
        Some(count) if given > 0 && given < count => {
            let size = datatype.size().unwrap_or(size_of::<bytes::Bytes>());
            if count.checked_mul(size).is_none_or(|needed| needed > limit) {
                let why = format!("shape {shape:?} is too large to fill from {given} elements");
                return Err(refuse(name, why));
            }
            continued(data, count)
        }
        _ => data,
    };
    Tensor::new(shape, data).map_err(|error| refuse(name, error))
}

fn datatype(name: &str, code: i32) -> Result<DataType, Error> {
    let known = pb::DataType::try_from(code).ok();
    Ok(match known {
        Some(pb::DataType::DtBool) => DataType::Bool,
        Some(pb::DataType::DtUint8) => DataType::Uint8,
        Some(pb::DataType::DtUint16) => DataType::Uint16,
        Some(pb::DataType::DtUint32) => DataType::Uint32,
        Some(pb::DataType::DtUint64) => DataType::Uint64,
        Some(pb::DataType::DtInt8) => DataType::Int8,
        Some(pb::DataType::DtInt16) => DataType::Int16,
        Some(pb::DataType::DtInt32) => DataType::Int32,
        Some(pb::DataType::DtInt64) => DataType::Int64,
        Some(pb::DataType::DtHalf) => DataType::Fp16,
        Some(pb::DataType::DtBfloat16) => DataType::Bf16,
        Some(pb::DataType::DtFloat) => DataType::Fp32,
        Some(pb::DataType::DtDouble) => DataType::Fp64,
        Some(pb::DataType::DtString) => DataType::Bytes,
        other => {
            let called = other.map_or(code.to_string(), |other| other.as_str_name().to_string());
            return Err(refuse(name, format!("dtype {called} is not supported")));
        }
    })
}

/// TensorFlow's name of a type.
pub(super) const fn dtype(datatype: DataType) -> pb::DataType {
    match datatype {
        DataType::Bool => pb::DataType::DtBool,
        DataType::Uint8 => pb::DataType::DtUint8,
        DataType::Uint16 => pb::DataType::DtUint16,
        DataType::Uint32 => pb::DataType::DtUint32,
        DataType::Uint64 => pb::DataType::DtUint64,
        DataType::Int8 => pb::DataType::DtInt8,
        DataType::Int16 => pb::DataType::DtInt16,
        DataType::Int32 => pb::DataType::DtInt32,
        DataType::Int64 => pb::DataType::DtInt64,
        DataType::Fp16 => pb::DataType::DtHalf,
        DataType::Bf16 => pb::DataType::DtBfloat16,
        DataType::Fp32 => pb::DataType::DtFloat,
        DataType::Fp64 => pb::DataType::DtDouble,
        DataType::Bytes => pb::DataType::DtString,
    }
}

/// The list that a type's elements belong in.
const fn list_of(datatype: DataType) -> &'static str {
    match datatype {
        DataType::Fp32 => "float_val",
        DataType::Fp64 => "double_val",
        DataType::Fp16 | DataType::Bf16 => "half_val",
        DataType::Int32 | DataType::Int16 | DataType::Int8 => "int_val",
        DataType::Uint16 | DataType::Uint8 => "int_val",
        DataType::Int64 => "int64_val",
        DataType::Uint32 => "uint32_val",
        DataType::Uint64 => "uint64_val",
        DataType::Bool => "bool_val",
        DataType::Bytes => "string_val",
    }
}

fn lists(message: &pb::TensorProto) -> [(&'static str, usize); 9] {
    [
        ("half_val", message.half_val.len()),
        ("float_val", message.float_val.len()),
        ("double_val", message.double_val.len()),
        ("int_val", message.int_val.len()),
        ("string_val", message.string_val.len()),
        ("int64_val", message.int64_val.len()),
        ("bool_val", message.bool_val.len()),
        ("uint32_val", message.uint32_val.len()),
        ("uint64_val", message.uint64_val.len()),
    ]
}

fn data(name: &str, datatype: DataType, message: pb::TensorProto) -> Result<Data, Error> {
    Ok(match datatype {
        DataType::Fp32 => message.float_val.into(),
        DataType::Fp64 => message.double_val.into(),
        DataType::Int32 => message.int_val.into(),
        DataType::Int64 => message.int64_val.into(),
        DataType::Uint32 => message.uint32_val.into(),
        DataType::Uint64 => message.uint64_val.into(),
        DataType::Bool => message.bool_val.into(),
        DataType::Bytes => message.string_val.into(),
        DataType::Int8 => narrow::<i32, i8>(name, datatype, &message.int_val)?.into(),
        DataType::Int16 => narrow::<i32, i16>(name, datatype, &message.int_val)?.into(),
        DataType::Uint8 => narrow::<i32, u8>(name, datatype, &message.int_val)?.into(),
        DataType::Uint16 => narrow::<i32, u16>(name, datatype, &message.int_val)?.into(),
        DataType::Fp16 | DataType::Bf16 => {
            // Each is the 16 bits of a number.
            let bits: Vec<u16> = narrow(name, datatype, &message.half_val)?;
            match datatype {
                DataType::Fp16 => bits.into_iter().map(f16::from_bits).collect::<Vec<_>>().into(),
                _ => bits.into_iter().map(bf16::from_bits).collect::<Vec<_>>().into(),
            }
        }
    })
}

/// The same elements and then the last one, until there are `count`.
fn continued(data: Data, count: usize) -> Data {
    macro_rules! grow {
        ($buffer:expr) => {{
            let mut values = $buffer.into_vec();
            if let Some(last) = values.last().copied() {
                values.resize(count, last);
            }
            values.into()
        }};
    }
    match data {
        Data::Bool(buffer) => Data::Bool(grow!(buffer)),
        Data::Uint8(buffer) => Data::Uint8(grow!(buffer)),
        Data::Uint16(buffer) => Data::Uint16(grow!(buffer)),
        Data::Uint32(buffer) => Data::Uint32(grow!(buffer)),
        Data::Uint64(buffer) => Data::Uint64(grow!(buffer)),
        Data::Int8(buffer) => Data::Int8(grow!(buffer)),
        Data::Int16(buffer) => Data::Int16(grow!(buffer)),
        Data::Int32(buffer) => Data::Int32(grow!(buffer)),
        Data::Int64(buffer) => Data::Int64(grow!(buffer)),
        Data::Fp16(buffer) => Data::Fp16(grow!(buffer)),
        Data::Bf16(buffer) => Data::Bf16(grow!(buffer)),
        Data::Fp32(buffer) => Data::Fp32(grow!(buffer)),
        Data::Fp64(buffer) => Data::Fp64(grow!(buffer)),
        Data::Bytes(mut strings) => {
            if let Some(last) = strings.last().cloned() {
                strings.resize(count, last);
            }
            Data::Bytes(strings)
        }
    }
}

/// The message that holds a tensor, in the list of its type: what TensorFlow Serving answers
/// with, and what clients read that do not know the other form.
pub(super) fn encode(tensor: Tensor) -> pb::TensorProto {
    let (shape, data) = tensor.into_parts();
    let dim =
        |extent: &usize| pb::tensor_shape_proto::Dim { size: *extent as i64, ..Default::default() };
    let mut message = pb::TensorProto {
        dtype: dtype(data.datatype()).into(),
        tensor_shape: Some(pb::TensorShapeProto {
            dim: shape.iter().map(dim).collect(),
            unknown_rank: false,
        }),
        ..Default::default()
    };
    match data {
        Data::Bool(buffer) => message.bool_val = buffer.iter().map(|v| *v != 0).collect(),
        Data::Uint8(buffer) => message.int_val = buffer.iter().map(|v| (*v).into()).collect(),
        Data::Uint16(buffer) => message.int_val = buffer.iter().map(|v| (*v).into()).collect(),
        Data::Uint32(buffer) => message.uint32_val = buffer.into_vec(),
        Data::Uint64(buffer) => message.uint64_val = buffer.into_vec(),
        Data::Int8(buffer) => message.int_val = buffer.iter().map(|v| (*v).into()).collect(),
        Data::Int16(buffer) => message.int_val = buffer.iter().map(|v| (*v).into()).collect(),
        Data::Int32(buffer) => message.int_val = buffer.into_vec(),
        Data::Int64(buffer) => message.int64_val = buffer.into_vec(),
        Data::Fp16(buffer) => {
            message.half_val = buffer.iter().map(|v| v.to_bits().into()).collect();
        }
        Data::Bf16(buffer) => {
            message.half_val = buffer.iter().map(|v| v.to_bits().into()).collect();
        }
        Data::Fp32(buffer) => message.float_val = buffer.into_vec(),
        Data::Fp64(buffer) => message.double_val = buffer.into_vec(),
        Data::Bytes(strings) => message.string_val = strings,
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn message(dtype: pb::DataType, shape: &[i64]) -> pb::TensorProto {
        let dim = |size: &i64| pb::tensor_shape_proto::Dim { size: *size, ..Default::default() };
        pb::TensorProto {
            dtype: dtype.into(),
            tensor_shape: Some(pb::TensorShapeProto {
                dim: shape.iter().map(dim).collect(),
                unknown_rank: false,
            }),
            ..Default::default()
        }
    }

    fn why(message: pb::TensorProto) -> String {
        decode("x", message, 1 << 20).unwrap_err().to_string()
    }

    #[test]
    fn every_type_survives_both_ways() {
        for datatype in DataType::ALL {
            let data = match datatype {
                DataType::Bytes => vec![Bytes::from_static(b"a"), Bytes::new()].into(),
                plain => {
                    let size = plain.size().unwrap();
                    let bytes: Vec<u8> = (0..2 * size).map(|i| (i % 2) as u8).collect();
                    Data::from_bytes(plain, bytes.into()).unwrap()
                }
            };
            let tensor = Tensor::new(vec![2, 1], data).unwrap();
            let message = encode(tensor.clone());
            assert_eq!(decode("x", message.clone(), 0).unwrap(), tensor, "{datatype}");
            if let Some(bytes) = tensor.data().as_bytes() {
                let raw = pb::TensorProto {
                    dtype: message.dtype,
                    tensor_shape: message.tensor_shape,
                    tensor_content: Bytes::copy_from_slice(bytes),
                    ..Default::default()
                };
                assert_eq!(decode("x", raw, 0).unwrap(), tensor, "{datatype}");
            }
        }
    }

    #[test]
    fn a_short_list_goes_on_with_its_last_element() {
        let filled = |shape: &[i64]| pb::TensorProto {
            float_val: vec![1.0, 2.0],
            ..message(pb::DataType::DtFloat, shape)
        };
        let tensor = decode("x", filled(&[2, 2]), 1 << 20).unwrap();
        assert_eq!(tensor.as_slice::<f32>().unwrap(), [1.0, 2.0, 2.0, 2.0]);
        assert!(why(filled(&[1_000_000_000])).contains("too large to fill from 2 elements"));
        assert!(why(filled(&[1])).contains("needs 1 elements, got 2"));
        assert!(why(message(pb::DataType::DtFloat, &[2])).contains("needs 2 elements, got 0"));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let wrong = pb::TensorProto { int_val: vec![1], ..message(pb::DataType::DtFloat, &[1]) };
        assert_eq!(why(wrong), "input \"x\": FP32 elements belong in float_val, not int_val");
        let large = pb::TensorProto { int_val: vec![300], ..message(pb::DataType::DtUint8, &[1]) };
        assert_eq!(why(large), "input \"x\": element 0 is 300, which UINT8 cannot hold");
        assert_eq!(
            why(message(pb::DataType::DtComplex64, &[])),
            "input \"x\": dtype DT_COMPLEX64 is not supported"
        );
        let lie = pb::TensorProto {
            tensor_content: Bytes::from_static(&[0; 4]),
            ..message(pb::DataType::DtFloat, &[2])
        };
        assert_eq!(why(lie), "input \"x\": shape [2] FP32 needs 8 bytes, got 4");
    }
}
