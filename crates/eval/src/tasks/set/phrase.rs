//! How a problem of a file is put to a model: as a question in a conversation, or behind solved examples in a text that
//! goes on.

use super::SetFormat;
use super::format::Given;

/// What is asked for behind a question of mathematics: the directive that R1's makers recommend.
const MATH: &str = "Please reason step by step, and put your final answer within \\boxed{}.";

/// What a problem is as the message of a user.
pub(super) fn question(format: SetFormat, given: &Given) -> String {
    let text = &given.text;
    match format {
        SetFormat::HumanEval => format!(
            "Complete the following Python function. Answer with the whole function in one block of code.\n\n\
             ```python\n{}\n```",
            text.trim_end()
        ),
        SetFormat::Mbpp => {
            let (text, tests) = text.split_once("\n\n").unwrap_or((text, ""));
            format!(
                "{text}\nThe code must pass these tests:\n\n```python\n{tests}\n```\n\nAnswer with the code in one \
                 block of Python."
            )
        }
        _ if given.is_whole => text.clone(),
        SetFormat::Gsm8k | SetFormat::Svamp | SetFormat::Jsonl => format!("{text}\n{MATH}"),
    }
}

/// A problem with its solution, or with the place where that begins, as few-shot prompts have it.
/// As published:
/// - MBPP: Austin et al., Program Synthesis with Large Language Models, 3.1 (task, tests, `[BEGIN]`, `[DONE]`)
/// - GSM8K, SVAMP: Wei et al., Chain-of-Thought Prompting, 3 (solved examples that end with "The answer is")
/// - HumanEval: Chen et al., Evaluating Large Language Models Trained on Code, 2.1 (the head of the function alone)
pub(super) fn shot(format: SetFormat, text: &str, solution: Option<&str>) -> String {
    match format {
        SetFormat::HumanEval => text.to_owned(),
        SetFormat::Mbpp => {
            let (text, tests) = text.split_once("\n\n").unwrap_or((text, ""));
            let head = format!(
                "You are an expert Python programmer, and here is your task: {text} Your code should pass these \
                 tests:\n\n{tests}\n[BEGIN]\n"
            );
            solution.map_or(head.clone(), |code| format!("{head}{}\n[DONE]\n\n", code.trim_end()))
        }
        SetFormat::Gsm8k | SetFormat::Svamp | SetFormat::Jsonl => {
            let head = format!("Question: {}\nAnswer:", text.trim());
            solution.map_or(head.clone(), |solution| format!("{head} {}\n\n", solution.trim()))
        }
    }
}

/// Where an answer in a text that goes on ends: what begins the next problem.
pub(super) fn stops(format: SetFormat) -> &'static [&'static str] {
    match format {
        SetFormat::HumanEval => &["\nclass", "\ndef", "\n#", "\nif", "\nprint"],
        SetFormat::Mbpp => &["[DONE]"],
        SetFormat::Gsm8k | SetFormat::Svamp | SetFormat::Jsonl => &["Question:"],
    }
}
