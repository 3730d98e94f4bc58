//! Requests that cannot be obeyed: refused with the field's name, fast, and without harm to others.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::Running;
use common::scripted::{scholar, thinker};
use serde_json::{Value, json};

fn with(field: &str, value: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5});
    body[field] = value;
    body
}

#[test]
fn values_out_of_range() {
    let server = Running::start(thinker, "");
    let stops: Vec<String> = (0..100_000).map(|i| format!("stop{i}")).collect();
    let biases: serde_json::Map<String, Value> = (0..1_000_000).map(|i| (i.to_string(), json!(1))).collect();
    let cases: Vec<(&str, Value)> = vec![
        ("n", json!(-1)),
        ("n", json!(0)),
        ("n", json!(1_000_000_000_u64)),
        ("n", json!(1.5)),
        ("top_k", json!(-5)),
        ("top_p", json!(-0.1)),
        ("top_p", json!(1.5)),
        ("top_p", json!("a")),
        ("temperature", json!(-1)),
        ("temperature", json!(1e30)),
        ("temperature", json!([])),
        ("min_p", json!(2)),
        ("presence_penalty", json!(9)),
        ("frequency_penalty", json!(-9)),
        ("repetition_penalty", json!(0)),
        ("max_tokens", json!(-1)),
        ("max_tokens", json!(0)),
        ("max_tokens", json!("many")),
        ("logit_bias", json!({"a": 1})),
        ("logit_bias", json!({"5": 1000})),
        ("logit_bias", json!({"4000000000": 1})),
        ("logit_bias", json!({"99999999999999999999": 1})),
        ("logit_bias", Value::Object(biases)),
        ("stop", json!(stops)),
        ("stop", json!({})),
        ("stop", json!(["x".repeat(1 << 20)])),
        ("messages", json!([])),
        ("messages", json!("hello")),
        ("messages", json!([{"role": "king", "content": "a"}])),
        ("messages", json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}])),
        ("tools", json!([{"type": "function", "function": {}}])),
        ("tool_choice", json!("required")),
        ("tool_choice", json!("perhaps")),
        ("tool_choice", json!({"type": "function", "function": {"name": "none of them"}})),
        ("response_format", json!({"type": "poem"})),
        ("response_format", json!({"type": "json_schema"})),
        ("top_logprobs", json!(3)),
        ("reasoning_effort", json!("enormous")),
        ("thinking", json!({"type": "sometimes"})),
        ("thinking_budget", json!(-7)),
        ("stream", json!("yes")),
    ];
    for (field, value) in cases {
        let shown: String = value.to_string().chars().take(60).collect();
        let begin = Instant::now();
        let response = server.post("/v1/chat/completions", &with(field, value));
        let took = begin.elapsed();
        assert_eq!(response.status, 400, "{field} = {shown}: {}", response.text());
        let error = &response.json()["error"];
        let param = error["param"].as_str().unwrap_or_default();
        let named = param.starts_with(field) || error["message"].as_str().unwrap().contains(field);
        assert!(named, "{field} = {shown}: {error}");
        assert!(took < Duration::from_secs(1), "{field} = {shown} took {took:?}");
    }
    let fine = server.post("/v1/chat/completions", &with("temperature", json!(0)));
    assert_eq!(fine.status, 200);
}

#[test]
fn bodies_that_are_no_requests() {
    let server = Running::start(thinker, "max_body_bytes = 100000");
    let json_type = [("content-type", "application/json")];
    let post = |body: &[u8]| server.send("POST", "/v1/chat/completions", &json_type, body);
    let deep = [vec![b'['; 100_000 / 2], vec![b']'; 100_000 / 2]].concat();
    for body in [&b""[..], b"{", b"null", b"[]", b"{\"messages\": \xff}", b"{} {}", &deep, b"{\"messages\": 1e999}"] {
        assert_eq!(post(body).status, 400, "{:?}", String::from_utf8_lossy(&body[..body.len().min(20)]));
    }
    assert_eq!(post(&vec![b' '; 200_000]).status, 413);
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        // Pages name their origin, or their browser says whose they are.
        for page in [("origin", "https://evil.example.org"), ("origin", "null"), ("sec-fetch-site", "cross-site")] {
            let response = server.send("POST", "/v1/chat/completions", &[("content-type", kind), page], b"{}");
            assert_eq!(response.status, 415, "{kind} {page:?}");
        }
    }
    let origin = [("origin", "https://evil.example.org")];
    assert_eq!(server.send("POST", "/v1/chat/completions", &origin, b"{}").status, 415);
    // Some clients name no type, and curl one that it is not.
    let body = with("temperature", json!(0)).to_string();
    for headers in [&[][..], &[("content-type", "application/x-www-form-urlencoded")]] {
        for path in ["/v1/chat/completions", "/api/chat"] {
            let body = if path == "/api/chat" {
                r#"{"model": "scripted", "messages": [{"role": "user", "content": "a"}], "stream": false}"#
            } else {
                &body
            };
            assert_eq!(server.send("POST", path, headers, body.as_bytes()).status, 200, "{path} {headers:?}");
        }
    }
    assert_eq!(server.get("/v1/chat/completions").status, 405);
    assert_eq!(server.get("/v1/nothing").status, 404);
    assert_eq!(server.send("GET", "/health", &[("x-long", &"y".repeat(1 << 20))], b"").status, 431);
}

#[test]
fn each_dialect_has_errors_of_its_own_shape() {
    let server = Running::start(thinker, "");
    let long = "x".repeat(600);
    let openai = server.post("/v1/chat/completions", &with("messages", json!([{"role": "user", "content": long}])));
    assert_eq!(openai.status, 400);
    let error = &openai.json()["error"];
    assert_eq!((&error["code"], &error["type"]), (&json!("context_length_exceeded"), &json!("invalid_request_error")));
    assert!(error["message"].as_str().unwrap().contains("256"), "{error}");
    let body = json!({"model": "scripted", "messages": [{"role": "user", "content": long}], "max_tokens": 5});
    let anthropic = server.post("/v1/messages", &body);
    assert_eq!((anthropic.status, &anthropic.json()["type"]), (400, &json!("error")));
    assert_eq!(anthropic.json()["error"]["type"], "invalid_request_error");
    let ollama = server.post("/api/chat", &body);
    assert_eq!(ollama.status, 400);
    assert!(ollama.json()["error"].is_string());
    let other = server.post("/v1/chat/completions", &with("model", json!("gpt-5")));
    assert_eq!(other.status, 404);
    assert!(other.json()["error"]["message"].as_str().unwrap().contains("scripted"));
}

#[test]
fn what_is_not_understood_is_named() {
    let server = Running::start(scholar, "");
    let mut body = with("mood", json!("cheerful"));
    body["tools"] = json!([{"type": "web_search"}, {"type": "function", "function": {"name": "add"}}]);
    body["chat_template_kwargs"] = json!({"shout": true});
    let response = server.post("/v1/chat/completions", &body);
    assert_eq!(response.status, 200);
    let ignored = response.header("x-minke-ignored").unwrap();
    for name in ["mood", "tools[0] (web_search)", "chat_template_kwargs.shout"] {
        assert!(ignored.contains(name), "{ignored}");
    }
    assert_eq!(server.post("/v1/chat/completions", &with("user", json!("me"))).header("x-minke-ignored"), None);
}

#[test]
fn what_would_take_long_is_refused_soon_and_others_are_served() {
    let server = Running::start(scholar, "");
    let format = |kind: &str, field: &str, value: Value| with("response_format", json!({"type": kind, field: value}));
    let schema = |schema: Value| format("json_schema", "json_schema", json!({"name": "p", "schema": schema}));
    // Each definition is the one before twice: a million of the first in the last.
    let doubled = |i: usize| json!({"type": "array", "prefixItems": [{"$ref": format!("#/$defs/d{i}")}, {"$ref": format!("#/$defs/d{i}")}]});
    let definitions: serde_json::Map<String, Value> =
        (0..20).map(|i| (format!("d{}", i + 1), doubled(i))).chain([("d0".into(), json!({"const": 1}))]).collect();
    let deep = (0..200).fold(json!({"type": "null"}), |inner, _| json!({"type": "array", "items": inner}));
    let wide: Vec<Value> = (0..100_000).map(|i| json!(format!("word{i}"))).collect();
    let said = |text: String| with("messages", json!([{"role": "user", "content": text}]));
    let bombs: Vec<(&str, Value)> = vec![
        ("a large repetition", format("regex", "regex", json!("(((a{1000}){1000}){1000}){1000}"))),
        ("repetitions of repetitions", format("regex", "regex", json!("((((((a*)*)*)*)*)*)*b"))),
        ("alternatives of repetitions", format("regex", "regex", json!("(a|aa|a?a?a?a?){200}{200}"))),
        ("a class that is not closed", format("regex", "regex", json!("[a".repeat(10_000)))),
        ("brackets", format("regex", "regex", json!("(".repeat(100_000)))),
        ("a rule that holds itself", format("grammar", "grammar", json!("start: start start | start"))),
        ("a rule that is not there", format("grammar", "grammar", json!("start: nobody"))),
        ("a schema with a million references", schema(json!({"$ref": "#/$defs/d20", "$defs": definitions}))),
        ("a schema that holds itself", schema(json!({"$ref": "#"}))),
        ("a deep schema", schema(deep)),
        ("a wide schema", schema(json!({"enum": wide}))),
        ("lengths without end", schema(json!({"type": "string", "minLength": 4_000_000_000_u64}))),
        ("a million tokens", said("x".repeat(1_000_000))),
        ("a million messages", with("messages", json!(vec![json!({"role": "user", "content": "a"}); 200_000]))),
        (
            "a tool for everything",
            with(
                "tools",
                json!(vec![
                    json!({"type": "function", "function": {"name": "f", "parameters": {"$ref": "#/a"}, "strict": true}});
                    1000
                ]),
            ),
        ),
    ];
    for (name, body) in bombs {
        let begin = Instant::now();
        let response = server.post("/v1/chat/completions", &body);
        let took = begin.elapsed();
        // What is small enough to be obeyed may be.
        assert!([200, 400].contains(&response.status), "{name}: {} {}", response.status, response.text());
        assert!(took < Duration::from_secs(5), "{name} took {took:?}");
        let fine = Instant::now();
        assert_eq!(server.post("/v1/chat/completions", &with("temperature", json!(0))).status, 200, "behind {name}");
        assert!(fine.elapsed() < Duration::from_secs(1), "behind {name}: {:?}", fine.elapsed());
        println!("{name}: {} in {took:?}", response.status);
    }
    // The length of a body is refused before the body comes.
    let mut stream = server.connect();
    std::io::Write::write_all(&mut stream, &server.head("POST", "/v1/chat/completions", &[], 1 << 30)).unwrap();
    assert_eq!(common::Response::read(&mut stream).status, 413);
}
