//! Whether requests may be stacked: does row i of every output depend on row i of the inputs alone?
//!
//! The graph is walked once with, for each value, the extents of its dimensions, where one may be
//! [`Extent::Batch`]: the number of rows. A value with such a dimension holds at position i of it
//! what was made from row i of the inputs and from nothing else that varies; a value without holds
//! the same for every request. Each operator has a rule that keeps this true, or says why it
//! cannot. Operators without a rule are taken to mix rows: a wrong "no" costs speed, a wrong
//! "yes" would give wrong answers.

mod arrange;
mod calculate;
mod rules;
mod windows;

use std::collections::HashMap;
use std::rc::Rc;

use model::onnx::{GraphProto, NodeProto, TensorProto, attribute_proto::AttributeType, data_type};
use model::{Dimension, Signature};

use super::graph::{self, describe};

/// What became of one dimension, or is one number in a list of integers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Extent {
    /// The number of rows.
    Batch,
    /// This number.
    Fixed(i64),
    /// Some number, the same for all requests that could be stacked.
    Other,
}

use Extent::{Batch, Fixed, Other};

/// What is known of one value.
#[derive(Clone, Debug, Default)]
struct Value {
    /// Its dimensions; `None` only if it is independent of the rows and their number.
    dims: Option<Vec<Extent>>,
    /// Its elements, for short lists of integers.
    entries: Option<Vec<Extent>>,
}

impl Value {
    fn of(dims: Vec<Extent>) -> Self {
        Self { dims: Some(dims), entries: None }
    }

    /// Whether it holds the number of rows as a number.
    fn counts(&self) -> bool {
        self.entries.as_ref().is_some_and(|entries| entries.contains(&Batch))
    }

    fn varies(&self) -> bool {
        self.counts() || self.dims.as_ref().is_some_and(|dims| dims.contains(&Batch))
    }
}

/// The position of the rows.
fn batch_axis(dims: &[Extent]) -> Option<usize> {
    dims.iter().position(|dim| *dim == Batch)
}

/// Why a value cannot be told apart by rows.
type Reason = String;

/// The longest list of integers whose elements are followed.
const MAX_ENTRIES: usize = 64;

/// What was found.
#[derive(Debug)]
pub struct Verdict {
    /// Why requests cannot be stacked; `None` if they can.
    pub refusal: Option<Reason>,
    /// The dimensions of each output, where they are known and requests can be stacked.
    pub outputs: Vec<Vec<Extent>>,
}

/// Decides for a checked and sorted graph.
pub fn decide(graph: &GraphProto, opset: i64, signature: &Signature) -> Verdict {
    match outputs(graph, opset, signature) {
        Ok(outputs) => Verdict { refusal: None, outputs },
        Err(reason) => Verdict { refusal: Some(reason), outputs: Vec::new() },
    }
}

fn outputs(
    graph: &GraphProto,
    opset: i64,
    signature: &Signature,
) -> Result<Vec<Vec<Extent>>, Reason> {
    let mut analysis = Analysis { values: HashMap::new(), tensors: HashMap::new(), opset };
    for tensor in &graph.initializer {
        analysis.values.insert(&tensor.name, Ok(constant(tensor)));
        analysis.tensors.insert(&tensor.name, tensor);
    }
    for (name, value) in inputs(graph, signature)? {
        analysis.values.insert(name, Ok(value));
    }
    for (index, node) in graph.node.iter().enumerate() {
        analysis.node(index, node);
    }
    let output = |spec: &model::TensorSpec| {
        let value = analysis.values.get(&*spec.name);
        let value = value.ok_or_else(|| "it is not made by any node".to_owned());
        let value = value.and_then(|value| value.as_ref().map_err(|reason| reason.to_string()));
        match value.map(|value| value.dims.as_deref().unwrap_or_default()) {
            Ok(dims) if dims.first() == Some(&Batch) => Ok(dims.to_vec()),
            Ok(dims) if dims.contains(&Batch) => Err(format!(
                "output \"{}\" has the rows along another than its first dimension",
                spec.name
            )),
            Ok(_) => Err(format!(
                "output \"{}\" does not have one row for each row of the inputs",
                spec.name
            )),
            Err(reason) => Err(reason),
        }
    };
    signature.outputs.iter().map(output).collect()
}

/// The inputs as values, if their first dimensions can all be the number of rows.
fn inputs<'a>(
    graph: &'a GraphProto,
    signature: &Signature,
) -> Result<Vec<(&'a str, Value)>, Reason> {
    let mut symbol: Option<&Dimension> = None;
    let mut values = Vec::new();
    for spec in &signature.inputs {
        let name = &spec.name;
        if spec.optional {
            return Err(format!(
                "input \"{name}\" has a default, which may differ between requests"
            ));
        }
        let dims = spec
            .shape
            .as_ref()
            .ok_or_else(|| format!("input \"{name}\" does not say its shape"))?;
        match dims.first() {
            None => return Err(format!("input \"{name}\" has no dimensions")),
            Some(Dimension::Fixed(extent)) => {
                return Err(format!("input \"{name}\" has the fixed first dimension {extent}"));
            }
            Some(Dimension::Any) => {}
            Some(first) => match symbol {
                Some(other) if other != first => {
                    return Err(format!(
                        "the inputs have different first dimensions, {other} and {first}"
                    ));
                }
                _ => symbol = Some(first),
            },
        }
        let extent = |dim: &Dimension| match dim {
            Dimension::Fixed(extent) => i64::try_from(*extent).map_or(Other, Fixed),
            _ => Other,
        };
        let rest = dims[1..].iter().map(extent);
        let value = Value::of(std::iter::once(Batch).chain(rest).collect());
        if let Some(input) = graph.input.iter().find(|input| *input.name == **name) {
            values.push((input.name.as_str(), value));
        }
    }
    let again = |spec: &&model::TensorSpec| {
        spec.shape.iter().flat_map(|dims| &dims[1..]).any(|dim| Some(dim) == symbol)
    };
    if let Some(spec) = signature.inputs.iter().find(again) {
        return Err(format!("input \"{}\" has the number of rows in two dimensions", spec.name));
    }
    if values.is_empty() {
        return Err("the model has no inputs".into());
    }
    Ok(values)
}

/// What is known of a constant.
fn constant(tensor: &TensorProto) -> Value {
    let dims: Vec<Extent> = tensor.dims.iter().map(|dim| Fixed(*dim)).collect();
    let short = tensor.dims.len() <= 1 && tensor.dims.iter().all(|dim| *dim <= MAX_ENTRIES as i64);
    let whole = matches!(tensor.data_type, data_type::INT64 | data_type::INT32);
    let read = || {
        let tensor = tensor.to_tensor().ok()?;
        let wide = tensor.as_slice::<i64>().map(<[i64]>::to_vec);
        wide.or_else(|| Some(tensor.as_slice::<i32>()?.iter().map(|v| i64::from(*v)).collect()))
    };
    let entries: Option<Vec<i64>> = (short && whole).then(read).flatten();
    Value { dims: Some(dims), entries: entries.map(|list| list.into_iter().map(Fixed).collect()) }
}

struct Analysis<'a> {
    values: HashMap<&'a str, Result<Value, Rc<str>>>,
    /// Constants by name, for the rules that need more than shape and integers.
    tensors: HashMap<&'a str, &'a TensorProto>,
    opset: i64,
}

impl<'a> Analysis<'a> {
    fn node(&mut self, index: usize, node: &'a NodeProto) {
        let result = self.evaluate(index, node);
        for (position, name) in node.output.iter().enumerate().filter(|(_, name)| !name.is_empty())
        {
            let value = match &result {
                Ok(values) => Ok(values.get(position).cloned().unwrap_or_default()),
                Err(reason) => Err(reason.clone()),
            };
            self.values.insert(name, value);
        }
    }

    fn evaluate(&mut self, index: usize, node: &'a NodeProto) -> Result<Vec<Value>, Rc<str>> {
        if let Some(tensor) = constant_of(node) {
            self.tensors.extend(node.output.first().map(|name| (name.as_str(), tensor)));
            return Ok(vec![constant(tensor)]);
        }
        let reason = |why: String| Rc::from(format!("{}: {why}", describe(index, node)));
        let mut inputs = Vec::with_capacity(node.input.len());
        for name in &node.input {
            inputs.push(match self.values.get(name.as_str()) {
                Some(Ok(value)) => Some(value),
                Some(Err(reason)) => return Err(reason.clone()),
                None => None,
            });
        }
        let mut varies = inputs.iter().flatten().any(|value| value.varies());
        if graph::subgraphs(node).next().is_some() {
            varies |= self.captures_rows(node)?;
            return match varies {
                true => Err(reason("its body may mix rows".into())),
                false => Ok(vec![Value::default(); node.output.len()]),
            };
        }
        let counts = inputs.iter().flatten().any(|value| value.counts());
        let call = Call { node, inputs, opset: self.opset, tensors: &self.tensors };
        let result = match counts && !rules::may_take_counts(&node.op_type) {
            true => Err("computes with the number of rows".to_owned()),
            false => rules::apply(&call).and_then(one_batch_axis),
        };
        match result {
            Ok(values) => Ok(values),
            Err(why) if varies || rules::is_random(&node.op_type) => Err(reason(why)),
            // What has nothing to do with the rows is the same for all requests.
            Err(_) => Ok(vec![Value::default(); node.output.len()]),
        }
    }

    /// Whether a node's subgraphs use values that vary with the rows.
    fn captures_rows(&self, node: &'a NodeProto) -> Result<bool, Rc<str>> {
        let mut names = Vec::new();
        graph::reads(node, &mut names);
        let mut varies = false;
        for value in names.iter().filter_map(|name| self.values.get(name)) {
            varies |= value.as_ref().map_err(Rc::clone)?.varies();
        }
        Ok(varies)
    }
}

/// The tensor of a `Constant` node.
fn constant_of(node: &NodeProto) -> Option<&TensorProto> {
    if node.op_type != "Constant" {
        return None;
    }
    node.attribute.iter().find(|attribute| attribute.name == "value")?.t.as_deref()
}

fn one_batch_axis(values: Vec<Value>) -> Result<Vec<Value>, Reason> {
    let axes = |value: &Value| value.dims.iter().flatten().filter(|dim| **dim == Batch).count();
    if values.iter().any(|value| axes(value) > 1) {
        return Err("relates rows to each other".into());
    }
    Ok(values)
}

/// One node with what is known of its inputs.
struct Call<'a> {
    node: &'a NodeProto,
    inputs: Vec<Option<&'a Value>>,
    opset: i64,
    tensors: &'a HashMap<&'a str, &'a TensorProto>,
}

impl Call<'_> {
    fn given(&self, index: usize) -> Option<&Value> {
        self.inputs.get(index).copied().flatten()
    }

    fn input(&self, index: usize) -> Result<&Value, Reason> {
        self.given(index).ok_or_else(|| format!("lacks its input {index}"))
    }

    /// The dimensions of an input that has to be there.
    fn dims(&self, index: usize) -> Result<&[Extent], Reason> {
        let dims = self.input(index)?.dims.as_deref();
        dims.ok_or_else(|| format!("its input {index} has an unknown shape"))
    }

    /// Refuses inputs from a position on that vary with the rows.
    fn only_constants_from(&self, index: usize) -> Result<(), Reason> {
        match self.inputs.iter().skip(index).flatten().any(|value| value.varies()) {
            true => Err("has parameters that vary with the rows".into()),
            false => Ok(()),
        }
    }

    /// The elements of an input that is a short list of known integers.
    fn integers(&self, index: usize) -> Result<Vec<i64>, Reason> {
        let unknown = || format!("its input {index} is not a constant");
        let entries = self.input(index)?.entries.as_ref().ok_or_else(unknown)?;
        let integer = |entry: &Extent| if let Fixed(value) = entry { Some(*value) } else { None };
        entries.iter().map(integer).collect::<Option<_>>().ok_or_else(unknown)
    }

    fn attribute(&self, name: &str) -> Option<&model::onnx::AttributeProto> {
        self.node.attribute.iter().find(|attribute| attribute.name == name)
    }

    fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |attribute| attribute.i)
    }

    fn ints(&self, name: &str) -> Option<&[i64]> {
        let attribute = self.attribute(name)?;
        let scalar = attribute.r#type == AttributeType::Int as i32;
        Some(if scalar { std::slice::from_ref(&attribute.i) } else { &attribute.ints })
    }

    /// A list that is an attribute in older operator sets and an input in newer ones.
    fn list(&self, name: &str, index: usize) -> Result<Option<Vec<i64>>, Reason> {
        match self.ints(name) {
            Some(list) => Ok(Some(list.to_vec())),
            None if self.given(index).is_some() => self.integers(index).map(Some),
            None => Ok(None),
        }
    }

    fn text(&self, name: &str) -> &[u8] {
        self.attribute(name).map_or(&[], |attribute| &attribute.s)
    }

    /// The `axis` attribute as a position among `rank` dimensions.
    fn axis(&self, default: i64, rank: usize) -> Result<usize, Reason> {
        position(self.int("axis", default), rank)
    }
}

/// An axis that may count from the end.
fn position(axis: i64, rank: usize) -> Result<usize, Reason> {
    let length = i64::try_from(rank).unwrap_or(i64::MAX);
    let from_start = if axis < 0 { axis.saturating_add(length) } else { axis };
    let position = usize::try_from(from_start).ok().filter(|position| *position < rank);
    position.ok_or_else(|| format!("has the axis {axis} of {rank} dimensions"))
}

/// Axes that may count from the end.
fn positions(axes: &[i64], rank: usize) -> Result<Vec<usize>, Reason> {
    axes.iter().map(|axis| position(*axis, rank)).collect()
}

/// The product of extents, if all are known.
fn product(dims: &[Extent]) -> Option<i64> {
    dims.iter().try_fold(1i64, |product, dim| match dim {
        Fixed(extent) => product.checked_mul(*extent),
        _ => None,
    })
}

/// Right-aligned broadcasting, as in NumPy.
fn broadcast(shapes: &[&[Extent]]) -> Result<Vec<Extent>, Reason> {
    let rank = shapes.iter().map(|dims| dims.len()).max().unwrap_or(0);
    let mut result = vec![Fixed(1); rank];
    for dims in shapes {
        let start = rank - dims.len();
        for (target, dim) in result[start..].iter_mut().zip(*dims) {
            *target = combine(*target, *dim)?;
        }
    }
    Ok(result)
}

/// One dimension of a broadcast.
fn combine(a: Extent, b: Extent) -> Result<Extent, Reason> {
    Ok(match (a, b) {
        (Fixed(1), x) | (x, Fixed(1)) => x,
        (Batch, Batch) => Batch,
        (Batch, Fixed(rows)) | (Fixed(rows), Batch) => {
            return Err(format!("fixes the number of rows to {rows}"));
        }
        (Batch, Other) | (Other, Batch) => {
            return Err("combines the rows with another dimension".into());
        }
        (Fixed(a), Fixed(b)) if a != b => return Err(format!("combines {a} with {b} elements")),
        (Fixed(n), _) | (_, Fixed(n)) => Fixed(n),
        (Other, Other) => Other,
    })
}
