//! Who runs which node: decided once, when a model is loaded.

use std::collections::{BTreeMap, HashSet};

use model::DataType;

use super::graph::{Graph, Nested, Node, operator_name};
use super::kinds::Kind;
use super::operators::{self, Operator};
use super::refusals::{self, Facts};
use super::segment::Source;
use crate::Error;

/// What a plan depends on beside the graph.
pub(super) struct Options {
    /// How many threads a run may use.
    pub(super) threads: usize,
    /// Leave every node to `rten` that it takes.
    pub(super) prefer_rten: bool,
}

/// One step of a run.
pub(super) enum Step {
    /// A node that we run ourselves.
    Own { operator: Box<dyn Operator>, node: usize },
    /// Nodes that `rten` runs.
    Segment(Source),
}

/// Who can run a node.
enum Runner {
    Own(Box<dyn Operator>),
    Rten,
    Either(Box<dyn Operator>),
}

/// The steps of a graph, in order; or everything that cannot be run.
pub(super) fn plan(graph: &Graph<'_>, options: &Options) -> Result<Vec<Step>, Error> {
    let mut runners = Vec::with_capacity(graph.nodes.len());
    let mut refusals = Refusals::default();
    for node in &graph.nodes {
        let own = operators::build(graph, node, options.threads);
        let reason = refuses(graph, node);
        match (own, reason) {
            (Ok(Some(operator)), Some(_)) => runners.push(Runner::Own(operator)),
            (Ok(Some(_)), None) if options.prefer_rten => runners.push(Runner::Rten),
            (Ok(Some(_)), None) if is_heavy(graph, node) => runners.push(Runner::Rten),
            (Ok(Some(operator)), None) => runners.push(Runner::Either(operator)),
            (_, None) => runners.push(Runner::Rten),
            (Ok(None), Some(reason)) => refusals.add(reason),
            (Err(error), Some(_)) if error.code() == model::ErrorCode::Unimplemented => {
                refusals.add(error.at(operator_name(node.proto)).to_string());
            }
            (Err(error), Some(_)) => return Err(error.at(node.place())),
        }
    }
    refusals.finish()?;
    let neural = runners.iter().any(|runner| matches!(runner, Runner::Rten));
    if neural {
        mixed(graph, runners)
    } else {
        let own = |(node, runner)| match runner {
            Runner::Own(operator) | Runner::Either(operator) => Step::Own { operator, node },
            Runner::Rten => unreachable!("none was found"),
        };
        Ok(runners.into_iter().enumerate().map(own).collect())
    }
}

/// Why a node, or one inside it, must not be left to `rten`.
fn refuses(graph: &Graph<'_>, node: &Node<'_>) -> Option<String> {
    let unused = Kind::Tensor(DataType::Fp32);
    let outputs: Vec<Kind> =
        node.outputs.iter().map(|id| id.map_or(unused, |id| graph.values[id].kind)).collect();
    let facts = Facts {
        node: node.proto,
        opset: node.opset,
        inputs: &graph.kinds(&node.inputs),
        outputs: &outputs,
        wanted: node.wanted_outputs(),
    };
    let inner = |nested: &Nested<'_>| {
        refusals::reason(&Facts {
            node: nested.proto,
            opset: node.opset,
            inputs: &nested.inputs,
            outputs: &nested.outputs,
            wanted: nested.proto.output.len(),
        })
    };
    refusals::reason(&facts)
        .or_else(|| node.nested.iter().find_map(inner))
        .or_else(|| beyond_32_bits(graph, node))
        .or_else(|| column_vector(graph, node))
}

/// `rten` computes INT64 in 32 bits. Extents always fit; data may not, once it is calculated with.
fn beyond_32_bits(graph: &Graph<'_>, node: &Node<'_>) -> Option<String> {
    const CALCULATES: &[&str] = &[
        "Abs",
        "Add",
        "Cast",
        "CumSum",
        "Div",
        "Mean",
        "Mod",
        "Mul",
        "Neg",
        "Pow",
        "Range",
        "ReduceL1",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
        "Sub",
        "Sum",
    ];
    let name = operator_name(node.proto);
    let long = Kind::Tensor(DataType::Int64);
    let makes = node
        .outputs
        .iter()
        .flatten()
        .any(|id| graph.values[*id].kind == long && !graph.values[*id].shape_like);
    if makes && CALCULATES.contains(&node.proto.op_type.as_str()) {
        return Some(format!("operator {name} is not supported on INT64 data beyond 32 bits"));
    }
    // The ends of a slice may be as large as can be: that is how "to the end" is written.
    if node.proto.op_type == "Slice" {
        return None;
    }
    let too_large = |id: &usize| {
        let constant = graph.values[*id].constant.as_deref();
        constant.filter(|tensor| tensor.data_type == model::onnx::data_type::INT64).is_some_and(
            |tensor| {
                let tensor = tensor.to_tensor().ok();
                let values = tensor.as_ref().and_then(|tensor| tensor.as_slice::<i64>());
                values.is_none_or(|values| values.iter().any(|v| i32::try_from(*v).is_err()))
            },
        )
    };
    node.inputs
        .iter()
        .flatten()
        .any(too_large)
        .then(|| format!("operator {name} is not supported with a constant beyond 32 bits"))
}

/// `rten` leaves a dimension too many when a batch of matrices meets a vector.
fn column_vector(graph: &Graph<'_>, node: &Node<'_>) -> Option<String> {
    let right = (*node.inputs.get(1)?)?;
    let rank = graph.rank(right);
    (node.proto.op_type == "MatMul" && rank == Some(1))
        .then(|| "operator MatMul is not supported with a vector on the right".to_owned())
}

/// A product with so many weights that `rten`'s kernels pay for the way there.
fn is_heavy(graph: &Graph<'_>, node: &Node<'_>) -> bool {
    const MANY: i64 = 64 * 64;
    matches!(node.proto.op_type.as_str(), "MatMul" | "Gemm")
        && node.inputs.iter().flatten().any(|id| {
            let constant = graph.values[*id].constant.as_deref();
            constant.is_some_and(|tensor| {
                tensor.dims.iter().fold(1i64, |n, dim| n.saturating_mul(*dim)) >= MANY
            })
        })
}

/// Gathers as many nodes as possible into each segment: takes everything that is ready for one
/// side, then everything for the other, until all is done.
fn mixed(graph: &Graph<'_>, runners: Vec<Runner>) -> Result<Vec<Step>, Error> {
    let mut waiting: Vec<(usize, Runner)> = runners.into_iter().enumerate().collect();
    let mut pending: HashSet<usize> =
        graph.nodes.iter().flat_map(|node| node.outputs.iter().flatten().copied()).collect();
    let mut steps = Vec::new();
    let mut segments = true;
    while !waiting.is_empty() {
        let mut taken = Vec::new();
        let mut later = Vec::new();
        for (index, runner) in waiting {
            let node = &graph.nodes[index];
            let wanted = segments != matches!(runner, Runner::Own(_));
            if wanted && node.reads().all(|id| !pending.contains(&id)) {
                for id in node.outputs.iter().flatten() {
                    pending.remove(id);
                }
                taken.push((index, runner));
            } else {
                later.push((index, runner));
            }
        }
        waiting = later;
        let worth_it = taken.iter().any(|(_, runner)| matches!(runner, Runner::Rten));
        if segments && worth_it {
            steps.push(Step::Segment(source(graph, taken.iter().map(|(index, _)| *index))));
        } else {
            steps.extend(taken.into_iter().map(|(node, runner)| match runner {
                Runner::Own(operator) | Runner::Either(operator) => Step::Own { operator, node },
                Runner::Rten => unreachable!("a step with one is a segment"),
            }));
        }
        segments = !segments;
    }
    Ok(steps)
}

fn source(graph: &Graph<'_>, nodes: impl Iterator<Item = usize>) -> Source {
    let nodes: Vec<usize> = nodes.collect();
    let inside: HashSet<usize> = nodes.iter().copied().collect();
    let made: HashSet<usize> =
        nodes.iter().flat_map(|n| graph.nodes[*n].outputs.iter().flatten().copied()).collect();
    let mut inputs: Vec<usize> = nodes.iter().flat_map(|n| graph.nodes[*n].reads()).collect();
    inputs.sort_unstable();
    inputs.dedup();
    inputs.retain(|id| !made.contains(id) && graph.values[*id].constant.is_none());
    let mut used: HashSet<usize> = graph.outputs.iter().copied().collect();
    for (index, node) in graph.nodes.iter().enumerate() {
        if !inside.contains(&index) {
            used.extend(node.reads());
        }
    }
    let mut outputs: Vec<usize> = made.into_iter().filter(|id| used.contains(id)).collect();
    outputs.sort_unstable();
    Source { nodes, inputs, outputs }
}

/// What cannot be run, each once, with how often it occurs.
#[derive(Default)]
struct Refusals(BTreeMap<String, usize>);

impl Refusals {
    fn add(&mut self, reason: String) {
        *self.0.entry(reason).or_default() += 1;
    }

    fn finish(self) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = self
            .0
            .into_iter()
            .map(|(reason, count)| match count {
                1 => reason,
                _ => format!("{reason} ({count} nodes)"),
            })
            .collect();
        Err(Error::unsupported(format!(
            "{}. ONNX Runtime runs all standard operators: `modelyard engines` says how to add it",
            list.join("; ")
        )))
    }
}
