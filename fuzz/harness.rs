//! The targets as functions of bytes: whatever these are, nothing may panic, hang or take much memory.
//!
//! The bins of this folder run these functions under libFuzzer; `crates/cli/tests/fuzz_corpora_do_no_harm.rs` runs them over
//! what was found worth keeping (`fuzz/corpus/`).

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use minke_text::{
    ChatTemplate, FunctionCall, Message, ReasoningEvent, ReasoningParser, RenderOptions, SpecialTokens, StopStrings,
    ToolCall, ToolCallParser, ToolEvent, Utf8Stream,
};
use minke_weights::Archive;

#[path = "../crates/server/tests/common/draws.rs"]
mod draws;
#[path = "../crates/server/tests/common/play.rs"]
mod play;
#[path = "../crates/chat/tests/common/mod.rs"]
mod scripted;
#[path = "../crates/server/tests/common/told.rs"]
mod told;

use draws::Draws;
use play::{FORMATS, OPENINGS, Play, Tokens, thought_of_calls, told_of};
use told::{Api, CONVERSATIONS, Told};

/// A configuration of few parameters.
const CONFIG: &str = r#"{"model_type": "qwen3", "hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 8,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "vocab_size": 16, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6, "tie_word_embeddings": true, "rope_theta": 10000.0}"#;

thread_local! {
    static FOLDER: OnceCell<PathBuf> = const { OnceCell::new() };
}

/// Calls `run` with a folder that holds a configuration; one per thread, so that targets can run beside each other.
fn in_folder(run: impl FnOnce(&Path)) {
    FOLDER.with(|folder| {
        run(folder.get_or_init(|| {
            let name = format!("minke-fuzz-{}-{:?}", std::process::id(), std::thread::current().id());
            let folder = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
            std::fs::write(folder.join("config.json"), CONFIG).expect("a temporary file can be written");
            folder
        }));
    });
}

/// Opens a file; an error about it is one line.
fn open(path: &Path, data: &[u8], model: &Path) {
    std::fs::write(path, data).expect("a temporary file can be written");
    let opened = Archive::open(model).and_then(|archive| archive.check_weights());
    if let Err(error) = opened {
        let line = error.to_string();
        assert!(!line.contains('\n'), "{line}");
    }
    std::fs::remove_file(path).expect("a temporary file can be removed");
}

/// A GGUF file.
pub fn gguf(data: &[u8]) {
    in_folder(|folder| {
        let path = folder.join("model.gguf");
        open(&path, data, &path);
    });
}

/// The weights of a folder.
pub fn safetensors(data: &[u8]) {
    in_folder(|folder| open(&folder.join("model.safetensors"), data, folder));
}

/// A chat template, rendered with a conversation that has everything.
pub fn template(data: &[u8]) {
    let Ok(source) = std::str::from_utf8(data) else { return };
    let Ok(template) = ChatTemplate::new(source, SpecialTokens::new("<s>", "</s>")) else { return };
    let function = FunctionCall { name: "add".into(), arguments: r#"{"b": 1, "a": [2.5, null]}"#.into() };
    let call = ToolCall { id: Some("abcdefghi".into()), kind: "function".into(), function };
    let messages = [
        Message::system("Be brief."),
        Message::user("1+2?"),
        Message::calls(vec![call.clone(), call]),
        Message::tool("3"),
        Message::assistant("<think>\nhm\n</think>\n\n3"),
        Message::user("Sure?"),
    ];
    let tools = r#"[{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]"#;
    for (tools, thinking) in [(None, None), (Some(tools.to_owned()), Some(true))] {
        let options = RenderOptions { add_generation_prompt: true, tools, thinking };
        if let Ok(text) = template.render_with(&messages, &options) {
            assert!(text.len() <= 16 << 20, "{} bytes", text.len());
        }
    }
}

/// The bytes of an answer, in pieces: the first byte says how long, whether the prompt opens the thought, and a stop string.
pub fn answer(data: &[u8]) {
    let Some((&first, bytes)) = data.split_first() else { return };
    let prompt = if first & 1 == 0 { "<｜Assistant｜>" } else { "<｜Assistant｜><think>\n" };
    let stops: &[&str] = if first & 2 == 0 { &[] } else { &["\n\n", "</think>a"] };
    let read = |size| read(prompt, stops, ToolCallParser::default(), bytes, size);
    assert_eq!(read(usize::from(first >> 2) + 1), read(usize::MAX));
}

/// Thought, text and calls of an answer that arrives in pieces of so many bytes.
fn read(
    prompt: &str,
    stops: &[&str],
    mut tools: ToolCallParser,
    bytes: &[u8],
    size: usize,
) -> (String, String, Vec<(String, String)>) {
    let (mut utf8, mut stop) = (Utf8Stream::default(), StopStrings::new(stops.iter().map(|&stop| stop.to_owned())));
    let mut thoughts = ReasoningParser::new(prompt);
    let mut thought = String::new();
    // The answer as it comes; pieces that turn out to be the thought go there.
    let mut answer = Vec::new();
    let mut think = |events: Vec<ReasoningEvent>| {
        for event in events {
            match event {
                ReasoningEvent::Reasoning(piece) => thought.push_str(&piece),
                ReasoningEvent::Content(piece) => answer.push(piece),
                ReasoningEvent::ContentWasReasoning => thought.push_str(&std::mem::take(&mut answer).concat()),
            }
        }
    };
    for piece in bytes.chunks(size.min(bytes.len().max(1))) {
        think(thoughts.push(&stop.push(&utf8.push(piece))));
    }
    think(thoughts.push(&stop.push(&utf8.finish())));
    think(thoughts.push(&stop.flush()));
    think(thoughts.finish());
    let (mut text, mut calls) = (String::new(), Vec::<(String, String)>::new());
    let mut events: Vec<ToolEvent> = answer.iter().flat_map(|piece| tools.push(piece)).collect();
    events.extend(tools.finish());
    for event in events {
        match event {
            ToolEvent::Content(piece) => text.push_str(&piece),
            ToolEvent::Call(name) => calls.push((name, String::new())),
            ToolEvent::Arguments(piece) => calls.last_mut().expect("a call comes first").1.push_str(&piece),
            ToolEvent::Incomplete => assert!(!calls.is_empty(), "a call comes first"),
        }
    }
    (thought, text, calls)
}

/// Which format and opening a template has, and whether tags of thoughts are tokens.
type Setting = (usize, usize, bool);

thread_local! {
    static PLAYS: RefCell<BTreeMap<Setting, Rc<Play>>> = const { RefCell::new(BTreeMap::new()) };
}

/// A server that says what it is given; one per setting and thread.
fn play(setting: Setting) -> Rc<Play> {
    PLAYS.with_borrow_mut(|plays| {
        let (format, opening, tokens) = setting;
        let made = || {
            let folder = tempfile::tempdir().expect("a temporary folder can be made");
            let model = scripted::thinker(folder.path());
            let tokens = if tokens { Tokens::Vocabulary } else { Tokens::Bytes };
            Rc::new(Play::new(&model, format, opening, tokens, &[]))
        };
        plays.entry(setting).or_insert_with(made).clone()
    })
}

/// The addresses that take bodies, and the API whose streams they write.
const ADDRESSES: [(&str, Option<Api>); 12] = [
    ("/v1/chat/completions", Some(Api::Chat)),
    ("/v1/responses", Some(Api::Responses)),
    ("/v1/messages", Some(Api::Messages)),
    ("/api/chat", Some(Api::OllamaChat)),
    ("/api/generate", Some(Api::OllamaGenerate)),
    ("/v1/completions", Some(Api::Completions)),
    ("/v1/messages/count_tokens", None),
    ("/tokenize", None),
    ("/detokenize", None),
    ("/apply-template", None),
    ("/api/show", None),
    ("/v1/responses/resp_0/cancel", None),
];

/// A request: its first byte says where it goes to, the others are its body. It is obeyed or refused by name, and what is
/// written of an answer has one end.
pub fn request(data: &[u8]) {
    let Some((&first, body)) = data.split_first() else { return };
    let (path, api) = ADDRESSES[usize::from(first) % ADDRESSES.len()];
    let play = play((2, 0, true));
    play.say(play.ids(b"ab</think>c <tool_call>{\"name\": \"f\", \"arguments\": {\"s\": 1}}</tool_call>"));
    let (status, answer) = play.send(path, body);
    let shown = String::from_utf8_lossy(&answer);
    assert!(status == 200 || (400..500).contains(&status), "{status} {shown}");
    match api {
        Some(api) if status == 200 && !shown.starts_with('{') => assert_eq!(api.last_events(&answer), 1, "{shown}"),
        Some(Api::OllamaChat | Api::OllamaGenerate) if status == 200 => {
            assert_eq!(Api::OllamaChat.last_events(&answer), 1, "{shown}");
        }
        _ => assert!(serde_json::from_slice::<serde_json::Value>(&answer).is_ok(), "{shown}"),
    }
}

/// The bytes of an answer behind a head that says which API tells it, behind which prompt, in which format of calls, and how its
/// pieces come: whole and streamed it is what the parsers say of the text.
pub fn dialects(data: &[u8]) {
    let [how, which, cuts, bytes @ ..] = data else { return };
    let (how, which) = (usize::from(*how), usize::from(*which));
    let apis = [CONVERSATIONS.as_slice(), &[Api::OllamaGenerate, Api::Completions]].concat();
    let (format, opening, api) =
        (how % FORMATS.len(), which % OPENINGS.len(), apis[which / OPENINGS.len() % apis.len()]);
    let tags_are_tokens = how / FORMATS.len() % 2 == 1;
    let (stream, cuts) = (cuts % 2 == 1, (*cuts > 1).then(|| Draws(u64::from(cuts / 2))));
    let play = play((format, opening, tags_are_tokens));
    let ids = play.ids(bytes);
    let (told, pieces) = play.tell(api, stream, ids.clone(), cuts);
    let mut want = Told { tokens: told.tokens, ..told_of(&pieces, api, stream) };
    if thought_of_calls(&pieces) {
        // What was called before that was clear is called in some streams.
        (want.calls, want.finish) = (told.calls.clone(), told.finish.clone());
    }
    assert_eq!(told, want, "{api:?} {stream}");
    assert_eq!(told.tokens.1, ids.len() as u64);
    let parsed =
        CONVERSATIONS.contains(&api) && !tags_are_tokens && !pieces.contains(&minke_chat::Piece::ContentWasReasoning);
    if parsed && !stream {
        let tools = ToolCallParser::new(FORMATS[format].1, &play::tools());
        let (reasoning, content, _) = read(&play::prompt(opening), &[], tools, bytes, usize::MAX);
        assert_eq!((reasoning, content), (told.reasoning, told.content), "{api:?}");
    }
}
