//! Conversations of the user to learn from: JSON Lines with `messages` as the OpenAI API writes them, rendered with the template of
//! the model.
//!
//! Which tokens belong to a message is found by rendering: the conversation up to it, and with it. Where a template writes earlier
//! turns in another way once they lie behind (thoughts are left out, for one), no single text has all turns as the model sees them
//! when it answers; such a conversation becomes a document per turn that counts.

use std::ops::Range;
use std::path::Path;

use minke_text::{ChatTemplate, Message, RenderOptions, Role, Tokenizer};
use serde::Deserialize;

use crate::base::Base;
use crate::document::Document;
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
    let text = std::fs::read_to_string(path).map_err(Error::read(path))?;
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

impl Renderer<'_> {
    fn ids(&self, messages: &[Message], add_generation_prompt: bool) -> Result<Vec<u32>> {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let options = RenderOptions { add_generation_prompt, ..RenderOptions::default() };
        Ok(self.tokenizer.encode_rendered(&self.template.render_for(messages, &options, self.tokenizer)?))
    }

    fn documents(&self, messages: &[Message], roles: &[Role]) -> Result<Vec<Document>> {
        let mut documents: Vec<Document> = Vec::new();
        for (i, message) in messages.iter().enumerate().filter(|(_, message)| roles.contains(&message.role)) {
            let before = self.ids(&messages[..i], message.role == Role::Assistant)?;
            let token_ids = self.ids(&messages[..=i], false)?;
            if !token_ids.starts_with(&before) {
                let reason = "the template does not write what is in front of message";
                return Err(Error::Config(format!(
                    "{reason} {} as it stands in its prompt; it cannot be learned",
                    i + 1
                )));
            }
            let counted = before.len()..self.end_of_turn(&token_ids, before.len());
            if counted.is_empty() {
                return Err(Error::Config(format!("message {} is empty", i + 1)));
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
        let of = |roles: &[Role]| counted(&turns(), TALK, roles).unwrap();
        let (first, second) = ("<think>\na\n</think>\n\nfirst<end>", "second<end>");
        assert_eq!(of(&[Role::Assistant]), [[first, second]]);
        let begin = minke_text::BOS;
        assert_eq!(of(&[Role::System]), [[format!("{begin}<start>system\nS<end>")]]);
        let all = of(&[Role::User, Role::Assistant]);
        let asked = |text: &str| format!("<start>user\n{text}<end>");
        assert_eq!(all, [[&asked("one"), first, &asked("two"), second, &asked("never answered")]]);
    }

    #[test]
    fn what_a_template_leaves_out_is_not_learned() {
        // R1's leaves out thoughts.
        let eos = minke_text::EOS;
        let made = counted(&ChatTemplate::r1_unforced(), TALK, &[Role::Assistant]).unwrap();
        assert_eq!(made, [[format!("\n\nfirst{eos}"), format!("second{eos}")]]);
    }

    #[test]
    fn what_cannot_be_learned_is_said() {
        let nothing = counted(&turns(), r#"{"messages":[{"role":"user","content":"a"}]}"#, &[Role::Assistant]);
        assert!(nothing.unwrap_err().to_string().contains("no message counts"));
    }
}
