//! Calls of Mistral's models: a list of objects, or name and JSON.

use super::ToolEvent;
use super::call::{Call, Progress, Scanned, Scanner, Speech, give_arguments};

pub(super) const TAG: &str = "[TOOL_CALLS]";
pub(super) const ARGUMENTS: &str = "[ARGS]";
const ID: &str = "[CALL_ID]";
pub(super) const TAGS: [&str; 3] = [TAG, ARGUMENTS, ID];

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Outside,
    /// Behind the tag, with what was read since.
    Head(String),
    /// In an object, in a list or not, with all that was read since the tag as long as it may be none.
    Object { call: Box<Call>, text: String, in_list: bool },
    /// In arguments behind a name.
    Arguments(Scanner),
    /// Behind an object of a list.
    Between(String),
}

/// The parser of both forms.
#[derive(Clone, Debug, Default)]
pub(super) struct Parser {
    speech: Speech,
    state: State,
}

impl Parser {
    pub fn push(&mut self, c: char, events: &mut Vec<ToolEvent>) {
        match &mut self.state {
            State::Outside => {
                if self.speech.push(c, &[TAG], events).is_some() {
                    self.state = State::Head(String::new());
                }
            }
            State::Head(text) => {
                text.push(c);
                let text = std::mem::take(text);
                self.state = match head(&text) {
                    Head::Open => State::Head(text),
                    Head::List => State::Object { call: Box::new(Call::new("")), text, in_list: true },
                    Head::Object => {
                        let mut call = Box::new(Call::new(""));
                        call.push('{', events);
                        State::Object { call, text, in_list: false }
                    }
                    Head::Named(name) => {
                        events.push(ToolEvent::Call(name));
                        let mut scanner = Scanner::default();
                        scanner.push('{');
                        give_arguments("{", events);
                        State::Arguments(scanner)
                    }
                    Head::NoCall => return self.give_up(&text, events),
                };
            }
            State::Object { call, text, in_list } => {
                let progress = call.push(c, events);
                if call.begun {
                    text.clear();
                } else {
                    text.push(c);
                }
                let in_list = *in_list;
                match progress {
                    Progress::Open => {}
                    Progress::Done | Progress::DoneBefore => {
                        self.speech.call_ended();
                        self.state = if in_list { State::Between(String::new()) } else { State::Outside };
                        if progress == Progress::DoneBefore {
                            self.push(c, events);
                        }
                    }
                    Progress::NoCall => {
                        let text = std::mem::take(text);
                        self.give_up(&text, events);
                    }
                }
            }
            State::Arguments(scanner) => {
                give_arguments(c.encode_utf8(&mut [0; 4]), events);
                if scanner.push(c) == Scanned::Last {
                    self.speech.call_ended();
                    self.state = State::Outside;
                }
            }
            State::Between(held) => {
                held.push(c);
                if c == ',' {
                    self.state = State::Object { call: Box::new(Call::new("")), text: String::new(), in_list: true };
                } else if c == ']' {
                    self.state = State::Outside;
                } else if !c.is_whitespace() {
                    let held = std::mem::take(held);
                    self.state = State::Outside;
                    held.chars().for_each(|c| self.push(c, events));
                }
            }
        }
    }

    /// Gives out what stood behind the tag: it is no call. Behind another call of a list it had no tag of its own.
    fn give_up(&mut self, text: &str, events: &mut Vec<ToolEvent>) {
        self.state = State::Outside;
        self.speech.say(TAG, events);
        text.chars().for_each(|c| self.push(c, events));
    }

    pub fn finish(mut self, events: &mut Vec<ToolEvent>) {
        match std::mem::take(&mut self.state) {
            State::Outside => self.speech.finish(events),
            State::Head(text) => self.speech.say(&format!("{TAG}{text}"), events),
            State::Object { call, text, .. } if !call.begun => self.speech.say(&format!("{TAG}{text}"), events),
            State::Object { call, .. } => {
                if call.finish(events) {
                    events.push(ToolEvent::Incomplete);
                }
            }
            State::Arguments(_) => events.push(ToolEvent::Incomplete),
            State::Between(_) => {}
        }
    }
}

/// What stands behind the tag.
enum Head {
    /// More must come.
    Open,
    /// A list of objects begins.
    List,
    /// An object begins.
    Object,
    /// The arguments of this function begin.
    Named(String),
    NoCall,
}

fn head(text: &str) -> Head {
    let text = text.trim_start();
    match text {
        "" => return Head::Open,
        "[" => return Head::List,
        "{" => return Head::Object,
        _ => {}
    }
    let end = text.find(['[', '{']).unwrap_or(text.len());
    let (name, rest) = (text[..end].trim(), &text[end..]);
    let plain = |c: char| c.is_alphanumeric() || "_-.: ".contains(c);
    if name.is_empty() || !name.chars().all(plain) || text[..end].contains('\n') && !text[..end].ends_with('\n') {
        return Head::NoCall;
    }
    // An id of the call may stand between.
    let behind_id = match rest.strip_prefix(ID) {
        Some(id) => match id.find('[') {
            Some(end) if id[..end].chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-') => &id[end..],
            None if id.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-') => return Head::Open,
            _ => return Head::NoCall,
        },
        None => rest,
    };
    let arguments = behind_id.strip_prefix(ARGUMENTS).unwrap_or(behind_id).trim_start();
    match arguments {
        "{" => Head::Named(name.into()),
        "" => Head::Open,
        _ if ARGUMENTS.starts_with(arguments) || (behind_id == rest && ID.starts_with(rest)) => Head::Open,
        _ => Head::NoCall,
    }
}
