//! Operators that map values to values: label encoders, one-hot encoders, category mappers.

use std::collections::HashMap;

use bytes::Bytes;
use model::{Data, DataType, Tensor};

use super::super::cast::cast;
use super::super::shape::{count, gather, tensor};
use super::super::{Argument, Arguments, Built, Context, Operator};
use crate::Error;

/// A value that can be looked up.
#[derive(PartialEq, Eq, Hash)]
enum Key {
    Integer(i64),
    Text(Bytes),
    /// A number's bits; all NaNs are one, and so are both zeros.
    Real(u64),
}

fn real(value: f64) -> Key {
    Key::Real(if value.is_nan() { f64::NAN.to_bits() } else { (value + 0.0).to_bits() })
}

/// Each element as something that can be looked up.
fn keys(tensor: &Tensor) -> Result<Vec<Key>, Error> {
    Ok(match tensor.data() {
        Data::Bytes(strings) => strings.iter().cloned().map(Key::Text).collect(),
        Data::Fp32(values) => values.iter().map(|v| real(f64::from(*v))).collect(),
        Data::Fp64(values) => values.iter().map(|v| real(*v)).collect(),
        _ => {
            let whole = cast(tensor, DataType::Int64)?;
            whole.as_slice::<i64>().unwrap_or_default().iter().copied().map(Key::Integer).collect()
        }
    })
}

fn kind(key: &Key) -> &'static str {
    match key {
        Key::Integer(_) => "integers",
        Key::Text(_) => "strings",
        Key::Real(_) => "floating-point numbers",
    }
}

/// A table from keys to positions.
struct Table(HashMap<Key, usize>);

impl Table {
    fn new(keys: Vec<Key>) -> Self {
        let mut table = HashMap::with_capacity(keys.len());
        for (position, key) in keys.into_iter().enumerate() {
            // Of equal keys the first counts.
            table.entry(key).or_insert(position);
        }
        Self(table)
    }

    /// The position of each element of a tensor.
    fn find(&self, tensor: &Tensor) -> Result<Vec<Option<usize>>, Error> {
        let wanted = keys(tensor)?;
        if let (Some(one), Some(known)) = (wanted.first(), self.0.keys().next())
            && kind(one) != kind(known)
        {
            let message = format!("expected {}, got {}", kind(known), tensor.datatype());
            return Err(Error::invalid(message));
        }
        Ok(wanted.iter().map(|key| self.0.get(key).copied()).collect())
    }
}

/// Looks values up in a table; unknown ones become a default.
struct Mapper {
    table: Table,
    /// The values by position, and the default behind them.
    values: Data,
}

impl Mapper {
    fn new(keys: Vec<Key>, values: Tensor, default: Tensor) -> Result<Self, Error> {
        if keys.len() != values.len() {
            let message = format!("{} keys, but {} values", keys.len(), values.len());
            return Err(Error::invalid(message));
        }
        let flat = |t: Tensor| {
            let elements = t.len();
            t.reshape(vec![elements]).map_err(|error| Error::invalid(error.to_string()))
        };
        let (values, default) = (flat(values)?, flat(default)?);
        let joined = Tensor::concat_rows(&[&values, &default.slice_rows(0..1.min(default.len()))]);
        let joined = joined.filter(|joined| joined.len() == keys.len() + 1);
        let joined =
            joined.ok_or_else(|| Error::invalid("the default has not the values' type"))?;
        Ok(Self { table: Table::new(keys), values: joined.into_parts().1 })
    }
}

impl Operator for Mapper {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let input = inputs.required(0)?;
        let default = self.values.len() - 1;
        let found = self.table.find(input)?;
        let positions = found.into_iter().map(|found| found.unwrap_or(default));
        Ok(vec![tensor(input.shape().to_vec(), gather(&self.values, 1, positions))?])
    }
}

pub(super) fn label_encoder(context: &Context<'_>) -> Built {
    let attributes = context.attributes;
    if attributes.has("classes_strings") {
        attributes.only(&["classes_strings", "default_string", "default_int64"])?;
        let classes = attributes.strings("classes_strings")?;
        let indices: Vec<i64> = (0..classes.len() as i64).collect();
        return two_way(context, &indices, classes);
    }
    let mut keys =
        keys(&list(context, "keys")?.ok_or_else(|| Error::invalid("there are no keys"))?)?;
    if context.opset < 4 {
        // Before version 4 of the operator set NaN was equal to nothing: a key that none has.
        let not_a_number = real(f64::NAN);
        for key in keys.iter_mut().filter(|key| **key == not_a_number) {
            *key = Key::Real(u64::MAX);
        }
    }
    let values = list(context, "values")?.ok_or_else(|| Error::invalid("there are no values"))?;
    let default = match attributes.tensor("default_tensor")? {
        Some(default) => default,
        None => match values.datatype() {
            DataType::Bytes => {
                let text = attributes.bytes("default_string")?.cloned();
                Tensor::scalar(vec![text.unwrap_or_else(|| Bytes::from_static(b"_Unused"))])
            }
            DataType::Int64 => Tensor::scalar(vec![attributes.int_or("default_int64", -1)?]),
            DataType::Fp32 => Tensor::scalar(vec![attributes.float_or("default_float", -0.0)?]),
            // ONNX Runtime's defaults for the types that only tensors can have.
            DataType::Fp64 => Tensor::scalar(vec![-0.0f64]),
            DataType::Int16 => Tensor::scalar(vec![-1i16]),
            other => return Err(Error::unsupported(format!("values of type {other}"))),
        },
    };
    Ok(Box::new(Mapper::new(keys, values, default)?))
}

/// `keys_*` or `values_*`, whichever type is given.
fn list(context: &Context<'_>, name: &str) -> Result<Option<Tensor>, Error> {
    let attributes = context.attributes;
    let given = |suffix: &str| {
        let full = format!("{name}_{suffix}");
        attributes.has(&full).then_some(full)
    };
    if let Some(full) = given("tensor") {
        return attributes.tensor(&full);
    }
    let data: Data = if let Some(full) = given("strings") {
        attributes.strings(&full)?.to_vec().into()
    } else if let Some(full) = given("int64s") {
        attributes.ints(&full)?.to_vec().into()
    } else if let Some(full) = given("floats") {
        attributes.floats(&full)?.to_vec().into()
    } else {
        return Ok(None);
    };
    tensor(vec![data.len()], data).map(Some)
}

pub(super) fn category_mapper(context: &Context<'_>) -> Built {
    let attributes = context.attributes;
    attributes.only(&["cats_int64s", "cats_strings", "default_int64", "default_string"])?;
    two_way(context, attributes.ints("cats_int64s")?, attributes.strings("cats_strings")?)
}

/// From strings to integers or back, depending on the input.
fn two_way(context: &Context<'_>, integers: &[i64], strings: &[Bytes]) -> Built {
    let attributes = context.attributes;
    let strings = tensor(vec![strings.len()], strings.to_vec())?;
    let integers = tensor(vec![integers.len()], integers.to_vec())?;
    let kind = context.inputs.first().copied().flatten().and_then(|kind| kind.tensor());
    let (from, to, default) = match kind {
        Some(DataType::Bytes) => {
            let default = attributes.int_or("default_int64", -1)?;
            (strings, integers, Tensor::scalar(vec![default]))
        }
        Some(DataType::Int64) => {
            let default = attributes.bytes("default_string")?.cloned();
            let default = default.unwrap_or_else(|| Bytes::from_static(b"_Unused"));
            (integers, strings, Tensor::scalar(vec![default]))
        }
        _ => return Err(Error::unsupported("the input is neither BYTES nor INT64")),
    };
    Ok(Box::new(Mapper::new(keys(&from)?, to, default)?))
}

pub(super) fn one_hot_encoder(context: &Context<'_>) -> Built {
    let attributes = context.attributes;
    attributes.only(&["cats_int64s", "cats_strings", "zeros"])?;
    let (integers, strings) =
        (attributes.ints("cats_int64s")?, attributes.strings("cats_strings")?);
    let known: Vec<Key> = match (integers, strings) {
        ([], strings) => strings.iter().cloned().map(Key::Text).collect(),
        (integers, []) => integers.iter().copied().map(Key::Integer).collect(),
        _ => return Err(Error::invalid("categories are given as strings and as integers")),
    };
    let categories = known.len();
    let unknown_is_zeros = attributes.flag("zeros", true)?;
    Ok(Box::new(OneHotEncoder { table: Table::new(known), categories, unknown_is_zeros }))
}

struct OneHotEncoder {
    table: Table,
    categories: usize,
    unknown_is_zeros: bool,
}

impl Operator for OneHotEncoder {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let input = inputs.required(0)?;
        // Numbers are categories by their whole part.
        let found = match input.data() {
            Data::Bytes(_) | Data::Int64(_) => self.table.find(input)?,
            _ => self.table.find(&cast(input, DataType::Int64)?)?,
        };
        let mut shape = input.shape().to_vec();
        shape.push(self.categories);
        let mut out = vec![0f32; count(&shape)?];
        for (index, found) in found.into_iter().enumerate() {
            match found {
                Some(position) => out[index * self.categories + position] = 1.0,
                None if self.unknown_is_zeros => {}
                None => {
                    return Err(Error::invalid(format!("value {index} is no known category")));
                }
            }
        }
        Ok(vec![tensor(shape, out)?])
    }
}
