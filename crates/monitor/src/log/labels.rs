//! What became known of predictions afterwards, as rows. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use super::files::timestamp;
use super::rules::{MASK, Rules, Treatment};

/// The schema of the labels, as each file names it.
pub const SCHEMA: &str = "modelyard.labels/1";

/// What was said of the answer to a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    /// The model.
    pub model: Arc<str>,
    /// The request's id.
    pub request_id: String,
    /// Tells it from other labels of the request: the same one twice counts once.
    pub feedback_id: String,
    /// What the answer should have been.
    pub known: Option<Known>,
    /// Whether it was right, for those who know that alone.
    pub right: Option<bool>,
    /// Numbers by name.
    pub metrics: BTreeMap<String, f64>,
    /// The version that answered, if whoever says it knows.
    pub version: Option<String>,
    /// When it was said.
    pub received: SystemTime,
}

/// What an answer should have been.
#[derive(Clone, Debug, PartialEq)]
pub enum Known {
    /// A number, the number of a class, or 1 and 0 for what is so and what is not.
    Number(f64),
    /// A class by its name.
    Name(String),
}

impl Known {
    /// As text: numbers as short as they can be read back.
    pub fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Name(name) => name.clone(),
        }
    }
}

/// Labels of one model, as they gather.
#[derive(Default)]
pub struct LabelRows {
    time: TimestampMicrosecondBuilder,
    request_id: StringBuilder,
    feedback_id: StringBuilder,
    label: StringBuilder,
    number: Float64Builder,
    right: BooleanBuilder,
    metrics: StringBuilder,
    version: StringBuilder,
    rows: usize,
}

impl LabelRows {
    /// Adds one. The request's id is treated as in the predictions, so that they can be joined.
    pub fn add(&mut self, label: &Label, rules: &Rules) {
        let id = label.request_id.as_str();
        match (rules.treatment(&label.model, "request_id"), &rules.salt) {
            (Treatment::Keep, _) => self.request_id.append_value(id),
            (Treatment::Mask, _) => self.request_id.append_value(MASK),
            (Treatment::Hash, Some(salt)) => {
                self.request_id.append_value(salt.hash(id.as_bytes()));
            }
            _ => self.request_id.append_null(),
        }
        self.time.append_value(timestamp(label.received).as_microsecond());
        self.feedback_id.append_value(&label.feedback_id);
        self.label.append_option(label.known.as_ref().map(Known::text));
        self.number.append_option(match label.known {
            Some(Known::Number(number)) => Some(number),
            _ => None,
        });
        self.right.append_option(label.right);
        let metrics = (!label.metrics.is_empty()).then(|| serde_json::to_string(&label.metrics));
        self.metrics.append_option(metrics.and_then(Result::ok));
        self.version.append_option(label.version.as_deref());
        self.rows += 1;
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The rows as a table.
    pub fn finish(mut self) -> Result<RecordBatch, ArrowError> {
        let columns: [(&str, ArrayRef); 8] = [
            ("time", Arc::new(self.time.finish().with_timezone("UTC"))),
            ("request_id", Arc::new(self.request_id.finish())),
            ("feedback_id", Arc::new(self.feedback_id.finish())),
            ("label", Arc::new(self.label.finish())),
            ("label_number", Arc::new(self.number.finish())),
            ("right", Arc::new(self.right.finish())),
            ("metrics", Arc::new(self.metrics.finish())),
            ("model_version", Arc::new(self.version.finish())),
        ];
        let field =
            |(name, column): &(&str, ArrayRef)| Field::new(*name, column.data_type().clone(), true);
        let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        RecordBatch::try_new(Arc::new(schema), columns)
    }
}
