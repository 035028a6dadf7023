//! `modelyard monitoring`: what Prometheus and Grafana need to watch this server, written from the
//! same table of metrics as `/metrics` itself.

mod dashboard;
mod objectives;
mod queries;
mod rules;

use std::path::PathBuf;

use api::metrics::table::METRICS;

use crate::Failure;
use objectives::Objectives;

/// Writes rules and a dashboard.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard monitoring rules > modelyard.rules.yml
  modelyard monitoring rules --availability 99.95% --latency p99=100ms
  modelyard monitoring slo > slo.toml        to be changed: objectives of single models
  modelyard monitoring rules --slo slo.toml
  modelyard monitoring dashboard > modelyard.json

Prometheus reads the rules (rule_files), Grafana imports the dashboard.")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Print Prometheus's recording and alerting rules, with alerts on burn rates of objectives
    Rules(Objective),
    /// Print a Grafana dashboard
    Dashboard(Objective),
    /// Print the objectives as a file, to be changed
    Slo(Objective),
    /// Print every metric that /metrics shows
    Metrics,
}

/// What is promised.
#[derive(Debug, clap::Args)]
struct Objective {
    /// File with objectives, also of single models; `monitoring slo` prints one to start from
    #[arg(long, value_name = "FILE")]
    slo: Option<PathBuf>,
    /// Part of the requests that have to be answered [default: 99.9%]
    #[arg(long, value_name = "PERCENT")]
    availability: Option<String>,
    /// Part of the answers that have to come in time [default: p99=250ms]
    #[arg(long, value_name = "QUANTILE=TIME")]
    latency: Option<String>,
}

impl Objective {
    fn read(&self) -> Result<Objectives, Failure> {
        let mut objectives = match &self.slo {
            Some(path) => Objectives::read(path)?,
            None => Objectives::default(),
        };
        if let Some(availability) = &self.availability {
            objectives.default.availability = Some(availability.clone());
        }
        if let Some(latency) = &self.latency {
            objectives.default.latency = Some(latency.clone());
        }
        Ok(objectives)
    }
}

/// Prints what was asked for.
pub fn run(args: Args) -> Result<(), Failure> {
    match args.verb {
        Verb::Rules(objective) => print!("{}", rules::write(&objective.read()?.check()?)),
        Verb::Dashboard(objective) => {
            println!("{:#}", dashboard::write(&objective.read()?.check()?));
        }
        Verb::Slo(objective) => {
            let objectives = objective.read()?;
            objectives.check()?;
            print!("{}", objectives.to_toml()?);
        }
        Verb::Metrics => print!("{}", metrics()),
    }
    Ok(())
}

/// The table of metrics, as Markdown.
fn metrics() -> String {
    let mut text = String::from("| metric | kind | labels | meaning |\n|---|---|---|---|\n");
    for metric in METRICS {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind, help) = (metric.name, metric.kind.as_str(), metric.help);
        text.push_str(&format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/monitoring.md");
        let page = std::fs::read_to_string(path).unwrap();
        let table = page.split("<!-- metrics -->\n").nth(1).unwrap();
        let table = table.split("<!-- /metrics -->").next().unwrap();
        assert_eq!(table, metrics(), "docs/monitoring.md: modelyard monitoring metrics");
    }

    /// Everything that looks like a metric in rules and dashboard is in the table, or is recorded.
    #[test]
    fn queries_ask_only_for_metrics_that_there_are() {
        let objectives = Objectives::default().check().unwrap();
        let rules = rules::write(&objectives);
        let dashboard = dashboard::write(&objectives).to_string();
        let recorded: Vec<&str> =
            rules.lines().filter_map(|line| line.trim().strip_prefix("- record: ")).collect();
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let mut found = 0;
        for text in [&rules, &dashboard] {
            for name in text.split(|c: char| !is_part(c)) {
                let looks = name.starts_with("modelyard_") || name.starts_with("process_");
                if name.contains(":modelyard_") {
                    assert!(recorded.contains(&name), "{name} is not recorded");
                } else if looks {
                    let base = ["_bucket", "_sum", "_count"]
                        .iter()
                        .find_map(|suffix| name.strip_suffix(suffix))
                        .unwrap_or(name);
                    assert!(
                        METRICS.iter().any(|metric| metric.name == base || metric.name == name),
                        "{name} is no metric"
                    );
                    found += 1;
                }
            }
        }
        assert!(found > 50, "{found}");
    }
}
