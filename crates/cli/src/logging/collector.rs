//! Lines of the log for an OpenTelemetry collector.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value as Json;
use telemetry::Outbox;
use telemetry::messages::{AnyValue, KeyValue, LogRecord, Value};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::lines::{Fields, TraceIds};

/// Logging starts before anybody knows whether there is a collector.
static OUTBOX: OnceLock<Outbox> = OnceLock::new();

/// What is logged from now on is left there too. Only the first call counts.
pub fn send_to(outbox: Outbox) {
    if outbox.takes_logs() {
        let _ = OUTBOX.set(outbox);
    }
}

/// Leaves what is logged in the outbox, once there is one.
pub struct Collector;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Collector {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let Some(outbox) = OUTBOX.get() else { return };
        // What the sender says itself would make it send for ever.
        if std::thread::current().name() == Some(telemetry::THREAD) {
            return;
        }
        let scope = context.event_scope(event).into_iter().flatten();
        let ids = scope.into_iter().find_map(|span| span.extensions().get::<TraceIds>().cloned());
        let mut said = Fields::default();
        event.record(&mut said);
        let metadata = event.metadata();
        outbox.log(record(*metadata.level(), metadata.target(), said, ids.unwrap_or_default()));
    }
}

fn record(level: Level, target: &str, mut said: Fields, ids: TraceIds) -> LogRecord {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_nanos() as u64);
    let body = said.0.remove("message").map(|message| AnyValue { value: Some(value(message)) });
    let mut attributes = vec![KeyValue::new("log.target", target)];
    attributes.extend(said.0.into_iter().map(|(name, said)| KeyValue::new(name, value(said))));
    let severity_number = match level {
        Level::TRACE => 1,
        Level::DEBUG => 5,
        Level::INFO => 9,
        Level::WARN => 13,
        Level::ERROR => 17,
    };
    LogRecord {
        time_unix_nano: now,
        observed_time_unix_nano: now,
        severity_number,
        severity_text: level.as_str().into(),
        body,
        attributes,
        flags: u32::from(!ids.trace.is_empty()),
        trace_id: bytes(&ids.trace),
        span_id: bytes(&ids.span),
    }
}

fn value(json: Json) -> Value {
    match json {
        Json::String(text) => Value::Text(text),
        Json::Bool(value) => Value::Bool(value),
        Json::Number(number) => match number.as_i64() {
            Some(number) => Value::Int(number),
            None => Value::Double(number.as_f64().unwrap_or(f64::NAN)),
        },
        other => Value::Text(other.to_string()),
    }
}

/// Bytes from the hexadecimal digits that [`telemetry::text`] writes.
fn bytes(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks_exact(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(byte).collect::<Option<_>>().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_becomes_a_record_of_its_trace() {
        let mut said = Fields::default();
        said.0.insert("message".into(), "slow".into());
        said.0.insert("rows".into(), 3.into());
        let ids = TraceIds { trace: "0f".repeat(16), span: "a0".repeat(8) };
        let record = record(Level::WARN, "serving", said, ids);
        assert_eq!((record.severity_number, record.severity_text.as_str()), (13, "WARN"));
        assert_eq!((record.trace_id, record.span_id), (vec![0x0f; 16], vec![0xa0; 8]));
        assert_eq!(record.body.unwrap().value, Some(Value::Text("slow".into())));
        assert!(record.attributes.contains(&KeyValue::new("rows", 3_i64)));
    }
}
