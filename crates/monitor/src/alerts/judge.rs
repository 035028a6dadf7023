//! What a rule makes of samples: a number for each of its groups.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::rules::{Burn, Rule, matches};
use super::sample::{Buckets, Labels, Sample, Value, part_within, quantile};
use super::window::Window;

/// Bad requests that have to be there before the rate at which a budget is spent is believed.
const LEAST_BAD: f64 = 3.0;

/// What was found for a group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Found {
    /// This number.
    Number(f64),
    /// This number, of a time that was not watched in full: since a start.
    Partly(f64),
    /// Too little to say.
    TooFew,
}

/// Samples by metric.
pub(super) type ByMetric<'a> = BTreeMap<&'a str, Vec<&'a Sample>>;

/// A rule's memory of counters.
#[derive(Clone, Debug, Default)]
pub(super) struct Judge {
    groups: BTreeMap<Labels, Tracks>,
    /// When it was looked the last time.
    looked: Option<Timestamp>,
}

/// The windows of one group: of its metric and of what that is divided by.
#[derive(Clone, Debug)]
struct Tracks {
    own: Vec<Window>,
    per: Vec<Window>,
    /// The upper bounds of a histogram.
    bounds: Vec<f64>,
}

impl Judge {
    /// What each group comes to now; what is wrong with the rule if it cannot be judged.
    pub fn judge(
        &mut self,
        rule: &Rule,
        samples: &ByMetric<'_>,
        now: Timestamp,
    ) -> Result<BTreeMap<Labels, Found>, String> {
        let metric = rule.metric.as_deref().unwrap_or_default();
        let all = grouped(rule, samples.get(metric));
        let (own, per) = match &rule.per {
            Some(per) => (all, Some(grouped(rule, samples.get(per.as_str())))),
            None if rule.part.is_empty() => (all, None),
            None => {
                let mut part = all.clone();
                for samples in part.values_mut() {
                    samples.retain(|sample| matches(&rule.part, &sample.labels));
                }
                (part, Some(all))
            }
        };
        let mut found = BTreeMap::new();
        let mut names: BTreeSet<&Labels> = own.keys().collect();
        // Where nothing of the one was counted yet, it is none of so many.
        names.extend(per.iter().flat_map(|per| per.keys()));
        for labels in names {
            let per = per.as_ref().map(|per| per.get(labels).cloned().unwrap_or_default());
            let own = own.get(labels).cloned().unwrap_or_default();
            if let Some(one) = self.group(rule, labels, (own, per), now)? {
                found.insert(labels.clone(), one);
            }
        }
        self.groups.retain(|labels, _| found.contains_key(labels));
        self.looked = Some(now);
        Ok(found)
    }

    fn group(
        &mut self,
        rule: &Rule,
        labels: &Labels,
        (own, per): (Vec<&Sample>, Option<Vec<&Sample>>),
        now: Timestamp,
    ) -> Result<Option<Found>, String> {
        let metric = rule.metric.as_deref().unwrap_or_default();
        let gauges: Vec<f64> = own.iter().filter_map(|sample| gauge(sample)).collect();
        if !gauges.is_empty() {
            if rule.quantile.is_some() || rule.burn.is_some() || rule.is_ratio() {
                return Err(format!("{metric} is a gauge: it takes a threshold alone"));
            }
            let furthest = if rule.above.is_some() { f64::max } else { f64::min };
            let value = gauges.into_iter().reduce(furthest).unwrap_or(f64::NAN);
            return Ok(Some(if value.is_nan() { Found::TooFew } else { Found::Number(value) }));
        }
        let is_histogram = own.iter().any(|sample| matches!(sample.value, Value::Histogram(_)));
        if is_histogram && rule.quantile.is_none() && rule.burn.is_none() {
            return Err(format!("{metric} is a histogram: the rule needs a `quantile`"));
        }
        if !is_histogram && rule.quantile.is_some() && !own.is_empty() {
            return Err(format!("{metric} is no histogram: it has no quantiles"));
        }
        let lengths: Vec<SignedDuration> = match &rule.burn {
            Some(burn) => vec![burn.long, burn.short],
            None => vec![rule.window()],
        };
        let bounds: Vec<f64> = own.iter().find_map(|sample| bounds(sample)).unwrap_or_default();
        let since = self.looked;
        let windows =
            || lengths.iter().map(|length| Window::new(*length, since)).collect::<Vec<_>>();
        let tracks = self.groups.entry(labels.clone()).or_insert_with(|| Tracks {
            own: windows(),
            per: windows(),
            bounds: bounds.clone(),
        });
        if !bounds.is_empty() {
            tracks.bounds = bounds;
        }
        for window in &mut tracks.own {
            window.take(now, rows(&own));
        }
        for window in &mut tracks.per {
            window.take(now, rows(per.as_deref().unwrap_or_default()));
        }
        Ok(Some(tracks.found(rule, now)))
    }
}

impl Tracks {
    fn found(&self, rule: &Rule, now: Timestamp) -> Found {
        if let Some(burn) = &rule.burn {
            let rates = (0..2).map(|i| self.burnt(burn, i, now));
            // It matters, and it is still so.
            return match rates.collect::<Option<Vec<f64>>>() {
                Some(rates) => {
                    let rate = rates.into_iter().fold(f64::INFINITY, f64::min);
                    if self.is_full(now) { Found::Number(rate) } else { Found::Partly(rate) }
                }
                None => Found::TooFew,
            };
        }
        let number = match (rule.quantile, rule.is_ratio()) {
            (Some(part), _) => {
                let counted = self.histogram(0, now);
                let total = counted.last().map_or(0.0, |(_, count)| *count);
                (total >= rule.least.max(1.0)).then(|| quantile(&counted, part)).flatten()
            }
            (None, true) => {
                let total = self.per[0].first(now);
                (total >= rule.least.max(1.0)).then(|| self.own[0].first(now) / total)
            }
            (None, false) => {
                let total = self.own[0].first(now);
                (total >= rule.least).then_some(total)
            }
        };
        match number {
            Some(number) if self.is_full(now) => Found::Number(number),
            Some(number) => Found::Partly(number),
            None => Found::TooFew,
        }
    }

    /// How many times too fast a budget was spent in the long (0) or the short (1) window.
    fn burnt(&self, burn: &Burn, window: usize, now: Timestamp) -> Option<f64> {
        let (bad, total) = match burn.within {
            Some(bound) => {
                let counted = self.histogram(window, now);
                let total = counted.last().map_or(0.0, |(_, count)| *count);
                let good = part_within(&counted, bound).unwrap_or(1.0);
                ((1.0 - good) * total, total)
            }
            None => (self.own[window].first(now), self.per[window].first(now)),
        };
        if total < 1.0 {
            return None;
        }
        let believed = if bad >= LEAST_BAD || window > 0 { bad } else { 0.0 };
        Some(believed / total / burn.budget)
    }

    /// Whether the shortest window has been watched in full.
    fn is_full(&self, now: Timestamp) -> bool {
        self.own.last().is_none_or(|window| window.is_full(now))
    }

    fn histogram(&self, window: usize, now: Timestamp) -> Buckets {
        let (grown, _) = self.own[window].increase(now);
        self.bounds.iter().copied().zip(grown).collect()
    }
}

/// The samples that count, by the labels that make groups.
fn grouped<'a>(
    rule: &Rule,
    samples: Option<&Vec<&'a Sample>>,
) -> BTreeMap<Labels, Vec<&'a Sample>> {
    let by = rule.by();
    let mut groups: BTreeMap<Labels, Vec<&Sample>> = BTreeMap::new();
    for sample in samples.into_iter().flatten().filter(|s| matches(&rule.only, &s.labels)) {
        // What reached no model or version is nobody's.
        let labels = by.iter().map(|label| {
            let value = sample.labels.get(label).filter(|value| !value.is_empty())?;
            Some((label.clone(), value.clone()))
        });
        if let Some(labels) = labels.collect() {
            groups.entry(labels).or_default().push(sample);
        }
    }
    groups
}

fn gauge(sample: &Sample) -> Option<f64> {
    match sample.value {
        Value::Gauge(value) => Some(value),
        _ => None,
    }
}

fn bounds(sample: &Sample) -> Option<Vec<f64>> {
    match &sample.value {
        Value::Histogram(buckets) => Some(buckets.iter().map(|(bound, _)| *bound).collect()),
        _ => None,
    }
}

fn rows(samples: &[&Sample]) -> Vec<(String, Vec<f64>)> {
    let row = |sample: &&Sample| {
        let counts = match &sample.value {
            Value::Counter(count) => vec![*count],
            Value::Histogram(buckets) => buckets.iter().map(|(_, count)| *count).collect(),
            Value::Gauge(_) => return None,
        };
        Some((format!("{:?}", sample.labels), counts))
    };
    samples.iter().filter_map(row).collect()
}
