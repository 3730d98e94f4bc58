//! What a template sees of a message.

use minijinja::Value;

use crate::marker::Marker;
use crate::{Message, Role, ToolCall};

/// In which of the forms that are around a template gets a message.
#[derive(Clone, Copy, Default)]
pub(crate) struct Form<'a> {
    /// Whether the arguments of a call are the object that their text stands for, for a template that writes the JSON itself.
    pub arguments_as_object: bool,
    /// Whether content that is not there is none; else the key is missing, as transformers has it since version 5.
    pub content_none: bool,
    /// Marks the arguments of calls.
    pub marker: Option<&'a Marker<'a>>,
}

impl Message {
    /// As a template sees it, with the keys in the order in which they are published.
    pub(crate) fn to_value(&self, form: Form<'_>) -> Value {
        let role = match self.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        };
        let text = |text: &String| Value::from(text.as_str());
        let mut fields: Vec<(&str, Value)> = Vec::new();
        // An older name that some templates read.
        fields.extend(self.reasoning_content.as_ref().map(|thought| ("thinking", text(thought))));
        fields.push(("role", Value::from(role)));
        match &self.content {
            Some(content) => fields.push(("content", text(content))),
            None if form.content_none => fields.push(("content", Value::from(()))),
            None => {}
        }
        fields.extend(self.reasoning_content.as_ref().map(|thought| ("reasoning_content", text(thought))));
        if !self.tool_calls.is_empty() {
            fields.push(("tool_calls", self.tool_calls.iter().map(|call| call.to_value(form)).collect()));
        }
        fields.extend(self.tool_call_id.as_ref().map(|id| ("tool_call_id", text(id))));
        fields.extend(self.name.as_ref().map(|name| ("name", text(name))));
        Value::from_pairs(fields)
    }
}

impl ToolCall {
    fn to_value(&self, form: Form<'_>) -> Value {
        let text = self.function.arguments.as_str();
        // What is no JSON cannot be an object: the template gets what there is.
        let object = form.arguments_as_object.then(|| serde_json::from_str(text).ok()).flatten();
        let arguments = object.unwrap_or_else(|| Value::from(text));
        let arguments = form.marker.map_or(arguments.clone(), |marker| marker.value(&arguments));
        let function =
            Value::from_pairs([("name", Value::from(self.function.name.as_str())), ("arguments", arguments)]);
        let id = self.id.as_ref().map(|id| ("id", Value::from(id.as_str())));
        let rest = [("type", Value::from(self.kind.as_str())), ("function", function)];
        Value::from_pairs(id.into_iter().chain(rest))
    }
}
