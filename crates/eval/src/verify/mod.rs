//! Verifiers of answers to problems that others posed: each a function of what is right and what was said.

pub mod choice;
pub mod code;
pub mod language;
pub mod math;
