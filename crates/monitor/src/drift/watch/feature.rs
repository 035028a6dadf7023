//! One feature that is watched.

use serde::{Deserialize, Serialize};

use super::super::What;
use super::bets::{Bets, Null, Since};
use super::counts::Counts;
use super::reference::{Event, Reference};
use super::season::Season;
use super::{Drift, Settings};

/// Rows after which the older half of what is recent is forgotten.
const RECENT: u64 = 2000;

/// Rows that have to look as before until a drift is over.
const QUIET: u64 = 1000;

/// Drifts, and hours, that are remembered.
const REMEMBERED: usize = 32;
const TREND: usize = 168;

/// A feature with something to compare with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Feature {
    pub reference: Reference,
    /// How sure the bounds of the reference are.
    level: f64,
    pub counts: Counts,
    bets: Vec<Bets>,
    /// The two last halves of what is recent.
    recent: [Counts; 2],
    /// The hour since 1970 that is counted, and what was seen in it.
    hour: i64,
    of_hour: Counts,
    season: Season,
    pub drift: Option<Drift>,
    pub past: Vec<Drift>,
    /// The shift of each hour, oldest first.
    pub trend: Vec<(i64, f32)>,
    pub rows: u64,
}

impl Feature {
    pub fn new(reference: Reference, level: f64) -> Self {
        let counts = Counts::new(reference.bins());
        Self {
            bets: Vec::new(),
            recent: [counts.clone(), counts.clone()],
            hour: i64::MIN,
            of_hour: counts.clone(),
            counts,
            reference,
            level,
            season: Season::default(),
            drift: None,
            past: Vec::new(),
            trend: Vec::new(),
            rows: 0,
        }
    }

    /// Whether everything has the size that the reference gives it.
    pub fn is_sound(&self) -> bool {
        let bins = self.reference.bins();
        let counts = [&self.counts, &self.recent[0], &self.recent[1], &self.of_hour];
        let events = self.reference.events.len();
        let shape = match &self.reference.shape {
            super::reference::Shape::Numbers { cuts, .. } => cuts.len() + 1 == bins,
            super::reference::Shape::Texts { bins: places, names } => {
                names.len() == bins && places.values().all(|place| *place < bins)
            }
        };
        let within = |event: &Event| match event.kind {
            super::reference::Happens::UpTo(place) | super::reference::Happens::Is(place) => {
                place < bins
            }
            _ => true,
        };
        shape
            && bins > 0
            && counts.iter().all(|counts| counts.bins.len() == bins)
            && (self.bets.is_empty() || self.bets.len() == events)
            && self.reference.events.iter().all(within)
    }

    /// Plays a block, which began at `time`, for `stake` in all.
    pub fn settle(&mut self, time: i64, stake: f64, settings: &Settings) {
        self.turn(time, settings);
        if self.drift.is_none() {
            let bets: usize = self.bets.iter().map(Bets::len).sum();
            let stake = stake / bets.max(1) as f64;
            for (bets, event) in self.bets.iter_mut().zip(&self.reference.events) {
                let (hits, rows) = self.counts.of(event.kind);
                bets.play(hits, rows, stake, time);
            }
        }
        let rows = self.counts.rows();
        self.rows += rows;
        self.of_hour.add(&self.counts);
        self.recent[1].add(&self.counts);
        if self.recent[1].rows() >= RECENT {
            self.recent.swap(0, 1);
            self.recent[1].clear();
        }
        self.counts.clear();
        self.may_end(time, settings);
    }

    /// What changes with the hour: the one before is learned, and this one has bounds of its own.
    fn turn(&mut self, time: i64, settings: &Settings) {
        let hour = time.div_euclid(3600);
        if hour == self.hour {
            return;
        }
        if self.of_hour.rows() > 0 {
            let (shift, _) = self.shift(&self.of_hour);
            self.trend.push((self.hour * 3600, shift as f32));
            if self.trend.len() > TREND {
                self.trend.remove(0);
            }
            self.season.learn(self.hour, &self.of_hour, &self.reference.events);
            self.of_hour.clear();
        }
        self.hour = hour;
        let nulls: Vec<Null> =
            (0..self.reference.events.len()).map(|i| self.null(i, settings)).collect();
        match self.bets.is_empty() {
            true => self.bets = nulls.into_iter().map(Bets::new).collect(),
            false => {
                self.bets.iter_mut().zip(nulls).for_each(|(bets, null)| bets.against(null));
            }
        }
    }

    /// In what part of the rows an event may happen: about as often as before, or as at the same
    /// hour of earlier weeks, or anything between.
    fn null(&self, place: usize, settings: &Settings) -> Null {
        let event = &self.reference.events[place];
        let interval = |event: &Event| {
            let room = settings.tolerated(event.kind.what()).max(event.uncertainty(self.level));
            Null { low: event.part - room, high: event.part + room }
        };
        let before = interval(event);
        match self.season.event(self.hour, place, event) {
            None => before,
            Some(usual) => {
                let usual = interval(&usual);
                Null { low: before.low.min(usual.low), high: before.high.max(usual.high) }
            }
        }
    }

    /// How far an event was from what is usual, since a change.
    fn effect(&self, place: usize, since: Since) -> f64 {
        let event = &self.reference.events[place];
        let part = since.hits as f64 / since.rows.max(1) as f64;
        let usual = self.season.event(self.hour, place, event);
        let off = |event: &Event| (part - event.part).abs();
        usual.as_ref().map_or(off(event), |usual| off(usual).min(off(event)))
    }

    /// The evidence of a drift that is large enough to matter: an e-value.
    pub fn evidence(&self, settings: &Settings) -> f64 {
        let worth = |(place, bets): (usize, &Bets)| {
            let what = self.reference.events[place].kind.what();
            let wealth = bets.wealth();
            // Little wealth is no evidence of anything, and most of it is little.
            let matters =
                wealth > 1.0 && self.effect(place, bets.since()) >= settings.threshold(what);
            if matters { wealth } else { 0.0 }
        };
        self.bets.iter().enumerate().map(worth).sum()
    }

    /// Says that it has drifted, and by what.
    pub fn found(&mut self, time: i64, evidence: f64, settings: &Settings) {
        let matters = |(place, bets): &(usize, &Bets)| {
            let what = self.reference.events[*place].kind.what();
            self.effect(*place, bets.since()) >= settings.threshold(what)
        };
        let richest = self.bets.iter().enumerate().filter(matters);
        let richest = richest.max_by(|a, b| a.1.wealth().total_cmp(&b.1.wealth()));
        let Some((place, bets)) = richest else { return };
        let since = bets.since();
        self.drift = Some(Drift {
            what: self.reference.events[place].kind.what(),
            since: since.time,
            found: time,
            over: None,
            effect: self.effect(place, since),
            evidence,
        });
        self.bets.iter_mut().for_each(Bets::clear);
        self.recent.iter_mut().for_each(Counts::clear);
    }

    /// A drift is over when what came after looks as before.
    fn may_end(&mut self, time: i64, settings: &Settings) {
        let Some(drift) = &self.drift else { return };
        let recent = self.recent();
        if recent.rows() < QUIET {
            return;
        }
        let as_before = |(place, event): (usize, &Event)| {
            let (hits, rows) = recent.of(event.kind);
            let effect = self.effect(place, Since { time, rows, hits });
            rows == 0 || effect < settings.threshold(event.kind.what())
        };
        if self.reference.events.iter().enumerate().all(as_before) {
            self.past.push(Drift { over: Some(time), ..drift.clone() });
            if self.past.len() > REMEMBERED {
                self.past.remove(0);
            }
            self.drift = None;
        }
    }

    /// The last few thousand rows, since a drift was found if there is one.
    pub fn recent(&self) -> Counts {
        let mut recent = self.recent[0].clone();
        recent.add(&self.recent[1]);
        recent
    }

    /// How far counts are from the reference, and by which number or text that shows.
    pub fn shift(&self, counts: &Counts) -> (f64, usize) {
        let rows = counts.values() as f64;
        if rows == 0.0 {
            return (0.0, 0);
        }
        let parts = counts.bins.iter().map(|count| f64::from(*count) / rows);
        let differences: Vec<f64> = parts.zip(&self.reference.parts).map(|(a, b)| a - b).collect();
        match self.reference.intervals() {
            true => {
                let mut sum = 0.0;
                let sums = differences.iter().map(|difference| {
                    sum += difference;
                    f64::abs(sum)
                });
                let largest = sums.enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
                largest.map_or((0.0, 0), |(place, largest)| (largest, place))
            }
            false => {
                let sizes = differences.iter().map(|d| d.abs()).enumerate();
                let most = sizes.max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(place, _)| place);
                (differences.iter().map(|d| d.abs()).sum::<f64>() / 2.0, most)
            }
        }
    }

    /// How much each way to change has changed in counts.
    pub fn changes(&self, counts: &Counts) -> Vec<(What, f64)> {
        let mut changes = vec![(What::Shift, self.shift(counts).0)];
        for event in &self.reference.events {
            let what = event.kind.what();
            if what != What::Shift {
                let (hits, rows) = counts.of(event.kind);
                let part = hits as f64 / rows.max(1) as f64;
                changes.push((what, if rows == 0 { 0.0 } else { (part - event.part).abs() }));
            }
        }
        changes
    }
}
