//! An inference request: JSON, JSON with binary data behind it, or nothing but binary data.

use std::ops::Range;

use bytes::Bytes;
use model::{Data, DataType, Signature, Tensor, element_count};

use super::super::binary::{self, Blobs};
use super::super::json::{Error, NonFinite, Reader, read_array, read_shape};

/// A request as it was written, before it is known whether the model can take it.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    pub(super) id: Option<String>,
    pub(super) inputs: Vec<(String, Tensor)>,
    pub(super) outputs: Vec<Wanted>,
    pub(super) priority: u32,
    /// Microseconds from arrival until the answer is of no more use.
    pub(super) timeout: Option<u64>,
    /// Whether outputs that do not say are to be binary.
    pub(super) binary_outputs: bool,
}

/// One output that was asked for.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) binary: Option<bool>,
    /// How many of the best classes are wanted instead of the values; 0 for the values.
    pub(super) classes: usize,
}

/// Reads the JSON of `body`, which is its first `json_length` bytes, and the binary data behind.
pub(super) fn decode(body: &Bytes, json_length: usize) -> Result<Decoded, String> {
    let mut blobs = Blobs::new(body.slice(json_length..));
    let mut reader = Reader::new(&body[..json_length], NonFinite::Refused);
    let mut decoded = Decoded::default();
    let mut has_inputs = false;
    // An error inside an input is reported with the input's name, which the JSON reader's own
    // errors cannot carry.
    let mut refusal = None;
    let result = reader.object(|reader, key| match key {
        "id" => {
            decoded.id = Some(text(reader, "id")?);
            Ok(())
        }
        "inputs" => {
            has_inputs = true;
            reader.array(|reader, index| {
                let input = Input::read(reader, body).map_err(|(name, error)| {
                    let place = name.map_or(format!("inputs[{index}]"), |n| format!("input {n:?}"));
                    prefixed(error, &place)
                })?;
                match input.into_tensor(reader, body, &mut blobs) {
                    Ok(named) => decoded.inputs.push(named),
                    Err(message) => {
                        refusal = Some(message);
                        return Err(reader.error(""));
                    }
                }
                Ok(())
            })
        }
        "outputs" => reader.array(|reader, index| {
            let wanted = read_output(reader).map_err(|e| prefixed(e, &format!("outputs[{index}]")));
            decoded.outputs.push(wanted?);
            Ok(())
        }),
        "parameters" => read_parameters(reader, &mut decoded),
        _ => reader.skip().map(drop),
    });
    if let Some(message) = refusal {
        return Err(message);
    }
    result.map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())?;
    if !has_inputs {
        return Err("expected the key \"inputs\" in the request, got none".into());
    }
    blobs.finish()?;
    Ok(decoded)
}

/// A body that is one input's elements and nothing else: the model must have exactly one input,
/// of which at most one dimension varies, or a single string.
pub(super) fn decode_raw(body: Bytes, signature: &Signature) -> Result<Decoded, String> {
    let [spec] = &signature.inputs[..] else {
        return Err(format!(
            "a raw binary request needs a model with one input, but this one has {}",
            signature.inputs.len()
        ));
    };
    let refused = |why: String| format!("input \"{}\": {why}", spec.name);
    let extents = spec.extents();
    let (shape, data) = if spec.datatype == DataType::Bytes {
        if extents.iter().any(|extent| !matches!(extent, 1 | -1)) {
            return Err(refused(format!(
                "a raw binary request holds one string, but the shape is {extents:?}"
            )));
        }
        (vec![1; extents.len()], Data::Bytes(vec![body]))
    } else {
        if extents.iter().filter(|extent| **extent < 0).count() > 1 {
            return Err(refused(format!(
                "a raw binary request cannot tell the shape, for more than one dimension of \
                 {extents:?} varies"
            )));
        }
        let fixed: Vec<usize> = extents.iter().filter_map(|e| usize::try_from(*e).ok()).collect();
        let row = element_count(&fixed).unwrap_or(0) * spec.datatype.size().unwrap_or(1);
        let varying = body.len().checked_div(row).unwrap_or(0);
        let shape: Vec<usize> =
            extents.iter().map(|e| usize::try_from(*e).unwrap_or(varying)).collect();
        let count = element_count(&shape).unwrap_or(usize::MAX);
        (shape, binary::decode(body, spec.datatype, count).map_err(refused)?)
    };
    let tensor = Tensor::new(shape, data).map_err(|error| error.to_string())?;
    let inputs = vec![(spec.name.to_string(), tensor)];
    Ok(Decoded { inputs, binary_outputs: true, ..Decoded::default() })
}

/// An input's fields as far as they have been read.
#[derive(Default)]
struct Input {
    name: Option<String>,
    datatype: Option<DataType>,
    shape: Option<Vec<usize>>,
    binary_size: Option<usize>,
    data: Option<Read>,
}

/// An input's `data`.
enum Read {
    /// Its elements, and the extents of the arrays that they stood in.
    Elements(Data, Vec<usize>),
    /// Where it stands, to be read once the type is known.
    Later(Range<usize>),
}

impl Input {
    /// Reads an input object; an error comes with the input's name if that was read before.
    fn read(reader: &mut Reader<'_>, body: &Bytes) -> Result<Self, (Option<String>, Error)> {
        let mut input = Self::default();
        let result = reader.object(|reader, key| {
            match key {
                "name" => input.name = Some(text(reader, "name")?),
                "datatype" => input.datatype = Some(read_datatype(reader)?),
                "shape" => {
                    let shape = read_shape(reader).map_err(|error| prefixed(error, "shape"));
                    input.shape = Some(shape?);
                }
                "data" => input.data = Some(input.read_data(reader, body)?),
                "parameters" => reader.object(|reader, key| match key {
                    "binary_data_size" => {
                        let size = reader.integer().map_err(|e| prefixed(e, "binary_data_size"));
                        input.binary_size = Some(size?);
                        Ok(())
                    }
                    "shared_memory_region" => Err(reader.error(NO_SHARED_MEMORY)),
                    _ => reader.skip().map(drop),
                })?,
                _ => {
                    reader.skip()?;
                }
            }
            Ok(())
        });
        match result {
            Ok(()) => Ok(input),
            Err(error) => Err((input.name, error)),
        }
    }

    fn read_data(&self, reader: &mut Reader<'_>, body: &Bytes) -> Result<Read, Error> {
        let Some(datatype) = self.datatype else {
            return reader.skip().map(Read::Later);
        };
        let announced = self.shape.as_deref().and_then(element_count);
        let array = read_array(reader, body, datatype, announced)?;
        Ok(Read::Elements(array.data, array.extents))
    }

    /// The input's name and tensor, if the fields agree with each other.
    fn into_tensor(
        self,
        reader: &Reader<'_>,
        body: &Bytes,
        blobs: &mut Blobs,
    ) -> Result<(String, Tensor), String> {
        let at = |what: &str| reader.error(what).to_string();
        let name = self.name.ok_or_else(|| at("an input has no \"name\""))?;
        let refused = |why: String| format!("input \"{name}\": {why}");
        let shape = self.shape.ok_or_else(|| refused("it has no \"shape\"".into()))?;
        let datatype = self.datatype.ok_or_else(|| refused("it has no \"datatype\"".into()))?;
        let (data, extents) = match (self.data, self.binary_size) {
            (Some(_), Some(_)) => {
                return Err(refused("it has both \"data\" and \"binary_data_size\"".into()));
            }
            (None, None) => {
                return Err(refused(
                    "it has neither \"data\" nor the parameter \"binary_data_size\"".into(),
                ));
            }
            (None, Some(size)) => {
                let blob = blobs.take(size).map_err(refused)?;
                let count = element_count(&shape).unwrap_or(usize::MAX);
                let shown = format!("shape {shape:?} {datatype}");
                let data = binary::decode(blob, datatype, count);
                (data.map_err(|why| refused(format!("{shown}: {why}")))?, Vec::new())
            }
            (Some(Read::Elements(data, extents)), None) => (data, extents),
            (Some(Read::Later(span)), None) => {
                let mut reader = reader.at_value(&span);
                let array = read_array(&mut reader, body, datatype, element_count(&shape));
                let array = array.map_err(|error| refused(error.to_string()))?;
                (array.data, array.extents)
            }
        };
        if extents.len() > 1 && extents != shape {
            return Err(refused(format!("shape is {shape:?}, but data is nested as {extents:?}")));
        }
        let tensor = Tensor::new(shape, data).map_err(|error| refused(error.to_string()))?;
        Ok((name, tensor))
    }
}

const NO_SHARED_MEMORY: &str =
    "shared memory is not supported; send the data in the request, as JSON or binary";

fn read_datatype(reader: &mut Reader<'_>) -> Result<DataType, Error> {
    let start = reader.error("");
    let written = text(reader, "datatype")?;
    DataType::parse(&written).ok_or_else(|| {
        let known: Vec<&str> = DataType::ALL.iter().map(|datatype| datatype.as_str()).collect();
        let message = format!("datatype: expected one of {}, got {written:?}", known.join(", "));
        Error { message, ..start }
    })
}

fn read_output(reader: &mut Reader<'_>) -> Result<Wanted, Error> {
    let mut wanted = Wanted::default();
    let mut named = false;
    reader.object(|reader, key| {
        match key {
            "name" => {
                wanted.name = text(reader, "name")?;
                named = true;
            }
            "parameters" => reader.object(|reader, key| {
                match key {
                    "binary_data" => {
                        let binary = reader.boolean().map_err(|e| prefixed(e, "binary_data"));
                        wanted.binary = Some(binary?);
                    }
                    "classification" => {
                        let classes = reader.integer().map_err(|e| prefixed(e, "classification"));
                        wanted.classes = classes?;
                    }
                    "shared_memory_region" => return Err(reader.error(NO_SHARED_MEMORY)),
                    _ => {
                        reader.skip()?;
                    }
                }
                Ok(())
            })?,
            _ => {
                reader.skip()?;
            }
        }
        Ok(())
    })?;
    if named { Ok(wanted) } else { Err(reader.error("an output has no \"name\"")) }
}

fn read_parameters(reader: &mut Reader<'_>, decoded: &mut Decoded) -> Result<(), Error> {
    reader.object(|reader, key| {
        let read = match key {
            "priority" => reader.integer().map(|priority| decoded.priority = priority),
            "timeout" => reader.integer().map(|timeout| decoded.timeout = Some(timeout)),
            "binary_data_output" => reader.boolean().map(|binary| decoded.binary_outputs = binary),
            // A sequence's requests depend on each other; answering them as if they did not would
            // be silently wrong. 0 and "" mean that there is none.
            "sequence_id" => {
                if reader.word("0") || reader.word("\"\"") {
                    return Ok(());
                }
                return Err(reader.error("sequence_id: sequences are not supported"));
            }
            _ => reader.skip().map(drop),
        };
        read.map_err(|error| prefixed(error, key))
    })
}

fn text(reader: &mut Reader<'_>, key: &str) -> Result<String, Error> {
    reader.string().map(Into::into).map_err(|error| prefixed(error, key))
}

fn prefixed(mut error: Error, place: &str) -> Error {
    error.message = format!("{place}: {}", error.message);
    error
}
