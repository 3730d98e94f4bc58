//! The parser of answers that may call tools.

use super::{Tool, ToolEvent, ToolFormat, coder, deepseek, hermes, llama, mistral};

/// Tells calls of tools from text while an answer arrives; how it is cut into pieces changes neither.
///
/// The pieces of the arguments of a call, joined, are the JSON that the model wrote, valid or not; for
/// [`ToolFormat::QwenCoder`], which writes none, they are made of what it wrote. Tags that are tokens of the vocabulary are given
/// as their text. What begins like a call and is none comes back as content.
///
/// ```
/// use minke_text::{ToolCallParser, ToolEvent::*, ToolFormat};
/// let mut parser = ToolCallParser::new(ToolFormat::DeepSeekBare, &[]);
/// assert_eq!(parser.push("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁s"), []);
/// assert_eq!(parser.push("ep｜>{\"a\": 1"), [Call("add".into()), Arguments("{\"a\": 1".into())]);
/// assert_eq!(parser.push("}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"), [Arguments("}".into())]);
/// assert_eq!(parser.finish(), []);
///
/// let mut parser = ToolCallParser::new(ToolFormat::Hermes, &[]);
/// let events = parser.push("<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\"");
/// assert_eq!(events, [Call("add".into()), Arguments("{\"a\"".into())]);
/// assert_eq!(parser.finish(), [Incomplete]);
/// ```
#[derive(Clone, Debug)]
pub struct ToolCallParser(Parser);

#[derive(Clone, Debug)]
enum Parser {
    DeepSeek(deepseek::Parser),
    Hermes(hermes::Parser),
    QwenCoder(coder::Parser),
    Llama(llama::Parser),
    Mistral(mistral::Parser),
}

impl Default for ToolCallParser {
    /// For both of DeepSeek's formats.
    fn default() -> Self {
        Self::new(ToolFormat::DeepSeekBare, &[])
    }
}

impl ToolCallParser {
    /// A parser for calls in this format. Of the tools it needs the names where a whole answer may be a call
    /// ([`ToolFormat::Llama`]: of no others if any are given), and the types of arguments where these are not JSON
    /// ([`ToolFormat::QwenCoder`]).
    ///
    /// Relatives are understood too: both of DeepSeek's formats, or both of Mistral's, whichever is given.
    pub fn new(format: ToolFormat, tools: &[Tool]) -> Self {
        Self(match format {
            ToolFormat::DeepSeekFenced | ToolFormat::DeepSeekBare => Parser::DeepSeek(deepseek::Parser::default()),
            ToolFormat::Hermes => Parser::Hermes(hermes::Parser::default()),
            ToolFormat::QwenCoder => Parser::QwenCoder(coder::Parser::new(tools)),
            ToolFormat::Llama => Parser::Llama(llama::Parser::new(tools)),
            ToolFormat::MistralList | ToolFormat::MistralNamed => Parser::Mistral(mistral::Parser::default()),
        })
    }

    /// Whether a token is a tag of the format: then its text belongs into the parser even if the token is special.
    pub fn has_tag(&self, token: &[u8]) -> bool {
        let tags: &[&str] = match self.0 {
            Parser::DeepSeek(_) => &deepseek::TAGS,
            Parser::Hermes(_) => &hermes::TAGS,
            Parser::QwenCoder(_) => &coder::TAGS,
            Parser::Llama(_) => &[llama::TAG],
            Parser::Mistral(_) => &mistral::TAGS,
        };
        tags.iter().any(|tag| tag.as_bytes() == token)
    }

    /// The pieces that this text completes.
    pub fn push(&mut self, text: &str) -> Vec<ToolEvent> {
        let mut events = Vec::new();
        match &mut self.0 {
            Parser::DeepSeek(parser) => parser.push(text, &mut events),
            Parser::Hermes(parser) => text.chars().for_each(|c| parser.push(c, &mut events)),
            Parser::QwenCoder(parser) => parser.push(text, &mut events),
            Parser::Llama(parser) => text.chars().for_each(|c| parser.push(c, &mut events)),
            Parser::Mistral(parser) => text.chars().for_each(|c| parser.push(c, &mut events)),
        }
        events
    }

    /// The pieces that were held back in case more would come, and [`ToolEvent::Incomplete`] if the answer ended inside a
    /// call.
    pub fn finish(self) -> Vec<ToolEvent> {
        let mut events = Vec::new();
        match self.0 {
            Parser::DeepSeek(parser) => parser.finish(&mut events),
            Parser::Hermes(parser) => parser.finish(&mut events),
            Parser::QwenCoder(parser) => parser.finish(&mut events),
            Parser::Llama(parser) => parser.finish(&mut events),
            Parser::Mistral(parser) => parser.finish(&mut events),
        }
        events
    }
}
