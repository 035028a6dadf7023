//! An inference answer: JSON, with binary data behind it where that was asked for.

use std::cmp::Ordering;

use bytes::Bytes;
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use model::{Data, Tensor, TensorSpec, element_count, match_data};
use serving::Reply;

use super::super::json::{write_data, write_string};
use super::HEADER_LENGTH;
use super::request::Wanted;
use crate::binary;
use crate::error::Failure;
use crate::server::Body;

const VERSION: HeaderName = HeaderName::from_static("modelyard-version");
const BATCH_SIZE: HeaderName = HeaderName::from_static("modelyard-batch-size");
const QUEUE: HeaderName = HeaderName::from_static("modelyard-queue-us");
const COMPUTE: HeaderName = HeaderName::from_static("modelyard-compute-us");

/// The answer to a request for these outputs (all of them if none was named).
pub(super) fn encode(
    reply: &Reply,
    wanted: &[Wanted],
    binary_outputs: bool,
) -> Result<Response<Body>, Failure> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"{\"model_name\":");
    write_string(&mut out, &reply.info.name);
    out.extend_from_slice(b",\"model_version\":");
    write_string(&mut out, &reply.info.version);
    if let Some(id) = &reply.id {
        out.extend_from_slice(b",\"id\":");
        write_string(&mut out, id);
    }
    out.extend_from_slice(b",\"outputs\":[");
    let mut blobs: Vec<Data> = Vec::new();
    for (index, (position, tensor)) in reply.outputs.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let spec = &reply.info.signature.outputs[*position];
        let wanted = wanted.get(index);
        let classes = wanted.map_or(0, |wanted| wanted.classes);
        let best =
            (classes > 0).then(|| classify(tensor, spec, classes, reply.info.max_batch_size > 0));
        let tensor = best.as_ref().unwrap_or(tensor);
        let is_binary = wanted.and_then(|wanted| wanted.binary).unwrap_or(binary_outputs);
        write_output(&mut out, &spec.name, tensor, is_binary)?;
        if is_binary {
            blobs.push(tensor.data().clone());
        }
    }
    out.extend_from_slice(b"]}");
    let mut headers = HeaderMap::with_capacity(8);
    if blobs.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    } else {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(HEADER_LENGTH, HeaderValue::from(out.len()));
        out.reserve(blobs.iter().map(binary::encoded_len).sum());
        for blob in &blobs {
            binary::encode(blob, &mut out);
        }
    }
    add_timing(&mut headers, reply);
    let mut response = Response::new(Body::from(out));
    *response.headers_mut() = headers;
    Ok(response)
}

/// Which version answered, how many rows ran together, and where the time went.
pub(in super::super) fn add_timing(headers: &mut HeaderMap, reply: &Reply) {
    if let Ok(version) = HeaderValue::from_str(&reply.info.version) {
        headers.insert(VERSION, version);
    }
    headers.insert(BATCH_SIZE, HeaderValue::from(reply.batch_size));
    headers.insert(QUEUE, HeaderValue::from(reply.queue.as_micros() as u64));
    headers.insert(COMPUTE, HeaderValue::from(reply.compute.as_micros() as u64));
}

fn write_output(
    out: &mut Vec<u8>,
    name: &str,
    tensor: &Tensor,
    is_binary: bool,
) -> Result<(), Failure> {
    out.extend_from_slice(b"{\"name\":");
    write_string(out, name);
    out.extend_from_slice(b",\"datatype\":\"");
    out.extend_from_slice(tensor.datatype().as_str().as_bytes());
    out.extend_from_slice(b"\",\"shape\":[");
    let mut number = itoa::Buffer::new();
    for (index, extent) in tensor.shape().iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(number.format(*extent).as_bytes());
    }
    if is_binary {
        out.extend_from_slice(b"],\"parameters\":{\"binary_data_size\":");
        let length = binary::encoded_len(tensor.data());
        out.extend_from_slice(number.format(length).as_bytes());
        out.extend_from_slice(b"}}");
        return Ok(());
    }
    out.extend_from_slice(b"],\"data\":");
    write_data(out, tensor.data()).map_err(|index| {
        Failure::invalid(format!(
            "output \"{name}\": element {index} is not UTF-8, which JSON cannot hold; ask for it \
             with the output parameter \"binary_data\": true"
        ))
    })?;
    out.push(b'}');
    Ok(())
}

/// The best classes of each row, or of all elements if rows are not stacked, as
/// `value:index` or `value:index:label`.
pub(crate) fn classify(
    tensor: &Tensor,
    spec: &TensorSpec,
    classes: usize,
    batched: bool,
) -> Tensor {
    let rows = match tensor.shape() {
        [rows, _, ..] if batched => Some(*rows),
        // A row that is a single element is its only class.
        [rows] if batched => Some(*rows),
        _ => None,
    };
    let width = match rows {
        Some(_) => element_count(&tensor.shape()[1..]).unwrap_or(0),
        None => tensor.len(),
    };
    let kept = classes.min(width);
    let mut best = Vec::with_capacity(rows.unwrap_or(1) * kept);
    for row in 0..rows.unwrap_or(1) {
        let range = row * width..(row + 1) * width;
        match_data!(tensor.data(),
        values => rank(&values[range], kept, &spec.labels, &mut best),
        strings => {
            let texts: Vec<Text> = strings[range].iter().cloned().map(Text).collect();
            rank(&texts, kept, &spec.labels, &mut best);
        });
    }
    let shape = rows.into_iter().chain([kept]).collect();
    Tensor::new(shape, best).expect("each row has as many classes as are kept")
}

/// A value that classes can be ranked by.
trait Score {
    fn compare(&self, other: &Self) -> Ordering;
    /// As Triton prints it: six decimals for what is not an integer.
    fn print(&self) -> String;
}

macro_rules! score {
    ($($integer:ty),*) => {$(
        impl Score for $integer {
            fn compare(&self, other: &Self) -> Ordering {
                self.cmp(other)
            }
            fn print(&self) -> String {
                self.to_string()
            }
        }
    )*};
    (float $($float:ty),*) => {$(
        impl Score for $float {
            fn compare(&self, other: &Self) -> Ordering {
                f64::from(*self).total_cmp(&f64::from(*other))
            }
            fn print(&self) -> String {
                format!("{:.6}", f64::from(*self))
            }
        }
    )*};
}
score!(u8, u16, u32, u64, i8, i16, i32, i64);
score!(float model::f16, model::bf16, f32, f64);

/// A string, ranked by its bytes.
struct Text(Bytes);

impl Score for Text {
    fn compare(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
    fn print(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

fn rank<T: Score>(values: &[T], kept: usize, labels: &[String], best: &mut Vec<Bytes>) {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*b].compare(&values[*a]));
    for index in order.into_iter().take(kept) {
        let mut class = format!("{}:{index}", values[index].print());
        if let Some(label) = labels.get(index) {
            class.push(':');
            class.push_str(label);
        }
        best.push(class.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{DataType, Dimension};

    #[test]
    fn the_best_classes_come_first_with_their_labels() {
        let mut spec =
            TensorSpec::new("p", DataType::Fp32, vec![Dimension::Any, Dimension::Fixed(3)]);
        let tensor = Tensor::new(vec![2, 3], vec![0.1f32, 0.7, 0.2, 0.5, 0.25, 0.25]).unwrap();
        let best = classify(&tensor, &spec, 2, true);
        assert_eq!(best.shape(), [2, 2]);
        assert_eq!(
            best.as_strings().unwrap(),
            ["0.700000:1", "0.200000:2", "0.500000:0", "0.250000:1"].map(Bytes::from)
        );
        spec.labels = vec!["cat".into(), "dog".into()];
        let best = classify(&tensor, &spec, 9, false);
        assert_eq!(best.shape(), [6]);
        assert_eq!(best.as_strings().unwrap()[0], "0.700000:1:dog");
        let empty = Tensor::new(vec![0, 3], Vec::<f32>::new()).unwrap();
        assert_eq!(classify(&empty, &spec, 2, true).shape(), [0, 2]);
        let labels = Tensor::new(vec![2], vec![7i64, 8]).unwrap();
        assert_eq!(classify(&labels, &spec, 2, true).as_strings().unwrap()[1], "8:0:cat");
    }
}
