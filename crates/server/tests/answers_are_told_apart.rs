//! Thoughts, texts and calls of published formats are told apart the same way by the parsers and by every API, whole and
//! streamed, however the answer is cut.
#![allow(clippy::unwrap_used)]

#[path = "common/draws.rs"]
mod draws;
#[path = "common/play.rs"]
mod play;
#[path = "../../chat/tests/common/mod.rs"]
mod scripted;
#[path = "common/told.rs"]
mod told;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use draws::Draws;
use minke_chat::{ChatModel, FinishReason, Piece, Request, Worker, WorkerConfig, replay};
use minke_server::Replay;
use minke_tensor::Device;
use minke_text::{ReasoningEvent, ReasoningParser, ToolCallParser};
use play::{FORMATS, OPENINGS, Play, Tokens, finish, prompt, told_of, tools};
use serde::Deserialize;
use serde_json::{Value, json};
use told::{Api, CONVERSATIONS, Told, parsed_arguments};

/// A text behind a prompt, with what it is: texts, and calls that may be cut off.
#[derive(Debug, Deserialize)]
struct Case {
    format: String,
    #[serde(default = "closed")]
    prompt: String,
    text: String,
    reasoning: Option<String>,
    answer: Vec<Value>,
}

/// Behind a thought that is over all is answer.
fn closed() -> String {
    "closed".into()
}

fn read<T: for<'de> Deserialize<'de>>(name: &str) -> Vec<T> {
    let path = format!("{}/../../testdata/answers/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn cases() -> Vec<Case> {
    #[derive(Deserialize)]
    struct Thought {
        prompt: String,
        text: String,
        reasoning: Option<String>,
        content: String,
    }
    let mut cases: Vec<Case> = read("calls.json");
    cases.extend(read::<Case>("thoughts-and-calls.json"));
    cases.extend(read::<Thought>("thoughts.json").into_iter().map(|Thought { prompt, text, reasoning, content }| {
        let ends = |tag: &str| prompt.trim_end().ends_with(tag);
        let prompt = if ends("<think>") {
            "opened"
        } else if ends("</think>") {
            "closed"
        } else {
            "unopened"
        };
        let answer = if content.is_empty() { vec![] } else { vec![json!(content)] };
        Case { format: "hermes".into(), prompt: prompt.into(), text, reasoning, answer }
    }));
    cases
}

impl Case {
    /// What an API is to tell, but for counts.
    fn told(&self) -> Told {
        let mut told = Told { reasoning: self.reasoning.clone().unwrap_or_default(), ..Told::default() };
        let mut cut = false;
        for part in &self.answer {
            let field = |name: &str| part[name].as_str().unwrap().to_owned();
            match part.as_str() {
                Some(text) => told.content += text,
                None => told.calls.push((field("name"), field("arguments"))),
            }
            cut |= part["cut"] == true;
        }
        told.finish = finish(cut, &told.calls).into();
        told
    }

    fn format(&self) -> usize {
        FORMATS.iter().position(|(name, ..)| *name == self.format).unwrap()
    }

    fn opening(&self) -> usize {
        OPENINGS.iter().position(|(name, _)| *name == self.prompt).unwrap()
    }
}

/// What the parsers tell of pieces.
fn parsed<'a>(case: &Case, pieces: impl IntoIterator<Item = &'a str>) -> Told {
    let mut thoughts = ReasoningParser::new(&prompt(case.opening()));
    let mut events: Vec<_> = pieces.into_iter().flat_map(|piece| thoughts.push(piece)).collect();
    events.extend(thoughts.finish());
    let (mut thought, mut answer) = (String::new(), Vec::new());
    for event in events {
        match event {
            ReasoningEvent::Reasoning(text) => thought += &text,
            ReasoningEvent::Content(text) => answer.push(text),
            ReasoningEvent::ContentWasReasoning => thought = std::mem::take(&mut answer).concat(),
        }
    }
    let mut calls = ToolCallParser::new(FORMATS[case.format()].1, &tools());
    let mut events: Vec<_> = answer.iter().flat_map(|piece| calls.push(piece)).collect();
    events.extend(calls.finish());
    let pieces: Vec<Piece> = events.into_iter().map(Piece::from).collect();
    Told { reasoning: thought, ..told_of(&pieces, Api::Chat, false) }
}

/// A text in pieces of random sizes.
fn split<'a>(text: &'a str, draws: &mut Draws) -> Vec<&'a str> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let mut at = (1 + draws.below(12)).min(rest.len());
        while !rest.is_char_boundary(at) {
            at += 1;
        }
        let (piece, after) = rest.split_at(at);
        pieces.push(piece);
        rest = after;
    }
    pieces
}

#[test]
fn parsers_tell_what_the_tables_say() {
    let cases = cases();
    assert!(cases.len() >= 150, "{}", cases.len());
    let (mut wrong, mut draws) = (Vec::new(), Draws(8));
    for case in &cases {
        let want = case.told();
        let mut check = |pieces: Vec<&str>| {
            let told = parsed(case, pieces.iter().copied());
            if told != want {
                wrong.push(format!("{case:?} in {} pieces\n  {told:?}", pieces.len()));
            }
        };
        check(vec![&case.text]);
        check(case.text.split_inclusive(|_| true).collect());
        (0..20).for_each(|_| check(split(&case.text, &mut draws)));
    }
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_api_tells_what_the_tables_say() {
    let folder = tempfile::tempdir().unwrap();
    let model = scripted::thinker(folder.path());
    let cases = cases();
    let texts: Vec<&str> = cases.iter().map(|case| case.text.as_str()).collect();
    let (mut wrong, mut told_in_all) = (Vec::new(), 0);
    for (format, (name, ..)) in FORMATS.iter().enumerate() {
        for (opening, (end, _)) in OPENINGS.iter().enumerate() {
            for tokens in [Tokens::Bytes, Tokens::Vocabulary] {
                let play = Play::new(&model, format, opening, tokens, &texts);
                for case in cases.iter().filter(|case| case.format == *name && case.prompt == *end) {
                    // Where tags are tokens, halves of their letters never meet.
                    if tokens == Tokens::Vocabulary && case.text == "a<thi<think>x</think>nk>4" {
                        continue;
                    }
                    let want = case.told();
                    for api in CONVERSATIONS {
                        for (stream, seed) in [(false, None), (true, None), (true, Some(1)), (true, Some(2))] {
                            let ids = play.ids(case.text.as_bytes());
                            let count = ids.len() as u64;
                            let (told, pieces) = play.tell(api, stream, ids, seed.map(Draws));
                            assert_eq!(told.tokens.1, count, "{case:?}");
                            let mut want = Told { tokens: told.tokens, ..want.clone() };
                            if pieces.contains(&Piece::ContentWasReasoning) && stream {
                                let sent = told_of(&pieces, api, stream);
                                (want.reasoning, want.content) = (sent.reasoning, sent.content);
                            }
                            if api == Api::OllamaChat || (api == Api::Messages && !stream) {
                                want.calls.iter_mut().for_each(|call| call.1 = parsed_arguments(&call.1));
                            }
                            told_in_all += 1;
                            if told != want {
                                wrong.push(format!("{api:?} {stream} {seed:?} {tokens:?} {case:?}\n  {told:?}"));
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(told_in_all > 5000, "{told_in_all}");
    assert!(wrong.is_empty(), "{} wrong of {told_in_all}\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
}

#[test]
fn what_panics_ends_one_request() {
    let folder = tempfile::tempdir().unwrap();
    let model = ChatModel::open(&scripted::thinker(folder.path()), &Device::open("cpu", 1).unwrap()).unwrap();
    let worker = Worker::start(Arc::new(model), WorkerConfig::default()).unwrap();
    let calls = AtomicUsize::new(0);
    // Every second request meets an error of the program.
    let script = move |model: &ChatModel, request: &Request| {
        assert!(calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(2), "an error of the program");
        vec![replay(request, &model.tokenizer, &model.tokenizer.encode("ab"), FinishReason::Stop)]
    };
    let server = Replay::new(worker, script).unwrap();
    for (api, error) in CONVERSATIONS.into_iter().zip(["/error/code", "/error/code", "/error/type", "/error"]) {
        for stream in [false, true] {
            let body = api.hello(9, &[], stream).to_string();
            let (status, answer) = server.send("POST", api.path(), body.as_bytes());
            assert_eq!((status, api.told(&answer, stream).content.as_str()), (200, "ab"), "{api:?}");
            let (status, answer) = server.send("POST", api.path(), body.as_bytes());
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            assert!(status == 500 && answer.pointer(error).is_some_and(Value::is_string), "{api:?} {answer}");
        }
    }
}
