//! What do people, the model and its tools say to each other?

use std::collections::BTreeMap;

use minijinja::Value;
use serde::{Deserialize, Serialize};

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions that stand before the conversation.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool that the model called.
    Tool,
}

/// One turn of a conversation, as the OpenAI API writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// The text; none where the assistant only calls tools.
    #[serde(default)]
    pub content: Option<String>,
    /// What the assistant asks tools to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
}

/// A call that the assistant asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Always "function" so far.
    #[serde(rename = "type")]
    pub kind: String,
    /// What to call.
    pub function: FunctionCall,
}

/// The function that a [`ToolCall`] names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionCall {
    /// Its name.
    pub name: String,
    /// Its arguments: the JSON text as the model wrote it.
    pub arguments: String,
}

impl Message {
    /// An instruction.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new(Role::System, content)
    }

    /// What the person says.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new(Role::User, content)
    }

    /// What the model said, with or without its thought.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new(Role::Assistant, content)
    }

    /// What a tool returned.
    pub fn tool(content: impl Into<String>) -> Self {
        Self::new(Role::Tool, content)
    }

    fn new(role: Role, content: impl Into<String>) -> Self {
        Message { role, content: Some(content.into()), tool_calls: Vec::new() }
    }
}

/// How a template wants the arguments of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arguments {
    /// As the JSON text that the model wrote.
    Text,
    /// As the object that the text stands for: the template writes the JSON itself.
    Object,
}

impl Message {
    /// As a template sees it: a key that the message does not have is undefined, content that it does not have is none.
    pub(crate) fn to_value(&self, arguments: Arguments) -> Value {
        let role = match self.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        };
        let mut fields = BTreeMap::from([("role", Value::from(role)), ("content", Value::from(self.content.clone()))]);
        if !self.tool_calls.is_empty() {
            fields.insert("tool_calls", self.tool_calls.iter().map(|call| call.to_value(arguments)).collect());
        }
        Value::from(fields)
    }

    /// In bytes.
    pub(crate) fn len(&self) -> usize {
        let call = |call: &ToolCall| call.kind.len() + call.function.name.len() + call.function.arguments.len();
        self.content.as_ref().map_or(0, String::len) + self.tool_calls.iter().map(call).sum::<usize>()
    }
}

impl ToolCall {
    fn to_value(&self, arguments: Arguments) -> Value {
        let text = self.function.arguments.as_str();
        let arguments = match arguments {
            Arguments::Text => Value::from(text),
            // What is no JSON cannot be an object: the template gets what there is.
            Arguments::Object => serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)),
        };
        let function = map([("name", Value::from(self.function.name.as_str())), ("arguments", arguments)]);
        map([("type", Value::from(self.kind.as_str())), ("function", function)])
    }
}

/// Returns a value with these fields.
pub(crate) fn map<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::from(BTreeMap::from(fields))
}
