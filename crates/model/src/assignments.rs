//! The wanted state of serving.

use std::collections::BTreeMap;

/// How a version is to be run; every field left out is chosen for the machine.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InstanceSettings {
    /// Pins the engine by name (`native`, `onnxruntime`); chosen by measuring if absent.
    pub engine: Option<String>,
    /// How many copies run side by side.
    pub instances: Option<usize>,
    /// Threads inside one run of the engine.
    pub threads: Option<usize>,
    /// The most rows that may be run as one batch.
    pub max_batch_size: Option<usize>,
    /// ONNX Runtime execution providers, most wanted first.
    pub providers: Vec<String>,
}

/// One version that is to be loaded.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Assigned {
    /// The version, as the protocols name it: digits, or any string.
    pub version: String,
    /// Where its package comes from; only whoever opens packages reads this.
    pub source: String,
    /// Part of the traffic that names no version. Shares are relative to their sum;
    /// 0 serves only those who name the version.
    pub share: u32,
    /// Whether it gets a copy of the traffic that it does not answer, whose answers nobody sees. It
    /// answers callers by its share, its pins, and if it is named.
    pub shadow: bool,
    /// Request keys that always get this version, whatever the shares say.
    #[serde(default)]
    pub pinned: Vec<String>,
    /// How to run it.
    pub settings: InstanceSettings,
    /// Raised to load the same version again, for example after its file changed.
    pub generation: u64,
}

/// The full wanted state: for each model the versions to be loaded. What is not in it is unloaded.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Assignments {
    /// By model name.
    pub models: BTreeMap<String, Vec<Assigned>>,
}
