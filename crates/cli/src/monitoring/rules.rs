//! Recording and alerting rules for Prometheus.
//!
//! Objectives are watched by burn rates over two windows each, as Google's SRE workbook describes
//! ("Alerting on SLOs", chapter 5): the long window says that it matters, the short one that it
//! still goes on.

use std::fmt::Write;

use api::metrics::table::*;

use super::objectives::{Checked, Promise, short};
use super::queries::{failed, failures, late, literally, quote};

/// What an alert looks at: both windows, which part of the period's budget is spent in the longer
/// one, and who is to be told.
struct Burn {
    long: &'static str,
    hours: f64,
    short: &'static str,
    spent: f64,
    severity: &'static str,
}

const BURNS: [Burn; 4] = [
    Burn { long: "1h", hours: 1.0, short: "5m", spent: 0.02, severity: "page" },
    Burn { long: "6h", hours: 6.0, short: "30m", spent: 0.05, severity: "page" },
    Burn { long: "1d", hours: 24.0, short: "2h", spent: 0.10, severity: "ticket" },
    Burn { long: "3d", hours: 72.0, short: "6h", spent: 0.10, severity: "ticket" },
];

const WINDOWS: [&str; 7] = ["5m", "30m", "1h", "2h", "6h", "1d", "3d"];

/// Models whose requests are known; of others there are no objectives.
const KNOWN: &str = "model!=\"\"";

struct Group {
    name: &'static str,
    /// How often it is evaluated, if not as often as everything else.
    interval: Option<&'static str>,
    rules: Vec<Rule>,
}

enum Rule {
    Record { name: String, query: String },
    Alert(Alert),
}

struct Alert {
    name: &'static str,
    query: String,
    /// How long it has to be so.
    lasts: &'static str,
    severity: &'static str,
    labels: Vec<(&'static str, String)>,
    summary: String,
    description: String,
}

/// The rules file.
pub fn write(objectives: &Checked) -> String {
    let groups = [
        Group { name: "modelyard", interval: None, rules: overview() },
        Group { name: "modelyard-requests", interval: None, rules: ratios(objectives) },
        Group { name: "modelyard-budgets", interval: Some("5m"), rules: budgets(objectives) },
        Group { name: "modelyard-objectives", interval: None, rules: burning(objectives) },
        Group { name: "modelyard-health", interval: None, rules: health() },
    ];
    let mut text = String::from(
        "# Written by `modelyard monitoring rules`; change the objectives and write it again.\n\
         groups:\n",
    );
    for group in groups {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  - name: {}", group.name);
        if let Some(interval) = group.interval {
            let _ = writeln!(text, "    interval: {interval}");
        }
        text.push_str("    rules:\n");
        for rule in &group.rules {
            write_rule(&mut text, rule);
        }
    }
    text
}

fn write_rule(text: &mut String, rule: &Rule) {
    let (kind, name, query) = match rule {
        Rule::Record { name, query } => ("record", name.as_str(), query),
        Rule::Alert(alert) => ("alert", alert.name, &alert.query),
    };
    let _ = writeln!(text, "      - {kind}: {name}\n        expr: |-");
    for line in query.lines() {
        let _ = writeln!(text, "          {line}");
    }
    let Rule::Alert(alert) = rule else { return };
    if !alert.lasts.is_empty() {
        let _ = writeln!(text, "        for: {}", alert.lasts);
    }
    let _ = writeln!(text, "        labels:\n          severity: {}", alert.severity);
    for (name, value) in &alert.labels {
        let _ = writeln!(text, "          {name}: {}", quote(value));
    }
    text.push_str("        annotations:\n");
    for (name, value) in [("summary", &alert.summary), ("description", &alert.description)] {
        let _ = writeln!(text, "          {name}: {}", quote(value));
    }
}

fn record(name: impl Into<String>, query: impl Into<String>) -> Rule {
    Rule::Record { name: name.into(), query: query.into() }
}

/// What dashboards ask for all the time.
fn overview() -> Vec<Rule> {
    let (requests, latency, busy) = (REQUESTS.name, LATENCY.name, COMPUTE.name);
    let quantile = |part: &str| {
        format!(
            "histogram_quantile({part}, sum by (model, version, le) (rate({latency}_bucket[5m])))"
        )
    };
    vec![
        record(
            "model_version_code:modelyard_requests:rate5m",
            format!("sum by (model, version, code) (rate({requests}[5m]))"),
        ),
        record("model_version:modelyard_request_duration_seconds:p50", quantile("0.5")),
        record("model_version:modelyard_request_duration_seconds:p99", quantile("0.99")),
        record(
            "model_version:modelyard_instances_used:ratio_rate5m",
            format!(
                "sum by (model, version) (rate({busy}_sum[5m]))\n\
                 / sum by (model, version) ({})",
                INSTANCES.name
            ),
        ),
    ]
}

/// Which models a promise is for, as label matchers; and for each its promise.
fn promises(objectives: &Checked) -> Vec<(String, &Promise)> {
    let names: Vec<String> = objectives.models.keys().map(|name| literally(name)).collect();
    let others = match names.is_empty() {
        true => KNOWN.to_owned(),
        false => format!("{KNOWN},model!~{}", quote(&names.join("|"))),
    };
    let single = objectives.models.iter();
    let single = single.map(|(name, promise)| (format!("model={}", quote(name)), promise));
    [(others, &objectives.default)].into_iter().chain(single).collect()
}

/// One query for all models, each by its own promise.
fn of_each(objectives: &Checked, query: impl Fn(&str, &Promise) -> String) -> String {
    let queries = promises(objectives);
    let queries: Vec<String> = queries.iter().map(|(of, promise)| query(of, promise)).collect();
    queries.join("\nor ")
}

fn ratios(objectives: &Checked) -> Vec<Rule> {
    let mut rules = Vec::new();
    for window in WINDOWS {
        let name = format!("model:modelyard_requests_failed:ratio_rate{window}");
        rules.push(record(name, failed(KNOWN, window)));
        let name = format!("model:modelyard_answers_late:ratio_rate{window}");
        let query = of_each(objectives, |of, promise| late(of, promise.time, window));
        rules.push(record(name, query));
    }
    for burn in &BURNS {
        let window = burn.long;
        let seconds = burn.hours * 3600.0;
        let name = format!("model:modelyard_requests_failed:increase{window}");
        rules.push(record(name, format!("{} * {seconds}", failures(KNOWN, window))));
        let count = format!("{}_count{{{KNOWN}}}", LATENCY.name);
        let ratio = format!("model:modelyard_answers_late:ratio_rate{window}");
        let name = format!("model:modelyard_answers_late:increase{window}");
        rules.push(record(name, format!("{ratio} * sum by (model) (increase({count}[{window}]))")));
    }
    rules
}

/// What is left of each model's budget of failures: 1 is all of it, below 0 it is overdrawn.
fn budgets(objectives: &Checked) -> Vec<Rule> {
    let window = format!("{}d", objectives.days);
    let failures = of_each(objectives, |of, promise| {
        format!("1 - ({}) / {}", failed(of, &window), plain(promise.failures))
    });
    let late = of_each(objectives, |of, promise| {
        format!("1 - ({}) / {}", late(of, promise.time, &window), plain(promise.late))
    });
    vec![
        record("model:modelyard_failure_budget_left:ratio", failures),
        record("model:modelyard_latency_budget_left:ratio", late),
    ]
}

fn burning(objectives: &Checked) -> Vec<Rule> {
    let percent = |part: f64| format!("{}%", plain((1.0 - part) * 100.0));
    let default = &objectives.default;
    let in_time = format!("{} within {}", percent(default.late), short(default.time));
    let failing = Burning {
        name: "ModelyardFailureBudgetBurning",
        what: "too many requests fail",
        kind: "requests_failed",
        budget: |promise| promise.failures,
        promised: percent(default.failures),
    };
    let late = Burning {
        name: "ModelyardLatencyBudgetBurning",
        what: "too many answers are late",
        kind: "answers_late",
        budget: |promise| promise.late,
        promised: in_time,
    };
    let both = [failing, late];
    let of_burn = |burn| both.iter().filter_map(move |of| of.alert(objectives, burn));
    BURNS.iter().flat_map(of_burn).collect()
}

/// What is promised, and how it is broken.
struct Burning {
    name: &'static str,
    what: &'static str,
    /// The middle of what is recorded of it.
    kind: &'static str,
    budget: fn(&Promise) -> f64,
    promised: String,
}

impl Burning {
    /// One alert for all models; `None` if no rate could burn any budget as fast.
    fn alert(&self, objectives: &Checked, burn: &Burn) -> Option<Rule> {
        let days = f64::from(objectives.days);
        let factor = burn.spent * days * 24.0 / burn.hours;
        let promises = promises(objectives);
        let parts = promises.iter().filter_map(|(of, promise)| {
            let limit = factor * (self.budget)(promise);
            (limit < 1.0).then(|| self.condition(of, plain(limit), objectives, burn))
        });
        let parts: Vec<String> = parts.collect();
        let query = match &parts[..] {
            [] => return None,
            [only] => only.clone(),
            several => several.iter().map(|p| format!("({p})")).collect::<Vec<_>>().join("\nor "),
        };
        let unless = match objectives.models.is_empty() {
            true => "",
            false => ", unless it has an objective of its own,",
        };
        Some(Rule::Alert(Alert {
            name: self.name,
            query,
            lasts: "",
            severity: burn.severity,
            labels: vec![("window", burn.long.to_owned())],
            summary: format!("{{{{ $labels.model }}}}: {}", self.what),
            description: format!(
                "{{{{ $value | humanizePercentage }}}} over {}, and still over {}; promised \
                 is{unless} {} over {days} days. At this rate what may fail in that time is used \
                 up within {}.",
                burn.long,
                burn.short,
                self.promised,
                used_up(days / factor),
            ),
        }))
    }

    fn condition(&self, of: &str, limit: String, objectives: &Checked, burn: &Burn) -> String {
        let (kind, least) = (self.kind, objectives.least_failures);
        let part =
            |window: &str| format!("model:modelyard_{kind}:ratio_rate{window}{{{of}}} > {limit}");
        format!(
            "{}\nand {}\nand model:modelyard_{kind}:increase{}{{{of}}} >= {least}",
            part(burn.long),
            part(burn.short),
            burn.long
        )
    }
}

fn used_up(days: f64) -> String {
    match days {
        days if days >= 2.0 => format!("{days:.0} days"),
        days => format!("{:.0} hours", days * 24.0),
    }
}

/// A number without the noise in its last digits.
fn plain(number: f64) -> String {
    let text = format!("{number:.12}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn health() -> Vec<Rule> {
    let alert = |name, query: String, lasts, severity, summary: &str, description: &str| {
        Rule::Alert(Alert {
            name,
            query,
            lasts,
            severity,
            labels: Vec::new(),
            summary: summary.into(),
            description: description.into(),
        })
    };
    let version = "{{ $labels.model }} version {{ $labels.version }}";
    // Every program has these metrics.
    let of_server = |query: String| format!("{query} and on (instance) {}", BUILD.name);
    vec![
        alert(
            "ModelyardAbsent",
            format!("absent({})", BUILD.name),
            "5m",
            "page",
            "no server is scraped",
            "Prometheus sees no Modelyard server: none runs, or its scrapes fail.",
        ),
        alert(
            "ModelyardVersionNotReady",
            format!("min by (instance, model, version) ({}) == 0", READY.name),
            "10m",
            "ticket",
            &format!("{version} is not ready on {{{{ $labels.instance }}}}"),
            "It is wanted and has not been answering for ten minutes; the server's log says why.",
        ),
        alert(
            "ModelyardLoadsFail",
            format!("increase({}{{result=\"failed\"}}[15m]) > 0", LOADS.name),
            "",
            "ticket",
            &format!("{version} failed to load on {{{{ $labels.instance }}}}"),
            "What was loaded before goes on serving; the server's log says why.",
        ),
        alert(
            "ModelyardQueueFull",
            format!(
                "sum by (instance, model, version) (rate({}{{reason=\"queue_full\"}}[5m])) > 0",
                REJECTED.name
            ),
            "5m",
            "page",
            &format!("{version} refuses requests on {{{{ $labels.instance }}}}"),
            "As many requests wait as may: more instances, more servers, or a faster model.",
        ),
        alert(
            "ModelyardInstancesBusy",
            "model_version:modelyard_instances_used:ratio_rate5m > 0.9".into(),
            "15m",
            "ticket",
            &format!("{version} has hardly any room left"),
            "Its instances are busy {{ $value | humanizePercentage }} of the time.",
        ),
        alert(
            "ModelyardObservationsDropped",
            format!("increase({}[15m]) > 0", DROPPED.name),
            "15m",
            "ticket",
            "watchers do not keep up on {{ $labels.instance }}",
            "Observations are dropped: what is reckoned from them misses some. Requests are fine.",
        ),
        alert(
            "ModelyardShadowsFail",
            format!(
                "sum by (model, version) (rate({0}{{result=\"failed\"}}[15m]))\n\
                 / sum by (model, version) (rate({0}{{result!=\"dropped\"}}[15m])) > 0.05",
                SHADOWS.name
            ),
            "15m",
            "ticket",
            &format!("{version} fails as a shadow"),
            "{{ $value | humanizePercentage }} of its copies of requests fail; callers see none.",
        ),
        alert(
            "ModelyardLoadsAwaited",
            format!("{} > 0", WAITING_FOR_LOADS.name),
            "10m",
            "ticket",
            "requests wait for models to be loaded on {{ $labels.instance }}",
            "More models are asked for than fit into memory: raise --memory, or spread them.",
        ),
        alert(
            "ModelyardRestarts",
            of_server(format!("changes({}[1h]) > 2", STARTED.name)),
            "",
            "page",
            "{{ $labels.instance }} restarts again and again",
            "It was started {{ $value }} times within an hour.",
        ),
        alert(
            "ModelyardFilesRunOut",
            of_server(format!("{} / {} > 0.9", OPEN_FILES.name, MAX_FILES.name)),
            "10m",
            "ticket",
            "{{ $labels.instance }} has hardly any file descriptors left",
            "{{ $value | humanizePercentage }} are open: raise the limit (ulimit -n).",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitoring::objectives::Objectives;

    fn rules(file: &str) -> String {
        let objectives: Objectives = toml::from_str(file).unwrap();
        write(&objectives.check().unwrap())
    }

    #[test]
    fn burn_rates_are_the_workbooks() {
        let text = rules("");
        // 14.4, 6, 3 and 1 times 0.1 % of 30 days.
        for (window, limit) in [("1h", "0.0144"), ("6h", "0.006"), ("1d", "0.003"), ("3d", "0.001")]
        {
            let line = format!(
                "model:modelyard_requests_failed:ratio_rate{window}{{model!=\"\"}} > {limit}\n"
            );
            assert!(text.contains(&line), "{line}");
        }
    }

    #[test]
    fn a_model_of_its_own_is_taken_out_of_the_rest() {
        let text = rules("[models.\"a.b\"]\nlatency = 'p99=50ms'");
        assert!(text.contains(r#"model!="",model!~"a\\.b",le="0.25""#), "{text}");
        assert!(text.contains(r#"{model="a.b",le="0.05"}"#));
        assert!(text.contains(r#"ratio_rate1h{model="a.b"} > 0.0144"#));
    }

    #[test]
    fn what_can_never_fire_is_left_out() {
        let text = rules("[default]\navailability = '90%'");
        assert!(!text.contains("modelyard_requests_failed:ratio_rate1h{model!=\"\"} > 1.44"));
        assert!(text.contains("modelyard_requests_failed:ratio_rate6h{model!=\"\"} > 0.6"));
    }
}
