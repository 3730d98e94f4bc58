//! Descriptions of tools in the prompt, and calls of tools in the answer.
//!
//! DeepSeek's models call tools in two formats: V3 and R1-0528 write type, name and a fenced block of JSON, V3.1 writes name
//! and JSON.
//!
//! ```text
//! <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME\n```json\nARGUMENTS\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>
//! <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>NAME<｜tool▁sep｜>ARGUMENTS<｜tool▁call▁end｜><｜tool▁calls▁end｜>
//! ```

use minijinja::Value;
use serde::Deserialize;

use crate::jinja::{Style, dumps};
use crate::{Error, Message, Result, Role};

const CALLS_BEGIN: &str = "<｜tool▁calls▁begin｜>";
const CALLS_END: &str = "<｜tool▁calls▁end｜>";
const CALL_BEGIN: &str = "<｜tool▁call▁begin｜>";
const CALL_END: &str = "<｜tool▁call▁end｜>";
const SEPARATOR: &str = "<｜tool▁sep｜>";

/// How a model writes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallFormat {
    /// V3, R1-0528: a type, the name, a fenced block.
    Fenced,
    /// V3.1: the name and bare JSON.
    Bare,
}

impl CallFormat {
    /// The format in which a template writes the calls of earlier turns.
    pub fn of_template(source: &str) -> Self {
        if source.contains("```json") { Self::Fenced } else { Self::Bare }
    }

    /// An example, and how several calls follow each other.
    fn example(self) -> (&'static str, &'static str) {
        match self {
            Self::Fenced => (
                "function<｜tool▁sep｜>tool_call_name\n```json\ntool_call_arguments\n```",
                "chain them with a newline as separator",
            ),
            Self::Bare => {
                ("tool_call_name<｜tool▁sep｜>tool_call_arguments", "chain them directly without separators or spaces")
            }
        }
    }
}

/// A tool as the OpenAI API describes it.
#[derive(Deserialize)]
struct Tool {
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    parameters: Option<Value>,
}

/// Appends a description of the tools to the last system message, in the words of V3.1's model card.
///
/// # Errors
/// `tools` is not a JSON list of functions.
pub(crate) fn describe(messages: &mut Vec<Message>, tools: &str, format: CallFormat) -> Result<()> {
    let tools: Vec<Tool> = serde_json::from_str(tools).map_err(|error| Error::Tools(error.to_string()))?;
    let mut text = String::from("\n\n## Tools\nYou have access to the following tools:\n");
    for Tool { function: Function { name, description, parameters } } in tools {
        let parameters = parameters
            .map_or_else(|| Ok("{}".into()), |value| dumps(&value, &Style::default()))
            .map_err(Error::Tools)?;
        text += &format!("\n### {name}\nDescription: {description}\n\nParameters: {parameters}\n");
    }
    let (example, several) = format.example();
    text += &format!(
        "\nIMPORTANT: ALWAYS adhere to this exact format for tool use:\n\
         {CALLS_BEGIN}{CALL_BEGIN}{example}{CALL_END}{{additional_tool_calls}}{CALLS_END}\n\n\
         Where:\n\
         - `tool_call_name` must be an exact match to one of the available tools\n\
         - `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters Schema\n\
         - For multiple tool calls, {several}"
    );
    match messages.iter_mut().rev().find(|message| message.role == Role::System) {
        Some(system) => system.content.get_or_insert_default().push_str(&text),
        None => messages.insert(0, Message::system(text)),
    }
    Ok(())
}

/// A piece of an answer, told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolEvent {
    /// The next piece of text for the person.
    Content(String),
    /// A call of this function begins.
    Call(String),
    /// The next piece of the arguments of the call that began last, in JSON.
    Arguments(String),
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

/// Tells calls of tools from text while an answer arrives; how it is cut into pieces changes neither.
///
/// Both formats are understood, whatever the model was asked for, and a missing fence or end too. What begins like a call and
/// is none comes back as content.
///
/// ```
/// use minke_text::{ToolCallParser, ToolEvent::*};
/// let mut parser = ToolCallParser::default();
/// assert_eq!(parser.push("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁s"), []);
/// assert_eq!(parser.push("ep｜>{\"a\": 1"), [Call("add".into()), Arguments("{\"a\": 1".into())]);
/// assert_eq!(parser.push("}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"), [Arguments("}".into())]);
/// assert_eq!(parser.finish(), []);
/// ```
#[derive(Clone, Debug)]
pub struct ToolCallParser {
    state: State,
    /// What was read and has not been given out.
    held: String,
    /// Whether any content was given out: blank text in front of calls is none.
    spoke: bool,
}

impl Default for ToolCallParser {
    fn default() -> Self {
        Self { state: State::Outside, held: String::new(), spoke: false }
    }
}

impl ToolCallParser {
    /// The pieces that this text completes.
    pub fn push(&mut self, text: &str) -> Vec<ToolEvent> {
        let mut events = Vec::new();
        self.held.push_str(text);
        while self.step(&mut events) {}
        events
    }

    /// The pieces that were held back in case more would come.
    pub fn finish(mut self) -> Vec<ToolEvent> {
        let mut events = Vec::new();
        let held = std::mem::take(&mut self.held);
        match self.state {
            State::Outside => self.say(&held, &mut events),
            State::Between if held.trim().is_empty() => {}
            State::Between => self.say(&held, &mut events),
            State::Head => self.say(&format!("{CALL_BEGIN}{held}"), &mut events),
            State::Arguments { begun } => give_last(&held, begun, &mut events),
        }
        events
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
                    give_last(&self.take(at, tag), begun, events);
                    self.state = if tag == CALL_END { State::Between } else { State::Outside };
                    true
                }
                None => {
                    let end = without_part_of(&self.held, [CALL_END, CALLS_END]);
                    let end = self.held[..end].trim_end_matches(is_end).len();
                    if end > 0 {
                        events.push(ToolEvent::Arguments(self.held.drain(..end).collect()));
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

/// Gives out the rest of the arguments, without the end of the fence; a call without arguments has none to give.
fn give_last(rest: &str, begun: bool, events: &mut Vec<ToolEvent>) {
    match rest.trim_end_matches(is_end) {
        "" if begun => {}
        "" => events.push(ToolEvent::Arguments("{}".into())),
        rest => events.push(ToolEvent::Arguments(rest.into())),
    }
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
