//! The messages of OTLP 1 that are sent, by hand: the official crate brings the whole SDK with it.
//!
//! Numbers and types are those of `opentelemetry/proto/{common,resource,trace,metrics,logs}/v1`.
//! What is never sent is left out.

use prost::Message;

/// What an attribute says.
#[derive(Clone, PartialEq, Message)]
pub struct AnyValue {
    /// One of several types.
    #[prost(oneof = "Value", tags = "1, 2, 3, 4")]
    pub value: Option<Value>,
}

/// The types of attributes.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Value {
    /// A text.
    #[prost(string, tag = "1")]
    Text(String),
    /// True or false.
    #[prost(bool, tag = "2")]
    Bool(bool),
    /// A whole number.
    #[prost(int64, tag = "3")]
    Int(i64),
    /// Any number.
    #[prost(double, tag = "4")]
    Double(f64),
}

/// An attribute.
#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    /// Its name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// What it says.
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

impl KeyValue {
    /// An attribute.
    pub fn new(key: impl Into<String>, value: impl Into<Value>) -> Self {
        Self { key: key.into(), value: Some(AnyValue { value: Some(value.into()) }) }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Double(number)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

/// Whose telemetry it is.
#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    /// What is known of it.
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
}

/// What made the telemetry.
#[derive(Clone, PartialEq, Message)]
pub struct Scope {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its version.
    #[prost(string, tag = "2")]
    pub version: String,
}

/// Part of a trace.
#[derive(Clone, PartialEq, Message)]
pub struct Span {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    /// 8 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    /// What came with the caller's context.
    #[prost(string, tag = "3")]
    pub trace_state: String,
    /// 8 bytes; empty at the root.
    #[prost(bytes = "vec", tag = "4")]
    pub parent_span_id: Vec<u8>,
    /// What was done.
    #[prost(string, tag = "5")]
    pub name: String,
    /// 1 internal, 2 server.
    #[prost(int32, tag = "6")]
    pub kind: i32,
    /// When it began, in nanoseconds since 1970.
    #[prost(fixed64, tag = "7")]
    pub start_time_unix_nano: u64,
    /// When it ended.
    #[prost(fixed64, tag = "8")]
    pub end_time_unix_nano: u64,
    /// What is known of it.
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<KeyValue>,
    /// How it ended.
    #[prost(message, optional, tag = "15")]
    pub status: Option<Status>,
    /// The lowest byte is the context's flags.
    #[prost(fixed32, tag = "16")]
    pub flags: u32,
}

/// How a span ended.
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    /// Why.
    #[prost(string, tag = "2")]
    pub message: String,
    /// 2 for an error.
    #[prost(int32, tag = "3")]
    pub code: i32,
}

/// A metric.
#[derive(Clone, PartialEq, Message)]
pub struct Metric {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What it means.
    #[prost(string, tag = "2")]
    pub description: String,
    /// By the Unified Code for Units of Measure.
    #[prost(string, tag = "3")]
    pub unit: String,
    /// Its points.
    #[prost(oneof = "Data", tags = "5, 7, 9, 10")]
    pub data: Option<Data>,
}

/// The points of a metric.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Data {
    /// What rises and falls.
    #[prost(message, tag = "5")]
    Gauge(Gauge),
    /// What only rises.
    #[prost(message, tag = "7")]
    Sum(Sum),
    /// Counts between bounds.
    #[prost(message, tag = "9")]
    Histogram(Histogram),
    /// Counts between powers.
    #[prost(message, tag = "10")]
    Exponential(ExponentialHistogram),
}

/// What rises and falls.
#[derive(Clone, PartialEq, Message)]
pub struct Gauge {
    /// One for each set of attributes.
    #[prost(message, repeated, tag = "1")]
    pub data_points: Vec<NumberPoint>,
}

/// Since the process was started.
pub const CUMULATIVE: i32 = 2;

/// What only rises.
#[derive(Clone, PartialEq, Message)]
pub struct Sum {
    /// One for each set of attributes.
    #[prost(message, repeated, tag = "1")]
    pub data_points: Vec<NumberPoint>,
    /// [`CUMULATIVE`].
    #[prost(int32, tag = "2")]
    pub aggregation_temporality: i32,
    /// Whether it only rises.
    #[prost(bool, tag = "3")]
    pub is_monotonic: bool,
}

/// A number at a time.
#[derive(Clone, PartialEq, Message)]
pub struct NumberPoint {
    /// Since when.
    #[prost(fixed64, tag = "2")]
    pub start_time_unix_nano: u64,
    /// When.
    #[prost(fixed64, tag = "3")]
    pub time_unix_nano: u64,
    /// The number.
    #[prost(double, optional, tag = "4")]
    pub as_double: Option<f64>,
    /// By what it is told apart.
    #[prost(message, repeated, tag = "7")]
    pub attributes: Vec<KeyValue>,
}

/// Counts between bounds.
#[derive(Clone, PartialEq, Message)]
pub struct Histogram {
    /// One for each set of attributes.
    #[prost(message, repeated, tag = "1")]
    pub data_points: Vec<HistogramPoint>,
    /// [`CUMULATIVE`].
    #[prost(int32, tag = "2")]
    pub aggregation_temporality: i32,
}

/// Counts between bounds at a time.
#[derive(Clone, PartialEq, Message)]
pub struct HistogramPoint {
    /// Since when.
    #[prost(fixed64, tag = "2")]
    pub start_time_unix_nano: u64,
    /// When.
    #[prost(fixed64, tag = "3")]
    pub time_unix_nano: u64,
    /// How many values.
    #[prost(fixed64, tag = "4")]
    pub count: u64,
    /// Their sum.
    #[prost(double, optional, tag = "5")]
    pub sum: Option<f64>,
    /// One more than there are bounds.
    #[prost(fixed64, repeated, tag = "6")]
    pub bucket_counts: Vec<u64>,
    /// Upper bounds, inclusive.
    #[prost(double, repeated, tag = "7")]
    pub explicit_bounds: Vec<f64>,
    /// By what it is told apart.
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<KeyValue>,
}

/// Counts between powers.
#[derive(Clone, PartialEq, Message)]
pub struct ExponentialHistogram {
    /// One for each set of attributes.
    #[prost(message, repeated, tag = "1")]
    pub data_points: Vec<ExponentialPoint>,
    /// [`CUMULATIVE`].
    #[prost(int32, tag = "2")]
    pub aggregation_temporality: i32,
}

/// Counts between powers at a time.
#[derive(Clone, PartialEq, Message)]
pub struct ExponentialPoint {
    /// By what it is told apart.
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
    /// Since when.
    #[prost(fixed64, tag = "2")]
    pub start_time_unix_nano: u64,
    /// When.
    #[prost(fixed64, tag = "3")]
    pub time_unix_nano: u64,
    /// How many values.
    #[prost(fixed64, tag = "4")]
    pub count: u64,
    /// Their sum.
    #[prost(double, optional, tag = "5")]
    pub sum: Option<f64>,
    /// 2^scale buckets to a factor of two.
    #[prost(sint32, tag = "6")]
    pub scale: i32,
    /// Values that are not above the threshold.
    #[prost(fixed64, tag = "7")]
    pub zero_count: u64,
    /// The others.
    #[prost(message, optional, tag = "8")]
    pub positive: Option<Buckets>,
    /// What counts as zero.
    #[prost(double, tag = "14")]
    pub zero_threshold: f64,
}

/// Neighbouring buckets: number i is above 2^(i / 2^scale) and not above 2^((i + 1) / 2^scale).
#[derive(Clone, PartialEq, Message)]
pub struct Buckets {
    /// The number of the first.
    #[prost(sint32, tag = "1")]
    pub offset: i32,
    /// Counts from there on.
    #[prost(uint64, repeated, tag = "2")]
    pub bucket_counts: Vec<u64>,
}

/// A line of a log.
#[derive(Clone, PartialEq, Message)]
pub struct LogRecord {
    /// When it happened.
    #[prost(fixed64, tag = "1")]
    pub time_unix_nano: u64,
    /// 1 trace, 5 debug, 9 info, 13 warning, 17 error.
    #[prost(int32, tag = "2")]
    pub severity_number: i32,
    /// The same in letters.
    #[prost(string, tag = "3")]
    pub severity_text: String,
    /// What is said.
    #[prost(message, optional, tag = "5")]
    pub body: Option<AnyValue>,
    /// What is said beside.
    #[prost(message, repeated, tag = "6")]
    pub attributes: Vec<KeyValue>,
    /// The context's flags.
    #[prost(fixed32, tag = "8")]
    pub flags: u32,
    /// Empty outside of traces.
    #[prost(bytes = "vec", tag = "9")]
    pub trace_id: Vec<u8>,
    /// Empty outside of traces.
    #[prost(bytes = "vec", tag = "10")]
    pub span_id: Vec<u8>,
    /// When it was seen.
    #[prost(fixed64, tag = "11")]
    pub observed_time_unix_nano: u64,
}

macro_rules! envelopes {
    ($($(#[$doc:meta])* $request:ident, $of_resource:ident, $of_scope:ident, $item:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Message)]
        pub struct $request {
            /// By resource.
            #[prost(message, repeated, tag = "1")]
            pub resources: Vec<$of_resource>,
        }

        /// What one resource has to say.
        #[derive(Clone, PartialEq, Message)]
        pub struct $of_resource {
            /// Who it is.
            #[prost(message, optional, tag = "1")]
            pub resource: Option<Resource>,
            /// By scope.
            #[prost(message, repeated, tag = "2")]
            pub scopes: Vec<$of_scope>,
        }

        /// What one scope has to say.
        #[derive(Clone, PartialEq, Message)]
        pub struct $of_scope {
            /// Who it is.
            #[prost(message, optional, tag = "1")]
            pub scope: Option<Scope>,
            /// What it says.
            #[prost(message, repeated, tag = "2")]
            pub items: Vec<$item>,
        }

        impl $request {
            /// What is said by one scope of one resource.
            pub fn new(resource: Resource, scope: Scope, items: Vec<$item>) -> Self {
                let scopes = vec![$of_scope { scope: Some(scope), items }];
                Self { resources: vec![$of_resource { resource: Some(resource), scopes }] }
            }
        }
    )*};
}

envelopes! {
    /// What `TraceService/Export` takes.
    ExportTraces, ResourceSpans, ScopeSpans, Span;
    /// What `MetricsService/Export` takes.
    ExportMetrics, ResourceMetrics, ScopeMetrics, Metric;
    /// What `LogsService/Export` takes.
    ExportLogs, ResourceLogs, ScopeLogs, LogRecord;
}

/// What all three services answer, as far as it matters.
#[derive(Clone, PartialEq, Message)]
pub struct Exported {
    /// What was not taken.
    #[prost(message, optional, tag = "1")]
    pub partial_success: Option<PartialSuccess>,
}

/// What was not taken.
#[derive(Clone, PartialEq, Message)]
pub struct PartialSuccess {
    /// How many.
    #[prost(int64, tag = "1")]
    pub rejected: i64,
    /// Why.
    #[prost(string, tag = "2")]
    pub error_message: String,
}
