//! Text to token ids, and the tokens that a model generates to a thought and an answer.
//!
//! On the way in: [`ChatTemplate`] renders [`Message`]s to the prompt, [`Tokenizer`] turns it into ids; a [`Rendered`] prompt
//! keeps control tokens that a message spells from counting. On the way out, one stage after the other, each safe under any
//! chunking: [`Tokenizer::token_bytes`] -> [`Utf8Stream`] -> [`ReasoningParser`] -> [`StopStrings`] -> [`ToolCallParser`]. In
//! between, a [`Grammar`] says which tokens may come next, so that an answer is JSON of a schema, or a call of a tool
//! ([`ToolFormat::grammar`]). The crate depends on no tensors and no model, so that graders, data preparation and servers can use
//! it alone.
//!
//! ```
//! use minke_text::{ChatTemplate, Message, ReasoningEvent, ReasoningParser};
//!
//! let prompt = ChatTemplate::r1().render(&[Message::user("What is 2+2?")], true)?;
//! assert!(prompt.ends_with("<｜User｜>What is 2+2?<｜Assistant｜><think>\n"));
//!
//! let mut parser = ReasoningParser::new(&prompt);
//! assert_eq!(parser.push("easy\n</thi"), [ReasoningEvent::Reasoning("easy".into())]);
//! assert_eq!(parser.push("nk>\n\nIt is 4."), [ReasoningEvent::Content("It is 4.".into())]);
//! # Ok::<(), minke_text::Error>(())
//! ```

mod bounded;
mod chat;
mod error;
mod file;
mod grammar;
mod jinja;
mod marker;
mod message;
mod message_value;
mod reasoning;
mod rendered;
mod repetition;
mod special;
mod stream;
mod tags;
mod tokenizer;
mod tools;
mod vocabulary;

pub use chat::{ChatTemplate, RenderOptions, r1_zero_prompt};
pub use error::{Error, Result};
pub use grammar::{Grammar, GrammarError, GrammarSource, GrammarVocabulary};
pub use message::{FunctionCall, Message, Role, ToolCall};
pub use reasoning::{ReasoningEvent, ReasoningParser, Thought, split};
pub use rendered::Rendered;
pub use repetition::{Repetition, RepetitionRule};
pub use special::SpecialTokens;
pub use stream::{StopStrings, Utf8Stream};
pub use tags::{THINK_CLOSE, THINK_OPEN, ThinkTag, ThinkTokens};
pub use tokenizer::{ASSISTANT, BOS, EOS, PAD, Tokenizer, TrainOptions, USER};
pub use tools::{Tool, ToolCallParser, ToolChoice, ToolEvent, ToolFormat, ToolGrammar};
pub use vocabulary::Vocabulary;
