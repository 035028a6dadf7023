//! Tensors of the Open Inference Protocol's messages.

use std::collections::HashMap;

use bytes::Bytes;
use model::{Data, DataType, Tensor};
use serving::Error;

use crate::binary;
use crate::proto::inference::{InferParameter, InferTensorContents, model_infer_request};
use crate::refusals::{self, invalid, refuse};

/// The request's inputs, each from its raw contents or its typed contents.
pub(super) fn inputs(
    inputs: Vec<model_infer_request::InferInputTensor>,
    raw: Vec<Bytes>,
) -> Result<Vec<(String, Tensor)>, Error> {
    if raw.is_empty() {
        return inputs.into_iter().map(|input| decode(input, None)).collect();
    }
    if raw.len() != inputs.len() {
        let message = format!(
            "expected raw_input_contents for each of the {} inputs, got {}",
            inputs.len(),
            raw.len()
        );
        return Err(invalid(message));
    }
    inputs.into_iter().zip(raw).map(|(input, raw)| decode(input, Some(raw))).collect()
}

fn decode(
    input: model_infer_request::InferInputTensor,
    raw: Option<Bytes>,
) -> Result<(String, Tensor), Error> {
    let name = input.name;
    no_shared_memory(&format!("input \"{name}\""), &input.parameters)?;
    let datatype = refusals::datatype(&input.datatype).map_err(|why| refuse(&name, why))?;
    let shape = refusals::shape(&name, &input.shape)?;
    let tensor = match (raw, input.contents) {
        (Some(_), Some(contents)) if !contents.is_empty() => {
            let why = "has contents beside raw_input_contents; a request has one or the other";
            return Err(refuse(&name, why));
        }
        (Some(raw), _) => binary::decode(&name, datatype, shape, raw)?,
        (None, contents) => {
            let data = contents.unwrap_or_default().data(&name, datatype)?;
            Tensor::new(shape, data).map_err(|error| refuse(&name, error))?
        }
    };
    Ok((name, tensor))
}

/// Refuses a tensor that is said to lie in memory that we cannot see.
pub(super) fn no_shared_memory(
    what: &str,
    parameters: &HashMap<String, InferParameter>,
) -> Result<(), Error> {
    if parameters.contains_key("shared_memory_region") {
        return Err(refusals::shared_memory(what));
    }
    Ok(())
}

impl InferTensorContents {
    /// The lists and how many elements each has.
    fn lists(&self) -> [(&'static str, usize); 8] {
        [
            ("bool_contents", self.bool_contents.len()),
            ("int_contents", self.int_contents.len()),
            ("int64_contents", self.int64_contents.len()),
            ("uint_contents", self.uint_contents.len()),
            ("uint64_contents", self.uint64_contents.len()),
            ("fp32_contents", self.fp32_contents.len()),
            ("fp64_contents", self.fp64_contents.len()),
            ("bytes_contents", self.bytes_contents.len()),
        ]
    }

    fn is_empty(&self) -> bool {
        self.lists().iter().all(|(_, len)| *len == 0)
    }

    /// The elements, from the list that fits the type; no other may have any.
    fn data(self, name: &str, datatype: DataType) -> Result<Data, Error> {
        let Some(list) = list_of(datatype) else {
            let why = format!("{datatype} has no typed contents; send it in raw_input_contents");
            return Err(refuse(name, why));
        };
        if let Some((other, _)) = self.lists().iter().find(|(other, n)| *n > 0 && *other != list) {
            return Err(refuse(name, format!("{datatype} elements belong in {list}, not {other}")));
        }
        Ok(match datatype {
            DataType::Bool => self.bool_contents.into(),
            DataType::Int8 => narrow::<i32, i8>(name, datatype, &self.int_contents)?.into(),
            DataType::Int16 => narrow::<i32, i16>(name, datatype, &self.int_contents)?.into(),
            DataType::Int32 => self.int_contents.into(),
            DataType::Int64 => self.int64_contents.into(),
            DataType::Uint8 => narrow::<u32, u8>(name, datatype, &self.uint_contents)?.into(),
            DataType::Uint16 => narrow::<u32, u16>(name, datatype, &self.uint_contents)?.into(),
            DataType::Uint32 => self.uint_contents.into(),
            DataType::Uint64 => self.uint64_contents.into(),
            DataType::Fp32 => self.fp32_contents.into(),
            DataType::Fp64 => self.fp64_contents.into(),
            DataType::Bytes => self.bytes_contents.into(),
            DataType::Fp16 | DataType::Bf16 => Data::empty(datatype),
        })
    }
}

/// The list that a type's elements belong in, if the protocol has one.
const fn list_of(datatype: DataType) -> Option<&'static str> {
    Some(match datatype {
        DataType::Bool => "bool_contents",
        DataType::Int8 | DataType::Int16 | DataType::Int32 => "int_contents",
        DataType::Int64 => "int64_contents",
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 => "uint_contents",
        DataType::Uint64 => "uint64_contents",
        DataType::Fp32 => "fp32_contents",
        DataType::Fp64 => "fp64_contents",
        DataType::Bytes => "bytes_contents",
        DataType::Fp16 | DataType::Bf16 => return None,
    })
}

/// Elements that came in a wider type than theirs.
pub(super) fn narrow<Wide, Narrow>(
    name: &str,
    datatype: DataType,
    values: &[Wide],
) -> Result<Vec<Narrow>, Error>
where
    Wide: Copy + std::fmt::Display,
    Narrow: TryFrom<Wide>,
{
    let each = values.iter().enumerate().map(|(index, value)| {
        Narrow::try_from(*value).map_err(|_| {
            refuse(name, format!("element {index} is {value}, which {datatype} cannot hold"))
        })
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(datatype: &str, shape: &[i64]) -> model_infer_request::InferInputTensor {
        model_infer_request::InferInputTensor {
            name: "x".into(),
            datatype: datatype.into(),
            shape: shape.to_vec(),
            ..Default::default()
        }
    }

    fn typed(datatype: &str, contents: InferTensorContents) -> Result<Tensor, String> {
        let input = model_infer_request::InferInputTensor {
            contents: Some(contents),
            ..input(datatype, &[2])
        };
        let mut tensors = inputs(vec![input], Vec::new()).map_err(|error| error.to_string())?;
        Ok(tensors.remove(0).1)
    }

    #[test]
    fn typed_contents_come_from_the_list_of_their_type() {
        let ints = |values: &[i32]| InferTensorContents {
            int_contents: values.to_vec(),
            ..Default::default()
        };
        assert_eq!(typed("INT8", ints(&[1, -2])).unwrap().as_slice::<i8>().unwrap(), [1, -2]);
        assert_eq!(typed("INT16", ints(&[1, -2])).unwrap().as_slice::<i16>().unwrap(), [1, -2]);
        assert_eq!(
            typed("INT8", ints(&[1, 128])).unwrap_err(),
            "input \"x\": element 1 is 128, which INT8 cannot hold"
        );
        assert_eq!(
            typed("FP32", ints(&[1, 2])).unwrap_err(),
            "input \"x\": FP32 elements belong in fp32_contents, not int_contents"
        );
        assert_eq!(
            typed("FP16", ints(&[1, 2])).unwrap_err(),
            "input \"x\": FP16 has no typed contents; send it in raw_input_contents"
        );
        assert_eq!(
            typed("INT32", ints(&[1])).unwrap_err(),
            "input \"x\": shape [2] needs 2 elements, got 1"
        );
    }

    #[test]
    fn raw_and_typed_contents_do_not_mix() {
        let raw = Bytes::from_static(&[0; 8]);
        let both = model_infer_request::InferInputTensor {
            contents: Some(InferTensorContents {
                fp32_contents: vec![0.0, 0.0],
                ..Default::default()
            }),
            ..input("FP32", &[2])
        };
        let error = inputs(vec![both], vec![raw.clone()]).unwrap_err();
        assert!(error.to_string().contains("one or the other"), "{error}");
        let error = inputs(vec![input("FP32", &[2]); 2], vec![raw.clone()]).unwrap_err();
        assert!(error.to_string().contains("each of the 2 inputs, got 1"), "{error}");
        let tensors = inputs(vec![input("FP32", &[2])], vec![raw.clone()]).unwrap();
        assert_eq!(tensors[0].1.data().as_bytes().unwrap().as_ptr(), raw.as_ptr());
    }

    #[test]
    fn an_empty_tensor_needs_no_contents() {
        let tensors = inputs(vec![input("FP32", &[0, 3])], Vec::new()).unwrap();
        assert_eq!(tensors[0].1.shape(), [0, 3]);
    }
}
