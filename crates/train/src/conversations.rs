//! Conversations of the user to learn from: JSON Lines with `messages` as the OpenAI API writes them, rendered with the template of
//! the model.
//!
//! Which tokens belong to a message is found by rendering: the conversation up to it, and with it. Templates leave out the
//! thoughts of what the assistant said, so a turn with a thought is written as the model itself would: behind its prompt, tags
//! included. Where a template writes earlier turns in another way once they lie behind, no single text has all turns as the
//! model sees them when it answers; such a conversation becomes a document per turn that counts.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use minke_text::{ChatTemplate, Message, RenderOptions, Rendered, Role, THINK_CLOSE, THINK_OPEN, Tokenizer};
use serde::Deserialize;

use crate::base::Base;
use crate::document::Document;
use crate::files::STDIN;
use crate::stage::Context;
use crate::{Error, Result};

/// How long a conversation may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// Tokens at most.
    pub tokens: usize,
    /// Whether longer ones are left out; else they are an error.
    pub leave_out: bool,
}

/// A line of a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    messages: Vec<serde_json::Map<String, serde_json::Value>>,
}

/// What a message may have.
const KEYS: [&str; 6] = ["role", "content", "reasoning_content", "tool_calls", "tool_call_id", "name"];

/// What turns messages into ids.
struct Renderer<'a> {
    tokenizer: &'a Tokenizer,
    template: &'a ChatTemplate,
    end_ids: Vec<u32>,
}

/// The documents of a file: one per conversation, or more of one whose template rewrites earlier turns.
///
/// # Errors
/// If the file cannot be read, or a line is no conversation, has nothing that counts, or is too long: with its number.
pub(crate) fn read(context: &Context<'_>, path: &Path, roles: &[Role], limit: Limit) -> Result<Vec<Document>> {
    let own = ChatTemplate::r1_unforced();
    let template = context.published.map_or(&own, |base| &base.template);
    let renderer = Renderer { tokenizer: context.tokenizer, template, end_ids: context.end_ids()? };
    let is_stdin = path == Path::new(STDIN);
    let (text, path) = match context.outside.stdin().filter(|_| is_stdin) {
        Some(text) => (Cow::Borrowed(text), Path::new("standard input")),
        None => (Cow::Owned(std::fs::read_to_string(path).map_err(Error::read(path))?), path),
    };
    let mut documents = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let refuse =
            |reason: String| Error::BadFile { path: path.into(), reason: format!("line {}: {reason}", number + 1) };
        let made =
            messages(line).and_then(|messages| renderer.documents(&messages, roles).map_err(|error| error.to_string()));
        for document in made.map_err(refuse)? {
            let tokens = document.token_ids.len();
            if tokens <= limit.tokens {
                documents.push(document);
            } else if !limit.leave_out {
                let most = limit.tokens;
                let advice = "shorten it, or leave such out with max_tokens";
                return Err(refuse(format!("has {tokens} tokens, and the model holds {most}; {advice}")));
            }
        }
    }
    Ok(documents)
}

/// The documents of a conversation with a published model.
///
/// # Errors
/// If the template refuses it, or nothing in it counts.
pub(crate) fn documents(base: &Base, messages: &[Message], roles: &[Role]) -> Result<Vec<Document>> {
    let renderer = Renderer { tokenizer: &base.tokenizer, template: &base.template, end_ids: base.end_ids() };
    renderer.documents(messages, roles)
}

/// A text without question, and what ends it; all of it counts.
pub(crate) fn plain(base: &Base, text: &str) -> Document {
    let mut token_ids = base.tokenizer.begin_ids().to_vec();
    token_ids.extend(base.tokenizer.encode_plain(text));
    token_ids.extend(base.end_ids().first());
    Document::counting_from(1, token_ids)
}

/// The messages of a line.
fn messages(line: &str) -> std::result::Result<Vec<Message>, String> {
    let advice = "a line is {\"messages\": [{\"role\": ..., \"content\": ...}, ...]}";
    let Line { messages } = serde_json::from_str(line).map_err(|error| format!("{error}; {advice}"))?;
    let message = |(i, message): (usize, serde_json::Map<String, serde_json::Value>)| {
        if let Some(key) = message.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(format!("message {} has {key:?}, which is not supported; remove it", i + 1));
        }
        serde_json::from_value(message.into()).map_err(|error| format!("message {}: {error}", i + 1))
    };
    messages.into_iter().enumerate().map(message).collect()
}

/// A turn of the assistant that has a thought.
struct Thoughtful<'a> {
    /// Without its tags.
    thought: Cow<'a, str>,
    /// Behind the closing tag.
    answer: Cow<'a, str>,
}

impl<'a> Thoughtful<'a> {
    /// The turn whose thought stands between tags in its text, or apart from it.
    fn of(message: &'a Message) -> Option<Self> {
        let content = message.content.as_deref().unwrap_or_default();
        if let Some(thought) = &message.reasoning_content {
            let answer = format!("\n\n{}", content.trim_start());
            return Some(Self { thought: format!("\n{}\n", thought.trim()).into(), answer: answer.into() });
        }
        let (thought, answer) = content.split_once(THINK_CLOSE)?;
        let thought = thought.trim_start().strip_prefix(THINK_OPEN).unwrap_or(thought);
        Some(Self { thought: thought.into(), answer: answer.into() })
    }

    /// What the model writes behind a prompt, which may have opened the thought.
    fn token_ids(&self, prompt: &str, tokenizer: &Tokenizer) -> Vec<u32> {
        let opened = prompt.trim_end().ends_with(THINK_OPEN);
        let open = if opened { "" } else { THINK_OPEN };
        let thought = if opened && prompt.ends_with('\n') { self.thought.trim_start() } else { &self.thought };
        let (Some(open_id), Some(close_id)) = (tokenizer.id_of(THINK_OPEN), tokenizer.id_of(THINK_CLOSE)) else {
            return tokenizer.encode_plain(&format!("{open}{thought}{THINK_CLOSE}{}", self.answer));
        };
        let mut token_ids = Vec::from_iter((!opened).then_some(open_id));
        token_ids.extend(tokenizer.encode_plain(thought));
        token_ids.push(close_id);
        token_ids.extend(tokenizer.encode_plain(&self.answer));
        token_ids
    }
}

impl Renderer<'_> {
    fn rendered(&self, messages: &[Message], add_generation_prompt: bool) -> Result<Rendered> {
        let options = RenderOptions { add_generation_prompt, ..RenderOptions::default() };
        Ok(self.template.render_for(messages, &options, self.tokenizer)?)
    }

    fn documents(&self, messages: &[Message], roles: &[Role]) -> Result<Vec<Document>> {
        let mut documents: Vec<Document> = Vec::new();
        for (i, _) in messages.iter().enumerate().filter(|(_, message)| roles.contains(&message.role)) {
            let refuse = |reason: &str| Error::Config(format!("message {}: {reason}", i + 1));
            let (token_ids, counted) = match self.thoughtful(&messages[..=i], refuse)? {
                Some(turn) => turn,
                None => self.turn(&messages[..=i], refuse)?,
            };
            if counted.is_empty() {
                return Err(refuse("it is empty"));
            }
            match documents.last_mut() {
                // The turns so far stand in this text as they were.
                Some(last) if token_ids.starts_with(&last.token_ids) => {
                    last.token_ids = token_ids;
                    last.counted.push(counted);
                }
                _ => documents.push(Document { token_ids, counted: vec![counted] }),
            }
        }
        if documents.is_empty() {
            return Err(Error::Config("no message counts; roles says whose do".into()));
        }
        // Nothing is learned from what stands behind the last turn that counts.
        for document in &mut documents {
            let end = document.counted.last().map_or(0, |range: &Range<usize>| range.end);
            document.token_ids.truncate(end);
        }
        Ok(documents)
    }

    /// The tokens of a conversation, and which are its last message, as the template writes them.
    fn turn(&self, messages: &[Message], refuse: impl Fn(&str) -> Error) -> Result<(Vec<u32>, Range<usize>)> {
        let (message, before) = messages.split_last().expect("invariant: a turn has a message");
        let prompt = match before {
            [] => Vec::new(),
            _ => self.tokenizer.encode_rendered(&self.rendered(before, message.role == Role::Assistant)?),
        };
        let token_ids = self.tokenizer.encode_rendered(&self.rendered(messages, false)?);
        if !token_ids.starts_with(&prompt) {
            return Err(refuse(match Thoughtful::of(message) {
                None if message.role == Role::Assistant => {
                    "the template does not write what is in front of it as it stands in its prompt; if the prompt opens a \
                     thought, give one as reasoning_content"
                }
                _ => {
                    "the template does not write what is in front of it as it stands in its prompt; it cannot be learned"
                }
            }));
        }
        let counted = prompt.len()..self.end_of_turn(&token_ids, prompt.len());
        Ok((token_ids, counted))
    }

    /// The tokens of a conversation whose last message has a thought that the template does not write, and which are that message.
    fn thoughtful(
        &self,
        messages: &[Message],
        refuse: impl Fn(&str) -> Error,
    ) -> Result<Option<(Vec<u32>, Range<usize>)>> {
        let (message, before) = messages.split_last().expect("invariant: a turn has a message");
        let Some(turn) = Thoughtful::of(message).filter(|_| message.role == Role::Assistant) else { return Ok(None) };
        let answer =
            Message { content: Some(turn.answer.trim_start().into()), reasoning_content: None, ..message.clone() };
        let answered = [before, &[answer]].concat();
        let written = self.rendered(&answered, false)?;
        if message.reasoning_content.is_some() && self.rendered(messages, false)?.text() != written.text() {
            // The template knows how this model writes thoughts.
            return Ok(None);
        }
        if before.is_empty() {
            return Err(refuse("it has a thought, and no question is in front of it"));
        }
        if !message.tool_calls.is_empty() {
            return Err(refuse(
                "the template leaves out thoughts, so that a thought with tool calls cannot be learned",
            ));
        }
        let prompt = self.rendered(before, true)?;
        let mut token_ids = self.tokenizer.encode_rendered(&prompt);
        let first = token_ids.len();
        token_ids.extend(turn.token_ids(prompt.text(), self.tokenizer));
        let (earlier, written) = (self.rendered(before, false)?, self.tokenizer.encode_rendered(&written));
        let earlier = self.tokenizer.encode_rendered(&earlier).len().min(written.len());
        token_ids.extend(written[earlier..].iter().rfind(|id| self.end_ids.contains(id)));
        let counted = first..token_ids.len();
        Ok(Some((token_ids, counted)))
    }

    /// Where a turn that begins at `first` ends: behind its end token, where generation stops; what a template writes behind
    /// that is never predicted.
    fn end_of_turn(&self, token_ids: &[u32], first: usize) -> usize {
        let end = token_ids[first..].iter().rposition(|id| self.end_ids.contains(id));
        end.map_or(token_ids.len(), |at| first + at + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minke_text::TrainOptions;

    /// What counts of each document, as text.
    fn counted(template: &ChatTemplate, line: &str, roles: &[Role]) -> Result<Vec<Vec<String>>> {
        let texts = ["<think>\n\n</think>", "the quick brown fox"].map(|text| text.repeat(9));
        let options = TrainOptions { vocab_size: 300, added_tokens: vec!["<end>".into()] };
        let tokenizer = Tokenizer::train(texts.iter(), &options).unwrap();
        let end_ids = vec![tokenizer.id_of("<end>").unwrap(), tokenizer.id_of(minke_text::EOS).unwrap()];
        let renderer = Renderer { tokenizer: &tokenizer, template, end_ids };
        let documents = renderer.documents(&messages(line).unwrap(), roles)?;
        let texts = |document: &Document| {
            assert_eq!(document.counted.last().map(|range| range.end), Some(document.token_ids.len()));
            let text = |range: &Range<usize>| tokenizer.decode(&document.token_ids[range.clone()], false);
            document.counted.iter().map(text).collect()
        };
        Ok(documents.iter().map(texts).collect())
    }

    /// As Qwen and SmolLM2 write turns.
    fn turns() -> ChatTemplate {
        let source = "{% for m in messages %}<start>{{ m.role }}\n{{ m.content }}<end>\n{% endfor %}\
                      {% if add_generation_prompt %}<start>assistant\n{% endif %}";
        ChatTemplate::new(source, minke_text::SpecialTokens::default()).unwrap()
    }

    const TALK: &str = r#"{"messages":[{"role":"system","content":"S"},{"role":"user","content":"one"},
        {"role":"assistant","content":"<think>\na\n</think>\n\nfirst"},{"role":"user","content":"two"},
        {"role":"assistant","content":"second"},{"role":"user","content":"never answered"}]}"#;

    #[test]
    fn what_the_assistant_says_counts_up_to_its_end() {
        let talk = TALK.replace(r"<think>\na\n</think>\n\n", "");
        let of = |talk: &str, roles: &[Role]| counted(&turns(), talk, roles).unwrap();
        let (first, second) = ("first<end>", "second<end>");
        assert_eq!(of(&talk, &[Role::Assistant]), [[first, second]]);
        let begin = minke_text::BOS;
        assert_eq!(of(&talk, &[Role::System]), [[format!("{begin}<start>system\nS<end>")]]);
        let all = of(&talk, &[Role::User, Role::Assistant]);
        let asked = |text: &str| format!("<start>user\n{text}<end>");
        assert_eq!(all, [[&asked("one"), first, &asked("two"), second, &asked("never answered")]]);
        // A thought's tags are tokens where they are said, and letters where a later turn quotes them.
        assert_eq!(of(TALK, &[Role::Assistant]), [["<think>\na\n</think>\n\nfirst<end>"], [second]]);
    }

    #[test]
    fn thoughts_are_learned_that_the_template_leaves_out() {
        let eos = minke_text::EOS;
        let of = |template: &ChatTemplate, line: &str| counted(template, line, &[Role::Assistant]);
        let (opened, second) = (format!("a\n</think>\n\nfirst{eos}"), format!("second{eos}"));
        let apart = TALK.replace(r"<think>\na\n</think>\n\nfirst", r#"first","reasoning_content":"a"#);
        for talk in [TALK, &apart] {
            let made = of(&ChatTemplate::r1_unforced(), talk).unwrap();
            assert_eq!(made, [[format!("<think>\n{opened}")], [second.clone()]]);
            // Where the prompt opens the thought, the model does not; and a turn without one cannot follow such a prompt.
            let first = talk.split_once(r#",{"role":"user","content":"two"}"#).unwrap().0.to_owned() + "]}";
            assert_eq!(of(&ChatTemplate::r1(), &first).unwrap(), [[opened.as_str()]]);
            let refused = of(&ChatTemplate::r1(), talk).unwrap_err().to_string();
            assert!(refused.contains("message 5") && refused.contains("reasoning_content"), "{refused}");
        }
    }

    #[test]
    fn a_template_that_writes_thoughts_is_followed() {
        let source = "{% for m in messages %}[{{ m.role }}]{% if m.reasoning_content %}({{ m.reasoning_content }}){% endif %}\
                      {{ m.content }}<end>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
        let template = ChatTemplate::new(source, minke_text::SpecialTokens::default()).unwrap();
        let line = r#"{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"b","reasoning_content":"a"}]}"#;
        assert_eq!(counted(&template, line, &[Role::Assistant]).unwrap(), [["(a)b<end>"]]);
    }

    #[test]
    fn what_cannot_be_learned_is_said() {
        let nothing = counted(&turns(), r#"{"messages":[{"role":"user","content":"a"}]}"#, &[Role::Assistant]);
        assert!(nothing.unwrap_err().to_string().contains("no message counts"));
    }
}
