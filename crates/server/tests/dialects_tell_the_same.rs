//! One model, every API: thought, answer, end and counts are the same, whole and as a stream.
#![allow(clippy::unwrap_used)]

mod common;

use common::Running;
use common::scripted::{brooder, thinker};
use serde_json::{Value, json};

/// What an API told.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    reasoning: String,
    content: String,
    finish: String,
    /// Tokens of prompt and answer.
    tokens: (u64, u64),
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn chat(server: &Running, max_tokens: u64, stream: bool) -> Told {
    let body = json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": max_tokens, "stream": stream,
                      "stream_options": {"include_usage": true}});
    let response = server.post("/v1/chat/completions", &body);
    assert_eq!(response.status, 200);
    if !stream {
        let value = response.json();
        let (choice, usage) = (&value["choices"][0], &value["usage"]);
        let message = &choice["message"];
        return Told {
            reasoning: text(&message["reasoning_content"]),
            content: text(&message["content"]),
            finish: text(&choice["finish_reason"]),
            tokens: (number(&usage["prompt_tokens"]), number(&usage["completion_tokens"])),
        };
    }
    let events = response.events();
    assert_eq!(events.last().unwrap().0, "[DONE]");
    let chunks: Vec<&Value> = events[..events.len() - 1].iter().map(|(_, chunk)| chunk).collect();
    let (last, chunks) = chunks.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let (finish, deltas) = chunks.split_last().unwrap();
    assert_eq!(finish["choices"][0]["delta"], json!({}));
    assert!(deltas.iter().all(|chunk| chunk["choices"][0]["finish_reason"].is_null() && chunk["usage"].is_null()));
    let joined = |field: &str| deltas.iter().map(|chunk| text(&chunk["choices"][0]["delta"][field])).collect();
    assert!(chunks.iter().all(|chunk| chunk["id"] == last["id"]));
    Told {
        reasoning: joined("reasoning_content"),
        content: joined("content"),
        finish: text(&finish["choices"][0]["finish_reason"]),
        tokens: (number(&last["usage"]["prompt_tokens"]), number(&last["usage"]["completion_tokens"])),
    }
}

fn messages(server: &Running, max_tokens: u64, stream: bool) -> Told {
    let body = json!({"model": "scripted", "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
                      "max_tokens": max_tokens, "stream": stream});
    let response = server.post("/v1/messages", &body);
    assert_eq!(response.status, 200);
    let ends = |reason: &Value| match reason.as_str() {
        Some("end_turn") => "stop".to_owned(),
        Some("max_tokens") => "length".to_owned(),
        other => panic!("{other:?}"),
    };
    let tokens = |usage: &Value| {
        (number(&usage["input_tokens"]) + number(&usage["cache_read_input_tokens"]), number(&usage["output_tokens"]))
    };
    if !stream {
        let value = response.json();
        let of = |kind: &str, field: &str| {
            let blocks = value["content"].as_array().unwrap().iter();
            blocks.filter(|block| block["type"] == kind).map(|block| text(&block[field])).collect()
        };
        return Told {
            reasoning: of("thinking", "thinking"),
            content: of("text", "text"),
            finish: ends(&value["stop_reason"]),
            tokens: tokens(&value["usage"]),
        };
    }
    let events = response.events();
    assert!(events.iter().all(|(name, data)| *name == text(&data["type"])));
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        (names[0], names[names.len() - 2], names[names.len() - 1]),
        ("message_start", "message_delta", "message_stop")
    );
    // Every block begins, has pieces and ends, one after the other.
    let mut open = None;
    for (name, data) in &events {
        match name.as_str() {
            "content_block_start" => assert_eq!(open.replace(number(&data["index"])), None),
            "content_block_delta" => assert_eq!(open, Some(number(&data["index"]))),
            "content_block_stop" => assert_eq!(open.take(), Some(number(&data["index"]))),
            _ => {}
        }
    }
    let joined = |field: &str| events.iter().map(|(_, data)| text(&data["delta"][field])).collect();
    let end = &events[events.len() - 2].1;
    Told {
        reasoning: joined("thinking"),
        content: joined("text"),
        finish: ends(&end["delta"]["stop_reason"]),
        tokens: tokens(&end["usage"]),
    }
}

fn responses(server: &Running, max_tokens: u64, stream: bool, background: bool) -> Told {
    let body = json!({"model": "scripted", "input": "hello", "max_output_tokens": max_tokens, "stream": stream,
                      "background": background});
    let response = server.post("/v1/responses", &body);
    assert_eq!(response.status, 200);
    let told = |value: &Value| {
        let of = |kind: &str| {
            let items = value["output"].as_array().unwrap().iter();
            items.filter(|item| item["type"] == kind).map(|item| text(&item["content"][0]["text"])).collect()
        };
        let finish = match (value["status"].as_str(), value["incomplete_details"]["reason"].as_str()) {
            (Some("completed"), None) => "stop",
            (Some("incomplete"), Some("max_output_tokens")) => "length",
            other => panic!("{other:?}"),
        };
        Told {
            reasoning: of("reasoning"),
            content: of("message"),
            finish: finish.into(),
            tokens: (number(&value["usage"]["input_tokens"]), number(&value["usage"]["output_tokens"])),
        }
    };
    if !stream {
        return told(&response.json());
    }
    let events = response.events();
    assert!(events.iter().enumerate().all(|(i, (_, data))| number(&data["sequence_number"]) == i as u64));
    assert!(events.iter().all(|(name, data)| *name == text(&data["type"])));
    let last = &events.last().unwrap().1["response"];
    let whole = told(last);
    let joined = |name: &str| {
        let deltas = events.iter().filter(|(event, _)| event == name);
        deltas.map(|(_, data)| text(&data["delta"])).collect::<String>()
    };
    assert_eq!(joined("response.reasoning_text.delta"), whole.reasoning);
    assert_eq!(joined("response.output_text.delta"), whole.content);
    // What is kept is what was told.
    let id = text(&last["id"]);
    assert_eq!(told(&server.get(&format!("/v1/responses/{id}")).json()), whole);
    if background {
        let again = server.get(&format!("/v1/responses/{id}?stream=true&starting_after=2")).text();
        assert!(response.text().ends_with(&again) && !again.is_empty() || again.is_empty());
    }
    whole
}

fn ollama(server: &Running, max_tokens: u64, stream: bool) -> Told {
    let body = json!({"model": "scripted:latest", "messages": [{"role": "user", "content": "hello"}], "stream": stream,
                      "options": {"num_predict": max_tokens}});
    let response = server.post("/api/chat", &body);
    assert_eq!(response.status, 200);
    let text_of_body = response.text();
    let lines: Vec<Value> = text_of_body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (last, parts) = lines.split_last().unwrap();
    assert!(last["done"] == true && parts.iter().all(|part| part["done"] == false));
    assert_eq!(parts.is_empty(), !stream);
    let joined = |field: &str| lines.iter().map(|line| text(&line["message"][field])).collect();
    Told {
        reasoning: joined("thinking"),
        content: joined("content"),
        finish: text(&last["done_reason"]),
        tokens: (number(&last["prompt_eval_count"]), number(&last["eval_count"])),
    }
}

#[test]
fn whole_and_streamed() {
    for (model, max_tokens, reasoning, content, finish) in [
        (thinker as fn(&std::path::Path) -> std::path::PathBuf, 50, "ab", "8*3", "stop"),
        (thinker, 2, "a", "", "length"),
        (thinker, 6, "ab", "8*", "length"),
        (brooder, 9, "abababab", "", "length"),
    ] {
        let server = Running::start(model, "");
        let want = chat(&server, max_tokens, false);
        assert_eq!(
            (want.reasoning.as_str(), want.content.as_str(), want.finish.as_str()),
            (reasoning, content, finish)
        );
        for stream in [false, true] {
            assert_eq!(chat(&server, max_tokens, stream), want, "chat");
            assert_eq!(messages(&server, max_tokens, stream), want, "messages");
            assert_eq!(responses(&server, max_tokens, stream, false), want, "responses");
            assert_eq!(ollama(&server, max_tokens, stream), want, "ollama");
        }
        assert_eq!(responses(&server, max_tokens, true, true), want, "responses in the background");
    }
}

#[test]
fn several_answers_have_numbers_of_their_own() {
    let server = Running::start(thinker, "");
    let body = json!({"messages": [{"role": "user", "content": "hello"}], "n": 3, "seed": 5});
    let value = server.post("/v1/chat/completions", &body).json();
    let choices = value["choices"].as_array().unwrap();
    assert_eq!(choices.iter().map(|choice| number(&choice["index"])).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(number(&value["usage"]["completion_tokens"]), 24);
    let refused =
        server.post("/v1/chat/completions", &json!({"messages": [{"role": "user", "content": "a"}], "n": 100}));
    assert_eq!((refused.status, refused.json()["error"]["param"].as_str()), (400, Some("n")));
}

#[test]
fn conversations_go_on_with_a_response_that_is_kept() {
    let server = Running::start(thinker, "");
    let first = server.post("/v1/responses", &json!({"input": "hello"})).json();
    let body = json!({"input": "again", "previous_response_id": first["id"]});
    let second = server.post("/v1/responses", &body).json();
    assert!(number(&second["usage"]["input_tokens"]) > number(&first["usage"]["input_tokens"]) + 5);
    let unknown = server.post("/v1/responses", &json!({"input": "a", "previous_response_id": "resp_0"}));
    assert_eq!((unknown.status, unknown.json()["error"]["param"].as_str()), (404, Some("previous_response_id")));
    let gone = server.send("DELETE", &format!("/v1/responses/{}", text(&first["id"])), &[], b"");
    assert_eq!(gone.json()["deleted"], true);
    assert_eq!(server.get(&format!("/v1/responses/{}", text(&first["id"]))).status, 404);
}

#[test]
fn log_probs_spell_the_content() {
    let server = Running::start(thinker, "");
    let body = json!({"messages": [{"role": "user", "content": "hello"}], "logprobs": true, "top_logprobs": 2,
                      "temperature": 0.5});
    let value = server.post("/v1/chat/completions", &body).json();
    let entries = value["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let spelled: String = entries.iter().map(|entry| text(&entry["token"])).collect();
    assert_eq!(spelled, "8*3");
    for entry in entries {
        assert!(entry["logprob"].as_f64().unwrap() <= 0.0 && entry["top_logprobs"].as_array().unwrap().len() == 2);
        // The first alternative is the token itself here, and temperature changes nothing.
        assert_eq!(entry["top_logprobs"][0]["logprob"], entry["logprob"]);
    }
}

#[test]
fn plain_texts_are_continued() {
    let server = Running::start(thinker, "");
    let ask = |body: Value| server.post("/v1/completions", &body);
    let whole = ask(json!({"prompt": "8", "max_tokens": 2, "echo": true})).json();
    assert_eq!(whole["choices"][0]["text"], "8*3");
    let several = ask(json!({"prompt": ["8", "*"], "max_tokens": 1, "n": 2})).json();
    let texts: Vec<String> =
        several["choices"].as_array().unwrap().iter().map(|choice| text(&choice["text"])).collect();
    assert_eq!(texts, ["*", "*", "3", "3"]);
    assert_eq!(ask(json!({"prompt": "8", "suffix": "3"})).status, 400);
    let stopped = ask(json!({"prompt": "8", "stop": "3", "max_tokens": 9})).json();
    assert_eq!(
        (&stopped["choices"][0]["text"], &stopped["choices"][0]["finish_reason"]),
        (&json!("*"), &json!("stop"))
    );
}

#[test]
fn texts_become_tokens_and_come_back() {
    let server = Running::start(thinker, "");
    let tokens = server.post("/tokenize", &json!({"content": "8*3 déjà"})).json();
    let back = server.post("/detokenize", &json!({"tokens": tokens["tokens"]})).json();
    assert_eq!(back["content"], "8*3 déjà");
    let prompt = server.post("/apply-template", &json!({"messages": [{"role": "user", "content": "hi"}]})).json();
    assert!(text(&prompt["prompt"]).contains("<｜User｜>hi<｜Assistant｜>"), "{prompt}");
    let count = server.post("/v1/messages/count_tokens", &json!({"messages": [{"role": "user", "content": "hello"}]}));
    let used =
        server.post("/v1/messages", &json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}));
    assert_eq!(count.json()["input_tokens"], used.json()["usage"]["input_tokens"]);
}
