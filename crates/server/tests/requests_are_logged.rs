//! A line about each request: what it counts, and what it never says.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::Running;
use common::scripted::scholar;
use serde_json::{Value, json};

const MARKER: &str = "zebra-4711";
const JSON: (&str, &str) = ("content-type", "application/json");

/// A server, and the lines that it wrote.
fn logged(settings: &str) -> (Running, Arc<Mutex<Vec<String>>>) {
    let lines = Arc::<Mutex<Vec<String>>>::default();
    let into = lines.clone();
    // `Running` reads the document itself, to check responses by it.
    let keep = move |line: &str| {
        if !line.contains("/openapi.json") {
            into.lock().unwrap().push(line.to_owned());
        }
    };
    (Running::start_logged(scholar, settings, keep), lines)
}

/// Waits for so many lines.
fn wait_for(lines: &Mutex<Vec<String>>, count: usize) -> Vec<String> {
    let begin = Instant::now();
    while lines.lock().unwrap().len() < count {
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", lines.lock().unwrap());
        std::thread::sleep(Duration::from_millis(5));
    }
    lines.lock().unwrap().clone()
}

#[test]
fn a_line_counts_and_tells_nothing_of_what_was_said() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join(format!("{MARKER}-keys"));
    std::fs::write(&keys, format!("other-key-1\n{MARKER}-key\n")).unwrap();
    let (server, lines) = logged(&format!("log = \"json\"\nkey_file = {:?}", keys.display().to_string()));
    let key = format!("Bearer {MARKER}-key");
    let headers = [JSON, ("authorization", &key), ("user-agent", MARKER), ("x-request-id", MARKER)];
    let ask = |path: &str, body: Value| server.send("POST", path, &headers, body.to_string().as_bytes());
    let said = json!([{"role": "user", "content": format!("{MARKER} {}", "hello ".repeat(40))}]);

    let whole = ask("/v1/chat/completions", json!({"messages": said, "user": MARKER, MARKER: 1}));
    let usage = whole.json()["usage"].clone();
    let stream = json!({"messages": said, "stream": true, "max_tokens": 6, "model": "scripted"});
    assert_eq!(ask("/v1/messages", stream).events().last().unwrap().0, "message_stop");
    // A stream's line is written behind its last byte, so that the next request could overtake it.
    wait_for(&lines, 2);
    // What fails: a field, a model, a key, an address, a method.
    assert_eq!(ask("/v1/chat/completions", json!({"messages": said, "temperature": MARKER})).status, 400);
    assert_eq!(ask("/api/chat", json!({"messages": said, "model": MARKER})).status, 404);
    let wrong = [JSON, ("x-api-key", "zebra-4711-wrong")];
    assert_eq!(server.send("POST", "/v1/responses", &wrong, b"{}").status, 401);
    assert_eq!(server.send("GET", &format!("/{MARKER}/{MARKER}?{MARKER}"), &headers, b"").status, 404);
    assert_eq!(server.send("GET", &format!("/v1/models/{MARKER}"), &headers, b"").status, 404);
    assert_eq!(server.send(MARKER, "/v1/models", &headers, b"").status, 405);

    let lines = wait_for(&lines, 8);
    assert!(!lines.concat().contains("zebra"), "{lines:#?}");
    let parsed: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let is = |line: &Value, method: &str, path: &str, status: u16| {
        assert_eq!((&line["method"], &line["path"], &line["status"]), (&json!(method), &json!(path), &json!(status)));
        assert!(line["time"].as_str().unwrap().ends_with('Z') && line["seconds"].as_f64().unwrap() >= 0.0, "{line}");
    };
    is(&parsed[0], "POST", "/v1/chat/completions", 200);
    assert_eq!(parsed[0]["id"].as_str(), whole.header("x-request-id"));
    assert_eq!(parsed[0]["key"], 2, "its line in the file");
    assert_eq!(parsed[0]["prompt_tokens"], usage["prompt_tokens"]);
    assert_eq!(parsed[0]["generated_tokens"], usage["completion_tokens"]);
    assert_eq!((&parsed[0]["cached_tokens"], &parsed[0]["finish"]), (&json!(0), &json!("stop")));
    let (first, seconds) = (parsed[0]["first_token_seconds"].as_f64().unwrap(), parsed[0]["seconds"].as_f64().unwrap());
    assert!(first <= seconds && parsed[0]["tokens_per_second"].as_f64().unwrap() > 0.0, "{}", lines[0]);
    is(&parsed[1], "POST", "/v1/messages", 200);
    assert!(parsed[1]["cached_tokens"].as_u64().unwrap() >= 192, "{}", lines[1]);
    assert_eq!((&parsed[1]["generated_tokens"], &parsed[1]["finish"]), (&json!(6), &json!("length")));
    for (line, (path, status, error, key)) in parsed[2..].iter().zip([
        ("/v1/chat/completions", 400, "invalid_value", json!(2)),
        ("/api/chat", 404, "not_found", json!(2)),
        ("/v1/responses", 401, "invalid_api_key", Value::Null),
        ("other", 404, "not_found", Value::Null),
        ("/v1/models/{*name}", 404, "not_found", json!(2)),
        ("/v1/models", 405, "method_not_allowed", Value::Null),
    ]) {
        is(line, line["method"].as_str().unwrap(), path, status);
        assert_eq!((&line["error"], &line["key"]), (&json!(error), &key), "{line}");
        assert!(line["prompt_tokens"].is_null(), "{line}");
    }
    assert_eq!(parsed[7]["method"], "other");
}

#[test]
fn text_is_pairs_and_off_is_silence() {
    let (server, lines) = logged("log = \"text\"");
    assert_eq!(server.get("/health").status, 200);
    let line = wait_for(&lines, 1).remove(0);
    let names: Vec<&str> = line.split(' ').map(|pair| pair.split_once('=').unwrap().0).collect();
    assert_eq!(names, ["time", "id", "method", "path", "status", "seconds"], "{line}");
    assert!(line.contains(" method=GET path=/health status=200 "), "{line}");

    let (server, lines) = logged("");
    let response = server.get("/health");
    assert_eq!((response.status, response.header("x-request-id")), (200, None));
    drop(server);
    assert!(lines.lock().unwrap().is_empty());
}

/// A client that goes away ends its answer, and the line says so.
#[test]
fn a_client_that_is_gone_is_a_cancelled_request() {
    let (server, lines) = logged("log = \"json\"");
    let body =
        json!({"messages": [{"role": "user", "content": "hello"}], "stream": true, "ignore_eos": true}).to_string();
    let mut stream = server.connect();
    let head = server.head("POST", "/v1/chat/completions", &[JSON], body.len());
    std::io::Write::write_all(&mut stream, &[&head, body.as_bytes()].concat()).unwrap();
    std::io::Read::read_exact(&mut stream, &mut [0; 600]).unwrap();
    drop(stream);
    let line: Value = serde_json::from_str(&wait_for(&lines, 1)[0]).unwrap();
    assert_eq!((&line["status"], &line["finish"]), (&json!(200), &json!("cancelled")), "{line}");
}
