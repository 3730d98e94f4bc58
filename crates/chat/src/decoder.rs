//! The tokens of one request become pieces of thought and answer; a thought that is too long or a loop is noticed.

use minke_text::{
    ReasoningEvent, ReasoningParser, Repetition, RepetitionRule, StopStrings, ThinkTokens, Tokenizer, Utf8Stream,
};

use crate::{Request, ThoughtLimit};

/// What closes a thought, as R1 writes it.
const CLOSING: &str = "\n</think>\n\n";

pub(crate) struct Decoder {
    tags: ThinkTokens,
    text: Utf8Stream,
    parser: ReasoningParser,
    stops: StopStrings,
    repetition: Repetition,
    budget: Option<usize>,
    /// Tokens so far.
    pub completion_tokens: usize,
    /// Tokens of the thought so far.
    pub reasoning_tokens: usize,
    pieces: Vec<ReasoningEvent>,
}

impl Decoder {
    pub(crate) fn new(request: &Request) -> Self {
        Self {
            tags: request.prompt.tags,
            text: Utf8Stream::default(),
            parser: request.prompt.parser.clone(),
            stops: StopStrings::new(&request.stop),
            repetition: Repetition::new(RepetitionRule::GENERATION),
            budget: request.options.think_budget,
            completion_tokens: 0,
            reasoning_tokens: 0,
            pieces: Vec::new(),
        }
    }

    /// Takes in the next token, and returns why the thought must be closed behind it, if it must. `ends` is whether the token
    /// ended the sequence as one of its stop ids: its text is then not shown.
    pub(crate) fn push(&mut self, id: u32, ends: bool, tokenizer: &Tokenizer) -> Option<ThoughtLimit> {
        let thinks = self.parser.is_thinking();
        self.completion_tokens += 1;
        self.reasoning_tokens += usize::from(thinks);
        if !ends {
            self.decode(id, tokenizer);
        }
        if ends || !self.parser.is_thinking() {
            return None;
        }
        let repeats = self.repetition.push(id);
        let spent = self.budget.is_some_and(|budget| self.reasoning_tokens >= budget);
        spent.then_some(ThoughtLimit::Budget).or(repeats.then_some(ThoughtLimit::Repetition))
    }

    /// Ends the thought, and returns the tokens that do it.
    pub(crate) fn close_thought(&mut self, tokenizer: &Tokenizer) -> Vec<u32> {
        let ids = tokenizer.encode(CLOSING);
        ids.iter().for_each(|&id| self.decode(id, tokenizer));
        self.completion_tokens += ids.len();
        ids
    }

    /// Which stop string came, if one did.
    pub(crate) fn stop_string(&self) -> Option<&str> {
        self.stops.hit()
    }

    /// The pieces since the last time.
    pub(crate) fn take(&mut self) -> Vec<ReasoningEvent> {
        std::mem::take(&mut self.pieces)
    }

    /// The last pieces: with those that were held back in case more would come.
    pub(crate) fn finish(mut self) -> Vec<ReasoningEvent> {
        self.flush_text();
        let events = self.parser.clone().finish();
        self.filter(events);
        let rest = self.stops.flush();
        if !rest.is_empty() {
            self.pieces.push(ReasoningEvent::Content(rest));
        }
        self.pieces
    }

    fn decode(&mut self, id: u32, tokenizer: &Tokenizer) {
        let events = if let Some(tag) = self.tags.tag(id) {
            self.flush_text();
            self.parser.push_tag(tag)
        } else if tokenizer.is_special(id) {
            return;
        } else {
            self.parser.push(&self.text.push(tokenizer.token_bytes(id)))
        };
        self.filter(events);
    }

    /// Passes on the bytes of a character that will not be completed.
    fn flush_text(&mut self) {
        let events = self.parser.push(&std::mem::take(&mut self.text).finish());
        self.filter(events);
    }

    /// Keeps the pieces, of the answer only what stands before a stop string.
    fn filter(&mut self, events: Vec<ReasoningEvent>) {
        for event in events {
            match event {
                ReasoningEvent::Content(text) => {
                    let text = self.stops.push(&text);
                    if !text.is_empty() {
                        self.pieces.push(ReasoningEvent::Content(text));
                    }
                }
                ReasoningEvent::ContentWasReasoning => {
                    let held = self.stops.flush();
                    if !held.is_empty() {
                        self.pieces.push(ReasoningEvent::Content(held));
                    }
                    self.pieces.push(ReasoningEvent::ContentWasReasoning);
                    self.reasoning_tokens = self.completion_tokens;
                }
                reasoning => self.pieces.push(reasoning),
            }
        }
    }
}
