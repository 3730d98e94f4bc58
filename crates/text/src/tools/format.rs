//! The formats in which models write calls.

/// How a model writes calls of tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ToolFormat {
    /// DeepSeek V3 and R1-0528: a type, the name, a fenced block of JSON.
    /// ``<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME\n```json\nARGUMENTS\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>``
    DeepSeekFenced,
    /// DeepSeek V3.1: the name and JSON.
    /// `<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>NAME<｜tool▁sep｜>ARGUMENTS<｜tool▁call▁end｜><｜tool▁calls▁end｜>`
    DeepSeekBare,
    /// Hermes, Qwen2.5 and Qwen3; and models of no family that is known.
    /// `<tool_call>\n{"name": "NAME", "arguments": ARGUMENTS}\n</tool_call>`
    Hermes,
    /// Qwen3-Coder: every argument in tags of its own, not as JSON.
    /// `<tool_call>\n<function=NAME>\n<parameter=KEY>\nVALUE\n</parameter>\n</function>\n</tool_call>`
    QwenCoder,
    /// Llama 3.1 and later: JSON as the whole answer, or behind `<|python_tag|>`.
    /// `{"name": "NAME", "parameters": ARGUMENTS}`
    Llama,
    /// Mistral until 2024: a list. `[TOOL_CALLS] [{"name": "NAME", "arguments": ARGUMENTS}]`
    MistralList,
    /// Mistral since 2025: name and JSON. `[TOOL_CALLS]NAME[ARGS]ARGUMENTS`
    MistralNamed,
}

impl ToolFormat {
    /// The format in which a chat template writes calls, if its source shows one that is known.
    ///
    /// ```
    /// use minke_text::{ChatTemplate, ToolFormat};
    /// assert_eq!(ToolFormat::of_template(ChatTemplate::r1().source()), Some(ToolFormat::DeepSeekFenced));
    /// assert_eq!(ToolFormat::of_template("{{ messages }}"), None);
    /// ```
    pub fn of_template(source: &str) -> Option<Self> {
        let has = |part: &str| source.contains(part);
        if has("<｜tool▁call") {
            Some(if has("```json") { Self::DeepSeekFenced } else { Self::DeepSeekBare })
        } else if has("[TOOL_CALLS]") {
            Some(if has("[ARGS]") { Self::MistralNamed } else { Self::MistralList })
        } else if has("<function=") && has("<parameter=") {
            Some(Self::QwenCoder)
        } else if has("<tool_call>") {
            Some(Self::Hermes)
        } else if has("<|python_tag|>") || (has("<|start_header_id|>") && has("\"parameters\": ")) {
            Some(Self::Llama)
        } else {
            None
        }
    }
}
