//! The tokens and the time of an answer, and how full the context is.

use minke_chat::{FinishReason, Reply};
use minke_engine::Stats;

use super::conversation::Conversation;

/// The tokens and the time of an answer.
pub fn line(reply: &Reply) -> String {
    let usage = &reply.usage;
    let (prompt, completion, seconds) = (usage.prompt_tokens, usage.completion_tokens, usage.seconds);
    let speed = completion as f64 / seconds.max(1e-9);
    format!("{prompt} + {completion} tokens, {seconds:.2} s, {speed:.0} tokens/s{}", ending(&reply.finish))
}

/// The same for a conversation: tokens read and written, the share of the thought, and how full the context is.
pub fn turn(reply: &Reply, used: usize, limit: usize) -> String {
    let usage = &reply.usage;
    let thought = match usage.reasoning_tokens {
        0 => String::new(),
        tokens => format!(" (thought {tokens} in {:.1} s)", usage.reasoning_seconds),
    };
    // The first token comes with the end of the prompt.
    let (prompt, completion, prompt_seconds) = (usage.prompt_tokens, usage.completion_tokens, usage.prompt_seconds);
    let speed = completion.saturating_sub(1) as f64 / (usage.seconds - prompt_seconds).max(1e-9);
    let end = ending(&reply.finish);
    format!(
        "read {prompt} in {prompt_seconds:.1} s, wrote {completion}{thought}, {speed:.0} tokens/s{end}; \
         context {used}/{limit}"
    )
}

fn ending(finish: &FinishReason) -> &'static str {
    match finish {
        FinishReason::Length => "; cut off at its longest",
        FinishReason::Cancelled => "; interrupted",
        FinishReason::NotFinite => "; values that are not numbers",
        FinishReason::NothingAllowed => "; nothing more was allowed",
        FinishReason::ConstraintPanicked => "; the constraint on it failed",
        _ => "",
    }
}

/// What `/ctx` prints: the tokens of every text, counted by `tokens`, and of all as the model reads them.
pub fn context(conversation: &Conversation, tokens: &dyn Fn(&str) -> usize, used: usize, limit: usize) -> String {
    let system = conversation.system.iter().map(|system| format!("{:>7} system", tokens(system)));
    let turns = conversation.turns.iter().enumerate().flat_map(|(i, turn)| {
        let n = i + 1;
        [
            format!("{:>7} question {n}", tokens(&turn.question)),
            format!("{:>7} answer {n}; its thought of {} is not read again", tokens(&turn.answer), turn.thought_tokens),
        ]
    });
    let all = format!("{used:>7} of {limit} tokens with the marks between them, {} left", limit.saturating_sub(used));
    system.chain(turns).chain([all]).collect::<Vec<_>>().join("\n")
}

/// What `/stats` prints.
pub fn stats(stats: &Stats, page_bytes: usize) -> String {
    let read = stats.prefilled + stats.prefix_hits;
    let share = 100.0 * stats.prefix_hits as f64 / (read.max(1)) as f64;
    let drafts = match stats.drafted {
        0 => String::new(),
        drafted => format!(", {} of {drafted} drafts among them", stats.accepted),
    };
    format!(
        "prompts: {read} tokens, {} computed, {} found in the cache ({share:.0} %)\nanswers: {} tokens{drafts}\nsteps: {}\n\
         cache: {} pages of 32 tokens, {:.1} MB",
        stats.prefilled,
        stats.prefix_hits,
        stats.generated,
        stats.steps,
        stats.pages,
        (stats.pages * page_bytes) as f64 / 1e6
    )
}
