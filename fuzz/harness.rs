//! The targets as functions of bytes: whatever these are, nothing may panic, hang or take much memory.
//!
//! The bins of this folder run these functions under libFuzzer; `crates/cli/tests/fuzz_corpora_do_no_harm.rs` runs them over
//! what was found worth keeping (`fuzz/corpus/`).

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use minke_text::{
    ChatTemplate, FunctionCall, Message, ReasoningEvent, ReasoningParser, RenderOptions, SpecialTokens, StopStrings,
    ToolCall, ToolCallParser, ToolEvent, Utf8Stream,
};
use minke_weights::Archive;

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
    let in_pieces = read(prompt, stops, bytes, usize::from(first >> 2) + 1);
    assert_eq!(in_pieces, read(prompt, stops, bytes, usize::MAX));
}

/// Thought, text and calls of an answer that arrives in pieces of so many bytes.
fn read(prompt: &str, stops: &[&str], bytes: &[u8], size: usize) -> (String, String, Vec<(String, String)>) {
    let (mut utf8, mut stop) = (Utf8Stream::default(), StopStrings::new(stops.iter().map(|&stop| stop.to_owned())));
    let (mut thoughts, mut tools) = (ReasoningParser::new(prompt), ToolCallParser::default());
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
