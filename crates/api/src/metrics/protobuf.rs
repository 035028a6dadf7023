//! Prometheus's protobuf format, the only one of its formats that carries native histograms:
//! `io.prometheus.client.MetricFamily` messages, each with its length before it.

use prost::Message;
use serving::{Distribution, SCHEMA};

use super::collect::{Family, Series, Value};
use super::table::Kind;

#[derive(Clone, PartialEq, Message)]
struct MetricFamily {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    help: Option<String>,
    /// 0 counter, 1 gauge, 4 histogram.
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<Number>,
    #[prost(message, optional, tag = "3")]
    counter: Option<Number>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
struct LabelPair {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    value: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Number {
    #[prost(double, optional, tag = "1")]
    value: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct Histogram {
    #[prost(uint64, optional, tag = "1")]
    sample_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    sample_sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    bucket: Vec<Bucket>,
    #[prost(sint32, optional, tag = "5")]
    schema: Option<i32>,
    #[prost(double, optional, tag = "6")]
    zero_threshold: Option<f64>,
    #[prost(uint64, optional, tag = "7")]
    zero_count: Option<u64>,
    #[prost(message, repeated, tag = "12")]
    positive_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, packed = "false", tag = "13")]
    positive_delta: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Bucket {
    #[prost(uint64, optional, tag = "1")]
    cumulative_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    upper_bound: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct BucketSpan {
    #[prost(sint32, optional, tag = "1")]
    offset: Option<i32>,
    #[prost(uint32, optional, tag = "2")]
    length: Option<u32>,
}

/// Writes all families.
pub(crate) fn write(families: &[Family<'_>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64 << 10);
    for family in families {
        let of = family.metric;
        let kind = match of.kind {
            Kind::Counter => 0,
            Kind::Gauge | Kind::Info => 1,
            Kind::Histogram => 4,
        };
        let message = MetricFamily {
            name: Some(of.name.into()),
            help: Some(of.help.into()),
            kind: Some(kind),
            metric: family.series.iter().map(|series| metric(family, series)).collect(),
        };
        message.encode_length_delimited(&mut bytes).expect("a vector has room for everything");
    }
    bytes
}

fn metric(family: &Family<'_>, series: &Series<'_>) -> Metric {
    let labels = family.metric.labels.iter().zip(&series.labels);
    let label = labels.map(|(name, value)| LabelPair {
        name: Some((*name).into()),
        value: Some(value.as_ref().into()),
    });
    let mut metric = Metric { label: label.collect(), ..Metric::default() };
    match (&series.value, family.metric.kind) {
        (Value::Distribution(of), _) => metric.histogram = Some(histogram(of)),
        (Value::Number(number), Kind::Counter) => {
            metric.counter = Some(Number { value: Some(*number) });
        }
        (Value::Number(number), _) => metric.gauge = Some(Number { value: Some(*number) }),
    }
    metric
}

fn histogram(of: &Distribution) -> Histogram {
    let bucket = |(bound, count): &(f64, u64)| Bucket {
        cumulative_count: Some(*count),
        upper_bound: Some(*bound),
    };
    let infinite = Bucket { cumulative_count: Some(of.count), upper_bound: Some(f64::INFINITY) };
    let (positive_span, positive_delta) = spans(&of.natives);
    Histogram {
        sample_count: Some(of.count),
        sample_sum: Some(of.sum),
        bucket: of.buckets.iter().map(bucket).chain([infinite]).collect(),
        schema: Some(SCHEMA),
        zero_threshold: Some(of.zero_threshold),
        zero_count: Some(of.zeros),
        positive_span,
        positive_delta,
    }
}

/// Runs of neighbouring buckets, each with how far it is from the end of the one before (the first
/// from bucket 0), and each bucket's count less the count before.
fn spans(buckets: &[(i32, u64)]) -> (Vec<BucketSpan>, Vec<i64>) {
    let (mut spans, mut deltas) = (Vec::<BucketSpan>::new(), Vec::with_capacity(buckets.len()));
    let (mut next, mut before) = (0, 0);
    for (index, count) in buckets {
        match spans.last_mut() {
            Some(BucketSpan { length: Some(length), .. }) if *index == next => *length += 1,
            _ => spans.push(BucketSpan { offset: Some(index - next), length: Some(1) }),
        }
        deltas.push(*count as i64 - before);
        (next, before) = (index + 1, *count as i64);
    }
    (spans, deltas)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_buckets_make_a_span() {
        let (spans, deltas) = spans(&[(-2, 5), (-1, 3), (4, 4)]);
        let spans: Vec<_> = spans.iter().map(|s| (s.offset.unwrap(), s.length.unwrap())).collect();
        assert_eq!(spans, [(-2, 2), (4, 1)]);
        assert_eq!(deltas, [5, -2, 1]);
    }

    #[test]
    fn a_family_is_read_back_as_it_was_written() {
        let labels = vec!["m".into(), "1".into()];
        let series = vec![Series { labels, value: Value::Number(0.0) }];
        let family = Family { metric: &crate::metrics::table::BUSY, series };
        let bytes = write(&[family.clone(), family]);
        let mut rest = &bytes[..];
        for _ in 0..2 {
            let read = MetricFamily::decode_length_delimited(&mut rest).unwrap();
            assert_eq!(read.name.as_deref(), Some("modelyard_instances_busy"));
            assert_eq!(read.metric[0].gauge, Some(Number { value: Some(0.0) }));
            assert_eq!(read.metric[0].label[1].value.as_deref(), Some("1"));
        }
        assert!(rest.is_empty());
    }
}
