//! `modelyard infer`: rows or a request from a file or standard input to a server, its answers to
//! standard output.

mod columns;
mod output;
mod rows;

use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::ValueEnum;
use model::Tensor;

use crate::http::{Answer, Connection, Endpoint};
use crate::oip::{Decoded, Metadata};
use crate::{Failure, oip, units};
use columns::Mapping;
use output::{Format, Printer};
use rows::{Column, Rows};

/// Flags of `infer`.
#[derive(Debug, clap::Args)]
#[command(
    allow_missing_positional = true,
    after_help = "\
Examples:
  modelyard infer iris --input flowers.csv
  modelyard infer http://10.0.0.7:8080 iris --input flowers.parquet --format csv > answers.csv
  modelyard infer iris --input request.json         an Open Inference request, as it is
  head -100 flowers.csv | modelyard infer iris --format json

Columns whose names are the model's inputs are sent by name; a model with one input of two
dimensions takes all numeric columns in order, or those of --columns. An empty cell is NaN."
)]
pub struct Args {
    /// The server: http://host:port, host:port or host
    #[arg(default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The model's name
    model: String,
    /// The model's version
    #[arg(long, value_name = "VERSION")]
    model_version: Option<String>,
    /// File with rows or a request; standard input if it is left out or `-`
    #[arg(long, short, value_name = "FILE")]
    input: Option<PathBuf>,
    /// What the input is; told from its name or its first bytes otherwise
    #[arg(long, value_enum)]
    input_format: Option<Kind>,
    /// Columns to send, in order, with commas between
    #[arg(long, value_delimiter = ',')]
    columns: Vec<String>,
    /// How answers are printed
    #[arg(long, short, value_enum, default_value = "table")]
    format: Format,
    /// Rows in a request
    #[arg(long, default_value = "1024", value_name = "ROWS")]
    batch_size: usize,
}

/// What an input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// An Open Inference request
    Json,
    /// Rows with a heading, commas between cells
    Csv,
    /// Rows with a heading, tabs between cells
    Tsv,
    /// Rows of a Parquet file
    Parquet,
}

/// Sends the input and prints the answers.
pub fn run(args: Args) -> Result<(), Failure> {
    if Path::new(&args.model).is_file() {
        return Err(Failure::usage(format!("\"{}\" is a file, not a model's name", args.model))
            .help(format!("modelyard infer {} --input {}", args.url, args.model)));
    }
    if args.batch_size == 0 {
        return Err(Failure::usage("--batch-size has to be at least 1"));
    }
    let endpoint = Endpoint::parse(&args.url)?;
    let (kind, source) = open(&args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let connection = oip::connect(&endpoint).await?;
        let route = oip::route(&args.model, args.model_version.as_deref());
        let mut client = Client { endpoint, route, connection, binary: false };
        match kind {
            Kind::Json => client.send_file(source, args.format).await,
            Kind::Csv => client.send_rows(Rows::csv(source, b',')?, &args).await,
            Kind::Tsv => client.send_rows(Rows::csv(source, b'\t')?, &args).await,
            Kind::Parquet => {
                client.send_rows(Rows::parquet(read_all(source)?.into())?, &args).await
            }
        }
    })
}

fn open(args: &Args) -> Result<(Kind, Box<dyn Read>), Failure> {
    let file = args.input.as_deref().filter(|path| *path != Path::new("-"));
    let mut source: Box<dyn Read> = match file {
        Some(path) => Box::new(
            std::fs::File::open(path)
                .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?,
        ),
        None if args.input.is_none() && io::stdin().is_terminal() => {
            return Err(Failure::usage("there is nothing to send")
                .help("name a file with --input, or pipe rows or a request in"));
        }
        None => Box::new(io::stdin()),
    };
    let extension = file.and_then(Path::extension).and_then(|e| e.to_str()).unwrap_or_default();
    let named = match extension.to_ascii_lowercase().as_str() {
        "json" => Some(Kind::Json),
        "csv" => Some(Kind::Csv),
        "tsv" => Some(Kind::Tsv),
        "parquet" => Some(Kind::Parquet),
        _ => None,
    };
    if let Some(kind) = args.input_format.or(named) {
        return Ok((kind, source));
    }
    let mut start = Vec::new();
    source.by_ref().take(64).read_to_end(&mut start)?;
    let kind = match start.iter().find(|byte| !byte.is_ascii_whitespace()) {
        _ if start.starts_with(b"PAR1") => Kind::Parquet,
        Some(b'{') => Kind::Json,
        _ => Kind::Csv,
    };
    Ok((kind, Box::new(io::Cursor::new(start).chain(source))))
}

fn read_all(mut source: Box<dyn Read>) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    source.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Rows that were made into tensors, and where they are in the input.
struct Batch {
    inputs: Vec<(String, Tensor)>,
    first: u64,
    rows: usize,
}

struct Client {
    endpoint: Endpoint,
    route: String,
    connection: Connection,
    binary: bool,
}

impl Client {
    async fn post(&mut self, headers: &oip::Headers, body: &[u8]) -> Result<Answer, Failure> {
        if !self.connection.is_open() {
            self.connection = oip::connect(&self.endpoint).await?;
        }
        let request = self.endpoint.post(&format!("{}/infer", self.route), headers, body);
        self.connection.answer(&request).await.map_err(oip::broken(&self.endpoint))
    }

    /// Sends a request as it is.
    async fn send_file(&mut self, source: Box<dyn Read>, format: Format) -> Result<(), Failure> {
        let body = read_all(source)?;
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        let answer = self.post(&headers, &body).await?;
        if answer.status != 200 {
            return Err(Failure::new(oip::refusal(&answer)));
        }
        if format == Format::Json {
            println!("{}", String::from_utf8_lossy(&answer.body).trim_end());
            return Ok(());
        }
        Ok(Printer::new(format, io::stdout().lock()).print(&oip::decode(&answer)?.outputs)?)
    }

    async fn send_rows(&mut self, mut rows: Rows, args: &Args) -> Result<(), Failure> {
        let metadata = oip::metadata(&mut self.connection, &self.endpoint, &self.route).await?;
        self.binary = oip::takes_binary(&mut self.connection, &self.endpoint).await;
        let most = rows_in_a_request(&metadata, args.batch_size);
        let mut printer = Printer::new(args.format, io::BufWriter::new(io::stdout().lock()));
        let mut mapping: Option<Mapping> = None;
        let mut progress = Progress::new();
        let mut first = 1;
        while let Some(columns) = rows.next(most)? {
            let mapping = match &mapping {
                Some(mapping) => mapping,
                None => mapping.insert(columns::map(&metadata, &columns, &args.columns)?),
            };
            let batch = batch(&metadata, mapping, &columns, first)?;
            let decoded = match self.infer(&batch).await? {
                Ok(decoded) => decoded,
                Err(answer) => return Err(self.blame(batch, answer).await?),
            };
            printer.print(&decoded.outputs)?;
            first += batch.rows as u64;
            progress.show(first - 1);
        }
        progress.end();
        Ok(())
    }

    /// One request. The inner error is the server's refusal.
    async fn infer(&mut self, batch: &Batch) -> Result<Result<Decoded, Answer>, Failure> {
        let (headers, body) = oip::encode(&batch.inputs, self.binary)?;
        let answer = self.post(&headers, &body).await?;
        if answer.status != 200 {
            return Ok(Err(answer));
        }
        oip::decode(&answer).map(Ok)
    }

    /// Finds the row at fault by sending ever smaller parts of a refused batch.
    async fn blame(&mut self, mut batch: Batch, mut answer: Answer) -> Result<Failure, Failure> {
        // Only a refusal of what was sent can be one row's fault.
        while answer.status == 400 && batch.rows > 1 {
            let half = batch.rows / 2;
            let (upper, lower) = (batch.part(0, half), batch.part(half, batch.rows));
            match self.infer(&upper).await? {
                Err(refused) => (batch, answer) = (upper, refused),
                Ok(_) => match self.infer(&lower).await? {
                    Err(refused) => (batch, answer) = (lower, refused),
                    // Each half alone is fine: the batch as a whole is at fault.
                    Ok(_) => break,
                },
            }
        }
        let refusal = oip::refusal(&answer);
        Ok(Failure::new(match batch.rows {
            1 => format!("row {}: {refusal}", batch.first),
            rows => format!("rows {} to {}: {refusal}", batch.first, batch.first + rows as u64 - 1),
        }))
    }
}

impl Batch {
    fn part(&self, from: usize, to: usize) -> Self {
        let cut = |(name, tensor): &(String, Tensor)| (name.clone(), tensor.slice_rows(from..to));
        Self {
            inputs: self.inputs.iter().map(cut).collect(),
            first: self.first + from as u64,
            rows: to - from,
        }
    }
}

fn batch(
    metadata: &Metadata,
    mapping: &Mapping,
    columns: &[Column],
    first: u64,
) -> Result<Batch, Failure> {
    let rows = columns.first().map_or(0, |column| column.cells.len());
    Ok(Batch { inputs: columns::tensors(metadata, mapping, columns, first)?, first, rows })
}

/// How many rows one request may hold: what the user wants, unless the model has a fixed number.
fn rows_in_a_request(metadata: &Metadata, wanted: usize) -> usize {
    let fixed = metadata.inputs.iter().filter_map(|spec| spec.shape.first());
    let fixed = fixed.filter_map(|extent| usize::try_from(*extent).ok()).min();
    fixed.filter(|rows| *rows > 0).unwrap_or(wanted)
}

/// Rows done, on standard error, once the work has gone on for a second.
struct Progress {
    start: Instant,
    shown: Option<Instant>,
    terminal: bool,
}

impl Progress {
    fn new() -> Self {
        // Where answers go to the same terminal, they are progress enough.
        let terminal = io::stderr().is_terminal() && !io::stdout().is_terminal();
        Self { start: Instant::now(), shown: None, terminal }
    }

    fn show(&mut self, rows: u64) {
        let since = self.shown.unwrap_or(self.start);
        if self.terminal
            && since.elapsed().as_secs_f64() > if self.shown.is_some() { 0.2 } else { 1.0 }
        {
            let rate = rows as f64 / self.start.elapsed().as_secs_f64();
            eprint!("\r{} rows, {}/s ", units::count(rows), units::count(rate as u64));
            self.shown = Some(Instant::now());
        }
    }

    fn end(&self) {
        if self.shown.is_some() {
            eprintln!();
        }
    }
}
