//! Alerts: rules over metrics and events, what they have found, and who is told.
//!
//! [`Engine`] is the pure part: samples and time in, messages out. [`Desk`] keeps its state in a
//! file and delivers: at least once, each message under an id that stays the same when it is sent
//! again, and a notifier that is away keeps nobody else waiting.

mod desk;
mod engine;
mod judge;
mod notifier;
mod rules;
mod sample;
mod send;
mod window;

pub use desk::{Count, Desk};
pub use engine::{Alert, Engine, Message, Order, Outcome, Silence, Stage, State};
pub use notifier::{Mailing, Notifier, Secret, Sending};
pub use rules::{Act, Grouping, Inhibit, Route, Rule, Rules, Slo};
pub use sample::{Buckets, Event, Labels, Sample, Value};
