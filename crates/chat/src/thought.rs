//! Where in its thought or answer a sequence is, token by token; and the constraint that closes a thought that is too long or
//! a loop, and binds the answer behind it.
//!
//! All of it depends on the ids alone: the constraint that the engine asks and the decoder that makes the events follow the
//! same tokens and come to the same end.

use std::sync::{Arc, Mutex, PoisonError};

use minke_engine::{Constraint, Mask};
use minke_text::{ReasoningEvent, ReasoningParser, Repetition, RepetitionRule, ThinkTokens, Tokenizer, Utf8Stream};

use crate::{ChatModel, Request, ThoughtLimit};

/// What closes a thought, as R1 writes it.
const CLOSING: &str = "\n</think>\n\n";

/// The way from tokens to thought and answer.
#[derive(Clone, Debug)]
pub(crate) struct ThoughtReader {
    tags: ThinkTokens,
    text: Utf8Stream,
    /// None where all is answer.
    parser: Option<ReasoningParser>,
    repetition: Repetition,
    /// Tokens that the thought may have.
    budget: Option<usize>,
    /// Tokens of the thought so far.
    pub thought_tokens: usize,
    /// Tokens that close the thought, and how many of them came; none while it need not be closed.
    closing: Option<(Vec<u32>, usize)>,
}

impl ThoughtReader {
    pub(crate) fn new(request: &Request) -> Self {
        Self {
            tags: request.prompt.tags,
            text: Utf8Stream::default(),
            parser: request.prompt.parser.clone(),
            repetition: Repetition::new(RepetitionRule::GENERATION),
            budget: request.options.think_budget,
            thought_tokens: 0,
            closing: None,
        }
    }

    /// Whether the thought must be closed before its first token.
    pub(crate) fn begin(&mut self, tokenizer: &Tokenizer) -> Option<ThoughtLimit> {
        let spent = self.budget == Some(0) && self.is_thinking();
        spent.then(|| self.close(ThoughtLimit::Budget, tokenizer))
    }

    /// Whether the next token belongs to the thought.
    pub(crate) fn is_thinking(&self) -> bool {
        self.parser.as_ref().is_some_and(ReasoningParser::is_thinking)
    }

    /// The token that must come next to close the thought.
    pub(crate) fn forced(&self) -> Option<u32> {
        self.closing.as_ref().and_then(|(ids, came)| ids.get(*came).copied())
    }

    /// Takes in the next token: the pieces that it completes, and why the thought must be closed behind it, if it must.
    /// `shown` says which special tokens are read as their text.
    pub(crate) fn push(
        &mut self,
        id: u32,
        tokenizer: &Tokenizer,
        shown: impl Fn(&[u8]) -> bool,
    ) -> (Vec<ReasoningEvent>, Option<ThoughtLimit>) {
        if let Some((_, came)) = &mut self.closing {
            *came += 1;
            let over = self.forced().is_none();
            let events = self.read(id, tokenizer, shown);
            if over {
                self.closing = None;
            }
            return (events, None);
        }
        self.thought_tokens += usize::from(self.is_thinking());
        let events = self.read(id, tokenizer, shown);
        if events.contains(&ReasoningEvent::ContentWasReasoning) {
            return (events, None);
        }
        if !self.is_thinking() {
            return (events, None);
        }
        let repeats = self.repetition.push(id);
        let spent = self.budget.is_some_and(|budget| self.thought_tokens >= budget);
        let limit = spent.then_some(ThoughtLimit::Budget).or(repeats.then_some(ThoughtLimit::Repetition));
        (events, limit.map(|limit| self.close(limit, tokenizer)))
    }

    fn close(&mut self, limit: ThoughtLimit, tokenizer: &Tokenizer) -> ThoughtLimit {
        self.closing = Some((tokenizer.encode(CLOSING), 0));
        limit
    }

    fn read(&mut self, id: u32, tokenizer: &Tokenizer, shown: impl Fn(&[u8]) -> bool) -> Vec<ReasoningEvent> {
        if let (Some(tag), Some(_)) = (self.tags.tag(id), &self.parser) {
            let mut events = self.flush();
            events.extend(self.parser.as_mut().map(|parser| parser.push_tag(tag)).unwrap_or_default());
            return events;
        }
        if tokenizer.is_special(id) && !shown(tokenizer.token_bytes(id)) {
            return Vec::new();
        }
        let text = self.text.push(tokenizer.token_bytes(id));
        self.read_text(&text)
    }

    /// The pieces of a character that will not be completed.
    pub(crate) fn flush(&mut self) -> Vec<ReasoningEvent> {
        let text = std::mem::take(&mut self.text).finish();
        self.read_text(&text)
    }

    /// The pieces that were held back in case a tag would come.
    pub(crate) fn finish(&self) -> Vec<ReasoningEvent> {
        self.parser.clone().map(ReasoningParser::finish).unwrap_or_default()
    }

    fn read_text(&mut self, text: &str) -> Vec<ReasoningEvent> {
        match &mut self.parser {
            Some(parser) => parser.push(text),
            None if text.is_empty() => Vec::new(),
            None => vec![ReasoningEvent::Content(text.to_owned())],
        }
    }
}

/// How far a sequence was read, and where its answer begins.
#[derive(Clone)]
struct Progress {
    reader: ThoughtReader,
    read: usize,
    answer: Option<usize>,
}

impl Progress {
    fn new(reader: &ThoughtReader) -> Self {
        let mut progress = Self { reader: reader.clone(), read: 0, answer: None };
        progress.find_answer();
        progress
    }

    fn push(&mut self, id: u32, tokenizer: &Tokenizer) {
        self.reader.push(id, tokenizer, |_| false);
        self.read += 1;
        self.find_answer();
    }

    /// Outside a thought is the answer, also where a thought may still be opened.
    fn find_answer(&mut self) {
        let thinks = self.reader.is_thinking() || self.reader.forced().is_some();
        self.answer = if thinks { None } else { self.answer.or(Some(self.read)) };
    }
}

/// Progress along the ids that were asked about last.
struct Follower {
    first: Progress,
    read: Vec<u32>,
    now: Progress,
    /// Before the last of them, which may have been a draft; none if it was a draft and is forgotten.
    before: Option<Progress>,
}

impl Follower {
    fn new(reader: &ThoughtReader) -> Self {
        let first = Progress::new(reader);
        Self { read: Vec::new(), now: first.clone(), before: None, first }
    }

    /// Progress along these ids; only those behind what they have in common with the ids of the time before are read.
    fn follow(&mut self, ids: &[u32], tokenizer: &Tokenizer) -> &Progress {
        if !ids.starts_with(&self.read) {
            let before = self.before.take().filter(|before| ids.starts_with(&self.read[..before.read]));
            self.now = before.unwrap_or_else(|| self.first.clone());
            self.read.truncate(self.now.read);
        }
        let new = &ids[self.read.len()..];
        for (i, &id) in new.iter().enumerate() {
            if i + 1 == new.len() {
                self.before = Some(self.now.clone());
            }
            self.now.push(id, tokenizer);
        }
        self.read.extend_from_slice(new);
        &self.now
    }
}

/// The constraint on the tokens of a request; none where nothing binds them. It closes a thought at its limit. What binds the
/// answer holds from the first token behind the thought: in the thought the sequence cannot end then, and where the model may
/// open a thought itself, its first token may do that.
pub(crate) fn constraint(request: &Request, model: &Arc<ChatModel>) -> Option<Constraint> {
    let (parser, answer) = (request.prompt.parser.as_ref(), request.answer.clone());
    if parser.is_none() && answer.is_none() {
        return None;
    }
    let mut first = ThoughtReader::new(request);
    first.begin(&model.tokenizer);
    let opening = request.prompt.tags.open.filter(|_| parser.is_some_and(ReasoningParser::is_before_thought));
    let (model, ends) = (Arc::clone(model), model.end_ids());
    let follower = Mutex::new(Follower::new(&first));
    Some(Constraint::new(move |ids: &[u32], mask: &mut Mask<'_>| {
        let mut follower = follower.lock().unwrap_or_else(PoisonError::into_inner);
        let progress = follower.follow(ids, &model.tokenizer);
        if let Some(id) = progress.reader.forced() {
            return mask.force(id);
        }
        let Some(answer) = &answer else { return };
        match progress.answer {
            None => ends.iter().for_each(|&id| mask.forbid(id)),
            Some(begin) => {
                answer.apply(&ids[begin..], mask);
                if let (true, Some(open)) = (ids.is_empty(), opening) {
                    mask.allow(open);
                }
            }
        }
    }))
}
