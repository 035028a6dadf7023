//! A dashboard for Grafana.

use api::metrics::table::*;
use serde_json::{Value, json};

use super::objectives::{Checked, short};
use super::queries::blamed;

/// How a panel shows its numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Lines,
    Number,
    Table,
}

struct Panel {
    title: String,
    /// What it says, for who sees it for the first time.
    description: String,
    shape: Shape,
    /// Grafana's name of it.
    unit: &'static str,
    /// Queries, and how their series are called.
    queries: Vec<(String, &'static str)>,
}

/// A row of panels below a title.
struct Row {
    title: &'static str,
    panels: Vec<Panel>,
}

/// What is chosen above: models, and servers.
const CHOSEN: &str = "model=~\"$model\",instance=~\"$instance\"";
/// What rules record of models is not by server.
const MODELS: &str = "model=~\"$model\"";
const SERVERS: &str = "instance=~\"$instance\"";
const VERSION: &str = "{{model}} {{version}}";

fn lines(
    title: &str,
    description: &str,
    unit: &'static str,
    queries: Vec<(String, &'static str)>,
) -> Panel {
    Panel {
        title: title.into(),
        description: description.into(),
        shape: Shape::Lines,
        unit,
        queries,
    }
}

fn rate(metric: &Metric, by: &str) -> String {
    format!("sum by ({by}) (rate({}{{{CHOSEN}}}[$__rate_interval]))", metric.name)
}

fn gauge(metric: &Metric) -> String {
    format!("sum by (model, version) ({}{{{CHOSEN}}})", metric.name)
}

fn quantile(part: f64, metric: &Metric) -> String {
    format!(
        "histogram_quantile({part}, \
         sum by (model, version, le) (rate({}_bucket{{{CHOSEN}}}[$__rate_interval])))",
        metric.name
    )
}

fn mean(metric: &Metric) -> String {
    let sum = |suffix| {
        format!(
            "sum by (model, version) (rate({}{suffix}{{{CHOSEN}}}[$__rate_interval]))",
            metric.name
        )
    };
    format!("{} / {}", sum("_sum"), sum("_count"))
}

/// The dashboard, to be imported.
pub fn write(objectives: &Checked) -> Value {
    let rows = [overview(objectives), traffic(), time(), instances(), versions(), server()];
    let mut panels = Vec::new();
    let (mut y, mut id) = (0, 0);
    for row in &rows {
        id += 1;
        panels.push(json!({
            "id": id, "type": "row", "title": row.title, "collapsed": false, "panels": [],
            "gridPos": { "x": 0, "y": y, "w": 24, "h": 1 },
        }));
        y += 1;
        let width = 24 / row.panels.len().clamp(1, 3);
        let height = if row.panels.iter().all(|p| p.shape == Shape::Number) { 4 } else { 8 };
        for (at, panel) in row.panels.iter().enumerate() {
            id += 1;
            let (column, line) = (at % 3, at / 3);
            let place = json!({
                "x": column * width, "y": y + line * height, "w": width, "h": height
            });
            panels.push(write_panel(panel, id, place));
        }
        y += row.panels.len().div_ceil(3) * height;
    }
    json!({
        "title": "Modelyard",
        "uid": "modelyard",
        "description": "Models, their traffic and their health. Written by `modelyard monitoring dashboard`.",
        "tags": ["modelyard", "machine learning"],
        "schemaVersion": 38,
        "editable": true,
        "refresh": "30s",
        "time": { "from": "now-3h", "to": "now" },
        "timezone": "browser",
        "graphTooltip": 1,
        "templating": { "list": variables() },
        "annotations": { "list": [restarts()] },
        "panels": panels,
    })
}

const SOURCE: &str = "${datasource}";

fn source() -> Value {
    json!({ "type": "prometheus", "uid": SOURCE })
}

fn variables() -> Vec<Value> {
    let label = |name: &str, title: &str, metric: &Metric| {
        let query = format!("label_values({}, {name})", metric.name);
        json!({
            "name": name, "label": title, "type": "query", "datasource": source(),
            "query": { "query": query, "refId": "Variable" }, "definition": query,
            "refresh": 2, "sort": 1, "multi": true, "includeAll": true, "allValue": ".*",
            "current": { "selected": true, "text": ["All"], "value": ["$__all"] },
        })
    };
    let source = json!({
        "name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus",
        "refresh": 1,
    });
    vec![source, label("model", "Model", &READY), label("instance", "Server", &BUILD)]
}

fn restarts() -> Value {
    json!({
        "name": "Starts", "enable": true, "datasource": source(), "iconColor": "orange",
        "expr": format!("changes({}{{{SERVERS}}}[5m]) > 0 and on (instance) {}", STARTED.name, BUILD.name),
        "titleFormat": "{{instance}} was started", "step": "60s",
    })
}

fn write_panel(panel: &Panel, id: usize, place: Value) -> Value {
    let is_instant = panel.shape != Shape::Lines;
    let target = |(at, (query, legend)): (usize, &(String, &str))| {
        let name = char::from(b'A' + at as u8).to_string();
        let format = if panel.shape == Shape::Table { "table" } else { "time_series" };
        json!({
            "refId": name, "expr": query, "legendFormat": legend, "datasource": source(),
            "instant": is_instant, "range": !is_instant, "format": format,
        })
    };
    let targets: Vec<Value> = panel.queries.iter().enumerate().map(target).collect();
    let kind = match panel.shape {
        Shape::Lines => "timeseries",
        Shape::Number => "stat",
        Shape::Table => "table",
    };
    let options = match panel.shape {
        Shape::Lines => json!({
            "legend": { "displayMode": "list", "placement": "bottom" },
            "tooltip": { "mode": "multi", "sort": "desc" },
        }),
        Shape::Number => json!({ "reduceOptions": { "calcs": ["lastNotNull"] } }),
        Shape::Table => json!({ "showHeader": true }),
    };
    json!({
        "id": id, "type": kind, "title": panel.title, "description": panel.description,
        "datasource": source(), "gridPos": place, "targets": targets, "options": options,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit, "min": 0,
                "custom": { "lineWidth": 1, "fillOpacity": 8, "showPoints": "never" },
            },
            "overrides": [],
        },
    })
}

fn overview(objectives: &Checked) -> Row {
    let number = |title: &str, description: String, unit, query: String| Panel {
        shape: Shape::Number,
        ..lines(title, &description, unit, vec![(query, "")])
    };
    let default = &objectives.default;
    let days = objectives.days;
    let codes = blamed();
    Row {
        title: "Overview",
        panels: vec![
            number(
                "Requests",
                "Requests a second, of all kinds.".into(),
                "reqps",
                format!("sum(rate({}{{{CHOSEN}}}[5m]))", REQUESTS.name),
            ),
            number(
                "Failed",
                format!("Part of the requests that the server is to blame for: {codes}."),
                "percentunit",
                format!(
                    "sum(rate({0}{{{CHOSEN},code=~\"{codes}\"}}[5m])) / sum(rate({0}{{{CHOSEN}}}[5m]))",
                    REQUESTS.name
                ),
            ),
            number(
                "p99",
                "Time that 99 % of the answers take at most.".into(),
                "s",
                format!(
                    "histogram_quantile(0.99, sum by (le) (rate({}_bucket{{{CHOSEN}}}[5m])))",
                    LATENCY.name
                ),
            ),
            number(
                "Least budget of failures left",
                format!(
                    "Of the model that has the least: 100 % is all that may fail in {days} days, \
                     unless it has an objective of its own {:.2} % of its requests.",
                    default.failures * 100.0
                ),
                "percentunit",
                format!("min(model:modelyard_failure_budget_left:ratio{{{MODELS}}})"),
            ),
            number(
                "Least budget of late answers left",
                format!(
                    "Of the model that has the least; late is, unless it has an objective of its \
                     own, what takes longer than {}.",
                    short(default.time)
                ),
                "percentunit",
                format!("min(model:modelyard_latency_budget_left:ratio{{{MODELS}}})"),
            ),
            number(
                "Versions not ready",
                "Versions that are wanted and do not answer.".into(),
                "none",
                format!("count({}{{{CHOSEN}}} == 0) or vector(0)", READY.name),
            ),
        ],
    }
}

fn traffic() -> Row {
    Row {
        title: "Traffic",
        panels: vec![
            lines(
                "Requests by version",
                "Requests a second, answered or not.",
                "reqps",
                vec![(rate(&REQUESTS, "model, version"), VERSION)],
            ),
            lines(
                "Errors by code",
                "What did not end well; INVALID_ARGUMENT, NOT_FOUND and CANCELLED are the callers'.",
                "reqps",
                vec![(
                    format!(
                        "sum by (model, code) (rate({}{{{CHOSEN},code!=\"OK\"}}[$__rate_interval])) > 0",
                        REQUESTS.name
                    ),
                    "{{model}} {{code}}",
                )],
            ),
            lines(
                "Part that failed",
                "The server's own failures, as part of what was answered or failed by it.",
                "percentunit",
                vec![(
                    format!("model:modelyard_requests_failed:ratio_rate5m{{{MODELS}}}"),
                    "{{model}}",
                )],
            ),
            lines(
                "Requests by protocol",
                "",
                "reqps",
                vec![(rate(&REQUESTS, "protocol"), "{{protocol}}")],
            ),
            lines(
                "Refused before any work",
                "The queue was full, or a promised time could not be kept.",
                "reqps",
                vec![(rate(&REJECTED, "model, reason"), "{{model}} {{reason}}")],
            ),
            lines(
                "Share of the traffic",
                "As assigned, of what names no version.",
                "percentunit",
                vec![(format!("avg by (model, version) ({}{{{CHOSEN}}})", SHARE.name), VERSION)],
            ),
        ],
    }
}

fn time() -> Row {
    let both = |metric: &Metric| {
        vec![
            (quantile(0.5, metric), "{{model}} {{version}} p50"),
            (quantile(0.99, metric), "{{model}} {{version}} p99"),
        ]
    };
    Row {
        title: "Time",
        panels: vec![
            lines("Time to the answer", "Of requests that were answered.", "s", both(&LATENCY)),
            lines(
                "Waiting for an instance",
                "Grows when there is too much to do.",
                "s",
                both(&QUEUE),
            ),
            lines(
                "In the engine",
                "By run, which may be of several requests.",
                "s",
                both(&COMPUTE),
            ),
        ],
    }
}

fn instances() -> Row {
    Row {
        title: "Instances",
        panels: vec![
            lines(
                "Use of instances",
                "Part of the time that a version's instances are busy.",
                "percentunit",
                vec![(
                    format!("model_version:modelyard_instances_used:ratio_rate5m{{{MODELS}}}"),
                    VERSION,
                )],
            ),
            lines(
                "Requests at this moment",
                "Being answered, and of these waiting for an instance.",
                "none",
                vec![
                    (gauge(&IN_FLIGHT), "{{model}} {{version}} all"),
                    (gauge(&WAITING), "{{model}} {{version}} waiting"),
                ],
            ),
            lines("Rows in a run", "On average.", "none", vec![(mean(&ROWS), VERSION)]),
            lines(
                "Busy instances",
                "At the moments of the scrapes, beside how many there are.",
                "none",
                vec![
                    (gauge(&BUSY), "{{model}} {{version}} busy"),
                    (gauge(&INSTANCES), "{{model}} {{version}} all"),
                ],
            ),
            lines(
                "Shadows",
                "Copies of requests, by what became of them.",
                "reqps",
                vec![(
                    rate(&SHADOWS, "model, version, result"),
                    "{{model}} {{version}} {{result}}",
                )],
            ),
            lines(
                "Shadows' use of an instance",
                "",
                "percentunit",
                vec![(rate(&SHADOW_TIME, "model, version"), VERSION)],
            ),
        ],
    }
}

fn versions() -> Row {
    let table = |title: &str, description: &str, unit, query| Panel {
        shape: Shape::Table,
        ..lines(title, description, unit, vec![(query, "")])
    };
    Row {
        title: "Versions",
        panels: vec![
            table(
                "What is loaded",
                "Each version with its engine, and whether it answers.",
                "none",
                format!("max by (model, version, engine, format) ({}{{{CHOSEN}}})", MODEL.name),
            ),
            table(
                "Aliases",
                "Which version each alias of the registry names.",
                "none",
                format!("max by (model, alias, version) ({}{{{CHOSEN}}})", ALIAS.name),
            ),
            lines("Memory by version", "As reckoned.", "bytes", vec![(gauge(&MEMORY), VERSION)]),
            lines(
                "Loads",
                "In ten minutes, by whether they succeeded.",
                "none",
                vec![(
                    format!("sum by (result) (increase({}{{{CHOSEN}}}[10m]))", LOADS.name),
                    "{{result}}",
                )],
            ),
            lines(
                "Time to load",
                "Of each version's last load.",
                "s",
                vec![(
                    format!("max by (model, version) ({}{{{CHOSEN}}})", LOAD_TIME.name),
                    VERSION,
                )],
            ),
            lines(
                "Requests that wait for a load",
                "More models are asked for than fit into memory.",
                "none",
                vec![(format!("{}{{{SERVERS}}}", WAITING_FOR_LOADS.name), "{{instance}}")],
            ),
        ],
    }
}

fn server() -> Row {
    // Every program has these metrics.
    let of_server = |query: String| format!("{query} and on (instance) {}", BUILD.name);
    let own = |metric: &Metric| of_server(format!("{}{{{SERVERS}}}", metric.name));
    Row {
        title: "Servers",
        panels: vec![
            lines(
                "CPU",
                "Cores in use.",
                "none",
                vec![(
                    of_server(format!("rate({}{{{SERVERS}}}[$__rate_interval])", CPU.name)),
                    "{{instance}}",
                )],
            ),
            lines("Memory", "In RAM.", "bytes", vec![(own(&RESIDENT), "{{instance}}")]),
            lines(
                "Observations dropped",
                "Watchers did not take them in time; requests are fine.",
                "ops",
                vec![(
                    format!("rate({}{{{SERVERS}}}[$__rate_interval])", DROPPED.name),
                    "{{instance}}",
                )],
            ),
            lines("Open files", "", "none", vec![(own(&OPEN_FILES), "{{instance}}")]),
            lines("Threads", "", "none", vec![(own(&THREADS), "{{instance}}")]),
            lines(
                "Ready",
                "1 if every wanted version answers.",
                "none",
                vec![(format!("{}{{{SERVERS}}}", SERVER_READY.name), "{{instance}}")],
            ),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitoring::objectives::Objectives;

    #[test]
    fn panels_do_not_lie_upon_each_other() {
        let dashboard = write(&Objectives::default().check().unwrap());
        let panels = dashboard["panels"].as_array().unwrap();
        let mut taken = std::collections::HashSet::new();
        let mut ids = std::collections::HashSet::new();
        for panel in panels {
            assert!(ids.insert(panel["id"].as_u64().unwrap()));
            let side = |name: &str| panel["gridPos"][name].as_u64().unwrap();
            for x in side("x")..side("x") + side("w") {
                assert!(x < 24);
                for y in side("y")..side("y") + side("h") {
                    assert!(taken.insert((x, y)), "{panel}");
                }
            }
        }
        assert!(panels.len() > 30);
    }
}
