//! The page of the alerts: what is wrong, what is kept quiet, by which rules, and who is told. Whole
//! without a script, which only the buttons need.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use monitor::alerts::{Alert, Desk, Stage};

use super::index::escape;
use super::{Page, time, whole};
use crate::Api;
use crate::rest::alerts::of;

/// The alerts.
pub(super) async fn alerts(State(api): State<Arc<Api>>) -> Response {
    let main = of(&api).map(|alerts| main(&alerts.desk, alerts.open_to_callers));
    let page = Page { path: "/alerts", title: "Alerts", json: "/v2/alerts" };
    whole(&api.options, &page, main)
}

fn main(desk: &Desk, open: bool) -> String {
    let alerts = desk.alerts();
    let mut html =
        "<h1>Alerts</h1>\n<p class=\"reason\" id=\"problem\" role=\"alert\" hidden></p>\n"
            .to_owned();
    if alerts.is_empty() {
        html += "<p class=\"empty\">Nothing is wrong.</p>\n";
    } else {
        let rows: String = alerts.iter().map(|alert| row(alert, open)).collect();
        html += &table(&["alert", "severity", "stage", "since", "what", ""], &rows);
    }
    let silences = desk.silences();
    if !silences.is_empty() {
        let rows = silences.iter().map(|silence| {
            let only: Vec<String> =
                silence.only.iter().map(|(label, text)| format!("{label}={text}")).collect();
            let button = button(open, "unsilence", &silence.id, "End");
            format!(
                "<tr><td>{}</td><td>until {}</td><td>{}</td><td>{}</td><td>{button}</td></tr>\n",
                escape(&only.join(" ")),
                time(silence.until),
                escape(&silence.by),
                escape(&silence.why),
            )
        });
        html += "<h2 class=\"above\">Kept quiet</h2>\n";
        html += &table(&["alerts", "until", "by", "why", ""], &rows.collect::<String>());
    }
    let counts = desk.counts();
    if !counts.is_empty() {
        let rows = counts.iter().map(|(name, count)| {
            let problem = count.problem.as_deref().map(escape).unwrap_or_default();
            let numbers = [count.sent, count.failed, count.waiting, count.dropped];
            let numbers = numbers.map(|n| format!("<td class=\"number\">{n}</td>")).concat();
            format!("<tr><th scope=\"row\">{}</th>{numbers}<td>{problem}</td></tr>\n", escape(name))
        });
        html += "<h2 class=\"above\">Who is told</h2>\n";
        let headings = ["notifier", "sent", "failed tries", "waiting", "given up", "problem"];
        html += &table(&headings, &rows.collect::<String>());
    }
    let rows = desk.rules().into_iter().map(|(rule, problem)| {
        let watches = rule.metric.as_deref().or(rule.event.as_deref()).unwrap_or_default();
        let side = match (rule.above, rule.below) {
            (Some(above), _) => format!("above {above}"),
            (None, Some(below)) => format!("below {below}"),
            (None, None) => "event".to_owned(),
        };
        format!(
            "<tr><th scope=\"row\">{}</th><td>{}</td><td><code>{}</code></td><td>{side}</td><td>{}</td></tr>\n",
            escape(&rule.name),
            escape(rule.severity.as_deref().unwrap_or("warning")),
            escape(watches),
            problem.as_deref().map(escape).unwrap_or_default(),
        )
    });
    html += "<h2 class=\"above\">Rules</h2>\n";
    html += &table(&["rule", "severity", "watches", "fires", "problem"], &rows.collect::<String>());
    html
}

fn table(headings: &[&str], rows: &str) -> String {
    let headings: String =
        headings.iter().map(|heading| format!("<th scope=\"col\">{heading}</th>")).collect();
    format!(
        "<table class=\"wide\"><thead><tr>{headings}</tr></thead>\n<tbody>{rows}</tbody></table>\n"
    )
}

fn button(open: bool, what: &str, value: &str, said: &str) -> String {
    match open {
        true => format!(
            "<button type=\"button\" class=\"plain\" data-{what}=\"{}\">{said}</button>",
            escape(value)
        ),
        false => String::new(),
    }
}

fn row(alert: &Alert, open: bool) -> String {
    let label = |name: &str| escape(alert.labels.get(name).map_or("", String::as_str));
    let quiet: Vec<&str> = alert.quiet.iter().map(String::as_str).collect();
    let (class, stage) = match (alert.stage, quiet.is_empty()) {
        (Stage::Firing, true) => ("unavailable", "firing".to_owned()),
        (Stage::Firing, false) => ("plain", format!("quiet ({})", escape(&quiet.join(", ")))),
        (Stage::Pending, _) => ("waiting", "pending".to_owned()),
        (Stage::Resolved, _) => ("ready", "resolved".to_owned()),
    };
    let only = serde_json::to_string(&alert.labels).unwrap_or_default();
    let is_loud = alert.stage != Stage::Resolved && quiet.is_empty();
    format!(
        "<tr data-alert=\"{name}\"><th scope=\"row\">{name}</th><td>{}</td>\
         <td><span class=\"pill {class}\">{stage}</span></td><td>{}</td>\
         <td class=\"chips\">{}</td><td>{}</td></tr>\n",
        label("severity"),
        time(alert.since),
        escape(&alert.summary),
        button(open && is_loud, "silence", &only, "Quiet for 1 h"),
        name = label("alertname"),
    )
}
