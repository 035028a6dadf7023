//! Bodies made from a model's metadata.

use clap::ValueEnum;
use model::{Data, DataType, Tensor, match_data};
use serde_json::{Value, json};

use crate::Failure;
use crate::oip::{Metadata, Spec};

/// What the made-up tensors hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fill {
    /// Floats in 0..1, integers in 0..10, short words
    Random,
    /// Zeros and empty strings
    Zeros,
}

/// The extents that the metadata leaves open: `name=1,64`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The input.
    pub name: String,
    /// Its dimensions.
    pub extents: Vec<usize>,
}

impl std::str::FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is not a shape such as tokens=1,64");
        let (name, extents) = text.rsplit_once('=').ok_or_else(wrong)?;
        let extents: Result<Vec<usize>, _> =
            extents.split(',').map(|extent| extent.trim().parse()).collect();
        Ok(Self { name: name.to_owned(), extents: extents.map_err(|_| wrong())? })
    }
}

/// Makes a tensor for every input. `rows` is the first dimension where that varies; every other
/// dimension that varies is 1 unless a shape says otherwise.
pub fn tensors(
    metadata: &Metadata,
    rows: usize,
    shapes: &[Shape],
    fill: Fill,
    seed: u64,
) -> Result<Vec<(String, Tensor)>, Failure> {
    if let Some(shape) = shapes.iter().find(|s| metadata.inputs.iter().all(|i| i.name != s.name)) {
        let names: Vec<&str> = metadata.inputs.iter().map(|i| i.name.as_str()).collect();
        return Err(Failure::usage(format!(
            "--shape {}: the model's inputs are {}",
            shape.name,
            names.join(", ")
        )));
    }
    let mut random = fastrand::Rng::with_seed(seed);
    let mut make = |spec: &Spec| {
        let extents = match shapes.iter().find(|shape| shape.name == spec.name) {
            Some(shape) => shape.extents.clone(),
            None => varying(spec, rows),
        };
        let count = model::element_count(&extents).filter(|count| *count <= 1 << 28);
        let count = count.ok_or_else(|| {
            Failure::usage(format!("input \"{}\": shape {extents:?} is too large", spec.name))
        })?;
        let data = elements(spec.datatype, count, fill, &mut random);
        Ok((spec.name.clone(), Tensor::new(extents, data).expect("counted for the shape")))
    };
    metadata.inputs.iter().map(&mut make).collect()
}

fn varying(spec: &Spec, rows: usize) -> Vec<usize> {
    let extent = |(i, extent): (usize, &i64)| match usize::try_from(*extent) {
        Ok(fixed) => fixed,
        Err(_) if i == 0 => rows,
        Err(_) => 1,
    };
    spec.shape.iter().enumerate().map(extent).collect()
}

fn elements(datatype: DataType, count: usize, fill: Fill, random: &mut fastrand::Rng) -> Data {
    if fill == Fill::Zeros {
        return match datatype.size() {
            Some(size) => Data::from_bytes(datatype, vec![0; size * count].into())
                .expect("zeros are whole elements of every type"),
            None => vec![String::new(); count].into(),
        };
    }
    macro_rules! integers {
        ($($variant:ident: $type:ty),*) => {
            match datatype {
                DataType::Bool => (0..count).map(|_| random.bool()).collect::<Vec<_>>().into(),
                DataType::Fp16 => floats(count, random, model::f16::from_f32),
                DataType::Bf16 => floats(count, random, model::bf16::from_f32),
                DataType::Fp32 => floats(count, random, |v| v),
                DataType::Fp64 => floats(count, random, f64::from),
                DataType::Bytes => (0..count)
                    .map(|_| (0..6).map(|_| random.lowercase()).collect::<String>())
                    .collect::<Vec<String>>()
                    .into(),
                $(DataType::$variant => (0..count)
                    .map(|_| random.u8(0..10) as $type)
                    .collect::<Vec<_>>()
                    .into(),)*
            }
        };
    }
    integers!(Uint8: u8, Uint16: u16, Uint32: u32, Uint64: u64, Int8: i8, Int16: i16, Int32: i32, Int64: i64)
}

fn floats<T>(count: usize, random: &mut fastrand::Rng, from: impl Fn(f32) -> T) -> Data
where
    Vec<T>: Into<Data>,
{
    // Four digits are what measured data looks like, and make bodies of a usual size.
    let mut next = || from((random.f32() * 10_000.0).round() / 10_000.0);
    (0..count).map(|_| next()).collect::<Vec<T>>().into()
}

/// The same inputs as a TensorFlow Serving predict request, in columns.
pub fn tensorflow(inputs: &[(String, Tensor)]) -> Vec<u8> {
    let nested = |tensor: &Tensor| nest(tensor.shape(), &mut values(tensor.data()).into_iter());
    let inputs = match inputs {
        [(_, single)] => nested(single),
        many => many.iter().map(|(name, tensor)| (name.clone(), nested(tensor))).collect(),
    };
    json!({"inputs": inputs}).to_string().into_bytes()
}

fn values(data: &Data) -> Vec<Value> {
    match data {
        Data::Bool(bools) => bools.iter().map(|b| Value::from(*b != 0)).collect(),
        Data::Fp16(floats) => floats.iter().map(|v| Value::from(v.to_f32())).collect(),
        Data::Bf16(floats) => floats.iter().map(|v| Value::from(v.to_f32())).collect(),
        // Through its shortest text, or 0.1 would go out as 0.10000000149011612.
        Data::Fp32(floats) => floats
            .iter()
            .map(|v| v.to_string().parse::<f64>().map_or(Value::Null, Value::from))
            .collect(),
        Data::Fp64(floats) => floats.iter().map(|v| Value::from(*v)).collect(),
        Data::Bytes(strings) => {
            strings.iter().map(|s| Value::from(String::from_utf8_lossy(s))).collect()
        }
        integers => match_data!(integers,
            buffer => buffer.iter().map(|v| v.to_string().parse::<i64>().map_or(Value::Null, Value::from)).collect(),
            _strings => Vec::new()),
    }
}

fn nest(shape: &[usize], values: &mut impl Iterator<Item = Value>) -> Value {
    match shape.split_first() {
        None => values.next().unwrap_or(Value::Null),
        Some((extent, rest)) => (0..*extent).map(|_| nest(rest, values)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> Metadata {
        let spec = |name: &str, datatype, shape: &[i64]| Spec {
            name: name.into(),
            datatype,
            shape: shape.to_vec(),
        };
        let inputs =
            vec![spec("x", DataType::Fp32, &[-1, 3]), spec("tokens", DataType::Int64, &[-1, -1])];
        Metadata { inputs }
    }

    #[test]
    fn shapes_come_from_the_metadata_and_the_flags() {
        let shapes = ["tokens=2,5".parse().unwrap()];
        let made = tensors(&metadata(), 2, &shapes, Fill::Random, 1).unwrap();
        assert_eq!(made[0].1.shape(), [2, 3]);
        assert_eq!(made[1].1.shape(), [2, 5]);
        let again = tensors(&metadata(), 2, &shapes, Fill::Random, 1).unwrap();
        assert_eq!(made, again, "a seed makes the same body");
        assert!(tensors(&metadata(), 1, &["y=1".parse().unwrap()], Fill::Zeros, 1).is_err());
        assert!("y".parse::<Shape>().is_err());
        for datatype in DataType::ALL {
            let mut random = fastrand::Rng::with_seed(1);
            for fill in [Fill::Zeros, Fill::Random] {
                let data = elements(datatype, 5, fill, &mut random);
                assert_eq!((data.datatype(), data.len()), (datatype, 5));
            }
        }
    }

    #[test]
    fn tensorflow_bodies_are_nested() {
        let two = [("x".to_owned(), Tensor::new(vec![2, 1], vec![0.1f32, 2.0]).unwrap())];
        assert_eq!(tensorflow(&two), br#"{"inputs":[[0.1],[2.0]]}"#);
        let named = [two[0].clone(), ("i".to_owned(), Tensor::new(vec![1], vec![7i64]).unwrap())];
        assert_eq!(tensorflow(&named), br#"{"inputs":{"i":[7],"x":[[0.1],[2.0]]}}"#);
    }
}
