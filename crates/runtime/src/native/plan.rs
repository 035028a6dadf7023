//! Who runs which node: decided once, when a model is loaded.

use std::collections::{BTreeMap, HashSet};

use model::DataType;

use super::control::Flow;
use super::graph::{Graph, Node, operator_name};
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
    /// A node that runs graphs of its own; `bodies` are their steps.
    Control { flow: Flow, bodies: Vec<Vec<Step>>, node: usize },
    /// Nodes that `rten` runs.
    Segment(Source),
}

/// Who can run a node.
enum Runner {
    Own(Box<dyn Operator>),
    Control(Flow, Vec<Vec<Step>>),
    Rten,
    Either(Box<dyn Operator>),
}

impl Runner {
    /// The step of a node that does not go to `rten`.
    fn step(self, node: usize) -> Step {
        match self {
            Self::Own(operator) | Self::Either(operator) => Step::Own { operator, node },
            Self::Control(flow, bodies) => Step::Control { flow, bodies, node },
            Self::Rten => unreachable!("a step with one is a segment"),
        }
    }
}

/// The steps of a graph, in order; or everything that cannot be run.
pub(super) fn plan(graph: &Graph<'_>, options: &Options) -> Result<Vec<Step>, Error> {
    let mut refusals = Refusals::default();
    let steps = steps(graph, options, &mut refusals)?;
    refusals.finish()?;
    Ok(steps)
}

/// The steps of a graph and of the graphs inside it. They are of use only if nothing was refused.
fn steps(
    graph: &Graph<'_>,
    options: &Options,
    refusals: &mut Refusals,
) -> Result<Vec<Step>, Error> {
    let mut runners = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let runner = match Flow::of(graph, node) {
            Ok(Some(flow)) => {
                let bodies = node.bodies.iter().map(|body| steps(&body.graph, options, refusals));
                Ok(Some(Runner::Control(flow, bodies.collect::<Result<_, _>>()?)))
            }
            Ok(None) => runner(graph, node, options, refusals),
            Err(error) => Err(error),
        };
        match runner {
            Ok(runner) => runners.extend(runner),
            Err(error) if error.code() == model::ErrorCode::Unimplemented => {
                refusals.add(error.at(operator_name(node.proto)).to_string());
            }
            Err(error) => return Err(error.at(node.place())),
        }
    }
    if !refusals.0.is_empty() {
        return Ok(Vec::new());
    }
    if runners.iter().any(|runner| matches!(runner, Runner::Rten)) {
        mixed(graph, runners)
    } else {
        Ok(runners.into_iter().enumerate().map(|(node, runner)| runner.step(node)).collect())
    }
}

/// Who runs a node without graphs of its own; `None` if nobody does.
fn runner(
    graph: &Graph<'_>,
    node: &Node<'_>,
    options: &Options,
    refusals: &mut Refusals,
) -> Result<Option<Runner>, Error> {
    let own = operators::build(graph, node, options.threads);
    Ok(Some(match (own, refuses(graph, node)) {
        (Ok(Some(operator)), Some(_)) => Runner::Own(operator),
        (Ok(Some(_)), None) if options.prefer_rten || is_heavy(graph, node) => Runner::Rten,
        (Ok(Some(operator)), None) => Runner::Either(operator),
        (_, None) => Runner::Rten,
        (Err(error), Some(_)) => return Err(error),
        (Ok(None), Some(reason)) => {
            refusals.add(reason);
            return Ok(None);
        }
    }))
}

/// Why a node must not be left to `rten`.
fn refuses(graph: &Graph<'_>, node: &Node<'_>) -> Option<String> {
    let unused = Kind::Tensor(DataType::Fp32);
    let outputs: Vec<Kind> =
        node.outputs.iter().map(|id| id.map_or(unused, |id| graph.values[id].kind)).collect();
    let facts = Facts {
        node: node.proto,
        opset: node.opset,
        inputs: &graph.kinds(&node.inputs),
        forms: &graph.forms(&node.inputs),
        outputs: &outputs,
        wanted: node.wanted_outputs(),
    };
    refusals::reason(&facts).or_else(|| beyond_32_bits(graph, node))
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
            let ours = matches!(runner, Runner::Own(_) | Runner::Control(..));
            let wanted = segments != ours;
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
            steps.extend(taken.into_iter().map(|(node, runner)| runner.step(node)));
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Ranks are not declared inside a transformer; where they could not be inferred, its products
    /// would be left to the slow way.
    #[test]
    fn all_products_of_a_transformer_go_to_rten() {
        let bytes = include_bytes!("../../tests/golden/native/network_transformer.onnx");
        let package = import::onnx(bytes.to_vec().into()).unwrap();
        let model::Program::Onnx(model) = &package.program;
        let graph = Graph::new(model, &package.manifest.signature).unwrap();
        let steps = plan(&graph, &Options { threads: 1, prefer_rten: false }).unwrap();
        assert_eq!(steps.len(), 1);
        let Step::Segment(segment) = &steps[0] else { panic!("expected a segment") };
        assert_eq!(segment.nodes.len(), graph.nodes.len());
    }
}
