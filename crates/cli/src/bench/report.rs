//! What a run is reported as: text for people, JSON for programs.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::histogram;
use super::load::{Measured, Plan};
use crate::units;

/// The quantiles that are reported.
const QUANTILES: [(&str, f64); 6] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p95", 0.95),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
];

/// One run: what was asked for and what came of it.
pub struct Report<'a> {
    /// What was loaded, as it is to be shown.
    pub target: String,
    /// Rows in one request, if they are known.
    pub rows: Option<usize>,
    /// What was asked for.
    pub plan: &'a Plan,
    /// What came of it.
    pub measured: &'a Measured,
}

impl Report<'_> {
    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.measured.elapsed.as_secs_f64().max(1e-9)
    }

    fn failed(&self) -> u64 {
        let refused = self.measured.statuses.iter().filter(|(s, _)| !(200..300).contains(*s));
        refused.map(|(_, n)| n).sum::<u64>() + self.measured.broken.values().sum::<u64>()
    }

    /// The part of its threads' time that the generator was busy.
    fn busy(&self) -> f64 {
        let time = (self.measured.elapsed + self.plan.warmup).as_secs_f64();
        self.measured.cpu.as_secs_f64() / (time * self.plan.threads as f64).max(1e-9)
    }

    fn mode(&self) -> String {
        let connections = units::count(self.plan.connections as u64);
        match self.plan.rate {
            None => format!("closed loop, {connections} connections"),
            Some(rate) => {
                format!("open loop, {rate} requests/s (Poisson), up to {connections} connections")
            }
        }
    }

    /// Text for people.
    pub fn text(&self) -> String {
        let Measured { latency, lag, statuses, broken, elapsed, .. } = self.measured;
        let mut text = String::new();
        let answered = self.measured.answered();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}\n{}, {} a request", self.target, self.mode(), {
            units::bytes(self.plan.request.len() as u64)
        });
        let _ = writeln!(
            text,
            "\n  answered  {:>12}   {}/s over {}",
            units::count(answered),
            units::count(self.per_second(answered).round() as u64),
            units::duration(*elapsed),
        );
        if let Some(rows) = self.rows.filter(|rows| *rows > 1) {
            let rows = answered * rows as u64;
            let rate = units::count(self.per_second(rows).round() as u64);
            let _ = writeln!(text, "  rows      {:>12}   {rate}/s", units::count(rows));
        }
        for (status, n) in statuses.iter().filter(|(status, _)| !(200..300).contains(*status)) {
            let _ = writeln!(text, "  failed    {:>12}   HTTP {status}", units::count(*n));
        }
        for (kind, n) in broken {
            let _ = writeln!(text, "  failed    {:>12}   {kind}", units::count(*n));
        }
        if answered > 0 {
            let nanos = |nanos: u64| units::duration(Duration::from_nanos(nanos));
            text.push_str("\n  latency ");
            for (name, quantile) in QUANTILES {
                let _ = write!(text, "  {name} {}", nanos(latency.value_at_quantile(quantile)));
            }
            let _ = writeln!(
                text,
                "\n            mean {}  max {}\n",
                nanos(latency.mean() as u64),
                nanos(latency.max())
            );
            for line in histogram::draw(latency) {
                let _ = writeln!(text, "  {line}");
            }
        }
        let late = Duration::from_nanos(lag.value_at_quantile(0.99));
        if self.plan.rate.is_some() && late > Duration::from_millis(1) {
            let _ = writeln!(
                text,
                "\n  note: 1 % of the requests were sent {} or more after they were due, and that wait is in \
                 their latency: all connections were busy (more --connections would queue in the \
                 server instead), or this machine had no time for the generator.",
                units::duration(late)
            );
        }
        if self.busy() > 0.9 {
            let _ = writeln!(
                text,
                "\n  note: the generator was busy {:.0} % of the time, so it may be what limits these \
                 numbers; give it more --threads.",
                100.0 * self.busy().min(1.0)
            );
        }
        text
    }

    /// JSON for programs. Times are in microseconds unless the name says otherwise.
    pub fn json(&self) -> Value {
        let Measured { latency, lag, statuses, broken, bytes, elapsed, sent, cpu } = self.measured;
        let micros = |nanos: f64| (nanos / 10.0).round() / 100.0;
        let answered = self.measured.answered();
        let mut times = serde_json::Map::new();
        for (name, quantile) in QUANTILES {
            times.insert(name.into(), micros(latency.value_at_quantile(quantile) as f64).into());
        }
        times.insert("min".into(), micros(latency.min() as f64).into());
        times.insert("mean".into(), micros(latency.mean()).into());
        times.insert("max".into(), micros(latency.max() as f64).into());
        times.insert("stdev".into(), micros(latency.stdev()).into());
        json!({
            "target": self.target,
            "mode": if self.plan.rate.is_some() { "open" } else { "closed" },
            "connections": self.plan.connections,
            "threads": self.plan.threads,
            "rate": self.plan.rate,
            "rows": self.rows,
            "request_bytes": self.plan.request.len(),
            "warmup_s": self.plan.warmup.as_secs_f64(),
            "elapsed_s": elapsed.as_secs_f64(),
            "answered": answered,
            "failed": self.failed(),
            "throughput": self.per_second(answered),
            "statuses": statuses,
            "broken": broken,
            "answer_bytes": bytes,
            "latency_us": times,
            "send_lag_p99_us": micros(lag.value_at_quantile(0.99) as f64),
            "generator_cpu_us": micros(cpu.as_nanos() as f64 / (*sent).max(1) as f64),
            "generator_busy": (self.busy() * 1000.0).round() / 1000.0,
        })
    }
}
