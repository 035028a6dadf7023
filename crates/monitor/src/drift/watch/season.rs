//! What a feature looks like at each hour of the week, once there were some weeks.

use serde::{Deserialize, Serialize};

use super::counts::Counts;
use super::reference::Event;

/// Hours of a week.
const HOURS: usize = 168;

/// Weeks, and rows, that an hour must have been seen in before it is one to compare with.
const WEEKS: u16 = 2;
const ROWS: u32 = 300;

/// Where counts are halved, so that old weeks fade.
const MOST: u32 = 1_000_000;

/// The hours of the week.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Season {
    hours: Vec<Hour>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Hour {
    weeks: u16,
    /// For each event how often it happened, and in how many rows it could have.
    events: Vec<(u32, u32)>,
}

impl Season {
    /// Takes what was seen in an hour, counted from 1970.
    pub fn learn(&mut self, hour: i64, counts: &Counts, events: &[Event]) {
        if self.hours.is_empty() {
            self.hours.resize_with(HOURS, Hour::default);
        }
        let slot = &mut self.hours[hour.rem_euclid(HOURS as i64) as usize];
        slot.weeks = slot.weeks.saturating_add(1);
        slot.events.resize(events.len(), (0, 0));
        for (own, event) in slot.events.iter_mut().zip(events) {
            let (hits, rows) = counts.of(event.kind);
            let clipped = |count: u64| count.min(u64::from(MOST)) as u32;
            *own = (own.0 + clipped(hits), own.1 + clipped(rows));
            if own.1 > MOST {
                *own = (own.0 / 2, own.1 / 2);
            }
        }
    }

    /// An event as it was at the same hour of earlier weeks, if there were enough.
    pub fn event(&self, hour: i64, place: usize, event: &Event) -> Option<Event> {
        let slot = self.hours.get(hour.rem_euclid(HOURS as i64) as usize)?;
        let (hits, rows) = *slot.events.get(place)?;
        let enough = slot.weeks >= WEEKS && rows >= ROWS;
        let part = f64::from(hits) / f64::from(rows.max(1));
        enough.then_some(Event { kind: event.kind, part, rows: f64::from(rows) })
    }
}
