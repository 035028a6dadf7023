//! TensorFlow's examples: named features in, classes or a number for each example out.
//!
//! The form that gRPC and REST share is the message [`Example`]: REST's JSON is read into it.

use bytes::Bytes;
use model::{Data, DataType, Dimension, ErrorCode, Signature, Tensor, TensorSpec, bf16, f16};
use serving::{Error, Reply};

use crate::proto::tensorflow::feature::Kind;
use crate::proto::tensorflow::{Example, Feature};
use crate::refusals::{invalid, refuse};

/// The inputs that examples are: each input of the signature is the feature of that name, one
/// row for each example. A feature that an example lacks is taken from the context, which counts
/// for every example; features that are no input are not looked at.
///
/// # Errors
/// If a feature is missing, has another type or width than its input, or the inputs together
/// would be larger than `limit` bytes.
pub(crate) fn inputs(
    signature: &Signature,
    examples: &[Example],
    context: Option<&Example>,
    limit: usize,
) -> Result<Vec<(String, Tensor)>, Error> {
    if examples.is_empty() {
        return Err(invalid("there are no examples; a request has at least one"));
    }
    if !signature.batched && examples.len() != 1 {
        let message = format!("the model takes one example in a request, got {}", examples.len());
        return Err(invalid(message));
    }
    let mut left = limit;
    let mut inputs = Vec::with_capacity(signature.inputs.len());
    for spec in &signature.inputs {
        let features: Vec<Option<&Kind>> =
            examples.iter().map(|e| kind(e, spec).or_else(|| kind(context?, spec))).collect();
        if spec.optional && features.iter().all(Option::is_none) {
            continue;
        }
        let tensor = column(signature, spec, &features, &mut left)?;
        inputs.push((spec.name.to_string(), tensor));
    }
    Ok(inputs)
}

/// An example's feature, if it has one with any values in it.
fn kind<'a>(example: &'a Example, spec: &TensorSpec) -> Option<&'a Kind> {
    let feature: &Feature = example.features.as_ref()?.feature.get(&*spec.name)?;
    feature.kind.as_ref()
}

/// One feature of every example, stacked. Takes what it uses of the bytes that are left.
fn column(
    signature: &Signature,
    spec: &TensorSpec,
    features: &[Option<&Kind>],
    left: &mut usize,
) -> Result<Tensor, Error> {
    let rows = features.len();
    let mut width = None;
    for (index, feature) in features.iter().enumerate() {
        let feature = feature
            .ok_or_else(|| invalid(format!("example {index} has no feature \"{}\"", spec.name)))?;
        let got = len(feature);
        if *width.get_or_insert(got) != got {
            let first = width.unwrap_or(0);
            let why = format!("example {index} has {got} values, example 0 has {first}");
            return Err(refuse(&spec.name, why));
        }
    }
    let width = width.unwrap_or(0);
    let shape = shape(signature, spec, rows, width)?;
    let size = spec.datatype.size().unwrap_or(size_of::<Bytes>());
    let needed = rows.checked_mul(width).and_then(|count| count.checked_mul(size));
    *left = needed.and_then(|needed| left.checked_sub(needed)).ok_or_else(too_many)?;
    let data = data(spec, features.iter().flatten().copied(), rows * width)?;
    Tensor::new(shape, data).map_err(|error| refuse(&spec.name, error))
}

/// The refusal of examples that need more memory than a request may.
pub(crate) fn too_many() -> Error {
    let message = "examples and context make more than the limit of one request; send fewer \
                   examples";
    Error::new(ErrorCode::ResourceExhausted, message)
}

fn len(feature: &Kind) -> usize {
    match feature {
        Kind::BytesList(list) => list.value.len(),
        Kind::FloatList(list) => list.value.len(),
        Kind::Int64List(list) => list.value.len(),
    }
}

/// The input's shape for so many rows of so many values; one extent may vary.
fn shape(
    signature: &Signature,
    spec: &TensorSpec,
    rows: usize,
    width: usize,
) -> Result<Vec<usize>, Error> {
    let Some(dimensions) = &spec.shape else { return Ok(vec![rows, width]) };
    let row = if signature.batched { dimensions.get(1..).unwrap_or_default() } else { dimensions };
    let fixed: Option<usize> = row.iter().try_fold(1usize, |product, dimension| match dimension {
        Dimension::Fixed(n) => product.checked_mul(*n),
        _ => Some(product),
    });
    let varying = row.iter().filter(|dimension| !matches!(dimension, Dimension::Fixed(_))).count();
    let wrong = || {
        let shape = spec.extents();
        let why = format!("an example has {width} values, expected shape {shape:?}");
        refuse(&spec.name, why)
    };
    let fixed = fixed.ok_or_else(wrong)?;
    let rest = match varying {
        0 if width == fixed => 1,
        1 if fixed > 0 && width.is_multiple_of(fixed) => width / fixed,
        0 | 1 => return Err(wrong()),
        _ => {
            let why = format!(
                "shape {:?} varies in more than one dimension, which an example cannot say",
                spec.extents()
            );
            return Err(refuse(&spec.name, why));
        }
    };
    let extents = row.iter().map(|dimension| match dimension {
        Dimension::Fixed(n) => *n,
        _ => rest,
    });
    let batch = signature.batched.then_some(rows);
    Ok(batch.into_iter().chain(extents).collect())
}

/// The values of every row as the input's type. Whole numbers may stand for any number that has
/// them; nothing else is converted.
fn data<'a>(
    spec: &TensorSpec,
    features: impl Iterator<Item = &'a Kind>,
    count: usize,
) -> Result<Data, Error> {
    macro_rules! gather {
        ($type:ty, $float:expr, $int:expr) => {{
            let float: Option<fn(f32) -> $type> = $float;
            let int: fn(i64) -> Option<$type> = $int;
            let mut values: Vec<$type> = Vec::with_capacity(count);
            for feature in features {
                match (feature, float) {
                    (Kind::FloatList(list), Some(float)) => {
                        values.extend(list.value.iter().map(|value| float(*value)));
                    }
                    (Kind::Int64List(list), _) => {
                        for value in &list.value {
                            values.push(int(*value).ok_or_else(|| out_of_range(spec, *value))?);
                        }
                    }
                    (other, _) => return Err(wrong_kind(spec, other)),
                }
            }
            values
        }};
    }
    macro_rules! whole {
        ($type:ty) => {
            gather!($type, None, |value| value.try_into().ok()).into()
        };
    }
    Ok(match spec.datatype {
        DataType::Fp32 => gather!(f32, Some(|v| v), |v| exactly(v).map(|v| v as f32)).into(),
        DataType::Fp64 => gather!(f64, Some(f64::from), |v| (v.unsigned_abs() <= 1 << 53)
            .then_some(v as f64))
        .into(),
        DataType::Fp16 => gather!(f16, Some(f16::from_f32), |v| {
            (v.unsigned_abs() <= 1 << 11).then(|| f16::from_f32(v as f32))
        })
        .into(),
        DataType::Bf16 => gather!(bf16, Some(bf16::from_f32), |v| {
            (v.unsigned_abs() <= 1 << 8).then(|| bf16::from_f32(v as f32))
        })
        .into(),
        DataType::Bool => gather!(bool, None, |value| match value {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        })
        .into(),
        DataType::Int8 => whole!(i8),
        DataType::Int16 => whole!(i16),
        DataType::Int32 => whole!(i32),
        DataType::Int64 => whole!(i64),
        DataType::Uint8 => whole!(u8),
        DataType::Uint16 => whole!(u16),
        DataType::Uint32 => whole!(u32),
        DataType::Uint64 => whole!(u64),
        DataType::Bytes => {
            let mut strings: Vec<Bytes> = Vec::with_capacity(count);
            for feature in features {
                match feature {
                    Kind::BytesList(list) => strings.extend(list.value.iter().cloned()),
                    other => return Err(wrong_kind(spec, other)),
                }
            }
            strings.into()
        }
    })
}

/// A whole number that FP32 has.
fn exactly(value: i64) -> Option<i64> {
    (value.unsigned_abs() <= 1 << 24).then_some(value)
}

fn out_of_range(spec: &TensorSpec, value: i64) -> Error {
    refuse(&spec.name, format!("{value} is a number that {} cannot hold", spec.datatype))
}

fn wrong_kind(spec: &TensorSpec, got: &Kind) -> Error {
    let got = match got {
        Kind::BytesList(_) => "strings",
        Kind::FloatList(_) => "floating-point numbers",
        Kind::Int64List(_) => "whole numbers",
    };
    refuse(&spec.name, format!("expected {}, got a feature of {got}", spec.datatype))
}

/// A class and its score.
pub(crate) type Class = (String, f32);

/// The classes of each example.
///
/// Scores are the model's one floating-point output, a row for each example; their labels are
/// the output's own, else a string output of the same shape, else their places. A model without
/// scores answers with its one output of labels, whose score is 0.
///
/// # Errors
/// If the model has no outputs like that.
pub(crate) fn classifications(reply: &Reply, rows: usize) -> Result<Vec<Vec<Class>>, Error> {
    let outputs = named(reply);
    let scores: Vec<_> = outputs.iter().filter(|(_, tensor)| is_floating(tensor)).collect();
    let labels: Vec<_> = outputs.iter().filter(|(_, tensor)| !is_floating(tensor)).collect();
    match (&scores[..], &labels[..]) {
        ([(spec, scores)], _) => {
            let same_shape = |(_, labels): &&&(&TensorSpec, &Tensor)| {
                labels.as_strings().is_some() && labels.len() == scores.len()
            };
            let texts = labels.iter().find(same_shape).and_then(|(_, labels)| labels.as_strings());
            let values = numbers(scores);
            let width = width(spec, values.len(), rows)?;
            let class = |index: usize| {
                let place = index % width.max(1);
                let label = match (spec.labels.get(place), texts) {
                    (Some(label), _) => label.clone(),
                    (None, Some(texts)) => String::from_utf8_lossy(&texts[index]).into_owned(),
                    (None, None) => place.to_string(),
                };
                (label, values[index] as f32)
            };
            Ok((0..rows).map(|row| (row * width..(row + 1) * width).map(class).collect()).collect())
        }
        ([], [(spec, labels)]) => {
            let texts: Vec<String> = match labels.as_strings() {
                Some(strings) => {
                    strings.iter().map(|s| String::from_utf8_lossy(s).into_owned()).collect()
                }
                None => numbers(labels).into_iter().map(|number| number.to_string()).collect(),
            };
            let width = width(spec, texts.len(), rows)?;
            let class = |index: usize| (texts[index].clone(), 0.0);
            Ok((0..rows).map(|row| (row * width..(row + 1) * width).map(class).collect()).collect())
        }
        _ => Err(unfit(reply, "classify needs one output of scores, or one of labels")),
    }
}

/// The number of each example: the model's one floating-point output with one value a row.
///
/// # Errors
/// If the model has no output like that, or several.
pub(crate) fn regressions(reply: &Reply, rows: usize) -> Result<Vec<f32>, Error> {
    let fits = |(_, tensor): &(&TensorSpec, &Tensor)| is_floating(tensor) && tensor.len() == rows;
    let outputs: Vec<_> = named(reply).into_iter().filter(fits).collect();
    match &outputs[..] {
        [(_, tensor)] => Ok(numbers(tensor).into_iter().map(|number| number as f32).collect()),
        _ => Err(unfit(reply, "regress needs one output of one number a row")),
    }
}

fn named(reply: &Reply) -> Vec<(&TensorSpec, &Tensor)> {
    let specs = &reply.info.signature.outputs;
    reply.outputs.iter().map(|(position, tensor)| (&specs[*position], tensor)).collect()
}

fn is_floating(tensor: &Tensor) -> bool {
    use DataType::{Bf16, Fp16, Fp32, Fp64};
    matches!(tensor.datatype(), Fp16 | Bf16 | Fp32 | Fp64)
}

/// Values a row.
fn width(spec: &TensorSpec, len: usize, rows: usize) -> Result<usize, Error> {
    if rows > 0 && len.is_multiple_of(rows) {
        return Ok(len / rows);
    }
    let message = format!("output \"{}\" has {len} values for {rows} examples", spec.name);
    Err(Error::new(ErrorCode::FailedPrecondition, message))
}

fn unfit(reply: &Reply, needs: &str) -> Error {
    let outputs = reply.info.signature.outputs.iter();
    let outputs: Vec<String> =
        outputs.map(|s| format!("\"{}\" {} {:?}", s.name, s.datatype, s.extents())).collect();
    let message =
        format!("{needs}; model '{}' has {}; use predict", reply.info.name, outputs.join(", "));
    Error::new(ErrorCode::FailedPrecondition, message)
}

/// A tensor's elements as numbers; none for strings.
fn numbers(tensor: &Tensor) -> Vec<f64> {
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
    use std::collections::HashMap;

    use crate::proto::tensorflow::{BytesList, FloatList, Int64List};

    fn example(features: impl IntoIterator<Item = (String, Kind)>) -> Example {
        let feature: HashMap<String, Feature> =
            features.into_iter().map(|(name, kind)| (name, Feature { kind: Some(kind) })).collect();
        Example { features: Some(crate::proto::tensorflow::Features { feature }) }
    }

    fn floats(values: &[f32]) -> Kind {
        Kind::FloatList(FloatList { value: values.to_vec() })
    }

    fn ints(values: &[i64]) -> Kind {
        Kind::Int64List(Int64List { value: values.to_vec() })
    }

    fn one(name: &str, kind: Kind) -> Example {
        example([(name.to_string(), kind)])
    }

    fn signature(datatype: DataType, row: &[Dimension]) -> Signature {
        let shape = std::iter::once(Dimension::Any).chain(row.iter().cloned()).collect();
        let inputs = vec![TensorSpec::new("x", datatype, shape)];
        Signature { inputs, outputs: Vec::new(), batched: true }
    }

    fn why(signature: &Signature, examples: &[Example]) -> String {
        inputs(signature, examples, None, 1 << 20).unwrap_err().to_string()
    }

    #[test]
    fn features_become_rows() {
        let signature = signature(DataType::Fp32, &[Dimension::Fixed(2)]);
        let examples = [one("x", floats(&[1.0, 2.0])), one("x", ints(&[3, 4]))];
        let inputs = inputs(&signature, &examples, None, 1 << 20).unwrap();
        assert_eq!(inputs[0].1, Tensor::new(vec![2, 2], vec![1f32, 2.0, 3.0, 4.0]).unwrap());
    }

    #[test]
    fn the_context_fills_what_examples_lack() {
        let signature = signature(DataType::Int8, &[]);
        let examples = [one("x", ints(&[1])), example([])];
        let context = one("x", ints(&[7]));
        let filled = inputs(&signature, &examples, Some(&context), 100).unwrap();
        assert_eq!(filled[0].1, Tensor::new(vec![2], vec![1i8, 7]).unwrap());
        assert_eq!(why(&signature, &examples), "example 1 has no feature \"x\"");
    }

    #[test]
    fn a_context_cannot_be_multiplied_without_end() {
        let signature = signature(DataType::Int64, &[Dimension::Any]);
        let examples = vec![example([]); 1000];
        let context = one("x", ints(&[0; 1000]));
        let error = inputs(&signature, &examples, Some(&context), 1 << 20).unwrap_err();
        assert_eq!(error.code(), ErrorCode::ResourceExhausted);
    }

    #[test]
    fn a_feature_that_does_not_fit_is_refused() {
        let two = signature(DataType::Fp32, &[Dimension::Fixed(2)]);
        assert_eq!(
            why(&two, &[one("x", floats(&[1.0]))]),
            "input \"x\": an example has 1 values, expected shape [-1, 2]"
        );
        assert_eq!(
            why(&two, &[one("x", floats(&[1.0, 2.0])), one("x", floats(&[1.0]))]),
            "input \"x\": example 1 has 1 values, example 0 has 2"
        );
        let text = Kind::BytesList(BytesList { value: vec!["a".into(), "b".into()] });
        assert_eq!(
            why(&two, &[one("x", text)]),
            "input \"x\": expected FP32, got a feature of strings"
        );
        let small = signature(DataType::Uint8, &[]);
        assert_eq!(
            why(&small, &[one("x", ints(&[256]))]),
            "input \"x\": 256 is a number that UINT8 cannot hold"
        );
        assert_eq!(
            why(&small, &[one("x", floats(&[1.0]))]),
            "input \"x\": expected UINT8, got a feature of floating-point numbers"
        );
        assert!(why(&small, &[]).contains("no examples"));
    }

    #[test]
    fn one_extent_may_vary() {
        let varying = signature(DataType::Fp32, &[Dimension::Any, Dimension::Fixed(2)]);
        let inputs = inputs(&varying, &[one("x", floats(&[0.0; 6]))], None, 1000).unwrap();
        assert_eq!(inputs[0].1.shape(), [1, 3, 2]);
        let both = signature(DataType::Fp32, &[Dimension::Any, Dimension::Any]);
        assert!(why(&both, &[one("x", floats(&[0.0]))]).contains("more than one dimension"));
    }
}
