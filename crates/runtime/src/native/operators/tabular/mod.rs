//! The operators of `ai.onnx.ml`. Their arithmetic follows ONNX Runtime, whose answers models in
//! use were checked against.

mod encode;
mod predict;
mod scale;
mod trees;

use std::borrow::Cow;

use model::{Data, DataType, Tensor};

use super::layout::{Pick, gather_operator};
use super::{Built, Context, cast};
use crate::Error;
use crate::kernels::Rows;
use crate::kernels::post::PostTransform;

pub(super) fn build(operator: &str, context: &Context<'_>) -> Option<Built> {
    Some(match operator {
        "ArrayFeatureExtractor" => gather_operator(context, Pick::Columns),
        "Binarizer" => scale::binarizer(context),
        "CategoryMapper" => encode::category_mapper(context),
        "FeatureVectorizer" => scale::feature_vectorizer(context),
        "Imputer" => scale::imputer(context),
        "LabelEncoder" => encode::label_encoder(context),
        "LinearClassifier" => predict::linear_classifier(context),
        "LinearRegressor" => predict::linear_regressor(context),
        "Normalizer" => scale::normalizer(context),
        "OneHotEncoder" => encode::one_hot_encoder(context),
        "SVMClassifier" => predict::svm_classifier(context),
        "SVMRegressor" => predict::svm_regressor(context),
        "Scaler" => scale::scaler(context),
        "TreeEnsemble" => trees::ensemble(context),
        "TreeEnsembleClassifier" => trees::classifier(context),
        "TreeEnsembleRegressor" => trees::regressor(context),
        _ => return None,
    })
}

/// The elements in single precision, converted if they are another number type.
fn singles(tensor: &Tensor) -> Result<Cow<'_, [f32]>, Error> {
    if let Some(values) = tensor.as_slice::<f32>() {
        return Ok(Cow::Borrowed(values));
    }
    numbers(tensor)?;
    let converted = cast::cast(tensor, DataType::Fp32)?;
    Ok(Cow::Owned(converted.as_slice::<f32>().unwrap_or_default().to_vec()))
}

/// The elements in double precision, converted if they are another number type.
fn doubles(tensor: &Tensor) -> Result<Cow<'_, [f64]>, Error> {
    if let Some(values) = tensor.as_slice::<f64>() {
        return Ok(Cow::Borrowed(values));
    }
    numbers(tensor)?;
    let converted = cast::cast(tensor, DataType::Fp64)?;
    Ok(Cow::Owned(converted.as_slice::<f64>().unwrap_or_default().to_vec()))
}

fn numbers(tensor: &Tensor) -> Result<(), Error> {
    match tensor.data() {
        Data::Bytes(_) | Data::Bool(_) => {
            Err(Error::invalid(format!("expected numbers, got {}", tensor.datatype())))
        }
        _ => Ok(()),
    }
}

/// How many columns each row has: a vector is one row.
fn width(tensor: &Tensor) -> Result<usize, Error> {
    match tensor.shape() {
        [width] | [_, width] => Ok(*width),
        shape => Err(Error::invalid(format!("expected rows of columns, got shape {shape:?}"))),
    }
}

/// The tensor as a table.
fn rows<'a, T>(tensor: &Tensor, values: &'a [T]) -> Result<Rows<'a, T>, Error> {
    Rows::new(values, width(tensor)?)
}

fn post_transform(context: &Context<'_>) -> Result<PostTransform, Error> {
    let name = context.attributes.string("post_transform")?.unwrap_or("NONE");
    PostTransform::from_name(name)
        .ok_or_else(|| Error::unsupported(format!("post_transform \"{name}\" is not supported")))
}

/// The names of classes.
enum Labels {
    Integers(Vec<i64>),
    Strings(Vec<bytes::Bytes>),
}

impl Labels {
    fn of(context: &Context<'_>, integers: &str) -> Result<Self, Error> {
        let strings = context.attributes.strings("classlabels_strings")?;
        let integers = context.attributes.ints(integers)?;
        match (strings, integers) {
            ([], []) => Err(Error::invalid("there are no class labels")),
            ([], integers) => Ok(Self::Integers(integers.to_vec())),
            (strings, []) if strings.len() > 1 => Ok(Self::Strings(strings.to_vec())),
            ([_], []) => Err(Error::unsupported("a single label that is a string")),
            _ => Err(Error::invalid("class labels are given as strings and as integers")),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Integers(labels) => labels.len(),
            Self::Strings(labels) => labels.len(),
        }
    }

    /// One label for each row.
    fn tensor(&self, classes: &[usize]) -> Result<Tensor, Error> {
        let beyond = || Error::internal("a class without a label");
        let data: Data = match self {
            // With a single label the answer is whether the score is positive, as a number.
            Self::Integers(labels) if labels.len() == 1 => {
                classes.iter().map(|class| *class as i64).collect::<Vec<_>>().into()
            }
            Self::Integers(labels) => {
                let label = |class: &usize| labels.get(*class).copied().ok_or_else(beyond);
                classes.iter().map(label).collect::<Result<Vec<i64>, _>>()?.into()
            }
            Self::Strings(labels) => {
                let label = |class: &usize| labels.get(*class).cloned().ok_or_else(beyond);
                Data::Bytes(classes.iter().map(label).collect::<Result<_, _>>()?)
            }
        };
        super::shape::tensor(vec![classes.len()], data)
    }
}
