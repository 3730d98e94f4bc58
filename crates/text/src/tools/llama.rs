//! Calls of Llama 3.1 and later: the whole answer is JSON, or what follows `<|python_tag|>`.

use super::call::{Call, Progress, Speech};
use super::{Tool, ToolEvent};

pub(super) const TAG: &str = "<|python_tag|>";

#[derive(Clone, Debug)]
enum State {
    /// Where a call may begin: with what was read since the place where that was clear.
    Before(String),
    /// In a call, with all of it as long as it may be none.
    Inside(Box<Call>, String),
    /// Behind a call; another may follow behind a semicolon.
    Behind(String),
    Outside,
}

/// The parser of this format.
#[derive(Clone, Debug)]
pub(super) struct Parser {
    names: Vec<String>,
    speech: Speech,
    state: State,
}

impl Parser {
    pub fn new(tools: &[Tool]) -> Self {
        let names = tools.iter().map(|tool| tool.name.clone()).collect();
        Self { names, speech: Speech::default(), state: State::Before(String::new()) }
    }

    pub fn push(&mut self, c: char, events: &mut Vec<ToolEvent>) {
        match &mut self.state {
            State::Before(text) => {
                let begun = text.trim_start().trim_start_matches(TAG).trim_start();
                if begun.is_empty() && c == '{' {
                    let text = std::mem::take(text);
                    self.state = State::Inside(Box::new(Call::of(&self.names)), text);
                    self.push(c, events);
                    return;
                }
                text.push(c);
                let begun = text.trim_start();
                if !TAG.starts_with(begun) && !begun.strip_prefix(TAG).is_some_and(|rest| rest.trim().is_empty()) {
                    self.give_up(events);
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
                    Progress::Done | Progress::DoneBefore => {
                        self.speech.call_ended();
                        self.state = State::Behind(String::new());
                        if progress == Progress::DoneBefore {
                            self.push(c, events);
                        }
                    }
                    Progress::NoCall => self.give_up(events),
                }
            }
            State::Behind(held) => {
                held.push(c);
                if c == ';' || c == ',' {
                    let held = std::mem::take(held);
                    self.state = State::Before(held);
                    // What separates calls is no text, unless none follows.
                    if let State::Before(text) = &mut self.state {
                        text.clear();
                    }
                } else if !c.is_whitespace() {
                    self.give_up(events);
                }
            }
            State::Outside => {
                if self.speech.push(c, &[TAG], events).is_some() {
                    self.state = State::Before(TAG.into());
                }
            }
        }
    }

    /// Gives out what was held back: it is no call.
    fn give_up(&mut self, events: &mut Vec<ToolEvent>) {
        let text = match std::mem::replace(&mut self.state, State::Outside) {
            State::Before(text) | State::Inside(_, text) | State::Behind(text) => text,
            State::Outside => return,
        };
        // The tag that stands in front was looked at already.
        let rest = text.strip_prefix(TAG).unwrap_or(&text);
        if rest.len() < text.len() {
            self.speech.say(TAG, events);
        }
        rest.chars().for_each(|c| self.push(c, events));
    }

    pub fn finish(mut self, events: &mut Vec<ToolEvent>) {
        match std::mem::replace(&mut self.state, State::Outside) {
            State::Inside(call, _) if call.begun => {
                if call.finish(events) {
                    events.push(ToolEvent::Incomplete);
                }
            }
            State::Before(text) | State::Inside(_, text) if !text.is_empty() => self.speech.say(&text, events),
            _ => self.speech.finish(events),
        }
    }
}
