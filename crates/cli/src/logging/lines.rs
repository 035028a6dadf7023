//! One JSON object a line, with the trace that it belongs to.

use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// The ids of the request that something happened in, in hexadecimal digits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TraceIds {
    pub trace: String,
    pub span: String,
}

/// Keeps the ids of spans that have some, for whoever writes what happens inside them.
pub struct Ids;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Ids {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let mut take = |name| match fields.0.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        if let (Some(trace), Some(span)) = (take("trace_id"), take("span_id"))
            && let Some(reference) = context.span(id)
        {
            reference.extensions_mut().insert(TraceIds { trace, span });
        }
    }
}

/// What an event says, by name.
#[derive(Default)]
pub struct Fields(pub Map<String, Value>);

impl Fields {
    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().trim_start_matches("r#").to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }
}

/// Which keys are used.
#[derive(Clone, Debug)]
pub enum Shape {
    /// `timestamp`, `level`, `message`, `target`, `trace_id`, `span_id`.
    Plain,
    /// Those of Google Cloud's structured logging; traces are the project's if it is known.
    Google { project: Option<String> },
}

impl Shape {
    /// Google's, of the project that the environment names.
    pub fn google() -> Self {
        Self::Google { project: std::env::var("GOOGLE_CLOUD_PROJECT").ok() }
    }

    fn object(&self, level: Level, target: &str, said: Fields, ids: Option<&TraceIds>) -> Value {
        let now = Timestamp::now().to_string();
        let mut object = Map::new();
        let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
        match self {
            Self::Plain => {
                put("timestamp", now.into());
                put("level", level.as_str().into());
                if let Some(ids) = ids {
                    put("trace_id", ids.trace.clone().into());
                    put("span_id", ids.span.clone().into());
                }
            }
            Self::Google { project } => {
                put("time", now.into());
                put("severity", severity(level).into());
                if let Some(ids) = ids {
                    let trace = match project {
                        Some(project) => format!("projects/{project}/traces/{}", ids.trace),
                        None => ids.trace.clone(),
                    };
                    put("logging.googleapis.com/trace", trace.into());
                    put("logging.googleapis.com/spanId", ids.span.clone().into());
                    put("logging.googleapis.com/trace_sampled", true.into());
                }
            }
        }
        for (name, value) in said.0 {
            object.entry(name).or_insert(value);
        }
        object.entry("target").or_insert_with(|| target.into());
        object.into()
    }
}

/// The severity as Google Cloud names it.
fn severity(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        Level::DEBUG | Level::TRACE => "DEBUG",
    }
}

/// Writes events in a shape.
pub struct Lines(pub Shape);

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut said = Fields::default();
        event.record(&mut said);
        let scope = context.event_scope().into_iter().flatten();
        let ids = scope.into_iter().find_map(|span| span.extensions().get::<TraceIds>().cloned());
        let metadata = event.metadata();
        let object = self.0.object(*metadata.level(), metadata.target(), said, ids.as_ref());
        writeln!(writer, "{object}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said() -> Fields {
        let mut fields = Map::new();
        fields.insert("message".into(), "hi\n\"there\"".into());
        fields.insert("memory".into(), 7.into());
        Fields(fields)
    }

    fn ids() -> TraceIds {
        TraceIds { trace: "ab".repeat(16), span: "cd".repeat(8) }
    }

    #[test]
    fn a_line_has_the_trace_that_it_belongs_to() {
        let object = Shape::Plain.object(Level::WARN, "serving", said(), Some(&ids()));
        assert_eq!(object["level"], "WARN");
        assert_eq!(object["trace_id"], "ab".repeat(16));
        assert_eq!(object["span_id"], "cd".repeat(8));
        assert_eq!((&object["memory"], &object["target"]), (&7.into(), &"serving".into()));
        assert!(!object.to_string().contains('\n'));
        let outside = Shape::Plain.object(Level::INFO, "serving", said(), None);
        assert_eq!(outside.get("trace_id"), None);
    }

    #[test]
    fn google_gets_its_own_names() {
        let shape = Shape::Google { project: Some("mine".into()) };
        let object = shape.object(Level::WARN, "serving", said(), Some(&ids()));
        assert_eq!(object["severity"], "WARNING");
        let trace = format!("projects/mine/traces/{}", "ab".repeat(16));
        assert_eq!(object["logging.googleapis.com/trace"], trace);
        assert_eq!(object["logging.googleapis.com/spanId"], "cd".repeat(8));
        assert_eq!(object["logging.googleapis.com/trace_sampled"], true);
        assert!(object["time"].as_str().unwrap().ends_with('Z'));
    }
}
