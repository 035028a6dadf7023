//! Which predictions are kept, and what of them. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use model::{Observation, Outcome};
use sha2::Sha256;
use twox_hash::XxHash64;

/// What stands in a masked column.
pub const MASK: &str = "***";

/// The rules of all models.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Of models that have no own.
    pub default: ModelRules,
    /// By model.
    pub models: BTreeMap<String, ModelRules>,
    /// The key of hashed columns. Without one, hashed columns are left out.
    pub salt: Option<Salt>,
}

/// The rules of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelRules {
    /// Whether anything is kept.
    pub log: bool,
    /// The part, from 0 to 1, of the predictions that neither failed nor were slow.
    pub sample: f64,
    /// Predictions that took longer, in the queue and in the engine, are all kept.
    pub slow: Duration,
    /// What becomes of columns; the first rule that fits counts.
    pub columns: Vec<(Pattern, Treatment)>,
}

impl Default for ModelRules {
    fn default() -> Self {
        Self { log: true, sample: 1.0, slow: Duration::from_secs(1), columns: Vec::new() }
    }
}

/// The name of a column, or the beginning of names with a `*` behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Reads `input_age` or `input_*`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether a column is meant.
    pub fn fits(&self, column: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(beginning) => column.starts_with(beginning),
            None => self.0 == column,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What becomes of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// It is written as it is.
    Keep,
    /// Every value is [`MASK`].
    Mask,
    /// Every value is the keyed hash of its text: equal values stay equal, and nobody who lacks the
    /// key can try values.
    Hash,
    /// It is not written.
    LeaveOut,
}

impl Rules {
    /// The rules of a model.
    pub fn of(&self, model: &str) -> &ModelRules {
        self.models.get(model).unwrap_or(&self.default)
    }

    /// What becomes of a model's column.
    pub fn treatment(&self, model: &str, column: &str) -> Treatment {
        let rules = &self.of(model).columns;
        let found = rules.iter().find(|(pattern, _)| pattern.fits(column));
        match found.map_or(Treatment::Keep, |(_, treatment)| *treatment) {
            Treatment::Hash if self.salt.is_none() => Treatment::LeaveOut,
            other => other,
        }
    }

    /// For a prediction that is kept, how many it stands for: 1, or for one of a sample 1 / its part.
    ///
    /// A sample is drawn by the request's id, so that every server, and the shadows of a request,
    /// decide alike; without an id, by when it was received.
    pub fn weight(&self, observation: &Observation) -> Option<f64> {
        let rules = self.of(&observation.model);
        if !rules.log {
            return None;
        }
        let took = observation.queue + observation.compute;
        let always = observation.outcome != Outcome::Answered || took > rules.slow;
        if always || rules.sample >= 1.0 {
            return Some(1.0);
        }
        let drawn = match &observation.id {
            Some(id) => XxHash64::oneshot(0, id.as_bytes()),
            None => {
                let since = observation.at.duration_since(UNIX_EPOCH).unwrap_or_default();
                XxHash64::oneshot(0, &since.as_nanos().to_le_bytes())
            }
        };
        // 2^64 as a floating-point number: the quotient is in [0, 1].
        let drawn = drawn as f64 / 18_446_744_073_709_551_616.0;
        (drawn < rules.sample).then(|| 1.0 / rules.sample)
    }
}

/// A secret key. Never printed.
#[derive(Clone)]
pub struct Salt(Hmac<Sha256>);

impl Salt {
    /// Any bytes.
    pub fn new(secret: &[u8]) -> Self {
        Self(Hmac::new_from_slice(secret).expect("HMAC takes keys of any length"))
    }

    /// The keyed hash of a value's text, HMAC-SHA256, as 64 hexadecimal digits.
    pub fn hash(&self, text: &[u8]) -> String {
        let mut hash = self.0.clone();
        hash.update(text);
        let digest = hash.finalize().into_bytes();
        let mut hex = String::with_capacity(2 * digest.len());
        for byte in digest {
            for digit in [byte >> 4, byte & 15] {
                hex.push(char::from_digit(u32::from(digit), 16).unwrap_or_default());
            }
        }
        hex
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(…)")
    }
}
