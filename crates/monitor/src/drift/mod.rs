//! How far one table is from another, and whether that is drift.
//!
//! A column has drifted if a change is both large and no chance: its effect is beyond a
//! [threshold](Settings), and its evidence stands when all columns are looked at together
//! (Benjamini and Hochberg). Both are shown. More rows make the evidence stronger but not the effect
//! larger, so that a verdict does not depend on how much data there is; and where there is not
//! enough to see an effect at the threshold, the verdict is [too few rows](Verdict::TooFewRows)
//! and no guess.
//!
//! ```
//! use monitor::drift::{Column, Numbers, Report, Settings, Verdict, measure};
//!
//! let numbers = |from: u32| -> Column {
//!     let values = (from..from + 1000).map(f64::from).collect();
//!     Numbers::new(values, 0, true).into()
//! };
//! let measured = vec![measure("age", &numbers(0), &numbers(500))];
//! let report = Report::new(measured, Vec::new(), Settings::default());
//! assert_eq!(report.columns[0].verdict, Verdict::Drifted);
//! ```

mod column;
mod compare;
pub mod estimate;
mod picture;
mod report;
pub mod significance;
pub mod statistics;
pub mod watch;

pub use column::{Column, Kind, Numbers, Texts};
pub use compare::{Change, Description, MOST_CATEGORIES, Measured, Statistics, What, measure};
pub use picture::{Picture, short};
pub use report::{Judged, LeftOut, Mismatch, Report, SCHEMA, Settings, Side, Verdict};
