//! What the makers of models say about them, to stand beside what is measured here.

/// A score that was published.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// How the name of the model begins, in lower case.
    pub model: &'static str,
    /// The task.
    pub task: &'static str,
    /// Share of right answers.
    pub score: f64,
    /// Who says so, and of what.
    pub source: &'static str,
}

const QWEN_CODER: &str = "Qwen2.5-Coder Technical Report (arXiv 2409.12186), greedy, weights not quantized";

/// All of them.
const FIGURES: [Figure; 1] =
    [Figure { model: "qwen2.5-coder-0.5b-instruct", task: "humaneval", score: 0.616, source: QWEN_CODER }];

/// The published score of a model, by the name of its file or folder, at a task.
pub fn figure(model: &str, task: &str) -> Option<&'static Figure> {
    let model = model.to_lowercase();
    FIGURES.iter().find(|figure| figure.task == task && model.starts_with(figure.model))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_of_one_model_and_one_task() {
        let score = |model, task| figure(model, task).map(|figure| figure.score);
        assert_eq!(score("Qwen2.5-Coder-0.5B-Instruct-Q4_K_M.gguf", "humaneval"), Some(0.616));
        assert_eq!(score("Qwen2.5-Coder-0.5B-Instruct", "gsm8k"), None);
        assert_eq!(score("Qwen2.5-Coder-0.5B", "humaneval"), None);
    }
}
