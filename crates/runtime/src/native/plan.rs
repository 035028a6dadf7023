//! Who runs which node: decided once, when a model is loaded.

use std::collections::{BTreeMap, HashSet};

use super::graph::{Graph, Node};
use super::kinds::Kind;
use super::operators::{self, Operator};
use super::refusals;
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
        let outputs: Vec<Kind> = node
            .outputs
            .iter()
            .map(|id| id.map_or(Kind::Tensor(model::DataType::Fp32), |id| graph.values[id].kind))
            .collect();
        let inputs = graph.kinds(&node.inputs);
        let reason = refusals::reason(node.proto, node.opset, &inputs, &outputs).or_else(|| {
            let inner = |n: &super::graph::Nested<'_>| {
                refusals::reason(n.proto, node.opset, &n.inputs, &n.outputs)
            };
            node.nested.iter().find_map(inner)
        });
        match (own, reason) {
            (Ok(Some(operator)), Some(_)) => runners.push(Runner::Own(operator)),
            (Ok(Some(_)), None) if options.prefer_rten => runners.push(Runner::Rten),
            (Ok(Some(operator)), None) => runners.push(Runner::Either(operator)),
            (_, None) => runners.push(Runner::Rten),
            (Ok(None), Some(reason)) => refusals.add(node, reason),
            (Err(error), Some(_)) if error.code() == model::ErrorCode::Unimplemented => {
                refusals.add(node, error.to_string());
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
    fn add(&mut self, _node: &Node<'_>, reason: String) {
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
