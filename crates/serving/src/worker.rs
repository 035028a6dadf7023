//! Runs batches: stack the rows, run the engine, cut the answers apart, and find the guilty row
//! when a batch fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use model::{ErrorCode, Tensor};
use runtime::Loaded;

use crate::Error;
use crate::validate::ValidRequest;

/// What a request gets back from the engine.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// All outputs, in the signature's order.
    pub(crate) outputs: Vec<Tensor>,
    /// Rows that ran together.
    pub(crate) batch_size: usize,
    /// Time waited for an instance.
    pub(crate) queue: Duration,
    /// Time in the engine.
    pub(crate) compute: Duration,
}

/// One run of the engine, as the cost model and the statistics see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) rows: usize,
    pub(crate) time: Duration,
}

/// What came of a batch: an outcome for each request, and the runs that it took.
#[derive(Debug)]
pub(crate) struct Executed {
    pub(crate) outcomes: Vec<Result<Answer, Error>>,
    pub(crate) runs: Vec<Run>,
}

/// Runs requests that stack as one batch.
///
/// If the batch fails it is halved and each half run again, so that an error reaches only the
/// request whose rows cause it. A request of more than `most` rows runs in pieces.
pub(crate) fn execute(loaded: &Loaded, requests: &[&ValidRequest], most: usize) -> Executed {
    let mut executed = Executed { outcomes: Vec::with_capacity(requests.len()), runs: Vec::new() };
    run_or_halve(loaded, requests, most, &mut executed);
    executed
}

fn run_or_halve(loaded: &Loaded, requests: &[&ValidRequest], most: usize, executed: &mut Executed) {
    let rows: usize = requests.iter().map(|request| request.rows()).sum();
    let start = Instant::now();
    let result = match requests {
        [only] => run_one(loaded, only, most, start, executed).map(|outputs| vec![outputs]),
        several => run_stacked(loaded, several, rows, start, executed),
    };
    match result {
        Ok(all) => {
            let compute = start.elapsed();
            let answer =
                |outputs| Ok(Answer { outputs, batch_size: rows, queue: Duration::ZERO, compute });
            executed.outcomes.extend(all.into_iter().map(answer));
        }
        Err(error) if requests.len() == 1 => executed.outcomes.push(Err(error)),
        Err(_) => {
            let (left, right) = requests.split_at(requests.len() / 2);
            run_or_halve(loaded, left, most, executed);
            run_or_halve(loaded, right, most, executed);
        }
    }
}

/// Runs one request, in pieces if it is larger than a batch may be.
fn run_one(
    loaded: &Loaded,
    request: &ValidRequest,
    most: usize,
    start: Instant,
    executed: &mut Executed,
) -> Result<Vec<Tensor>, Error> {
    let rows = request.rows();
    let inputs: Vec<Option<&Tensor>> = request.inputs().iter().map(Option::as_ref).collect();
    if rows == 0 {
        return run_no_rows(loaded, &inputs);
    }
    if rows <= most.max(1) {
        let outputs = run(loaded, &inputs)?;
        executed.runs.push(Run { rows, time: start.elapsed() });
        return Ok(outputs);
    }
    let mut pieces: Vec<Vec<Tensor>> = Vec::new();
    for first in (0..rows).step_by(most) {
        let range = first..(first + most).min(rows);
        let before = Instant::now();
        let cut: Vec<Option<Tensor>> =
            inputs.iter().map(|input| input.map(|t| t.slice_rows(range.clone()))).collect();
        let outputs = run(loaded, &cut.iter().map(Option::as_ref).collect::<Vec<_>>())?;
        executed.runs.push(Run { rows: range.len(), time: before.elapsed() });
        pieces.push(outputs);
    }
    let stack = |position: usize| {
        let parts: Vec<&Tensor> = pieces.iter().map(|outputs| &outputs[position]).collect();
        Tensor::concat_rows(&parts)
    };
    let count = pieces.first().map_or(0, Vec::len);
    let outputs: Option<Vec<Tensor>> = (0..count).map(stack).collect();
    outputs.filter(|outputs| outputs.iter().all(|t| t.rows() == Some(rows))).ok_or_else(|| {
        Error::new(
            ErrorCode::Internal,
            format!("the outputs of {rows} rows, run {most} at a time, do not fit together"),
        )
    })
}

/// Not every engine takes an empty tensor, so a row of zeros is run for the outputs' shapes, and
/// its answer thrown away.
fn run_no_rows(loaded: &Loaded, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, Error> {
    let one_row = |input: &Option<&Tensor>| {
        input.map(|tensor| {
            let mut shape = tensor.shape().to_vec();
            shape[0] = 1;
            runtime::zeros(tensor.datatype(), shape)
        })
    };
    let example: Vec<Option<Tensor>> = inputs.iter().map(one_row).collect();
    let outputs = run(loaded, &example.iter().map(Option::as_ref).collect::<Vec<_>>())?;
    let none =
        |tensor: Tensor| if tensor.rows().is_some() { tensor.slice_rows(0..0) } else { tensor };
    Ok(outputs.into_iter().map(none).collect())
}

/// Runs several requests as one, and cuts the answer apart.
fn run_stacked(
    loaded: &Loaded,
    requests: &[&ValidRequest],
    rows: usize,
    start: Instant,
    executed: &mut Executed,
) -> Result<Vec<Vec<Tensor>>, Error> {
    let stack = |position: usize| {
        let parts: Option<Vec<&Tensor>> =
            requests.iter().map(|request| request.inputs()[position].as_ref()).collect();
        parts.and_then(|parts| Tensor::concat_rows(&parts))
    };
    let inputs: Vec<Option<Tensor>> = (0..requests[0].inputs().len()).map(stack).collect();
    let outputs = run(loaded, &inputs.iter().map(Option::as_ref).collect::<Vec<_>>())?;
    if let Some(odd) = outputs.iter().find(|tensor| tensor.rows() != Some(rows)) {
        return Err(Error::new(
            ErrorCode::Internal,
            format!("a batch of {rows} rows came back with shape {:?}", odd.shape()),
        ));
    }
    executed.runs.push(Run { rows, time: start.elapsed() });
    let mut first = 0;
    let mut cut = Vec::with_capacity(requests.len());
    for request in requests {
        let range = first..first + request.rows();
        first = range.end;
        cut.push(outputs.iter().map(|tensor| tensor.slice_rows(range.clone())).collect());
    }
    Ok(cut)
}

/// One run of the engine. A panic in it is an error of the run, not the end of the thread.
pub(crate) fn run(loaded: &Loaded, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, Error> {
    match catch_unwind(AssertUnwindSafe(|| loaded.run(inputs))) {
        Ok(Ok(outputs)) => Ok(outputs),
        Ok(Err(error)) => Err(Error::new(error.code(), error.to_string())),
        Err(panic) => {
            let message = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "without a message".to_owned());
            Err(Error::new(
                ErrorCode::Internal,
                format!("the engine {} panicked: {message}", loaded.engine()),
            ))
        }
    }
}
