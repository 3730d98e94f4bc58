//! Does a program do what its tests ask?
//!
//! [`CodeProblem`] has a problem as HumanEval and MBPP publish them, [`read_program`] finds the program in an answer, a
//! [`Sandbox`] is where it runs, and [`Sandbox::judge`] says what came of it.

mod interpreter;
mod problem;
mod read;
mod report;
mod sandbox;
#[cfg(test)]
mod tests;
mod values;

pub use interpreter::Interpreter;
pub use problem::{CodeProblem, Tests};
pub use read::read_program;
pub use report::{Reason, Report};
pub use sandbox::{Sandbox, SandboxConfig};
