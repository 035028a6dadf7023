//! `Cast`: from every type to every type, strings included.

use bytes::Bytes;
use model::{Data, DataType, Tensor, bf16, f16};

use super::shape::tensor;
use super::{Argument, Arguments, Built, Context, Operator};
use crate::Error;

pub(super) fn build(context: &Context<'_>) -> Built {
    context.attributes.only(&["to", "saturate", "round_mode"])?;
    let to = context.attributes.int("to")?;
    let datatype = to.and_then(|code| DataType::from_onnx(i32::try_from(code).ok()?));
    let datatype = datatype.ok_or_else(|| {
        Error::unsupported(format!("Cast to ONNX type {} is not supported", to.unwrap_or(0)))
    })?;
    Ok(Box::new(Cast(Some(datatype))))
}

pub(super) fn build_like(context: &Context<'_>) -> Built {
    context.attributes.only(&["saturate", "round_mode"])?;
    Ok(Box::new(Cast(None)))
}

/// `None`: to the type of the second input.
struct Cast(Option<DataType>);

impl Operator for Cast {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let mut inputs = Arguments(&mut inputs);
        let to = match self.0 {
            Some(to) => to,
            None => inputs.required(1)?.datatype(),
        };
        if inputs.required(0)?.datatype() == to {
            return Ok(vec![inputs.take(0)?]);
        }
        Ok(vec![cast(inputs.required(0)?, to)?])
    }
}

/// Converts every element.
///
/// Floating point to integer truncates towards zero and saturates; NaN becomes 0. Integer to
/// integer keeps the low bits.
pub(super) fn cast(from: &Tensor, to: DataType) -> Result<Tensor, Error> {
    let data = match (from.data(), to) {
        (Data::Bytes(strings), _) => parse(strings, to)?,
        (_, DataType::Bytes) => Data::Bytes(format(from.data())),
        (data, _) => numbers(data, to),
    };
    tensor(from.shape().to_vec(), data)
}

/// Runs an expression for the elements of a plain type as an iterator of primitive values.
macro_rules! each {
    ($data:expr, $values:ident => $result:expr) => {
        match $data {
            Data::Bool(v) | Data::Uint8(v) => {
                let $values = v.iter().copied();
                $result
            }
            Data::Uint16(v) => {
                let $values = v.iter().copied();
                $result
            }
            Data::Uint32(v) => {
                let $values = v.iter().copied();
                $result
            }
            Data::Uint64(v) => {
                let $values = v.iter().copied();
                $result
            }
            Data::Int8(v) => {
                let $values = v.iter().copied();
                $result
            }
            Data::Int16(v) => {
                let $values = v.iter().copied();
                $result
            }
            Data::Int32(v) => {
                let $values = v.iter().copied();
                $result
            }
            Data::Int64(v) => {
                let $values = v.iter().copied();
                $result
            }
            Data::Fp16(v) => {
                let $values = v.iter().map(|v| v.to_f32());
                $result
            }
            Data::Bf16(v) => {
                let $values = v.iter().map(|v| v.to_f32());
                $result
            }
            Data::Fp32(v) => {
                let $values = v.iter().copied();
                $result
            }
            Data::Fp64(v) => {
                let $values = v.iter().copied();
                $result
            }
            Data::Bytes(_) => unreachable!("strings are parsed, not converted"),
        }
    };
}

#[expect(clippy::unnecessary_cast, reason = "the macro writes it for every type, FP64 too")]
fn numbers(data: &Data, to: DataType) -> Data {
    macro_rules! to {
        ($type:ty) => {
            each!(data, values => values.map(|v| v as $type).collect::<Vec<$type>>().into())
        };
    }
    match to {
        DataType::Bool => each!(data, values => {
            // `-0.0` and every NaN must come out right: compare in the value's own type.
            values.map(|v| v as f64 != 0.0).collect::<Vec<bool>>().into()
        }),
        DataType::Uint8 => to!(u8),
        DataType::Uint16 => to!(u16),
        DataType::Uint32 => to!(u32),
        DataType::Uint64 => to!(u64),
        DataType::Int8 => to!(i8),
        DataType::Int16 => to!(i16),
        DataType::Int32 => to!(i32),
        DataType::Int64 => to!(i64),
        DataType::Fp32 => to!(f32),
        DataType::Fp64 => to!(f64),
        DataType::Fp16 => each!(data, values => {
            values.map(|v| f16::from_f64(v as f64)).collect::<Vec<f16>>().into()
        }),
        DataType::Bf16 => each!(data, values => {
            values.map(|v| bf16::from_f64(v as f64)).collect::<Vec<bf16>>().into()
        }),
        DataType::Bytes => unreachable!("strings are formatted, not converted"),
    }
}

fn parse(strings: &[Bytes], to: DataType) -> Result<Data, Error> {
    fn all<T>(strings: &[Bytes], one: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, Error> {
        let parse = |bytes: &Bytes| {
            let text = std::str::from_utf8(bytes).ok().map(str::trim);
            text.and_then(&one).ok_or_else(|| {
                let text = String::from_utf8_lossy(bytes);
                Error::invalid(format!("the string \"{text}\" is not a number of this type"))
            })
        };
        strings.iter().map(parse).collect()
    }
    fn float(text: &str) -> Option<f64> {
        text.parse().ok()
    }
    macro_rules! integers {
        ($type:ty) => {
            all(strings, |text| text.parse::<$type>().ok())?.into()
        };
    }
    Ok(match to {
        DataType::Bool => all(strings, |text| Some(text.parse::<i64>().ok()? != 0))?.into(),
        DataType::Uint8 => integers!(u8),
        DataType::Uint16 => integers!(u16),
        DataType::Uint32 => integers!(u32),
        DataType::Uint64 => integers!(u64),
        DataType::Int8 => integers!(i8),
        DataType::Int16 => integers!(i16),
        DataType::Int32 => integers!(i32),
        DataType::Int64 => integers!(i64),
        DataType::Fp32 => integers!(f32),
        DataType::Fp64 => integers!(f64),
        DataType::Fp16 => all(strings, |text| float(text).map(f16::from_f64))?.into(),
        DataType::Bf16 => all(strings, |text| float(text).map(bf16::from_f64))?.into(),
        DataType::Bytes => Data::Bytes(strings.to_vec()),
    })
}

/// Writes numbers as ONNX Runtime does: 8 significant digits for FP32, as many as tell it apart
/// for FP64, without trailing zeros, in scientific notation where the exponent is small or large.
fn format(data: &Data) -> Vec<Bytes> {
    match data {
        Data::Bool(values) | Data::Uint8(values) => {
            values.iter().map(|v| v.to_string().into()).collect()
        }
        Data::Fp16(values) => values.iter().map(|v| float(v.to_f64(), 8)).collect(),
        Data::Bf16(values) => values.iter().map(|v| float(v.to_f64(), 8)).collect(),
        Data::Fp32(values) => values.iter().map(|v| float(f64::from(*v), 8)).collect(),
        Data::Fp64(values) => values.iter().map(|v| shortest(*v)).collect(),
        integers => each!(integers, values => values.map(|v| v.to_string().into()).collect()),
    }
}

fn float(value: f64, digits: usize) -> Bytes {
    if value.is_nan() {
        return Bytes::from_static(b"NaN");
    }
    if value.is_infinite() {
        return Bytes::from_static(if value > 0.0 { b"INF" } else { b"-INF" });
    }
    let scientific = format!("{value:.*e}", digits - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if exponent < -4 || exponent >= digits as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trim(mantissa), exponent.abs()).into();
    }
    let decimals = (digits as i32 - 1 - exponent).max(0) as usize;
    trim(&format!("{value:.decimals$}")).into()
}

/// With the fewest digits that are read back as the same number.
fn shortest(value: f64) -> Bytes {
    let text = format!("{value:e}");
    match text.split_once('e').and_then(|(m, e)| Some((m, e.parse::<i32>().ok()?))) {
        Some((mantissa, exponent)) if !(-4..17).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", exponent.abs()).into()
        }
        Some(_) => format!("{value}").into(),
        None => float(value, 17),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_with_significant_digits() {
        let text = |value: f64, digits| String::from_utf8(float(value, digits).to_vec()).unwrap();
        assert_eq!(text(1.0, 8), "1");
        assert_eq!(text(0.1f32.into(), 8), "0.1");
        assert_eq!(text(-3.25, 8), "-3.25");
        assert_eq!(text(0.47892547, 8), "0.47892547");
        assert_eq!(text(9.999_999_99e9, 8), "1e+10");
        assert_eq!(text(12345678.0, 8), "12345678");
        assert_eq!(text(1.5e-7, 8), "1.5e-07");
        assert_eq!(shortest(0.1), "0.1");
        assert_eq!(shortest(1e300), "1e+300");
        assert_eq!(shortest(f64::NAN), "NaN");
        assert_eq!(text(f64::NEG_INFINITY, 8), "-INF");
    }

    #[test]
    fn not_a_number_is_true_and_zero_is_false() {
        let values = Tensor::new(vec![3], vec![f32::NAN, -0.0, 1e-40]).unwrap();
        assert_eq!(cast(&values, DataType::Bool).unwrap().as_bools().unwrap(), [1, 0, 1]);
    }

    #[test]
    fn a_string_that_is_no_number_is_named() {
        let strings = Tensor::new(vec![1], vec![Bytes::from_static(b"red")]).unwrap();
        let error = cast(&strings, DataType::Fp32).unwrap_err();
        assert!(error.to_string().contains("\"red\""), "{error}");
    }
}
