//! How does a question become an answer? The conversation is rendered, computed, and told apart into thought and answer
//! while it arrives; a thought that is too long or goes round in circles is closed, so that an answer follows.

use std::time::Instant;

use anyhow::Result;
use minke_chat::{ChatModel, SamplingOptions};
use minke_engine::{Engine, Finish, Token};
use minke_text::{Message, ReasoningEvent, ReasoningParser, Repetition, Tokenizer, Utf8Stream};

use crate::assistant::Assistant;
use crate::interrupt::Interrupt;

/// Why a thought was closed by the program and not by the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// It had as many tokens as it was allowed.
    Budget,
    /// It said the same over and over.
    Repetition,
}

/// What a step brought.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Tokens of the prompt that are in the cache, found or computed.
    pub prompt_read: usize,
    /// Tokens of the prompt, and the seconds until the first token behind it.
    pub prompt_tokens: usize,
    pub prompt_seconds: f64,
    /// Tokens so far, thought included.
    pub completion_tokens: usize,
    /// Tokens of the thought so far, and the seconds it took.
    pub thought_tokens: usize,
    pub thought_seconds: f64,
    /// Set in the step that closed the thought.
    pub closed: Option<Closed>,
    /// The new pieces of text.
    pub pieces: Vec<ReasoningEvent>,
}

/// An answer and what it took.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The thought, if there was one.
    pub reasoning: Option<String>,
    /// The answer itself.
    pub content: String,
    /// Why it ended.
    pub finish: Finish,
    /// Why the thought was closed, if the model did not do it.
    pub closed: Option<Closed>,
    /// Length of the prompt in tokens.
    pub prompt_tokens: usize,
    /// Time until the first token.
    pub prompt_seconds: f64,
    /// Length of thought and answer in tokens.
    pub completion_tokens: usize,
    /// Length of the thought in tokens.
    pub thought_tokens: usize,
    /// Time of the thought.
    pub thought_seconds: f64,
    /// Time from question to end.
    pub seconds: f64,
}

impl Default for Answer {
    /// Nothing yet; if nothing else comes, it was cancelled.
    fn default() -> Self {
        Self {
            reasoning: None,
            content: String::new(),
            finish: Finish::Cancelled,
            closed: None,
            prompt_tokens: 0,
            prompt_seconds: 0.0,
            completion_tokens: 0,
            thought_tokens: 0,
            thought_seconds: 0.0,
            seconds: 0.0,
        }
    }
}

impl Answer {
    /// Takes in what a step brought.
    pub fn hear(&mut self, progress: &Progress) {
        for piece in &progress.pieces {
            match piece {
                ReasoningEvent::Reasoning(text) => self.reasoning.get_or_insert_default().push_str(text),
                ReasoningEvent::Content(text) => self.content.push_str(text),
            }
        }
        self.closed = self.closed.or(progress.closed);
        (self.prompt_tokens, self.prompt_seconds) = (progress.prompt_tokens, progress.prompt_seconds);
        self.completion_tokens = progress.completion_tokens;
        (self.thought_tokens, self.thought_seconds) = (progress.thought_tokens, progress.thought_seconds);
    }
}

/// Returns why an answer ended, as scripts read it.
pub fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop(_) => "stop",
        Finish::Length => "length",
        Finish::Cancelled => "interrupted",
        Finish::NotFinite => "not_finite",
        Finish::NothingAllowed => "nothing_allowed",
    }
}

impl Assistant {
    /// Returns the answer to a conversation. `hear` is told of every step; Ctrl-C ends it early.
    ///
    /// # Errors
    /// If the conversation does not fit into the context, or `hear` fails.
    pub fn answer(
        &self,
        conversation: &[Message],
        sampling: &SamplingOptions,
        interrupt: &Interrupt,
        hear: &mut dyn FnMut(Progress) -> Result<()>,
    ) -> Result<Answer> {
        let begun = Instant::now();
        let ChatModel { model, tokenizer, template, .. } = self.loaded();
        let prompt = template.render(conversation, true)?;
        let mut token_ids = tokenizer.encode(&prompt);
        let mut params = self.params(sampling);
        let most = params.max_tokens;
        let mut engine = self.engine();
        let before = read_tokens(&engine);
        let mut sequence = engine.submit(&token_ids, &params, 1)?[0];
        let mut listener = Listener::new(tokenizer, &prompt, token_ids.len(), sampling.think_budget);
        let mut answer = Answer::default();
        while !engine.is_idle() && !interrupt.is_raised() {
            let tokens = engine.step(model);
            if tokens.is_err() {
                engine.cancel(sequence);
            }
            tokens?.iter().for_each(|token| listener.hear(token));
            let progress = &mut listener.progress;
            progress.prompt_read = (read_tokens(&engine) - before).min(progress.prompt_tokens);
            if progress.completion_tokens <= 1 {
                progress.prompt_seconds = begun.elapsed().as_secs_f64();
            }
            if progress.closed.is_some() {
                // What was said and the end of the thought become the prompt of a new sequence; the cache knows its pages.
                engine.cancel(sequence);
                token_ids.extend(engine.take(sequence).expect(ENDED).token_ids);
                token_ids.extend(listener.close());
                params.max_tokens = most.saturating_sub(listener.progress.completion_tokens);
                if params.max_tokens == 0 || token_ids.len() >= engine.limit() {
                    answer.finish = Finish::Length;
                } else {
                    sequence = engine.submit(&token_ids, &params, 1)?[0];
                }
            }
            let progress = listener.take();
            answer.hear(&progress);
            hear(progress).inspect_err(|_| engine.cancel(sequence))?;
        }
        engine.cancel(sequence);
        let rest = listener.finish();
        answer.hear(&rest);
        hear(rest)?;
        if let Some(completion) = engine.take(sequence) {
            answer.finish = completion.finish;
        }
        answer.seconds = begun.elapsed().as_secs_f64();
        Ok(answer)
    }
}

/// What ends a thought, as R1 writes it.
const CLOSING: &str = "\n</think>\n\n";
const ENDED: &str = "invariant: a sequence that has ended is there to be taken";

/// Turns tokens into text and counts, and notices when a thought must be closed.
struct Listener<'a> {
    tokenizer: &'a Tokenizer,
    text: Utf8Stream,
    parser: ReasoningParser,
    repetition: Repetition,
    budget: Option<usize>,
    thinking_since: Option<Instant>,
    progress: Progress,
}

impl<'a> Listener<'a> {
    fn new(tokenizer: &'a Tokenizer, prompt: &str, prompt_tokens: usize, budget: Option<usize>) -> Self {
        Self {
            tokenizer,
            text: Utf8Stream::default(),
            parser: ReasoningParser::new(prompt),
            repetition: Repetition::default(),
            budget,
            thinking_since: None,
            progress: Progress { prompt_tokens, ..Progress::default() },
        }
    }

    fn hear(&mut self, token: &Token) {
        let progress = &mut self.progress;
        progress.completion_tokens += 1;
        if self.parser.is_thinking() {
            progress.thought_tokens += 1;
            progress.thought_seconds = self.thinking_since.get_or_insert_with(Instant::now).elapsed().as_secs_f64();
        }
        let stops = matches!(token.finish, Some(Finish::Stop(_)));
        if !stops && !self.tokenizer.is_special(token.token_id) {
            progress.pieces = self.parser.push(&self.text.push(self.tokenizer.token_bytes(token.token_id)));
        }
        if self.parser.is_thinking() && token.finish.is_none() {
            let repeats = self.repetition.push(token.token_id);
            let spent = self.budget.is_some_and(|budget| progress.thought_tokens >= budget);
            progress.closed = spent.then_some(Closed::Budget).or(repeats.then_some(Closed::Repetition));
        }
    }

    /// Ends the thought, and returns the tokens that do it.
    fn close(&mut self) -> Vec<u32> {
        let text = format!("{}{CLOSING}", std::mem::take(&mut self.text).finish());
        self.progress.pieces.extend(self.parser.push(&text));
        let ids = self.tokenizer.encode(CLOSING);
        self.progress.completion_tokens += ids.len();
        ids
    }

    /// Returns what came since the last time.
    fn take(&mut self) -> Progress {
        let next = Progress { closed: None, pieces: Vec::new(), ..self.progress };
        std::mem::replace(&mut self.progress, next)
    }

    /// Returns what was held back in case more would come.
    fn finish(mut self) -> Progress {
        self.progress.pieces = self.parser.push(&self.text.finish());
        self.progress.pieces.extend(self.parser.finish());
        self.progress
    }
}

/// Returns how many tokens of prompts came into the cache so far.
fn read_tokens(engine: &Engine) -> usize {
    let stats = engine.stats();
    (stats.prefilled + stats.prefix_hits) as usize
}
