//! How a model is asked in an evaluation.

use serde::{Deserialize, Serialize};

/// How a model is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalConfig {
    /// Answers to every problem, k.
    pub samples: usize,
    /// Temperature of the answers.
    pub temperature: f32,
    /// Share of the probability that the most likely tokens must reach; 1 for all.
    pub top_p: f32,
    /// Longest answer in tokens, thought included.
    pub max_tokens: usize,
    /// Whether the prompt opens the thought.
    pub force_thought: bool,
    /// Whether every problem is answered greedily as well.
    pub greedy: bool,
    /// Seed of the answers.
    pub seed: u64,
    /// Solved examples before the problem, in a text that the model goes on with; nothing for a conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shots: Option<usize>,
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self {
            samples: 16,
            temperature: 1.0,
            top_p: 1.0,
            max_tokens: 256,
            force_thought: false,
            greedy: true,
            seed: 0,
            shots: None,
        }
    }
}
