//! What a grader or verifier says of an answer.

use serde::{Deserialize, Serialize};

/// The verdict of a grader on an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The answer is right.
    Right,
    /// The answer is wrong, or no answer.
    Wrong,
    /// The problem itself is unusable: it is dropped and counted, never scored.
    GoldUnusable,
}
