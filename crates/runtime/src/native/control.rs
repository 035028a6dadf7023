//! `If`, `Loop` and `Scan`: nodes that run graphs of their own.
//!
//! Each graph is planned and run like the model's own, so nothing inside escapes a check.

use std::sync::Arc;

use model::onnx::{ValueInfoProto, tensor_shape_proto::dimension, type_proto};
use model::{Data, DataType, Tensor};
use rten::ThreadPool;

use super::attributes::Attributes;
use super::graph::{Body, Graph, Node};
use super::kinds::Kind;
use super::operators::{Argument, Rounds, integer, slice_at};
use super::session::Program;
use crate::Error;

/// Which node it is, with what its attributes say.
#[derive(Clone, Debug)]
pub(super) enum Flow {
    If {
        /// The positions of the branches among the node's graphs.
        branches: [usize; 2],
    },
    Loop,
    Scan(Scan),
}

/// Lists have an entry for each scanned input or output.
#[derive(Clone, Debug)]
pub(super) struct Scan {
    input_axes: Vec<i64>,
    input_backwards: Vec<bool>,
    output_axes: Vec<i64>,
    output_backwards: Vec<bool>,
}

impl Flow {
    /// Reads a node; `None` if it is another operator.
    pub(super) fn of(graph: &Graph<'_>, node: &Node<'_>) -> Result<Option<Self>, Error> {
        if !matches!(node.proto.domain.as_str(), "" | "ai.onnx") {
            return Ok(None);
        }
        let flow = match node.proto.op_type.as_str() {
            "If" => Self::If { branches: branches(node)? },
            "Loop" => Self::Loop,
            "Scan" if node.opset < 9 => {
                return Err(Error::unsupported("as before operator set 9 is not supported"));
            }
            "Scan" => Self::Scan(Scan::of(node)?),
            _ => return Ok(None),
        };
        flow.check(graph, node)?;
        Ok(Some(flow))
    }

    /// How many of the node's inputs are carried from round to round, and where they begin.
    fn carried(&self, inputs: usize) -> (usize, usize) {
        match self {
            Self::If { .. } => (0, 0),
            Self::Loop => (2, inputs.saturating_sub(2)),
            Self::Scan(scan) => (0, inputs - scan.input_axes.len()),
        }
    }

    fn check(&self, graph: &Graph<'_>, node: &Node<'_>) -> Result<(), Error> {
        let tensor = |kind: Kind| match kind {
            Kind::Tensor(_) => Ok(()),
            other => Err(Error::unsupported(format!("is not supported on {other}"))),
        };
        for body in &node.bodies {
            let inputs = body.graph.inputs.iter().chain(&body.graph.outputs);
            inputs.map(|id| body.graph.values[*id].kind).try_for_each(tensor)?;
        }
        graph.kinds(&node.inputs).into_iter().flatten().try_for_each(tensor)?;
        let Self::If { .. } = self else { return self.check_body(graph, node) };
        let parameters = node.bodies.iter().map(|body| body.parameters.len()).sum::<usize>();
        let results = node.proto.output.len();
        if parameters > 0 || node.bodies.iter().any(|body| body.results.len() != results) {
            return Err(Error::invalid(format!(
                "both branches have to take nothing and give {results} values"
            )));
        }
        Ok(())
    }

    fn check_body(&self, graph: &Graph<'_>, node: &Node<'_>) -> Result<(), Error> {
        let [body] = &node.bodies[..] else {
            return Err(Error::invalid("has to have one graph, its body"));
        };
        let (first, carried) = self.carried(node.inputs.len());
        let condition = usize::from(matches!(self, Self::Loop));
        let expected = node.inputs.len().max(first);
        let results = node.proto.output.len() + condition;
        if (body.parameters.len(), body.results.len()) != (expected, results)
            || results < condition + carried
        {
            return Err(Error::invalid(format!(
                "its body takes {} values and gives {}, expected {expected} and {results}",
                body.parameters.len(),
                body.results.len()
            )));
        }
        for index in 0..carried {
            let inside = |id: usize| body.graph.values[id].kind;
            let given = node.inputs[first + index].map(|id| graph.values[id].kind);
            let taken = inside(body.graph.inputs[first + index]);
            let made = inside(body.graph.outputs[condition + index]);
            if given != Some(taken) || taken != made {
                let given = given.map_or_else(|| "nothing".to_owned(), |kind| kind.to_string());
                return Err(Error::invalid(format!(
                    "carried value {index} begins as {given}, but its body takes {taken} and gives {made}"
                )));
            }
        }
        Ok(())
    }
}

/// Which of the graphs is the one for true, which the one for false. Files list them in any order.
fn branches(node: &Node<'_>) -> Result<[usize; 2], Error> {
    let with_graphs = node.proto.attribute.iter().filter(|a| a.g.is_some());
    let names: Vec<&str> = with_graphs.map(|attribute| attribute.name.as_str()).collect();
    match names[..] {
        ["then_branch", "else_branch"] => Ok([0, 1]),
        ["else_branch", "then_branch"] => Ok([1, 0]),
        _ => Err(Error::invalid("has to have the graphs then_branch and else_branch")),
    }
}

impl Scan {
    fn of(node: &Node<'_>) -> Result<Self, Error> {
        let attributes = Attributes::of(node.proto);
        let scanned = usize::try_from(attributes.int_or("num_scan_inputs", 0)?).unwrap_or(0);
        let (inputs, outputs) = (node.inputs.len(), node.proto.output.len());
        if scanned == 0 || scanned > inputs || inputs - scanned > outputs {
            return Err(Error::invalid(format!(
                "attribute \"num_scan_inputs\" does not fit {inputs} inputs and {outputs} outputs"
            )));
        }
        let list = |name: &str, length: usize| match attributes.ints(name)? {
            [] => Ok(vec![0; length]),
            list if list.len() == length => Ok(list.to_vec()),
            list => Err(Error::invalid(format!(
                "attribute \"{name}\" has {} entries, expected {length}",
                list.len()
            ))),
        };
        let flags = |name: &str, length: usize| -> Result<Vec<bool>, Error> {
            Ok(list(name, length)?.into_iter().map(|flag| flag != 0).collect())
        };
        let made = outputs - (inputs - scanned);
        Ok(Self {
            input_axes: list("scan_input_axes", scanned)?,
            input_backwards: flags("scan_input_directions", scanned)?,
            output_axes: list("scan_output_axes", made)?,
            output_backwards: flags("scan_output_directions", made)?,
        })
    }
}

/// A node made ready to run.
pub(super) struct Control {
    flow: Flow,
    bodies: Vec<Compiled>,
    /// How many inputs the node itself has; what its graphs capture comes after them.
    inputs: usize,
}

struct Compiled {
    program: Program,
    /// Where the captured values begin among the arguments, and how many there are.
    captures: std::ops::Range<usize>,
    /// The ranks that the parameters are declared with.
    ranks: Vec<Option<usize>>,
    /// The types and declared extents of the results.
    results: Vec<(DataType, Vec<usize>)>,
}

impl Control {
    /// Takes the node's graphs as programs, in the node's order.
    pub(super) fn new(flow: Flow, node: &Node<'_>, programs: Vec<Program>) -> Self {
        let mut next = node.inputs.len();
        let bodies = node.bodies.iter().zip(programs).map(|(body, program)| {
            let captures = next..next + body.captures.len();
            next = captures.end;
            let parameters = &body.graph.inputs[..body.parameters.len()];
            let ranks = parameters.iter().map(|id| body.graph.values[*id].form.rank).collect();
            Compiled { program, captures, ranks, results: results(body) }
        });
        Self { flow, bodies: bodies.collect(), inputs: node.inputs.len() }
    }

    pub(super) fn needs_pool(&self) -> bool {
        self.bodies.iter().any(|body| body.program.needs_pool())
    }

    /// Takes the node's inputs and then what its graphs capture; gives the node's outputs.
    pub(super) fn run(
        &self,
        arguments: &[Option<Argument<'_>>],
        pool: Option<&Arc<ThreadPool>>,
    ) -> Result<Vec<Tensor>, Error> {
        let arguments: Vec<Option<&Tensor>> = arguments.iter().map(|a| a.as_deref()).collect();
        let call = Call { arguments: &arguments, pool };
        match &self.flow {
            Flow::If { branches: [yes, no] } => {
                let condition = flag(call.argument(0)?)?;
                self.bodies[if condition { *yes } else { *no }].run(&[], &call)
            }
            Flow::Loop => self.run_loop(&call),
            Flow::Scan(scan) => self.run_scan(scan, &call),
        }
    }

    fn run_loop(&self, call: &Call<'_>) -> Result<Vec<Tensor>, Error> {
        let body = &self.bodies[0];
        let optional = |index: usize| call.arguments[..self.inputs].get(index).copied().flatten();
        let limit = optional(0).map_or(Ok(i64::MAX), integer)?;
        let mut go_on = optional(1).map_or(Ok(true), flag)?;
        let (first, count) = self.flow.carried(self.inputs);
        let mut carried: Vec<Tensor> = (first..first + count)
            .map(|index| call.argument(index).cloned())
            .collect::<Result<_, _>>()?;
        let mut made: Vec<Rounds> =
            body.results[1 + count..].iter().map(|_| Rounds::new()).collect();
        let mut round = 0;
        while go_on && round < limit {
            let round_tensor = body.single(0, vec![round].into())?;
            let condition = body.single(1, Data::Bool(vec![1u8].into()))?;
            let given: Vec<&Tensor> =
                [&round_tensor, &condition].into_iter().chain(&carried).collect();
            let mut results = body.run(&given, call)?.into_iter();
            let condition = results.next().ok_or_else(lost)?;
            go_on = flag(&condition)?;
            carried = results.by_ref().take(count).collect();
            for (rounds, tensor) in made.iter_mut().zip(results) {
                rounds.push(tensor)?;
            }
            round += 1;
        }
        for (rounds, (datatype, shape)) in made.into_iter().zip(&body.results[1 + count..]) {
            carried.push(rounds.stack(0, *datatype, shape)?);
        }
        Ok(carried)
    }

    fn run_scan(&self, scan: &Scan, call: &Call<'_>) -> Result<Vec<Tensor>, Error> {
        let body = &self.bodies[0];
        let (_, count) = self.flow.carried(self.inputs);
        let mut carried: Vec<Tensor> =
            (0..count).map(|index| call.argument(index).cloned()).collect::<Result<_, _>>()?;
        let scanned: Vec<&Tensor> =
            (count..self.inputs).map(|index| call.argument(index)).collect::<Result<_, _>>()?;
        let mut length = None;
        for (tensor, axis) in scanned.iter().zip(&scan.input_axes) {
            let extent = super::operators::extent(tensor, *axis)?;
            if *length.get_or_insert(extent) != extent {
                let message = format!("its inputs are {length:?} and {extent} long");
                return Err(Error::invalid(message));
            }
        }
        let length = length.unwrap_or(0);
        let mut made: Vec<Rounds> = scan.output_axes.iter().map(|_| Rounds::new()).collect();
        for round in 0..length {
            let slice = |index: usize| {
                let backwards = scan.input_backwards[index];
                let at = if backwards { length - 1 - round } else { round };
                slice_at(scanned[index], scan.input_axes[index], at)
            };
            let slices: Vec<Tensor> = (0..scanned.len()).map(slice).collect::<Result<_, _>>()?;
            let given: Vec<&Tensor> = carried.iter().chain(&slices).collect();
            let mut results = body.run(&given, call)?.into_iter();
            carried = results.by_ref().take(count).collect();
            for (rounds, tensor) in made.iter_mut().zip(results) {
                rounds.push(tensor)?;
            }
        }
        let kinds = &body.results[count..];
        for (index, (mut rounds, (datatype, shape))) in made.into_iter().zip(kinds).enumerate() {
            if scan.output_backwards[index] {
                rounds.reverse();
            }
            carried.push(rounds.stack(scan.output_axes[index], *datatype, shape)?);
        }
        Ok(carried)
    }
}

/// What a node is run with.
struct Call<'a> {
    arguments: &'a [Option<&'a Tensor>],
    pool: Option<&'a Arc<ThreadPool>>,
}

impl<'a> Call<'a> {
    fn argument(&self, index: usize) -> Result<&'a Tensor, Error> {
        let argument = self.arguments.get(index).copied().flatten();
        argument.ok_or_else(|| Error::invalid(format!("input {index} is missing")))
    }
}

impl Compiled {
    fn run(&self, given: &[&Tensor], call: &Call<'_>) -> Result<Vec<Tensor>, Error> {
        for (index, (tensor, rank)) in given.iter().zip(&self.ranks).enumerate() {
            // The plan was made for the rank that the file declares.
            if rank.is_some_and(|rank| rank != tensor.shape().len()) {
                return Err(Error::invalid(format!(
                    "its body declares {} dimensions for value {index}, got shape {:?}",
                    rank.unwrap_or(0),
                    tensor.shape()
                )));
            }
        }
        let captured = &call.arguments[self.captures.clone()];
        let inputs: Vec<Option<&Tensor>> =
            given.iter().copied().map(Some).chain(captured.iter().copied()).collect();
        self.program.execute(&inputs, call.pool)
    }

    /// A single element as the body declares it: without dimensions, or with one.
    fn single(&self, parameter: usize, data: Data) -> Result<Tensor, Error> {
        let rank = self.ranks.get(parameter).copied().flatten().unwrap_or(0);
        let tensor = Tensor::new(vec![1; rank], data);
        tensor.map_err(|error| Error::internal(error.to_string()))
    }
}

fn lost() -> Error {
    Error::internal("a body did not return what it declares")
}

fn flag(tensor: &Tensor) -> Result<bool, Error> {
    match tensor.as_bools() {
        Some([flag]) => Ok(*flag != 0),
        _ => Err(Error::invalid(format!(
            "expected a single BOOL as condition, got {} {:?}",
            tensor.datatype(),
            tensor.shape()
        ))),
    }
}

/// The types of a graph's outputs, and the extents that they are declared with: what a loop gives
/// that goes no round. 0 stands for extents that are not known.
fn results(body: &Body<'_>) -> Vec<(DataType, Vec<usize>)> {
    let shape = |declared: &ValueInfoProto| -> Vec<usize> {
        let kind = declared.r#type.as_ref().and_then(|kind| kind.value.as_ref());
        let Some(type_proto::Value::TensorType(tensor)) = kind else { return Vec::new() };
        let dims = tensor.shape.iter().flat_map(|shape| &shape.dim);
        dims.map(|dim| match &dim.value {
            Some(dimension::Value::DimValue(extent)) => usize::try_from(*extent).unwrap_or(0),
            _ => 0,
        })
        .collect()
    };
    let kind = |id: &usize| body.graph.values[*id].kind.tensor().unwrap_or(DataType::Fp32);
    let outputs = body.graph.outputs.iter().zip(body.results);
    outputs.map(|(id, declared)| (kind(id), shape(declared))).collect()
}
