//! Calls of Hermes, Qwen2.5 and Qwen3: JSON in tags.

use super::ToolEvent;
use super::call::{Call, Progress, Speech};

pub(super) const OPEN: &str = "<tool_call>";
pub(super) const CLOSE: &str = "</tool_call>";
pub(super) const TAGS: [&str; 2] = [OPEN, CLOSE];

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Outside,
    /// In a call, with all of it as long as it may be none.
    Inside(Box<Call>, String),
    /// Behind a call, whose closing tag may follow.
    Behind(String),
}

/// The parser of this format.
#[derive(Clone, Debug, Default)]
pub(super) struct Parser {
    speech: Speech,
    state: State,
}

impl Parser {
    pub fn push(&mut self, c: char, events: &mut Vec<ToolEvent>) {
        match &mut self.state {
            State::Outside => {
                if self.speech.push(c, &[OPEN], events).is_some() {
                    self.state = State::Inside(Box::new(Call::new(CLOSE)), String::new());
                }
            }
            State::Inside(call, text) => {
                let progress = call.push(c, events);
                if call.begun {
                    text.clear();
                } else {
                    text.push(c);
                }
                match progress {
                    Progress::Open => {}
                    Progress::Done => self.end(String::new()),
                    Progress::DoneBefore => {
                        self.end(String::new());
                        self.push(c, events);
                    }
                    Progress::NoCall => {
                        let text = std::mem::take(text);
                        self.state = State::Outside;
                        self.speech.say(OPEN, events);
                        text.chars().for_each(|c| self.push(c, events));
                    }
                }
            }
            State::Behind(held) => {
                held.push(c);
                // A bracket too many is no text.
                let rest = held.trim_start_matches(|c: char| c.is_whitespace() || c == '}');
                if rest == CLOSE {
                    self.state = State::Outside;
                } else if !CLOSE.starts_with(rest) {
                    let held = std::mem::take(held);
                    self.state = State::Outside;
                    held.chars().for_each(|c| self.push(c, events));
                }
            }
        }
    }

    fn end(&mut self, held: String) {
        self.speech.call_ended();
        self.state = State::Behind(held);
    }

    pub fn finish(mut self, events: &mut Vec<ToolEvent>) {
        match std::mem::take(&mut self.state) {
            State::Outside => self.speech.finish(events),
            State::Inside(call, text) if !call.begun => self.speech.say(&format!("{OPEN}{text}"), events),
            State::Inside(call, _) => {
                if call.finish(events) {
                    events.push(ToolEvent::Incomplete);
                }
            }
            // The beginning of a closing tag is no text either.
            State::Behind(_) => {}
        }
    }
}
