//! Plans, reports and decisions, as a driver uses them.

mod drive;
mod made;
mod rules;
