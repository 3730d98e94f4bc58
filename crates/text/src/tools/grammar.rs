//! Grammars of calls: an answer that calls a tool, in the model's own format, with arguments that the tool's schema allows.

use serde_json::{Value, json};

use super::deepseek::{CALL_BEGIN, CALL_END, CALLS_BEGIN, CALLS_END, SEPARATOR};
use super::{Tool, ToolFormat, coder, hermes, mistral};
use crate::grammar::check_schema;
use crate::{GrammarError, GrammarSource};

/// Which calls an answer may or has to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ToolChoice {
    /// None.
    None,
    /// As the model likes.
    #[default]
    Auto,
    /// At least one.
    Required,
    /// One of this function.
    Function(String),
}

/// A grammar for calls.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolGrammar {
    /// What the answer has to look like.
    pub source: GrammarSource,
    /// Tools whose arguments may be any JSON object, as their schema is not supported, with the reason.
    pub unconstrained: Vec<(String, GrammarError)>,
}

impl ToolFormat {
    /// What an answer has to look like that calls these tools; with `parallel`, several times if it likes.
    ///
    /// [`ToolChoice::Required`] and [`ToolChoice::Function`]: calls and nothing else. [`ToolChoice::Auto`]: any text, in which calls are
    /// bound from their first tag on; none is needed, and none returned, if no tool is strict.
    ///
    /// # Errors
    /// The choice names no tool, or the schema of a strict tool is not supported; the pointer leads into its parameters. The
    /// schema of a tool that is not strict then allows any object, which [`ToolGrammar::unconstrained`] says.
    pub fn grammar(
        self,
        tools: &[Tool],
        choice: &ToolChoice,
        parallel: bool,
    ) -> Result<Option<ToolGrammar>, GrammarError> {
        let chosen: Vec<&Tool> = match choice {
            ToolChoice::None => return Ok(None),
            ToolChoice::Auto if !tools.iter().any(|tool| tool.strict) => return Ok(None),
            ToolChoice::Auto | ToolChoice::Required => tools.iter().collect(),
            ToolChoice::Function(name) => tools.iter().filter(|tool| tool.name == *name).collect(),
        };
        if chosen.is_empty() {
            return Err(GrammarError::new(match choice {
                ToolChoice::Function(name) => format!("there is no tool {name:?}; choose one that is given"),
                _ => "there are no tools; give some".into(),
            }));
        }
        let mut unconstrained = Vec::new();
        let mut calls = Vec::new();
        for tool in chosen {
            let arguments = match arguments(self, tool) {
                Ok(arguments) => arguments,
                Err(GrammarError { pointer, reason }) if tool.strict => {
                    return Err(GrammarError { pointer, reason: format!("tool {:?}: {reason}", tool.name) });
                }
                Err(error) => {
                    unconstrained.push((tool.name.clone(), error));
                    any_arguments(self)
                }
            };
            calls.push(self.call(&tool.name, arguments));
        }
        let several = parallel && !matches!(choice, ToolChoice::Function(_));
        let calls = GrammarSource::Choice(calls);
        let source =
            if *choice == ToolChoice::Auto { self.text_with_calls(calls, several) } else { self.calls(calls, several) };
        Ok(Some(ToolGrammar { source, unconstrained }))
    }

    /// One call, without what stands around all calls of an answer.
    fn call(self, name: &str, arguments: GrammarSource) -> GrammarSource {
        let letters = |text: &str| GrammarSource::Letters(text.into());
        let quoted = Value::from(name).to_string();
        let (before, name, between, behind) = match self {
            Self::DeepSeekFenced => {
                (format!("{CALL_BEGIN}function{SEPARATOR}"), name, "\n```json\n".to_owned(), format!("\n```{CALL_END}"))
            }
            Self::DeepSeekBare => (CALL_BEGIN.into(), name, SEPARATOR.into(), CALL_END.into()),
            Self::Hermes => (
                format!("{}\n{{\"name\": ", hermes::OPEN),
                quoted.as_str(),
                ", \"arguments\": ".into(),
                format!("}}\n{}", hermes::CLOSE),
            ),
            Self::Llama => ("{\"name\": ".into(), quoted.as_str(), ", \"parameters\": ".into(), "}".into()),
            Self::MistralList => ("{\"name\": ".into(), quoted.as_str(), ", \"arguments\": ".into(), "}".into()),
            Self::MistralNamed => (mistral::TAG.into(), name, mistral::ARGUMENTS.into(), String::new()),
            Self::QwenCoder => (
                format!("{}\n{}", coder::OPEN, coder::FUNCTION),
                name,
                ">\n".into(),
                format!("{}\n{}", coder::FUNCTION_END, coder::CLOSE),
            ),
        };
        sequence([text(before), letters(name), text(between), arguments, text(behind)])
    }

    /// What stands in front of all calls, between two of them, and behind all.
    fn around(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::DeepSeekFenced => (CALLS_BEGIN, "\n", CALLS_END),
            Self::DeepSeekBare => (CALLS_BEGIN, "", CALLS_END),
            Self::Hermes | Self::QwenCoder => ("", "\n", ""),
            Self::Llama => ("", "; ", ""),
            Self::MistralList => ("[TOOL_CALLS] [", ", ", "]"),
            Self::MistralNamed => ("", "", ""),
        }
    }

    /// Calls, and nothing else.
    fn calls(self, call: GrammarSource, several: bool) -> GrammarSource {
        let (before, between, behind) = self.around();
        let mut parts = vec![text(before), call.clone()];
        if several {
            parts.push(repeat(sequence([text(between), call]), 0, None));
        }
        parts.push(text(behind));
        sequence(parts)
    }

    /// Any text, in which calls are bound from their first tag on.
    fn text_with_calls(self, call: GrammarSource, several: bool) -> GrammarSource {
        if self == Self::Llama {
            // Nothing but the bracket marks a call: an answer that begins with it is one.
            let other = GrammarSource::Regex(r"\s*([^\s{](?s:.*))?".into());
            return GrammarSource::Choice(vec![other, self.calls(call, several)]);
        }
        let (tag, calls) = match self {
            Self::DeepSeekFenced | Self::DeepSeekBare => (CALLS_BEGIN, self.calls(call, several)),
            Self::Hermes => (hermes::OPEN, call),
            Self::QwenCoder => (coder::OPEN, call),
            Self::MistralList => (mistral::TAG, self.calls(call, several)),
            Self::MistralNamed | Self::Llama => (mistral::TAG, call),
        };
        // The tag ends the text; the rest of the call follows.
        let speech = GrammarSource::FreeText { until: Some(tag.into()) };
        let call = sequence([speech, without_first_tag(calls, tag)]);
        let rest = GrammarSource::FreeText { until: None };
        match several {
            true => sequence([repeat(call, 0, None), rest]),
            // Nothing behind the call, where letters could spell another.
            false => GrammarSource::Choice(vec![call, rest]),
        }
    }
}

/// A source without the tag with which it begins.
fn without_first_tag(source: GrammarSource, tag: &str) -> GrammarSource {
    match source {
        GrammarSource::Text(text) => GrammarSource::Text(text.strip_prefix(tag).unwrap_or(&text).into()),
        GrammarSource::Choice(cases) => {
            GrammarSource::Choice(cases.into_iter().map(|case| without_first_tag(case, tag)).collect())
        }
        GrammarSource::Sequence(mut parts) => {
            if let Some(first) = parts.first_mut() {
                *first = without_first_tag(std::mem::replace(first, text("")), tag);
            }
            GrammarSource::Sequence(parts)
        }
        other => other,
    }
}

/// What the arguments of a call have to look like.
fn arguments(format: ToolFormat, tool: &Tool) -> Result<GrammarSource, GrammarError> {
    let Some(schema) = &tool.parameters else { return Ok(any_arguments(format)) };
    let mut schema = schema.clone();
    match &mut schema {
        Value::Object(map) => {
            map.entry("type").or_insert_with(|| json!("object"));
        }
        _ => return Err(GrammarError::at("", "is no schema of an object")),
    }
    check_schema(&schema)?;
    if format == ToolFormat::QwenCoder { tagged_arguments(&schema) } else { Ok(GrammarSource::JsonSchema(schema)) }
}

/// Arguments of any name and value.
fn any_arguments(format: ToolFormat) -> GrammarSource {
    if format != ToolFormat::QwenCoder {
        return GrammarSource::JsonObject;
    }
    let key = GrammarSource::Regex(r"[^<>\n]+".into());
    repeat(sequence([text(coder::PARAMETER), key, text(">\n"), tagged_text()]), 0, None)
}

/// Arguments in tags of their own, in the order of the schema.
fn tagged_arguments(schema: &Value) -> Result<GrammarSource, GrammarError> {
    /// Keywords that bind a text and that a text in tags cannot obey.
    const OF_TEXTS: [&str; 4] = ["minLength", "maxLength", "pattern", "format"];
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut parts = Vec::new();
    for (key, argument) in schema["properties"].as_object().into_iter().flatten() {
        let at = |keyword: &str| format!("/properties/{}/{keyword}", key.replace('~', "~0").replace('/', "~1"));
        if key.contains(['<', '>', '\n']) {
            return Err(GrammarError::at(at(""), "has a name that this model's format cannot write"));
        }
        let is_text = argument["type"] == "string";
        let value = if let Some(values) = argument["enum"].as_array().filter(|_| is_text) {
            let value = |value: &Value| value.as_str().map(|value| GrammarSource::Letters(value.into()));
            let values = GrammarSource::Choice(values.iter().filter_map(value).collect());
            sequence([values, text(format!("\n{}\n", coder::PARAMETER_END))])
        } else if is_text {
            if let Some(keyword) = OF_TEXTS.into_iter().find(|keyword| argument.get(keyword).is_some()) {
                return Err(GrammarError::at(at(keyword), "is not supported in this model's format"));
            }
            tagged_text()
        } else {
            let mut own = argument.clone();
            if let Value::Object(map) = &mut own {
                for definitions in ["$defs", "definitions"] {
                    if let Some(all) = schema.get(definitions) {
                        map.insert(definitions.into(), all.clone());
                    }
                }
            }
            check_schema(&own).map_err(|error| GrammarError::at(at(""), error.reason))?;
            sequence([GrammarSource::JsonSchema(own), text(format!("\n{}\n", coder::PARAMETER_END))])
        };
        let argument = sequence([text(coder::PARAMETER), GrammarSource::Letters(key.clone()), text(">\n"), value]);
        let optional = !required.contains(&key.as_str());
        parts.push(if optional { repeat(argument, 0, Some(1)) } else { argument });
    }
    if let Some(name) = required.iter().find(|name| schema["properties"].get(**name).is_none()) {
        return Err(GrammarError::at("/required", format!("{name:?} is not among the properties")));
    }
    Ok(sequence(parts))
}

/// Any text in tags, up to and with the closing one.
fn tagged_text() -> GrammarSource {
    sequence([GrammarSource::FreeText { until: Some(format!("\n{}\n", coder::PARAMETER_END)) }])
}

fn text(text: impl Into<String>) -> GrammarSource {
    GrammarSource::Text(text.into())
}

fn sequence(parts: impl Into<Vec<GrammarSource>>) -> GrammarSource {
    let mut parts: Vec<GrammarSource> = parts.into();
    parts.retain(|part| *part != text(""));
    GrammarSource::Sequence(parts)
}

fn repeat(item: GrammarSource, min: u32, max: Option<u32>) -> GrammarSource {
    GrammarSource::Repeat { item: Box::new(item), min, max }
}
