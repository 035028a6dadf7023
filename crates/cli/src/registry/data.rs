//! `push --data-profile`: what the training data looks like, read in bounded memory.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use ::registry::{Draft, FileKind, Registry, Source, Version};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType as ArrowType, Float64Type};
use model::Signature;
use monitor::drift::short;
use monitor::profile::{Builder, Column, Input, Kind, Matched, Origin, Profile, Value};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{OrFailure, digest_of, push};
use crate::Failure;

/// The name of the attachment.
pub const NAME: &str = "profile.json";

/// Rows that are read at once.
const BATCH: usize = 4096;

/// The largest profile that is read back.
const LARGEST: u64 = 256 << 20;

/// What pandas takes for missing in a CSV file as well.
const MISSING: [&str; 20] = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null", "NONE",
];

/// Whether a cell of a CSV file holds nothing, as pandas has it.
pub fn is_missing(cell: &[u8]) -> bool {
    match cell.first() {
        None => true,
        Some(b'#' | b'-' | b'1' | b'<' | b'N' | b'n') if cell.len() <= 8 => {
            MISSING.iter().any(|missing| missing.as_bytes() == cell)
        }
        Some(_) => false,
    }
}

/// Adds the profile of a file to a version: of a CSV or Parquet file, which is then what the version
/// was trained on, or one in JSON that was made before.
pub fn attach(draft: &mut Draft, path: &Path) -> Result<(), Failure> {
    let profile = profile(path, &draft.manifest.signature)?;
    report(&profile);
    let origin = profile.data.as_ref().map(|origin| origin.digest.clone());
    draft.lineage.data = draft.lineage.data.take().or(origin);
    let bytes = serde_json::to_vec(&profile)?;
    push::attach(draft, NAME, Source::Bytes(bytes.into()))
}

/// Profiles a CSV or Parquet file, and says how its columns fit a model.
fn profile(path: &Path, signature: &Signature) -> Result<Profile, Failure> {
    let of_file = |failure: Failure| failure.at(path.display());
    let file = File::open(path).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
    let kind = path.extension().and_then(|kind| kind.to_str()).unwrap_or_default();
    let mut profile = match kind.to_ascii_lowercase().as_str() {
        "parquet" | "pq" => of_parquet(file).map_err(of_file)?,
        "csv" => of_csv(file, b',').map_err(of_file)?,
        "tsv" => of_csv(file, b'\t').map_err(of_file)?,
        "json" => {
            let mut profile = of_json(file).map_err(of_file)?;
            profile.matched = Some(matched(&profile.columns, signature));
            return Ok(profile);
        }
        _ => {
            return Err(Failure::usage(format!(
                "{}: expected a file .parquet, .csv or .tsv, or a profile .json",
                path.display()
            )));
        }
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    profile.data = Some(Origin { name, digest: digest_of(path)? });
    profile.matched = Some(matched(&profile.columns, signature));
    Ok(profile)
}

fn of_json(file: File) -> Result<Profile, Failure> {
    let mut text = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(Failure::usage(format!("has more than {LARGEST} bytes")));
    }
    Profile::read(&text).map_err(|error| Failure::usage(format!("is not a profile: {error}")))
}

fn of_csv(file: File, delimiter: u8) -> Result<Profile, Failure> {
    let failed = |error: csv::Error| Failure::new(format!("CSV: {error}"));
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(file);
    let names: Vec<String> = reader.headers().map_err(failed)?.iter().map(str::to_owned).collect();
    if names.is_empty() {
        return Err(Failure::new("is empty: the first line has to name the columns"));
    }
    let mut builder = Builder::new(names);
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(failed)? {
        builder.row(record.iter().map(|cell| match is_missing(cell.as_bytes()) {
            true => Value::Missing,
            false => Value::Untyped(cell),
        }));
    }
    Ok(builder.finish())
}

fn of_parquet(file: File) -> Result<Profile, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(format!("Parquet: {error}"));
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| failed(&e))?;
    let schema = reader.schema().clone();
    let mut kept = Vec::new();
    for (place, field) in schema.fields().iter().enumerate() {
        match field.data_type().is_nested() {
            true => tracing::warn!(
                "column \"{}\" holds {}, which is not profiled",
                field.name(),
                field.data_type()
            ),
            false => kept.push(place),
        }
    }
    let mut builder = Builder::new(kept.iter().map(|place| schema.field(*place).name()));
    let reader = reader.with_batch_size(BATCH).build().map_err(|e| failed(&e))?;
    for batch in reader {
        let batch = batch.map_err(|e| failed(&e))?;
        builder.add_rows(batch.num_rows() as u64);
        for (column, place) in kept.iter().enumerate() {
            take(&mut builder, column, batch.column(*place)).map_err(|e| failed(&e))?;
        }
    }
    Ok(builder.finish())
}

/// Hands the cells of an array to a column: numbers as they are, everything else as text.
fn take(
    builder: &mut Builder,
    column: usize,
    array: &ArrayRef,
) -> Result<(), arrow::error::ArrowError> {
    let kind = array.data_type();
    let is_decimal = matches!(
        kind,
        ArrowType::Decimal32(..)
            | ArrowType::Decimal64(..)
            | ArrowType::Decimal128(..)
            | ArrowType::Decimal256(..)
    );
    if kind.is_numeric() || is_decimal {
        let numbers = cast(array, &ArrowType::Float64)?;
        let numbers = numbers.as_primitive::<Float64Type>();
        let cells = numbers.iter().map(|cell| cell.map_or(Value::Missing, Value::Number));
        builder.cells(column, cells);
    } else {
        let texts = cast(array, &ArrowType::Utf8)?;
        let texts = texts.as_string::<i32>();
        builder.cells(column, texts.iter().map(|cell| cell.map_or(Value::Missing, Value::Text)));
    }
    Ok(())
}

/// How columns fit inputs: by name, or side by side into the one matrix that a model takes.
fn matched(columns: &[Column], signature: &Signature) -> Matched {
    let has = |name: &str| columns.iter().any(|column| column.name == name);
    let mut matched = Matched::default();
    for spec in &signature.inputs {
        let name = spec.name.to_string();
        match has(&name) {
            true => matched.inputs.push(Input { columns: vec![name.clone()], name }),
            false => matched.missing.push(name),
        }
    }
    if let ([only], true) = (&signature.inputs[..], matched.inputs.is_empty()) {
        let width = only.extents().get(1).copied().and_then(|width| usize::try_from(width).ok());
        if width == Some(columns.len()) {
            let names = columns.iter().map(|column| column.name.clone()).collect();
            matched.inputs.push(Input { name: only.name.to_string(), columns: names });
            matched.missing.clear();
        }
    }
    let used = |name: &String| matched.inputs.iter().any(|input| input.columns.contains(name));
    matched.extra =
        columns.iter().map(|column| column.name.clone()).filter(|name| !used(name)).collect();
    matched
}

/// Says where the data and the model do not fit, to whoever pushes.
fn report(profile: &Profile) {
    let Some(matched) = &profile.matched else { return };
    if !matched.missing.is_empty() {
        tracing::warn!(
            "the data has no column for the inputs {:?}; the profile has columns by their own names",
            matched.missing
        );
    }
    if !matched.extra.is_empty() {
        tracing::info!("no input takes the columns {:?}", matched.extra);
    }
}

/// The profile that a version was pushed with, if it has one.
pub async fn of_version(
    registry: &Registry,
    version: &Version,
) -> Result<Option<Profile>, Failure> {
    let is_profile = |file: &&::registry::File| {
        file.name == NAME && file.kind == FileKind::Attachment && file.size <= LARGEST
    };
    let Some(file) = version.files.iter().find(is_profile) else { return Ok(None) };
    let bytes = registry.read(version, file).await.or_failure()?;
    match Profile::read(&bytes) {
        Ok(profile) => Ok(Some(profile)),
        Err(error) => {
            // Somebody's own file of that name is no mistake.
            tracing::warn!("{}:{}: {NAME}: {error}", version.model, version.number);
            Ok(None)
        }
    }
}

/// A column in one line.
pub fn line(column: &Column) -> String {
    let total = column.count + column.missing;
    let missing = match column.missing {
        0 => String::new(),
        missing => format!(", {} missing", part(missing, total)),
    };
    let described = match column.kind {
        Kind::Empty => "empty".to_owned(),
        Kind::Number => {
            let number = |number: Option<f64>| number.map_or("?".to_owned(), short);
            format!(
                "mean {}, std {}, {} … {}",
                number(column.mean),
                number(column.std),
                number(column.min),
                number(column.max)
            )
        }
        Kind::Text => {
            let top = column.top.iter().take(3);
            let top = top.map(|(value, count)| {
                let value: String = value.chars().take(20).collect();
                format!("{} {}", value.escape_debug(), part(*count, column.count))
            });
            format!("{} different: {}", column.distinct, top.collect::<Vec<_>>().join(", "))
        }
    };
    format!("{described}{missing}")
}

fn part(of: u64, total: u64) -> String {
    format!("{} %", short(100.0 * of as f64 / total.max(1) as f64))
}

#[cfg(test)]
mod tests {
    use model::{DataType, Dimension, TensorSpec};

    use super::*;

    #[test]
    fn columns_are_matched_by_name_or_side_by_side() {
        let columns = Builder::new(["a", "b", "t"]).finish().columns;
        let spec = |name: &str, dims: &[usize]| {
            let mut shape = vec![Dimension::Any];
            shape.extend(dims.iter().map(|n| Dimension::Fixed(*n)));
            TensorSpec::new(name, DataType::Fp32, shape)
        };
        let signature = |inputs| Signature { inputs, outputs: Vec::new(), batched: true };
        let found = matched(&columns, &signature(vec![spec("a", &[1]), spec("c", &[])]));
        assert_eq!(found.inputs[0].columns, ["a"]);
        assert_eq!((found.missing, found.extra), (vec!["c".into()], vec!["b".into(), "t".into()]));
        let found = matched(&columns, &signature(vec![spec("x", &[3])]));
        assert_eq!(found.inputs[0].columns, ["a", "b", "t"]);
        assert!(found.missing.is_empty() && found.extra.is_empty());
        let found = matched(&columns, &signature(vec![spec("x", &[2])]));
        assert_eq!((found.missing, found.extra.len()), (vec!["x".into()], 3));
    }

    #[test]
    fn numbers_are_shown_short() {
        for (number, shown) in [
            (0.0, "0"),
            (1234.5678, "1235"),
            (-0.012345, "-0.01235"),
            (2.5, "2.5"),
            (1e12, "1.000e12"),
        ] {
            assert_eq!(short(number), shown);
        }
    }
}
