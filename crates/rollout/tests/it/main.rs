//! Plans, reports and decisions, as a driver uses them.

mod counting;
mod drive;
mod experiments;
mod made;
mod properties;
mod rules;
