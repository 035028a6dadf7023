//! Which alerts there are, and what is said of them to whom: a state that samples and time move on.
//! Pure; what it says is delivered by others.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::judge::{ByMetric, Found, Judge};
use super::rules::{Act, Grouping, Rule, Rules, matches};
use super::sample::{Event, Labels, Sample};

/// How long an alert is shown after it is over.
const SHOWN: SignedDuration = SignedDuration::from_mins(15);
/// How long an alert stays when nothing can be said of it any more.
const BLIND: SignedDuration = SignedDuration::from_mins(15);
/// Alerts that there may be at once; what is beyond is counted.
const MOST: usize = 10_000;

/// Where an alert is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Wrong, but not for long enough.
    Pending,
    /// Wrong.
    Firing,
    /// Over.
    Resolved,
}

/// Something that is or was wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alert {
    /// The same for the same rule and labels, always.
    pub fingerprint: String,
    /// Its labels, `alertname` and `severity` among them.
    pub labels: Labels,
    /// Where it is in its life.
    pub stage: Stage,
    /// Since when it is wrong.
    pub since: Timestamp,
    /// When it fired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fired: Option<Timestamp>,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// The number that the threshold was compared with, last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// One line.
    pub summary: String,
    /// Where it says what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runbook: Option<String>,
    /// The silences and alerts that keep it quiet.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub quiet: BTreeSet<String>,
    /// How long it has been on the way to its next stage.
    #[serde(default)]
    held: SignedDuration,
}

/// Keeps alerts quiet for a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Silence {
    /// Its name; empty to be given one.
    #[serde(default)]
    pub id: String,
    /// Labels of the alerts; `*` stands for any text.
    #[serde(rename = "where")]
    pub only: BTreeMap<String, String>,
    /// From when.
    pub from: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// Who wants it.
    #[serde(default)]
    pub by: String,
    /// Why.
    #[serde(default)]
    pub why: String,
}

/// What is said to one notifier of one group of alerts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Another one for each message; the same if it is sent again because nobody knows whether it
    /// arrived.
    pub id: String,
    /// The notifier.
    pub to: String,
    /// The labels that its alerts are grouped by.
    pub group: Labels,
    /// When it was made.
    pub at: Timestamp,
    /// Alerts that fire, and those that are over since the message before.
    pub alerts: Vec<Alert>,
}

/// Something that an alert wants done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// What.
    pub act: Act,
    /// To this model.
    pub model: String,
    /// Because of this version, where the alert names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Why.
    pub why: String,
    /// The alert.
    pub alert: String,
}

/// What follows from a look.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// What is to be said.
    pub messages: Vec<Message>,
    /// What is to be done.
    pub orders: Vec<Order>,
    /// Whether anything changed that has to survive a restart.
    pub changed: bool,
}

/// What has to survive a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// By fingerprint.
    pub alerts: BTreeMap<String, Alert>,
    /// Silences, ended ones too for as long as they are shown.
    pub silences: Vec<Silence>,
    groups: BTreeMap<String, Group>,
    number: u64,
}

/// What a notifier has been told of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    since: Timestamp,
    sent: Option<Timestamp>,
    /// The alerts that it was told are firing.
    told: BTreeSet<String>,
}

/// The rules and what they have found.
#[derive(Debug)]
pub struct Engine {
    rules: Rules,
    all: Vec<(Rule, Judge)>,
    state: State,
    /// When this engine looked first, and last.
    began: Option<Timestamp>,
    looked: Option<Timestamp>,
    problems: BTreeMap<String, String>,
}

impl Engine {
    /// Goes on from a state; alerts of rules that are no more are over at the next look.
    pub fn new(rules: Rules, state: State) -> Self {
        let all = rules.all().into_iter().map(|rule| (rule, Judge::default())).collect();
        Self { rules, all, state, began: None, looked: None, problems: BTreeMap::new() }
    }

    /// What has to survive a restart.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The rules that hold.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.all.iter().map(|(rule, _)| rule)
    }

    /// When it was looked the last time.
    pub fn looked(&self) -> Option<Timestamp> {
        self.looked
    }

    /// Rules that cannot be judged, and why.
    pub fn problems(&self) -> &BTreeMap<String, String> {
        &self.problems
    }

    /// Looks at how things are now and at what has happened since the last look.
    pub fn look(&mut self, now: Timestamp, samples: &[Sample], events: &[Event]) -> Outcome {
        let mut outcome = Outcome::default();
        // Time that was slept through, or that a clock jumped over, was not watched.
        let most = self.rules.every * 3;
        let passed = self.looked.map_or(SignedDuration::ZERO, |before| now.duration_since(before));
        let passed = passed.clamp(SignedDuration::ZERO, most);
        self.looked = Some(now);
        self.began.get_or_insert(now);
        let mut by_metric = ByMetric::new();
        for sample in samples {
            by_metric.entry(&sample.metric).or_default().push(sample);
        }
        self.problems.clear();
        let mut seen = BTreeSet::new();
        for (rule, judge) in &mut self.all {
            let found;
            let judged: Vec<(Place<'_>, Judged)> = match &rule.event {
                Some(name) => {
                    let happened = events.iter().filter(|event| event.name == *name);
                    let happened = happened.filter(|event| matches(&rule.only, &event.labels));
                    happened
                        .map(|event| Place::new(rule, &event.labels, &event.text))
                        .map(|place| (place, Some((true, None))))
                        .collect()
                }
                None => {
                    found = match judge.judge(rule, &by_metric, now) {
                        Ok(found) => found,
                        Err(problem) => {
                            self.problems.insert(rule.name.clone(), problem);
                            continue;
                        }
                    };
                    let judge = |(labels, found)| {
                        let place = Place::new(rule, labels, "");
                        let fires = self.state.fires(&place.key);
                        (place, verdict(rule, found, fires))
                    };
                    found.iter().map(judge).collect()
                }
            };
            for (place, judged) in judged {
                outcome.changed |= self.state.advance(&place, judged, now, passed);
                outcome.orders.extend(self.state.orders(&place, now));
                seen.insert(place.key);
            }
        }
        outcome.changed |= self.end_unseen(&seen, now, passed);
        self.state.hush(&self.rules, now);
        outcome.messages = self.state.messages(&self.rules, now);
        outcome.changed |= !outcome.messages.is_empty();
        outcome
    }

    /// Keeps alerts quiet; says by which name.
    pub fn silence(&mut self, mut silence: Silence, now: Timestamp) -> Result<String, String> {
        if silence.only.is_empty() {
            return Err("a silence needs `where`: the labels of what is to be quiet".into());
        }
        if silence.until <= silence.from.max(now) {
            return Err("a silence has to end in the future, after it begins".into());
        }
        if self.state.silences.len() >= MOST {
            return Err(format!("there are {MOST} silences: remove some first"));
        }
        self.state.number += 1;
        silence.id = format!("s{}", self.state.number);
        let id = silence.id.clone();
        self.state.silences.push(silence);
        self.state.hush(&self.rules, now);
        Ok(id)
    }

    /// Ends a silence; whether there was one.
    pub fn unsilence(&mut self, id: &str, now: Timestamp) -> bool {
        let before = self.state.silences.len();
        self.state.silences.retain(|silence| silence.id != id);
        self.state.hush(&self.rules, now);
        self.state.silences.len() < before
    }

    /// What is no longer counted is no longer wrong, and what no rule watches is over.
    fn end_unseen(
        &mut self,
        seen: &BTreeSet<String>,
        now: Timestamp,
        passed: SignedDuration,
    ) -> bool {
        let state = &mut self.state;
        let unseen: Vec<String> =
            state.alerts.keys().filter(|key| !seen.contains(*key)).cloned().collect();
        let mut changed = false;
        for key in unseen {
            let alert = &state.alerts[&key];
            let name = alert.labels.get("alertname");
            let rule = self.all.iter().find(|(rule, _)| Some(&rule.name) == name);
            // After a start counters are there only once something is counted again.
            let waits = rule.is_some_and(|(rule, _)| {
                let began = self.began.unwrap_or(now);
                alert.since < began && now.duration_since(began) < rule.window()
            });
            if waits && alert.stage == Stage::Firing {
                continue;
            }
            let keep = rule.map_or(SignedDuration::ZERO, |(rule, _)| rule.keep);
            changed |= state.ends(&key, keep, now, passed);
        }
        changed
    }
}

/// Whether things are wrong, and the number that says so; nothing where nothing is known.
type Judged = Option<(bool, Option<f64>)>;

fn verdict(rule: &Rule, found: &Found, fires: bool) -> Judged {
    match found {
        Found::Number(value) => Some((is_wrong(rule, *value, fires), Some(*value))),
        Found::Partly(value) => {
            let wrong = is_wrong(rule, *value, fires);
            // That it is over cannot be seen yet.
            (wrong || !fires).then_some((wrong, Some(*value)))
        }
        Found::TooFew => None,
    }
}

/// A rule and one of its groups.
struct Place<'a> {
    rule: &'a Rule,
    labels: &'a Labels,
    /// What is to be said of it.
    text: &'a str,
    /// The labels of its alert.
    all: Labels,
    /// Its alert's fingerprint.
    key: String,
}

impl<'a> Place<'a> {
    fn new(rule: &'a Rule, labels: &'a Labels, text: &'a str) -> Self {
        use std::hash::Hasher;
        let mut all = labels.clone();
        all.extend(rule.labels.clone());
        all.insert("alertname".to_owned(), rule.name.clone());
        let severity = rule.severity.as_deref().unwrap_or("warning");
        all.insert("severity".to_owned(), severity.to_owned());
        let mut hasher = twox_hash::XxHash64::with_seed(0);
        for (label, value) in &all {
            hasher.write(format!("{label:?}={value:?},").as_bytes());
        }
        let key = format!("{:016x}", hasher.finish());
        Self { rule, labels, text, all, key }
    }

    fn summary(&self, value: Option<f64>) -> String {
        let plain = || format!("{} on {}", self.rule.name, said(self.labels));
        let mut text = self.rule.summary.clone().unwrap_or_else(plain);
        if let Some(value) = value {
            text = text.replace("{value}", &shown(self.rule, value));
        }
        text = text.replace("{text}", self.text);
        for (label, value) in self.labels {
            text = text.replace(&format!("{{{label}}}"), value);
        }
        text.chars().take(1000).collect()
    }
}

impl State {
    fn fires(&self, key: &str) -> bool {
        self.alerts.get(key).is_some_and(|alert| alert.stage == Stage::Firing)
    }

    /// Moves an alert on. Says whether it has entered another stage.
    fn advance(
        &mut self,
        place: &Place<'_>,
        judged: Judged,
        now: Timestamp,
        passed: SignedDuration,
    ) -> bool {
        let (key, rule) = (&place.key, place.rule);
        let Some((true, value)) = judged else {
            let Some(alert) = self.alerts.get(key) else { return false };
            let keep = match judged {
                None if alert.stage == Stage::Firing => rule.keep.max(BLIND),
                _ => rule.keep,
            };
            return self.ends(key, keep, now, passed);
        };
        let is_known = self.alerts.get(key).is_some_and(|alert| alert.stage != Stage::Resolved);
        if !is_known {
            if self.alerts.len() >= MOST && !self.alerts.contains_key(key) {
                return false;
            }
            let alert = Alert {
                fingerprint: key.clone(),
                labels: place.all.clone(),
                stage: Stage::Pending,
                since: now,
                fired: None,
                ended: None,
                value,
                summary: String::new(),
                runbook: rule.runbook.clone(),
                quiet: BTreeSet::new(),
                held: SignedDuration::ZERO,
            };
            self.alerts.insert(key.clone(), alert);
        }
        let alert = self.alerts.get_mut(key).expect("it was put there");
        alert.value = value;
        alert.summary = place.summary(value);
        match alert.stage {
            Stage::Pending => {
                if is_known {
                    alert.held += passed;
                }
                if alert.held >= rule.hold {
                    (alert.stage, alert.fired) = (Stage::Firing, Some(now));
                    alert.held = SignedDuration::ZERO;
                    return true;
                }
                !is_known
            }
            _ => {
                alert.held = SignedDuration::ZERO;
                false
            }
        }
    }

    /// Moves an alert towards its end.
    fn ends(
        &mut self,
        key: &str,
        keep: SignedDuration,
        now: Timestamp,
        passed: SignedDuration,
    ) -> bool {
        let Some(alert) = self.alerts.get_mut(key) else { return false };
        match alert.stage {
            Stage::Pending => {
                self.alerts.remove(key);
                true
            }
            Stage::Firing => {
                alert.held += passed;
                if alert.held < keep {
                    return false;
                }
                (alert.stage, alert.ended) = (Stage::Resolved, Some(now));
                true
            }
            Stage::Resolved => {
                let ended = alert.ended.unwrap_or(now);
                let is_told = !self.groups.values().any(|group| group.told.contains(key));
                let is_old = now.duration_since(ended) >= SHOWN;
                if is_old && is_told {
                    self.alerts.remove(key);
                }
                is_old && is_told
            }
        }
    }

    /// What an alert wants done that has just fired.
    fn orders(&self, place: &Place<'_>, now: Timestamp) -> Vec<Order> {
        let Some(alert) = self.alerts.get(&place.key).filter(|alert| alert.fired == Some(now))
        else {
            return Vec::new();
        };
        let Some(model) = alert.labels.get("model") else { return Vec::new() };
        let order = |act: &Act| Order {
            act: *act,
            model: model.clone(),
            version: alert.labels.get("version").cloned(),
            why: alert.summary.clone(),
            alert: place.rule.name.clone(),
        };
        place.rule.act.iter().map(order).collect()
    }

    /// Says which alerts are kept quiet, and by what.
    fn hush(&mut self, rules: &Rules, now: Timestamp) {
        self.silences.retain(|silence| now.duration_since(silence.until) < SHOWN);
        let firing: Vec<(String, Labels)> = self
            .alerts
            .values()
            .filter(|alert| alert.stage == Stage::Firing)
            .map(|alert| (alert.fingerprint.clone(), alert.labels.clone()))
            .collect();
        for alert in self.alerts.values_mut() {
            let silences = self.silences.iter().filter(|silence| {
                silence.from <= now && now < silence.until && matches(&silence.only, &alert.labels)
            });
            alert.quiet = silences.map(|silence| silence.id.clone()).collect();
            for inhibit in rules.inhibit.iter().filter(|one| matches(&one.only, &alert.labels)) {
                let by = firing.iter().find(|(fingerprint, labels)| {
                    *fingerprint != alert.fingerprint
                        && matches(&inhibit.by, labels)
                        && inhibit
                            .equal
                            .iter()
                            .all(|label| labels.get(label) == alert.labels.get(label))
                });
                alert.quiet.extend(by.map(|(_, labels)| labels["alertname"].clone()));
            }
        }
    }

    fn messages(&mut self, rules: &Rules, now: Timestamp) -> Vec<Message> {
        let mut firing: BTreeMap<(String, Labels), BTreeSet<String>> = BTreeMap::new();
        for alert in self.alerts.values() {
            let is_said = alert.stage == Stage::Firing && alert.quiet.is_empty();
            for to in receivers(rules, &alert.labels) {
                let group = (to, group_of(rules, &alert.labels));
                if is_said {
                    firing.entry(group).or_default().insert(alert.fingerprint.clone());
                } else if self.groups.contains_key(&name_of(&group)) {
                    // It has been told of alerts, and may have none now.
                    firing.entry(group).or_default();
                }
            }
        }
        let mut messages = Vec::new();
        let mut kept = BTreeMap::new();
        for (group, current) in firing {
            let name = name_of(&group);
            let mut known = self.groups.remove(&name).unwrap_or(Group {
                since: now,
                sent: None,
                told: BTreeSet::new(),
            });
            // What was quietened is neither told again nor told to be over.
            let is_over = |key: &String| {
                self.alerts.get(key).is_none_or(|alert| alert.stage == Stage::Resolved)
            };
            known.told.retain(|key| current.contains(key) || is_over(key));
            if current.is_empty() && known.told.is_empty() {
                continue;
            }
            let wait = match rules.notifiers.get(&group.0) {
                Some(notifier) => notifier.grouping(&rules.grouping),
                None => rules.grouping.clone(),
            };
            if is_due(&known, &current, &wait, now) {
                let over = known.told.difference(&current);
                let keys = current.iter().chain(over);
                let mut alerts: Vec<Alert> =
                    keys.filter_map(|key| self.alerts.get(key).cloned()).collect();
                alerts.sort_by(|a, b| (a.stage, &a.labels).cmp(&(b.stage, &b.labels)));
                self.number += 1;
                let id = format!("{}-{}", now.as_millisecond(), self.number);
                let (to, group) = group;
                messages.push(Message { id, to, group, at: now, alerts });
                known.sent = Some(now);
                known.told = current;
                if known.told.is_empty() {
                    continue;
                }
            }
            kept.insert(name, known);
        }
        self.groups = kept;
        messages
    }
}

fn is_due(group: &Group, current: &BTreeSet<String>, wait: &Grouping, now: Timestamp) -> bool {
    // A clock that was set back must not keep anything quiet for long.
    let passed = |since: Timestamp| match since <= now {
        true => now.duration_since(since),
        false => SignedDuration::MAX,
    };
    match group.sent {
        None => passed(group.since) >= wait.wait,
        Some(sent) if *current != group.told => passed(sent) >= wait.interval,
        Some(sent) => !current.is_empty() && passed(sent) >= wait.repeat,
    }
}

fn name_of((to, group): &(String, Labels)) -> String {
    format!("{to} {group:?}")
}

fn group_of(rules: &Rules, labels: &Labels) -> Labels {
    let by = rules.grouping.by.iter();
    by.filter_map(|label| labels.get(label).map(|value| (label.clone(), value.clone()))).collect()
}

fn receivers(rules: &Rules, labels: &Labels) -> Vec<String> {
    if rules.routes.is_empty() {
        return rules.notifiers.keys().cloned().collect();
    }
    let route = rules.routes.iter().find(|route| matches(&route.only, labels));
    route.map(|route| route.to.clone()).unwrap_or_default()
}

/// Whether a number is on the wrong side: of the threshold, or once it fires of what clears it.
fn is_wrong(rule: &Rule, value: f64, fires: bool) -> bool {
    let clear = rule.clear.filter(|_| fires);
    match (rule.above, rule.below) {
        (Some(above), _) => value > clear.unwrap_or(above),
        (None, Some(below)) => value < clear.unwrap_or(below),
        (None, None) => false,
    }
}

fn said(labels: &Labels) -> String {
    let pairs: Vec<String> =
        labels.iter().map(|(label, value)| format!("{label} {value}")).collect();
    if pairs.is_empty() { "this server".to_owned() } else { pairs.join(", ") }
}

/// A number as people read it, by the unit that the metric's name ends in.
fn shown(rule: &Rule, value: f64) -> String {
    let metric = rule.metric.as_deref().unwrap_or_default();
    if rule.burn.is_some() {
        format!("{value:.1}")
    } else if rule.is_ratio() || metric.ends_with("_ratio") {
        format!("{:.1}\u{a0}%", value * 100.0)
    } else if metric.ends_with("_seconds") && value < 1.0 {
        format!("{:.1}\u{a0}ms", value * 1000.0)
    } else if metric.ends_with("_seconds") {
        format!("{value:.2}\u{a0}s")
    } else if metric.ends_with("_bytes") {
        format!("{:.1}\u{a0}MiB", value / f64::from(1 << 20))
    } else if value.fract() == 0.0 && value.abs() < 1e15 {
        format!("{value:.0}")
    } else {
        format!("{value:.3}")
    }
}
