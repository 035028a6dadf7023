//! Checks a request against the signature, once. Nothing else enters a queue.

use std::sync::Arc;

use model::{Dimension, ErrorCode, Signature, Tensor, TensorSpec};

use crate::{Error, Request};

/// A request that fits its model's signature. Only [`validate`] makes one.
#[derive(Clone, Debug)]
pub(crate) struct ValidRequest {
    inputs: Arc<[Option<Tensor>]>,
    outputs: Vec<usize>,
    rows: usize,
    batched: bool,
}

impl ValidRequest {
    /// The inputs in the signature's order; `None` for optional ones that were left out.
    pub(crate) fn inputs(&self) -> &Arc<[Option<Tensor>]> {
        &self.inputs
    }

    /// The wanted outputs, as positions in the signature, in the order they were asked for.
    pub(crate) fn outputs(&self) -> &[usize] {
        &self.outputs
    }

    /// Rows along the batch dimension; 1 if the model has none.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Whether the two can run as one batch: the same inputs, alike in all but their rows.
    pub(crate) fn stacks_with(&self, other: &Self) -> bool {
        let alike = |(a, b): (&Option<Tensor>, &Option<Tensor>)| match (a, b) {
            (Some(a), Some(b)) => a.shape().get(1..) == b.shape().get(1..),
            (None, None) => true,
            _ => false,
        };
        self.batched
            && other.batched
            && self.rows > 0
            && other.rows > 0
            && self.inputs.iter().zip(other.inputs.iter()).all(alike)
    }
}

/// Whether a request of these inputs, by name, fits a signature. The error says why not.
pub fn check(signature: &Signature, inputs: Vec<(String, Tensor)>) -> Result<(), Error> {
    validate(signature, inputs, &[]).map(drop)
}

/// Checks names, types, shapes and rows, and puts the inputs into the signature's order.
pub(crate) fn validate(
    signature: &Signature,
    inputs: Vec<(String, Tensor)>,
    outputs: &[String],
) -> Result<ValidRequest, Error> {
    let mut ordered: Vec<Option<Tensor>> = vec![None; signature.inputs.len()];
    for (name, tensor) in inputs {
        let Some((position, spec)) = signature.input(&name) else {
            return Err(unknown_input(signature, &name));
        };
        check_tensor(spec, &tensor)?;
        if ordered[position].replace(tensor).is_some() {
            return Err(invalid(format!("input \"{name}\" was given twice")));
        }
    }
    let missing: Vec<&str> = signature
        .inputs
        .iter()
        .zip(&ordered)
        .filter(|(spec, tensor)| tensor.is_none() && !spec.optional)
        .map(|(spec, _)| &*spec.name)
        .collect();
    if !missing.is_empty() {
        return Err(invalid(format!(
            "missing input{} {}; the model takes {}",
            if missing.len() == 1 { "" } else { "s" },
            quoted(missing.iter().copied()),
            describe(&signature.inputs),
        )));
    }
    check_symbols(signature, &ordered)?;
    let rows = if signature.batched { common_rows(signature, &ordered)? } else { 1 };
    Ok(ValidRequest {
        inputs: ordered.into(),
        outputs: wanted_outputs(signature, outputs)?,
        rows,
        batched: signature.batched,
    })
}

/// The request's outputs as positions; all of them if it names none.
fn wanted_outputs(signature: &Signature, names: &[String]) -> Result<Vec<usize>, Error> {
    if names.is_empty() {
        return Ok((0..signature.outputs.len()).collect());
    }
    let mut positions = Vec::with_capacity(names.len());
    for name in names {
        let Some((position, _)) = signature.output(name) else {
            return Err(unknown("output", name, &signature.outputs));
        };
        if positions.contains(&position) {
            return Err(invalid(format!("output \"{name}\" was asked for twice")));
        }
        positions.push(position);
    }
    Ok(positions)
}

fn check_tensor(spec: &TensorSpec, tensor: &Tensor) -> Result<(), Error> {
    let fits = match &spec.shape {
        None => true,
        Some(dims) => {
            dims.len() == tensor.shape().len()
                && dims.iter().zip(tensor.shape()).all(|(dim, extent)| match dim {
                    Dimension::Fixed(n) => n == extent,
                    Dimension::Symbolic(_) | Dimension::Any => true,
                })
        }
    };
    if fits && tensor.datatype() == spec.datatype {
        return Ok(());
    }
    let expected = match &spec.shape {
        Some(_) => format!("{:?}", spec.extents()),
        None => "of any rank".to_owned(),
    };
    Err(invalid(format!(
        "input \"{}\": expected shape {expected} {}, got {:?} {}",
        spec.name,
        spec.datatype,
        tensor.shape(),
        tensor.datatype()
    )))
}

/// A symbolic dimension has one value in a request, wherever it appears.
fn check_symbols(signature: &Signature, inputs: &[Option<Tensor>]) -> Result<(), Error> {
    let mut seen: Vec<(&str, usize, &str)> = Vec::new();
    for (spec, tensor) in signature.inputs.iter().zip(inputs) {
        let (Some(dims), Some(tensor)) = (&spec.shape, tensor) else { continue };
        for (dim, extent) in dims.iter().zip(tensor.shape()) {
            let Dimension::Symbolic(symbol) = dim else { continue };
            match seen.iter().find(|(name, ..)| *name == &**symbol) {
                Some((_, value, other)) if value != extent => {
                    return Err(invalid(format!(
                        "input \"{}\": dimension \"{symbol}\" is {extent}, but {value} in input \"{other}\"",
                        spec.name
                    )));
                }
                Some(_) => {}
                None => seen.push((symbol, *extent, &spec.name)),
            }
        }
    }
    Ok(())
}

/// The number of rows, which every input of a batched model must agree on.
fn common_rows(signature: &Signature, inputs: &[Option<Tensor>]) -> Result<usize, Error> {
    let mut common: Option<(usize, &str)> = None;
    for (spec, tensor) in signature.inputs.iter().zip(inputs) {
        let Some(tensor) = tensor else { continue };
        let Some(rows) = tensor.rows() else {
            return Err(invalid(format!("input \"{}\": expected rows, got a scalar", spec.name)));
        };
        match common {
            Some((first, other)) if first != rows => {
                return Err(invalid(format!(
                    "input \"{}\" has {rows} rows, but input \"{other}\" has {first}",
                    spec.name
                )));
            }
            Some(_) => {}
            None => common = Some((rows, &spec.name)),
        }
    }
    Ok(common.map_or(1, |(rows, _)| rows))
}

/// The refusal of an input that the model does not take.
pub fn unknown_input(signature: &Signature, name: &str) -> Error {
    unknown("input", name, &signature.inputs)
}

fn unknown(kind: &str, name: &str, specs: &[TensorSpec]) -> Error {
    let verb = if kind == "input" { "takes" } else { "gives" };
    // A hostile name may be as long as the body; the message need not be.
    let shown: String = name.chars().take(100).collect();
    invalid(format!("unknown {kind} \"{shown}\"; the model {verb} {}", describe(specs)))
}

/// `"a" FP32 [-1, 4], "b" BYTES [-1]`, cut where the model has very many.
fn describe(specs: &[TensorSpec]) -> String {
    const MOST: usize = 16;
    let mut text = specs
        .iter()
        .take(MOST)
        .map(|spec| format!("\"{}\" {} {:?}", spec.name, spec.datatype, spec.extents()))
        .collect::<Vec<_>>()
        .join(", ");
    if specs.len() > MOST {
        text.push_str(&format!(" and {} more", specs.len() - MOST));
    }
    text
}

fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

fn invalid(message: String) -> Error {
    Error::new(ErrorCode::InvalidArgument, message)
}

impl Request {
    /// Adds a named input.
    pub fn input(mut self, name: &str, tensor: Tensor) -> Self {
        self.inputs.push((name.to_owned(), tensor));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::DataType;

    fn signature() -> Signature {
        let n = || Dimension::Symbolic("N".into());
        Signature {
            inputs: vec![
                TensorSpec::new("age", DataType::Fp32, vec![n(), Dimension::Fixed(1)]),
                TensorSpec::new("city", DataType::Bytes, vec![n(), Dimension::Fixed(1)]),
            ],
            outputs: vec![TensorSpec::new("risk", DataType::Fp32, vec![n()])],
            batched: true,
        }
    }

    fn age(rows: usize) -> (String, Tensor) {
        ("age".into(), Tensor::new(vec![rows, 1], vec![1f32; rows]).unwrap())
    }

    fn city(rows: usize) -> (String, Tensor) {
        ("city".into(), Tensor::new(vec![rows, 1], vec!["x".to_owned(); rows]).unwrap())
    }

    #[track_caller]
    fn check_refused(inputs: Vec<(String, Tensor)>, outputs: &[&str], expected: &str) {
        let outputs: Vec<String> = outputs.iter().map(|s| (*s).to_owned()).collect();
        let error = validate(&signature(), inputs, &outputs).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn inputs_come_in_any_order_and_leave_in_the_signatures() {
        let valid = validate(&signature(), vec![city(2), age(2)], &[]).unwrap();
        assert_eq!(valid.rows(), 2);
        assert_eq!(valid.outputs(), [0]);
        assert_eq!(valid.inputs()[0].as_ref().unwrap().datatype(), DataType::Fp32);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let wrong = ("age".to_owned(), Tensor::new(vec![3], vec!["x".to_owned(); 3]).unwrap());
        check_refused(
            vec![wrong],
            &[],
            "input \"age\": expected shape [-1, 1] FP32, got [3] BYTES",
        );
        check_refused(
            vec![age(1)],
            &[],
            "missing input \"city\"; the model takes \"age\" FP32 [-1, 1], \"city\" BYTES [-1, 1]",
        );
        check_refused(vec![age(1), age(1)], &[], "input \"age\" was given twice");
        check_refused(
            vec![age(1), city(2)],
            &[],
            "input \"city\": dimension \"N\" is 2, but 1 in input \"age\"",
        );
        let extra = ("ag".to_owned(), Tensor::new(vec![1, 1], vec![1f32]).unwrap());
        check_refused(
            vec![age(1), city(1), extra],
            &[],
            "unknown input \"ag\"; the model takes \"age\" FP32 [-1, 1], \"city\" BYTES [-1, 1]",
        );
        check_refused(
            vec![age(1), city(1)],
            &["rsk"],
            "unknown output \"rsk\"; the model gives \"risk\" FP32 [-1]",
        );
        check_refused(
            vec![age(1), city(1)],
            &["risk", "risk"],
            "output \"risk\" was asked for twice",
        );
    }

    #[test]
    fn only_requests_of_one_shape_stack() {
        let width = |n: usize| {
            let signature = Signature {
                inputs: vec![TensorSpec::new(
                    "x",
                    DataType::Fp32,
                    vec![Dimension::Any, Dimension::Any],
                )],
                outputs: Vec::new(),
                batched: true,
            };
            let x = Tensor::new(vec![1, n], vec![0f32; n]).unwrap();
            validate(&signature, vec![("x".into(), x)], &[]).unwrap()
        };
        assert!(width(2).stacks_with(&width(2)));
        assert!(!width(2).stacks_with(&width(3)));
    }
}
