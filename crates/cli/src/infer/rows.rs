//! Rows of CSV and Parquet files, read a batch at a time, as columns of cells.

use std::io::Read;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType as ArrowType;
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use crate::Failure;

/// A column of one batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its cells as text, in the shortest form that reads back as the same value; `None` if missing.
    pub cells: Vec<Option<String>>,
}

/// A source of rows.
pub enum Rows {
    /// Comma-separated text with a heading.
    Csv { reader: csv::Reader<Box<dyn Read>>, names: Vec<String> },
    /// Parquet.
    Parquet { reader: ParquetRecordBatchReader, rest: Option<RecordBatch> },
}

impl Rows {
    /// Reads text with a heading.
    pub fn csv(source: Box<dyn Read>, delimiter: u8) -> Result<Self, Failure> {
        let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(source);
        let headers = reader.headers().map_err(csv_failure)?.clone();
        let names: Vec<String> = headers.iter().map(|name| name.trim().to_owned()).collect();
        if names.is_empty() {
            return Err(Failure::new("the input is empty: the first line has to name the columns"));
        }
        Ok(Self::Csv { reader, names })
    }

    /// Reads a whole Parquet file that is in memory.
    pub fn parquet(bytes: Bytes) -> Result<Self, Failure> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
            .and_then(|builder| builder.with_batch_size(4096).build())
            .map_err(|error| {
                Failure::new(format!("not a Parquet file that can be read: {error}"))
            })?;
        Ok(Self::Parquet { reader, rest: None })
    }

    /// The next rows, at most so many; `None` at the end.
    pub fn next(&mut self, most: usize) -> Result<Option<Vec<Column>>, Failure> {
        match self {
            Self::Csv { reader, names } => next_csv(reader, names, most),
            Self::Parquet { reader, rest } => {
                let batch = match rest.take() {
                    Some(batch) => batch,
                    None => match reader.next() {
                        Some(batch) => batch.map_err(|e| Failure::new(format!("Parquet: {e}")))?,
                        None => return Ok(None),
                    },
                };
                let here = most.min(batch.num_rows());
                if here < batch.num_rows() {
                    *rest = Some(batch.slice(here, batch.num_rows() - here));
                }
                columns(&batch.slice(0, here)).map(Some)
            }
        }
    }
}

fn csv_failure(error: csv::Error) -> Failure {
    Failure::new(format!("CSV: {error}"))
        .help("every line needs as many cells as the heading; quote cells that hold the delimiter")
}

fn next_csv(
    reader: &mut csv::Reader<Box<dyn Read>>,
    names: &[String],
    most: usize,
) -> Result<Option<Vec<Column>>, Failure> {
    let mut columns: Vec<Column> =
        names.iter().map(|name| Column { name: name.clone(), cells: Vec::new() }).collect();
    let mut record = csv::StringRecord::new();
    let mut rows = 0;
    while rows < most && reader.read_record(&mut record).map_err(csv_failure)? {
        for (column, cell) in columns.iter_mut().zip(&record) {
            column.cells.push((!cell.is_empty()).then(|| cell.to_owned()));
        }
        rows += 1;
    }
    Ok((rows > 0).then_some(columns))
}

fn columns(batch: &RecordBatch) -> Result<Vec<Column>, Failure> {
    let schema = batch.schema();
    let column = |(field, array): (&arrow::datatypes::FieldRef, &arrow::array::ArrayRef)| {
        let text = cast(array, &ArrowType::Utf8).map_err(|_| {
            Failure::new(format!(
                "column \"{}\" holds {}, which is no number, text or truth value",
                field.name(),
                field.data_type()
            ))
        })?;
        let strings = text.as_string::<i32>();
        let cells = (0..strings.len())
            .map(|i| strings.is_valid(i).then(|| strings.value(i).to_owned()))
            .collect();
        Ok(Column { name: field.name().clone(), cells })
    };
    schema.fields().iter().zip(batch.columns()).map(column).collect()
}
