//! Prediction requests by rows or by columns, and examples of features.

use std::ops::Range;

use bytes::Bytes;
use model::{DataType, Signature, Tensor, TensorSpec};

use super::super::json::{Elements, Error, NonFinite, Reader};
use crate::examples::too_many;
use crate::proto::tensorflow::feature::Kind;
use crate::proto::tensorflow::{BytesList, Example, Feature, Features, FloatList, Int64List};
use crate::refusals::invalid;
use crate::tensorflow::check_signature;

/// How a request gives its inputs, which is how the answer gives its outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// `instances`, answered by `predictions`.
    Rows,
    /// `inputs`, answered by `outputs`.
    Columns,
}

/// The fields of a request's object, and where their values are.
type Fields = Vec<(String, Range<usize>)>;

/// Reads a prediction's inputs.
pub(super) fn read_predict(
    body: &Bytes,
    signature: &Signature,
) -> Result<(Format, Vec<(String, Tensor)>), serving::Error> {
    let mut reader = Reader::new(body, NonFinite::Allowed);
    let fields = read_fields(&mut reader).map_err(of_json)?;
    reader.end().map_err(of_json)?;
    check_signature_name(&reader, &fields)?;
    let (format, span) = match (find(&fields, "instances"), find(&fields, "inputs")) {
        (Some(span), None) => (Format::Rows, span),
        (None, Some(span)) => (Format::Columns, span),
        (Some(_), Some(_)) => {
            return Err(invalid("expected only one of \"inputs\" and \"instances\", got both"));
        }
        (None, None) => return Err(invalid("Missing 'inputs' or 'instances' key")),
    };
    let mut reader = reader.at_value(span);
    let inputs = match format {
        Format::Rows => read_rows(&mut reader, body, signature),
        Format::Columns => read_columns(&mut reader, body, signature),
    };
    Ok((format, inputs.map_err(of_json)?))
}

/// The examples of a classification or a regression, and their context.
#[derive(Debug)]
pub(super) struct Examples {
    pub(super) examples: Vec<Example>,
    pub(super) context: Option<Example>,
}

/// Reads examples. Features that are no input are not looked at; the type of a feature is what its
/// input can take. The examples may take `limit` bytes beside what their features hold.
pub(super) fn read_examples(
    body: &Bytes,
    signature: &Signature,
    limit: usize,
) -> Result<Examples, serving::Error> {
    let mut reader = Reader::new(body, NonFinite::Allowed);
    let fields = read_fields(&mut reader).map_err(of_json)?;
    reader.end().map_err(of_json)?;
    check_signature_name(&reader, &fields)?;
    let span = find(&fields, "examples").ok_or_else(|| invalid("Missing 'examples' key"))?;
    let most = limit / size_of::<Example>();
    let mut examples = Vec::new();
    reader
        .at_value(span)
        .array(|reader, index| {
            let example = read_example(reader, body, signature);
            // One too many is kept, to be refused below.
            if index <= most {
                let place = || format!("examples[{index}]");
                examples.push(example.map_err(|error| labelled(error, &place()))?);
            }
            Ok(())
        })
        .map_err(of_json)?;
    if examples.len() > most {
        return Err(too_many());
    }
    let context = find(&fields, "context").map(|span| {
        let example = read_example(&mut reader.at_value(span), body, signature);
        example.map_err(|error| of_json(labelled(error, "context")))
    });
    Ok(Examples { examples, context: context.transpose()? })
}

fn read_example(
    reader: &mut Reader<'_>,
    body: &Bytes,
    signature: &Signature,
) -> Result<Example, Error> {
    let mut features = Features::default();
    reader.object(|reader, key| {
        let Some((_, spec)) = signature.input(key) else { return reader.skip().map(drop) };
        let kind = read_feature(reader, body, spec.datatype)
            .map_err(|error| labelled(error, &format!("input \"{}\"", spec.name)))?;
        features.feature.insert(key.to_owned(), Feature { kind: Some(kind) });
        Ok(())
    })?;
    Ok(Example { features: Some(features) })
}

/// A value, or a list of values. A feature knows three types, of which each input's stands for one.
fn read_feature(reader: &mut Reader<'_>, body: &Bytes, datatype: DataType) -> Result<Kind, Error> {
    use DataType::{Bf16, Bool, Bytes as Strings, Fp16, Fp32, Fp64};
    let read_as = match datatype {
        Bool | Strings => datatype,
        Fp16 | Bf16 | Fp32 | Fp64 => Fp32,
        _ => DataType::Int64,
    };
    let mut elements = Elements::new(read_as);
    let extents = elements.read(reader, body, "feature")?;
    if extents.len() > 1 {
        return Err(reader.error("a feature is a value or a list of values, got lists in a list"));
    }
    Ok(match elements {
        Elements::Bytes(value) => Kind::BytesList(BytesList { value }),
        Elements::Fp32(value) => Kind::FloatList(FloatList { value }),
        Elements::Int64(value) => Kind::Int64List(Int64List { value }),
        Elements::Bool(values) => {
            Kind::Int64List(Int64List { value: values.into_iter().map(i64::from).collect() })
        }
        _ => unreachable!("these four were asked for"),
    })
}

fn of_json(error: Error) -> serving::Error {
    invalid(error.to_string())
}

fn find<'a>(fields: &'a Fields, key: &str) -> Option<&'a Range<usize>> {
    fields.iter().find(|(name, _)| name == key).map(|(_, span)| span)
}

fn read_fields(reader: &mut Reader<'_>) -> Result<Fields, Error> {
    let mut fields = Fields::new();
    reader.object(|reader, key| {
        let span = reader.skip()?;
        fields.push((key.to_owned(), span));
        Ok(())
    })?;
    Ok(fields)
}

fn check_signature_name(reader: &Reader<'_>, fields: &Fields) -> Result<(), serving::Error> {
    let Some(span) = find(fields, "signature_name") else {
        return Ok(());
    };
    let name = reader.at_value(span).string();
    let name = name.map_err(|error| of_json(labelled(error, "signature_name")))?;
    check_signature(&name)
}

fn read_rows(
    reader: &mut Reader<'_>,
    body: &Bytes,
    signature: &Signature,
) -> Result<Vec<(String, Tensor)>, Error> {
    if reader.peek() != Some(b'[') {
        return Err(labelled(reader.unexpected("an array"), "instances"));
    }
    if !rows_are_objects(reader, signature) {
        let spec = only_input(reader, signature, "instances")?;
        let tensor = read_value(reader, body, spec, "instances")?;
        if tensor.rows() == Some(0) {
            return Err(reader.error("No values in 'instances' array"));
        }
        return Ok(vec![(spec.name.to_string(), tensor)]);
    }
    let mut rows = Rows::new(signature);
    reader.array(|reader, index| {
        let place = format!("instances[{index}]");
        if reader.peek() != Some(b'{') {
            return Err(labelled(reader.unexpected("an object like its neighbours"), &place));
        }
        let read = reader.object(|reader, key| {
            let position = rows.position(reader, key)?;
            rows.add(reader, body, position)
        });
        read.map_err(|error| labelled(error, &place))?;
        rows.end_row(reader, index)
    })?;
    let position = reader.error("");
    rows.finish("instances").map_err(|message| Error { message, ..position })
}

/// Whether instances name their inputs: an object that is not a base64 string.
fn rows_are_objects(reader: &Reader<'_>, signature: &Signature) -> bool {
    let mut ahead = reader.at_value(&reader.here());
    if !ahead.take(b'[') || ahead.peek() != Some(b'{') {
        return false;
    }
    let keys = read_fields(&mut ahead).unwrap_or_default();
    let is_base64 = keys.len() == 1 && keys[0].0 == "b64" && signature.input("b64").is_none();
    !is_base64
}

fn read_columns(
    reader: &mut Reader<'_>,
    body: &Bytes,
    signature: &Signature,
) -> Result<Vec<(String, Tensor)>, Error> {
    let mut ahead = reader.at_value(&reader.here());
    let is_object = ahead.peek() == Some(b'{');
    let keys = if is_object { read_fields(&mut ahead)? } else { Fields::new() };
    let is_base64 = keys.len() == 1 && keys[0].0 == "b64" && signature.input("b64").is_none();
    if !is_object || is_base64 {
        let spec = only_input(reader, signature, "inputs")?;
        let tensor = read_value(reader, body, spec, "inputs")?;
        return Ok(vec![(spec.name.to_string(), tensor)]);
    }
    let mut inputs = Vec::with_capacity(signature.inputs.len());
    reader.object(|reader, key| {
        let Some((_, spec)) = signature.input(key) else {
            return Err(unknown_input(reader, signature, key));
        };
        let tensor = read_value(reader, body, spec, "inputs")?;
        inputs.push((spec.name.to_string(), tensor));
        Ok(())
    })?;
    Ok(inputs)
}

fn read_value(
    reader: &mut Reader<'_>,
    body: &Bytes,
    spec: &TensorSpec,
    label: &'static str,
) -> Result<Tensor, Error> {
    let named = |error| labelled(error, &format!("input \"{}\"", spec.name));
    let mut elements = Elements::new(spec.datatype);
    let shape = elements.read(reader, body, label).map_err(named)?;
    Tensor::new(shape, elements.finish()).map_err(|error| named(reader.error(error.to_string())))
}

/// The input that a value without a name is for.
fn only_input<'a>(
    reader: &Reader<'_>,
    signature: &'a Signature,
    label: &str,
) -> Result<&'a TensorSpec, Error> {
    let mut required = signature.inputs.iter().filter(|spec| !spec.optional);
    match (required.next(), required.next()) {
        (Some(spec), None) => Ok(spec),
        _ => Err(reader.error(format!(
            "{label} is a plain list, but the model has several inputs: expected objects with the \
             keys {}",
            names(signature)
        ))),
    }
}

fn unknown_input(reader: &Reader<'_>, signature: &Signature, key: &str) -> Error {
    reader.error(serving::unknown_input(signature, key).to_string())
}

fn names(signature: &Signature) -> String {
    let quoted: Vec<_> = signature.inputs.iter().map(|spec| format!("{:?}", &*spec.name)).collect();
    quoted.join(", ")
}

fn labelled(mut error: Error, label: &str) -> Error {
    error.message = format!("{label}: {}", error.message);
    error
}

/// Inputs that come row by row.
struct Rows<'a> {
    signature: &'a Signature,
    columns: Vec<Column>,
    rows: usize,
}

struct Column {
    elements: Elements,
    /// The shape of one row, once there is one.
    extents: Option<Vec<usize>>,
    rows: usize,
}

impl<'a> Rows<'a> {
    fn new(signature: &'a Signature) -> Self {
        let column = |spec: &TensorSpec| Column {
            elements: Elements::new(spec.datatype),
            extents: None,
            rows: 0,
        };
        Self { signature, columns: signature.inputs.iter().map(column).collect(), rows: 0 }
    }

    fn position(&self, reader: &Reader<'_>, name: &str) -> Result<usize, Error> {
        let found = self.signature.input(name).map(|(position, _)| position);
        found.ok_or_else(|| unknown_input(reader, self.signature, name))
    }

    /// Reads one row's value of an input.
    fn add(&mut self, reader: &mut Reader<'_>, body: &Bytes, position: usize) -> Result<(), Error> {
        let column = &mut self.columns[position];
        let name = &self.signature.inputs[position].name;
        let label = format!("input \"{name}\"");
        let extents = column.elements.read(reader, body, "value");
        let extents = extents.map_err(|error| labelled(error, &label))?;
        match &column.extents {
            Some(first) if *first != extents => Err(reader.error(format!(
                "{label}: expected shape {first:?} as in the rows before, got {extents:?}"
            ))),
            _ => {
                column.extents = Some(extents);
                column.rows += 1;
                Ok(())
            }
        }
    }

    /// Refuses a row that lacks an input.
    fn end_row(&mut self, reader: &Reader<'_>, index: usize) -> Result<(), Error> {
        self.rows += 1;
        for (column, spec) in self.columns.iter().zip(&self.signature.inputs) {
            let left_out = spec.optional && column.rows == 0;
            if column.rows != self.rows && !left_out {
                let message = format!("row {index} has no input {:?}", &*spec.name);
                return Err(reader.error(message));
            }
        }
        Ok(())
    }

    /// The rows as tensors.
    fn finish(self, label: &str) -> Result<Vec<(String, Tensor)>, String> {
        if self.rows == 0 {
            return Err(format!("No values in '{label}' array"));
        }
        let mut inputs = Vec::with_capacity(self.columns.len());
        for (column, spec) in self.columns.into_iter().zip(&self.signature.inputs) {
            let Some(extents) = column.extents else { continue };
            let shape = [vec![self.rows], extents].concat();
            let tensor = Tensor::new(shape, column.elements.finish());
            inputs.push((spec.name.to_string(), tensor.map_err(|error| error.to_string())?));
        }
        Ok(inputs)
    }
}
