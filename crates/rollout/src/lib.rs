//! Decides a rollout by evidence: whether a candidate gets more of the traffic, replaces the
//! champion, or is taken back.
//!
//! Each server keeps a [`Tally`] of what it observes and hands out a [`Block`] for each stretch of
//! time. Whoever drives the rollout adds the blocks of all servers to a [`Report`] and asks
//! [`next`], a pure function, what to do. The tests behind it stay valid however often they are
//! looked at; `docs/rollout-statistics.md` has the method and what it assumes.
//!
//! Knows nothing of serving, and never reads the clock: time is always an argument.
//!
//! ```
//! use jiff::Timestamp;
//! use rollout::{Action, Plan, Report, next};
//!
//! let plan = Plan::parse("alpha = 0.005")?;
//! let now: Timestamp = "2026-11-24T12:00Z".parse().unwrap();
//! let mut report = Report::new(&plan, 3, &[4], now)?;
//! let action = next(&plan, &report, now).expect("a rollout begins with its first step");
//! let Action::Move { step: 0, shares, .. } = &action else { panic!("{action:?}") };
//! assert!(shares[1].shadow, "the default plan begins with a shadow");
//! report.applied(&action, now);
//! assert!(next(&plan, &report, now).is_none(), "there is nothing to decide on yet");
//! # Ok::<(), rollout::Error>(())
//! ```

mod block;
mod decide;
mod drive;
mod error;
mod evidence;
mod guard;
mod memory;
mod odds;
mod plan;
mod plot;
#[cfg(test)]
mod reference;
mod report;
pub mod simulate;
mod sketch;
mod start;
mod tally;
mod thompson;
mod wealth;

pub use block::{Block, Counts, Feedback, Mean, Shadowed};
pub use decide::{Action, next};
pub use drive::{Counting, Driver, decision};
pub use error::{Error, Result};
pub use memory::{Label, Said};
pub use plan::{
    Agreement, Better, Distribution, Errors, Experiment, Guards, Kind, Labels, Latency, Metric,
    Plan, Replay, Slower, Step,
};
pub use plot::plot;
pub use report::{Point, Replayed, Report, State};
pub use sketch::{Latencies, Predictions};
pub use start::{start, status};
pub use tally::Tally;
