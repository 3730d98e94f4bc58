//! Calls of DeepSeek's models, in two formats: V3 and R1-0528 write type, name and a fenced block of JSON, V3.1 writes name
//! and JSON.
//!
//! ```text
//! <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME\n```json\nARGUMENTS\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>
//! <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>NAME<｜tool▁sep｜>ARGUMENTS<｜tool▁call▁end｜><｜tool▁calls▁end｜>
//! ```

use super::ToolEvent;
use super::call::Scanner;
use crate::Tokenizer;

pub(super) const CALLS_BEGIN: &str = "<｜tool▁calls▁begin｜>";
pub(super) const CALLS_END: &str = "<｜tool▁calls▁end｜>";
pub(super) const CALL_BEGIN: &str = "<｜tool▁call▁begin｜>";
pub(super) const CALL_END: &str = "<｜tool▁call▁end｜>";
pub(super) const SEPARATOR: &str = "<｜tool▁sep｜>";
pub(super) const TAGS: [&str; 5] = [CALLS_BEGIN, CALLS_END, CALL_BEGIN, CALL_END, SEPARATOR];

/// Whether a vocabulary has the tags of these formats as tokens.
pub(crate) fn has_deepseek_tags(tokenizer: &Tokenizer) -> bool {
    [CALLS_BEGIN, CALLS_END, CALL_BEGIN, CALL_END, SEPARATOR].iter().all(|tag| tokenizer.id_of(tag).is_some())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Text for the person.
    Outside,
    /// In the block of calls, but in none of them.
    Between,
    /// In a call whose arguments have not begun.
    Head,
    /// In the arguments; whether any were given out.
    Arguments { begun: bool },
}

/// The parser of both formats, whatever the model was asked for. A missing fence or end is understood too.
#[derive(Clone, Debug)]
pub(super) struct Parser {
    state: State,
    /// What was read and has not been given out.
    held: String,
    /// Whether any content was given out: blank text in front of calls is none.
    spoke: bool,
    /// What was given out of the arguments of the call.
    written: Scanner,
}

impl Default for Parser {
    fn default() -> Self {
        Self { state: State::Outside, held: String::new(), spoke: false, written: Scanner::default() }
    }
}

impl Parser {
    pub fn push(&mut self, text: &str, events: &mut Vec<ToolEvent>) {
        self.held.push_str(text);
        while self.step(events) {}
    }

    pub fn finish(mut self, events: &mut Vec<ToolEvent>) {
        let held = std::mem::take(&mut self.held);
        match self.state {
            State::Outside => self.say(&held, events),
            State::Between if held.trim().is_empty() => {}
            State::Between => self.say(&held, events),
            State::Head => self.say(&format!("{CALL_BEGIN}{held}"), events),
            State::Arguments { begun } => {
                let rest = held.trim_end_matches(is_end);
                if begun || !rest.is_empty() {
                    self.give(rest, events);
                }
                if !self.written.is_complete() {
                    events.push(ToolEvent::Incomplete);
                }
            }
        }
    }

    /// Takes what is certain from the front of `held`; false if nothing more is.
    fn step(&mut self, events: &mut Vec<ToolEvent>) -> bool {
        match self.state {
            State::Outside => match first(&self.held, [CALLS_BEGIN, CALL_BEGIN]) {
                Some((at, tag)) => {
                    let before = self.take(at, tag);
                    if self.spoke || !before.trim().is_empty() {
                        self.say(&before, events);
                    }
                    self.state = if tag == CALL_BEGIN { State::Head } else { State::Between };
                    true
                }
                None => {
                    let end = without_part_of(&self.held, [CALLS_BEGIN, CALL_BEGIN]);
                    if self.spoke || !self.held[..end].trim().is_empty() {
                        let text: String = self.held.drain(..end).collect();
                        self.say(&text, events);
                    }
                    false
                }
            },
            State::Between => {
                let Some((at, tag)) = first(&self.held, [CALL_BEGIN, CALLS_END]) else { return false };
                let before = self.take(at, tag);
                if !before.trim().is_empty() {
                    self.say(&before, events);
                }
                self.state = if tag == CALL_BEGIN { State::Head } else { State::Outside };
                true
            }
            State::Head => self.step_head(events),
            State::Arguments { begun: false } if self.held.starts_with(char::is_whitespace) => {
                self.held.drain(..blank(&self.held));
                true
            }
            State::Arguments { begun } => match first(&self.held, [CALL_END, CALLS_END]) {
                Some((at, tag)) => {
                    let rest = self.take(at, tag);
                    match rest.trim_end_matches(is_end) {
                        // A call without arguments.
                        "" if !begun => self.give("{}", events),
                        rest => self.give(rest, events),
                    }
                    self.state = if tag == CALL_END { State::Between } else { State::Outside };
                    true
                }
                None => {
                    let end = without_part_of(&self.held, [CALL_END, CALLS_END]);
                    let end = self.held[..end].trim_end_matches(is_end).len();
                    if end > 0 {
                        let piece: String = self.held.drain(..end).collect();
                        self.give(&piece, events);
                        self.state = State::Arguments { begun: true };
                    }
                    false
                }
            },
        }
    }

    /// Reads the name of a call, and the beginning of its fence if there is one.
    fn step_head(&mut self, events: &mut Vec<ToolEvent>) -> bool {
        let end = first(&self.held, [CALL_END, CALLS_END]);
        match head(&self.held[..end.map_or(self.held.len(), |(at, _)| at)], end.is_some()) {
            Head::Complete { name, length } => {
                events.push(ToolEvent::Call(name));
                self.held.drain(..length);
                self.written = Scanner::default();
                self.state = State::Arguments { begun: false };
                true
            }
            Head::Open => false,
            Head::Broken => {
                let (at, tag) = end.expect("invariant: only what has ended is broken");
                let text = self.take(at, tag);
                self.say(&format!("{CALL_BEGIN}{text}{tag}"), events);
                self.state = if tag == CALL_END { State::Between } else { State::Outside };
                true
            }
        }
    }

    /// Removes the text in front of a tag and the tag, returns the text.
    fn take(&mut self, at: usize, tag: &str) -> String {
        let text = self.held[..at].to_owned();
        self.held.drain(..at + tag.len());
        text
    }

    /// Gives out a piece of the arguments.
    fn give(&mut self, piece: &str, events: &mut Vec<ToolEvent>) {
        if !piece.is_empty() {
            piece.chars().for_each(|c| {
                self.written.push(c);
            });
            events.push(ToolEvent::Arguments(piece.into()));
        }
    }

    fn say(&mut self, text: &str, events: &mut Vec<ToolEvent>) {
        if !text.is_empty() {
            self.spoke = true;
            events.push(ToolEvent::Content(text.into()));
        }
    }
}

/// What stands before the arguments of a call.
enum Head {
    /// The name, and how many bytes lie in front of the arguments.
    Complete { name: String, length: usize },
    /// More must come.
    Open,
    /// No name is there.
    Broken,
}

/// Reads the beginning of a call; `ended` if nothing follows.
fn head(text: &str, ended: bool) -> Head {
    let open = if ended { Head::Broken } else { Head::Open };
    let Some((before, after)) = text.split_once(SEPARATOR) else { return open };
    let mut at = text.len() - after.len() + blank(after);
    let name = match text[at..].chars().next() {
        // V3.1, even where it adds a fence, or leaves the arguments out.
        Some('{' | '[' | '`') => before.trim(),
        None if ended => before.trim(),
        None => return open,
        Some(_) => {
            let line = text[at..].split('\n').next().unwrap_or_default();
            if line.len() == text[at..].len() && !ended {
                return open;
            }
            at += line.len();
            at += blank(&text[at..]);
            line.trim()
        }
    };
    if text[at..].starts_with('`') {
        match text[at..].find('\n') {
            Some(length) => at += length,
            None => return open,
        }
    } else if at == text.len() && !ended {
        return open;
    }
    if name.is_empty() { open } else { Head::Complete { name: name.into(), length: at } }
}

/// The length of the white space with which a text begins.
fn blank(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

/// Whether a character can belong to the end of a fence: no JSON object ends with one.
fn is_end(c: char) -> bool {
    c == '`' || c.is_whitespace()
}

/// The tag that comes first, and where.
fn first(text: &str, tags: [&'static str; 2]) -> Option<(usize, &'static str)> {
    tags.into_iter().filter_map(|tag| text.find(tag).map(|at| (at, tag))).min()
}

/// How much of a text cannot be the beginning of a tag.
fn without_part_of(text: &str, tags: [&str; 2]) -> usize {
    match text.rfind('<') {
        Some(at) if tags.iter().any(|tag| tag.starts_with(&text[at..])) => at,
        _ => text.len(),
    }
}
