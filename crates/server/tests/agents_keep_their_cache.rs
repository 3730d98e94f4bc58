//! Ten turns in the shape of each coding agent, its calls carried out in between: no error, and what was said before is found in the
//! cache, though agents put another line in front of each request and ask short questions beside the session.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};

use common::Running;
use common::scripted::lines;
use serde_json::{Value, json};

const TURNS: usize = 10;

/// A model that answers each question by a call, and what the call brought by a text.
fn caller(folder: &Path) -> PathBuf {
    let call = |turn| {
        format!(
            "<think>Step {turn} needs a file.</think>\nI read it.\n<tool_call>\n{{\"name\": \"read_file\", \"arguments\": \
             {{\"path\": \"notes/{turn}.txt\"}}}}\n</tool_call>"
        )
    };
    let lines: Vec<String> = (0..TURNS).flat_map(|turn| [call(turn), format!("Step {turn} is done.")]).collect();
    lines::write(folder, "caller", &lines.iter().map(String::as_str).collect::<Vec<_>>())
}

/// What one answer was.
#[derive(Debug, Default)]
struct Said {
    thought: String,
    text: String,
    /// Id, name and arguments.
    call: Option<(String, String, String)>,
    prompt_tokens: u64,
    cached_tokens: u64,
}

/// A session of an agent: how it asks, and how it puts what was said behind the rest.
struct Shape {
    name: &'static str,
    path: &'static str,
    /// The body of a request with this history, number `i`.
    body: fn(&[Value], usize) -> Value,
    question: fn(&str) -> Vec<Value>,
    read: fn(&[(String, Value)]) -> Said,
    /// What an answer, and what its call brought, become in the history.
    answered: fn(&Said, Option<&str>) -> Vec<Value>,
}

fn instructions() -> String {
    "You help with programs: read before you write, and say what was done. ".repeat(60)
}

fn parameters() -> Value {
    json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "required": ["path"],
           "properties": {"path": {"type": "string", "description": "The file"},
                          "limit": {"type": "integer", "minimum": 0, "maximum": 9_007_199_254_740_991u64}},
           "additionalProperties": false})
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

const SHAPES: [Shape; 3] = [
    Shape {
        name: "messages",
        path: "/v1/messages?beta=true",
        body: |history, i| {
            let nonce = format!("x-anthropic-billing-header: cc_version=2.1.{i}; cch={:05x};", i * 7919);
            json!({
                "model": "scripted", "messages": history, "max_tokens": 32000, "stream": true,
                "system": [{"type": "text", "text": nonce}, {"type": "text", "text": "You are an agent.", "cache_control": {"type": "ephemeral"}},
                           {"type": "text", "text": instructions(), "cache_control": {"type": "ephemeral"}}],
                "tools": [{"name": "read_file", "description": "Reads", "input_schema": parameters()},
                          {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}],
                "metadata": {"user_id": format!("{{\"session\": {i}}}")}, "thinking": {"type": "adaptive"},
                "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
                "output_config": {"effort": "high"},
            })
        },
        question: |text| {
            let reminder = "<reminder>\nThe folder may have changed.\n</reminder>";
            vec![
                json!({"role": "user", "content": [{"type": "text", "text": reminder}, {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]}),
                json!({"role": "system", "content": format!("Of use for {text:?}: agents that search.")}),
            ]
        },
        read: |events| {
            let mut said = Said::default();
            for (name, data) in events {
                assert_ne!(name, "error", "{data}");
                let (block, delta) = (&data["content_block"], &data["delta"]);
                if block["type"] == "tool_use" {
                    said.call = Some((text_of(&block["id"]), text_of(&block["name"]), String::new()));
                }
                said.thought += &text_of(&delta["thinking"]);
                said.text += &text_of(&delta["text"]);
                if let (Some(call), Some(json)) = (&mut said.call, delta["partial_json"].as_str()) {
                    call.2 += json;
                }
                if name == "message_delta" {
                    said.cached_tokens = data["usage"]["cache_read_input_tokens"].as_u64().unwrap();
                    said.prompt_tokens = data["usage"]["input_tokens"].as_u64().unwrap() + said.cached_tokens;
                }
            }
            said
        },
        answered: |said, result| {
            let mut content = vec![
                json!({"type": "thinking", "thinking": said.thought, "signature": "s"}),
                json!({"type": "text", "text": said.text}),
            ];
            let Some((id, name, arguments)) = &said.call else {
                return vec![json!({"role": "assistant", "content": content})];
            };
            let input: Value = serde_json::from_str(arguments).unwrap();
            content.push(json!({"type": "tool_use", "id": id, "name": name, "input": input}));
            let result = json!({"type": "tool_result", "tool_use_id": id, "content": result, "cache_control": {"type": "ephemeral"}});
            vec![json!({"role": "assistant", "content": content}), json!({"role": "user", "content": [result]})]
        },
    },
    Shape {
        name: "responses",
        path: "/v1/responses",
        body: |history, i| {
            let part = |text: String| json!({"type": "input_text", "text": text});
            let message = |role: &str, parts: Vec<Value>| json!({"type": "message", "id": format!("msg_{i}"), "role": role, "content": parts});
            let front = vec![
                message("developer", vec![part(instructions())]),
                message(
                    "developer",
                    vec![part("<skills>none</skills>".into()), part("<permissions>all</permissions>".into())],
                ),
                message("user", vec![part("<environment><cwd>/work</cwd></environment>".into())]),
            ];
            let items = [front, history.to_vec()].concat();
            json!({
                "model": "scripted", "input": items, "stream": true, "store": false,
                "tools": [{"type": "function", "name": "read_file", "description": "Reads", "strict": false, "parameters": parameters()},
                          {"type": "namespace", "name": "others", "description": "More", "tools": []},
                          {"type": "custom", "name": "patch", "format": {"type": "grammar", "syntax": "lark", "definition": "start: /a/"}},
                          {"type": "web_search", "external_web_access": true}, {"type": "local_shell"}],
                "tool_choice": "auto", "parallel_tool_calls": true, "reasoning": {"summary": "auto"},
                "include": ["reasoning.encrypted_content"], "prompt_cache_key": "k", "client_metadata": {"turn": i.to_string()},
            })
        },
        question: |text| {
            vec![json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]})]
        },
        read: |events| {
            let (name, last) = events.last().unwrap();
            assert_eq!(name, "response.completed", "{last}");
            let mut said = Said::default();
            for item in last["response"]["output"].as_array().unwrap() {
                match item["type"].as_str().unwrap() {
                    "reasoning" => said.thought = text_of(&item["content"][0]["text"]),
                    "message" => said.text = text_of(&item["content"][0]["text"]),
                    _ => {
                        said.call =
                            Some((text_of(&item["call_id"]), text_of(&item["name"]), text_of(&item["arguments"])))
                    }
                }
            }
            let usage = &last["response"]["usage"];
            said.prompt_tokens = usage["input_tokens"].as_u64().unwrap();
            said.cached_tokens = usage["input_tokens_details"]["cached_tokens"].as_u64().unwrap();
            said
        },
        answered: |said, result| {
            let mut items = vec![
                json!({"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": said.thought}], "encrypted_content": null}),
                json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": said.text}]}),
            ];
            if let Some((id, name, arguments)) = &said.call {
                items.push(json!({"type": "function_call", "name": name, "arguments": arguments, "call_id": id}));
                items.push(json!({"type": "function_call_output", "call_id": id, "output": result}));
            }
            items
        },
    },
    Shape {
        name: "chat",
        path: "/v1/chat/completions",
        body: |history, _| {
            let system = vec![json!({"role": "system", "content": instructions()})];
            let function = json!({"name": "read_file", "description": "Reads", "parameters": parameters()});
            let messages = [system, history.to_vec()].concat();
            json!({
                "model": "scripted", "messages": messages, "max_tokens": 32000, "stream": true,
                "stream_options": {"include_usage": true}, "tool_choice": "auto", "tools": [{"type": "function", "function": function}],
            })
        },
        question: |text| vec![json!({"role": "user", "content": text})],
        read: |events| {
            assert_eq!(events.last().unwrap().0, "[DONE]");
            let mut said = Said::default();
            for (_, data) in events {
                assert!(data["error"].is_null(), "{data}");
                let delta = &data["choices"][0]["delta"];
                said.thought += &text_of(&delta["reasoning_content"]);
                said.text += &text_of(&delta["content"]);
                let call = &delta["tool_calls"][0];
                if call["id"].is_string() {
                    said.call = Some((text_of(&call["id"]), text_of(&call["function"]["name"]), String::new()));
                }
                if let Some((_, _, arguments)) = &mut said.call {
                    *arguments += &text_of(&call["function"]["arguments"]);
                }
                if let Some(tokens) = data["usage"]["prompt_tokens"].as_u64() {
                    said.prompt_tokens = tokens;
                    said.cached_tokens = data["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
                }
            }
            said
        },
        answered: |said, result| {
            let Some((id, name, arguments)) = &said.call else {
                return vec![json!({"role": "assistant", "content": said.text, "reasoning_content": said.thought})];
            };
            let call = json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
            vec![
                json!({"role": "assistant", "content": said.text, "tool_calls": [call]}),
                json!({"role": "tool", "tool_call_id": id, "content": result}),
            ]
        },
    },
];

#[test]
fn ten_turns_of_each_agent() {
    let server = Running::start(caller, "");
    for shape in SHAPES {
        let (mut history, mut before, mut asked) = (Vec::new(), 0, 0);
        for turn in 0..TURNS {
            if turn == TURNS / 2 {
                // A title, a summary, a topic: short questions beside the session.
                for i in 0..20 {
                    let said = json!([{"role": "system", "content": format!("Title number {i}, please.")}, {"role": "user", "content": "hello"}]);
                    assert_eq!(server.post("/v1/chat/completions", &json!({"messages": said})).status, 200);
                }
            }
            history.extend((shape.question)(&format!("Do step {turn}.")));
            for is_call in [true, false] {
                let response = server.post(shape.path, &(shape.body)(&history, asked));
                let what = format!("{} turn {turn}, call {is_call}", shape.name);
                assert_eq!(response.status, 200, "{what}: {}", response.text());
                let said = (shape.read)(&response.events());
                asked += 1;
                if is_call {
                    assert_eq!(
                        (said.thought.trim(), said.text.trim()),
                        (format!("Step {turn} needs a file.").as_str(), "I read it."),
                        "{what}"
                    );
                    let (_, name, arguments) = said.call.as_ref().unwrap();
                    let arguments: Value = serde_json::from_str(arguments).unwrap();
                    assert_eq!(
                        (name.as_str(), &arguments["path"]),
                        ("read_file", &json!(format!("notes/{turn}.txt"))),
                        "{what}"
                    );
                } else {
                    assert_eq!(
                        (said.text.trim(), &said.call),
                        (format!("Step {turn} is done.").as_str(), &None),
                        "{what}"
                    );
                }
                // A page of the cache has 32 tokens.
                assert!(said.cached_tokens + 32 >= before, "{what}: {said:?} behind a prompt of {before} tokens");
                assert!(said.prompt_tokens > before, "{what}: {said:?}");
                before = said.prompt_tokens;
                history.extend((shape.answered)(&said, Some("a line of the file\n").filter(|_| is_call)));
            }
        }
    }
}
