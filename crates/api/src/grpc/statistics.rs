//! Counters, as Triton's messages.

use std::time::UNIX_EPOCH;

use serving::{BatchStatistics, Count, Statistics};

use crate::proto::inference as pb;

pub(super) fn statistics(of: &Statistics) -> pb::ModelStatistics {
    let last = of.last_inference.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    pb::ModelStatistics {
        name: of.name.to_string(),
        version: of.version.to_string(),
        last_inference: last.map_or(0, |since| since.as_millis() as u64),
        inference_count: of.inference_count,
        execution_count: of.execution_count,
        inference_stats: Some(pb::InferStatistics {
            success: Some(duration(of.success)),
            fail: Some(duration(of.fail)),
            queue: Some(duration(of.queue)),
            compute_infer: Some(duration(of.compute)),
            // Inputs and outputs are not moved apart from the run, and there is no cache.
            compute_input: Some(Default::default()),
            compute_output: Some(Default::default()),
            cache_hit: Some(Default::default()),
            cache_miss: Some(Default::default()),
        }),
        batch_stats: of.batches.iter().map(batch).collect(),
        memory_usage: memory_usage(of.memory),
        ..Default::default()
    }
}

/// What a version is reckoned to hold; nothing while it is not loaded.
fn memory_usage(bytes: u64) -> Vec<pb::MemoryUsage> {
    if bytes == 0 {
        return Vec::new();
    }
    vec![pb::MemoryUsage { r#type: "CPU".into(), id: 0, byte_size: bytes }]
}

fn batch(of: &BatchStatistics) -> pb::InferBatchStatistics {
    pb::InferBatchStatistics {
        batch_size: of.batch_size,
        compute_input: Some(Default::default()),
        compute_infer: Some(duration(of.compute)),
        compute_output: Some(Default::default()),
    }
}

fn duration(of: Count) -> pb::StatisticDuration {
    pb::StatisticDuration { count: of.count, ns: of.time.as_nanos() as u64 }
}
