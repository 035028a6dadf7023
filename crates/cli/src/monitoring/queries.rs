//! PromQL that rules and dashboard have in common.

use api::metrics::bound;
use api::metrics::table::{LATENCY, REQUESTS};
use model::ErrorCode;

/// The codes of failures that the server is to blame for, as a regular expression.
pub fn blamed() -> String {
    ErrorCode::TO_BLAME.map(ErrorCode::as_str).join("|")
}

/// Failures a second that the server is to blame for, by model.
pub fn failures(of: &str, window: &str) -> String {
    let codes = blamed();
    format!("sum by (model) (rate({}{{{of},code=~\"{codes}\"}}[{window}]))", REQUESTS.name)
}

/// Requests a second that were answered, or that the server is to blame for: those that failed by
/// their callers neither help nor hurt.
pub fn attempts(of: &str, window: &str) -> String {
    let codes = blamed();
    format!("sum by (model) (rate({}{{{of},code=~\"OK|{codes}\"}}[{window}]))", REQUESTS.name)
}

/// Part of the requests that failed. Where none did there is no series of failures, and the part is
/// 0; where there were no requests it is not a number, which no alert fires on.
pub fn failed(of: &str, window: &str) -> String {
    let (failures, attempts) = (failures(of, window), attempts(of, window));
    format!("({failures} or 0 * {attempts}) / {attempts}")
}

/// Part of the answers that took longer than a bound.
pub fn late(of: &str, seconds: f64, window: &str) -> String {
    let name = LATENCY.name;
    format!(
        "1 - sum by (model) (rate({name}_bucket{{{of},le=\"{}\"}}[{window}])) \
         / sum by (model) (rate({name}_count{{{of}}}[{window}]))",
        bound(seconds)
    )
}

/// A string of PromQL.
pub fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A text as part of a regular expression.
pub fn literally(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if "\\.+*?()|[]{}^$".contains(character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}
