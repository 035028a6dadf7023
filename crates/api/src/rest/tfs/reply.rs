//! Predictions, classes and values as TensorFlow Serving writes them.

use base64::Engine;
use model::{Data, Tensor, TensorSpec, element_count};
use serving::Reply;

use super::super::json::write_string;
use super::number::write_decimal;
use super::request::Format;

/// One output of the answer.
struct Output<'a> {
    name: &'a str,
    spec: &'a TensorSpec,
    tensor: &'a Tensor,
}

fn outputs(reply: &Reply) -> Vec<Output<'_>> {
    let output = |(position, tensor)| {
        let spec: &TensorSpec = &reply.info.signature.outputs[position];
        Output { name: &spec.name, spec, tensor }
    };
    reply.outputs.iter().map(|(position, tensor)| output((*position, tensor))).collect()
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
pub(super) fn write_classes(reply: &Reply) -> Result<Vec<u8>, String> {
    let outputs = outputs(reply);
    let scores = outputs.iter().find(|o| is_float(o.tensor) && o.tensor.shape().len() == 2);
    let scores = scores.ok_or(
        "Expected a model with an output of scores, floating point with shape [rows, classes]; \
         this one has none",
    )?;
    let [rows, classes] = *scores.tensor.shape() else { unreachable!("two dimensions") };
    let names = outputs.iter().find(|output| {
        output.tensor.as_strings().is_some() && output.tensor.shape() == scores.tensor.shape()
    });
    let mut out = b"{\"results\":[".to_vec();
    for row in 0..rows {
        out.extend_from_slice(if row > 0 { b",[" } else { b"[" });
        for class in 0..classes {
            let index = row * classes + class;
            out.extend_from_slice(if class > 0 { b",[" } else { b"[" });
            match (names, scores.spec.labels.get(class)) {
                (Some(names), _) => write_element(&mut out, names, index)?,
                (None, Some(label)) => write_string(&mut out, label),
                (None, None) => write_string(&mut out, &class.to_string()),
            }
            out.push(b',');
            write_element(&mut out, scores, index)?;
            out.push(b']');
        }
        out.push(b']');
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

/// The body of a regression: for each example, a value.
pub(super) fn write_values(reply: &Reply) -> Result<Vec<u8>, String> {
    let outputs = outputs(reply);
    let is_value = |output: &&Output<'_>| {
        let shape = output.tensor.shape();
        is_float(output.tensor) && !shape.is_empty() && element_count(&shape[1..]) == Some(1)
    };
    let values = outputs.iter().find(is_value);
    let values = values.ok_or(
        "Expected a model with an output of one floating-point value per row; this one has none",
    )?;
    let mut out = b"{\"results\":[".to_vec();
    for index in 0..values.tensor.len() {
        if index > 0 {
            out.push(b',');
        }
        write_element(&mut out, values, index)?;
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

fn is_float(tensor: &Tensor) -> bool {
    matches!(tensor.data(), Data::Fp16(_) | Data::Bf16(_) | Data::Fp32(_) | Data::Fp64(_))
}
