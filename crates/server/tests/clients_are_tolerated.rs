//! What agents and libraries send beyond the letter of an API: taken, with what changed nothing named in a header.
#![allow(clippy::unwrap_used)]

mod common;

use common::Running;
use common::scripted::scholar;
use serde_json::{Value, json};

fn user(content: Value) -> Value {
    json!([{"role": "user", "content": content}])
}

fn chat(extra: Value) -> (&'static str, Value) {
    let mut body = json!({"model": "scripted", "messages": user(json!("hello")), "max_tokens": 12});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    ("/v1/chat/completions", body)
}

fn messages(extra: Value) -> (&'static str, Value) {
    let mut body = json!({"model": "scripted", "messages": user(json!("hello")), "max_tokens": 12});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    ("/v1/messages", body)
}

fn responses(extra: Value) -> (&'static str, Value) {
    let mut body = json!({"model": "scripted", "input": "hello", "max_output_tokens": 12});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    ("/v1/responses", body)
}

#[test]
fn shapes_of_agents() {
    let server = Running::start(scholar, "");
    let call = |arguments: &str| {
        json!({"role": "assistant", "content": null, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": arguments}}]})
    };
    let result = json!({"role": "tool", "tool_call_id": "call_1", "content": "3"});
    let hello = json!({"role": "user", "content": "hello"});
    let history = |items: Vec<Value>| chat(json!({"messages": items}));
    let rows: Vec<(&str, (&str, Value))> = vec![
        ("content as parts", chat(json!({"messages": user(json!([{"type": "text", "text": "hello"}]))}))),
        (
            "content as several parts",
            chat(
                json!({"messages": user(json!([{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}]))}),
            ),
        ),
        ("empty content", chat(json!({"messages": user(json!(""))}))),
        ("null content", history(vec![json!({"role": "assistant", "content": null}), hello.clone()])),
        ("developer", history(vec![json!({"role": "developer", "content": "be brief"}), hello.clone()])),
        (
            "system in the middle",
            history(vec![
                hello.clone(),
                json!({"role": "assistant", "content": "a"}),
                json!({"role": "system", "content": "be brief"}),
                hello.clone(),
            ]),
        ),
        ("two users in a row", history(vec![hello.clone(), hello.clone()])),
        ("assistant at the end", history(vec![hello.clone(), json!({"role": "assistant", "content": "8"})])),
        ("call and result", history(vec![hello.clone(), call("{\"a\": 1}"), result.clone()])),
        ("broken arguments", history(vec![hello.clone(), call("{\"a\": "), result.clone()])),
        ("arguments that are no object", history(vec![hello.clone(), call("[1]"), result.clone()])),
        ("empty arguments", history(vec![hello.clone(), call(""), result.clone()])),
        (
            "result as parts",
            history(vec![
                hello.clone(),
                call("{}"),
                json!({"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "3"}]}),
            ]),
        ),
        ("result without a call", history(vec![result.clone(), hello.clone()])),
        (
            "reasoning_content",
            history(vec![
                hello.clone(),
                json!({"role": "assistant", "content": "a", "reasoning_content": "b"}),
                hello.clone(),
            ]),
        ),
        (
            "reasoning",
            history(vec![hello.clone(), json!({"role": "assistant", "content": "a", "reasoning": "b"}), hello.clone()]),
        ),
        (
            "thought in the content",
            history(vec![hello.clone(), json!({"role": "assistant", "content": "<think>b</think>a"}), hello.clone()]),
        ),
        ("names", history(vec![json!({"role": "user", "content": "hello", "name": "ann"})])),
        (
            "web search among the tools",
            chat(json!({"tools": [{"type": "web_search"}, {"type": "function", "function": {"name": "add"}}]})),
        ),
        ("custom tools", chat(json!({"tools": [{"type": "custom", "custom": {"name": "patch"}}]}))),
        (
            "nulls everywhere",
            chat(
                json!({"temperature": null, "top_p": null, "stop": null, "tools": null, "seed": null, "n": null, "stream": null, "stream_options": null, "logit_bias": null, "response_format": null, "tool_choice": null, "logprobs": null}),
            ),
        ),
        (
            "what clients send along",
            chat(json!({"user": "u", "store": true, "metadata": {}, "service_tier": "auto", "prompt_cache_key": "k"})),
        ),
        ("top_k of vLLM", chat(json!({"top_k": -1}))),
        ("text as format", chat(json!({"response_format": {"type": "text"}}))),
        ("max_completion_tokens", chat(json!({"max_completion_tokens": 3, "max_tokens": null}))),
        ("unknown fields", chat(json!({"mood": 1, "cache_prompt": true}))),
        ("adaptive thinking", messages(json!({"thinking": {"type": "adaptive"}}))),
        (
            "system as blocks with a nonce",
            messages(
                json!({"system": [{"type": "text", "text": "x-anthropic-billing-header: cc_version=2; cch=1f;"}, {"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}]}),
            ),
        ),
        (
            "system in the middle of messages",
            messages(json!({"messages": [hello, {"role": "system", "content": "be brief"}, hello]})),
        ),
        (
            "Anthropic's own tools",
            messages(
                json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}, {"name": "add", "input_schema": {"type": "object"}}]}),
            ),
        ),
        (
            "thoughts and their redacted kind",
            messages(
                json!({"messages": [hello, {"role": "assistant", "content": [{"type": "thinking", "thinking": "b", "signature": "s"}, {"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "a"}]}, hello]}),
            ),
        ),
        (
            "results with errors",
            messages(
                json!({"messages": [hello, {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "add", "input": {}}]}, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "is_error": true, "content": "no"}]}]}),
            ),
        ),
        (
            "results without content",
            messages(
                json!({"messages": [hello, {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "add", "input": {}}]}, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]}]}),
            ),
        ),
        (
            "effort and metadata",
            messages(
                json!({"output_config": {"effort": "high"}, "metadata": {"user_id": "u"}, "context_management": {}}),
            ),
        ),
        ("items without a type", responses(json!({"input": [{"role": "user", "content": "hello"}]}))),
        (
            "what Codex sends",
            responses(
                json!({"instructions": "be brief", "include": ["reasoning.encrypted_content"], "prompt_cache_key": "k", "client_metadata": {"a": "b"}, "store": false, "parallel_tool_calls": false, "reasoning": {"effort": "medium", "summary": "auto"}, "text": {"verbosity": "low"}}),
            ),
        ),
        (
            "tools of Codex",
            responses(
                json!({"tools": [{"type": "custom", "name": "apply_patch", "format": {}}, {"type": "namespace", "name": "n"}, {"type": "web_search"}, {"type": "function", "name": "shell", "parameters": {"type": "object"}, "strict": false}], "tool_choice": "auto"}),
            ),
        ),
        (
            "history of Codex",
            responses(
                json!({"input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}, {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "b"}], "encrypted_content": null}, {"type": "function_call", "call_id": "c", "name": "shell", "arguments": "{\"cmd\": "}, {"type": "function_call_output", "call_id": "c", "output": "done"}, {"type": "custom_tool_call", "call_id": "d", "name": "apply_patch", "input": "x"}, {"type": "custom_tool_call_output", "call_id": "d", "output": [{"type": "input_text", "text": "y"}]}, {"type": "web_search_call", "id": "w"}]}),
            ),
        ),
        (
            "developer among items",
            responses(
                json!({"input": [{"role": "developer", "content": "be brief"}, {"role": "user", "content": "hello"}]}),
            ),
        ),
        ("no input but instructions", responses(json!({"input": [], "instructions": "hello"}))),
        (
            "several developers of Codex",
            responses(
                json!({"input": [{"type": "message", "id": "msg_1", "role": "developer", "content": [{"type": "input_text", "text": "be brief"}]}, {"type": "message", "id": "msg_2", "role": "developer", "content": [{"type": "input_text", "text": "skills: none"}, {"type": "input_text", "text": "you may write"}]}, {"type": "message", "id": "msg_3", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}], "tools": [{"type": "namespace", "name": "agents", "description": "more", "tools": [{"type": "function", "name": "spawn"}]}, {"type": "local_shell"}, {"type": "custom", "name": "patch", "format": {"type": "grammar", "syntax": "lark", "definition": "start: /a/"}}, {"type": "web_search", "external_web_access": true}], "client_metadata": {"thread_id": "t", "x-codex-turn-metadata": "{\"a\": 1}"}}),
            ),
        ),
        (
            "Claude Code's betas",
            (
                "/v1/messages?beta=true",
                messages(json!({"thinking": {"type": "adaptive"}, "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}, "output_config": {"effort": "high"}, "metadata": {"user_id": "{\"device_id\": \"d\"}"}, "tools": [{"name": "Read", "description": "Reads", "input_schema": {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "properties": {"file_path": {"type": "string"}, "limit": {"exclusiveMinimum": 0, "type": "integer", "maximum": 9_007_199_254_740_991u64}}, "required": ["file_path"], "additionalProperties": false}}]})).1,
            ),
        ),
        (
            "opencode's question for a title",
            history(vec![json!({"role": "system", "content": "a title"}), json!({"role": "user", "content": "of this:"}), hello.clone()]),
        ),
    ];
    assert!(rows.len() >= 40, "{}", rows.len());
    for (what, (path, body)) in rows {
        let response = server.post(path, &body);
        assert_eq!(response.status, 200, "{what}: {}", response.text());
    }
}

#[test]
fn probes_of_clients() {
    let server = Running::start(scholar, "");
    for path in ["/", "/v1/models", "/api/tags", "/api/version", "/health"] {
        assert_eq!(server.send("HEAD", path, &[], b"").status, 200, "HEAD {path}");
    }
    assert_eq!(server.get("/v1/models").json()["models"], json!([]));
    let page = server.get("/");
    assert_eq!(
        (page.header("content-type"), page.header("content-encoding")),
        (Some("text/html; charset=utf-8"), Some("gzip"))
    );
    assert!(page.header("content-security-policy").unwrap().contains("require-trusted-types-for 'script'"));
}

/// A template that keeps the last instruction alone, as R1's does, gets one at the front, and those from the middle as what a person
/// said: nothing of what was sent is lost, and what came before stays as it was.
#[test]
fn no_instruction_is_lost() {
    let server = Running::start(scholar, "");
    let said = |role: &str, content: &str| json!({"role": role, "content": content});
    let prompt = |messages: &[Value]| {
        server.post("/apply-template", &json!({"messages": messages})).json()["prompt"].as_str().unwrap().to_owned()
    };
    let mut messages = vec![said("developer", "first rule"), said("system", "second rule"), said("user", "hello")];
    let before = prompt(&messages);
    messages.extend([said("assistant", "8"), said("system", "third rule"), said("user", "and now")]);
    let after = prompt(&messages);
    let order = ["first rule", "second rule", "hello", "third rule", "and now"];
    let places: Vec<usize> =
        order.iter().map(|text| after.find(text).unwrap_or_else(|| panic!("{text} in {after}"))).collect();
    assert!(places.is_sorted(), "{after}");
    let shared = before.bytes().zip(after.bytes()).take_while(|(a, b)| a == b).count();
    assert!(shared >= before.find("hello").unwrap() + 5, "{before}\n{after}");
}

/// A line at the front of the instructions that is another one in every request keeps nothing from being found in the cache.
#[test]
fn a_nonce_does_not_empty_the_cache() {
    let server = Running::start(scholar, "");
    let cached = |nonce: &str| {
        let system = json!([{"type": "text", "text": format!("x-anthropic-billing-header: cch={nonce};")},
                            {"type": "text", "text": "be brief ".repeat(40)}]);
        let (path, body) = messages(json!({"system": system}));
        server.post(path, &body).json()["usage"]["cache_read_input_tokens"].as_u64().unwrap()
    };
    assert_eq!(cached("1f3"), 0);
    assert!(cached("9ab") >= 320);
}
