//! Descriptions of tools for templates that know none.

use minijinja::Value;
use serde::Deserialize;

use super::ToolFormat;
use super::deepseek::{CALL_BEGIN, CALL_END, CALLS_BEGIN, CALLS_END, SEPARATOR};
use crate::jinja::{Style, dumps};
use crate::{Error, Message, Result, Role};

/// A tool with the order of its keys, which is shown.
#[derive(Deserialize)]
struct Described {
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    parameters: Option<Value>,
}

/// Appends a description of the tools to the last system message at the front, so that one that comes later in the conversation
/// changes nothing before it: for DeepSeek's formats in the words of V3.1's model card, else
/// in those of Hermes and Qwen.
///
/// # Errors
/// `tools` is not a JSON list of functions.
pub(crate) fn describe(messages: &mut Vec<Message>, tools: &Value, format: ToolFormat) -> Result<()> {
    let read = |error: minijinja::Error| Error::Tools(error.to_string());
    let described: Vec<Described> = Vec::deserialize(tools.clone()).map_err(read)?;
    let text = match format {
        ToolFormat::DeepSeekFenced | ToolFormat::DeepSeekBare => as_deepseek(described, format)?,
        _ => as_hermes(tools)?,
    };
    match messages.iter_mut().take_while(|message| message.role == Role::System).last() {
        Some(system) => system.content.get_or_insert_default().push_str(&text),
        None => messages.insert(0, Message::system(text)),
    }
    Ok(())
}

fn as_deepseek(tools: Vec<Described>, format: ToolFormat) -> Result<String> {
    let (example, several) = match format {
        ToolFormat::DeepSeekFenced => (
            format!("function{SEPARATOR}tool_call_name\n```json\ntool_call_arguments\n```"),
            "chain them with a newline as separator",
        ),
        _ => (
            format!("tool_call_name{SEPARATOR}tool_call_arguments"),
            "chain them directly without separators or spaces",
        ),
    };
    let mut text = String::from("\n\n## Tools\nYou have access to the following tools:\n");
    for Described { function: Function { name, description, parameters } } in tools {
        let parameters = parameters.map_or_else(|| Ok("{}".into()), |value| json(&value))?;
        let description = description.unwrap_or_default();
        text += &format!("\n### {name}\nDescription: {description}\n\nParameters: {parameters}\n");
    }
    text += &format!(
        "\nIMPORTANT: ALWAYS adhere to this exact format for tool use:\n\
         {CALLS_BEGIN}{CALL_BEGIN}{example}{CALL_END}{{additional_tool_calls}}{CALLS_END}\n\n\
         Where:\n\
         - `tool_call_name` must be an exact match to one of the available tools\n\
         - `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters Schema\n\
         - For multiple tool calls, {several}"
    );
    Ok(text)
}

fn as_hermes(tools: &Value) -> Result<String> {
    let mut text = String::from(
        "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with \
         function signatures within <tools></tools> XML tags:\n<tools>",
    );
    for tool in tools.try_iter().map_err(|error| Error::Tools(error.to_string()))? {
        text += &format!("\n{}", json(&tool)?);
    }
    text += "\n</tools>\n\nFor each function call, return a json object with function name and arguments within \
             <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": \
             <args-json-object>}\n</tool_call>";
    Ok(text)
}

fn json(value: &Value) -> Result<String> {
    dumps(value, &Style::default()).map_err(Error::Tools)
}
