//! `modelyard log`: reading what was logged.

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use jiff::Timestamp;
use monitor::log::files::{File, Table as Kind};
use monitor::log::read::{Order, Query, fitted, newest};
use monitor::log::{Pattern, Store, read};
use parquet::arrow::ArrowWriter;
use serde_json::{Map, Value, json};

use super::requests;
use crate::Failure;
use crate::table::Table;
use crate::units;

/// Rows that are shown as a table where it is not said how many.
const ROWS: usize = 20;

/// The widest cell of a table, in characters.
const WIDEST: usize = 40;

/// How often it is looked for more.
const LOOK: Duration = Duration::from_secs(1);

/// Where the log is.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// The log: FOLDER, or s3://BUCKET/PREFIX, gs://…, az://…
    #[arg(long, env = "MODELYARD_PREDICTION_LOG", value_name = "FOLDER|URL")]
    log: String,
}

impl Place {
    pub fn store(&self) -> Result<Store, Failure> {
        super::store(&self.log, false)
    }
}

/// Which rows.
#[derive(Debug, clap::Args)]
pub struct Chosen {
    /// The model
    model: String,
    /// Nothing before this time: how long ago, such as 1h or 7d, or 2026-11-24T14:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time_ago)]
    since: Option<Timestamp>,
    /// Nothing from this time on
    #[arg(long, value_name = "TIME", value_parser = time_ago)]
    until: Option<Timestamp>,
    /// Only what this version answered
    #[arg(long, value_name = "VERSION")]
    model_version: Option<String>,
    #[command(flatten)]
    place: Place,
}

impl Chosen {
    pub fn query(&self) -> Query {
        Query {
            since: self.since,
            until: self.until,
            version: self.model_version.clone(),
            ..Query::of(&self.model)
        }
    }

    pub fn place(&self) -> &Place {
        &self.place
    }
}

/// Flags of `log show`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard log show fraud --log LOG --since 1h
  modelyard log show fraud --log LOG --code INTERNAL --columns time,request_id,input_*
  modelyard log show fraud --log LOG --id 3f2a --format json
  modelyard log show fraud --log LOG --since 7d --format parquet --output week.parquet")]
pub struct Show {
    #[command(flatten)]
    chosen: Chosen,
    /// Only what ended with this code, such as OK or INTERNAL
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
    /// Only this request
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Only these columns, with commas between; a name may end in *
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    columns: Vec<String>,
    /// Only so many of the newest rows [default: 20 for a table, all for a file]
    #[arg(long, value_name = "ROWS")]
    limit: Option<usize>,
    /// How they are written
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// File to write, in place of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Table,
    /// One line a row, lists as JSON
    Csv,
    /// One object a line
    Json,
    /// A Parquet file
    Parquet,
    /// Recorded requests with their answers, one object a line, for replays and for warming up
    Requests,
}

/// Flags of `log tail`.
#[derive(Debug, clap::Args)]
pub struct Tail {
    #[command(flatten)]
    chosen: Chosen,
    /// Only these columns, with commas between; a name may end in *
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    columns: Vec<String>,
    /// Stop after this time
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    stop_after: Option<Duration>,
}

/// Flags of `log files`.
#[derive(Debug, clap::Args)]
pub struct Files {
    /// Only files of this model
    model: Option<String>,
    #[command(flatten)]
    place: Place,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A time, or how long ago it was.
fn time_ago(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    if let Ok(date) = text.parse::<jiff::civil::Date>() {
        let midnight = jiff::tz::TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0));
        return midnight.map_err(|error| error.to_string());
    }
    let ago = units::parse_duration(text).map_err(|_| {
        format!("\"{text}\" is neither how long ago, such as 1h, nor a time: 2026-11-24T14:00:00Z")
    })?;
    Timestamp::now().checked_sub(ago).map_err(|error| error.to_string())
}

/// Prints rows.
pub async fn show(args: Show) -> Result<(), Failure> {
    let store = args.chosen.place.store()?;
    let mut query = args.chosen.query();
    query.code = args.code.clone();
    query.id = args.id.clone();
    query.columns = args.columns.iter().map(Pattern::new).collect();
    let files = files_of(&store, &query).await?;
    let mut output: Box<dyn Write + Send> = match &args.output {
        Some(path) => Box::new(
            std::fs::File::create(path)
                .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?,
        ),
        None if args.format == Format::Parquet && std::io::stdout().is_terminal() => {
            return Err(Failure::usage("a Parquet file is nothing to look at")
                .help("name a file: --output rows.parquet"));
        }
        None => Box::new(std::io::stdout()),
    };
    if args.format == Format::Requests {
        let requests = requests::newest(&store, &query, args.limit.unwrap_or(usize::MAX)).await?;
        for request in requests {
            serde_json::to_writer(&mut output, &request)?;
            output.write_all(b"\n")?;
        }
        return Ok(output.flush()?);
    }
    let limit = args.limit.or((args.format == Format::Table).then_some(ROWS));
    let mut writer = Rows::new(args.format, &mut output);
    let written = match limit {
        Some(limit) => {
            let batch = newest(&store, &query, limit).await?;
            writer.begin(&batch.schema())?;
            writer.write(&batch)
        }
        None => {
            let schema = query.columns(&store, &files).await?;
            writer.begin(&schema)?;
            let mut written = Ok(());
            query
                .each((&store, &files), Order::Oldest, |batch| {
                    written = fitted(&batch, &schema)
                        .map_err(Failure::from)
                        .and_then(|batch| writer.write(&batch));
                    if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                })
                .await?;
            written
        }
    };
    written.and_then(|()| writer.finish())
}

/// The files that are meant; a model of which there are none is a mistake.
async fn files_of(store: &Store, query: &Query) -> Result<Vec<File>, Failure> {
    let files = query.files(store, Kind::Predictions).await?;
    if files.is_empty() && store.files(Kind::Predictions, Some(&query.model)).await?.is_empty() {
        let models = read::models(store).await?;
        let failure = Failure::new(format!("the log has nothing of \"{}\"", query.model));
        return Err(match models.is_empty() {
            true => failure.help("the log is empty; predictions appear in it after some seconds"),
            false => failure.help(format!("it has {}", models.join(", "))),
        });
    }
    Ok(files)
}

/// Prints what comes, as it comes.
pub async fn tail(args: Tail) -> Result<(), Failure> {
    let store = args.chosen.place.store()?;
    let mut query = args.chosen.query();
    query.columns = args.columns.iter().map(Pattern::new).collect();
    let begin = std::time::Instant::now();
    let mut seen: std::collections::BTreeSet<String> = match query.since {
        Some(_) => Default::default(),
        None => {
            query.since = Some(Timestamp::now());
            let before = query.files(&store, Kind::Predictions).await?;
            before.iter().map(|file| file.path.to_string()).collect()
        }
    };
    let mut output: Box<dyn Write + Send> = Box::new(std::io::stdout());
    let mut writer = Rows::new(Format::Json, &mut output);
    loop {
        let mut files = query.files(&store, Kind::Predictions).await?;
        files.retain(|file| seen.insert(file.path.to_string()));
        let mut written = Ok(());
        query
            .each((&store, &files), Order::Oldest, |batch| {
                written = writer.write(&batch);
                if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
            .await?;
        written?;
        writer.output.flush()?;
        if args.stop_after.is_some_and(|time| begin.elapsed() >= time) {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Lists files.
pub async fn files(args: Files) -> Result<(), Failure> {
    let store = args.place.store()?;
    let mut all = Vec::new();
    for kind in [Kind::Predictions, Kind::Labels] {
        all.extend(store.files(kind, args.model.as_deref()).await?);
    }
    if args.json {
        let files = all.iter().map(|file| {
            json!({
                "table": file.partition.table.as_str(),
                "model": file.partition.model,
                "hour": file.partition.hour.start(),
                "path": file.path.to_string(),
                "bytes": file.size,
            })
        });
        println!("{}", serde_json::to_string_pretty(&files.collect::<Vec<_>>())?);
        return Ok(());
    }
    // By day: there may be one for each few seconds.
    let mut days: std::collections::BTreeMap<_, (u64, u64)> = Default::default();
    for file in &all {
        let day = file.partition.hour.start().strftime("%Y-%m-%d").to_string();
        let key = (file.partition.table.as_str(), file.partition.model.clone(), day);
        let (files, bytes) = days.entry(key).or_default();
        (*files, *bytes) = (*files + 1, *bytes + file.size);
    }
    let mut table = Table::new(["table", "model", "date", "files", "size"]).right(3).right(4);
    for ((kind, model, day), (files, bytes)) in days {
        table.row(vec![kind.into(), model, day, units::count(files), units::bytes(bytes)]);
    }
    print!("{}", table.text(0));
    Ok(())
}

/// Rows on their way out.
struct Rows<'a> {
    format: Format,
    output: &'a mut Box<dyn Write + Send>,
    table: Option<Table>,
    parquet: Option<ArrowWriter<Vec<u8>>>,
}

impl<'a> Rows<'a> {
    fn new(format: Format, output: &'a mut Box<dyn Write + Send>) -> Self {
        Self { format, output, table: None, parquet: None }
    }

    fn begin(&mut self, schema: &SchemaRef) -> Result<(), Failure> {
        let names = schema.fields().iter().map(|field| field.name().clone());
        match self.format {
            Format::Table => self.table = Some(Table::with(names.collect())),
            Format::Csv => {
                let mut writer = csv::Writer::from_writer(Vec::new());
                writer.write_record(names)?;
                self.put(&writer.into_inner().map_err(|error| error.into_error())?)?;
            }
            Format::Json | Format::Requests => {}
            Format::Parquet => {
                self.parquet = Some(ArrowWriter::try_new(Vec::new(), schema.clone(), None)?);
            }
        }
        Ok(())
    }

    /// Writes; a reader that has gone away has seen enough.
    fn put(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self.output.write_all(bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => Ok(other?),
        }
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), Failure> {
        match self.format {
            Format::Table => {
                let options = FormatOptions::default();
                let batch = in_offsets(batch)?;
                let columns = formatters(&batch, &options)?;
                let Some(table) = &mut self.table else { return Ok(()) };
                for row in 0..batch.num_rows() {
                    let cells = columns.iter().map(|column| short(column.value(row).to_string()));
                    table.row(cells.collect());
                }
                Ok(())
            }
            Format::Csv => {
                let mut writer = csv::Writer::from_writer(Vec::new());
                for row in 0..batch.num_rows() {
                    let cells = batch.columns().iter().map(|column| cell(&value(column, row)));
                    writer.write_record(cells)?;
                }
                self.put(&writer.into_inner().map_err(|error| error.into_error())?)
            }
            Format::Json | Format::Requests => {
                let mut text = Vec::new();
                for row in 0..batch.num_rows() {
                    let schema = batch.schema();
                    let fields = schema.fields().iter().zip(batch.columns());
                    let fields = fields.map(|(f, column)| (f.name().clone(), value(column, row)));
                    serde_json::to_writer(&mut text, &fields.collect::<Map<_, _>>())?;
                    text.push(b'\n');
                }
                self.put(&text)
            }
            Format::Parquet => match &mut self.parquet {
                Some(writer) => Ok(writer.write(batch)?),
                None => Ok(()),
            },
        }
    }

    fn finish(mut self) -> Result<(), Failure> {
        if let Some(table) = self.table.take() {
            self.put(table.text(0).as_bytes())?;
        }
        if let Some(writer) = self.parquet.take() {
            self.put(&writer.into_inner()?)?;
        }
        Ok(self.output.flush()?)
    }
}

/// The same with times at an offset, which can be shown without a table of the world's time zones.
fn in_offsets(batch: &RecordBatch) -> Result<RecordBatch, Failure> {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
        let times = column.as_primitive_opt::<TimestampMicrosecondType>();
        let column: ArrayRef = match times {
            Some(times) => Arc::new(times.clone().with_timezone("+00:00")),
            None => column.clone(),
        };
        (field.name().clone(), column)
    });
    Ok(RecordBatch::try_from_iter(columns)?)
}

fn formatters<'a>(
    batch: &'a RecordBatch,
    options: &'a FormatOptions<'_>,
) -> Result<Vec<ArrayFormatter<'a>>, Failure> {
    let columns = batch.columns().iter();
    Ok(columns.map(|column| ArrayFormatter::try_new(column, options)).collect::<Result<_, _>>()?)
}

fn short(text: String) -> String {
    match text.chars().count() > WIDEST {
        true => text.chars().take(WIDEST - 1).chain(['…']).collect(),
        false => text,
    }
}

/// A cell as CSV has it: texts as they are, lists as JSON, nothing for no value.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A cell as JSON. What JSON has no number for is a text: `NaN`, `inf`, `-inf`.
pub fn value(column: &ArrayRef, row: usize) -> Value {
    use arrow::datatypes::*;
    if column.is_null(row) {
        return Value::Null;
    }
    macro_rules! whole {
        ($kind:ty) => {
            Value::from(column.as_primitive::<$kind>().value(row))
        };
    }
    match column.data_type() {
        DataType::Boolean => Value::Bool(column.as_boolean().value(row)),
        DataType::Utf8 => Value::from(column.as_string::<i32>().value(row)),
        DataType::Int8 => whole!(Int8Type),
        DataType::Int16 => whole!(Int16Type),
        DataType::Int32 => whole!(Int32Type),
        DataType::Int64 => whole!(Int64Type),
        DataType::UInt8 => whole!(UInt8Type),
        DataType::UInt16 => whole!(UInt16Type),
        DataType::UInt32 => whole!(UInt32Type),
        DataType::UInt64 => whole!(UInt64Type),
        DataType::Float32 => {
            let number = column.as_primitive::<Float32Type>().value(row);
            // As short as it can be read back, which as f64 it would not be.
            let text = number.to_string();
            serde_json::from_str(&text).unwrap_or(Value::String(text))
        }
        DataType::Float64 => {
            let number = column.as_primitive::<Float64Type>().value(row);
            serde_json::Number::from_f64(number)
                .map_or_else(|| Value::String(number.to_string()), Value::Number)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let micros = column.as_primitive::<TimestampMicrosecondType>().value(row);
            let time = Timestamp::from_microsecond(micros);
            time.map_or(Value::from(micros), |time| Value::from(time.to_string()))
        }
        DataType::List(_) => {
            let list = column.as_list::<i32>().value(row);
            (0..list.len()).map(|place| value(&list, place)).collect()
        }
        // The log has no other types.
        other => Value::from(other.to_string()),
    }
}
