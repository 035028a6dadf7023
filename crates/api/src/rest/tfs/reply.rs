//! Predictions, classes and values as TensorFlow Serving writes them.

use base64::Engine;
use model::{Data, Tensor};
use serving::Reply;

use super::super::json::write_string;
use super::number::write_decimal;
use super::request::Format;
use crate::examples::Class;

/// One output of the answer.
struct Output<'a> {
    name: &'a str,
    tensor: &'a Tensor,
}

fn outputs(reply: &Reply) -> Vec<Output<'_>> {
    let specs = &reply.info.signature.outputs;
    let outputs = reply.outputs.iter();
    outputs.map(|(position, tensor)| Output { name: &specs[*position].name, tensor }).collect()
}

/// The body of a prediction.
pub(super) fn write_predict(reply: &Reply, format: Format) -> Result<Vec<u8>, String> {
    let outputs = outputs(reply);
    let mut out = Vec::with_capacity(256);
    match format {
        Format::Columns => {
            out.extend_from_slice(b"{\"outputs\":");
            write_named(&mut out, &outputs, |out, output| write_value(out, output, 0, &mut 0))?;
        }
        Format::Rows => {
            let rows = common_rows(&outputs)?;
            let mut offsets = vec![0; outputs.len()];
            out.extend_from_slice(b"{\"predictions\":[");
            for row in 0..rows {
                if row > 0 {
                    out.push(b',');
                }
                let mut offsets = offsets.iter_mut();
                write_named(&mut out, &outputs, |out, output| {
                    write_value(out, output, 1, offsets.next().unwrap_or(&mut 0))
                })?;
            }
            out.push(b']');
        }
    }
    out.push(b'}');
    Ok(out)
}

/// The rows that all outputs have.
fn common_rows(outputs: &[Output<'_>]) -> Result<usize, String> {
    let mut rows = None;
    for output in outputs {
        let Some(count) = output.tensor.rows() else {
            return Err(format!(
                "output \"{}\" has no rows; ask by columns, with \"inputs\"",
                output.name
            ));
        };
        match rows {
            Some(expected) if expected != count => {
                return Err(format!(
                    "output \"{}\" has {count} rows, but the first has {expected}; ask by columns, \
                     with \"inputs\"",
                    output.name
                ));
            }
            _ => rows = Some(count),
        }
    }
    Ok(rows.unwrap_or(0))
}

/// Writes an object of all outputs, or a single output without its name.
fn write_named(
    out: &mut Vec<u8>,
    outputs: &[Output<'_>],
    mut write: impl FnMut(&mut Vec<u8>, &Output<'_>) -> Result<(), String>,
) -> Result<(), String> {
    if let [single] = outputs {
        return write(out, single);
    }
    out.push(b'{');
    for (index, output) in outputs.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(out, output.name);
        out.push(b':');
        write(out, output)?;
    }
    out.push(b'}');
    Ok(())
}

/// Writes the next value of a tensor from a dimension on, and moves the offset past it.
fn write_value(
    out: &mut Vec<u8>,
    output: &Output<'_>,
    dimension: usize,
    offset: &mut usize,
) -> Result<(), String> {
    let Some(extent) = output.tensor.shape().get(dimension) else {
        write_element(out, output, *offset)?;
        *offset += 1;
        return Ok(());
    };
    out.push(b'[');
    for index in 0..*extent {
        if index > 0 {
            out.push(b',');
        }
        write_value(out, output, dimension + 1, offset)?;
    }
    out.push(b']');
    Ok(())
}

fn write_element(out: &mut Vec<u8>, output: &Output<'_>, index: usize) -> Result<(), String> {
    fn integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
        out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }
    match output.tensor.data() {
        Data::Bool(values) => {
            out.extend_from_slice(if values[index] == 0 { b"false" } else { b"true" });
        }
        Data::Uint8(values) => integer(out, values[index]),
        Data::Uint16(values) => integer(out, values[index]),
        Data::Uint32(values) => integer(out, values[index]),
        Data::Uint64(values) => integer(out, values[index]),
        Data::Int8(values) => integer(out, values[index]),
        Data::Int16(values) => integer(out, values[index]),
        Data::Int32(values) => integer(out, values[index]),
        Data::Int64(values) => integer(out, values[index]),
        Data::Fp16(values) => write_decimal(out, values[index].to_f32()),
        Data::Bf16(values) => write_decimal(out, values[index].to_f32()),
        Data::Fp32(values) => write_decimal(out, values[index]),
        Data::Fp64(values) => write_decimal(out, values[index]),
        Data::Bytes(strings) if output.name.ends_with("_bytes") => {
            out.extend_from_slice(b"{\"b64\":\"");
            let text = base64::engine::general_purpose::STANDARD.encode(&strings[index]);
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(b"\"}");
        }
        Data::Bytes(strings) => match std::str::from_utf8(&strings[index]) {
            Ok(text) => write_string(out, text),
            Err(_) => {
                return Err(format!(
                    "output \"{}\": element {index} is not UTF-8, which JSON cannot hold; only \
                     outputs whose name ends in _bytes are written as base64",
                    output.name
                ));
            }
        },
    }
    Ok(())
}

/// The body of a classification: for each example, each class with its score.
pub(super) fn write_classes(results: &[Vec<Class>]) -> Vec<u8> {
    write_results(results, |out, classes| {
        write_list(out, classes, |out, (label, score)| {
            out.push(b'[');
            write_string(out, label);
            out.push(b',');
            write_decimal(out, *score);
            out.push(b']');
        });
    })
}

/// The body of a regression: for each example, a value.
pub(super) fn write_values(results: &[f32]) -> Vec<u8> {
    write_results(results, |out, value| write_decimal(out, *value))
}

fn write_results<T>(results: &[T], write: impl Fn(&mut Vec<u8>, &T)) -> Vec<u8> {
    let mut out = b"{\"results\":".to_vec();
    write_list(&mut out, results, write);
    out.push(b'}');
    out
}

fn write_list<T>(out: &mut Vec<u8>, items: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}
