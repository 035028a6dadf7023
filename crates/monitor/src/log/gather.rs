//! Predictions gather in memory until they are worth a file. Pure: it is told the time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use jiff::Timestamp;
use model::Signature;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::columns::{Kept, Rows};
use super::files::{Hour, Partition, Table, timestamp};
use super::labels::{self, Label, LabelRows};
use super::rules::{Pattern, Rules, Treatment};

/// The schema of the predictions, as each file names it.
pub const SCHEMA: &str = "modelyard.predictions/1";

/// The note of a file that has the version's signature, as JSON.
pub const SIGNATURE: &str = "modelyard.signature";

/// The note of a file that names the columns that a rule hides, with commas between.
pub const HIDDEN: &str = "modelyard.hidden";

/// Files that are begun at once, at most: clocks that jump must not make ever more of them.
const MOST_PARTS: usize = 256;

/// When what has gathered becomes a file.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// After this time at the latest.
    pub age: Duration,
    /// When the rows of one file take so many bytes in memory.
    pub part_bytes: usize,
    /// When all rows together do.
    pub bytes: usize,
    /// The most elements of a tensor's row that are kept.
    pub widest: usize,
}

/// A file that is to be stored.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// What it has rows of.
    pub partition: Partition,
    /// When its first row was.
    pub first: Timestamp,
    /// How many rows it has.
    pub rows: u64,
    /// All of it.
    pub bytes: Bytes,
}

/// What gathers.
pub struct Gathering {
    rules: Rules,
    limits: Limits,
    parts: BTreeMap<Key, Part>,
    /// Rules of models that were found to fit no column, so that each is said once.
    said: BTreeSet<(String, String)>,
    cells_left_out: u64,
    labels: BTreeMap<(Arc<str>, Hour), Labelled>,
}

/// What was said of a model's answers in an hour.
struct Labelled {
    rows: LabelRows,
    since: Instant,
    first: Timestamp,
}

/// A file has rows of one version, so that they have the same columns.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    model: Arc<str>,
    version: Arc<str>,
    hour: Hour,
    /// Where the version's signature is: one that was loaded again may have another.
    signature: usize,
}

struct Part {
    rows: Rows,
    since: Instant,
    first: Timestamp,
}

impl Gathering {
    /// Nothing yet.
    pub fn new(rules: Rules, limits: Limits) -> Self {
        let (parts, said, labels) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Self { rules, limits, parts, said, cells_left_out: 0, labels }
    }

    /// Adds a prediction, which happened about now.
    pub fn add(&mut self, kept: &Kept, now: Instant) {
        let observation = &kept.observation;
        let at = timestamp(observation.at);
        let key = Key {
            model: observation.model.clone(),
            version: observation.version.clone(),
            hour: Hour::of(at),
            signature: Arc::as_ptr(&observation.signature).addr(),
        };
        if !self.parts.contains_key(&key) {
            self.warn_of_rules(&key.model, &observation.signature);
        }
        let (rules, widest) = (&self.rules, self.limits.widest);
        let part = self.parts.entry(key).or_insert_with(|| Part {
            rows: Rows::new(&observation.model, observation.signature.clone(), rules, widest),
            since: now,
            first: at,
        });
        part.first = part.first.min(at);
        part.rows.add(kept);
    }

    /// Adds what was said of an answer about now.
    pub fn label(&mut self, label: &Label, now: Instant) {
        let at = timestamp(label.received);
        let labelled = self.labels.entry((label.model.clone(), Hour::of(at)));
        let labelled = labelled.or_insert_with(|| Labelled {
            rows: LabelRows::default(),
            since: now,
            first: at,
        });
        labelled.first = labelled.first.min(at);
        labelled.rows.add(label, &self.rules);
    }

    /// Cells that were left out so far because they had too many elements.
    pub fn cells_left_out(&self) -> u64 {
        self.cells_left_out
    }

    /// The files that are due; all that there is if `all`. A file that cannot be written is an error
    /// beside the number of its rows.
    pub fn take(&mut self, now: Instant, all: bool) -> Vec<Result<Encoded, (u64, ParquetError)>> {
        let bytes: usize = self.parts.values().map(|part| part.rows.bytes()).sum();
        let all = all || bytes >= self.limits.bytes || self.parts.len() > MOST_PARTS;
        let limits = self.limits;
        let is_due = |part: &Part| {
            all || now.saturating_duration_since(part.since) >= limits.age
                || part.rows.bytes() >= limits.part_bytes
        };
        let due = self.parts.extract_if(.., |_, part| is_due(part));
        let due: Vec<(Key, Part)> = due.collect();
        let is_due =
            |labels: &Labelled| all || now.saturating_duration_since(labels.since) >= limits.age;
        let labels = self.labels.extract_if(.., |_, labels| is_due(labels));
        let mut files: Vec<_> = labels.map(|(key, labels)| labels_encoded(key, labels)).collect();
        files.extend(due.into_iter().map(|(key, part)| {
            self.cells_left_out += part.rows.left_out();
            let rows = part.rows.len() as u64;
            encoded(&key, part).map_err(|error| (rows, error))
        }));
        files
    }

    /// Says which of a model's own rules fit none of its columns: whoever wrote one wanted
    /// something to be hidden.
    fn warn_of_rules(&mut self, model: &str, signature: &Signature) {
        let Some(own) = self.rules.models.get(model) else { return };
        let inputs = signature.inputs.iter().map(|spec| format!("input_{}", spec.name));
        let outputs = signature.outputs.iter().map(|spec| format!("output_{}", spec.name));
        let names: Vec<String> = inputs.chain(outputs).chain(["request_id".to_owned()]).collect();
        let unfit = |(pattern, treatment): &&(Pattern, Treatment)| {
            *treatment != Treatment::Keep && !names.iter().any(|name| pattern.fits(name))
        };
        for (pattern, _) in own.columns.iter().filter(unfit) {
            if self.said.insert((model.to_owned(), pattern.to_string())) {
                tracing::error!(
                    model,
                    "prediction log: no column is \"{pattern}\", which a rule would hide; there \
                     are {}",
                    names.join(", ")
                );
            }
        }
    }
}

fn encoded(key: &Key, part: Part) -> Result<Encoded, ParquetError> {
    let signature = serde_json::to_string(part.rows.signature()).unwrap_or_default();
    let hidden = part.rows.hidden().join(", ");
    let about = [
        ("modelyard.schema", SCHEMA),
        ("modelyard.model", &*key.model),
        ("modelyard.version", &*key.version),
        (SIGNATURE, &signature),
        (HIDDEN, &hidden),
    ];
    let rows = part.rows.len() as u64;
    let bytes = encode(&part.rows.finish()?, &about)?;
    let model = key.model.to_string();
    let partition = Partition { table: Table::Predictions, model, hour: key.hour };
    Ok(Encoded { partition, first: part.first, rows, bytes })
}

fn labels_encoded(
    (model, hour): (Arc<str>, Hour),
    labels: Labelled,
) -> Result<Encoded, (u64, ParquetError)> {
    let rows = labels.rows.len() as u64;
    let about = [("modelyard.schema", labels::SCHEMA), ("modelyard.model", &*model)];
    let batch = labels.rows.finish().map_err(ParquetError::from);
    let bytes = batch.and_then(|batch| encode(&batch, &about)).map_err(|error| (rows, error))?;
    let partition = Partition { table: Table::Labels, model: model.to_string(), hour };
    Ok(Encoded { partition, first: labels.first, rows, bytes })
}

/// A table as a Parquet file, with notes about it.
pub fn encode(batch: &RecordBatch, about: &[(&str, &str)]) -> Result<Bytes, ParquetError> {
    let notes = about
        .iter()
        .map(|(key, value)| KeyValue::new((*key).to_owned(), Some((*value).to_owned())));
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_key_value_metadata(Some(notes.collect()));
    for field in batch.schema().fields() {
        // A dictionary of numbers that hardly repeat, and of ids, costs more than it saves.
        let unlike = field.name() == "request_id" || field.name() == "time";
        let element = match field.data_type() {
            DataType::List(element) => element.data_type(),
            own => own,
        };
        if unlike || element.is_floating() {
            let path = match field.data_type() {
                DataType::List(_) => vec![field.name().clone(), "list".into(), "element".into()],
                _ => vec![field.name().clone()],
            };
            properties = properties.set_column_dictionary_enabled(ColumnPath::new(path), false);
        }
    }
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties.build()))?;
    writer.write(batch)?;
    Ok(writer.into_inner()?.into())
}
