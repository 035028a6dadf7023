//! What is promised, for every model or for single ones.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serving::time_bounds;

use crate::Failure;
use crate::config::parse_slo;
use crate::units;

/// The file, unchecked. What a model leaves out is the default's.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Objectives {
    /// Over how many days what may fail is reckoned.
    pub days: u32,
    /// Failures within an alert's longer window that it takes at least: a single one of a few
    /// requests is no trend.
    pub least_failures: u32,
    /// Of every model that has none of its own.
    pub default: Texts,
    /// Of single models.
    pub models: BTreeMap<String, Texts>,
}

/// Objectives as people write them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Texts {
    /// Part of the requests that have to be answered, such as 99.9%.
    pub availability: Option<String>,
    /// Part of the answers that have to come in time, such as p99=250ms.
    pub latency: Option<String>,
}

const AVAILABILITY: &str = "99.9%";
const LATENCY: &str = "p99=250ms";

impl Default for Objectives {
    fn default() -> Self {
        let texts =
            Texts { availability: Some(AVAILABILITY.into()), latency: Some(LATENCY.into()) };
        Self { days: 30, least_failures: 5, default: texts, models: BTreeMap::new() }
    }
}

/// The objectives, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// Over how many days what may fail is reckoned.
    pub days: u32,
    /// How many failures an alert takes at least.
    pub least_failures: u32,
    /// For every model without objectives of its own.
    pub default: Promise,
    /// By model.
    pub models: BTreeMap<String, Promise>,
}

/// What one model promises.
#[derive(Clone, Debug, PartialEq)]
pub struct Promise {
    /// Part of the requests that may fail.
    pub failures: f64,
    /// Part of the answers that may be late.
    pub late: f64,
    /// What is late, in seconds; a bound of the histogram's.
    pub time: f64,
}

impl Objectives {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
        let mut objectives: Self = toml::from_str(&text)
            .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
        let default = Self::default().default;
        objectives.default = objectives.default.or(&default);
        Ok(objectives)
    }

    /// The same as a file.
    pub fn to_toml(&self) -> Result<String, Failure> {
        let mut text = String::from(
            "# days: over how many days what may fail is reckoned.\n\
             # least_failures: an alert takes at least so many, within its longer window.\n\
             # A model's own objectives are in a section of its own:\n\
             # [models.fraud]\n# availability = \"99.95%\"\n# latency = \"p99=50ms\"\n\n",
        );
        text.push_str(&toml::to_string(self)?);
        Ok(text)
    }

    /// Checks every value.
    pub fn check(&self) -> Result<Checked, Failure> {
        if !(1..=90).contains(&self.days) {
            let message = format!("days = {}: expected 1 to 90", self.days);
            return Err(Failure::usage(message));
        }
        let model = |(name, texts): (&String, &Texts)| {
            let promise = texts.clone().or(&self.default).check();
            Ok((name.clone(), promise.map_err(|failure| failure.at(format!("model {name}")))?))
        };
        Ok(Checked {
            days: self.days,
            least_failures: self.least_failures,
            default: self.default.check()?,
            models: self.models.iter().map(model).collect::<Result<_, Failure>>()?,
        })
    }
}

impl Texts {
    fn or(self, default: &Self) -> Self {
        Self {
            availability: self.availability.or_else(|| default.availability.clone()),
            latency: self.latency.or_else(|| default.latency.clone()),
        }
    }

    fn check(&self) -> Result<Promise, Failure> {
        let availability = self.availability.as_deref().unwrap_or(AVAILABILITY);
        let failures = availability
            .strip_suffix('%')
            .and_then(|number| number.trim().parse::<f64>().ok())
            .filter(|percent| (50.0..100.0).contains(percent))
            .map(|percent| (100.0 - percent) / 100.0);
        let failures = failures.ok_or_else(|| {
            let expected = "expected 50% to below 100%, such as 99.9%";
            Failure::usage(format!("availability \"{availability}\": {expected}"))
        })?;
        let latency = self.latency.as_deref().unwrap_or(LATENCY);
        let slo = parse_slo(latency)
            .map_err(|expected| Failure::usage(format!("latency \"{latency}\": {expected}")))?;
        if slo.quantile < 0.5 {
            return Err(Failure::usage(format!("latency \"{latency}\": expected p50 or higher")));
        }
        let time = slo.time.as_secs_f64();
        let bound = time_bounds().iter().copied().find(|bound| (bound / time - 1.0).abs() < 1e-9);
        let bound = bound.ok_or_else(|| {
            let known: Vec<String> = time_bounds().iter().map(|bound| short(*bound)).collect();
            let message = format!(
                "latency \"{latency}\": how many answers are later than that is not counted"
            );
            Failure::usage(message).help(format!("the bounds are {}", known.join(", ")))
        })?;
        Ok(Promise { failures, late: 1.0 - slo.quantile, time: bound })
    }
}

/// A time in seconds as people write it.
pub fn short(seconds: f64) -> String {
    let text = units::duration(Duration::from_secs_f64(seconds));
    let (number, unit) = text.split_once(' ').unwrap_or((&text, ""));
    let number = match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    };
    format!("{number}{unit}").replace('µ', "u")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objectives(availability: &str, latency: &str) -> Objectives {
        let default =
            Texts { availability: Some(availability.into()), latency: Some(latency.into()) };
        Objectives { default, ..Objectives::default() }
    }

    #[track_caller]
    fn check_refused(objectives: Objectives, expected: &str) {
        let failure = format!("{:?}", objectives.check().unwrap_err());
        assert!(failure.contains(expected), "{failure}");
    }

    #[test]
    fn what_a_model_leaves_out_is_the_defaults() {
        let file = "days = 28\n[models.fraud]\nlatency = \"p99.5=50ms\"";
        let mut objectives: Objectives = toml::from_str(file).unwrap();
        objectives.default = Texts::default().or(&Objectives::default().default);
        let checked = objectives.check().unwrap();
        let fraud = &checked.models["fraud"];
        assert!((fraud.failures - 0.001).abs() < 1e-12);
        assert!((fraud.late - 0.005).abs() < 1e-12);
        assert_eq!((checked.days, fraud.time), (28, 0.05));
        assert_eq!(checked.default.time, 0.25);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let text = Objectives::default().to_toml().unwrap();
        let read: Objectives = toml::from_str(&text).unwrap();
        assert_eq!(read.check().unwrap(), Objectives::default().check().unwrap());
    }

    #[test]
    fn what_cannot_be_promised_is_refused() {
        check_refused(objectives("100%", LATENCY), "below 100%");
        check_refused(objectives("99.9", LATENCY), "below 100%");
        check_refused(objectives(AVAILABILITY, "p99=200ms"), "is not counted");
        check_refused(objectives(AVAILABILITY, "p99=200ms"), "100ms, 250ms");
        check_refused(objectives(AVAILABILITY, "fast"), "a promise such as p99=50ms");
        check_refused(Objectives { days: 0, ..Objectives::default() }, "expected 1 to 90");
        assert!(toml::from_str::<Objectives>("[model.fraud]").is_err());
    }

    #[test]
    fn times_are_short() {
        assert_eq!(short(1e-5), "10us");
        assert_eq!(short(0.0025), "2.5ms");
        assert_eq!(short(30.0), "30s");
        assert_eq!(short(0.1), "100ms");
    }
}
