//! Prometheus's text format 0.0.4, and OpenMetrics 1.0.

use std::fmt::Write;

use serving::Distribution;

use super::collect::{Family, Series, Value};
use super::table::{Kind, Metric};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Prometheus,
    OpenMetrics,
}

/// Writes all families.
pub(crate) fn write(families: &[Family<'_>], dialect: Dialect) -> String {
    let mut text = String::with_capacity(64 << 10);
    for family in families {
        let mut writer = Writer { text: &mut text, dialect, metric: family.metric };
        writer.head();
        for series in &family.series {
            writer.series(series);
        }
    }
    if dialect == Dialect::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

struct Writer<'a> {
    text: &'a mut String,
    dialect: Dialect,
    metric: &'static Metric,
}

impl Writer<'_> {
    fn head(&mut self) {
        let metric = self.metric;
        let (name, kind) = match (self.dialect, metric.kind) {
            (Dialect::OpenMetrics, kind) => (metric.family(), kind.as_str()),
            (Dialect::Prometheus, Kind::Info) => (metric.name, "gauge"),
            (Dialect::Prometheus, kind) => (metric.name, kind.as_str()),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "# TYPE {name} {kind}");
        if let (Dialect::OpenMetrics, Some(unit)) = (self.dialect, metric.unit()) {
            let _ = writeln!(self.text, "# UNIT {name} {unit}");
        }
        let _ = write!(self.text, "# HELP {name} ");
        escape(self.text, metric.help, self.dialect == Dialect::OpenMetrics);
        self.text.push('\n');
    }

    fn series(&mut self, series: &Series<'_>) {
        match series.value {
            Value::Number(number) => self.line("", series, None, number),
            Value::Distribution(distribution) => self.distribution(series, distribution),
        }
    }

    fn distribution(&mut self, series: &Series<'_>, of: &Distribution) {
        for (bound, count) in &of.buckets {
            self.line("_bucket", series, Some(*bound), *count as f64);
        }
        self.line("_bucket", series, Some(f64::INFINITY), of.count as f64);
        self.line("_sum", series, None, of.sum);
        self.line("_count", series, None, of.count as f64);
    }

    fn line(&mut self, suffix: &str, series: &Series<'_>, bound: Option<f64>, value: f64) {
        let text = &mut *self.text;
        text.push_str(self.metric.name);
        text.push_str(suffix);
        let mut before = '{';
        for (name, value) in self.metric.labels.iter().zip(&series.labels) {
            text.push(before);
            text.push_str(name);
            text.push_str("=\"");
            escape(text, value, true);
            text.push('"');
            before = ',';
        }
        if let Some(bound) = bound {
            text.push(before);
            text.push_str("le=\"");
            text.push_str(&self::bound(bound));
            text.push('"');
            before = ',';
        }
        text.push_str(if before == ',' { "} " } else { " " });
        let _ = writeln!(text, "{value}");
    }
}

/// The label `le` of a bucket, written as Prometheus itself does for the formats that carry numbers,
/// so that it is the same whichever was negotiated.
pub fn bound(bound: f64) -> String {
    if bound.is_infinite() {
        return "+Inf".into();
    }
    if bound >= 1e-4 {
        return format!("{bound:?}");
    }
    let scientific = format!("{bound:e}");
    let (digits, exponent) = scientific.split_once("e-").unwrap_or((&scientific, "0"));
    format!("{digits}e-{exponent:0>2}")
}

/// A label's value, or what a metric means, where quotes need not be escaped in the older format.
fn escape(text: &mut String, value: &str, quotes: bool) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quotes => text.push_str("\\\""),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::table;

    fn number<'a>(metric: &'static Metric, labels: &[&'a str], value: f64) -> Family<'a> {
        let labels = labels.iter().map(|label| (*label).into()).collect();
        Family { metric, series: vec![Series { labels, value: Value::Number(value) }] }
    }

    fn last_line(text: &str) -> &str {
        text.lines().rfind(|line| !line.starts_with('#')).unwrap()
    }

    #[test]
    fn labels_are_escaped() {
        let labels = ["a\\b", "say \"hi\"\n", "ü{}=,"];
        let text = write(&[number(&table::ALIAS, &labels, 1.0)], Dialect::Prometheus);
        assert_eq!(
            last_line(&text),
            r#"modelyard_alias_info{model="a\\b",alias="say \"hi\"\n",version="ü{}=,"} 1"#
        );
    }

    #[test]
    fn the_two_dialects_name_families_differently() {
        let families = [number(&table::CPU, &[], 1.5), number(&table::BUILD, &["1.2"], 1.0)];
        assert_eq!(
            write(&families, Dialect::Prometheus),
            "# TYPE process_cpu_seconds_total counter\n\
             # HELP process_cpu_seconds_total CPU time that the process has used.\n\
             process_cpu_seconds_total 1.5\n\
             # TYPE modelyard_build_info gauge\n\
             # HELP modelyard_build_info The version of this server.\n\
             modelyard_build_info{version=\"1.2\"} 1\n"
        );
        assert_eq!(
            write(&families, Dialect::OpenMetrics),
            "# TYPE process_cpu_seconds counter\n\
             # UNIT process_cpu_seconds seconds\n\
             # HELP process_cpu_seconds CPU time that the process has used.\n\
             process_cpu_seconds_total 1.5\n\
             # TYPE modelyard_build info\n\
             # HELP modelyard_build The version of this server.\n\
             modelyard_build_info{version=\"1.2\"} 1\n\
             # EOF\n"
        );
    }

    #[test]
    fn a_histogram_has_buckets_up_to_infinity() {
        let buckets = vec![(1.0, 2), (2.5, 3)];
        let distribution = Distribution { count: 4, sum: 9.5, buckets, ..Default::default() };
        let labels = vec!["m".into(), "1".into()];
        let series = vec![Series { labels, value: Value::Distribution(&distribution) }];
        let family = Family { metric: &table::ROWS, series };
        let text = write(&[family], Dialect::Prometheus);
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                r#"modelyard_batch_rows_bucket{model="m",version="1",le="1.0"} 2"#,
                r#"modelyard_batch_rows_bucket{model="m",version="1",le="2.5"} 3"#,
                r#"modelyard_batch_rows_bucket{model="m",version="1",le="+Inf"} 4"#,
                r#"modelyard_batch_rows_sum{model="m",version="1"} 9.5"#,
                r#"modelyard_batch_rows_count{model="m",version="1"} 4"#,
            ]
        );
    }

    #[test]
    fn bounds_are_written_as_prometheus_writes_them() {
        assert_eq!(bound(1e-5), "1e-05");
        assert_eq!(bound(2.5e-5), "2.5e-05");
        assert_eq!(bound(1e-4), "0.0001");
        assert_eq!(bound(30.0), "30.0");
        assert_eq!(bound(4096.0), "4096.0");
    }
}
