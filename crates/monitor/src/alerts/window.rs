//! How much counters have grown over a time that slides.

use std::collections::{BTreeMap, VecDeque};

use jiff::{SignedDuration, Timestamp};

/// Points that a window keeps: its edges are off by a thirtieth at most.
const POINTS: i32 = 30;

/// Counters that are remembered after they are gone, at most.
const MOST: usize = 1000;

/// The increase of counters that are taken together, over the last so long. Each may start again from
/// nothing, come and go.
#[derive(Clone, Debug)]
pub(super) struct Window {
    length: SignedDuration,
    /// Counters as they were last seen, by their labels.
    last: BTreeMap<String, Vec<f64>>,
    /// What they have grown by since the beginning.
    total: Vec<f64>,
    /// What it was, oldest first; at most [`POINTS`] and one that is older than the window.
    points: VecDeque<(Timestamp, Vec<f64>)>,
}

impl Window {
    /// `since` is when there was nothing to count yet; without it, what is counted at the first look
    /// is of another time.
    pub fn new(length: SignedDuration, since: Option<Timestamp>) -> Self {
        let points = since.map(|since| (since, Vec::new())).into_iter().collect();
        Self { length, last: BTreeMap::new(), total: Vec::new(), points }
    }

    /// Takes the counters as they are now; each is a row of numbers of the same length.
    pub fn take(&mut self, now: Timestamp, counters: Vec<(String, Vec<f64>)>) {
        // What was counted before anybody looked is not of this time.
        let is_first = self.points.is_empty();
        let mut seen = BTreeMap::new();
        for (labels, row) in counters {
            let before = self.last.get(&labels);
            if !is_first {
                let was_reset =
                    before.is_some_and(|before| before.iter().zip(&row).any(|(b, r)| r < b));
                let before = before.filter(|_| !was_reset).cloned().unwrap_or_default();
                self.total.resize(self.total.len().max(row.len()), 0.0);
                for (i, value) in row.iter().enumerate() {
                    self.total[i] += value - before.get(i).copied().unwrap_or(0.0);
                }
            }
            seen.insert(labels, row);
        }
        // One that is gone may come back with what it had; there is an end to how many are kept.
        if self.last.len() > MOST {
            self.last.clear();
        }
        self.last.extend(seen);
        // A clock that was set back: what is ahead of it is of no more use.
        while self.points.back().is_some_and(|(at, _)| *at > now) {
            self.points.pop_back();
        }
        let step = self.length / POINTS;
        let is_due = self.points.back().is_none_or(|(at, _)| now.duration_since(*at) >= step);
        if is_due {
            self.points.push_back((now, self.total.clone()));
        }
        let is_old = |point: Option<&(Timestamp, Vec<f64>)>| {
            point.is_some_and(|(at, _)| now.duration_since(*at) >= self.length)
        };
        while is_old(self.points.get(1)) {
            self.points.pop_front();
        }
    }

    /// By how much they have grown, and over which time: less than the window until there has been
    /// as much.
    pub fn increase(&self, now: Timestamp) -> (Vec<f64>, SignedDuration) {
        let Some((at, before)) = self.points.front() else { return Default::default() };
        let grown = self.total.iter().enumerate();
        let grown = grown.map(|(i, total)| total - before.get(i).copied().unwrap_or(0.0));
        (grown.collect(), now.duration_since(*at))
    }

    /// Whether all of the window has been watched.
    pub fn is_full(&self, now: Timestamp) -> bool {
        self.points.front().is_some_and(|(at, _)| now.duration_since(*at) >= self.length)
    }

    /// By how much the first of each row has grown.
    pub fn first(&self, now: Timestamp) -> f64 {
        self.increase(now).0.first().copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn one(value: f64) -> Vec<(String, Vec<f64>)> {
        vec![("a".to_owned(), vec![value])]
    }

    #[test]
    fn growth_is_that_of_the_window() {
        let mut window = Window::new(SignedDuration::from_secs(60), None);
        for second in 0..=300 {
            window.take(at(second), one(1000.0 + 2.0 * second as f64));
        }
        let (grown, time) = window.increase(at(300));
        assert!((60..=62).contains(&time.as_secs()), "{time:?}");
        assert_eq!(grown, [2.0 * time.as_secs() as f64]);
        assert!(window.points.len() <= 33);
    }

    #[test]
    fn counters_that_start_again_or_are_new_count_from_nothing() {
        let mut window = Window::new(SignedDuration::from_secs(60), None);
        window.take(at(0), one(100.0));
        window.take(at(10), one(130.0));
        window.take(at(20), one(7.0));
        assert_eq!(window.first(at(20)), 37.0);
        window.take(at(30), vec![("a".into(), vec![7.0]), ("b".into(), vec![5.0])]);
        assert_eq!(window.first(at(30)), 42.0);
        window.take(at(40), Vec::new());
        assert_eq!(window.first(at(40)), 42.0);
        window.take(at(50), one(9.0));
        assert_eq!(window.first(at(50)), 44.0);
    }

    #[test]
    fn what_was_not_there_before_counts_from_nothing() {
        let mut window = Window::new(SignedDuration::from_secs(60), Some(at(0)));
        window.take(at(5), one(5.0));
        assert_eq!(window.first(at(5)), 5.0);
    }

    #[test]
    fn a_clock_that_is_set_back_loses_only_what_lies_ahead() {
        let mut window = Window::new(SignedDuration::from_secs(60), None);
        window.take(at(0), one(0.0));
        window.take(at(1000), one(10.0));
        window.take(at(5), one(11.0));
        let (grown, time) = window.increase(at(5));
        assert_eq!((grown, time.as_secs()), (vec![11.0], 5));
    }
}
