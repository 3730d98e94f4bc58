//! Puts marks into texts from outside: see [`crate::rendered`].

use minijinja::Value;
use minijinja::value::ValueKind;

use crate::rendered::{ControlTokens, Marks};
use crate::{FunctionCall, Message, Result, Role, THINK_CLOSE, THINK_OPEN, Tokenizer, ToolCall};

/// Keys of descriptions of tools that templates look up: of the API and of JSON schemas, not from outside.
const KEYS: [&str; 20] = [
    "$defs",
    "$ref",
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "default",
    "description",
    "enum",
    "format",
    "function",
    "items",
    "name",
    "oneOf",
    "parameters",
    "properties",
    "required",
    "strict",
    "title",
    "type",
];

/// Marks texts from outside.
pub(crate) struct Marker<'a> {
    tokenizer: &'a Tokenizer,
    tokens: &'a ControlTokens,
    pub marks: Marks,
}

impl<'a> Marker<'a> {
    /// A marker for these texts, of which `known` are all that come from outside or from the template.
    ///
    /// # Errors
    /// The texts leave no character for a mark.
    pub fn new(tokenizer: &'a Tokenizer, known: &[&str]) -> Result<Self> {
        Ok(Self { tokenizer, tokens: tokenizer.controls(), marks: Marks::not_in(known)? })
    }

    /// The text with its marks.
    pub fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        let mut places = self.places(&text);
        // What becomes a token only when it is normalised is normalised now: encoding does it anyway.
        let normalized = self.tokenizer.normalized(&text);
        if normalized != text {
            let later = self.places(&normalized);
            if later.len() != places.len() {
                (text, places) = (normalized, later);
            }
        }
        places.sort_unstable();
        places.dedup();
        for (at, mark) in places.into_iter().rev() {
            text.insert(at, mark);
        }
        text
    }

    /// Where marks belong, and which.
    fn places(&self, text: &str) -> Vec<(usize, char)> {
        let mut places = Vec::new();
        let mut characters = text.char_indices().peekable();
        while let Some((at, first)) = characters.next() {
            let next = characters.peek().map(|(_, c)| *c);
            let tokens = |second| self.tokens.by_start.get(&(first, second)).into_iter().flatten();
            let behind = at + first.len_utf8();
            if next.is_some() && tokens(next).any(|token| text[at..].starts_with(token.as_str())) {
                places.push((behind, self.marks.inside));
            }
            if tokens(None).next().is_some() {
                places.push((behind, self.marks.behind));
            }
        }
        // Templates strip texts and put them behind each other.
        let (start, end) = (text.len() - text.trim_start().len(), text.trim_end().len());
        if start < end {
            let trimmed = &text[start..end];
            let lengths = 1..=self.tokens.longest.min(trimmed.len());
            let is_prefix = |length| {
                let from = trimmed.len() - length;
                trimmed.is_char_boundary(from) && self.tokens.prefixes.contains(&trimmed[from..])
            };
            let is_suffix =
                |length| trimmed.is_char_boundary(length) && self.tokens.suffixes.contains(&trimmed[..length]);
            if lengths.clone().any(is_prefix) {
                places.push((end, self.marks.inside));
            }
            if lengths.clone().any(is_suffix) {
                places.push((start, self.marks.inside));
            }
        }
        places
    }

    /// A value in which every text and every key has its marks.
    pub fn value(&self, value: &Value) -> Value {
        let items = || value.try_iter().into_iter().flatten();
        match value.kind() {
            ValueKind::String => Value::from(self.text(value.as_str().unwrap_or_default())),
            ValueKind::Seq => items().map(|item| self.value(&item)).collect(),
            ValueKind::Map => {
                let pair = |key: Value| {
                    let known = key.as_str().is_some_and(|key| KEYS.contains(&key));
                    let item = self.value(&value.get_item(&key).unwrap_or_default());
                    (if known { key } else { self.value(&key) }, item)
                };
                Value::from_pairs(items().map(pair))
            }
            _ => value.clone(),
        }
    }

    /// A message in which every text has its marks, save the arguments of calls: what they are is known when they are shown.
    pub fn message(&self, message: &Message) -> Message {
        let text = |text: &Option<String>| text.as_ref().map(|text| self.text(text));
        let call = |call: &ToolCall| ToolCall {
            id: text(&call.id),
            kind: self.text(&call.kind),
            function: FunctionCall { name: self.text(&call.function.name), arguments: call.function.arguments.clone() },
        };
        Message {
            role: message.role,
            content: text(&message.content),
            reasoning_content: text(&message.reasoning_content),
            tool_calls: message.tool_calls.iter().map(call).collect(),
            tool_call_id: text(&message.tool_call_id),
            name: text(&message.name),
        }
    }
}

/// All texts of a message.
pub(crate) fn texts(message: &Message) -> impl Iterator<Item = &str> {
    let own = [&message.content, &message.reasoning_content, &message.tool_call_id, &message.name];
    let calls = message.tool_calls.iter().flat_map(|call| {
        let texts = [&call.kind, &call.function.name, &call.function.arguments];
        texts.into_iter().chain(call.id.as_ref())
    });
    own.into_iter().flatten().chain(calls).map(String::as_str)
}

/// How a template may tell a thought from the answer in what the assistant said earlier.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Split {
    /// Whether the thought ends at the first closing tag, else at the last.
    thought_to_first: bool,
    /// Whether the answer begins behind the first closing tag, else behind the last.
    answer_from_first: bool,
    /// Whether newlines in front of the answer belong to neither.
    strip: bool,
    /// Whether a message without an answer counts as one with a text.
    keep_empty: bool,
}

impl Split {
    /// All ways, the usual ones first.
    pub fn all() -> impl Iterator<Item = Self> {
        let ends = [(false, false), (true, false), (true, true)];
        let each = |(thought_to_first, answer_from_first)| {
            [(false, true), (true, true), (false, false), (true, false)].map(|(strip, keep_empty)| Self {
                thought_to_first,
                answer_from_first,
                strip,
                keep_empty,
            })
        };
        ends.into_iter().flat_map(each)
    }

    /// A message whose thought stands in `reasoning_content`, where the template would look for it in the text.
    pub fn apply(self, message: &Message, marks: Marks) -> Message {
        let content = message.content.as_deref().filter(|_| message.role == Role::Assistant);
        let ends = content.and_then(|text| Some((text, text.find(THINK_CLOSE)?, text.rfind(THINK_CLOSE)?)));
        let Some((text, first, last)) = ends else { return message.clone() };
        let thought = text[..if self.thought_to_first { first } else { last }].trim_end_matches('\n');
        let thought = thought.rsplit(THINK_OPEN).next().unwrap_or(thought).trim_start_matches('\n');
        let answer = &text[if self.answer_from_first { first } else { last } + THINK_CLOSE.len()..];
        let answer = if self.strip { answer.trim_start_matches('\n') } else { answer };
        let answer = if answer.is_empty() && self.keep_empty { String::from(marks.inside) } else { answer.into() };
        Message {
            content: Some(answer),
            reasoning_content: message.reasoning_content.clone().or_else(|| Some(thought.into())),
            ..message.clone()
        }
    }
}
