//! The same metrics as OpenTelemetry's messages.
//!
//! Names are those of the table with a dot behind the first word and without what Prometheus adds
//! for kinds and units, so that a collector that writes Prometheus's format gives them back.

use std::time::{SystemTime, UNIX_EPOCH};

use serving::{Distribution, SCHEMA};
use telemetry::messages::{
    Buckets, CUMULATIVE, Data, ExponentialHistogram, ExponentialPoint, Gauge, Histogram,
    HistogramPoint, KeyValue, Metric as Message, NumberPoint, Sum,
};

use super::collect::{Facts, Family, Series, Value};
use super::table::{Kind, Metric};

/// How histograms are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Histograms {
    /// Counts between round bounds, which every backend understands.
    Explicit,
    /// Counts between powers of 2^(1/8): finer, and fewer backends understand them.
    Exponential,
}

impl Facts {
    /// Every metric that has a value.
    pub fn otlp(&self, histograms: Histograms) -> Vec<Message> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let start = self.process.started.map_or(0, |seconds| (seconds * 1e9) as u64);
        let times = Times { start, now: now.as_nanos() as u64 };
        self.families().iter().map(|family| message(family, times, histograms)).collect()
    }
}

#[derive(Clone, Copy)]
struct Times {
    start: u64,
    now: u64,
}

/// The name, and the unit by the Unified Code for Units of Measure.
fn name(of: &Metric) -> (String, &'static str) {
    let family = match of.kind {
        Kind::Info => of.name,
        _ => of.family(),
    };
    let (family, unit) = match of.unit() {
        Some(unit) => (family.trim_end_matches(unit).trim_end_matches('_'), unit),
        None => (family, ""),
    };
    let unit = match unit {
        "seconds" => "s",
        "bytes" => "By",
        "ratio" => "1",
        _ => "",
    };
    (family.replacen('_', ".", 1), unit)
}

fn message(family: &Family<'_>, times: Times, histograms: Histograms) -> Message {
    let of = family.metric;
    let (name, unit) = name(of);
    let series = family.series.iter();
    let numbers = || series.clone().filter_map(|series| number(of, series, times)).collect();
    let distributions = series.clone().filter_map(|series| match series.value {
        Value::Distribution(distribution) => Some((attributes(of, series), distribution)),
        Value::Number(_) => None,
    });
    let data = match (of.kind, histograms) {
        (Kind::Counter, _) => Data::Sum(Sum {
            data_points: numbers(),
            aggregation_temporality: CUMULATIVE,
            is_monotonic: true,
        }),
        (Kind::Gauge | Kind::Info, _) => Data::Gauge(Gauge { data_points: numbers() }),
        (Kind::Histogram, Histograms::Explicit) => Data::Histogram(Histogram {
            data_points: distributions.map(|(labels, of)| explicit(labels, of, times)).collect(),
            aggregation_temporality: CUMULATIVE,
        }),
        (Kind::Histogram, Histograms::Exponential) => Data::Exponential(ExponentialHistogram {
            data_points: distributions.map(|(labels, of)| exponential(labels, of, times)).collect(),
            aggregation_temporality: CUMULATIVE,
        }),
    };
    Message { name, description: of.help.into(), unit: unit.into(), data: Some(data) }
}

fn attributes(of: &Metric, series: &Series<'_>) -> Vec<KeyValue> {
    let labels = of.labels.iter().zip(&series.labels);
    // To Prometheus an empty label is none.
    let labels = labels.filter(|(_, value)| !value.is_empty());
    labels.map(|(name, value)| KeyValue::new(*name, value.as_ref())).collect()
}

fn number(of: &Metric, series: &Series<'_>, times: Times) -> Option<NumberPoint> {
    let Value::Number(number) = series.value else { return None };
    Some(NumberPoint {
        start_time_unix_nano: if of.kind == Kind::Counter { times.start } else { 0 },
        time_unix_nano: times.now,
        as_double: Some(number),
        attributes: attributes(of, series),
    })
}

fn explicit(attributes: Vec<KeyValue>, of: &Distribution, times: Times) -> HistogramPoint {
    let mut below = 0;
    let mut bucket_counts: Vec<u64> = Vec::with_capacity(of.buckets.len() + 1);
    for (_, count) in &of.buckets {
        bucket_counts.push(count - below);
        below = *count;
    }
    bucket_counts.push(of.count - below);
    HistogramPoint {
        start_time_unix_nano: times.start,
        time_unix_nano: times.now,
        count: of.count,
        sum: Some(of.sum),
        bucket_counts,
        explicit_bounds: of.buckets.iter().map(|(bound, _)| *bound).collect(),
        attributes,
    }
}

fn exponential(attributes: Vec<KeyValue>, of: &Distribution, times: Times) -> ExponentialPoint {
    let positive = of.natives.first().zip(of.natives.last()).map(|((first, _), (last, _))| {
        let mut bucket_counts = vec![0; (last - first) as usize + 1];
        for (index, count) in &of.natives {
            bucket_counts[(index - first) as usize] = *count;
        }
        // Prometheus numbers buckets by their upper ends, OpenTelemetry by their lower ones.
        Buckets { offset: first - 1, bucket_counts }
    });
    ExponentialPoint {
        attributes,
        start_time_unix_nano: times.start,
        time_unix_nano: times.now,
        count: of.count,
        sum: Some(of.sum),
        scale: SCHEMA,
        zero_count: of.zeros,
        positive,
        zero_threshold: of.zero_threshold,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::table;

    #[test]
    fn names_and_units_are_opentelemetrys() {
        assert_eq!(name(&table::REQUESTS), ("modelyard.requests".into(), ""));
        assert_eq!(name(&table::LATENCY), ("modelyard.request_duration".into(), "s"));
        assert_eq!(name(&table::CPU), ("process.cpu".into(), "s"));
        assert_eq!(name(&table::RESIDENT), ("process.resident_memory".into(), "By"));
        assert_eq!(name(&table::BUILD), ("modelyard.build_info".into(), ""));
    }

    #[test]
    fn both_kinds_of_histograms_have_every_value() {
        let of = Distribution {
            count: 6,
            sum: 3.5,
            buckets: vec![(0.5, 1), (1.0, 4)],
            zeros: 1,
            zero_threshold: 0.001,
            natives: vec![(0, 3), (2, 2)],
        };
        let times = Times { start: 1, now: 2 };
        let point = explicit(Vec::new(), &of, times);
        assert_eq!(point.bucket_counts, [1, 3, 2]);
        let point = exponential(Vec::new(), &of, times);
        let buckets = point.positive.unwrap();
        assert_eq!((buckets.offset, buckets.bucket_counts), (-1, vec![3, 0, 2]));
    }
}
