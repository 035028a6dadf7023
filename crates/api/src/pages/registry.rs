//! The pages of the registry: which models there are, and of one its versions, its aliases, who gets
//! the traffic, and what happened to it, with the evidence. Whole without a script.

use std::fmt::Write;
use std::sync::Arc;

use ::registry::{Event, Model, ModelState, Page, Record, Registry, Share, Stage, Summary};
use axum::extract::State;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::index::{escape, size};
use super::{time, whole};
use crate::Api;
use crate::error::Failure;
use crate::openapi::segment;
use crate::rest::registry::extract::{Asked, Names, access, registry};

/// Where the pages are.
const PATH: &str = "/registry";
/// How many models, versions or records a page shows.
const SHOWN: usize = 50;
/// The largest plot that is shown, in bytes.
const MAX_PLOT: usize = 2 << 20;

/// Where a page begins.
#[derive(Deserialize)]
pub(super) struct Part {
    after: Option<String>,
}

/// The models.
pub(super) async fn models(State(api): State<Arc<Api>>, Asked(part): Asked<Part>) -> Response {
    let found = match access(&api).and_then(registry) {
        Ok(registry) => {
            registry.models_after(part.after.as_deref(), SHOWN).await.map_err(Failure::from)
        }
        Err(failure) => Err(failure),
    };
    let main = found.map(|found| models_html(&found));
    let page = super::Page { path: PATH, title: "The registry", json: "/v2/registry/models" };
    whole(&api.options, &page, main)
}

/// One model.
pub(super) async fn model(
    State(api): State<Arc<Api>>,
    Names(name): Names<String>,
    Asked(part): Asked<Part>,
) -> Response {
    let main = match access(&api).and_then(registry) {
        Ok(registry) => model_html(&registry, &name, part.after.as_deref()).await,
        Err(failure) => Err(failure),
    };
    let json = format!("/v2/registry/models/{}", segment(&name));
    whole(&api.options, &super::Page { path: PATH, title: &name, json: &json }, main)
}

fn models_html(found: &Page<Model, String>) -> String {
    if found.entries.is_empty() {
        return "<h1>The registry</h1>\n<p class=\"empty\">No model is in the registry. Publish one with \
                <code>modelyard push model.onnx --name NAME</code>.</p>"
            .to_owned();
    }
    let row = |model: &Model| {
        let name = escape(&model.name);
        let aliases = model.aliases.iter().map(|(alias, number)| alias_chip(alias, Some(*number)));
        format!(
            "<tr data-model=\"{name}\"><th scope=\"row\"><a href=\"/registry/{}\">{name}</a></th>\
             <td class=\"number\">{}</td><td>{}</td><td class=\"chips\">{}</td></tr>\n",
            segment(&model.name),
            model.versions,
            time(model.published),
            aliases.collect::<String>(),
        )
    };
    format!(
        "<h1>The registry</h1>\n<table class=\"wide\"><thead><tr><th>model</th>\
         <th class=\"number\">versions</th><th>newest</th><th>aliases</th></tr></thead>\n<tbody>{}</tbody>\
         </table>\n{}",
        found.entries.iter().map(row).collect::<String>(),
        more("/registry", found.next.as_deref(), "More models"),
    )
}

async fn model_html(
    registry: &Registry,
    name: &str,
    after: Option<&str>,
) -> Result<String, Failure> {
    let before = after.and_then(|after| after.parse().ok());
    let (model, state) = (registry.model(name).await?, registry.now(name).await?);
    let versions = registry.versions_before(name, before, SHOWN).await?;
    let history = registry.history_before(name, None, SHOWN).await?;
    let aliases = model.aliases.iter().map(|(alias, number)| alias_chip(alias, Some(*number)));
    let mut html = format!(
        "<p class=\"crumb\"><a href=\"/registry\">The registry</a></p>\n<h1>{}</h1>\n<section \
         class=\"card\" aria-label=\"Now\">{}<p class=\"chips\">{}</p></section>\n",
        escape(name),
        traffic_html(&state),
        aliases.collect::<String>(),
    );
    html.push_str(
        "<h2 class=\"above\">Versions</h2>\n<table class=\"wide\"><thead><tr>\
        <th class=\"number\">version</th><th>state</th><th>published</th><th>by</th>\
        <th class=\"number\">size</th><th>aliases</th><th>digest</th></tr></thead>\n<tbody>",
    );
    for version in &versions.entries {
        html.push_str(&version_html(version));
    }
    html.push_str("</tbody></table>\n");
    let next = versions.next.map(|next| next.to_string());
    html.push_str(&more(
        &format!("/registry/{}", segment(name)),
        next.as_deref(),
        "Older versions",
    ));
    html.push_str("<h2 class=\"above\">What happened</h2>\n<ol class=\"history\">\n");
    for record in &history.entries {
        html.push_str(&record_html(record));
    }
    html.push_str("</ol>\n");
    if history.next.is_some() {
        let path = format!("/v2/registry/models/{}/history", segment(name));
        let _ = writeln!(html, "<p class=\"quiet\">What was before: <code>GET {path}</code></p>");
    }
    Ok(html)
}

/// Who gets which part of the traffic now.
fn traffic_html(state: &ModelState) -> String {
    let shares = state.assigned(Timestamp::MAX);
    let total: u64 = shares.iter().map(|share| u64::from(share.share)).sum();
    if total == 0 {
        return "<p class=\"empty\">No version has the traffic: no alias <code>champion</code> is set.</p>"
            .to_owned();
    }
    let (mut bar, mut legend, mut from) = (String::new(), String::new(), 0.0);
    let with_part = shares.iter().filter(|share| share.share > 0 || share.shadow);
    for (place, share) in with_part.enumerate() {
        let (part, color) = (f64::from(share.share) / total as f64, place % 4);
        let _ = write!(
            bar,
            "<rect class=\"part-{color}\" x=\"{:.2}\" width=\"{:.2}\" height=\"6\"/>",
            from * 100.0,
            part * 100.0
        );
        let said = if share.shadow { "shadow".to_owned() } else { percent(share, total) };
        let _ = write!(
            legend,
            "<li><svg class=\"dot\" viewBox=\"0 0 1 1\" aria-hidden=\"true\"><rect class=\"part-{color}\" \
             width=\"1\" height=\"1\"/></svg> version {} <strong>{said}</strong></li>",
            share.version
        );
        from += part;
    }
    let rollout = match &state.rollout {
        Some(rollout) if rollout.paused => "<span class=\"pill waiting\">rollout paused</span>",
        Some(_) => "<span class=\"pill waiting\">rollout under way</span>",
        None => "",
    };
    format!(
        "<header><h2>Traffic</h2>{rollout}</header><svg class=\"traffic\" viewBox=\"0 0 100 6\" \
         preserveAspectRatio=\"none\" role=\"img\" aria-label=\"Shares of the traffic\">{bar}</svg>\
         <ul class=\"legend\">{legend}</ul>"
    )
}

fn percent(share: &Share, total: u64) -> String {
    let percent = f64::from(share.share) * 100.0 / total as f64;
    format!("{}%", (percent * 100.0).round() / 100.0)
}

fn version_html(version: &Summary) -> String {
    let aliases = version.aliases.iter().map(|alias| alias_chip(alias, None)).collect::<String>();
    let (stage, class) = match version.stage {
        Stage::Active => ("active", "ready"),
        Stage::Archived => ("archived", "plain"),
        Stage::Deleted => ("deleted", "waiting"),
        Stage::Purged => ("purged", "unavailable"),
    };
    let digest: String = version.digest.chars().take(19).collect();
    format!(
        "<tr data-version=\"{0}\"><th scope=\"row\" class=\"number\"><a \
         href=\"/v2/registry/models/{1}/versions/{0}\">{0}</a></th><td><span class=\"pill {class}\">{stage}\
         </span></td><td>{2}</td><td>{3}</td><td class=\"number\">{4}</td><td class=\"chips\">{aliases}</td>\
         <td><code title=\"{5}\">{6}</code></td></tr>\n",
        version.number,
        segment(&version.model),
        time(version.published),
        escape(&version.who),
        size(version.size),
        escape(&version.digest),
        escape(&digest),
    )
}

fn alias_chip(alias: &str, number: Option<u64>) -> String {
    let class = if alias == ::registry::CHAMPION { "chip champion" } else { "chip" };
    let number = number.map(|number| format!(" → {number}")).unwrap_or_default();
    format!("<span class=\"{class}\">{}{number}</span> ", escape(alias))
}

fn record_html(record: &Record) -> String {
    let (kind, told) = told(&record.event);
    let mut html = format!(
        "<li class=\"{kind}\"><p class=\"what\">{told} <span class=\"quiet\">{} · {}</span></p>",
        time(record.time),
        escape(&record.who)
    );
    if !record.reason.is_empty() {
        let _ = write!(html, "<p class=\"why\">{}</p>", escape(&record.reason));
    }
    if let Some(evidence) = &record.evidence {
        html.push_str(&evidence_html(evidence));
    }
    html.push_str("</li>\n");
    html
}

/// What a decision rests on: its plot, its figures, and the rest on demand.
fn evidence_html(evidence: &Value) -> String {
    let mut html = String::new();
    if let Some(plot) = evidence.get("plot").and_then(Value::as_str).filter(|p| is_plot(p)) {
        // An image that is loaded in this way runs no script and loads nothing.
        let _ = write!(
            html,
            "<img class=\"plot\" alt=\"Plot of the evidence\" src=\"data:image/svg+xml;base64,{}\">",
            STANDARD.encode(plot)
        );
    }
    let Some(figures) = evidence.as_object() else {
        return format!("{html}<pre class=\"evidence\">{}</pre>", escape(&format!("{evidence:#}")));
    };
    let plain = |(key, value): (&String, &Value)| {
        let text = match value {
            Value::Number(number) => number.to_string(),
            Value::Bool(yes) => yes.to_string(),
            Value::String(text) if key != "plot" && text.len() <= 80 => text.clone(),
            _ => return None,
        };
        Some(format!("<div><dt>{}</dt><dd>{}</dd></div>", escape(key), escape(&text)))
    };
    let shown: String = figures.iter().filter_map(plain).take(12).collect();
    if !shown.is_empty() {
        let _ = write!(html, "<dl class=\"counts\">{shown}</dl>");
    }
    let mut rest = figures.clone();
    rest.remove("plot");
    if !rest.is_empty() {
        let _ = write!(
            html,
            "<details><summary>All of the evidence</summary><pre class=\"evidence\">{}</pre></details>",
            escape(&format!("{:#}", Value::Object(rest)))
        );
    }
    html
}

fn is_plot(text: &str) -> bool {
    let text = text.trim_start();
    text.len() <= MAX_PLOT && (text.starts_with("<svg") || text.starts_with("<?xml"))
}

/// An event in words, and what kind it is.
fn told(event: &Event) -> (&'static str, String) {
    let version = |number: &Option<u64>| match number {
        Some(number) => format!("version {number}"),
        None => "nothing".to_owned(),
    };
    match event {
        Event::Published { version, .. } => ("published", format!("Version {version} published")),
        Event::AliasMoved { alias, from, to } => {
            let said = format!("<b>{}</b>: {} → {}", escape(alias), version(from), version(to));
            (if alias == ::registry::CHAMPION { "crowned" } else { "moved" }, said)
        }
        Event::TrafficSplit { to, .. } => ("moved", format!("Traffic split: {}", shares(to))),
        Event::RolloutStarted { champion, candidates, to, .. } => {
            let candidates: Vec<String> = candidates.iter().map(u64::to_string).collect();
            let said = format!(
                "Rollout of version {} against {champion} started: {}",
                candidates.join(", "),
                shares(to)
            );
            ("rollout", said)
        }
        Event::RolloutMoved { to, .. } => ("rollout", format!("Rollout moved on: {}", shares(to))),
        Event::RolloutPaused { paused: true } => ("rollout", "Rollout paused".to_owned()),
        Event::RolloutPaused { paused: false } => ("rollout", "Rollout resumed".to_owned()),
        Event::RolloutEnded { outcome, champion } => {
            let outcome = outcome.as_str().replace('_', " ");
            ("crowned", format!("Rollout <b>{outcome}</b>: version {champion} is champion"))
        }
        Event::Announced { announced: true } => ("noted", "Announced".to_owned()),
        Event::Announced { announced: false } => ("noted", "No longer announced".to_owned()),
        Event::Noted { version, key, value } => {
            let about =
                version.map_or("Note".to_owned(), |number| format!("Note on version {number}"));
            let value: String = value.as_deref().unwrap_or("taken away").chars().take(80).collect();
            ("noted", format!("{about}: {} = {}", escape(key), escape(&value)))
        }
        Event::StageMoved { version, to, .. } => {
            ("moved", format!("Version {version} is {}", to.as_str()))
        }
    }
}

fn shares(all: &[Share]) -> String {
    let total = all.iter().map(|share| u64::from(share.share)).sum();
    if all.is_empty() {
        return "all to the champion".to_owned();
    }
    let one = |share: &Share| match share.shadow {
        true => format!("version {} as a shadow", share.version),
        false => format!("version {} {}", share.version, percent(share, total)),
    };
    all.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn more(path: &str, next: Option<&str>, said: &str) -> String {
    next.map_or(String::new(), |next| {
        format!("<p><a href=\"{path}?after={}\">{said}</a></p>\n", segment(next))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(event: Event, evidence: Value) -> Record {
        Record {
            sequence: 1,
            time: Timestamp::UNIX_EPOCH,
            model: "m".to_owned(),
            event,
            who: "<ada>".to_owned(),
            reason: "a < b".to_owned(),
            evidence: Some(evidence),
        }
    }

    #[test]
    fn what_people_and_programs_wrote_cannot_become_markup() {
        let event = Event::Noted { version: None, key: "<k>".into(), value: Some("<v>".into()) };
        let plot = "<svg onload=\"alert(1)\"></svg>";
        let evidence = json!({ "plot": plot, "<x>": "<y>", "deep": { "z": "</pre><script>" } });
        let html = record_html(&record(event, evidence));
        for wrong in ["<ada>", "<k>", "<v>", "<x>", "<y>", "<svg", "<script", "onload"] {
            assert!(!html.contains(wrong), "{wrong}: {html}");
        }
        assert!(html.contains("data:image/svg+xml;base64,PHN2Zy"), "{html}");
        assert!(html.contains("a &lt; b"), "{html}");
        // Only a plot is shown as one.
        let html = evidence_html(&json!({ "plot": "javascript:alert(1)" }));
        assert!(!html.contains("<img"), "{html}");
    }

    #[test]
    fn events_are_told_in_words() {
        let split =
            Event::TrafficSplit { from: vec![], to: vec![Share::of(1, 9), Share::of(2, 1)] };
        assert_eq!(told(&split).1, "Traffic split: version 1 90%, version 2 10%");
        let moved = Event::AliasMoved { alias: "champion".into(), from: None, to: Some(2) };
        assert_eq!(told(&moved), ("crowned", "<b>champion</b>: nothing → version 2".to_owned()));
        assert_eq!(shares(&[]), "all to the champion");
    }
}
