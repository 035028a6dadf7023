//! Reading a log back.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, new_null_array};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{Field, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use jiff::Timestamp;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::files::{File, Table};
use super::rules::Pattern;
use super::store::Store;

/// Rows that are read at once.
const BATCH: usize = 4096;

/// Why a log cannot be read.
#[derive(Debug)]
pub struct Error(String);

impl Error {
    /// What is wrong.
    pub(super) fn new(what: impl fmt::Display) -> Self {
        Self(what.to_string())
    }

    fn of(file: &File, error: impl fmt::Display) -> Self {
        Self(format!("{}: {error}", file.path))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<object_store::Error> for Error {
    fn from(error: object_store::Error) -> Self {
        Self(error.to_string())
    }
}

/// Which rows of a model are meant.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// The model.
    pub model: String,
    /// Nothing before this time.
    pub since: Option<Timestamp>,
    /// Nothing from this time on.
    pub until: Option<Timestamp>,
    /// Only this version.
    pub version: Option<String>,
    /// Only this code, `OK` among them.
    pub code: Option<String>,
    /// Only this request.
    pub id: Option<String>,
    /// Only these columns, all if there are none. Their order is the log's.
    pub columns: Vec<Pattern>,
}

/// The order in which files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The oldest first.
    Oldest,
    /// The newest first. Rows of a file stay in its order.
    Newest,
}

impl Query {
    /// All rows of a model.
    pub fn of(model: impl Into<String>) -> Self {
        Self { model: model.into(), ..Self::default() }
    }

    /// The files that may have such rows, the oldest first.
    pub async fn files(&self, store: &Store, table: Table) -> Result<Vec<File>, Error> {
        let mut files = store.files(table, Some(&self.model)).await?;
        files.retain(|file| {
            let hour = file.partition.hour;
            self.since.is_none_or(|since| hour.end() > since)
                && self.until.is_none_or(|until| hour.start() < until)
        });
        Ok(files)
    }

    /// Hands out the rows, a piece of a file at a time, until it is told to break. A piece has the
    /// columns of its file. Files that were removed meanwhile are passed over.
    pub async fn each(
        &self,
        (store, files): (&Store, &[File]),
        order: Order,
        mut take: impl FnMut(RecordBatch) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let mut files: Vec<&File> = files.iter().collect();
        if order == Order::Newest {
            files.reverse();
        }
        for file in files {
            let Some(bytes) = store.read(file).await? else { continue };
            for piece in self.pieces(file, bytes)? {
                if take(piece?).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The columns of all files, those that only some have among them.
    pub async fn columns(&self, store: &Store, files: &[File]) -> Result<SchemaRef, Error> {
        let mut schemas = Vec::new();
        for file in files {
            let Some(bytes) = store.read(file).await? else { continue };
            let reader = ParquetRecordBatchReaderBuilder::try_new(bytes);
            let schema = reader.map_err(|error| Error::of(file, error))?.schema().clone();
            if !schemas.contains(&schema) {
                schemas.push(schema);
            }
        }
        let wanted = |schema: SchemaRef| {
            let fields = schema.fields().iter().filter(|field| self.wants(field.name()));
            Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()))
        };
        union(schemas.into_iter().map(wanted))
    }

    fn wants(&self, column: &str) -> bool {
        self.columns.is_empty() || self.columns.iter().any(|wanted| wanted.fits(column))
    }

    fn pieces(
        &self,
        file: &File,
        bytes: Bytes,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, Error>> + use<'_>, Error> {
        let wrong = |error: parquet::errors::ParquetError| Error::of(file, error);
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(wrong)?;
        // What rows are chosen by is read, too.
        let chosen_by = ["time", "version", "code", "request_id"];
        let fields = builder.schema().fields().iter().enumerate();
        let read = fields.filter(|(_, field)| {
            self.wants(field.name()) || chosen_by.contains(&field.name().as_str())
        });
        let read: Vec<usize> = read.map(|(place, _)| place).collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), read);
        let reader = builder.with_projection(mask).with_batch_size(BATCH).build().map_err(wrong)?;
        let file = file.clone();
        Ok(reader.map(move |batch| {
            let batch = batch.map_err(|error| Error::of(&file, error))?;
            self.chosen(&batch).map_err(|error| Error::of(&file, error))
        }))
    }

    /// The rows and columns that are wanted.
    fn chosen(&self, batch: &RecordBatch) -> Result<RecordBatch, arrow::error::ArrowError> {
        let mut keep = vec![true; batch.num_rows()];
        let texts = [("version", &self.version), ("code", &self.code), ("request_id", &self.id)];
        for (name, wanted) in texts {
            let Some(wanted) = wanted else { continue };
            let column = batch.column_by_name(name);
            let Some(column) = column.and_then(|column| column.as_string_opt::<i32>()) else {
                keep.fill(false);
                continue;
            };
            for (keep, text) in keep.iter_mut().zip(column) {
                *keep &= text == Some(wanted);
            }
        }
        if self.since.is_some() || self.until.is_some() {
            let column = batch.column_by_name("time");
            let times = column.and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
            let (since, until) = (micros(self.since, i64::MIN), micros(self.until, i64::MAX));
            for (keep, time) in keep.iter_mut().zip(times.into_iter().flatten()) {
                *keep &= time.is_some_and(|time| since <= time && time < until);
            }
        }
        let chosen = filter_record_batch(batch, &BooleanArray::from(keep))?;
        chosen.project(&self.wanted(&batch.schema()))
    }

    /// The places of the columns that are wanted.
    fn wanted(&self, schema: &Schema) -> Vec<usize> {
        let fields = schema.fields().iter().enumerate();
        fields.filter(|(_, field)| self.wants(field.name())).map(|(place, _)| place).collect()
    }
}

fn micros(time: Option<Timestamp>, otherwise: i64) -> i64 {
    time.map_or(otherwise, Timestamp::as_microsecond)
}

/// A note that a file's writer left in it.
pub async fn note(store: &Store, file: &File, name: &str) -> Result<Option<String>, Error> {
    let Some(bytes) = store.read(file).await? else { return Ok(None) };
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes);
    let reader = reader.map_err(|error| Error::of(file, error))?;
    let notes = reader.metadata().file_metadata().key_value_metadata();
    let note = notes.into_iter().flatten().find(|note| note.key == name);
    Ok(note.and_then(|note| note.value.clone()))
}

/// The columns of several tables.
///
/// # Errors
/// If a column has another type in one than in another.
pub fn union(schemas: impl Iterator<Item = SchemaRef>) -> Result<SchemaRef, Error> {
    let mut fields: Vec<Arc<Field>> = Vec::new();
    for field in schemas.flat_map(|schema| schema.fields().to_vec()) {
        match fields.iter().find(|known| known.name() == field.name()) {
            None => fields.push(Arc::new((*field).clone().with_nullable(true))),
            Some(known) if known.data_type() == field.data_type() => {}
            Some(known) => {
                return Err(Error(format!(
                    "the column \"{}\" is {} in some versions and {} in others; choose one with \
                     --model-version, or other columns",
                    field.name(),
                    known.data_type(),
                    field.data_type()
                )));
            }
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// A table with these columns: those that it lacks have no values.
pub fn fitted(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, Error> {
    let columns = schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(column) => column.clone(),
        None => new_null_array(field.data_type(), batch.num_rows()),
    });
    RecordBatch::try_new(schema.clone(), columns.collect()).map_err(|e| Error(e.to_string()))
}

/// The newest rows, at most so many, the oldest of them first.
pub async fn newest(store: &Store, query: &Query, count: usize) -> Result<RecordBatch, Error> {
    let files = query.files(store, Table::Predictions).await?;
    let mut timed = query.clone();
    if !timed.columns.is_empty() {
        timed.columns.push(Pattern::new("time"));
    }
    let mut pieces: Vec<RecordBatch> = Vec::new();
    let (mut rows, mut of_files) = (0, 0);
    for file in files.iter().rev() {
        // Rows of one file are not in the order of the others': one more is looked at.
        if rows >= count && of_files > 0 {
            break;
        }
        let one = std::slice::from_ref(file);
        timed
            .each((store, one), Order::Oldest, |piece| {
                rows += piece.num_rows();
                pieces.push(piece);
                ControlFlow::Continue(())
            })
            .await?;
        of_files += 1;
    }
    let schema = union(pieces.iter().map(RecordBatch::schema))?;
    let pieces =
        pieces.iter().map(|piece| fitted(piece, &schema)).collect::<Result<Vec<_>, _>>()?;
    let all = concat_batches(&schema, &pieces).map_err(|e| Error(e.to_string()))?;
    let sorted = in_order(&all);
    let rows = all.num_rows();
    let newest = sorted.slice(rows.saturating_sub(count), rows.min(count));
    let taken = arrow::compute::take_record_batch(&all, &newest);
    let taken = taken.and_then(|rows| rows.project(&query.wanted(&rows.schema())));
    taken.map_err(|e| Error(e.to_string()))
}

/// The places of the rows by their time; as they are if there is none.
fn in_order(batch: &RecordBatch) -> arrow::array::UInt32Array {
    let mut places: Vec<u32> = (0..batch.num_rows() as u32).collect();
    let column = batch.column_by_name("time");
    if let Some(times) = column.and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>()) {
        places.sort_by_key(|place| times.value(*place as usize));
    }
    places.into()
}

/// The models that a log has predictions of, and what there is of each.
pub async fn models(store: &Store) -> Result<Vec<String>, Error> {
    let files = store.files(Table::Predictions, None).await?;
    let names: BTreeSet<String> = files.into_iter().map(|file| file.partition.model).collect();
    Ok(names.into_iter().collect())
}
