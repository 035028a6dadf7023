//! Structured logs on standard error: readable on a terminal, one JSON object a line otherwise.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

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
    let pretty = match args.log_format {
        Format::Auto => terminal,
        Format::Pretty => true,
        Format::Json => false,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if pretty {
        let colour = terminal && std::env::var_os("NO_COLOR").is_none();
        builder.compact().with_ansi(colour).with_target(false).init();
    } else {
        builder.json().flatten_event(true).with_current_span(false).init();
    }
    if let Some(error) = problem {
        tracing::warn!(filter = args.log, %error, "the log filter cannot be read; using \"info\"");
    }
}
