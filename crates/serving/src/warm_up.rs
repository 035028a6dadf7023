//! The first runs of a version, before anyone sees it: they warm it, teach the cost model, and
//! verify that its rows do not depend on each other.

use std::time::{Duration, Instant};

use model::{Signature, Tensor};
use runtime::Loaded;

use crate::validate::validate;
use crate::worker::{Run, execute, run};

/// How long the warm-up may take together; a slow model is run once for each purpose.
const BUDGET: Duration = Duration::from_millis(100);

/// Batch sizes that are tried while the budget lasts.
const SIZES: [usize; 4] = [1, 4, 16, 64];

/// Rows that are compared, alone and together.
const COMPARED: usize = 3;

/// How many recorded requests a version is warmed with.
pub const MOST_RECORDED: usize = 1000;

/// After this long no further recorded request is begun.
const RECORDED_BUDGET: Duration = Duration::from_secs(2);

/// What the warm-up showed.
#[derive(Debug, Default)]
pub(crate) struct WarmUp {
    /// The runs, for the cost model.
    pub(crate) runs: Vec<Run>,
    /// Why rows cannot be stacked, although the model's shapes say so.
    pub(crate) rows_depend: Option<String>,
}

/// Runs a model on made-up rows. A model may refuse them; then nothing is learned.
///
/// `most` is the largest batch that will be run.
pub(crate) fn warm_up(loaded: &Loaded, signature: &Signature, most: usize) -> WarmUp {
    let mut learned = WarmUp::default();
    let start = Instant::now();
    let sizes = if signature.batched { &SIZES[..] } else { &SIZES[..1] };
    for rows in sizes.iter().filter(|rows| **rows <= most.max(1)) {
        let inputs = runtime::example_inputs(signature, *rows);
        let inputs: Vec<Option<&Tensor>> = inputs.iter().map(Some).collect();
        // The first run of a size pays for what later ones find ready.
        for _ in 0..3 {
            let before = Instant::now();
            if run(loaded, &inputs).is_err() {
                return learned;
            }
            learned.runs.push(Run { rows: *rows, time: before.elapsed() });
            if start.elapsed() > BUDGET {
                break;
            }
        }
        if start.elapsed() > BUDGET {
            break;
        }
    }
    forget_first_runs(&mut learned.runs);
    if signature.batched && most > 1 {
        learned.rows_depend = rows_depend(loaded, signature);
    }
    learned
}

/// What came of recorded requests.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    /// The runs, for the cost model.
    pub(crate) runs: Vec<Run>,
    /// How many were answered.
    pub(crate) answered: usize,
    /// How many do not fit the signature, and why the first of them does not.
    pub(crate) misfits: (usize, Option<String>),
    /// How many the model failed on, and how on the first of them.
    pub(crate) failed: (usize, Option<String>),
}

/// Answers recorded requests one by one, as callers' requests are, until the time is up.
pub(crate) fn replay(
    loaded: &Loaded,
    signature: &Signature,
    most: usize,
    recorded: Vec<Vec<(String, Tensor)>>,
) -> Replayed {
    let mut replayed = Replayed::default();
    let start = Instant::now();
    for inputs in recorded.into_iter().take(MOST_RECORDED) {
        if start.elapsed() > RECORDED_BUDGET {
            break;
        }
        let request = match validate(signature, inputs, &[]) {
            Ok(request) => request,
            Err(error) => {
                note(&mut replayed.misfits, &error);
                continue;
            }
        };
        let mut executed = execute(loaded, &[&request], most);
        match executed.outcomes.pop() {
            Some(Err(error)) => note(&mut replayed.failed, &error),
            _ => replayed.answered += 1,
        }
        replayed.runs.append(&mut executed.runs);
    }
    forget_first_runs(&mut replayed.runs);
    replayed
}

/// Counts, and keeps the first reason.
fn note((count, first): &mut (usize, Option<String>), error: &crate::Error) {
    *count += 1;
    first.get_or_insert_with(|| error.to_string());
}

/// Keeps the fastest run of each size.
fn forget_first_runs(runs: &mut Vec<Run>) {
    runs.sort_by_key(|run| (run.rows, run.time));
    runs.dedup_by_key(|run| run.rows);
}

/// Compares rows that run together with the same rows alone.
fn rows_depend(loaded: &Loaded, signature: &Signature) -> Option<String> {
    let together = runtime::example_inputs(signature, COMPARED);
    let stacked = run(loaded, &together.iter().map(Some).collect::<Vec<_>>()).ok()?;
    for (spec, output) in signature.outputs.iter().zip(&stacked) {
        if output.rows() != Some(COMPARED) {
            let shape = output.shape();
            return Some(format!(
                "{COMPARED} rows give output \"{}\" the shape {shape:?}",
                spec.name
            ));
        }
    }
    for row in 0..COMPARED {
        let alone: Vec<Tensor> = together.iter().map(|t| t.slice_rows(row..row + 1)).collect();
        let alone = run(loaded, &alone.iter().map(Some).collect::<Vec<_>>()).ok()?;
        for ((spec, one), all) in signature.outputs.iter().zip(&alone).zip(&stacked) {
            if !close(one, &all.slice_rows(row..row + 1)) {
                let name = &spec.name;
                return Some(format!("output \"{name}\" of a row changes with the rows beside it"));
            }
        }
    }
    None
}

/// Equal, but for what a different order of additions does to floats.
fn close(a: &Tensor, b: &Tensor) -> bool {
    if a.shape() != b.shape() {
        return false;
    }
    let near = |a: f64, b: f64| {
        a == b
            || (a.is_nan() && b.is_nan())
            || (a - b).abs() <= 1e-3 * a.abs().max(b.abs()).max(1.0)
    };
    if let (Some(a), Some(b)) = (a.as_slice::<f32>(), b.as_slice::<f32>()) {
        return a.iter().zip(b).all(|(a, b)| near(f64::from(*a), f64::from(*b)));
    }
    if let (Some(a), Some(b)) = (a.as_slice::<f64>(), b.as_slice::<f64>()) {
        return a.iter().zip(b).all(|(a, b)| near(*a, *b));
    }
    if a.as_slice::<model::f16>().is_some() || a.as_slice::<model::bf16>().is_some() {
        return true; // Too coarse to tell a different order from a different answer.
    }
    a.data() == b.data()
}
