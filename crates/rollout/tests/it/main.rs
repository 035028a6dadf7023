//! Plans, reports and decisions, as a driver uses them.

mod made;
mod rules;
