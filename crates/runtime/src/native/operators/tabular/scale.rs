//! Operators that change numbers column by column: scaling, imputing, normalising, joining.

use model::{Data, Tensor};

use super::super::shape::{count, tensor};
use super::super::{Argument, Arguments, Built, Context, Operator};
use super::{singles, width};
use crate::Error;

/// A parameter that is the same for all columns, or has a value for each.
fn column<T: Copy>(name: &str, values: &[T], width: usize) -> Result<Vec<T>, Error> {
    match values {
        [one] => Ok(vec![*one; width]),
        all if all.len() == width => Ok(all.to_vec()),
        other => Err(Error::invalid(format!(
            "{name} has {} values, but the rows have {width} columns",
            other.len()
        ))),
    }
}

pub(super) fn scaler(context: &Context<'_>) -> Built {
    context.attributes.only(&["offset", "scale"])?;
    let offset = context.attributes.floats("offset")?.to_vec();
    let scale = context.attributes.floats("scale")?.to_vec();
    if offset.is_empty() || scale.is_empty() {
        return Err(Error::invalid("expected attributes \"offset\" and \"scale\""));
    }
    Ok(Box::new(Scaler { offset, scale }))
}

struct Scaler {
    offset: Vec<f32>,
    scale: Vec<f32>,
}

impl Operator for Scaler {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let input = inputs.required(0)?;
        let width = width(input)?;
        let offset = column("offset", &self.offset, width)?;
        let scale = column("scale", &self.scale, width)?;
        let mut values = singles(input)?.into_owned();
        for row in values.chunks_exact_mut(width.max(1)) {
            for ((value, offset), scale) in row.iter_mut().zip(&offset).zip(&scale) {
                *value = (*value - offset) * scale;
            }
        }
        Ok(vec![tensor(input.shape().to_vec(), values)?])
    }
}

pub(super) fn imputer(context: &Context<'_>) -> Built {
    let attributes = context.attributes;
    attributes.only(&[
        "imputed_value_floats",
        "imputed_value_int64s",
        "replaced_value_float",
        "replaced_value_int64",
    ])?;
    Ok(Box::new(Imputer {
        floats: attributes.floats("imputed_value_floats")?.to_vec(),
        integers: attributes.ints("imputed_value_int64s")?.to_vec(),
        replaced_float: attributes.float_or("replaced_value_float", 0.0)?,
        replaced_integer: attributes.int_or("replaced_value_int64", 0)?,
    }))
}

struct Imputer {
    floats: Vec<f32>,
    integers: Vec<i64>,
    replaced_float: f32,
    replaced_integer: i64,
}

impl Operator for Imputer {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let input = inputs.required(0)?;
        let width = width(input)?;
        let data: Data = match input.data() {
            Data::Fp32(values) => {
                let fill = column("imputed_value_floats", &self.floats, width)?;
                let replaced = self.replaced_float;
                let gone = |v: f32| v == replaced || v.is_nan() && replaced.is_nan();
                fill_columns(values, &fill, gone).into()
            }
            Data::Fp64(values) => {
                let fill: Vec<f64> = self.floats.iter().map(|v| f64::from(*v)).collect();
                let fill = column("imputed_value_floats", &fill, width)?;
                let replaced = f64::from(self.replaced_float);
                let gone = |v: f64| v == replaced || v.is_nan() && replaced.is_nan();
                fill_columns(values, &fill, gone).into()
            }
            Data::Int64(values) => {
                let fill = column("imputed_value_int64s", &self.integers, width)?;
                fill_columns(values, &fill, |v| v == self.replaced_integer).into()
            }
            other => {
                let message = format!("expected FP32, FP64 or INT64, got {}", other.datatype());
                return Err(Error::invalid(message));
            }
        };
        Ok(vec![tensor(input.shape().to_vec(), data)?])
    }
}

fn fill_columns<T: Copy>(values: &[T], fill: &[T], gone: impl Fn(T) -> bool) -> Vec<T> {
    let fills = fill.iter().cycle();
    values.iter().zip(fills).map(|(v, fill)| if gone(*v) { *fill } else { *v }).collect()
}

pub(super) fn binarizer(context: &Context<'_>) -> Built {
    context.attributes.only(&["threshold"])?;
    Ok(Box::new(Binarizer(context.attributes.float_or("threshold", 0.0)?)))
}

struct Binarizer(f32);

impl Operator for Binarizer {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let input = inputs.required(0)?;
        let threshold = f64::from(self.0);
        let data: Data = match input.data() {
            Data::Fp32(values) => {
                let one = |v: &f32| f32::from(u8::from(*v > self.0));
                values.iter().map(one).collect::<Vec<_>>().into()
            }
            Data::Fp64(values) => {
                let one = |v: &f64| f64::from(u8::from(*v > threshold));
                values.iter().map(one).collect::<Vec<_>>().into()
            }
            Data::Int32(values) => {
                let one = |v: &i32| i32::from(f64::from(*v) > threshold);
                values.iter().map(one).collect::<Vec<_>>().into()
            }
            Data::Int64(values) => {
                let one = |v: &i64| i64::from(*v as f64 > threshold);
                values.iter().map(one).collect::<Vec<_>>().into()
            }
            other => return Err(Error::invalid(format!("{} is no number", other.datatype()))),
        };
        Ok(vec![tensor(input.shape().to_vec(), data)?])
    }
}

#[derive(Clone, Copy)]
enum Norm {
    Max,
    L1,
    L2,
}

pub(super) fn normalizer(context: &Context<'_>) -> Built {
    context.attributes.only(&["norm"])?;
    let norm = match context.attributes.string("norm")?.unwrap_or("MAX") {
        "MAX" => Norm::Max,
        "L1" => Norm::L1,
        "L2" => Norm::L2,
        other => return Err(Error::invalid(format!("norm: expected MAX, L1 or L2, got {other}"))),
    };
    Ok(Box::new(Normalizer(norm)))
}

struct Normalizer(Norm);

impl Operator for Normalizer {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let input = inputs.required(0)?;
        let width = width(input)?;
        let mut values = singles(input)?.into_owned();
        for row in values.chunks_exact_mut(width.max(1)) {
            // The maximum is of the values themselves, not of their sizes.
            let size = match self.0 {
                Norm::Max => row.iter().copied().fold(f32::MIN, f32::max),
                Norm::L1 => row.iter().map(|v| v.abs()).sum(),
                Norm::L2 => row.iter().map(|v| v * v).sum::<f32>().sqrt(),
            };
            // A row of nothing stays as it is.
            if size != 0.0 {
                row.iter_mut().for_each(|value| *value /= size);
            }
        }
        Ok(vec![tensor(input.shape().to_vec(), values)?])
    }
}

pub(super) fn feature_vectorizer(context: &Context<'_>) -> Built {
    context.attributes.only(&["inputdimensions"])?;
    let widths = context.attributes.ints("inputdimensions")?;
    let width = |n: &i64| {
        usize::try_from(*n).map_err(|_| Error::invalid(format!("an input of {n} columns")))
    };
    let widths = widths.iter().map(width).collect::<Result<Vec<_>, _>>()?;
    if widths.len() != context.inputs.len() {
        return Err(Error::invalid("\"inputdimensions\" does not have a width for each input"));
    }
    Ok(Box::new(FeatureVectorizer(widths)))
}

struct FeatureVectorizer(Vec<usize>);

impl Operator for FeatureVectorizer {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let parts = inputs.all()?;
        let height = |tensor: &Tensor| match tensor.shape() {
            [_] => 1,
            shape => shape.first().copied().unwrap_or(1),
        };
        let rows = parts.first().map_or(0, |part| height(part));
        let total = self.0.iter().try_fold(0usize, |sum, n| sum.checked_add(*n));
        let total = total.ok_or_else(|| Error::invalid("too many columns"))?;
        let mut out = vec![0f32; count(&[rows, total])?];
        let mut start = 0;
        for (part, wanted) in parts.iter().zip(&self.0) {
            if height(part) != rows {
                return Err(Error::invalid("the inputs differ in rows"));
            }
            let values = singles(part)?;
            let given = values.len().checked_div(rows).unwrap_or(0);
            // Wider inputs are cut, narrower ones filled with zeros.
            let kept = given.min(*wanted);
            for row in 0..rows {
                out[row * total + start..][..kept].copy_from_slice(&values[row * given..][..kept]);
            }
            start += wanted;
        }
        Ok(vec![tensor(vec![rows, total], out)?])
    }
}
