//! What is wrong, whom it is told, and when it is kept quiet: the rules, as TOML.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use jiff::fmt::serde::duration::friendly::compact;
use model::ErrorCode;
use serde::{Deserialize, Serialize};

use super::notifier::Notifier;

/// The longest time that a rule may name.
const LONGEST: SignedDuration = SignedDuration::from_hours(31 * 24);

/// All that is to be watched, and who is told. As TOML, every field may be left out.
///
/// ```
/// let rules = monitor::alerts::Rules::parse(r#"
///     [[rules]]
///     name = "Slow"
///     metric = "modelyard_request_duration_seconds"
///     quantile = 0.99
///     above = 0.05
///     for = "2m"
///     severity = "critical"
///     [notifiers.hook]
///     kind = "webhook"
///     url = "http://127.0.0.1:9000/alerts"
/// "#)?;
/// assert_eq!(rules.rules[0].name, "Slow");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// How often the rules are looked at; 1 s to 5 min.
    #[serde(serialize_with = "compact::required")]
    pub every: SignedDuration,
    /// Whether the [built-in rules](Rules::built_in) hold as well; one of the same name replaces
    /// the built-in one.
    pub defaults: bool,
    /// What is wrong.
    pub rules: Vec<Rule>,
    /// Promises, each of which becomes alarms on the rate at which its budget is spent.
    pub slos: Vec<Slo>,
    /// How alerts become messages.
    pub grouping: Grouping,
    /// Who is told of which alerts: the first one that matches. Without any, everybody of all.
    pub routes: Vec<Route>,
    /// Alerts that keep others quiet.
    pub inhibit: Vec<Inhibit>,
    /// Who is told, by name.
    pub notifiers: BTreeMap<String, Notifier>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            every: SignedDuration::from_secs(5),
            defaults: true,
            rules: Vec::new(),
            slos: Vec::new(),
            grouping: Grouping::default(),
            routes: Vec::new(),
            inhibit: Vec::new(),
            notifiers: BTreeMap::new(),
        }
    }
}

/// One thing that may be wrong.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// What it is called; unique.
    pub name: String,
    /// The metric that is looked at, by the name that `/metrics` has for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// An event that fires in place of a metric, such as `rollout.rolled_back`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// What the metric is divided by: a ratio of two counters' increases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per: Option<String>,
    /// Labels of the part of a counter that is looked at: a ratio of its increase to all of it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub part: BTreeMap<String, String>,
    /// The quantile of a histogram, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantile: Option<f64>,
    /// Over which time a counter's or a histogram's increase is taken.
    #[serde(serialize_with = "compact::optional", skip_serializing_if = "Option::is_none")]
    pub window: Option<SignedDuration>,
    /// Fires above this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub above: Option<f64>,
    /// Fires below this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub below: Option<f64>,
    /// Once it fires, it is over only on the other side of this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clear: Option<f64>,
    /// How many events (of `per`, else of `metric`) the window has to have before it is judged.
    #[serde(skip_serializing_if = "is_default")]
    pub least: f64,
    /// How long it has to be wrong before it fires.
    #[serde(
        rename = "for",
        serialize_with = "compact::required",
        skip_serializing_if = "is_default"
    )]
    pub hold: SignedDuration,
    /// How long it has to be right again before it is over.
    #[serde(serialize_with = "compact::required", skip_serializing_if = "is_default")]
    pub keep: SignedDuration,
    /// The series that count, by their labels; `*` stands for any text, `|` parts alternatives.
    #[serde(rename = "where", skip_serializing_if = "BTreeMap::is_empty")]
    pub only: BTreeMap<String, String>,
    /// The labels that make alerts of their own; series that differ in others are taken together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<Vec<String>>,
    /// `info`, `warning` or `critical`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
    /// Labels that its alerts get.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// One line; `{value}` and `{LABEL}` stand for what they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// Where it says what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runbook: Option<String>,
    /// What is done at once when it fires.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub act: Vec<Act>,
    /// How fast a budget is spent, in place of a threshold.
    #[serde(skip)]
    pub burn: Option<Burn>,
}

/// What an alert may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// Pauses the model's rollout.
    PauseRollout,
    /// Takes the model's rollout back, or the last promotion if there is none.
    RollBack,
    /// Asks for the model to be trained again.
    Retrain,
}

/// A promise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Slo {
    /// What it is called.
    pub name: String,
    /// The models that it is about; `*` stands for any text.
    pub models: String,
    /// The part of requests that has to be good, such as 0.999.
    pub objective: f64,
    /// A request is good if it was answered within this; without it, if it was answered.
    #[serde(serialize_with = "compact::optional", skip_serializing_if = "Option::is_none")]
    pub latency: Option<SignedDuration>,
}

impl Default for Slo {
    fn default() -> Self {
        Self { name: String::new(), models: "*".to_owned(), objective: 0.99, latency: None }
    }
}

/// How fast a budget is spent: `factor` times as fast as it lasts, over a long and over a short time.
#[derive(Clone, Debug, PartialEq)]
pub struct Burn {
    /// The part of requests that may be bad.
    pub budget: f64,
    /// Good are answers within this many seconds; without it, all answers.
    pub within: Option<f64>,
    /// The time that says that it matters.
    pub long: SignedDuration,
    /// The time that says that it is still so.
    pub short: SignedDuration,
    /// How many times as fast.
    pub factor: f64,
}

/// How alerts become messages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grouping {
    /// Alerts that agree in these labels come in one message.
    pub by: Vec<String>,
    /// How long the first message of a group waits for further alerts.
    #[serde(serialize_with = "compact::required")]
    pub wait: SignedDuration,
    /// How long a group's next message waits after a change.
    #[serde(serialize_with = "compact::required")]
    pub interval: SignedDuration,
    /// After which time a group that still fires is told again.
    #[serde(serialize_with = "compact::required")]
    pub repeat: SignedDuration,
}

impl Default for Grouping {
    fn default() -> Self {
        Self {
            by: vec!["model".to_owned()],
            wait: SignedDuration::from_secs(10),
            interval: SignedDuration::from_mins(5),
            repeat: SignedDuration::from_hours(4),
        }
    }
}

/// Who is told of which alerts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Route {
    /// Labels of the alerts that it is for; `*` stands for any text. `alertname` and `severity`
    /// are labels too.
    #[serde(rename = "where", skip_serializing_if = "BTreeMap::is_empty")]
    pub only: BTreeMap<String, String>,
    /// The notifiers, by name; none keeps these alerts quiet.
    pub to: Vec<String>,
}

/// Alerts that keep others quiet while they fire.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Inhibit {
    /// Labels of those that keep quiet.
    pub by: BTreeMap<String, String>,
    /// Labels of those that are kept quiet.
    #[serde(rename = "where")]
    pub only: BTreeMap<String, String>,
    /// Labels in which the two have to agree.
    pub equal: Vec<String>,
}

impl Rules {
    /// The [built-in rules](Self::built_in) as a file.
    pub const BUILT_IN: &str = include_str!("built_in.toml");

    /// Reads rules and says what is wrong with them.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rules: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        rules.check()?;
        Ok(rules)
    }

    /// The rules that hold: those written, promises as rules, and the built-in ones that no rule of
    /// the same name replaces.
    pub fn all(&self) -> Vec<Rule> {
        let mut rules = self.rules.clone();
        rules.extend(self.slos.iter().flat_map(Slo::rules));
        if self.defaults {
            let known: BTreeSet<String> = rules.iter().map(|rule| rule.name.clone()).collect();
            let built_in = Self::built_in().into_iter();
            rules.extend(built_in.filter(|rule| !known.contains(&rule.name)));
        }
        rules
    }

    /// What is watched of every model without any file.
    pub fn built_in() -> Vec<Rule> {
        let rules: Self = toml::from_str(Self::BUILT_IN).expect("the built-in rules are right");
        rules.rules
    }

    fn check(&self) -> Result<(), String> {
        span("every", self.every, 1, 300)?;
        for (name, time) in
            [("grouping.wait", self.grouping.wait), ("grouping.interval", self.grouping.interval)]
        {
            span(name, time, 0, LONGEST.as_secs())?;
        }
        span("grouping.repeat", self.grouping.repeat, 60, LONGEST.as_secs())?;
        let mut names = BTreeSet::new();
        for (i, rule) in self.rules.iter().enumerate() {
            let called = match rule.name.is_empty() {
                true => format!("rules[{i}]"),
                false => format!("rule {:?}", rule.name),
            };
            rule.check().map_err(|error| format!("{called}: {error}"))?;
            if !names.insert(&rule.name) {
                return Err(format!("{called}: another rule has this name"));
            }
        }
        for slo in &self.slos {
            let called = format!("slo {:?}", slo.name);
            slo.check().map_err(|error| format!("{called}: {error}"))?;
            if !names.insert(&slo.name) {
                return Err(format!("{called}: another rule has this name"));
            }
        }
        for (i, route) in self.routes.iter().enumerate() {
            if let Some(name) = route.to.iter().find(|name| !self.notifiers.contains_key(*name)) {
                let known: Vec<&str> = self.notifiers.keys().map(String::as_str).collect();
                let known = match known.is_empty() {
                    true => "there are none".to_owned(),
                    false => format!("there are {}", known.join(", ")),
                };
                return Err(format!("routes[{i}]: no notifier is called {name:?}; {known}"));
            }
        }
        for (i, inhibit) in self.inhibit.iter().enumerate() {
            if inhibit.by.is_empty() || inhibit.only.is_empty() {
                return Err(format!("inhibit[{i}]: needs both `by` and `where`"));
            }
        }
        for (name, notifier) in &self.notifiers {
            notifier.check().map_err(|error| format!("notifier {name:?}: {error}"))?;
        }
        Ok(())
    }
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        let is_name = |name: &str| {
            let mut letters = name.chars();
            letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
                && letters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
                && name.len() <= 100
        };
        if !is_name(&self.name) {
            return Err(
                "`name` has to be a letter and then letters, digits, '_', '-' or '.'".into()
            );
        }
        match (&self.metric, &self.event) {
            (None, None) => return Err("needs a `metric` or an `event`".into()),
            (Some(_), Some(_)) => return Err("has both a `metric` and an `event`".into()),
            (None, Some(_)) => {
                let has_more = self.above.is_some() || self.below.is_some() || self.is_ratio();
                if has_more || self.quantile.is_some() || self.window.is_some() {
                    return Err("an `event` has no threshold, window, quantile or `per`".into());
                }
            }
            (Some(_), None) => self.check_threshold()?,
        }
        if let Some(severity) = &self.severity
            && !["info", "warning", "critical"].contains(&severity.as_str())
        {
            return Err(format!(
                "`severity` is {severity:?}; expected \"info\", \"warning\" or \"critical\""
            ));
        }
        if let Some(window) = self.window {
            span("window", window, 5, LONGEST.as_secs())?;
        }
        span("for", self.hold, 0, LONGEST.as_secs())?;
        span("keep", self.keep, 0, LONGEST.as_secs())?;
        let by = self.by.iter().flatten().map(String::as_str);
        if !self.act.is_empty() && self.by.is_some() && !by.clone().any(|label| label == "model") {
            return Err("what has to `act` needs the model: `by` has to name \"model\"".into());
        }
        let labels = self.labels.keys().chain(self.only.keys()).map(String::as_str).chain(by);
        match labels.into_iter().find(|label| !is_name(label)) {
            Some(label) => Err(format!("{label:?} is no label")),
            None => Ok(()),
        }
    }

    fn check_threshold(&self) -> Result<(), String> {
        let threshold = match (self.above, self.below) {
            (Some(above), None) => above,
            (None, Some(below)) => below,
            _ => return Err("needs either `above` or `below`".into()),
        };
        if !threshold.is_finite() || !self.least.is_finite() || self.least < 0.0 {
            return Err("the threshold and `least` have to be finite, `least` not below 0".into());
        }
        if let Some(clear) = self.clear {
            let is_beyond = match self.above {
                Some(above) => clear > above,
                None => clear < threshold,
            };
            if is_beyond || !clear.is_finite() {
                return Err("`clear` has to lie on the side of the threshold that is right".into());
            }
        }
        match self.quantile {
            Some(quantile) if !(quantile > 0.0 && quantile < 1.0) => {
                Err(format!("`quantile` is {quantile}; expected one between 0 and 1, such as 0.99"))
            }
            Some(_) if self.is_ratio() => Err("has both a `quantile` and a ratio".into()),
            _ if self.per.is_some() && !self.part.is_empty() => {
                Err("has both `per` and `part`".into())
            }
            _ => Ok(()),
        }
    }

    /// Whether it is about a part of something.
    pub fn is_ratio(&self) -> bool {
        self.per.is_some() || !self.part.is_empty()
    }

    /// Over which time an increase is taken.
    pub fn window(&self) -> SignedDuration {
        self.window.unwrap_or(SignedDuration::from_mins(5))
    }

    /// The labels that make alerts of their own.
    pub fn by(&self) -> Vec<String> {
        self.by.clone().unwrap_or_else(|| vec!["model".to_owned(), "version".to_owned()])
    }
}

/// Burn rates over a long and a short time, and how bad they are: two that cannot wait and one that
/// can. They spend 2 %, 5 % and 10 % of a budget of 30 days.
const BURNS: [(i64, i64, f64, &str); 3] =
    [(60, 5, 14.4, "critical"), (6 * 60, 30, 6.0, "critical"), (72 * 60, 6 * 60, 1.0, "warning")];

impl Slo {
    fn check(&self) -> Result<(), String> {
        if self.name.is_empty() {
            return Err("needs a `name`".into());
        }
        if !(self.objective > 0.0 && self.objective < 1.0) {
            return Err(format!(
                "`objective` is {}; expected a part between 0 and 1, such as 0.999",
                self.objective
            ));
        }
        match self.latency {
            Some(latency) if latency.is_zero() || latency.is_negative() => {
                Err("`latency` has to be above 0".into())
            }
            _ => Ok(()),
        }
    }

    /// Its alarms: one for each pair of burn rates, under one name.
    fn rules(&self) -> Vec<Rule> {
        let rule = |(long, short, factor, severity): (i64, i64, f64, &str)| {
            let promise = match self.latency {
                Some(latency) => format!("answered within {latency:#}"),
                None => "answered".to_owned(),
            };
            let metric = match self.latency {
                Some(_) => "modelyard_request_duration_seconds",
                None => "modelyard_requests_total",
            };
            let mut only = BTreeMap::from([("model".to_owned(), self.models.clone())]);
            let mut part = BTreeMap::new();
            if self.latency.is_none() {
                let to_blame = ErrorCode::TO_BLAME.map(ErrorCode::as_str).join("|");
                only.insert("code".to_owned(), format!("OK|{to_blame}"));
                part.insert("code".to_owned(), to_blame);
            }
            Rule {
                name: format!("{}-{}h", self.name, long / 60),
                metric: Some(metric.to_owned()),
                part,
                above: Some(factor),
                only,
                by: Some(vec!["model".to_owned()]),
                severity: Some(severity.to_owned()),
                labels: BTreeMap::from([("slo".to_owned(), self.name.clone())]),
                summary: Some(format!(
                    "{{model}} spends its budget {{value}} times too fast: {}\u{a0}% are to be {promise}",
                    self.objective * 100.0
                )),
                burn: Some(Burn {
                    budget: 1.0 - self.objective,
                    within: self.latency.map(|latency| latency.as_secs_f64()),
                    long: SignedDuration::from_mins(long),
                    short: SignedDuration::from_mins(short),
                    factor,
                }),
                ..Rule::default()
            }
        };
        BURNS.map(rule).into()
    }
}

/// Whether labels are as they have to be.
pub fn matches(only: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    only.iter().all(|(label, pattern)| {
        let value = labels.get(label).map_or("", String::as_str);
        pattern.split('|').any(|pattern| is_like(pattern, value))
    })
}

/// Whether a text is like a pattern, in which `*` stands for any text.
fn is_like(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match text.find(part) {
            Some(place) => text = &text[place + part.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

fn span(name: &str, time: SignedDuration, least: i64, most: i64) -> Result<(), String> {
    let seconds = time.as_secs();
    let (low, high) = (SignedDuration::from_secs(least), SignedDuration::from_secs(most));
    match time.is_negative() || seconds < least || time > high {
        true => Err(format!("`{name}` is {time:#}; expected {low:#} to {high:#}")),
        false => Ok(()),
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("fraud", "fraud", true),
            ("fraud", "fraud-2", false),
            ("fraud*", "fraud-2", true),
            ("*-eu", "fraud-eu", true),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "a1c2b", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(is_like(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn built_in_rules_are_right() {
        let rules = Rules { rules: Rules::built_in(), ..Rules::default() };
        rules.check().unwrap();
        assert!(rules.rules.len() >= 5);
    }
}
