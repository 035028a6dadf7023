//! Metrics for CloudWatch in its embedded metric format: lines of the log that CloudWatch makes
//! metrics of. One line for each version that was asked something since the line before.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::ErrorCode;
use serde_json::{Value, json};
use serving::{Measures, SCHEMA, Serving};

/// Writes lines again and again for as long as it runs.
pub async fn write(serving: Serving, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut before = HashMap::new();
    loop {
        ticks.tick().await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut counts = HashMap::new();
        for of in serving.health().measures.iter().filter(|of| !of.version.is_empty()) {
            let key = (of.name.clone(), of.version.clone());
            let count = Count::of(of);
            if let Some(line) = line(of, now, before.get(&key), &count) {
                // In one piece, as the log's own lines are.
                eprintln!("{line}");
            }
            counts.insert(key, count);
        }
        before = counts;
    }
}

/// What has been counted of a version up to a moment.
#[derive(Clone, Debug, Default, PartialEq)]
struct Count {
    answered: u64,
    failed: u64,
    others: u64,
    /// By native bucket; zeros are in the lowest.
    times: HashMap<i32, u64>,
    seconds: f64,
}

impl Count {
    fn of(measures: &Measures) -> Self {
        let mut count = Self::default();
        let to_blame = ErrorCode::TO_BLAME.map(ErrorCode::as_str);
        for (_, code, requests) in &measures.requests {
            match *code {
                "OK" => count.answered += requests,
                code if to_blame.contains(&code) => count.failed += requests,
                _ => count.others += requests,
            }
        }
        for (_, times) in &measures.latency {
            count.seconds += times.sum;
            *count.times.entry(i32::MIN).or_default() += times.zeros;
            for (bucket, requests) in &times.natives {
                *count.times.entry(*bucket).or_default() += requests;
            }
        }
        count
    }

    /// What came since an earlier moment.
    fn since(&self, before: &Self) -> Self {
        let earlier = |bucket: &i32| before.times.get(bucket).copied().unwrap_or(0);
        let times = self.times.iter();
        Self {
            answered: self.answered.saturating_sub(before.answered),
            failed: self.failed.saturating_sub(before.failed),
            others: self.others.saturating_sub(before.others),
            times: times.map(|(b, count)| (*b, count.saturating_sub(earlier(b)))).collect(),
            seconds: (self.seconds - before.seconds).max(0.0),
        }
    }

    /// The time that this part of the answers took at most, in milliseconds.
    fn quantile(&self, part: f64) -> f64 {
        let mut buckets: Vec<_> = self.times.iter().filter(|(_, count)| **count > 0).collect();
        buckets.sort();
        let total: u64 = buckets.iter().map(|(_, count)| **count).sum();
        let rank = ((total as f64 * part).ceil() as u64).max(1);
        let mut below = 0;
        let found = buckets.iter().find(|(_, count)| {
            below += **count;
            below >= rank
        });
        let bound = |bucket: i32| (f64::from(bucket) / f64::from(1 << SCHEMA)).exp2() * 1e3;
        found.map_or(0.0, |(bucket, _)| if **bucket == i32::MIN { 0.0 } else { bound(**bucket) })
    }
}

/// A version's line; `None` if nobody asked it anything.
fn line(of: &Measures, now: Duration, before: Option<&Count>, count: &Count) -> Option<Value> {
    let count = count.since(before.unwrap_or(&Count::default()));
    let requests = count.answered + count.failed + count.others;
    if requests == 0 {
        return None;
    }
    let mut metrics = vec![
        ("Requests", "Count", json!(requests)),
        ("Failures", "Count", json!(count.failed)),
        ("InFlight", "Count", json!(of.in_flight)),
    ];
    if count.answered > 0 {
        let mean = count.seconds * 1e3 / count.answered as f64;
        metrics.extend([
            ("LatencyMean", "Milliseconds", json!(mean)),
            ("LatencyP50", "Milliseconds", json!(count.quantile(0.5))),
            ("LatencyP99", "Milliseconds", json!(count.quantile(0.99))),
        ]);
    }
    let described: Vec<Value> =
        metrics.iter().map(|(name, unit, _)| json!({ "Name": name, "Unit": unit })).collect();
    let mut line = json!({
        "_aws": {
            "Timestamp": now.as_millis() as u64,
            "CloudWatchMetrics": [{
                "Namespace": "Modelyard",
                "Dimensions": [["model", "version"], ["model"]],
                "Metrics": described,
            }],
        },
        "model": dimension(&of.name),
        "version": dimension(&of.version),
    });
    for (name, _, value) in metrics {
        line[name] = value;
    }
    Some(line)
}

/// A text as CloudWatch takes it for a dimension: ASCII, and not too long.
fn dimension(text: &str) -> String {
    text.chars().take(250).map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_about_what_came_since_the_line_before() {
        let times = |count| HashMap::from([(-56, count), (-24, 1)]);
        let before = Count { answered: 10, failed: 1, others: 2, times: times(9), seconds: 1.0 };
        let after = Count { answered: 20, failed: 3, others: 2, times: times(19), seconds: 1.5 };
        let since = after.since(&before);
        assert_eq!((since.answered, since.failed, since.others), (10, 2, 0));
        assert!((since.seconds - 0.5).abs() < 1e-9);
        // 2^-7 s.
        assert!((since.quantile(0.99) - 7.8125).abs() < 1e-9);
        assert!((after.quantile(0.99) - 125.0).abs() < 1e-9);
        assert_eq!(Count::default().quantile(0.5), 0.0);
    }
}
