//! Structured logs on standard error: readable on a terminal, one JSON object a line otherwise, in
//! the shape that whoever collects them reads; and to an OpenTelemetry collector if there is one.

mod collector;
mod lines;

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ValueEnum;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

pub use collector::send_to;

use lines::{Lines, Shape};

/// What is logged, and how.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What is logged: error, warn, info, debug, trace, or `target=level` pairs
    #[arg(
        long,
        global = true,
        default_value = "info",
        value_name = "FILTER",
        help_heading = "Logs"
    )]
    pub log: String,
    /// How logs are written
    #[arg(long, global = true, default_value = "auto", value_enum, help_heading = "Logs")]
    pub log_format: Format,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Pretty on a terminal, JSON otherwise
    Auto,
    /// Readable text
    Pretty,
    /// One JSON object a line
    Json,
    /// JSON as Google Cloud Logging reads it
    Google,
    /// JSON for CloudWatch; a server adds metrics in its embedded metric format every minute
    Cloudwatch,
}

/// Whether lines go to CloudWatch, as far as anybody has said.
static FOR_CLOUDWATCH: AtomicBool = AtomicBool::new(false);

/// Whether lines go to CloudWatch.
pub fn is_for_cloudwatch() -> bool {
    FOR_CLOUDWATCH.load(Ordering::Relaxed)
}

/// Starts logging for the whole process. A filter that cannot be read is said so and replaced by
/// `info`: a typing error in it must not keep a server from starting.
pub fn start(args: &Args) {
    let (filter, problem) = match EnvFilter::try_new(&args.log) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    // PostgreSQL's notices tell at each start that tables are there already.
    let quiet = "sqlx::postgres::notice=warn".parse().expect("it is a directive");
    let filter = filter.add_directive(quiet);
    let terminal = std::io::stderr().is_terminal();
    FOR_CLOUDWATCH.store(args.log_format == Format::Cloudwatch, Ordering::Relaxed);
    let shape = match args.log_format {
        Format::Auto if terminal => None,
        Format::Pretty => None,
        Format::Auto | Format::Json | Format::Cloudwatch => Some(Shape::Plain),
        Format::Google => Some(Shape::google()),
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = match shape {
        Some(shape) => layer.event_format(Lines(shape)).boxed(),
        None => {
            let colour = terminal && std::env::var_os("NO_COLOR").is_none();
            layer.compact().with_ansi(colour).with_target(false).boxed()
        }
    };
    let all = lines::Ids.and_then(collector::Collector).and_then(layer);
    tracing_subscriber::registry().with(filter).with(all).init();
    if let Some(error) = problem {
        tracing::warn!(filter = args.log, %error, "the log filter cannot be read; using \"info\"");
    }
}
