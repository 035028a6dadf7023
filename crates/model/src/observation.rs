//! What one prediction leaves behind.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::{ErrorCode, Signature, Tensor};

/// How a prediction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Answered,
    /// It failed with this code.
    Failed(ErrorCode),
}

/// One prediction, as watchers see it. Inputs and outputs share their buffers with the reply.
#[derive(Clone, Debug)]
pub struct Observation {
    /// The model's name.
    pub model: Arc<str>,
    /// The version that answered.
    pub version: Arc<str>,
    /// What that version takes and gives.
    pub signature: Arc<Signature>,
    /// The caller's request id.
    pub id: Option<Arc<str>>,
    /// The caller's key, by which it always gets the same version.
    pub key: Option<Arc<str>>,
    /// When it was received.
    pub at: SystemTime,
    /// Time waited for an instance; zero if it failed.
    pub queue: Duration,
    /// Time in the engine, for the whole batch; if it failed, all the time until then.
    pub compute: Duration,
    /// Rows that ran together.
    pub batch_size: usize,
    /// How it ended.
    pub outcome: Outcome,
    /// The inputs, in the signature's order; `None` for optional ones that were left out.
    pub inputs: Arc<[Option<Tensor>]>,
    /// The outputs, in the signature's order; empty if it failed.
    pub outputs: Arc<[Tensor]>,
    /// For an answer that nobody saw: what the caller got instead.
    pub shadow: Option<Shadow>,
}

impl Observation {
    /// The bytes that it keeps in memory: those of its tensors' elements.
    pub fn bytes(&self) -> usize {
        let inputs = self.inputs.iter().flatten().map(Tensor::bytes);
        let outputs = self.outputs.iter().map(Tensor::bytes);
        let callers = self.shadow.iter().flat_map(|shadow| shadow.outputs.iter());
        inputs.chain(outputs).chain(callers.map(Tensor::bytes)).sum()
    }
}

/// What a caller got whose request was given to another version as well.
#[derive(Clone, Debug)]
pub struct Shadow {
    /// The version that answered the caller.
    pub version: Arc<str>,
    /// What the caller got, in the order of that version's signature; empty if it failed.
    pub outputs: Arc<[Tensor]>,
}
