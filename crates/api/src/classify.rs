//! The classification extension: the highest values of each row, with their places and labels.

use bytes::Bytes;
use model::{Data, ErrorCode, Tensor, TensorSpec, element_count};
use serving::Error;

/// The `count` highest values of each row (of the whole tensor if its model is not batched), as
/// strings `value:index` or `value:index:label`, highest first; equal ones in their own order.
///
/// # Errors
/// If the output holds no numbers.
pub(crate) fn classify(
    spec: &TensorSpec,
    batched: bool,
    tensor: &Tensor,
    count: usize,
) -> Result<Tensor, Error> {
    if matches!(tensor.data(), Data::Bool(_) | Data::Bytes(_)) {
        let message = format!(
            "output \"{}\": classification needs numbers, the output is {}",
            spec.name,
            tensor.datatype()
        );
        return Err(Error::new(ErrorCode::InvalidArgument, message));
    }
    let rows = if batched { tensor.rows().unwrap_or(1) } else { 1 };
    let width = if batched {
        element_count(tensor.shape().get(1..).unwrap_or_default()).unwrap_or(0)
    } else {
        tensor.len()
    };
    let count = count.min(width);
    let all = numbers(tensor);
    let mut classes = Vec::with_capacity(rows * count);
    for row in 0..rows {
        let values = &all[row * width..(row + 1) * width];
        let mut order: Vec<usize> = (0..width).collect();
        let higher = |a: &usize, b: &usize| values[*b].total_cmp(&values[*a]).then(a.cmp(b));
        if count < width {
            order.select_nth_unstable_by(count, higher);
        }
        order.truncate(count);
        order.sort_unstable_by(higher);
        classes.extend(order.into_iter().map(|index| {
            let value = values[index];
            let number = match tensor.data() {
                Data::Fp16(_) | Data::Bf16(_) | Data::Fp32(_) | Data::Fp64(_) => {
                    format!("{value:.6}")
                }
                _ => format!("{value}"),
            };
            match spec.labels.get(index) {
                Some(label) => Bytes::from(format!("{number}:{index}:{label}")),
                None => Bytes::from(format!("{number}:{index}")),
            }
        }));
    }
    let shape = if batched { vec![rows, count] } else { vec![count] };
    Tensor::new(shape, classes)
        .map_err(|error| Error::new(ErrorCode::Internal, format!("classification: {error}")))
}

/// A tensor's elements as numbers; none for strings.
pub(crate) fn numbers(tensor: &Tensor) -> Vec<f64> {
    match tensor.data() {
        Data::Bool(buffer) | Data::Uint8(buffer) => buffer.iter().map(|v| f64::from(*v)).collect(),
        Data::Uint16(buffer) => buffer.iter().map(|v| f64::from(*v)).collect(),
        Data::Uint32(buffer) => buffer.iter().map(|v| f64::from(*v)).collect(),
        Data::Uint64(buffer) => buffer.iter().map(|v| *v as f64).collect(),
        Data::Int8(buffer) => buffer.iter().map(|v| f64::from(*v)).collect(),
        Data::Int16(buffer) => buffer.iter().map(|v| f64::from(*v)).collect(),
        Data::Int32(buffer) => buffer.iter().map(|v| f64::from(*v)).collect(),
        Data::Int64(buffer) => buffer.iter().map(|v| *v as f64).collect(),
        Data::Fp16(buffer) => buffer.iter().map(|v| f64::from(v.to_f32())).collect(),
        Data::Bf16(buffer) => buffer.iter().map(|v| f64::from(v.to_f32())).collect(),
        Data::Fp32(buffer) => buffer.iter().map(|v| f64::from(*v)).collect(),
        Data::Fp64(buffer) => buffer.to_vec(),
        Data::Bytes(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::DataType;

    fn texts(tensor: &Tensor) -> Vec<&str> {
        tensor.as_strings().unwrap().iter().map(|b| std::str::from_utf8(b).unwrap()).collect()
    }

    #[test]
    fn the_highest_of_each_row_come_first() {
        let mut spec = TensorSpec::new("p", DataType::Fp32, Vec::new());
        let tensor = Tensor::new(vec![2, 3], vec![0.1f32, 0.7, 0.2, 0.5, 0.5, 0.0]).unwrap();
        let top = classify(&spec, true, &tensor, 2).unwrap();
        assert_eq!(top.shape(), [2, 2]);
        assert_eq!(texts(&top), ["0.700000:1", "0.200000:2", "0.500000:0", "0.500000:1"]);
        spec.labels = ["cat", "dog"].map(Into::into).to_vec();
        let top = classify(&spec, false, &tensor, 100).unwrap();
        assert_eq!(top.shape(), [6]);
        assert_eq!(texts(&top)[0], "0.700000:1:dog");
    }

    #[test]
    fn strings_have_no_highest() {
        let spec = TensorSpec::new("p", DataType::Bytes, Vec::new());
        let tensor = Tensor::new(vec![1], vec!["a".to_string()]).unwrap();
        let error = classify(&spec, true, &tensor, 1).unwrap_err().to_string();
        assert_eq!(error, "output \"p\": classification needs numbers, the output is BYTES");
    }
}
