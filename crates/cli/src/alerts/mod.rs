//! `modelyard alerts`: rules, and what they have found.

mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use monitor::alerts::{Alert, Desk, Message, Rules, Sample, Stage, Value as Number};
use serde::Deserialize;
use serde_json::json;

use crate::http::{Answer, Endpoint};
use crate::registry::{print_json, shown, who};
use crate::table::Table;
use crate::units::parse_duration;
use crate::{Failure, oip};

pub use watch::watch;

/// How long a server has to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Says what is wrong, and whom it is told.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the alerts of a running server
    List(ListArgs),
    /// Print the built-in rules, to be changed
    Rules,
    /// Say whether a file of rules is right, and what they watch
    Check(CheckArgs),
    /// Send a message to each notifier of a file of rules, to see that it arrives
    Test(TestArgs),
    /// Keep alerts quiet for a time
    Silence(SilenceArgs),
    /// List what is kept quiet
    Silences(ListArgs),
    /// End a silence
    Unsilence(UnsilenceArgs),
}

/// A running server.
#[derive(Debug, clap::Args)]
struct Server {
    /// The server
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:8080",
        env = "MODELYARD_URL"
    )]
    url: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard alerts list
  modelyard alerts list --url http://10.0.0.7:8080 --json

Exits with 1 while an alert of severity critical fires.")]
struct ListArgs {
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard alerts rules > alerts.toml      the built-in rules, to be changed
  modelyard alerts check alerts.toml
  modelyard serve --alerts alerts.toml model.onnx")]
struct CheckArgs {
    /// The rules, in TOML
    #[arg(value_name = "FILE")]
    rules: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard alerts test alerts.toml                     to everybody
  modelyard alerts test alerts.toml --notifier oncall
  modelyard alerts test alerts.toml --resolved          says that it is over

Exits with 1 if a message could not be sent.")]
struct TestArgs {
    /// The rules, in TOML
    #[arg(value_name = "FILE")]
    rules: PathBuf,
    /// To this notifier alone
    #[arg(long, value_name = "NAME")]
    notifier: Option<String>,
    /// Send what says that the alert is over
    #[arg(long)]
    resolved: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard alerts silence --where model=fraud --for 2h --why \"known, being mended\"
  modelyard alerts silence --where alertname=Drift --where 'model=test-*' --for 24h")]
struct SilenceArgs {
    /// A label of the alerts, where * stands for any text; all of them have to be so
    #[arg(long = "where", value_name = "LABEL=TEXT", required = true)]
    only: Vec<String>,
    /// For how long, such as 2h
    #[arg(long = "for", value_name = "TIME")]
    time: String,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "")]
    why: String,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
struct UnsilenceArgs {
    /// Its name, as `alerts silences` lists it
    id: String,
    #[command(flatten)]
    server: Server,
}

/// Does what was asked.
pub fn run(args: Args) -> Result<(), Failure> {
    match args.verb {
        Verb::List(args) => list(&args.server),
        Verb::Rules => {
            print!("{}", Rules::BUILT_IN);
            Ok(())
        }
        Verb::Check(args) => check(&args),
        Verb::Test(args) => test(args),
        Verb::Silence(args) => silence(&args),
        Verb::Silences(args) => silences(&args.server),
        Verb::Unsilence(args) => {
            let path = format!("/v2/alerts/silences/{}", oip::escape(&args.id));
            args.server.ask("DELETE", &path, None)?;
            Ok(())
        }
    }
}

/// Reads rules and finds the secrets that they name.
pub fn read(path: &Path) -> Result<Rules, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    let wrong = |error: String| Failure::usage(format!("{}: {error}", path.display()));
    let mut rules = Rules::parse(&text).map_err(wrong)?;
    let variable = |name: &str| std::env::var(name).ok();
    for (name, notifier) in &mut rules.notifiers {
        notifier
            .find_secrets(&variable)
            .map_err(|error| wrong(format!("notifier {name:?}: {error}")))?;
    }
    Ok(rules)
}

impl Server {
    /// Sends a request and reads the answer.
    fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> Result<Answer, Failure> {
        let endpoint = Endpoint::parse(&self.url)?;
        let mut headers = vec![("accept".to_owned(), "application/json".to_owned())];
        if body.is_some() {
            headers.push(("content-type".to_owned(), "application/json".to_owned()));
        }
        headers.push(("modelyard-by".to_owned(), who()));
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = endpoint.request(method, path, &headers, body.as_bytes());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answer = runtime.block_on(async {
            let asked = async {
                let mut connection = oip::connect(&endpoint).await?;
                connection.answer(&request).await.map_err(oip::broken(&endpoint))
            };
            match tokio::time::timeout(PATIENCE, asked).await {
                Ok(answer) => answer,
                Err(_) => Err(Failure::new(format!("{endpoint}: no answer within {PATIENCE:?}"))),
            }
        })?;
        match answer.status {
            200..300 => Ok(answer),
            _ => Err(Failure::new(oip::refusal(&answer))),
        }
    }
}

/// What `/v2/alerts` says.
#[derive(Deserialize)]
struct Listed {
    alerts: Vec<Alert>,
}

fn list(server: &Server) -> Result<(), Failure> {
    let answer = server.ask("GET", "/v2/alerts", None)?;
    let listed: serde_json::Value = serde_json::from_slice(&answer.body)?;
    let Listed { alerts } = Listed::deserialize(&listed)?;
    if server.json {
        print_json(&listed)?;
    } else if alerts.is_empty() {
        println!("nothing is wrong");
    } else {
        print!("{}", table(&alerts).text(0));
    }
    let critical = alerts.iter().filter(|alert| {
        alert.stage == Stage::Firing
            && alert.labels.get("severity").is_some_and(|s| s == "critical")
    });
    match critical.count() {
        0 => Ok(()),
        count => Err(Failure::new(format!("critical alerts: {count}"))),
    }
}

fn table(alerts: &[Alert]) -> Table {
    let mut table = Table::new(["alert", "severity", "stage", "since", "what"]);
    for alert in alerts {
        let label = |name: &str| alert.labels.get(name).cloned().unwrap_or_default();
        let stage = match (alert.stage, alert.quiet.is_empty()) {
            (Stage::Firing, true) => "firing".to_owned(),
            (Stage::Firing, false) => {
                let by: Vec<&str> = alert.quiet.iter().map(String::as_str).collect();
                format!("quiet ({})", by.join(", "))
            }
            (Stage::Pending, _) => "pending".to_owned(),
            (Stage::Resolved, _) => "resolved".to_owned(),
        };
        let since = shown(alert.since);
        table.row(vec![label("alertname"), label("severity"), stage, since, alert.summary.clone()]);
    }
    table
}

fn check(args: &CheckArgs) -> Result<(), Failure> {
    let rules = read(&args.rules)?;
    if args.json {
        return print_json(&json!({"rules": rules.all(), "notifiers": rules.notifiers}));
    }
    let mut table = Table::new(["rule", "severity", "watches", "for"]);
    for rule in rules.all() {
        let watches = match (&rule.metric, &rule.event) {
            (Some(metric), _) => {
                let quantile = rule.quantile.map(|part| format!("p{} of ", part * 100.0));
                let ratio = if rule.is_ratio() { "part of " } else { "" };
                let side = match (rule.above, rule.below) {
                    (Some(above), _) => format!("above {above}"),
                    (None, below) => format!("below {}", below.unwrap_or_default()),
                };
                format!("{}{ratio}{metric} {side}", quantile.unwrap_or_default())
            }
            (None, event) => format!("event {}", event.as_deref().unwrap_or_default()),
        };
        let severity = rule.severity.clone().unwrap_or_else(|| "warning".to_owned());
        table.row(vec![rule.name, severity, watches, format!("{:#}", rule.hold)]);
    }
    print!("{}", table.text(0));
    let names: Vec<&str> = rules.notifiers.keys().map(String::as_str).collect();
    match names.is_empty() {
        true => println!("\nnobody is told: the file has no notifiers"),
        false => println!("\ntold: {}", names.join(", ")),
    }
    Ok(())
}

fn test(args: TestArgs) -> Result<(), Failure> {
    let rules = read(&args.rules)?;
    let names: Vec<String> = match &args.notifier {
        Some(name) if rules.notifiers.contains_key(name) => vec![name.clone()],
        Some(name) => return Err(Failure::usage(format!("no notifier is called \"{name}\""))),
        None => rules.notifiers.keys().cloned().collect(),
    };
    if names.is_empty() {
        return Err(Failure::usage(format!("{}: has no notifiers", args.rules.display())));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let alerts = made_up(args.resolved)?;
        let desk = Desk::open(rules, None).map_err(Failure::new)?;
        let mut failed = 0;
        for name in names {
            let now = Timestamp::now();
            let message = Message {
                id: format!("test-{}", now.as_millisecond()),
                to: name.clone(),
                group: BTreeMap::from([("model".to_owned(), "example".to_owned())]),
                at: now,
                alerts: alerts.clone(),
            };
            match desk.send(message).await {
                Ok(()) => println!("{name}: sent"),
                Err(why) => {
                    eprintln!("{name}: {why}");
                    failed += 1;
                }
            }
        }
        match failed {
            0 => Ok(()),
            count => Err(Failure::new(format!("messages that could not be sent: {count}"))),
        }
    })
}

/// An alert of a model that there is not, as the rules themselves would make it.
fn made_up(resolved: bool) -> Result<Vec<Alert>, Failure> {
    let rules = "defaults = false\n[[rules]]\nname = \"Test\"\nmetric = \"test\"\nabove = 0\n\
        severity = \"info\"\nsummary = \"this is a test: nothing is wrong with {model}\"\n";
    let desk =
        Desk::open(Rules::parse(rules).map_err(Failure::new)?, None).map_err(Failure::new)?;
    let labels = [("model", "example"), ("version", "1")];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let sample = Sample { metric: "test".to_owned(), labels, value: Number::Gauge(1.0) };
    let look = |samples: &[Sample]| desk.look(Timestamp::now(), samples, &[]);
    look(&[sample])?;
    if resolved {
        look(&[])?;
    }
    Ok(desk.alerts())
}

fn silence(args: &SilenceArgs) -> Result<(), Failure> {
    let mut only = BTreeMap::new();
    for text in &args.only {
        let Some((label, value)) = text.split_once('=').filter(|(label, _)| !label.is_empty())
        else {
            return Err(Failure::usage(format!("--where \"{text}\": expected LABEL=TEXT")));
        };
        only.insert(label, value);
    }
    let time = parse_duration(&args.time)
        .map_err(|why| Failure::usage(format!("--for \"{}\": {why}", args.time)))?;
    let until = Timestamp::now().checked_add(time);
    let until =
        until.map_err(|_| Failure::usage(format!("--for \"{}\" is too long", args.time)))?;
    let body = json!({"where": only, "until": until, "why": args.why});
    let answer = args.server.ask("POST", "/v2/alerts/silences", Some(body))?;
    let said: serde_json::Value = serde_json::from_slice(&answer.body)?;
    match args.server.json {
        true => print_json(&said)?,
        false => println!("{}", said["id"].as_str().unwrap_or_default()),
    }
    Ok(())
}

fn silences(server: &Server) -> Result<(), Failure> {
    let answer = server.ask("GET", "/v2/alerts/silences", None)?;
    let said: serde_json::Value = serde_json::from_slice(&answer.body)?;
    if server.json {
        return print_json(&said);
    }
    let silences = Vec::<monitor::alerts::Silence>::deserialize(&said["silences"])?;
    let mut table = Table::new(["silence", "until", "where", "by", "why"]);
    for silence in silences {
        let only: Vec<String> =
            silence.only.iter().map(|(label, text)| format!("{label}={text}")).collect();
        let until = shown(silence.until);
        table.row(vec![silence.id, until, only.join(" "), silence.by, silence.why]);
    }
    print!("{}", table.text(0));
    Ok(())
}
