//! An inference request: JSON, JSON with binary data behind it, or nothing but binary data.

use std::ops::Range;

use bytes::Bytes;
use model::{Data, DataType, Signature, Tensor, element_count};

use super::super::binary::Blobs;
use super::super::json::{Error, NonFinite, Reader, read_array, read_shape};
use crate::binary;
use crate::refusals::{self, WHOLE_NUMBER, invalid, refuse};

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
pub(super) fn decode(body: &Bytes, json_length: usize) -> Result<Decoded, serving::Error> {
    let mut blobs = Blobs::new(body.slice(json_length..));
    let mut reader = Reader::new(&body[..json_length], NonFinite::Refused);
    let mut decoded = Decoded::default();
    let mut has_inputs = false;
    // A refusal of what the JSON says, which is not one of the JSON.
    let mut refusal = None;
    let result = reader.object(|reader, key| match key {
        "id" => {
            decoded.id = Some(text(reader, "id")?);
            Ok(())
        }
        "inputs" => {
            has_inputs = true;
            reader.array(|reader, index| {
                let input = Input::read(reader, body);
                let input = input.map_err(|failed| failed.named("input", index))?;
                match input.into_tensor(reader, body, &mut blobs) {
                    Ok(named) => decoded.inputs.push(named),
                    Err(error) => return Err(set_aside(reader, &mut refusal, error)),
                }
                Ok(())
            })
        }
        "outputs" => reader.array(|reader, index| {
            let output = Output::read(reader).map_err(|failed| failed.named("output", index))?;
            match output.into_wanted(reader) {
                Ok(wanted) => decoded.outputs.push(wanted),
                Err(error) => return Err(set_aside(reader, &mut refusal, error)),
            }
            Ok(())
        }),
        "parameters" => match read_parameters(reader, &mut decoded)? {
            Sequence::None => Ok(()),
            Sequence::Some => Err(set_aside(reader, &mut refusal, refusals::sequence())),
        },
        _ => reader.skip().map(drop),
    });
    if let Some(error) = refusal {
        return Err(error);
    }
    result.and_then(|()| reader.end()).map_err(|error| invalid(error.to_string()))?;
    if !has_inputs {
        return Err(invalid("expected the key \"inputs\" in the request, got none"));
    }
    blobs.finish().map_err(invalid)?;
    Ok(decoded)
}

/// Ends the reading for a reason that is not the reader's.
fn set_aside(
    reader: &Reader<'_>,
    refusal: &mut Option<serving::Error>,
    error: serving::Error,
) -> Error {
    *refusal = Some(error);
    reader.error("")
}

/// A body that is one input's elements and nothing else: the model must have exactly one input,
/// of which at most one dimension varies, or a single string.
pub(super) fn decode_raw(body: Bytes, signature: &Signature) -> Result<Decoded, serving::Error> {
    let [spec] = &signature.inputs[..] else {
        return Err(invalid(format!(
            "a raw binary request needs a model with one input, but this one has {}",
            signature.inputs.len()
        )));
    };
    let name = &*spec.name;
    let extents = spec.extents();
    let tensor = if spec.datatype == DataType::Bytes {
        if extents.iter().any(|extent| !matches!(extent, 1 | -1)) {
            let why =
                format!("a raw binary request holds one string, but the shape is {extents:?}");
            return Err(refuse(name, why));
        }
        let data = Data::Bytes(vec![body]);
        Tensor::new(vec![1; extents.len()], data).map_err(|error| refuse(name, error))?
    } else {
        if extents.iter().filter(|extent| **extent < 0).count() > 1 {
            let why = format!(
                "a raw binary request cannot tell the shape, for more than one dimension of \
                 {extents:?} varies"
            );
            return Err(refuse(name, why));
        }
        let fixed: Vec<usize> = extents.iter().filter_map(|e| usize::try_from(*e).ok()).collect();
        let size = spec.datatype.size().unwrap_or(1);
        let row = element_count(&fixed).and_then(|count| count.checked_mul(size)).unwrap_or(0);
        let varying = body.len().checked_div(row).unwrap_or(0);
        let shape = extents.iter().map(|e| usize::try_from(*e).unwrap_or(varying)).collect();
        binary::decode(name, spec.datatype, shape, body)?
    };
    let inputs = vec![(name.to_owned(), tensor)];
    Ok(Decoded { inputs, binary_outputs: true, ..Decoded::default() })
}

/// Why the object of an input or an output cannot be read, and its name if that was read before.
struct Failed(Option<String>, Error);

impl Failed {
    fn named(self, kind: &str, index: usize) -> Error {
        let place = match self.0 {
            Some(name) => format!("{kind} \"{name}\""),
            None => format!("{kind}s[{index}]"),
        };
        prefixed(self.1, &place)
    }
}

/// An input's fields as far as they have been read.
#[derive(Default)]
struct Input {
    name: Option<String>,
    datatype: Option<DataType>,
    shape: Option<Vec<usize>>,
    binary_size: Option<usize>,
    data: Option<Read>,
    in_shared_memory: bool,
}

/// An input's `data`.
enum Read {
    /// Its elements, and the extents of the arrays that they stood in.
    Elements(Data, Vec<usize>),
    /// Where it stands, to be read once the type is known.
    Later(Range<usize>),
}

impl Input {
    fn read(reader: &mut Reader<'_>, body: &Bytes) -> Result<Self, Failed> {
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
                "parameters" => reader.object(|reader, key| {
                    input.in_shared_memory |= key == "shared_memory_region";
                    match key {
                        "binary_data_size" => {
                            let size = whole(reader, key)?;
                            input.binary_size = Some(usize::try_from(size).unwrap_or(usize::MAX));
                            Ok(())
                        }
                        _ => reader.skip().map(drop),
                    }
                })?,
                _ => {
                    reader.skip()?;
                }
            }
            Ok(())
        });
        match result {
            Ok(()) => Ok(input),
            Err(error) => Err(Failed(input.name, error)),
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
    ) -> Result<(String, Tensor), serving::Error> {
        let name = self.name.ok_or_else(|| nameless(reader, "an input"))?;
        let refused = |why: &str| refuse(&name, why);
        if self.in_shared_memory {
            return Err(refusals::shared_memory(&format!("input \"{name}\"")));
        }
        let shape = self.shape.ok_or_else(|| refused("it has no \"shape\""))?;
        let datatype = self.datatype.ok_or_else(|| refused("it has no \"datatype\""))?;
        let (data, extents) = match (self.data, self.binary_size) {
            (Some(_), Some(_)) => {
                return Err(refused("it has both \"data\" and \"binary_data_size\""));
            }
            (None, None) => {
                let why = "it has neither \"data\" nor the parameter \"binary_data_size\"";
                return Err(refused(why));
            }
            (None, Some(size)) => {
                let blob = blobs.take(size).map_err(|why| refused(&why))?;
                let tensor = binary::decode(&name, datatype, shape, blob)?;
                return Ok((name, tensor));
            }
            (Some(Read::Elements(data, extents)), None) => (data, extents),
            (Some(Read::Later(span)), None) => {
                let mut reader = reader.at_value(&span);
                let array = read_array(&mut reader, body, datatype, element_count(&shape));
                let array = array.map_err(|error| refused(&error.to_string()))?;
                (array.data, array.extents)
            }
        };
        if extents.len() > 1 && extents != shape {
            let why = format!("shape is {shape:?}, but data is nested as {extents:?}");
            return Err(refused(&why));
        }
        let tensor = Tensor::new(shape, data).map_err(|error| refuse(&name, error))?;
        Ok((name, tensor))
    }
}

fn nameless(reader: &Reader<'_>, what: &str) -> serving::Error {
    invalid(reader.error(format!("{what} has no \"name\"")).to_string())
}

fn read_datatype(reader: &mut Reader<'_>) -> Result<DataType, Error> {
    let start = reader.error("");
    let written = text(reader, "datatype")?;
    refusals::datatype(&written).map_err(|message| Error { message, ..start })
}

/// An output's fields as far as they have been read.
#[derive(Default)]
struct Output {
    name: Option<String>,
    binary: Option<bool>,
    classes: usize,
    in_shared_memory: bool,
}

impl Output {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Failed> {
        let mut output = Self::default();
        let result = reader.object(|reader, key| match key {
            "name" => {
                output.name = Some(text(reader, "name")?);
                Ok(())
            }
            "parameters" => reader.object(|reader, key| {
                output.in_shared_memory |= key == "shared_memory_region";
                match key {
                    "binary_data" => output.binary = Some(flag(reader, key)?),
                    "classification" => {
                        let classes = whole(reader, key)?;
                        output.classes = usize::try_from(classes).unwrap_or(usize::MAX);
                    }
                    _ => {
                        reader.skip()?;
                    }
                }
                Ok(())
            }),
            _ => reader.skip().map(drop),
        });
        match result {
            Ok(()) => Ok(output),
            Err(error) => Err(Failed(output.name, error)),
        }
    }

    fn into_wanted(self, reader: &Reader<'_>) -> Result<Wanted, serving::Error> {
        let name = self.name.ok_or_else(|| nameless(reader, "an output"))?;
        if self.in_shared_memory {
            return Err(refusals::shared_memory(&format!("output \"{name}\"")));
        }
        Ok(Wanted { name, binary: self.binary, classes: self.classes })
    }
}

/// Whether a request belongs to a sequence.
enum Sequence {
    None,
    Some,
}

fn read_parameters(reader: &mut Reader<'_>, decoded: &mut Decoded) -> Result<Sequence, Error> {
    let mut sequence = Sequence::None;
    reader.object(|reader, key| {
        match key {
            "priority" => {
                decoded.priority = u32::try_from(whole(reader, key)?).unwrap_or(u32::MAX);
            }
            "timeout" => decoded.timeout = Some(whole(reader, key)?),
            "binary_data_output" => decoded.binary_outputs = flag(reader, key)?,
            // 0 and "" mean that there is none.
            "sequence_id" if reader.word("0") || reader.word("\"\"") => {}
            "sequence_id" => {
                reader.skip()?;
                sequence = Sequence::Some;
            }
            _ => {
                reader.skip()?;
            }
        }
        Ok(())
    })?;
    Ok(sequence)
}

/// A parameter that has to be a whole number, 0 or more.
fn whole(reader: &mut Reader<'_>, name: &str) -> Result<u64, Error> {
    reader.integer().map_err(|_| parameter(reader.unexpected(WHOLE_NUMBER), name))
}

/// A parameter that has to be `true` or `false`.
fn flag(reader: &mut Reader<'_>, name: &str) -> Result<bool, Error> {
    reader.boolean().map_err(|error| parameter(error, name))
}

fn parameter(error: Error, name: &str) -> Error {
    prefixed(error, &format!("parameter \"{name}\""))
}

fn text(reader: &mut Reader<'_>, key: &str) -> Result<String, Error> {
    reader.string().map(Into::into).map_err(|error| prefixed(error, key))
}

fn prefixed(mut error: Error, place: &str) -> Error {
    error.message = format!("{place}: {}", error.message);
    error
}
