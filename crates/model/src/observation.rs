//! What one prediction leaves behind.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::{ErrorCode, Tensor};

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
    /// The caller's request id.
    pub id: Option<Arc<str>>,
    /// When it was received.
    pub at: SystemTime,
    /// Time waited for an instance.
    pub queue: Duration,
    /// Time in the engine, for the whole batch.
    pub compute: Duration,
    /// Rows that ran together.
    pub batch_size: usize,
    /// How it ended.
    pub outcome: Outcome,
    /// The inputs, in the signature's order; `None` for optional ones that were left out.
    pub inputs: Arc<[Option<Tensor>]>,
    /// The outputs, in the signature's order; empty if it failed.
    pub outputs: Arc<[Tensor]>,
}
