//! The metrics' values, from how the server is doing.

use std::borrow::Cow;

use serving::{Condition, Distribution, Health, Measures};
use telemetry::Signal;

use super::process::Process;
use super::table::*;

/// A metric and its series.
#[derive(Clone, Debug, PartialEq)]
pub struct Family<'a> {
    /// What it is.
    pub metric: &'static Metric,
    /// Its series, which differ in their labels' values.
    pub series: Vec<Series<'a>>,
}

/// One series: a value for each label of the metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Series<'a> {
    /// In the order of the metric's labels.
    pub labels: Vec<Cow<'a, str>>,
    /// What it is now.
    pub value: Value<'a>,
}

/// A series' value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// Of counters, gauges and infos.
    Number(f64),
    /// Of histograms.
    Distribution(&'a Distribution),
}

/// Which version an alias names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alias {
    /// The model.
    pub model: String,
    /// The alias.
    pub alias: String,
    /// The version that it names.
    pub version: String,
}

/// What the metrics are read from.
#[derive(Debug)]
pub struct Facts {
    pub(crate) health: Health,
    pub(crate) aliases: Vec<Alias>,
    pub(crate) process: Process,
    pub(crate) telemetry: Vec<(Signal, &'static str, u64)>,
    pub(crate) server_version: String,
}

/// Families under construction.
#[derive(Default)]
struct Families<'a>(Vec<Family<'a>>);

impl<'a> Families<'a> {
    /// Adds a metric with these series; one without any is left out.
    fn add<L, const N: usize>(
        &mut self,
        metric: &'static Metric,
        series: impl IntoIterator<Item = ([L; N], Value<'a>)>,
    ) where
        L: Into<Cow<'a, str>>,
    {
        debug_assert_eq!(metric.labels.len(), N, "{}", metric.name);
        let series = series.into_iter().map(|(labels, value)| {
            let labels = labels.into_iter().map(Into::into).collect();
            Series { labels, value }
        });
        let series: Vec<Series<'a>> = series.collect();
        if !series.is_empty() {
            self.0.push(Family { metric, series });
        }
    }

    fn number(&mut self, metric: &'static Metric, value: Option<f64>) {
        self.add(metric, value.map(|value| ([""; 0], Value::Number(value))));
    }
}

impl Facts {
    /// The value of every metric that has one, in the order of the table.
    pub fn families(&self) -> Vec<Family<'_>> {
        let mut families = Families::default();
        self.add_measures(&mut families);
        self.add_conditions(&mut families);
        self.add_loads(&mut families);
        self.add_server(&mut families);
        let order = |family: &Family<'_>| METRICS.iter().position(|m| m == family.metric);
        families.0.sort_by_key(order);
        families.0
    }

    fn add_measures<'a>(&'a self, families: &mut Families<'a>) {
        let all = &self.health.measures;
        let requests = all.iter().flat_map(|of| {
            of.requests.iter().map(|(protocol, code, count)| {
                ([&*of.name, &*of.version, protocol.as_str(), code], number(*count))
            })
        });
        families.add(&REQUESTS, requests);
        let latency = all.iter().flat_map(|of| {
            of.latency.iter().map(|(protocol, times)| {
                ([&*of.name, &*of.version, protocol.as_str()], Value::Distribution(times))
            })
        });
        families.add(&LATENCY, latency);
        let mut histogram = |metric, of: fn(&Measures) -> &Option<Distribution>| {
            let series = all.iter().filter_map(|measures| {
                let value = Value::Distribution(of(measures).as_ref()?);
                Some(([&*measures.name, &*measures.version], value))
            });
            families.add(metric, series);
        };
        histogram(&QUEUE, |of| &of.queue);
        histogram(&COMPUTE, |of| &of.compute);
        histogram(&ROWS, |of| &of.rows);
        let versions = || all.iter().filter(|of| !of.version.is_empty());
        let in_flight = versions().map(|of| ([&*of.name, &*of.version], number(of.in_flight)));
        families.add(&IN_FLIGHT, in_flight);
        // A version that has never run was never asked, nor could it refuse.
        let asked = versions().filter(|of| !of.requests.is_empty());
        let rejected = asked.flat_map(|of| {
            of.rejected
                .iter()
                .map(|(reason, count)| ([&*of.name, &*of.version, reason.as_str()], number(*count)))
        });
        families.add(&REJECTED, rejected);
    }

    fn add_conditions<'a>(&'a self, families: &mut Families<'a>) {
        let all = &self.health.conditions;
        let mut gauge = |metric, of: fn(&Condition) -> Option<f64>| {
            let series = all.iter().filter_map(|condition| {
                let value = Value::Number(of(condition)?);
                Some(([&*condition.name, &*condition.version], value))
            });
            families.add(metric, series);
        };
        fn if_loaded(of: &Condition, value: usize) -> Option<f64> {
            (of.instances > 0).then_some(value as f64)
        }
        gauge(&WAITING, |of| if_loaded(of, of.waiting));
        gauge(&INSTANCES, |of| if_loaded(of, of.instances));
        gauge(&BUSY, |of| if_loaded(of, of.busy));
        gauge(&SHARE, |of| Some(of.share));
        gauge(&READY, |of| Some(f64::from(u8::from(of.state.answers()))));
        gauge(&MEMORY, |of| Some(of.memory as f64));
        gauge(&SHADOW_TIME, |of| has_shadows(of).then_some(of.shadows.run.time.as_secs_f64()));
        let shadowing = all.iter().filter(|of| has_shadows(of));
        let shadows = shadowing.flat_map(|of| {
            let shadows = &of.shadows;
            let answered = shadows.run.count.saturating_sub(shadows.failed);
            [("answered", answered), ("failed", shadows.failed), ("dropped", shadows.dropped)]
                .map(|(result, count)| ([&*of.name, &*of.version, result], number(count)))
        });
        families.add(&SHADOWS, shadows);
        let infos = all.iter().filter_map(|of| {
            let info = of.info.as_ref()?;
            let manifest = &info.manifest;
            let format = manifest.format.as_str();
            let labels = [&*of.name, &*of.version, info.engine, format, manifest.digest.as_str()];
            Some((labels, number(1)))
        });
        families.add(&MODEL, infos);
    }

    fn add_loads<'a>(&'a self, families: &mut Families<'a>) {
        let versions = || self.health.measures.iter().filter(|of| !of.version.is_empty());
        let times = versions().filter_map(|of| {
            Some(([&*of.name, &*of.version], Value::Number(of.load_time?.as_secs_f64())))
        });
        families.add(&LOAD_TIME, times);
        let loads = versions().flat_map(|of| {
            [("succeeded", of.loads), ("failed", of.failed_loads)]
                .map(|(result, count)| ([&*of.name, &*of.version, result], number(count)))
        });
        families.add(&LOADS, loads);
    }

    fn add_server<'a>(&'a self, families: &mut Families<'a>) {
        let aliases = self
            .aliases
            .iter()
            .map(|of| ([of.model.as_str(), of.alias.as_str(), of.version.as_str()], number(1)));
        families.add(&ALIAS, aliases);
        let health = &self.health;
        families.number(&SERVER_READY, Some(f64::from(u8::from(health.ready))));
        families.number(&WAITING_FOR_LOADS, Some(health.waiting_for_loads as f64));
        let slo = health
            .slo
            .map(|slo| ([slo.quantile.to_string()], Value::Number(slo.time.as_secs_f64())));
        families.add(&SLO, slo);
        families.number(&DROPPED, Some(health.observations_dropped as f64));
        let telemetry = self.telemetry.iter();
        let telemetry =
            telemetry.map(|(signal, result, count)| ([signal.as_str(), *result], number(*count)));
        families.add(&TELEMETRY, telemetry);
        families.add(&BUILD, [([self.server_version.as_str()], number(1))]);
        let process = &self.process;
        families.number(&CPU, process.cpu_seconds);
        families.number(&RESIDENT, process.resident_bytes);
        families.number(&VIRTUAL, process.virtual_bytes);
        families.number(&OPEN_FILES, process.open_files);
        families.number(&MAX_FILES, process.max_files);
        families.number(&THREADS, process.threads);
        families.number(&STARTED, process.started);
    }
}

fn has_shadows(of: &Condition) -> bool {
    of.shadows != Default::default()
}

fn number(count: u64) -> Value<'static> {
    Value::Number(count as f64)
}
