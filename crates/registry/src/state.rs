//! What a model's history adds up to. Pure: every rule about which change is allowed is here, and
//! the rows of the database are nothing but a copy of what this says.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::names::CHAMPION;
use crate::{Error, Result};

/// Where a version is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Can be aliased and can get traffic.
    Active,
    /// Kept whole, but can get neither alias nor traffic until it is activated again.
    Archived,
    /// Will be purged once its time of grace is over; can be restored until then.
    Deleted,
    /// Its files are gone for good. Its number and its history stay.
    Purged,
}

impl Stage {
    /// The stage's name, as rows and JSON have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Archived => "archived",
            Self::Deleted => "deleted",
            Self::Purged => "purged",
        }
    }
}

/// A version's part of a model's traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The version's number.
    pub version: u64,
    /// Its part, relative to the sum of all; 0 serves only those who name the version.
    pub share: u32,
    /// Whether it gets a copy of the traffic whose answers nobody sees.
    #[serde(default)]
    pub shadow: bool,
}

/// One change of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// A version was added.
    Published {
        /// Its number: one more than that of the version before it.
        version: u64,
        /// The digest of its package.
        digest: String,
    },
    /// An alias was set, moved or taken away. Moving `champion` ends a split of the traffic.
    AliasMoved {
        /// The alias.
        alias: String,
        /// The version that it named before.
        from: Option<u64>,
        /// The version that it names now.
        to: Option<u64>,
    },
    /// The traffic was split explicitly; no shares give it back to the champion.
    TrafficSplit {
        /// The shares before.
        from: Vec<Share>,
        /// The shares from now on.
        to: Vec<Share>,
    },
    /// A version moved to another stage of its life.
    StageMoved {
        /// The version.
        version: u64,
        /// Its stage before.
        from: Stage,
        /// Its stage from now on.
        to: Stage,
    },
}

/// An event with when, by whom and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its place in the history of the whole registry: 1, 2, 3, … without gaps.
    pub sequence: u64,
    /// When it happened; never before the record before it, whatever the clock did.
    pub time: Timestamp,
    /// The model.
    pub model: String,
    /// What changed.
    pub event: Event,
    /// Who or what changed it.
    pub who: String,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The figures that the decision rests on, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<serde_json::Value>,
}

/// A model at one point of its history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelState {
    /// Every version that was ever published, by number.
    pub versions: BTreeMap<u64, Stage>,
    /// What each alias names.
    pub aliases: BTreeMap<String, u64>,
    /// The explicit split of the traffic; empty where the champion has it all.
    pub traffic: Vec<Share>,
}

impl ModelState {
    /// The state after these records, which must be all of one model's, in order.
    pub fn replay<'a>(records: impl IntoIterator<Item = &'a Record>) -> Result<Self> {
        let mut state = Self::default();
        for record in records {
            let place = format!("record {} of \"{}\"", record.sequence, record.model);
            state.apply(&record.event).map_err(|error| error.at(place))?;
        }
        Ok(state)
    }

    /// Applies one change, or says why it is not allowed and leaves the state as it was.
    pub fn apply(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Published { version, .. } => self.publish(*version),
            Event::AliasMoved { alias, from, to } => self.move_alias(alias, *from, *to),
            Event::TrafficSplit { from, to } => self.split_traffic(from, to),
            Event::StageMoved { version, from, to } => self.move_stage(*version, *from, *to),
        }
    }

    /// The versions to be loaded, each with its part of the traffic: the explicit split, or all to
    /// the champion; and without traffic whatever else an alias names, so that callers reach it.
    pub fn assigned(&self) -> Vec<Share> {
        let mut shares = self.traffic.clone();
        if let (true, Some(champion)) = (shares.is_empty(), self.aliases.get(CHAMPION)) {
            shares.push(Share { version: *champion, share: 1, shadow: false });
        }
        let aliased: BTreeSet<u64> = self.aliases.values().copied().collect();
        for version in aliased {
            if shares.iter().all(|share| share.version != version) {
                shares.push(Share { version, share: 0, shadow: false });
            }
        }
        shares.sort_by_key(|share| share.version);
        shares
    }

    /// The number that the next version gets.
    pub fn next_number(&self) -> u64 {
        self.versions.keys().next_back().map_or(1, |last| last + 1)
    }

    fn publish(&mut self, version: u64) -> Result<()> {
        if version != self.next_number() {
            return Err(Error::refused(format!(
                "version {version} cannot follow: the next number is {}",
                self.next_number()
            )));
        }
        self.versions.insert(version, Stage::Active);
        Ok(())
    }

    fn move_alias(&mut self, alias: &str, from: Option<u64>, to: Option<u64>) -> Result<()> {
        let now = self.aliases.get(alias).copied();
        if now != from {
            return Err(Error::refused(format!(
                "the alias \"{alias}\" names {} and not {}: somebody else has moved it; look \
                 again and decide anew",
                shown(now),
                shown(from)
            )));
        }
        match to {
            Some(version) => {
                self.check_active(version)?;
                self.aliases.insert(alias.to_owned(), version);
            }
            None => {
                self.aliases.remove(alias);
            }
        }
        if alias == CHAMPION {
            self.traffic.clear();
        }
        Ok(())
    }

    fn split_traffic(&mut self, from: &[Share], to: &[Share]) -> Result<()> {
        if self.traffic != from {
            return Err(Error::refused(
                "the traffic is split otherwise by now: somebody else has changed it; look again \
                 and decide anew",
            ));
        }
        let mut seen = BTreeSet::new();
        for share in to {
            self.check_active(share.version)?;
            if !seen.insert(share.version) {
                return Err(Error::invalid(format!("version {} has two shares", share.version)));
            }
            if share.shadow && share.share > 0 {
                return Err(Error::invalid(format!(
                    "version {} cannot be a shadow and have a share of the traffic",
                    share.version
                )));
            }
        }
        if !to.is_empty() && to.iter().all(|share| share.share == 0) {
            return Err(Error::invalid("no version has a share of the traffic above 0"));
        }
        self.traffic = to.to_vec();
        Ok(())
    }

    fn move_stage(&mut self, version: u64, from: Stage, to: Stage) -> Result<()> {
        use Stage::{Active, Archived, Deleted, Purged};
        let now = self.stage(version)?;
        if now != from {
            return Err(Error::refused(format!("version {version} is {}", now.as_str())));
        }
        match (from, to) {
            (Active, Archived) | (Active | Archived, Deleted) => self.check_unused(version)?,
            (Archived, Active) | (Deleted, Active | Purged) => {}
            _ => {
                let (from, to) = (from.as_str(), to.as_str());
                return Err(Error::refused(format!(
                    "version {version} is {from}, and cannot become {to}"
                )));
            }
        }
        self.versions.insert(version, to);
        Ok(())
    }

    fn stage(&self, version: u64) -> Result<Stage> {
        self.versions.get(&version).copied().ok_or_else(|| {
            let last = self.versions.len();
            Error::not_found(format!("there is no version {version}; the newest is {last}"))
        })
    }

    fn check_active(&self, version: u64) -> Result<()> {
        match self.stage(version)? {
            Stage::Active => Ok(()),
            stage => Err(Error::refused(format!(
                "version {version} is {}: only an active version can have an alias or traffic",
                stage.as_str()
            ))),
        }
    }

    fn check_unused(&self, version: u64) -> Result<()> {
        let mut names = self.aliases.iter().filter(|(_, named)| **named == version);
        if let Some((alias, _)) = names.next() {
            return Err(Error::refused(format!(
                "version {version} is in use as \"{alias}\"; move that alias first"
            )));
        }
        if self.traffic.iter().any(|share| share.version == version) {
            return Err(Error::refused(format!(
                "version {version} is in use: it has a part in the traffic; change the split first"
            )));
        }
        Ok(())
    }
}

fn shown(version: Option<u64>) -> String {
    version.map_or("nothing".to_owned(), |version| format!("version {version}"))
}
