//! `modelyard bench`: loads a server and measures how it does.
//!
//! A closed loop keeps a number of connections busy, each sending its next request when the last is
//! answered. An open loop sends at a rate whatever the server does, and measures from the moment at
//! which a request was due: a server that stalls is charged for everyone who would have come.

mod body;
mod histogram;
mod load;
mod pacer;
mod report;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::http::{Connection, Endpoint};
use crate::{Failure, oip, units};
use load::Plan;
use report::Report;

/// Flags of `bench`.
#[derive(Debug, clap::Args)]
#[command(
    allow_missing_positional = true,
    after_help = "\
Examples:
  modelyard bench tab                                closed loop against 127.0.0.1:8080
  modelyard bench http://10.0.0.7:8080 tab --connections 64 --duration 30s
  modelyard bench tab --rate 5000 --json             Poisson arrivals, no coordinated omission
  modelyard bench enc --rows 8 --shape tokens=8,64 --binary
  modelyard bench http://127.0.0.1:8000 tab --path /predict --body request.json
  modelyard bench http://127.0.0.1:8501 tab --tfs --body request.json"
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
    /// Connections; in an open loop, the most that are used
    #[arg(long, short, default_value = "16", value_parser = at_least_one)]
    connections: usize,
    /// Requests a second, at random moments (open loop); without it, a closed loop
    #[arg(long, short)]
    rate: Option<f64>,
    /// Time that is measured [default: 10s, or until --requests are answered]
    #[arg(long, short, value_parser = units::parse_duration)]
    duration: Option<Duration>,
    /// Time before anything is measured
    #[arg(long, default_value = "1s", value_parser = units::parse_duration)]
    warmup: Duration,
    /// Stop after this many measured requests
    #[arg(long, short = 'n')]
    requests: Option<u64>,
    /// When a request is given up
    #[arg(long, default_value = "30s", value_parser = units::parse_duration)]
    timeout: Duration,
    /// Threads of the generator
    #[arg(long, default_value = "1", value_parser = at_least_one)]
    threads: usize,
    #[command(flatten)]
    request: RequestArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is sent.
#[derive(Debug, clap::Args)]
struct RequestArgs {
    /// Rows in each request
    #[arg(long, default_value = "1")]
    rows: usize,
    /// An input's full shape, for dimensions that vary
    #[arg(long, value_name = "INPUT=N,N")]
    shape: Vec<body::Shape>,
    /// What the made-up inputs hold
    #[arg(long, value_enum, default_value = "random")]
    data: body::Fill,
    /// Seed of made-up inputs and of arrivals
    #[arg(long, default_value = "1")]
    seed: u64,
    /// Send and receive tensors as binary data
    #[arg(long, conflicts_with_all = ["body", "tfs"])]
    binary: bool,
    /// Send this file instead of made-up inputs
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// Send TensorFlow Serving predict requests
    #[arg(long)]
    tfs: bool,
    /// Send to this path instead of the protocol's
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// A further header, such as 'authorization: Bearer …'
    #[arg(long, value_name = "NAME: VALUE", value_parser = parse_header)]
    header: Vec<(String, String)>,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("it has to be at least 1".into()),
        Ok(number) => Ok(number),
        Err(_) => Err("it has to be a whole number".into()),
    }
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("it has to be NAME: VALUE")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || !name.chars().all(plain) || value.contains(['\r', '\n']) {
        return Err("that is not an HTTP header".into());
    }
    Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
}

/// Runs the load and prints what came of it.
pub fn run(args: Args) -> Result<(), Failure> {
    if args.rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
        return Err(Failure::usage("--rate has to be more than 0"));
    }
    let endpoint = Endpoint::parse(&args.url)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let target = runtime.block_on(prepare(&args, &endpoint))?;
    drop(runtime);
    let plan = Plan {
        endpoint,
        request: target.bytes,
        connections: args.connections.max(args.threads),
        threads: args.threads,
        rate: args.rate,
        warmup: args.warmup,
        duration: match (args.duration, args.requests) {
            (None, None) => Some(Duration::from_secs(10)),
            (duration, _) => duration,
        },
        requests: args.requests,
        timeout: args.timeout,
        seed: args.request.seed,
    };
    if std::io::stderr().is_terminal() && !args.json {
        let time = plan.duration.map(|d| units::duration(d + plan.warmup)).unwrap_or_default();
        eprintln!("loading {} for {time} …", target.name);
    }
    let measured = load::run(&plan)?;
    let report =
        Report { target: target.name, rows: target.rows, plan: &plan, measured: &measured };
    if args.json {
        println!("{:#}", report.json());
    } else {
        print!("{}", report.text());
    }
    if measured.answered() == 0 {
        return Err(Failure::new("not one request was answered within the measured time"));
    }
    Ok(())
}

/// A request that the server has been seen to answer.
struct Target {
    name: String,
    rows: Option<usize>,
    bytes: Arc<[u8]>,
}

/// Makes the request and sends it once: a load of refusals would measure nothing.
async fn prepare(args: &Args, endpoint: &Endpoint) -> Result<Target, Failure> {
    let mut connection = oip::connect(endpoint).await?;
    let request = &args.request;
    let route = oip::route(&args.model, args.model_version.as_deref());
    let (mut headers, body, rows) = match &request.body {
        Some(file) => {
            let body = std::fs::read(file)
                .map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
            (vec![("content-type".to_owned(), "application/json".to_owned())], body, None)
        }
        None => make(args, endpoint, &mut connection, &route).await?,
    };
    for (name, value) in &request.header {
        headers.retain(|(existing, _)| existing != name);
        headers.push((name.clone(), value.clone()));
    }
    let path = match &request.path {
        Some(path) if path.starts_with('/') => path.clone(),
        Some(path) => format!("/{path}"),
        None if request.tfs => {
            let version = args.model_version.as_deref().map(|v| format!("/versions/{v}"));
            format!(
                "/v1/models/{}{}:predict",
                oip::escape(&args.model),
                version.unwrap_or_default()
            )
        }
        None => format!("{route}/infer"),
    };
    let bytes = endpoint.post(&path, &headers, &body);
    if !connection.is_open() {
        connection = oip::connect(endpoint).await?;
    }
    let answer = connection.answer(&bytes).await.map_err(oip::broken(endpoint))?;
    if !(200..300).contains(&answer.status) {
        return Err(Failure::new(format!("POST {path}: {}", oip::refusal(&answer))));
    }
    Ok(Target { name: format!("{endpoint}{path}"), rows, bytes: bytes.into() })
}

async fn make(
    args: &Args,
    endpoint: &Endpoint,
    connection: &mut Connection,
    route: &str,
) -> Result<(oip::Headers, Vec<u8>, Option<usize>), Failure> {
    let request = &args.request;
    let metadata = oip::metadata(connection, endpoint, route).await.map_err(|failure| {
        if request.path.is_some() || request.tfs {
            return Failure::new("the server does not describe the model's inputs")
                .help("give a request to send with --body FILE");
        }
        failure
    })?;
    let inputs =
        body::tensors(&metadata, request.rows, &request.shape, request.data, request.seed)?;
    let rows = inputs.first().and_then(|(_, tensor)| tensor.rows());
    if request.tfs {
        let json = vec![("content-type".to_owned(), "application/json".to_owned())];
        return Ok((json, body::tensorflow(&inputs), rows));
    }
    let (headers, body) = oip::encode(&inputs, request.binary)?;
    Ok((headers, body, rows))
}
