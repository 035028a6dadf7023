//! Linear models and support vector machines.

use model::Tensor;

use super::super::shape::tensor;
use super::super::{Argument, Arguments, Built, Context, Operator};
use super::{Labels, post_transform, rows, singles};
use crate::Error;
use crate::kernels::Rows;
use crate::kernels::linear::{LinearClassifier, LinearModel, LinearRegressor};
use crate::kernels::post::{PostTransform, logistic};
use crate::kernels::svm::{Kernel, SvmClasses, SvmClassifier, SvmModel, SvmRegressor};

fn linear_model(context: &Context<'_>, outputs: usize) -> Result<LinearModel, Error> {
    Ok(LinearModel {
        coefficients: context.attributes.floats("coefficients")?.to_vec(),
        intercepts: context.attributes.floats("intercepts")?.to_vec(),
        outputs,
        post: post_transform(context)?,
    })
}

pub(super) fn linear_regressor(context: &Context<'_>) -> Built {
    let attributes = context.attributes;
    attributes.only(&["coefficients", "intercepts", "post_transform", "targets"])?;
    let targets = usize::try_from(attributes.int_or("targets", 1)?)
        .map_err(|_| Error::invalid("a negative number of targets"))?;
    let model = LinearRegressor::new(linear_model(context, targets)?)?;
    let run = move |rows: Rows<'_, f32>, predictions: &mut [f32]| model.run(rows, predictions);
    Ok(Box::new(Regress { targets, run }))
}

/// What regressors have in common: how many predictions a row gets.
struct Regress<F> {
    targets: usize,
    run: F,
}

impl<F> Operator for Regress<F>
where
    F: Fn(Rows<'_, f32>, &mut [f32]) -> Result<(), Error> + Send + Sync,
{
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let input = inputs.required(0)?;
        let values = singles(input)?;
        let rows = rows(input, &values)?;
        let mut predictions = vec![0.0; rows.count() * self.targets];
        (self.run)(rows, &mut predictions)?;
        Ok(vec![tensor(vec![rows.count(), self.targets], predictions)?])
    }
}

/// What classifiers have in common: labels, and how many scores a row gets.
struct Classify<F> {
    labels: Labels,
    scores: usize,
    run: F,
}

impl<F> Operator for Classify<F>
where
    F: Fn(Rows<'_, f32>, &mut [usize], &mut [f32]) -> Result<(), Error> + Send + Sync,
{
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let input = inputs.required(0)?;
        let values = singles(input)?;
        let rows = rows(input, &values)?;
        let mut classes = vec![0; rows.count()];
        let mut scores = vec![0.0; rows.count() * self.scores];
        (self.run)(rows, &mut classes, &mut scores)?;
        Ok(vec![self.labels.tensor(&classes)?, tensor(vec![rows.count(), self.scores], scores)?])
    }
}

pub(super) fn linear_classifier(context: &Context<'_>) -> Built {
    let attributes = context.attributes;
    attributes.only(&[
        "classlabels_ints",
        "classlabels_strings",
        "coefficients",
        "intercepts",
        "multi_class",
        "post_transform",
    ])?;
    let labels = Labels::of(context, "classlabels_ints")?;
    // A classifier says how many scores it has by its intercepts.
    let intercepts = attributes.floats("intercepts")?.len();
    let outputs = if intercepts == 0 { labels.len() } else { intercepts };
    let mut arrays = linear_model(context, outputs)?;
    // ONNX Runtime takes the one score of two classes through the logistic function both ways.
    let both_ways = outputs == 1 && labels.len() == 2 && arrays.post == PostTransform::Logistic;
    if both_ways {
        arrays.post = PostTransform::None;
    }
    let model = LinearClassifier::new(arrays, labels.len())?;
    let scores = model.scores();
    Ok(Box::new(Classify {
        labels,
        scores,
        run: move |rows: Rows<'_, f32>, classes: &mut [usize], scores: &mut [f32]| {
            model.run(rows, classes, scores)?;
            if both_ways {
                for pair in scores.as_chunks_mut::<2>().0 {
                    *pair = [logistic(-pair[1]), logistic(pair[1])];
                }
            }
            Ok(())
        },
    }))
}

fn svm_model(context: &Context<'_>) -> Result<SvmModel, Error> {
    let attributes = context.attributes;
    let kernel = attributes.string("kernel_type")?.unwrap_or("LINEAR");
    Ok(SvmModel {
        kernel: Kernel::from_name(kernel, attributes.floats("kernel_params")?)?,
        support_vectors: attributes.floats("support_vectors")?.to_vec(),
        coefficients: attributes.floats("coefficients")?.to_vec(),
        rho: attributes.floats("rho")?.to_vec(),
    })
}

pub(super) fn svm_regressor(context: &Context<'_>) -> Built {
    let attributes = context.attributes;
    attributes.only(&[
        "coefficients",
        "kernel_params",
        "kernel_type",
        "n_supports",
        "one_class",
        "post_transform",
        "rho",
        "support_vectors",
    ])?;
    if post_transform(context)? != PostTransform::None {
        return Err(Error::unsupported("SVMRegressor with a post transform"));
    }
    let vectors = usize::try_from(attributes.int_or("n_supports", 0)?)
        .map_err(|_| Error::invalid("a negative number of support vectors"))?;
    let one_class = attributes.flag("one_class", false)?;
    let model = SvmRegressor::new(svm_model(context)?, vectors, one_class)?;
    let run = move |rows: Rows<'_, f32>, predictions: &mut [f32]| model.run(rows, predictions);
    Ok(Box::new(Regress { targets: 1, run }))
}

pub(super) fn svm_classifier(context: &Context<'_>) -> Built {
    let attributes = context.attributes;
    attributes.only(&[
        "classlabels_ints",
        "classlabels_strings",
        "coefficients",
        "kernel_params",
        "kernel_type",
        "post_transform",
        "prob_a",
        "prob_b",
        "rho",
        "support_vectors",
        "vectors_per_class",
    ])?;
    let labels = Labels::of(context, "classlabels_ints")?;
    let per_class = attributes.ints("vectors_per_class")?.iter();
    let vectors_per_class = per_class
        .map(|n| usize::try_from(*n).map_err(|_| Error::invalid("a negative number of vectors")))
        .collect::<Result<Vec<_>, _>>()?;
    let classes = SvmClasses {
        classes: labels.len(),
        vectors_per_class,
        prob_a: attributes.floats("prob_a")?.to_vec(),
        prob_b: attributes.floats("prob_b")?.to_vec(),
        post: post_transform(context)?,
    };
    let model = SvmClassifier::new(svm_model(context)?, classes)?;
    let scores = model.scores();
    Ok(Box::new(Classify {
        labels,
        scores,
        run: move |rows: Rows<'_, f32>, classes: &mut [usize], scores: &mut [f32]| {
            model.run(rows, classes, scores)
        },
    }))
}
