//! Which version gave which answer, for as long as feedback on it may come.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use model::{Observation, Outcome};
use serde::{Deserialize, Serialize};

use crate::Feedback;
use crate::tally::{Answer, answers};

/// Answers that are remembered, at most: about 100 bytes each.
const ANSWERS: usize = 200_000;

/// What a caller says about an answer, as the endpoint takes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Said {
    /// What the answer should have been: the first output's label, class number or value.
    pub label: Option<Label>,
    /// Whether it was right, for those who know that alone.
    pub right: Option<bool>,
    /// Numbers by name.
    pub metrics: std::collections::BTreeMap<String, f64>,
    /// The version that answered, as the answer had it. Only needed if the server that gave the
    /// answer is gone.
    pub model_version: Option<String>,
}

/// What an answer should have been.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Label {
    /// A number, or the number of a class.
    Number(f64),
    /// A class by its name.
    Name(String),
    /// A class that is there or not, as 1 or 0.
    Is(bool),
}

/// The latest answers by request id. Shadows' answers are not among them: no caller saw one.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    answers: HashMap<Arc<str>, (u64, Option<Answer>)>,
    order: VecDeque<Arc<str>>,
}

impl Memory {
    pub(crate) fn remember(&mut self, observation: &Observation) {
        let (Some(id), None) = (&observation.id, &observation.shadow) else { return };
        let Ok(version) = observation.version.parse() else { return };
        if observation.outcome != Outcome::Answered {
            return;
        }
        // Feedback is about one row; of a request with several it says nothing of a label.
        let answer = match answers(&observation.outputs)[..] {
            [answer] => Some(answer),
            _ => None,
        };
        if self.answers.insert(id.clone(), (version, answer)).is_none() {
            self.order.push_back(id.clone());
        }
        if self.order.len() > ANSWERS
            && let Some(oldest) = self.order.pop_front()
        {
            self.answers.remove(&oldest);
        }
    }

    /// The version that it is about and what it says of it, if this server can know.
    pub(crate) fn join(&self, feedback: &registry::Feedback) -> Option<(u64, Feedback)> {
        let said: Said = serde_json::from_value(feedback.body.clone()).ok()?;
        let Some((version, answer)) = self.answers.get(&*feedback.request) else {
            // Whoever says which version it was needs nobody who remembers, but for a label.
            let version = said.model_version.as_ref()?.parse().ok()?;
            let known = said.label.is_none() || said.right.is_some();
            return known
                .then(|| (version, Feedback { metrics: said.metrics.clone(), right: said.right }));
        };
        let mut metrics = said.metrics;
        let mut right = said.right;
        let label = said.label.map(|label| match label {
            Label::Is(is) => Label::Number(f64::from(u8::from(is))),
            other => other,
        });
        if let (Some(label), Some(answer)) = (&label, answer) {
            right = right.or_else(|| is_right(answer, label));
            if let (Answer::Number(predicted), Label::Number(actual)) = (answer, label) {
                metrics.entry("absolute_error".to_owned()).or_insert((predicted - actual).abs());
            }
        }
        Some((*version, Feedback { metrics, right }))
    }
}

/// Whether a prediction is what the label says. `None` where they cannot be compared.
fn is_right(answer: &Answer, label: &Label) -> Option<bool> {
    match (answer, label) {
        (Answer::Number(predicted), Label::Number(actual)) => {
            let scale = predicted.abs().max(actual.abs());
            Some((predicted - actual).abs() <= 1e-6 * scale)
        }
        (Answer::Category(category), Label::Number(actual)) => Some(*category as f64 == *actual),
        (Answer::Category(category), Label::Name(name)) => {
            Some(*category == crate::tally::category(name.as_bytes()))
        }
        (Answer::Number(_), Label::Name(_)) | (_, Label::Is(_)) => None,
    }
}
