//! What a model's history adds up to. Pure: every rule about which change is allowed is here, and
//! the rows of the database are nothing but a copy of what this says.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::names::{CHAMPION, check_key};
use crate::{Error, Result};

/// The most request keys that a split can pin: each server looks through them.
const MOST_PINNED: usize = 10_000;

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
    /// Whether it gets a copy of the traffic that it does not answer, whose answers nobody sees.
    #[serde(default)]
    pub shadow: bool,
    /// The request keys that always get it, whatever the shares.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pinned: Vec<String>,
}

impl Share {
    /// A part of the traffic, and nobody pinned.
    pub fn of(version: u64, share: u32) -> Self {
        Self { version, share, shadow: false, pinned: Vec::new() }
    }

    /// A copy of the traffic.
    pub fn shadow(version: u64) -> Self {
        Self { shadow: true, ..Self::of(version, 0) }
    }
}

/// How a rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A candidate became the champion.
    Promoted,
    /// The champion has all the traffic again, because of what was seen.
    RolledBack,
    /// The champion has all the traffic again, because somebody wanted it so.
    Stopped,
}

impl Outcome {
    /// Its name, as JSON has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Promoted => "promoted",
            Self::RolledBack => "rolled_back",
            Self::Stopped => "stopped",
        }
    }
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
    /// Candidates began to be compared with the champion; from now on the traffic is the plan's.
    RolloutStarted {
        /// The champion.
        champion: u64,
        /// The versions that may take its place.
        candidates: Vec<u64>,
        /// The plan, as crate `rollout` reads it.
        plan: serde_json::Value,
        /// The first split of the traffic.
        to: Vec<Share>,
    },
    /// A rollout split the traffic anew.
    RolloutMoved {
        /// The shares before.
        from: Vec<Share>,
        /// The shares from now on.
        to: Vec<Share>,
    },
    /// A rollout was told to stay at its step, or to go on.
    RolloutPaused {
        /// Whether it stays.
        paused: bool,
    },
    /// A rollout ended.
    RolloutEnded {
        /// How.
        outcome: Outcome,
        /// The champion from now on.
        champion: u64,
    },
    /// Somebody said that there will be versions of this name, or that there will not.
    Announced {
        /// Whether there will.
        announced: bool,
    },
    /// A note was written about the model or a version, or taken away.
    Noted {
        /// The version; none if it is about the model.
        version: Option<u64>,
        /// What the note is called.
        key: String,
        /// What it says from now on; none if it is taken away.
        value: Option<String>,
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

/// A comparison of versions that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Underway {
    /// The version that has the alias `champion`.
    pub champion: u64,
    /// The versions that may take its place.
    pub candidates: Vec<u64>,
    /// Whether it stays at its step.
    pub paused: bool,
}

/// A version that was champion until not long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// The version.
    pub version: u64,
    /// When it ceased to be champion.
    pub since: Timestamp,
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
    /// The rollout that is under way.
    #[serde(default)]
    pub rollout: Option<Underway>,
    /// The champion before this one.
    #[serde(default)]
    pub former: Option<Former>,
    /// Whether somebody said that there will be versions.
    #[serde(default)]
    pub announced: bool,
    /// The notes about each version, and under 0 about the model itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub notes: BTreeMap<u64, BTreeMap<String, String>>,
}

impl ModelState {
    /// The state after these records, which must be all of one model's, in order.
    pub fn replay<'a>(records: impl IntoIterator<Item = &'a Record>) -> Result<Self> {
        let mut state = Self::default();
        for record in records {
            let place = format!("record {} of \"{}\"", record.sequence, record.model);
            state.apply(&record.event, record.time).map_err(|error| error.at(place))?;
        }
        Ok(state)
    }

    /// Applies one change, or says why it is not allowed and leaves the state as it was.
    pub fn apply(&mut self, event: &Event, time: Timestamp) -> Result<()> {
        match event {
            Event::Published { version, .. } => self.publish(*version),
            Event::AliasMoved { alias, from, to } => self.move_alias(alias, *from, *to, time),
            Event::TrafficSplit { from, to } => self.split_traffic(from, to),
            Event::RolloutStarted { champion, candidates, to, .. } => {
                self.start_rollout(*champion, candidates, to)
            }
            Event::RolloutMoved { from, to } => self.move_rollout(from, to),
            Event::RolloutPaused { paused } => self.pause_rollout(*paused),
            Event::RolloutEnded { outcome, champion } => {
                self.end_rollout(*outcome, *champion, time)
            }
            Event::Announced { announced } => {
                self.announced = *announced;
                Ok(())
            }
            Event::Noted { version, key, value } => {
                self.write_note(*version, key, value.as_deref())
            }
            Event::StageMoved { version, from, to } => self.move_stage(*version, *from, *to),
        }
    }

    /// The versions to be loaded, each with its part of the traffic: the explicit split, or all to
    /// the champion; and without traffic whatever else an alias names, so that callers reach it,
    /// and the champion before this one if it was that after `warm_since`, so that it can be gone
    /// back to at once.
    pub fn assigned(&self, warm_since: Timestamp) -> Vec<Share> {
        let mut shares = self.traffic.clone();
        if let (true, Some(champion)) = (shares.is_empty(), self.aliases.get(CHAMPION)) {
            shares.push(Share::of(*champion, 1));
        }
        let former = self.former.filter(|former| former.since > warm_since);
        let mut loaded: BTreeSet<u64> = self.aliases.values().copied().collect();
        loaded.extend(former.map(|former| former.version));
        for version in loaded {
            if shares.iter().all(|share| share.version != version) {
                shares.push(Share::of(version, 0));
            }
        }
        shares.sort_by_key(|share| share.version);
        shares
    }

    /// The number that the next version gets.
    pub fn next_number(&self) -> u64 {
        self.versions.keys().next_back().map_or(1, |last| last + 1)
    }

    /// Whether it has a version that is not deleted, or is announced.
    pub fn is_there(&self) -> bool {
        let is_kept = |stage: &Stage| matches!(stage, Stage::Active | Stage::Archived);
        self.announced || self.versions.values().any(is_kept)
    }

    fn write_note(&mut self, version: Option<u64>, key: &str, value: Option<&str>) -> Result<()> {
        if let Some(version) = version {
            self.stage(version)?;
        }
        check_note(key, value)?;
        let number = version.unwrap_or(0);
        let notes = self.notes.entry(number).or_default();
        let result = match value {
            Some(_) if notes.len() >= MOST_NOTES && !notes.contains_key(key) => Err(Error::new(
                model::ErrorCode::ResourceExhausted,
                format!("there are {MOST_NOTES} notes already; take others away first"),
            )),
            Some(value) => {
                notes.insert(key.to_owned(), value.to_owned());
                Ok(())
            }
            None if notes.remove(key).is_some() => Ok(()),
            None => Err(Error::not_found(format!("there is no note \"{key}\""))),
        };
        if notes.is_empty() {
            self.notes.remove(&number);
        }
        result
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

    fn move_alias(
        &mut self,
        alias: &str,
        from: Option<u64>,
        to: Option<u64>,
        time: Timestamp,
    ) -> Result<()> {
        let now = self.aliases.get(alias).copied();
        if now != from {
            return Err(Error::refused(format!(
                "the alias \"{alias}\" names {} and not {}: somebody else has moved it; look \
                 again and decide anew",
                shown(now),
                shown(from)
            )));
        }
        if let Some(version) = to {
            self.check_active(version)?;
        }
        if alias == CHAMPION {
            self.crown(to, time);
            return Ok(());
        }
        match to {
            Some(version) => self.aliases.insert(alias.to_owned(), version),
            None => self.aliases.remove(alias),
        };
        Ok(())
    }

    /// Gives all the traffic to another champion, or none. Whatever split it before is over.
    fn crown(&mut self, champion: Option<u64>, time: Timestamp) {
        let before = match champion {
            Some(version) => self.aliases.insert(CHAMPION.to_owned(), version),
            None => self.aliases.remove(CHAMPION),
        };
        if before != champion {
            self.former = before.map(|version| Former { version, since: time });
        }
        self.traffic.clear();
        self.rollout = None;
    }

    fn split_traffic(&mut self, from: &[Share], to: &[Share]) -> Result<()> {
        if self.rollout.is_some() {
            return Err(Error::refused(
                "a rollout is under way and splits the traffic; stop it first: modelyard rollout \
                 stop",
            ));
        }
        self.split(from, to)
    }

    fn split(&mut self, from: &[Share], to: &[Share]) -> Result<()> {
        if self.traffic != from {
            return Err(Error::refused(
                "the traffic is split otherwise by now: somebody else has changed it; look again \
                 and decide anew",
            ));
        }
        self.check_shares(to)?;
        self.traffic = to.to_vec();
        Ok(())
    }

    fn check_shares(&self, shares: &[Share]) -> Result<()> {
        let (mut seen, mut pinned) = (BTreeSet::new(), BTreeSet::new());
        for share in shares {
            let version = share.version;
            self.check_active(version)?;
            if !seen.insert(version) {
                return Err(Error::invalid(format!("version {version} has two shares")));
            }
            for key in &share.pinned {
                check_key(key)?;
                if !pinned.insert(key) {
                    return Err(Error::invalid(format!("the key \"{key}\" is pinned twice")));
                }
            }
        }
        if pinned.len() > MOST_PINNED {
            return Err(Error::invalid(format!("more than {MOST_PINNED} keys are pinned")));
        }
        if !shares.is_empty() && shares.iter().all(|share| share.share == 0) {
            return Err(Error::invalid("no version has a share of the traffic above 0"));
        }
        Ok(())
    }

    fn start_rollout(&mut self, champion: u64, candidates: &[u64], to: &[Share]) -> Result<()> {
        if self.rollout.is_some() {
            return Err(Error::refused(
                "a rollout is under way already; see modelyard rollout status, or stop it first",
            ));
        }
        if !self.traffic.is_empty() {
            return Err(Error::refused(
                "the traffic is split by hand; give it back to the champion first: modelyard \
                 traffic MODEL --champion",
            ));
        }
        self.check_champion(champion)?;
        let mut seen = BTreeSet::from([champion]);
        for candidate in candidates {
            self.check_active(*candidate)?;
            if !seen.insert(*candidate) {
                return Err(Error::invalid(format!(
                    "version {candidate} cannot be compared with itself"
                )));
            }
        }
        if candidates.is_empty() {
            return Err(Error::invalid("a rollout needs a candidate"));
        }
        let rollout = Underway { champion, candidates: candidates.to_vec(), paused: false };
        self.check_parts(&rollout, to)?;
        self.split(&[], to)?;
        self.rollout = Some(rollout);
        Ok(())
    }

    fn move_rollout(&mut self, from: &[Share], to: &[Share]) -> Result<()> {
        let rollout = self.underway()?;
        self.check_parts(rollout, to)?;
        self.split(from, to)
    }

    fn pause_rollout(&mut self, paused: bool) -> Result<()> {
        self.underway()?;
        let rollout = self.rollout.as_mut().expect("it was just seen");
        if rollout.paused == paused {
            let is = if paused { "paused already" } else { "not paused" };
            return Err(Error::refused(format!("the rollout is {is}")));
        }
        rollout.paused = paused;
        Ok(())
    }

    fn end_rollout(&mut self, outcome: Outcome, champion: u64, time: Timestamp) -> Result<()> {
        let rollout = self.underway()?;
        let may_be = match outcome {
            Outcome::Promoted => rollout.candidates.contains(&champion),
            Outcome::RolledBack | Outcome::Stopped => rollout.champion == champion,
        };
        if !may_be {
            let outcome = outcome.as_str();
            return Err(Error::refused(format!(
                "a rollout that is {outcome} cannot make version {champion} the champion"
            )));
        }
        self.check_active(champion)?;
        self.crown(Some(champion), time);
        Ok(())
    }

    fn underway(&self) -> Result<&Underway> {
        self.rollout.as_ref().ok_or_else(|| Error::refused("no rollout is under way"))
    }

    /// A rollout's traffic goes to those that it compares.
    fn check_parts(&self, rollout: &Underway, to: &[Share]) -> Result<()> {
        let compared =
            |version| rollout.champion == version || rollout.candidates.contains(&version);
        match to.iter().find(|share| !compared(share.version)) {
            Some(other) => {
                Err(Error::invalid(format!("version {} has no part in the rollout", other.version)))
            }
            None => Ok(()),
        }
    }

    fn check_champion(&self, champion: u64) -> Result<()> {
        let now = self.aliases.get(CHAMPION).copied();
        if now == Some(champion) {
            return Ok(());
        }
        Err(Error::refused(format!(
            "the champion is {} and not version {champion}: somebody else has moved it; look again \
             and decide anew",
            shown(now)
        )))
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
        if to != Active {
            // It must not be loaded again, not even to be kept warm.
            self.former = self.former.filter(|former| former.version != version);
        }
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
        if self.rollout.as_ref().is_some_and(|rollout| rollout.candidates.contains(&version)) {
            return Err(Error::refused(format!(
                "version {version} is in use: it is a candidate of a rollout; stop that first"
            )));
        }
        Ok(())
    }
}

/// The version that a model's champion took the place of and that was not gone back from since:
/// where a rollback leads to. None if there was no other champion.
pub fn before_champion<'a>(history: impl IntoIterator<Item = &'a Record>) -> Option<u64> {
    let mut champions: Vec<u64> = Vec::new();
    for record in history {
        let champion = match &record.event {
            Event::AliasMoved { alias, to: Some(to), .. } if alias == CHAMPION => *to,
            Event::RolloutEnded { champion, .. } => *champion,
            _ => continue,
        };
        match champions.iter().position(|one| *one == champion) {
            // Going back: what was put in its place is not what one goes back to.
            Some(place) => champions.truncate(place + 1),
            None => champions.push(champion),
        }
    }
    champions.len().checked_sub(2).map(|place| champions[place])
}

/// The most notes about one version, or about a model.
const MOST_NOTES: usize = 1_000;

/// Whether a note can be called so, and say this.
fn check_note(key: &str, value: Option<&str>) -> Result<()> {
    let problem = if key.is_empty() {
        "is empty"
    } else if key.len() > 255 {
        "is longer than 255 bytes"
    } else if key.chars().any(char::is_control) {
        "has control characters"
    } else if value.is_some_and(|value| value.len() > 100_000) {
        "says more than 100,000 bytes"
    } else if value.is_some_and(|value| value.contains('\0')) {
        "has a zero byte in its text"
    } else {
        return Ok(());
    };
    let shown: String = key.chars().take(80).collect();
    Err(Error::invalid(format!("the note \"{}\" {problem}", shown.escape_default())))
}

fn shown(version: Option<u64>) -> String {
    version.map_or("nothing".to_owned(), |version| format!("version {version}"))
}
