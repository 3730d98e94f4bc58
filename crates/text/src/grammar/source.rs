//! What an answer has to look like, before it is compiled.

use std::fmt::Write;

use llguidance::regex_to_lark;
use serde_json::{Value, json};

use super::schema::{self, MAX_SPACE};
use super::{GrammarError, GrammarVocabulary};

/// The longest Lark text or regular expression, in bytes.
const MAX_BYTES: usize = 256 << 10;

/// What an answer has to look like.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum GrammarSource {
    /// Any JSON object.
    JsonObject,
    /// JSON that a schema describes. Properties come in the order in which the schema lists them.
    JsonSchema(Value),
    /// A grammar in llguidance's variant of Lark.
    Lark(String),
    /// A text that a regular expression matches as a whole.
    Regex(String),
    /// This text. An added token of the vocabulary in it is its id.
    Text(String),
    /// These letters, whatever they spell: never an added token.
    Letters(String),
    /// Any text without added tokens; up to and with the first occurrence of this text, if one is given.
    FreeText {
        /// Where the text ends; to the end of the answer if it is none.
        until: Option<String>,
    },
    /// One behind the other.
    Sequence(Vec<GrammarSource>),
    /// One of these.
    Choice(Vec<GrammarSource>),
    /// The same several times.
    Repeat {
        /// What is repeated.
        item: Box<GrammarSource>,
        /// How often at least.
        min: u32,
        /// How often at most; any number of times if it is none.
        max: Option<u32>,
    },
}

impl GrammarSource {
    /// The one schema that this is, if it is one.
    pub(super) fn schema(&self) -> Option<&Value> {
        match self {
            Self::JsonSchema(schema) => Some(schema),
            _ => None,
        }
    }

    /// The grammar in llguidance's Lark.
    ///
    /// # Errors
    /// A schema has a keyword that is not supported, or a text is too long.
    pub(super) fn to_lark(&self, vocabulary: &GrammarVocabulary) -> Result<String, GrammarError> {
        if let Self::Lark(text) = self {
            check_length(text)?;
            return Ok(text.clone());
        }
        let mut writer = Writer { vocabulary, rules: String::new(), count: 0 };
        let start = writer.rule(self)?;
        Ok(format!("start: {start}\n{}", writer.rules))
    }
}

struct Writer<'a> {
    vocabulary: &'a GrammarVocabulary,
    rules: String,
    count: usize,
}

impl Writer<'_> {
    /// Writes the rule of a source; its name.
    fn rule(&mut self, source: &GrammarSource) -> Result<String, GrammarError> {
        let mut attributes = "";
        let body = match source {
            GrammarSource::JsonObject => inline_schema(json!({ "type": "object" })),
            GrammarSource::JsonSchema(schema) => inline_schema(schema::prepare(schema)?),
            GrammarSource::Lark(text) => {
                check_length(text)?;
                format!("%lark {{\n{text}\n}}")
            }
            GrammarSource::Regex(regex) => {
                check_length(regex)?;
                format!("/{}/", regex_to_lark(regex, ""))
            }
            GrammarSource::Text(text) => self.text(text),
            GrammarSource::Letters(text) => quoted(text),
            GrammarSource::FreeText { until: None } => "/(?s:.*)/".into(),
            GrammarSource::FreeText { until: Some(end) } => match self.vocabulary.first_control(end) {
                // The shortest match wins over longer ones of other rules, so the end is noticed wherever it stands.
                None => {
                    attributes = "[lazy]";
                    format!("/(?s:.*)/ {}", quoted(end))
                }
                Some((at, ..)) => {
                    let name = format!("TEXT_{}", self.count);
                    let _ = writeln!(self.rules, "{name}: /(?s:.*)/ {}", quoted(&end[..at]));
                    format!("{name} {}", self.text(&end[at..]))
                }
            },
            GrammarSource::Sequence(items) => self.names(items, " ")?,
            GrammarSource::Choice(items) => self.names(items, " | ")?,
            GrammarSource::Repeat { item, min, max } => {
                let name = self.rule(item)?;
                match (min, max) {
                    (0, None) => format!("{name}*"),
                    (1, None) => format!("{name}+"),
                    (min, None) => format!("{name}{{{min},}}"),
                    (min, Some(max)) => format!("{name}{{{min},{max}}}"),
                }
            }
        };
        let name = format!("part_{}", self.count);
        self.count += 1;
        let _ = writeln!(self.rules, "{name}{attributes}: {body}");
        Ok(name)
    }

    fn names(&mut self, items: &[GrammarSource], between: &str) -> Result<String, GrammarError> {
        let names = items.iter().map(|item| self.rule(item)).collect::<Result<Vec<_>, _>>()?;
        Ok(if names.is_empty() { "\"\"".into() } else { names.join(between) })
    }

    /// A text with the added tokens in it as ids.
    fn text(&self, text: &str) -> String {
        let (mut rest, mut parts) = (text, Vec::new());
        while let Some((at, length, id)) = self.vocabulary.first_control(rest) {
            if at > 0 {
                parts.push(quoted(&rest[..at]));
            }
            parts.push(format!("<[{id}]>"));
            rest = &rest[at + length..];
        }
        if !rest.is_empty() || parts.is_empty() {
            parts.push(quoted(rest));
        }
        parts.join(" ")
    }
}

/// A literal of Lark.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A schema inside Lark, with bounded white space.
fn inline_schema(mut schema: Value) -> String {
    let options = json!({ "whitespace_pattern": format!(r"[\x20\x0A\x0D\x09]{{1,{MAX_SPACE}}}") });
    match &mut schema {
        Value::Object(map) => {
            map.insert("x-guidance".into(), options);
        }
        // `true` and `false`.
        other => schema = json!({ "allOf": [other.take()], "x-guidance": options }),
    }
    format!("%json {schema}")
}

fn check_length(text: &str) -> Result<(), GrammarError> {
    match text.len() {
        length if length > MAX_BYTES => {
            Err(GrammarError::new(format!("has {length} bytes; at most {MAX_BYTES} are taken")))
        }
        _ => Ok(()),
    }
}
