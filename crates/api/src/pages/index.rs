//! What is running, as one value that is written as HTML and as JSON.

use std::fmt::Write;
use std::time::Duration;

use model::TensorSpec;
use serde_json::{Value, json};
use serving::{Count, State, Statistics, Status};

use crate::ApiOptions;

/// Everything that the page shows.
pub(crate) struct Overview<'a> {
    options: &'a ApiOptions,
    models: Vec<(&'a Status, Option<&'a Statistics>)>,
}

impl<'a> Overview<'a> {
    /// Puts each version together with its counters.
    pub(crate) fn new(
        options: &'a ApiOptions,
        models: &'a [Status],
        statistics: &'a [Statistics],
    ) -> Self {
        let counters = |status: &Status| {
            statistics.iter().find(|s| s.name == status.name && s.version == status.version)
        };
        Self { options, models: models.iter().map(|m| (m, counters(m))).collect() }
    }

    fn ready(&self) -> bool {
        self.models.iter().all(|(status, _)| status.state.answers())
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "name": self.options.server_name,
            "version": self.options.server_version,
            "ready": self.ready(),
            "models": self.models.iter().map(|(s, c)| model_json(s, *c)).collect::<Vec<_>>(),
            "documentation": "/docs",
            "openapi": "/openapi.json",
            "metadata": "/v2",
        })
    }

    /// For people.
    pub(crate) fn html(&self) -> String {
        let name = escape(&self.options.server_name);
        let version = escape(&self.options.server_version);
        let (class, word) =
            if self.ready() { ("ready", "ready") } else { ("waiting", "not ready") };
        let models = match &self.models[..] {
            [] => "<p class=\"empty\">No model is loaded. Load one with \
                   <code>POST /v2/repository/models/NAME/load</code>.</p>"
                .to_owned(),
            models => models.iter().map(|(s, c)| model_html(s, *c)).collect(),
        };
        include_str!("assets/index.html")
            .replace("{{name}}", &name)
            .replace("{{version}}", &version)
            .replace(
                "{{state}}",
                &format!("<span class=\"pill {class}\" id=\"state\">{word}</span>"),
            )
            // Last, so that no model's name can hold a mark that is then filled in.
            .replace("{{models}}", &models)
    }
}

/// The state's name, and why it is so.
fn state(status: &Status) -> (&'static str, Option<&str>) {
    match &status.state {
        State::Loading => ("loading", None),
        State::Ready => ("ready", None),
        State::OnDemand => ("on demand", None),
        State::Unloading => ("unloading", None),
        State::Unavailable(reason) => ("unavailable", reason.as_deref()),
    }
}

fn model_json(status: &Status, counters: Option<&Statistics>) -> Value {
    let (state, reason) = state(status);
    let mut json = json!({
        "name": &*status.name, "version": &*status.version, "state": state, "reason": reason,
    });
    if let Some(info) = &status.info {
        json["engine"] = info.engine.into();
        json["format"] = info.manifest.format.as_str().into();
        json["digest"] = info.manifest.digest.as_str().into();
        json["size"] = info.manifest.size.into();
        json["inputs"] = json!(info.signature.inputs);
        json["outputs"] = json!(info.signature.outputs);
        json["max_batch_size"] = info.max_batch_size.into();
        json["instances"] = info.settings.instances.into();
        json["threads"] = info.settings.threads.into();
        json["memory"] = info.memory.into();
        json["load_ms"] = (info.load_time.as_secs_f64() * 1e3).into();
    }
    if let Some(counters) = counters {
        json["statistics"] = json!({
            "answered": counters.success.count,
            "failed": counters.fail.count,
            "refused": counters.refused,
            "shadows": {
                "run": counters.shadows.run.count,
                "failed": counters.shadows.failed,
                "dropped": counters.shadows.dropped,
            },
            "rows": counters.inference_count,
            "executions": counters.execution_count,
            "mean_batch": mean_batch(counters),
            "mean_us": micros(&counters.success),
            "queue_mean_us": micros(&counters.queue),
            "compute_mean_us": micros(&counters.compute),
        });
    }
    json
}

/// Rows in an execution, on average; 0 if there was none.
fn mean_batch(counters: &Statistics) -> f64 {
    let mean = counters.inference_count as f64 / counters.execution_count.max(1) as f64;
    (mean * 100.0).round() / 100.0
}

/// The mean time of an event in microseconds; 0 if there was none.
fn micros(count: &Count) -> f64 {
    let mean = count.time.as_secs_f64() * 1e6 / count.count.max(1) as f64;
    (mean * 10.0).round() / 10.0
}

fn model_html(status: &Status, counters: Option<&Statistics>) -> String {
    let (state, reason) = state(status);
    let (name, version) = (escape(&status.name), escape(&status.version));
    let mut html = format!(
        "<article class=\"card\" data-model=\"{name}\" data-version=\"{version}\">\n\
         <header><h2>{name}</h2><span class=\"chip\">version {version}</span>\
         <span class=\"pill {state}\" data-field=\"state\">{state}</span></header>\n"
    );
    // Writing to a string cannot fail.
    if let Some(reason) = reason {
        let _ = writeln!(html, "<p class=\"reason\">{}</p>", escape(reason));
    }
    if let Some(info) = &status.info {
        let tensors = |specs: &[TensorSpec]| specs.iter().map(tensor_html).collect::<String>();
        let batch = match info.max_batch_size {
            0 | 1 => "one request at a time".to_owned(),
            rows => format!("up to {rows} rows"),
        };
        let _ = writeln!(
            html,
            "<dl class=\"signature\"><dt>takes</dt><dd>{}</dd><dt>gives</dt><dd>{}</dd></dl>\n\
             <p class=\"how\">{} on <strong>{}</strong> · {batch} · {} · loaded in {}</p>",
            tensors(&info.signature.inputs),
            tensors(&info.signature.outputs),
            info.manifest.format.as_str().to_uppercase(),
            escape(info.engine),
            size(info.manifest.size),
            time(info.load_time),
        );
    }
    if let Some(counters) = counters {
        let fields = [
            ("answered", "answered", counters.success.count.to_string()),
            ("failed", "failed", counters.fail.count.to_string()),
            ("refused", "refused", counters.refused.to_string()),
            ("mean_batch", "rows a batch", mean_batch(counters).to_string()),
            ("queue_mean_us", "µs queued", micros(&counters.queue).to_string()),
            ("compute_mean_us", "µs computing", micros(&counters.compute).to_string()),
        ];
        html.push_str("<dl class=\"counts\">");
        for (field, label, value) in fields {
            let _ =
                write!(html, "<div><dt>{label}</dt><dd data-field=\"{field}\">{value}</dd></div>");
        }
        html.push_str("</dl>\n");
    }
    html.push_str("</article>\n");
    html
}

fn tensor_html(spec: &TensorSpec) -> String {
    let dims = match &spec.shape {
        Some(dims) => dims.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        None => "…".to_owned(),
    };
    let optional = if spec.optional { " <em>optional</em>" } else { "" };
    format!(
        "<code><b>{}</b> {} <i>[{}]</i>{optional}</code> ",
        escape(&spec.name),
        spec.datatype,
        escape(&dims)
    )
}

pub(super) fn size(bytes: u64) -> String {
    match bytes as f64 {
        n if n < 1e3 => format!("{bytes} bytes"),
        n if n < 1e6 => format!("{:.1} kB", n / 1e3),
        n if n < 1e9 => format!("{:.1} MB", n / 1e6),
        n => format!("{:.2} GB", n / 1e9),
    }
}

fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

/// Text that may stand in HTML's text and in a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::tests::{info, status};
    use model::{DataType, Dimension, Signature};

    fn models() -> Vec<Status> {
        let dims = vec![Dimension::Symbolic("<N>".into()), Dimension::Fixed(3)];
        let input = TensorSpec::new("x<script>", DataType::Fp32, dims);
        let signature = Signature { inputs: vec![input], outputs: Vec::new(), batched: true };
        let mut broken = status(info("{{models}}", "2", signature.clone()));
        broken.state = State::Unavailable(Some("no <engine> runs it".into()));
        broken.info = None;
        vec![status(info("a\"b", "1", signature)), broken]
    }

    #[test]
    fn names_from_a_model_cannot_become_markup() {
        let options = ApiOptions::default();
        let models = models();
        let html = Overview::new(&options, &models, &[]).html();
        assert!(!html.contains("x<script>") && html.contains("x&lt;script&gt;"), "{html}");
        assert!(html.contains("data-model=\"a&quot;b\""), "{html}");
        assert!(html.contains("[&lt;N&gt;, 3]") && html.contains("no &lt;engine&gt;"), "{html}");
        assert_eq!(html.matches("class=\"card\"").count(), 2, "{html}");
    }

    #[test]
    fn json_says_what_runs_and_why_something_does_not() {
        let options = ApiOptions::default();
        let models = models();
        let json = Overview::new(&options, &models, &[]).json();
        assert_eq!(json["ready"], false);
        assert_eq!(json["models"][0]["engine"], "native");
        assert_eq!(json["models"][0]["inputs"][0]["shape"], json!(["<N>", 3]));
        assert_eq!(json["models"][1]["state"], "unavailable");
        assert_eq!(json["models"][1]["reason"], "no <engine> runs it");
    }
}
