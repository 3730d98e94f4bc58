//! `/openapi.json`: every address is in it and is what it says. That responses are as it says, all tests check (`Running::send`).
#![allow(clippy::unwrap_used)]

mod common;

use common::Running;
use common::scripted::{scholar, thinker};
use serde_json::{Value, json};

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

/// All texts of a field of this name, at any depth.
fn all<'a>(value: &'a Value, name: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get(name).and_then(Value::as_str));
            object.values().for_each(|value| all(value, name, found));
        }
        Value::Array(values) => values.iter().for_each(|value| all(value, name, found)),
        _ => {}
    }
}

#[test]
fn what_is_described_is_there_and_nothing_else_is_taken() {
    let server = Running::start(thinker, "");
    let document = &server.document().0;
    assert_eq!((&document["openapi"], &document["servers"][0]["url"]), (&json!("3.1.0"), &json!("/")));
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 20);
    for (pattern, item) in paths {
        let path = pattern.replace("{name}", "scripted").replace("{id}", "resp_0");
        for method in METHODS {
            let response = server.send(&method.to_uppercase(), &path, &[("content-type", "application/json")], b"{}");
            let told = response.text();
            if item.get(method).is_some() {
                assert!(response.status != 405 && !told.contains("there is nothing at"), "{method} {path}: {told}");
            } else {
                assert_eq!(response.status, 405, "{method} {path} is not described: {told}");
                let taken = response.header("allow").unwrap_or_else(|| panic!("{method} {path} names no method"));
                let named = METHODS.iter().filter(|method| taken.to_ascii_lowercase().contains(*method));
                assert!(named.eq(METHODS.iter().filter(|method| item.get(*method).is_some())), "{path}: {taken}");
            }
        }
    }
    let mut places = Vec::new();
    all(document, "$ref", &mut places);
    assert!(places.len() > 100);
    for place in places {
        assert!(document.pointer(place.trim_start_matches('#')).is_some(), "{place} is nowhere");
    }
    let mut ids = Vec::new();
    all(&document["paths"], "operationId", &mut ids);
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
}

#[test]
fn it_knows_where_the_server_stands_and_who_may_come_in() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    std::fs::write(&keys, "first-key-123\n").unwrap();
    let settings = format!("base_path = \"/ai/minke\"\nkey_file = {:?}", keys.display().to_string());
    let server = Running::start(thinker, &settings);
    let document = &server.document().0;
    let base = document["servers"][0]["url"].as_str().unwrap();
    assert_eq!(base, "/ai/minke");
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let path = format!("{base}{}", path.replace("{name}", "scripted").replace("{id}", "resp_0"));
            let refused = server.send(&method.to_uppercase(), &path, &[], b"{}").status == 401;
            assert_eq!(refused, operation.get("security").is_some(), "{method} {path}");
        }
    }
    let schemes = &document["components"]["securitySchemes"];
    assert_eq!((&schemes["bearer"]["scheme"], &schemes["x-api-key"]["name"]), (&json!("bearer"), &json!("x-api-key")));
}

/// What the other tests do not ask for.
#[test]
fn all_kinds_of_responses_are_as_described() {
    let server = Running::start(scholar, "reasoning_field = \"reasoning\"");
    let messages = json!([{"role": "user", "content": "hello"}]);
    let function = json!({"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}});
    let openai = json!([{"type": "function", "function": function}]);
    let anthropic = json!([{"name": "add", "input_schema": function["parameters"]}]);
    for stream in [false, true] {
        for (path, body) in [
            ("/v1/chat/completions", json!({"messages": messages, "logprobs": true, "top_logprobs": 2, "n": 2})),
            ("/v1/chat/completions", json!({"messages": messages, "tools": openai, "tool_choice": "required"})),
            ("/v1/chat/completions", json!({"messages": messages, "stream_options": {"include_usage": true}})),
            (
                "/v1/completions",
                json!({"prompt": ["8", "*"], "logprobs": 2, "stream_options": {"include_usage": true}}),
            ),
            ("/v1/completions", json!({"prompt": "8", "echo": true})),
            (
                "/v1/messages",
                json!({"messages": messages, "max_tokens": 50, "tools": anthropic, "tool_choice": {"type": "any"}}),
            ),
            ("/v1/messages", json!({"messages": messages, "max_tokens": 50, "stop_sequences": ["*", "3"]})),
            ("/v1/responses", json!({"input": "hello", "tools": openai, "tool_choice": "required"})),
            ("/v1/responses", json!({"input": "hello", "stream_options": {"include_progress": true}})),
            ("/v1/responses", json!({"input": "hello", "max_output_tokens": 2, "background": true})),
            ("/api/chat", json!({"model": "scripted", "messages": messages, "tools": openai})),
            ("/api/generate", json!({"model": "scripted", "prompt": "hello"})),
        ] {
            let mut body = body;
            body["stream"] = stream.into();
            let response = server.post(path, &body);
            assert_eq!(response.status, 200, "{body}: {}", response.text());
        }
    }
    let ids = server
        .post("/v1/completions", &json!({"prompt": "8", "return_token_ids": true, "logprobs": 1, "temperature": 0}));
    let choice = ids.json()["choices"][0].clone();
    // `*`, `3` and the end, which has no text; behind the token that begins a text, and `8`.
    let (token_ids, log_probs) = (choice["token_ids"].as_array().unwrap(), &choice["logprobs"]["token_logprobs"]);
    assert_eq!((&choice["text"], token_ids.len(), token_ids.last()), (&json!("*3"), 3, Some(&json!(1))));
    assert_eq!((log_probs.as_array().unwrap().len(), choice["prompt_token_ids"].as_array().unwrap().len()), (3, 2));
    for path in [
        "/health",
        "/v1/health",
        "/ready",
        "/metrics",
        "/v1/models",
        "/v1/models/scripted",
        "/api/tags",
        "/api/ps",
        "/api/version",
        "/openapi.json",
    ] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    assert_eq!(server.post("/api/show", &json!({"model": "scripted"})).status, 200);
    assert_eq!(server.post("/tokenize", &json!({"content": "8*é", "with_pieces": true})).status, 200);
    assert_eq!(server.post("/tokenize", &json!({"content": ""})).status, 200);
    // What cannot be read of an address is refused in the same shape as the rest.
    for path in ["/v1/responses/resp_0?starting_after=a", "/v1/responses/%ff", "/v1/models/%ff"] {
        let refused = server.get(path);
        assert_eq!((refused.status, refused.header("content-type")), (400, Some("application/json")), "{path}");
    }
}

/// What was asked for is told again.
#[test]
fn a_response_repeats_what_bound_it() {
    let server = Running::start(thinker, "");
    let format = json!({"type": "json_schema", "name": "any", "schema": {"type": "object"}});
    let body =
        json!({"input": "hello", "text": {"format": format}, "temperature": 0.5, "reasoning": {"effort": "low"}});
    let response = server.post("/v1/responses", &body).json();
    assert_eq!((&response["text"]["format"], &response["temperature"]), (&format, &json!(0.5)));
    assert_eq!(response["reasoning"]["effort"], "low");
}
