//! Calls of Qwen3-Coder: every argument in tags of its own. Its JSON is made here, by the types of the tool's schema.

use std::collections::BTreeSet;

use serde_json::Value;

use super::call::{Speech, give_arguments, part_of_tag};
use super::{Tool, ToolEvent};

pub(super) const OPEN: &str = "<tool_call>";
pub(super) const CLOSE: &str = "</tool_call>";
pub(super) const FUNCTION: &str = "<function=";
pub(super) const FUNCTION_END: &str = "</function>";
pub(super) const PARAMETER: &str = "<parameter=";
pub(super) const PARAMETER_END: &str = "</parameter>";
pub(super) const TAGS: [&str; 6] = [OPEN, CLOSE, FUNCTION, FUNCTION_END, PARAMETER, PARAMETER_END];

#[derive(Clone, Debug, PartialEq)]
enum State {
    Outside,
    /// Behind the opening tags, before the name is whole; with the tags.
    Head(String),
    /// In a function, between its arguments.
    Between,
    /// Behind a key, in its value.
    Value(String),
    /// Behind a function, whose call may be closed.
    Behind,
}

/// The parser of this format.
#[derive(Clone, Debug)]
pub(super) struct Parser {
    tools: Vec<Tool>,
    speech: Speech,
    state: State,
    held: String,
    /// The function that is called, and how many arguments were given out.
    function: String,
    count: usize,
}

impl Parser {
    pub fn new(tools: &[Tool]) -> Self {
        Self {
            tools: tools.to_vec(),
            speech: Speech::default(),
            state: State::Outside,
            held: String::new(),
            function: String::new(),
            count: 0,
        }
    }

    pub fn push(&mut self, text: &str, events: &mut Vec<ToolEvent>) {
        for c in text.chars() {
            if self.state == State::Outside {
                self.push_outside(c, events);
            } else {
                self.held.push(c);
                while self.step(events) {}
            }
        }
    }

    fn push_outside(&mut self, c: char, events: &mut Vec<ToolEvent>) {
        if let Some(tag) = self.speech.push(c, &[OPEN, FUNCTION], events) {
            self.state = State::Head(tag.into());
        }
    }

    /// Takes what is certain from the front of `held`; false if nothing more is.
    fn step(&mut self, events: &mut Vec<ToolEvent>) -> bool {
        match self.state.clone() {
            State::Outside => false,
            State::Head(tags) => self.step_head(tags, events),
            State::Between => self.step_between(events),
            State::Value(key) => {
                let Some(tag) = [PARAMETER_END, FUNCTION_END].into_iter().find(|tag| self.held.ends_with(tag)) else {
                    return false;
                };
                let value = self.held[..self.held.len() - tag.len()].to_owned();
                self.held = if tag == FUNCTION_END { tag.into() } else { String::new() };
                self.give(&key, &value, events);
                self.state = State::Between;
                true
            }
            State::Behind => {
                let rest = self.held.trim_start();
                if rest == CLOSE {
                    self.held.clear();
                    self.state = State::Outside;
                } else if !CLOSE.starts_with(rest) {
                    self.leave(events);
                }
                false
            }
        }
    }

    fn step_head(&mut self, tags: String, events: &mut Vec<ToolEvent>) -> bool {
        let blank = self.held.len() - self.held.trim_start().len();
        if tags == OPEN {
            let rest = &self.held[blank..];
            if rest == FUNCTION {
                self.state = State::Head(format!("{tags}{}", self.held));
                self.held.clear();
            } else if !FUNCTION.starts_with(rest) {
                self.no_call(&tags, events);
            }
            return false;
        }
        match self.held.strip_suffix('>') {
            Some(name) if !name.trim().is_empty() => {
                self.function = name.trim().into();
                self.count = 0;
                self.held.clear();
                events.push(ToolEvent::Call(self.function.clone()));
                self.state = State::Between;
            }
            None if !self.held.ends_with(['\n', '<']) => {}
            _ => self.no_call(&tags, events),
        }
        false
    }

    fn step_between(&mut self, events: &mut Vec<ToolEvent>) -> bool {
        let rest = self.held.trim_start();
        if rest.starts_with(FUNCTION_END) || rest.starts_with(CLOSE) {
            let closed = rest.starts_with(CLOSE);
            let length = if closed { CLOSE.len() } else { FUNCTION_END.len() };
            let after = rest[length..].to_owned();
            give_arguments(if self.count == 0 { "{}" } else { "}" }, events);
            self.held = after;
            self.speech.call_ended();
            self.state = if closed { State::Outside } else { State::Behind };
            return false;
        }
        if let Some(key) = rest.strip_prefix(PARAMETER) {
            if let Some(end) = key.find('>') {
                let (key, after) = (key[..end].trim().to_owned(), key[end + 1..].to_owned());
                self.held = after;
                self.state = State::Value(key);
                return true;
            }
            return false;
        }
        let tags = [PARAMETER, FUNCTION_END, CLOSE];
        if !rest.is_empty() && part_of_tag(rest, &tags) != rest.len() {
            // Text between arguments is none of them.
            let skip = rest.char_indices().skip(1).find(|(_, c)| *c == '<').map_or(rest.len(), |(at, _)| at);
            self.held = rest[skip..].to_owned();
            return true;
        }
        false
    }

    /// Gives out one argument.
    fn give(&mut self, key: &str, value: &str, events: &mut Vec<ToolEvent>) {
        let value = value.strip_prefix('\n').unwrap_or(value);
        let value = value.strip_suffix('\n').unwrap_or(value);
        let tool = self.tools.iter().find(|tool| tool.name == self.function);
        let schema = tool.and_then(|tool| tool.parameters.as_ref()).unwrap_or(&Value::Null);
        let (before, key) = (if self.count == 0 { "{" } else { ", " }, Value::from(key));
        let value = as_json(value, &schema["properties"][key.as_str().unwrap_or_default()]);
        give_arguments(&format!("{before}{key}: {value}"), events);
        self.count += 1;
    }

    /// Gives out what looked like a call.
    fn no_call(&mut self, tags: &str, events: &mut Vec<ToolEvent>) {
        self.speech.say(tags, events);
        self.leave(events);
    }

    /// Goes back to text, which begins with what is held.
    fn leave(&mut self, events: &mut Vec<ToolEvent>) {
        self.state = State::Outside;
        let held = std::mem::take(&mut self.held);
        self.push(&held, events);
    }

    pub fn finish(mut self, events: &mut Vec<ToolEvent>) {
        match std::mem::replace(&mut self.state, State::Outside) {
            State::Outside => self.speech.finish(events),
            State::Head(tags) => self.speech.say(&format!("{tags}{}", self.held), events),
            State::Between | State::Value(_) => events.push(ToolEvent::Incomplete),
            // The beginning of a closing tag is no text.
            State::Behind => {}
        }
    }
}

/// The JSON of a value that was written as text, by the schema of the argument: as it stands if the schema allows what it is in
/// JSON, else a text.
fn as_json(text: &str, schema: &Value) -> String {
    let types = types(schema, 0);
    let trimmed = text.trim();
    // As Python writes them.
    let word = match trimmed {
        "True" => "true",
        "False" => "false",
        "None" => "null",
        other => other,
    };
    let fits = |value: &Value| match value {
        Value::Null => types.contains("null"),
        Value::Bool(_) => types.contains("boolean"),
        Value::Number(number) => types.contains("number") || (types.contains("integer") && !number.is_f64()),
        Value::String(_) => false,
        Value::Array(_) => types.contains("array"),
        Value::Object(_) => types.contains("object"),
    };
    match serde_json::from_str::<Value>(word) {
        Ok(value) if fits(&value) => word.to_owned(),
        _ => Value::from(text).to_string(),
    }
}

/// The types that a schema allows besides texts, as far as it says so.
fn types(schema: &Value, depth: usize) -> BTreeSet<&str> {
    const DEEPEST: usize = 8;
    let mut all = BTreeSet::new();
    match &schema["type"] {
        Value::String(name) => all.extend([name.as_str()]),
        Value::Array(names) => all.extend(names.iter().filter_map(Value::as_str)),
        _ => {
            let values = schema["enum"].as_array().into_iter().flatten().chain(schema.get("const"));
            all.extend(values.map(|value| match value {
                Value::Null => "null",
                Value::Bool(_) => "boolean",
                Value::Number(_) => "number",
                Value::String(_) => "string",
                Value::Array(_) => "array",
                Value::Object(_) => "object",
            }));
            for keyword in ["anyOf", "oneOf", "allOf"] {
                let cases = schema[keyword].as_array().into_iter().flatten();
                if depth < DEEPEST {
                    all.extend(cases.flat_map(|case| types(case, depth + 1)));
                }
            }
            if schema.get("$ref").is_some() || schema.get("properties").is_some() {
                all.extend(["object", "array", "number", "boolean", "null"]);
            }
        }
    }
    all
}
