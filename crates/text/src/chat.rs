//! What does the model read when people speak with it?
//!
//! A prompt is messages rendered by a Jinja template; the template comes with the weights and is as untrusted as they are.
//! It runs with a budget of steps and bytes that grows with the messages, so a hostile one ends in milliseconds; what the
//! budget does not see is given up after a deadline.

use crate::{BOS, EOS, Error, Result, file};
use minijinja::machinery::{Token, tokenize};
use minijinja::{Environment, ErrorKind, Value, syntax::SyntaxConfig};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// As published with the distilled models since February 2025 (MIT, DeepSeek): the generation prompt opens the thought.
const R1: &str = include_str!("r1.jinja");
/// The generation prompts of the template now and at first release.
const FORCED: &str = "'<｜Assistant｜><think>\\n'";
const UNFORCED: &str = "'<｜Assistant｜>'";

/// Three times the longest published template.
const MAX_TEMPLATE_BYTES: usize = 64 << 10;
/// Seven times the longest tag of DeepSeek's templates.
const MAX_TOKENS_PER_TAG: usize = 300;
/// A unit of fuel pays for one instruction or 64 bytes of data.
const FUEL: usize = 30_000;
const FUEL_PER_MESSAGE: usize = 500;
/// The engine recurses: while compiling at most once per byte of the source, while rendering at most once per unit of fuel
/// (a list in a list in a list). So much stack is set aside for it: three times what was measured; only what is used costs.
const STACK_BYTES: usize = 4 << 20;
const STACK_BYTES_PER_SOURCE_BYTE: usize = 512;
const STACK_BYTES_PER_FUEL: usize = 128;
/// Rendering takes milliseconds. The engine does not count the elements of a list that holds another twice, which again
/// holds another twice, and can walk such a thing for years.
const DEADLINE: Duration = Duration::from_secs(2);

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

/// A chat template, compiled: messages to prompt.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    origin: String,
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
        let bytes: usize = messages.iter().map(Message::len).sum();
        // Templates split, strip and join: every byte may be copied 32 times.
        let fuel = FUEL + FUEL_PER_MESSAGE * messages.len() + bytes / 2;
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(fuel as u64));
        let context = map([
            ("messages", messages.iter().map(Message::to_value).collect()),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            ("bos_token", Value::from(self.bos_token.as_str())),
            ("eos_token", Value::from(self.eos_token.as_str())),
        ]);
        bounded(&self.origin, fuel * STACK_BYTES_PER_FUEL, move || environment.get_template(TEMPLATE)?.render(context))
    }

    fn built_in(name: &str, source: String) -> Self {
        Self::compile(name, source, BOS.into(), EOS.into()).expect("invariant: the built-in template compiles")
    }

    fn compile(origin: &str, source: String, bos_token: String, eos_token: String) -> Result<Self> {
        if source.len() > MAX_TEMPLATE_BYTES {
            let reason = format!("has {} bytes; at most {MAX_TEMPLATE_BYTES} are read", source.len());
            return Err(Error::Template { origin: origin.into(), reason });
        }
        let copy = source.clone();
        let environment = bounded(origin, source.len() * STACK_BYTES_PER_SOURCE_BYTE, move || {
            let mut environment = Environment::new();
            // As transformers sets Jinja up; published templates rely on it.
            let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
            check_source(&copy, syntax.clone())?;
            environment.set_syntax(syntax);
            // There is one template; it includes, imports and extends nothing.
            environment.set_path_join_callback(|_, _| "".into());
            environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
            environment.add_function("raise_exception", raise_exception);
            // Both format a nested value in cubic time, which the fuel does not see; no chat template needs them.
            environment.remove_filter("pprint");
            environment.remove_global("debug");
            environment.add_template_owned(TEMPLATE, copy)?;
            Ok(environment)
        })?;
        Ok(ChatTemplate { environment, origin: origin.into(), source, bos_token, eos_token })
    }
}

/// The name under which a template can be found in its environment.
const TEMPLATE: &str = "chat_template";

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

impl Message {
    /// As the template sees it: a key that the message does not have is undefined, content that it does not have is none.
    fn to_value(&self) -> Value {
        let role = match self.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        };
        let mut fields = BTreeMap::from([("role", Value::from(role)), ("content", Value::from(self.content.clone()))]);
        if !self.tool_calls.is_empty() {
            fields.insert("tool_calls", self.tool_calls.iter().map(ToolCall::to_value).collect());
        }
        Value::from(fields)
    }

    /// In bytes.
    fn len(&self) -> usize {
        let call = |call: &ToolCall| call.kind.len() + call.function.name.len() + call.function.arguments.len();
        self.content.as_ref().map_or(0, String::len) + self.tool_calls.iter().map(call).sum::<usize>()
    }
}

impl ToolCall {
    fn to_value(&self) -> Value {
        let name = Value::from(self.function.name.as_str());
        let function = map([("name", name), ("arguments", Value::from(self.function.arguments.as_str()))]);
        map([("type", Value::from(self.kind.as_str())), ("function", function)])
    }
}

fn map<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::from(BTreeMap::from(fields))
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

/// What templates call when they cannot render these messages.
fn raise_exception(message: String) -> std::result::Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
}

/// Refuses what the engine accepts and then does not survive.
fn check_source(source: &str, syntax: SyntaxConfig) -> std::result::Result<(), minijinja::Error> {
    let tokens = tokenize(source, false, syntax).map(|token| Ok(token?.0));
    let tokens: Vec<Token> = tokens.collect::<std::result::Result<_, minijinja::Error>>()?;
    let refuse = |reason: String| Err(minijinja::Error::new(ErrorKind::InvalidOperation, reason));
    // The time to fold constants grows with the square of an expression's depth.
    let ends = |token: &Token| matches!(token, Token::BlockEnd | Token::VariableEnd);
    if tokens.split(ends).any(|tag| tag.len() > MAX_TOKENS_PER_TAG) {
        return refuse(format!("a tag has more than {MAX_TOKENS_PER_TAG} tokens; split it"));
    }
    match misused_namespace(&tokens) {
        None => Ok(()),
        Some(name) => {
            refuse(format!("{name}: make a namespace by `set x = namespace(...)` and use it as `x.attribute` only"))
        }
    }
}

/// The name of a namespace that is used but for its attributes: it might be kept in itself, and then be shown, compared or
/// hashed on and on, for which no stack is large enough. Lists and maps cannot hold themselves.
fn misused_namespace<'a>(tokens: &[Token<'a>]) -> Option<&'a str> {
    use Token::{Assign, Dot, Ident, ParenOpen};
    let made = |window: &[Token<'a>]| match window {
        [Ident("set"), Ident(name), Assign, Ident("namespace"), ParenOpen] => Some(*name),
        _ => None,
    };
    let names: Vec<&str> = tokens.windows(5).filter_map(made).collect();
    let misused = |(i, token): (usize, &Token<'a>)| {
        let Ident(name) = token else { return None };
        let ok = match (i.checked_sub(1).map(|before| &tokens[before]), &tokens[i + 1..]) {
            (Some(Dot), _) => true,
            (_, after) if names.contains(name) => {
                matches!(after, [Assign, ..] | [Dot, Ident(_), ..] | [Ident("is"), ..])
            }
            _ if *name == "namespace" => i >= 3 && tokens.get(i - 3..i + 2).and_then(made).is_some(),
            _ => true,
        };
        (!ok).then_some(*name)
    };
    tokens.iter().enumerate().find_map(misused)
}

/// Runs the template engine on a thread of its own, with a stack larger than the usual one by this many bytes, and leaves
/// the thread behind if it does not come to an end: nothing can stop it, but whoever waits learns what is wrong.
fn bounded<T: Send + 'static>(
    origin: &str,
    stack_bytes: usize,
    run: impl FnOnce() -> std::result::Result<T, minijinja::Error> + Send + 'static,
) -> Result<T> {
    let stack_bytes = STACK_BYTES + stack_bytes;
    let (sender, receiver) = mpsc::channel();
    let engine = move || {
        // The receiver is gone after the deadline; then nobody wants the result.
        let _ = sender.send(run().map_err(|error| error.to_string()));
    };
    let outcome = match std::thread::Builder::new().stack_size(stack_bytes).spawn(engine) {
        Err(error) => Err(format!("no stack of {stack_bytes} bytes to run on: {error}")),
        Ok(_) => receiver.recv_timeout(DEADLINE).unwrap_or_else(|reason| match reason {
            RecvTimeoutError::Timeout => {
                Err(format!("came to no end in {} s; use another template", DEADLINE.as_secs()))
            }
            RecvTimeoutError::Disconnected => Err("the template engine panicked".into()),
        }),
    };
    outcome.map_err(|reason| Error::Template { origin: origin.into(), reason: reason.replace('\n', " ") })
}
