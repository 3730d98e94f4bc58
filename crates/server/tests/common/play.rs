//! Answers of any text, told by every API: a script stands in place of the model.
#![allow(clippy::unwrap_used)]
#![allow(dead_code)]

use std::path::Path;
use std::sync::{Arc, Mutex};

use minke_chat::{ChatModel, Event, FinishReason, Piece, Worker, WorkerConfig, replay};
use minke_server::Replay;
use minke_tensor::Device;
use minke_text::{
    BOS, ChatTemplate, EOS, SpecialTokens, THINK_CLOSE, THINK_OPEN, Tokenizer, Tool, ToolFormat, TrainOptions,
};
use serde_json::json;

use super::draws::Draws;
use super::told::{Api, CONVERSATIONS, Told, parsed_arguments};

/// What every format writes, which also tells a template's format.
pub const FORMATS: [(&str, ToolFormat, &str); 7] = [
    ("deepseek_fenced", ToolFormat::DeepSeekFenced, "<｜tool▁call ```json"),
    ("deepseek_bare", ToolFormat::DeepSeekBare, "<｜tool▁call"),
    ("hermes", ToolFormat::Hermes, "<tool_call>"),
    ("qwen_coder", ToolFormat::QwenCoder, "<function= <parameter="),
    ("llama", ToolFormat::Llama, "<|python_tag|>"),
    ("mistral_list", ToolFormat::MistralList, "[TOOL_CALLS]"),
    ("mistral_named", ToolFormat::MistralNamed, "[TOOL_CALLS] [ARGS]"),
];

/// How a prompt ends, which decides where a thought begins.
pub const OPENINGS: [(&str, &str); 3] =
    [("opened", "<think>\n"), ("unopened", ""), ("closed", "<think>\n\n</think>\n\n")];

/// The prompt behind which texts stand.
pub fn prompt(opening: usize) -> String {
    format!("<｜User｜>hello<｜Assistant｜>{}", OPENINGS[opening].1)
}

/// The tools that requests have.
pub fn tools() -> Vec<Tool> {
    let tool = |name: &str, parameters| Tool {
        name: name.into(),
        description: String::new(),
        parameters: Some(parameters),
        strict: false,
    };
    let of_f = json!({"type": "object", "properties": {
        "s": {"type": "string"}, "n": {"type": "integer"}, "x": {"type": "number"}, "b": {"type": "boolean"},
        "l": {"type": "array"}, "o": {"type": "object"}, "e": {"enum": [1, "one", null]},
        "m": {"type": ["string", "null"]}, "any": {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    }});
    vec![tool("f", of_f), tool("g", json!({"type": "object"}))]
}

/// What an API is to tell of pieces, but for counts. A stream does not take back what it sent.
pub fn told_of(pieces: &[Piece], api: Api, stream: bool) -> Told {
    let (mut told, mut cut) = (Told::default(), false);
    for piece in pieces {
        match piece {
            Piece::Reasoning(text) => told.reasoning += text,
            Piece::Content(text) => told.content += text,
            Piece::Call(name) => told.calls.push((name.clone(), String::new())),
            Piece::Arguments(text) => told.calls.last_mut().unwrap().1 += text,
            Piece::Incomplete => cut = true,
            Piece::ContentWasReasoning if stream => cut = false,
            Piece::ContentWasReasoning => {
                told = Told { reasoning: std::mem::take(&mut told.content), ..Told::default() };
                cut = false;
            }
        }
    }
    told.finish = finish(cut, &told.calls).into();
    if api == Api::OllamaChat || (api == Api::Messages && !stream) {
        told.calls.iter_mut().for_each(|call| call.1 = parsed_arguments(&call.1));
    }
    told
}

/// Why an answer with these calls ended, the last of them perhaps cut off.
pub fn finish(cut: bool, calls: &[(String, String)]) -> &'static str {
    match calls {
        _ if cut => "length",
        [] => "stop",
        _ => "tool_calls",
    }
}

/// Whether there were calls in what turned out to be the thought.
pub fn thought_of_calls(pieces: &[Piece]) -> bool {
    let taken_back = pieces.iter().rposition(|piece| *piece == Piece::ContentWasReasoning);
    taken_back.is_some_and(|end| pieces[..end].iter().any(|piece| matches!(piece, Piece::Call(_))))
}

/// What a text is cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tokens {
    /// A token for every byte, of a vocabulary that has no tags.
    Bytes,
    /// As the vocabulary cuts it; tags of thoughts are tokens.
    Vocabulary,
}

/// An answer that is told, and how its pieces came.
#[derive(Default)]
struct Said {
    ids: Vec<u32>,
    /// Draws of how many events come at once; none for all.
    cuts: Option<Draws>,
    pieces: Vec<Piece>,
}

/// A server that says what it is given.
pub struct Play {
    replay: Replay,
    said: Arc<Mutex<Said>>,
    tokenizer: Tokenizer,
    tokens: Tokens,
    bytes: Vec<u32>,
}

impl Play {
    /// A server whose template ends in an opening and writes calls in a format. `model` is the folder of a scripted model;
    /// `texts` are those that its vocabulary is trained on.
    pub fn new(model: &Path, format: usize, opening: usize, tokens: Tokens, texts: &[&str]) -> Self {
        let mut model = ChatModel::open(model, &Device::open("cpu", 1).unwrap()).unwrap();
        model.tokenizer = tokenizer(tokens, texts);
        let (_, written, tags) = FORMATS[format];
        let opening = OPENINGS[opening].1.replace('\n', "\\n");
        let source = format!(
            "{{%- if tools %}}{{{{ tools | length }}}}{{% endif %}}{{# {tags} #}}{{% for message in messages %}}{{{{ \
             '<｜User｜>' + message['content'] }}}}{{% endfor %}}{{{{ '<｜Assistant｜>{opening}' }}}}"
        );
        model.template = ChatTemplate::new(source, SpecialTokens::new(BOS, EOS)).unwrap();
        assert_eq!(model.template.tool_format(&model.tokenizer), written);
        // The same once more, to write answers with.
        let tokenizer = tokenizer(tokens, texts);
        let byte = |byte: u8| (0..tokenizer.vocab_size() as u32).find(|&id| tokenizer.token_bytes(id) == [byte]);
        let bytes = (0..=255).map(|value| byte(value).unwrap()).collect();
        let said = Arc::<Mutex<Said>>::default();
        let own = said.clone();
        let script = move |model: &ChatModel, request: &minke_chat::Request| {
            let mut said = own.lock().unwrap();
            let events = replay(request, &model.tokenizer, &said.ids, FinishReason::Stop);
            said.pieces = events.iter().flat_map(|event| event.pieces.clone()).collect();
            batches(events, said.cuts.clone())
        };
        let worker = Worker::start(Arc::new(model), WorkerConfig::default()).unwrap();
        Self { replay: Replay::new(worker, script).unwrap(), said, tokenizer, tokens, bytes }
    }

    /// The tokens of a text.
    pub fn ids(&self, text: &[u8]) -> Vec<u32> {
        let bytes = |text: &[u8]| text.iter().map(|byte| self.bytes[usize::from(*byte)]).collect::<Vec<_>>();
        match (self.tokens, std::str::from_utf8(text)) {
            (Tokens::Vocabulary, Ok(text)) => self.tokenizer.encode(text),
            _ => bytes(text),
        }
    }

    /// What an API tells of an answer, and the pieces that it was given.
    pub fn tell(&self, api: Api, stream: bool, ids: Vec<u32>, cuts: Option<Draws>) -> (Told, Vec<Piece>) {
        *self.said.lock().unwrap() = Said { ids, cuts, pieces: Vec::new() };
        let tools = if CONVERSATIONS.contains(&api) { tools() } else { Vec::new() };
        let body = api.hello(100, &tools, stream).to_string();
        let (status, body) = self.replay.send("POST", api.path(), body.as_bytes());
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        if stream {
            assert_eq!(api.last_events(&body), 1, "{}", String::from_utf8_lossy(&body));
        }
        (api.told(&body, stream), std::mem::take(&mut self.said.lock().unwrap().pieces))
    }

    /// The response to any request.
    pub fn send(&self, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        self.replay.send("POST", path, body)
    }

    /// Sets what is said next.
    pub fn say(&self, ids: Vec<u32>) {
        *self.said.lock().unwrap() = Said { ids, cuts: None, pieces: Vec::new() };
    }
}

/// Events in batches, each of which comes at once.
fn batches(events: Vec<Event>, cuts: Option<Draws>) -> Vec<Vec<Event>> {
    let Some(mut draws) = cuts else { return vec![events] };
    let mut batches = Vec::new();
    let mut events = events.into_iter().peekable();
    while events.peek().is_some() {
        batches.push(events.by_ref().take(1 + draws.below(4)).collect());
    }
    batches
}

fn tokenizer(tokens: Tokens, texts: &[&str]) -> Tokenizer {
    let vocab_size = if texts.is_empty() { 263 } else { 500 };
    let trained: &[&str] = if texts.is_empty() { &["a"] } else { texts };
    let options = TrainOptions { vocab_size, added_tokens: vec![] };
    let tokenizer = Tokenizer::train(trained.iter(), &options).unwrap();
    if tokens == Tokens::Vocabulary {
        return tokenizer;
    }
    let folder = tempfile::tempdir().unwrap();
    tokenizer.save(folder.path()).unwrap();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let without = text.replace(THINK_OPEN, "<no tag>").replace(THINK_CLOSE, "<no tag either>");
        std::fs::write(&path, without).unwrap();
    }
    Tokenizer::load(folder.path()).unwrap()
}
