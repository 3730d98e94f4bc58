//! What did the person mean? Arguments as typed become, once, what the commands work with: defaults filled in, values
//! checked, environment read.

mod command;
mod meaning;
mod typed;

pub use command::*;
pub use meaning::{definition, parse};
