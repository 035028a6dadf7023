//! Runs a plan: a table of values, filled step by step, emptied as soon as nothing needs a value.

use std::sync::Arc;

use model::{Package, Tensor};
use rten::ThreadPool;

use super::control::Control;
use super::graph::{Graph, Node};
use super::operators::{Argument, Operator};
use super::plan::{self, Step};
use super::pools;
use super::segment::Segment;
use crate::engine::no_thread;
use crate::{Error, LoadOptions, Session, background};

/// Whether the package can be run; the error names what cannot.
pub(super) fn check(package: &Package, prefer_rten: bool) -> Result<(), Error> {
    let model::Program::Onnx(model) = &package.program;
    let graph = Graph::new(model, &package.manifest.signature)?;
    let plan_options = plan::Options { threads: 1, prefer_rten };
    check_steps(&graph, &plan::plan(&graph, &plan_options)?)
}

fn check_steps(graph: &Graph<'_>, steps: &[Step]) -> Result<(), Error> {
    for step in steps {
        match step {
            Step::Own { .. } => {}
            Step::Segment(source) => source.check(graph)?,
            Step::Control { bodies, node, .. } => {
                for (body, steps) in graph.nodes[*node].bodies.iter().zip(bodies) {
                    check_steps(&body.graph, steps)?;
                }
            }
        }
    }
    Ok(())
}

/// A model made ready to run.
pub(super) struct NativeSession {
    program: Program,
    /// How many threads one run is given; `None` if no step needs a pool of them.
    threads: Option<usize>,
}

/// A graph made ready to run: the model's own, or one inside a node.
pub(super) struct Program {
    steps: Vec<Ready>,
    /// Slots start out as this: constants that our own operators read, defaults, or nothing.
    constants: Vec<Option<Tensor>>,
    inputs: Vec<(usize, String)>,
    outputs: Vec<usize>,
}

struct Ready {
    work: Work,
    inputs: Vec<Option<usize>>,
    outputs: Vec<Option<usize>>,
    /// For each input, whether this is the last step to read it.
    last: Vec<bool>,
}

enum Work {
    Own { operator: Box<dyn Operator>, place: String },
    Control { control: Box<Control>, place: String },
    Segment(Box<Segment>),
}

impl NativeSession {
    pub(super) fn new(
        package: &Package,
        options: &LoadOptions,
        prefer_rten: bool,
    ) -> Result<Self, Error> {
        if options.threads > 1 {
            // Kernels share rayon's own threads. Whoever asks first starts them, and that must not
            // be a warm-up in the background, whose low priority they would have for good.
            rayon::current_num_threads();
        }
        let compile = || {
            let model::Program::Onnx(model) = &package.program;
            let graph = Graph::new(model, &package.manifest.signature)?;
            let plan_options = plan::Options { threads: options.threads.max(1), prefer_rten };
            Program::new(&graph, plan::plan(&graph, &plan_options)?)
        };
        let program = background(compile).unwrap_or_else(|error| Err(no_thread(error)))?;
        let threads = program.needs_pool().then_some(options.threads.max(1));
        // Whoever asks first starts the threads; here they get the priority of those that serve.
        threads.map(pools::take);
        Ok(Self { program, threads })
    }
}

impl Program {
    /// Compiles the steps of a graph.
    fn new(graph: &Graph<'_>, steps: Vec<Step>) -> Result<Self, Error> {
        let mut ready = Vec::with_capacity(steps.len());
        for step in steps {
            ready.push(Ready::new(graph, step)?);
        }
        let constants = constants(graph, &ready)?;
        mark_last_reads(&mut ready, graph, &constants);
        let inputs = graph.inputs.iter().map(|id| (*id, graph.values[*id].name.to_owned()));
        Ok(Self {
            steps: ready,
            constants,
            inputs: inputs.collect(),
            outputs: graph.outputs.clone(),
        })
    }

    /// Whether a run wants a thread pool.
    pub(super) fn needs_pool(&self) -> bool {
        self.steps.iter().any(|step| match &step.work {
            Work::Own { .. } => false,
            Work::Control { control, .. } => control.needs_pool(),
            Work::Segment(_) => true,
        })
    }

    /// Runs it once. Takes and gives values in the graph's order.
    pub(super) fn execute(
        &self,
        inputs: &[Option<&Tensor>],
        pool: Option<&Arc<ThreadPool>>,
    ) -> Result<Vec<Tensor>, Error> {
        let mut slots: Vec<Slot<'_>> = self
            .constants
            .iter()
            .map(|constant| constant.as_ref().map_or(Slot::Empty, Slot::Borrowed))
            .collect();
        for ((id, name), tensor) in self.inputs.iter().zip(inputs) {
            match tensor {
                Some(tensor) => slots[*id] = Slot::Borrowed(tensor),
                None if matches!(slots[*id], Slot::Empty) => {
                    return Err(Error::invalid(format!("input \"{name}\" is missing")));
                }
                None => {}
            }
        }
        for step in &self.steps {
            let made = step.run(&mut slots, pool)?;
            for (id, tensor) in step.outputs.iter().zip(made) {
                if let Some(id) = id {
                    slots[*id] = Slot::Owned(tensor);
                }
            }
        }
        let last = self.outputs.len();
        let outputs = self.outputs.iter().enumerate().map(|(index, id)| {
            // The same value may be returned under two names.
            if self.outputs[index + 1..last].contains(id) {
                slots[*id].get().cloned()
            } else {
                std::mem::replace(&mut slots[*id], Slot::Empty).into_tensor()
            }
            .ok_or_else(|| Error::internal("an output was not computed"))
        });
        outputs.collect()
    }
}

impl Session for NativeSession {
    fn run(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, Error> {
        let Some(threads) = self.threads else { return self.program.execute(inputs, None) };
        let taken = pools::take(threads);
        taken.pool().run(|| self.program.execute(inputs, Some(taken.pool())))
    }
}

/// What a value is at the moment.
enum Slot<'a> {
    Empty,
    Borrowed(&'a Tensor),
    Owned(Tensor),
}

impl Slot<'_> {
    fn get(&self) -> Option<&Tensor> {
        match self {
            Self::Empty => None,
            Self::Borrowed(tensor) => Some(tensor),
            Self::Owned(tensor) => Some(tensor),
        }
    }

    fn into_tensor(self) -> Option<Tensor> {
        match self {
            Self::Empty => None,
            Self::Borrowed(tensor) => Some(tensor.clone()),
            Self::Owned(tensor) => Some(tensor),
        }
    }
}

impl Ready {
    fn new(graph: &Graph<'_>, step: Step) -> Result<Self, Error> {
        let of_node = |node: &Node<'_>, work: Work| Self {
            work,
            inputs: node.arguments().collect(),
            outputs: node.outputs.clone(),
            last: vec![],
        };
        Ok(match step {
            Step::Own { operator, node } => {
                let node = &graph.nodes[node];
                of_node(node, Work::Own { operator, place: node.place() })
            }
            Step::Control { flow, bodies, node } => {
                let node = &graph.nodes[node];
                let bodies = node.bodies.iter().zip(bodies);
                let programs = bodies.map(|(body, steps)| Program::new(&body.graph, steps));
                let control = Control::new(flow, node, programs.collect::<Result<_, _>>()?);
                of_node(node, Work::Control { control: Box::new(control), place: node.place() })
            }
            Step::Segment(source) => Self {
                work: Work::Segment(Box::new(source.compile(graph)?)),
                inputs: source.inputs.iter().copied().map(Some).collect(),
                outputs: source.outputs.iter().copied().map(Some).collect(),
                last: vec![],
            },
        })
    }

    fn run(
        &self,
        slots: &mut [Slot<'_>],
        pool: Option<&Arc<ThreadPool>>,
    ) -> Result<Vec<Tensor>, Error> {
        let missing = || Error::internal("a value was not computed");
        // Owned values are taken out first, so that the rest can be borrowed.
        let taken: Vec<Option<Tensor>> = self
            .inputs
            .iter()
            .zip(&self.last)
            .map(|(id, last)| {
                let slot = &mut slots[(*id).filter(|_| *last)?];
                match std::mem::replace(slot, Slot::Empty) {
                    Slot::Owned(tensor) => Some(tensor),
                    other => {
                        *slot = other;
                        None
                    }
                }
            })
            .collect();
        let mut arguments = Vec::with_capacity(self.inputs.len());
        for (id, taken) in self.inputs.iter().zip(taken) {
            arguments.push(match (id, taken) {
                (None, _) => None,
                (Some(_), Some(tensor)) => Some(Argument::Owned(tensor)),
                (Some(id), None) => Some(Argument::Borrowed(slots[*id].get().ok_or_else(missing)?)),
            });
        }
        match &self.work {
            Work::Own { operator, place } => {
                operator.run(arguments).map_err(|error| error.at(place))
            }
            Work::Control { control, place } => {
                control.run(&arguments, pool).map_err(|error| error.at(place))
            }
            Work::Segment(segment) => {
                let given = arguments.iter().map(|tensor| tensor.as_deref().ok_or_else(missing));
                segment.run(&given.collect::<Result<Vec<_>, _>>()?, pool)
            }
        }
    }
}

/// The tensors that values have before anything has run.
fn constants(graph: &Graph<'_>, steps: &[Ready]) -> Result<Vec<Option<Tensor>>, Error> {
    let mut constants = vec![None; graph.values.len()];
    let own = steps.iter().filter(|step| !matches!(step.work, Work::Segment(_)));
    let read = own.flat_map(|step| step.inputs.iter().flatten()).chain(&graph.outputs);
    for id in read.chain(&graph.inputs) {
        let value = &graph.values[*id];
        let proto = value.constant.as_deref().or(value.default);
        if let (Some(proto), None) = (proto, &constants[*id]) {
            constants[*id] = Some(proto.to_tensor().map_err(Error::invalid)?);
        }
    }
    Ok(constants)
}

/// Finds the last step that reads each value, and no output of the model.
fn mark_last_reads(steps: &mut [Ready], graph: &Graph<'_>, constants: &[Option<Tensor>]) {
    let mut read_later = vec![false; constants.len()];
    for id in &graph.outputs {
        read_later[*id] = true;
    }
    for step in steps.iter_mut().rev() {
        step.last = vec![false; step.inputs.len()];
        for (index, id) in step.inputs.iter().enumerate().rev() {
            if let Some(id) = id {
                // An operator may read the same value twice: then nobody takes it.
                let once = step.inputs.iter().filter(|other| **other == Some(*id)).count() == 1;
                step.last[index] = once && !read_later[*id];
                read_later[*id] = true;
            }
        }
    }
}
