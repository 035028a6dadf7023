//! What was logged as recorded requests, to be asked again.

use std::ops::ControlFlow;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int32Type;
use arrow::record_batch::RecordBatch;
use model::{DataType, Signature, TensorSpec};
use monitor::log::files::Table;
use monitor::log::read::{Order, Query, note};
use monitor::log::{Store, gather};
use serde_json::{Value, json};

use super::read::value;
use crate::Failure;

/// The newest requests that callers got an answer to, at most so many, the newest file first: each
/// row of the log as a request of its own, with the answer.
///
/// Numbers that JSON does not have, such as NaN, make a row one that cannot be asked again: it is
/// left out, and so is a row that the log has not all of.
pub async fn newest(store: &Store, query: &Query, count: usize) -> Result<Vec<Value>, Failure> {
    let mut query = query.clone();
    query.code = Some("OK".to_owned());
    query.columns.clear();
    let files = query.files(store, Table::Predictions).await?;
    let mut requests = Vec::new();
    for file in files.iter().rev() {
        if requests.len() >= count {
            break;
        }
        if let Some(hidden) = note(store, file, gather::HIDDEN).await?
            && !hidden.is_empty()
        {
            return Err(Failure::new(format!(
                "requests of \"{}\" cannot be asked again: the log does not have {hidden} as it was",
                query.model
            ))
            .help("choose files from before the rule, or another version: --until, --model-version"));
        }
        let text = note(store, file, gather::SIGNATURE).await?;
        let signature = text.and_then(|text| serde_json::from_str::<Signature>(&text).ok());
        let Some(signature) = signature else { continue };
        let all = signature.inputs.iter().chain(&signature.outputs);
        let half = |spec: &&TensorSpec| matches!(spec.datatype, DataType::Fp16 | DataType::Bf16);
        if let Some(spec) = all.clone().find(half) {
            return Err(Failure::new(format!(
                "requests of \"{}\" cannot be asked again in JSON: \"{}\" is {}",
                query.model, spec.name, spec.datatype
            )));
        }
        let one = std::slice::from_ref(file);
        query
            .each((store, one), Order::Oldest, |batch| {
                requests.extend(recorded(&batch, &signature));
                match requests.len() >= count {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            })
            .await?;
    }
    requests.truncate(count);
    Ok(requests)
}

/// The rows that a caller got, as the Open Inference Protocol has requests and answers in JSON.
fn recorded(batch: &RecordBatch, signature: &Signature) -> Vec<Value> {
    let route = batch.column_by_name("route").and_then(|column| column.as_string_opt::<i32>());
    let answered = |row: usize| route.is_none_or(|route| route.value(row) == "answered");
    let rows = (0..batch.num_rows()).filter(|row| answered(*row));
    rows.filter_map(|row| {
        let tensors = |kind: &str, specs: &[TensorSpec]| {
            let all = specs.iter().map(|spec| (spec, tensor(batch, (kind, spec), signature, row)));
            let there = all.filter(|(spec, tensor)| !(spec.optional && tensor.is_none()));
            there.map(|(_, tensor)| tensor).collect::<Option<Vec<Value>>>()
        };
        let inputs = tensors("input", &signature.inputs)?;
        let outputs = tensors("output", &signature.outputs)?;
        Some(json!({ "request": { "inputs": inputs }, "response": { "outputs": outputs } }))
    })
    .collect()
}

/// A row's part of a tensor, if it is there and JSON has a way to say it.
fn tensor(
    batch: &RecordBatch,
    (kind, spec): (&str, &TensorSpec),
    signature: &Signature,
    row: usize,
) -> Option<Value> {
    let name = format!("{kind}_{}", spec.name);
    let column = batch.column_by_name(&name).filter(|column| column.is_valid(row))?;
    let data = match value(column, row) {
        Value::Array(data) => data,
        one => vec![one],
    };
    let is_text = spec.datatype == DataType::Bytes;
    if data.iter().any(|one| one.is_null() || one.is_string() != is_text) {
        return None;
    }
    let own = signature.batched.then_some(1);
    let shapes = batch.column_by_name(&format!("{name}_shape"));
    let rest: Vec<usize> = match shapes.filter(|shapes| shapes.is_valid(row)) {
        Some(shapes) => {
            let extents = shapes.as_list_opt::<i32>()?.value(row);
            let extents = extents.as_primitive_opt::<Int32Type>()?;
            extents
                .values()
                .iter()
                .map(|extent| usize::try_from(*extent).ok())
                .collect::<Option<_>>()?
        }
        None => {
            let extents = spec.extents();
            let extents = extents.get(usize::from(signature.batched)..).unwrap_or_default();
            let known = extents.iter().filter_map(|extent| usize::try_from(*extent).ok());
            let rest = data.len().checked_div(known.product())?;
            extents.iter().map(|extent| usize::try_from(*extent).unwrap_or(rest)).collect()
        }
    };
    let shape: Vec<usize> = own.into_iter().chain(rest).collect();
    Some(json!({
        "name": &*spec.name,
        "datatype": spec.datatype.as_str(),
        "shape": shape,
        "data": data,
    }))
}
