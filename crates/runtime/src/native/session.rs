//! Runs a plan: a table of values, filled step by step, emptied as soon as nothing needs a value.

use std::sync::{Arc, Mutex};

use model::{Package, Program, Tensor};
use rten::ThreadPool;

use super::graph::Graph;
use super::operators::{Argument, Operator};
use super::plan::{self, Step};
use super::segment::Segment;
use crate::{Error, LoadOptions, Session};

/// Whether the package can be run; the error names what cannot.
pub(super) fn check(package: &Package, prefer_rten: bool) -> Result<(), Error> {
    let Program::Onnx(model) = &package.program;
    let graph = Graph::new(model, &package.manifest.signature)?;
    let plan_options = plan::Options { threads: 1, prefer_rten };
    for step in plan::plan(&graph, &plan_options)? {
        if let Step::Segment(source) = step {
            source.check(&graph)?;
        }
    }
    Ok(())
}

/// A model made ready to run.
pub(super) struct NativeSession {
    steps: Vec<Ready>,
    /// Slots start out as this: constants that our own operators read, defaults, or nothing.
    constants: Vec<Option<Tensor>>,
    inputs: Vec<(usize, String)>,
    outputs: Vec<usize>,
    /// Thread pools that no run uses at the moment; empty if no step needs one.
    pools: Mutex<Vec<Arc<ThreadPool>>>,
    spare_pool: Option<Arc<ThreadPool>>,
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
    Segment(Box<Segment>),
}

impl NativeSession {
    pub(super) fn new(
        package: &Package,
        options: &LoadOptions,
        prefer_rten: bool,
    ) -> Result<Self, Error> {
        let Program::Onnx(model) = &package.program;
        let signature = &package.manifest.signature;
        let graph = Graph::new(model, signature)?;
        let plan_options = plan::Options { threads: options.threads.max(1), prefer_rten };
        let mut steps = Vec::new();
        for step in plan::plan(&graph, &plan_options)? {
            steps.push(match step {
                Step::Own { operator, node } => {
                    let node = &graph.nodes[node];
                    let work = Work::Own { operator, place: node.place() };
                    Ready {
                        work,
                        inputs: node.inputs.clone(),
                        outputs: node.outputs.clone(),
                        last: vec![],
                    }
                }
                Step::Segment(source) => Ready {
                    work: Work::Segment(Box::new(source.compile(&graph)?)),
                    inputs: source.inputs.iter().copied().map(Some).collect(),
                    outputs: source.outputs.iter().copied().map(Some).collect(),
                    last: vec![],
                },
            });
        }
        let constants = constants(&graph, &steps)?;
        mark_last_reads(&mut steps, &graph, &constants);
        let needs_pool = steps.iter().any(|step| matches!(step.work, Work::Segment(_)));
        let pools: Vec<_> = (0..if needs_pool { options.instances.max(1) } else { 0 })
            .map(|_| Arc::new(ThreadPool::with_num_threads(options.threads.max(1))))
            .collect();
        let names = signature.inputs.iter().map(|spec| spec.name.to_string());
        Ok(Self {
            steps,
            constants,
            inputs: graph.inputs.iter().copied().zip(names).collect(),
            outputs: graph.outputs.clone(),
            spare_pool: pools.first().cloned(),
            pools: Mutex::new(pools),
        })
    }

    fn execute(
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

    fn take_pool(&self) -> Option<Arc<ThreadPool>> {
        let mut free = self.pools.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        free.pop()
    }
}

impl Session for NativeSession {
    fn run(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, Error> {
        let Some(spare) = &self.spare_pool else { return self.execute(inputs, None) };
        // More runs side by side than was asked for share a pool.
        let own = self.take_pool();
        let pool = own.as_ref().unwrap_or(spare);
        let _back = own.as_ref().map(|pool| GiveBack { session: self, pool });
        pool.run(|| self.execute(inputs, Some(pool)))
    }
}

/// Returns a pool also when a run panics.
struct GiveBack<'a> {
    session: &'a NativeSession,
    pool: &'a Arc<ThreadPool>,
}

impl Drop for GiveBack<'_> {
    fn drop(&mut self) {
        let mut free = self.session.pools.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        free.push(Arc::clone(self.pool));
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
    fn run(
        &self,
        slots: &mut [Slot<'_>],
        pool: Option<&Arc<ThreadPool>>,
    ) -> Result<Vec<Tensor>, Error> {
        let missing = || Error::internal("a value was not computed");
        // Owned values are taken out first, so that the rest can be borrowed.
        let mut taken: Vec<Option<Tensor>> = self
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
        match &self.work {
            Work::Own { operator, place } => {
                let mut arguments = Vec::with_capacity(self.inputs.len());
                for (id, taken) in self.inputs.iter().zip(taken) {
                    arguments.push(match (id, taken) {
                        (None, _) => None,
                        (Some(_), Some(tensor)) => Some(Argument::Owned(tensor)),
                        (Some(id), None) => {
                            Some(Argument::Borrowed(slots[*id].get().ok_or_else(missing)?))
                        }
                    });
                }
                operator.run(arguments).map_err(|error| error.at(place))
            }
            Work::Segment(segment) => {
                let mut arguments = Vec::with_capacity(self.inputs.len());
                for (id, taken) in self.inputs.iter().zip(&mut taken) {
                    let tensor = match (id, taken) {
                        (_, Some(tensor)) => &*tensor,
                        (Some(id), None) => slots[*id].get().ok_or_else(missing)?,
                        (None, None) => return Err(missing()),
                    };
                    arguments.push(tensor);
                }
                segment.run(&arguments, pool)
            }
        }
    }
}

/// The tensors that values have before anything has run.
fn constants(graph: &Graph<'_>, steps: &[Ready]) -> Result<Vec<Option<Tensor>>, Error> {
    let mut constants = vec![None; graph.values.len()];
    let own = steps.iter().filter(|step| matches!(step.work, Work::Own { .. }));
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
