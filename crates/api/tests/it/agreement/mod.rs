//! One table of scenarios, each run through every form of a protocol, REST and gRPC: they have to
//! agree on the status, on the message to the letter, and on the answer.

mod tfs;
mod tfs_forms;
mod v2;
mod v2_forms;

use api::{TABLE, grpc_code};
use model::ErrorCode;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::support::Answer;

/// What came of a request, in words that do not depend on how it was sent.
type Outcome = String;

/// A request and what comes of it.
struct Scenario<Sketch, Form> {
    name: &'static str,
    sketch: Sketch,
    /// What every form gets.
    all: Outcome,
    /// What some forms get instead, because they say the request itself otherwise.
    but: Vec<(Form, Outcome)>,
}

fn scenario<Sketch, Form>(
    name: &'static str,
    sketch: Sketch,
    all: impl Into<Outcome>,
) -> Scenario<Sketch, Form> {
    Scenario { name, sketch, all: all.into(), but: Vec::new() }
}

impl<Sketch, Form: Copy + PartialEq> Scenario<Sketch, Form> {
    fn but(mut self, forms: &[Form], expected: impl Into<Outcome>) -> Self {
        let expected = expected.into();
        self.but.extend(forms.iter().map(|form| (*form, expected.clone())));
        self
    }

    fn expected(&self, form: &Form) -> &str {
        let own = self.but.iter().find(|(other, _)| other == form);
        own.map_or(&self.all, |(_, expected)| expected)
    }
}

fn invalid(message: &str) -> Outcome {
    format!("INVALID_ARGUMENT: {message}")
}

/// What the outcome of a message in a stream starts with.
const STREAM: &str = "STREAM ";

/// Collects what did not come as expected.
#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn compare(&mut self, name: &str, form: impl std::fmt::Debug, seen: &str, expected: &str) {
        // A message of a stream has neither a code nor metadata.
        if let Some(seen) = seen.strip_prefix(STREAM) {
            let start = if expected.starts_with("version ") { "; " } else { ": " };
            let expected = expected.split_once(start).unwrap().1;
            if seen != expected {
                self.0.push(format!("{name}, {form:?}:\n  expected {expected}\n  got      {seen}"));
            }
            return;
        }
        // HTTP has one status for two codes.
        let is_rest = seen.starts_with("HTTP ");
        let seen = seen.trim_start_matches("HTTP ");
        let same_status = |text: &str| match is_rest {
            true => text.replacen("FAILED_PRECONDITION", "INVALID_ARGUMENT", 1),
            false => text.to_owned(),
        };
        if same_status(seen) != same_status(expected) {
            self.0.push(format!("{name}, {form:?}:\n  expected {expected}\n  got      {seen}"));
        }
    }

    #[track_caller]
    fn none(self) {
        assert!(self.0.is_empty(), "{} differences:\n{}", self.0.len(), self.0.join("\n"));
    }
}

/// A REST error as an outcome.
fn rest_refusal(answer: &Answer) -> Outcome {
    let row = TABLE.iter().find(|row| row.1 == answer.status);
    let code = row.map_or(answer.status.to_string(), |row| row.0.to_string());
    let message = answer.error();
    // Where in the JSON it is means nothing to a caller who sends none.
    let place = message.find(" (at byte ").filter(|_| message.ends_with(" of the JSON)"));
    let message = &message[..place.unwrap_or(message.len())];
    format!("HTTP {}", refusal(&code, answer.header("retry-after"), message))
}

/// A gRPC status as an outcome.
fn grpc_refusal(status: &Status) -> Outcome {
    let codes: Vec<ErrorCode> = TABLE.iter().map(|row| row.0).collect();
    let code = codes.into_iter().find(|code| grpc_code(*code) == status.code());
    let code = code.map_or(format!("{:?}", status.code()), |code| code.to_string());
    let retry = status.metadata().get("retry-after").map(|value| value.to_str().unwrap());
    refusal(&code, retry, status.message())
}

fn refusal(code: &str, retry_after: Option<&str>, message: &str) -> Outcome {
    let retry = retry_after.map_or(String::new(), |seconds| format!(" (again in {seconds} s)"));
    format!("{code}{retry}: {message}")
}

/// What an answer says beside its outputs: the same names as headers and as metadata.
fn rest_metadata(answer: &Answer) -> String {
    described(|name| answer.header(name).map(str::to_owned))
}

fn grpc_metadata(metadata: &MetadataMap) -> String {
    described(|name| metadata.get(name).map(|value| value.to_str().unwrap().to_owned()))
}

fn described(value: impl Fn(&str) -> Option<String>) -> String {
    for name in ["modelyard-queue-us", "modelyard-compute-us"] {
        let time = value(name).and_then(|text| text.parse::<u64>().ok());
        assert!(time.is_some(), "{name}: {:?}", value(name));
    }
    let said = |name: &str| value(name).unwrap_or_else(|| "nothing".into());
    format!("version {}, {} rows", said("modelyard-version"), said("modelyard-batch-size"))
}
