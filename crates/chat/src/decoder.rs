//! The tokens of one request become pieces of thought, answer and calls.

use minke_text::{ReasoningEvent, StopStrings, Tokenizer, ToolCallParser};

use crate::thought::ThoughtReader;
use crate::{Event, FinishReason, Piece, Request, ThoughtLimit, Usage};

/// The events that a request would bring if the model wrote these tokens and then ended: for tests of what is made of them.
#[doc(hidden)]
pub fn replay(request: &Request, tokenizer: &Tokenizer, ids: &[u32], finish: FinishReason) -> Vec<Event> {
    let mut decoder = Decoder::new(request, tokenizer);
    let prompt_tokens = request.prompt.token_ids.len();
    let mut usage = Usage { prompt_tokens, prefilled_tokens: prompt_tokens, ..Usage::default() };
    let (mut events, mut finish) = (Vec::with_capacity(ids.len() + 1), finish);
    for &id in ids {
        decoder.push(id, false, tokenizer);
        (usage.completion_tokens, usage.reasoning_tokens) = (decoder.completion_tokens, decoder.reasoning_tokens);
        if let Some(stop) = decoder.stop_string() {
            finish = FinishReason::StopString(stop.to_owned());
            break;
        }
        let (pieces, thought_closed) = decoder.take();
        events.push(Event { usage, pieces, thought_closed, ..Event::default() });
    }
    let (pieces, thought_closed) = decoder.finish();
    events.push(Event { usage, pieces, thought_closed, finish: Some(finish), ..Event::default() });
    events
}

pub(crate) struct Decoder {
    reader: ThoughtReader,
    stops: StopStrings,
    tools: Option<ToolCallParser>,
    /// The same before its first text.
    fresh_tools: Option<ToolCallParser>,
    /// Tokens so far.
    pub completion_tokens: usize,
    /// Tokens of the thought so far.
    pub reasoning_tokens: usize,
    pieces: Vec<Piece>,
    /// Why the thought was closed, until that was told.
    closed: Option<ThoughtLimit>,
}

impl Decoder {
    pub(crate) fn new(request: &Request, tokenizer: &Tokenizer) -> Self {
        let mut reader = ThoughtReader::new(request);
        let closed = reader.begin(tokenizer);
        Self {
            reader,
            stops: StopStrings::new(&request.stop),
            tools: request.tools.clone(),
            fresh_tools: request.tools.clone(),
            completion_tokens: 0,
            reasoning_tokens: 0,
            pieces: Vec::new(),
            closed,
        }
    }

    /// Takes in the next token. `ends` is whether the token ended the sequence as one of its stop ids: its text is then not
    /// shown.
    pub(crate) fn push(&mut self, id: u32, ends: bool, tokenizer: &Tokenizer) {
        self.completion_tokens += 1;
        if ends {
            self.reasoning_tokens += usize::from(self.reader.is_thinking());
            return;
        }
        let tools = self.tools.as_ref();
        let is_tag = |token: &[u8]| tools.is_some_and(|tools| tools.has_tag(token));
        let (events, limit) = self.reader.push(id, tokenizer, is_tag);
        self.closed = self.closed.or(limit);
        self.reasoning_tokens = self.reasoning_tokens.max(self.reader.thought_tokens);
        self.filter(events);
    }

    /// Which stop string came, if one did.
    pub(crate) fn stop_string(&self) -> Option<&str> {
        self.stops.hit()
    }

    /// The pieces since the last time, and why the thought was closed since then, if it was.
    pub(crate) fn take(&mut self) -> (Vec<Piece>, Option<ThoughtLimit>) {
        (std::mem::take(&mut self.pieces), self.closed.take())
    }

    /// The last pieces: with those that were held back in case more would come.
    pub(crate) fn finish(&mut self) -> (Vec<Piece>, Option<ThoughtLimit>) {
        let mut events = self.reader.flush();
        events.extend(self.reader.finish());
        self.filter(events);
        let rest = self.stops.flush();
        self.answer(rest);
        if let Some(tools) = self.tools.take() {
            self.pieces.extend(tools.finish().into_iter().map(Piece::from));
        }
        self.take()
    }

    /// Keeps the pieces, of the answer only what stands before a stop string.
    fn filter(&mut self, events: Vec<ReasoningEvent>) {
        for event in events {
            match event {
                ReasoningEvent::Content(text) => {
                    let text = self.stops.push(&text);
                    self.answer(text);
                }
                ReasoningEvent::ContentWasReasoning => {
                    let held = self.stops.flush();
                    self.answer(held);
                    // A call that the model only thought of is none, and the answer begins anew.
                    if let Some(tools) = std::mem::replace(&mut self.tools, self.fresh_tools.clone()) {
                        self.pieces.extend(tools.finish().into_iter().map(Piece::from));
                    }
                    self.pieces.push(Piece::ContentWasReasoning);
                    self.reasoning_tokens = self.completion_tokens;
                }
                reasoning => self.pieces.push(reasoning.into()),
            }
        }
    }

    /// Adds a text of the answer, with the calls in it told apart.
    fn answer(&mut self, text: String) {
        match &mut self.tools {
            Some(tools) => self.pieces.extend(tools.push(&text).into_iter().map(Piece::from)),
            None if text.is_empty() => {}
            None => self.pieces.push(Piece::Content(text)),
        }
    }
}
