//! From a problem to the tokens that a model goes on from, for rewards and evaluations alike.

use minke_text::{ChatTemplate, RenderOptions, THINK_OPEN, Tokenizer};

use crate::{Error, EvalConfig, Problem, Result, Task};

/// What a model goes on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// As text, by which thought and answer are told apart.
    pub text: String,
    /// As tokens.
    pub token_ids: Vec<u32>,
    /// Texts that end the answer where they begin; none in a conversation, where an end token does.
    pub stops: &'static [&'static str],
}

/// The prompt of a problem as a conversation; a forced thought is opened if the template does not.
///
/// # Errors
/// If the template refuses the messages.
pub fn prompt(
    template: &ChatTemplate,
    tokenizer: &Tokenizer,
    problem: &Problem,
    force_thought: bool,
) -> Result<Prompt> {
    let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
    let rendered = template.render_for(&problem.messages(), &options, tokenizer)?;
    let (mut text, mut token_ids) = (rendered.text().to_owned(), tokenizer.encode_rendered(&rendered));
    if force_thought && !text.trim_end().ends_with(THINK_OPEN) {
        let opening = format!("{THINK_OPEN}\n");
        token_ids.extend(tokenizer.encode(&opening));
        text.push_str(&opening);
    }
    Ok(Prompt { text, token_ids, stops: &[] })
}

/// The prompts of problems in a mode: a conversation, or a text behind solved examples.
///
/// # Errors
/// If the template refuses a question, or the task has no examples to show.
pub fn prompts(
    template: &ChatTemplate,
    tokenizer: &Tokenizer,
    task: &Task,
    problems: &[Problem],
    config: &EvalConfig,
) -> Result<Vec<Prompt>> {
    let few_shot = |problem: &Problem, count: usize| -> Result<Prompt> {
        let no_set = || Error::Task { task: task.name(), reason: "has no solved examples; ask without --shots".into() };
        let (text, stops) = task.set().ok_or_else(no_set)?.few_shot(problem, count)?;
        let token_ids = [tokenizer.begin_ids(), &tokenizer.encode_plain(&text)].concat();
        Ok(Prompt { text, token_ids, stops })
    };
    let of = |problem: &Problem| match config.shots {
        Some(count) => few_shot(problem, count),
        None => prompt(template, tokenizer, problem, config.force_thought),
    };
    problems.iter().map(of).collect()
}

impl Prompt {
    /// The answer in what the model wrote: what stands before the first text that ends it.
    pub fn cut<'a>(&self, text: &'a str) -> &'a str {
        let end = self.stops.iter().filter_map(|stop| text.find(stop)).min();
        &text[..end.unwrap_or(text.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_the_first_stop_begins() {
        let prompt = |stops| Prompt { text: String::new(), token_ids: Vec::new(), stops };
        let stops = prompt(&["\ndef", "\n#"]);
        assert_eq!(stops.cut("    return 1\n# so\ndef f"), "    return 1");
        assert_eq!(stops.cut("    return 1"), "    return 1");
        assert_eq!(prompt(&[]).cut("a\ndef b"), "a\ndef b");
    }
}
