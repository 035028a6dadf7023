//! What is to be logged: flags over file over defaults, raw → checked.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use monitor::log::files::Keep;
use monitor::log::{ModelRules, Options, Pattern, Rules, Salt, Treatment};

use super::Settings;
use crate::Failure;
use crate::config::parse_size;
use crate::units::parse_duration;

/// What can be said of the log by a flag, an environment variable, or the file's section
/// `[prediction-log]`. `None` is silence.
#[derive(Clone, Debug, Default, clap::Args, serde::Deserialize)]
#[command(next_help_heading = "Prediction log")]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct RawLog {
    /// Log every prediction as Parquet: FOLDER, or s3://BUCKET/PREFIX, gs://…, az://…
    #[arg(id = "log-location", long = "prediction-log", value_name = "FOLDER|URL")]
    pub location: Option<String>,
    /// The part of predictions to log, from 0 to 1; those that fail or are slow are always logged
    /// [default: 1]
    #[arg(id = "log-sample", long = "prediction-log-sample", value_name = "PART")]
    pub sample: Option<f64>,
    /// What is slow, and always logged [default: the time of --slo, or 1s]
    #[arg(id = "log-slow", long = "prediction-log-slow", value_name = "TIME")]
    pub slow: Option<String>,
    /// The longest that a prediction waits to be in a file [default: 10s]
    #[arg(id = "log-flush", long = "prediction-log-flush", value_name = "TIME")]
    pub flush: Option<String>,
    /// How long files are kept, such as 30d [default: for ever]
    #[arg(id = "log-keep", long = "prediction-log-keep", value_name = "TIME")]
    pub keep: Option<String>,
    /// The most that all files together may take, such as 50GiB [default: no limit]
    #[arg(id = "log-max-size", long = "prediction-log-max-size", value_name = "SIZE")]
    pub max_size: Option<String>,
    /// Column whose values are not to be seen, such as input_name or input_*; may be repeated
    #[arg(id = "log-mask", long = "prediction-log-mask", value_name = "COLUMN")]
    pub mask: Vec<String>,
    /// Column to write as keyed hashes of its values; may be repeated
    #[arg(id = "log-hash", long = "prediction-log-hash", value_name = "COLUMN")]
    pub hash: Vec<String>,
    /// Column to leave out; may be repeated
    #[arg(id = "log-leave-out", long = "prediction-log-leave-out", value_name = "COLUMN")]
    pub leave_out: Vec<String>,
    /// The secret key of hashed columns; better said by the environment variable
    #[arg(
        id = "log-salt",
        long = "prediction-log-salt",
        value_name = "SECRET",
        hide_env_values = true
    )]
    pub salt: Option<Secret>,
    /// What differs for a model, by its name; only in the file.
    #[arg(skip)]
    pub models: BTreeMap<String, RawModel>,
}

/// What the file says of one model, in its section `[prediction-log.models.NAME]`.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct RawModel {
    /// Whether anything is logged.
    log: Option<bool>,
    sample: Option<f64>,
    slow: Option<String>,
    mask: Vec<String>,
    hash: Vec<String>,
    leave_out: Vec<String>,
    /// Columns that rules of all models would hide, and that this model's log keeps.
    show: Vec<String>,
}

/// A text that is not shown.
#[derive(Clone, serde::Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl RawLog {
    /// What this says, and where it is silent what the other says.
    pub fn or(self, other: Self) -> Self {
        fn first<T>(a: Vec<T>, b: Vec<T>) -> Vec<T> {
            if a.is_empty() { b } else { a }
        }
        Self {
            location: self.location.or(other.location),
            sample: self.sample.or(other.sample),
            slow: self.slow.or(other.slow),
            flush: self.flush.or(other.flush),
            keep: self.keep.or(other.keep),
            max_size: self.max_size.or(other.max_size),
            mask: first(self.mask, other.mask),
            hash: first(self.hash, other.hash),
            leave_out: first(self.leave_out, other.leave_out),
            salt: self.salt.or(other.salt),
            models: if self.models.is_empty() { other.models } else { self.models },
        }
    }

    /// Checks every value; `None` if nothing is to be logged. `promised` is the time within which
    /// requests are to be answered.
    pub fn check(self, promised: Option<Duration>) -> Result<Option<Settings>, Failure> {
        let Some(location) = self.location.clone() else {
            return match self.says_nothing() {
                true => Ok(None),
                false => Err(Failure::usage("it is not said where predictions are to be logged")
                    .help("name a folder or a bucket: --prediction-log FOLDER")),
            };
        };
        let mut options = Options { rules: self.rules(promised)?, ..Options::default() };
        if let Some(text) = &self.flush {
            options.flush = time("prediction-log-flush", text)?;
            if options.flush < Duration::from_millis(100) {
                return Err(wrong("prediction-log-flush", text, "100ms or more"));
            }
        }
        let age = self.keep.as_deref().map(|text| time("prediction-log-keep", text));
        let size = self.max_size.as_deref().map(|text| {
            parse_size(text).map_err(|expected| wrong("prediction-log-max-size", text, &expected))
        });
        options.keep = Keep { age: age.transpose()?, bytes: size.transpose()?.map(|n| n as u64) };
        Ok(Some(Settings { location, options }))
    }

    fn says_nothing(&self) -> bool {
        let texts = [&self.slow, &self.flush, &self.keep, &self.max_size];
        let lists = [&self.mask, &self.hash, &self.leave_out];
        texts.into_iter().all(Option::is_none)
            && lists.into_iter().all(Vec::is_empty)
            && self.sample.is_none()
            && self.models.is_empty()
    }

    fn rules(&self, promised: Option<Duration>) -> Result<Rules, Failure> {
        let slow = match &self.slow {
            Some(text) => time("prediction-log-slow", text)?,
            None => promised.unwrap_or(ModelRules::default().slow),
        };
        let columns = columns(&[], &self.leave_out, &self.hash, &self.mask);
        let sample = part("--prediction-log-sample", self.sample.unwrap_or(1.0))?;
        let default = ModelRules { log: true, sample, slow, columns };
        let mut models = BTreeMap::new();
        for (name, own) in &self.models {
            let mut rules = default.clone();
            rules.log = own.log.unwrap_or(true);
            if let Some(sample) = own.sample {
                rules.sample = part(&format!("prediction-log.models.{name}.sample"), sample)?;
            }
            if let Some(slow) = &own.slow {
                rules.slow = time(&format!("prediction-log.models.{name}.slow"), slow)?;
            }
            let mut all = columns_of(own);
            all.append(&mut rules.columns);
            rules.columns = all;
            models.insert(name.clone(), rules);
        }
        let is_hashed = |rules: &ModelRules| {
            rules.columns.iter().any(|(_, treatment)| *treatment == Treatment::Hash)
        };
        let salt = self.salt.as_ref().filter(|salt| !salt.0.is_empty());
        if salt.is_none() && models.values().chain([&default]).any(is_hashed) {
            return Err(Failure::usage("hashed columns need a secret key").help(
                "set MODELYARD_PREDICTION_LOG_SALT, to the same for all servers of a log; without \
                 it anybody could try values",
            ));
        }
        Ok(Rules { default, models, salt: salt.map(|salt| Salt::new(salt.0.as_bytes())) })
    }
}

fn columns_of(own: &RawModel) -> Vec<(Pattern, Treatment)> {
    columns(&own.show, &own.leave_out, &own.hash, &own.mask)
}

/// What is left out is neither masked nor hashed, and what is masked not hashed.
fn columns(
    show: &[String],
    leave_out: &[String],
    hash: &[String],
    mask: &[String],
) -> Vec<(Pattern, Treatment)> {
    let all = [
        (leave_out, Treatment::LeaveOut),
        (mask, Treatment::Mask),
        (hash, Treatment::Hash),
        (show, Treatment::Keep),
    ];
    let each = all.into_iter().flat_map(|(names, treatment)| {
        names.iter().map(move |name| (Pattern::new(name), treatment))
    });
    each.collect()
}

fn part(name: &str, part: f64) -> Result<f64, Failure> {
    match (0.0..=1.0).contains(&part) {
        true => Ok(part),
        false => Err(Failure::usage(format!("{name} {part}: expected a part from 0 to 1"))),
    }
}

fn time(name: &str, text: &str) -> Result<Duration, Failure> {
    parse_duration(text).map_err(|expected| wrong(name, text, &expected))
}

fn wrong(name: &str, text: &str, expected: &str) -> Failure {
    Failure::usage(format!("--{name} \"{text}\": expected {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Settings>, Failure> {
        toml::from_str::<RawLog>(text).map_err(Failure::usage)?.check(None)
    }

    #[track_caller]
    fn check_refused(text: &str, expected: &str) {
        let failure = format!("{:?}", read(text).unwrap_err());
        assert!(failure.contains(expected), "{failure}");
    }

    #[test]
    fn a_section_of_the_file_is_read() {
        assert!(RawLog::default().check(None).unwrap().is_none());
        let text = "
            location = 'log'
            sample = 0.1
            keep = '30d'
            max-size = '1GiB'
            mask = ['input_name']
            [models.fraud]
            sample = 1
            leave-out = ['input_x']
            show = ['input_name']
            [models.quiet]
            log = false";
        let settings = read(text).unwrap().unwrap();
        let rules = &settings.options.rules;
        assert_eq!((rules.default.sample, rules.of("fraud").sample), (0.1, 1.0));
        assert_eq!(rules.treatment("other", "input_name"), Treatment::Mask);
        assert_eq!(rules.treatment("fraud", "input_name"), Treatment::Keep);
        assert_eq!(rules.treatment("fraud", "input_x"), Treatment::LeaveOut);
        assert!(!rules.of("quiet").log);
        let age = Some(Duration::from_secs(30 * 86_400));
        assert_eq!(settings.options.keep, Keep { age, bytes: Some(1 << 30) });
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        check_refused("sample = 0.5", "--prediction-log FOLDER");
        check_refused("location = 'l'\nsample = 2", "from 0 to 1");
        check_refused("location = 'l'\nflush = '1ms'", "100ms or more");
        check_refused("location = 'l'\nkeep = 'long'", "--prediction-log-keep");
        check_refused("location = 'l'\nhash = ['x']", "MODELYARD_PREDICTION_LOG_SALT");
        check_refused("location = 'l'\n[models.m]\nhahs = ['x']", "hahs");
    }

    #[test]
    fn the_key_is_not_shown() {
        let raw: RawLog = toml::from_str("location = 'l'\nsalt = 'hunter2'").unwrap();
        assert!(!format!("{raw:?} {:?}", raw.clone().check(None)).contains("hunter2"));
    }
}
