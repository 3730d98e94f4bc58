//! Tools: descriptions of them in the prompt, calls of them in the answer, and grammars of these calls.
//!
//! Each family of models writes calls in a format of its own; the chat template shows which ([`ToolFormat::of_template`]).

mod call;
mod coder;
mod deepseek;
mod describe;
mod event;
mod format;
mod grammar;
mod hermes;
mod llama;
mod mistral;
mod parser;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, Result};

pub(crate) use deepseek::has_deepseek_tags;
pub(crate) use describe::describe;
pub use event::ToolEvent;
pub use format::ToolFormat;
pub use grammar::{ToolChoice, ToolGrammar};
pub use parser::ToolCallParser;

/// A function that the model may call.
///
/// ```
/// use minke_text::Tool;
/// let tools = Tool::list(r#"[{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]"#)?;
/// assert_eq!((tools[0].name.as_str(), tools[0].strict), ("add", false));
/// assert_eq!(Tool::list(&Tool::to_json(&tools))?, tools);
/// # Ok::<(), minke_text::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "OpenAiTool", into = "OpenAiTool")]
pub struct Tool {
    /// The name by which it is called.
    pub name: String,
    /// What it does, for the model; may be empty.
    pub description: String,
    /// The JSON schema of its arguments; none takes any object.
    pub parameters: Option<Value>,
    /// Whether arguments that the schema does not allow are to be impossible.
    pub strict: bool,
}

impl Tool {
    /// The tools of a JSON list, as the OpenAI API writes it.
    ///
    /// # Errors
    /// The text is not a list of functions.
    pub fn list(json: &str) -> Result<Vec<Self>> {
        serde_json::from_str(json).map_err(|error| Error::Tools(error.to_string()))
    }

    /// The JSON list of these tools, as the OpenAI API writes it: what
    /// [`RenderOptions`](crate::RenderOptions) takes.
    pub fn to_json(tools: &[Self]) -> String {
        serde_json::to_string(tools).expect("invariant: the keys of all maps are texts")
    }
}

/// A tool as the OpenAI API describes it.
#[derive(Serialize, Deserialize)]
struct OpenAiTool {
    #[serde(rename = "type", default = "function")]
    kind: String,
    function: OpenAiFunction,
}

#[derive(Serialize, Deserialize)]
struct OpenAiFunction {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parameters: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

fn function() -> String {
    "function".into()
}

impl From<OpenAiTool> for Tool {
    fn from(OpenAiTool { function, .. }: OpenAiTool) -> Self {
        let OpenAiFunction { name, description, parameters, strict } = function;
        let description = description.unwrap_or_default();
        Self { name, description, parameters, strict: strict.unwrap_or_default() }
    }
}

impl From<Tool> for OpenAiTool {
    fn from(Tool { name, description, parameters, strict }: Tool) -> Self {
        let description = Some(description).filter(|text| !text.is_empty());
        let function = OpenAiFunction { name, description, parameters, strict: strict.then_some(true) };
        Self { kind: self::function(), function }
    }
}
