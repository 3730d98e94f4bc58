//! What does the model read when people speak with it?
//!
//! A prompt is messages rendered by the Jinja template that comes with the weights.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use minijinja::Value;

use crate::jinja::Template;
use crate::message::Arguments;
use crate::tools::{self, CallFormat};
use crate::{BOS, EOS, Error, FunctionCall, Message, Result, Role, ToolCall, file};

/// As published with the distilled models since February 2025 (MIT, DeepSeek): the generation prompt opens the thought.
const R1: &str = include_str!("r1.jinja");
/// The generation prompts of the template now and at first release.
const FORCED: &str = "'<｜Assistant｜><think>\\n'";
const UNFORCED: &str = "'<｜Assistant｜>'";
/// What published templates take many times over. A unit of fuel pays for one instruction or 64 bytes of data.
const FUEL: usize = 30_000;
const FUEL_PER_MESSAGE: usize = 500;

/// What a prompt is rendered for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RenderOptions {
    /// Whether the assistant is to go on.
    pub add_generation_prompt: bool,
    /// The tools that it may call: a JSON list, as the OpenAI API writes it.
    pub tools: Option<String>,
    /// Whether it is to think, for models that can do either; none leaves it to the template.
    pub thinking: Option<bool>,
}

/// A chat template, compiled: messages to prompt.
#[derive(Debug)]
pub struct ChatTemplate {
    template: Template,
    call_format: CallFormat,
    arguments: OnceLock<Arguments>,
    source: String,
    bos_token: String,
    eos_token: String,
}

impl ChatTemplate {
    /// R1's template: the generation prompt is `<｜Assistant｜><think>\n`, so the model starts inside its thought.
    ///
    /// # Paper
    /// facts sheet 1.11
    pub fn r1() -> Self {
        Self::built_in("r1", R1.into())
    }

    /// R1's template as first released: the generation prompt is `<｜Assistant｜>`, and the model has to open its thought by
    /// itself, which is what R1-Zero learns.
    ///
    /// # Paper
    /// facts sheet 1.11
    pub fn r1_unforced() -> Self {
        Self::built_in("r1 unforced", R1.replace(FORCED, UNFORCED))
    }

    /// The template of this Jinja source; the tokens are what it finds in `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// The source is no Jinja, nested too deeply or too long.
    pub fn new(source: impl Into<String>, bos_token: impl Into<String>, eos_token: impl Into<String>) -> Result<Self> {
        Self::compile("(given text)", source.into(), bos_token.into(), eos_token.into())
    }

    /// The template of a model's folder, of a tokenizer_config.json, or of a .jinja file.
    ///
    /// A folder or configuration without `chat_template` must have a chat_template.jinja beside it. The tokens of a .jinja
    /// file are those of the tokenizer_config.json beside it, else DeepSeek's.
    ///
    /// # Errors
    /// A file cannot be read or has no template, or as [`ChatTemplate::new`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
        let config_path = if path.is_dir() { path.join("tokenizer_config.json") } else { path.to_owned() };
        if config_path.extension().is_some_and(|extension| extension == "jinja") {
            let beside = folder.join("tokenizer_config.json");
            let config = if beside.exists() { Config::read(&beside)? } else { Config::deepseek() };
            return config.compile(path, Some(file::read(path)?));
        }
        let config = Config::read(&config_path)?;
        let beside = folder.join("chat_template.jinja");
        let source = if config.template.is_none() && beside.exists() { Some(file::read(&beside)?) } else { None };
        config.compile(&config_path, source)
    }

    /// The template of a model's folder, if it has one.
    ///
    /// # Errors
    /// As [`ChatTemplate::load`], save that a folder without a template is none.
    pub fn find(folder: &Path) -> Result<Option<Self>> {
        let (config, beside) = (folder.join("tokenizer_config.json"), folder.join("chat_template.jinja"));
        if config.exists() && (beside.exists() || Config::read(&config)?.template.is_some()) {
            return Self::load(folder).map(Some);
        }
        if beside.exists() { Self::load(beside).map(Some) } else { Ok(None) }
    }

    /// The Jinja source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Writes `tokenizer_config.json` with this template into the folder, whole or not at all: what transformers needs beside
    /// the tokenizer.json of [`Tokenizer::save`](crate::Tokenizer::save). `model_max_length` is in tokens.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>, model_max_length: usize) -> Result<()> {
        let config = serde_json::json!({
            // The template writes it.
            "add_bos_token": false,
            "add_eos_token": false,
            "bos_token": self.bos_token,
            "eos_token": self.eos_token,
            "pad_token": self.eos_token,
            "clean_up_tokenization_spaces": false,
            "model_max_length": model_max_length,
            "tokenizer_class": "PreTrainedTokenizerFast",
            "chat_template": self.source,
        });
        file::write(folder.as_ref(), "tokenizer_config.json", &format!("{config:#}\n"))
    }

    /// The prompt; with `add_generation_prompt`, ready for the assistant to go on.
    ///
    /// It begins with the BOS token where the template writes it: encode it without adding another.
    ///
    /// # Errors
    /// The template raises an error, or takes more steps or bytes than the messages can justify.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        self.render_with(messages, &RenderOptions { add_generation_prompt, ..Default::default() })
    }

    /// The prompt of a conversation in which the model may call tools, or is told whether to think.
    ///
    /// A template that does not know tools (DeepSeek's do not) finds their description in the system message.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`], or `tools` is not a list of functions.
    pub fn render_with(&self, messages: &[Message], options: &RenderOptions) -> Result<String> {
        let bytes: usize =
            messages.iter().map(Message::len).sum::<usize>() + options.tools.as_ref().map_or(0, String::len);
        // Templates split, strip and join: every byte may be copied 32 times.
        let fuel = FUEL + FUEL_PER_MESSAGE * messages.len() + bytes / 2;
        let mut context = BTreeMap::from([
            ("add_generation_prompt", Value::from(options.add_generation_prompt)),
            ("bos_token", Value::from(self.bos_token.as_str())),
            ("eos_token", Value::from(self.eos_token.as_str())),
        ]);
        if let Some(thinking) = options.thinking {
            // V3.1 has the first name, Qwen3 the second.
            context.extend(["thinking", "enable_thinking"].map(|name| (name, Value::from(thinking))));
        }
        let mut messages: Cow<'_, [Message]> = messages.into();
        if let Some(tools) = &options.tools {
            if self.template.knows_tools {
                context.insert("tools", serde_json::from_str(tools).map_err(|error| Error::Tools(error.to_string()))?);
            } else {
                tools::describe(messages.to_mut(), tools, self.call_format)?;
            }
        }
        let called = messages.iter().any(|message| !message.tool_calls.is_empty());
        let arguments = if called { self.arguments() } else { Arguments::Text };
        context.insert("messages", messages.iter().map(|message| message.to_value(arguments)).collect());
        self.template.render(Value::from(context), fuel)
    }

    /// How the template wants the arguments of calls: one that quotes their text means to write JSON itself.
    fn arguments(&self) -> Arguments {
        *self.arguments.get_or_init(|| {
            let function = FunctionCall { name: "f".into(), arguments: r#"{"a": 1}"#.into() };
            let tool_calls = vec![ToolCall { kind: "function".into(), function }];
            let messages = [Message::user(""), Message { role: Role::Assistant, content: None, tool_calls }];
            let values: Value = messages.iter().map(|message| message.to_value(Arguments::Text)).collect();
            let context = Value::from(BTreeMap::from([("messages", values)]));
            match self.template.render(context, FUEL) {
                Ok(text) if text.contains(r#""{\"a\": 1}""#) => Arguments::Object,
                _ => Arguments::Text,
            }
        })
    }

    fn built_in(name: &str, source: String) -> Self {
        Self::compile(name, source, BOS.into(), EOS.into()).expect("invariant: the built-in template compiles")
    }

    fn compile(origin: &str, source: String, bos_token: String, eos_token: String) -> Result<Self> {
        let template = Template::compile(origin, &source)?;
        let call_format = CallFormat::of_template(&source);
        Ok(ChatTemplate { template, call_format, arguments: OnceLock::new(), source, bos_token, eos_token })
    }
}

/// The plain-text prompt with which R1-Zero was trained, for this question.
///
/// # Paper
/// - R1 2.2.3 (Table 1)
/// - Test: crates/text/tests/chat_matches_published_renderings.rs
/// - Vector: testdata/configs/r1-zero-template.txt
pub fn r1_zero_prompt(question: &str) -> String {
    format!(
        "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant \
         first thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning \
         process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., <think> \
         reasoning process here </think> <answer> answer here </answer>. User: {question}. Assistant:"
    )
}

/// What is read of a tokenizer_config.json.
struct Config {
    template: Option<String>,
    bos_token: String,
    eos_token: String,
}

impl Config {
    fn deepseek() -> Self {
        Config { template: None, bos_token: BOS.into(), eos_token: EOS.into() }
    }

    fn read(path: &Path) -> Result<Self> {
        let config: serde_json::Value = serde_json::from_str(&file::read(path)?).map_err(|error| Error::Template {
            origin: path.display().to_string(),
            reason: format!("is not JSON: {error}"),
        })?;
        // A token is written as its text or as an object; of several named templates, "default" is the one for chat.
        let token =
            |value: &serde_json::Value| value.as_str().or(value["content"].as_str()).unwrap_or_default().to_owned();
        let templates = &config["chat_template"];
        let default = templates.as_array().and_then(|all| all.iter().find(|template| template["name"] == "default"));
        let template = templates.as_str().or(default.and_then(|template| template["template"].as_str()));
        Ok(Config {
            template: template.map(str::to_owned),
            bos_token: token(&config["bos_token"]),
            eos_token: token(&config["eos_token"]),
        })
    }

    fn compile(self, path: &Path, source: Option<String>) -> Result<ChatTemplate> {
        let origin = path.display().to_string();
        match source.or(self.template) {
            Some(source) => ChatTemplate::compile(&origin, source, self.bos_token, self.eos_token),
            None => {
                let reason =
                    "has no chat_template, and no chat_template.jinja lies beside it; give a .jinja file".into();
                Err(Error::Template { origin, reason })
            }
        }
    }
}
