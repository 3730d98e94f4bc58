//! What takes minutes to show: many samples of every format, an idle server, a thousand clients that are slow or many.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::scripted::{brooder, scholar, thinker, wanderer};
use common::told::{Api, CONVERSATIONS};
use common::{Response, Running};
use serde_json::{Value, json};

/// They measure the process that all of them share.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A field of `/proc/self/status`, in KiB.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Processor time of this process, in hundredths of a second.
fn processor_time() -> u64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    // The 14th and 15th field of the line; the second is the name.
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// The time that 99 of 100 requests stay below.
fn p99(server: &Running, times: usize) -> Duration {
    let mut all: Vec<Duration> = (0..times)
        .map(|_| {
            let begin = Instant::now();
            assert_eq!(server.get("/health").status, 200);
            begin.elapsed()
        })
        .collect();
    all.sort();
    all[times * 99 / 100]
}

#[test]
fn an_idle_server_costs_nothing() {
    let _alone = alone();
    let server = Running::start(thinker, "");
    assert_eq!(server.post("/v1/chat/completions", &Api::Chat.hello(5, &[], false)).status, 200);
    let keeps: Vec<TcpStream> = (0..10).map(|_| server.connect()).collect();
    std::thread::sleep(Duration::from_secs(1));
    let before = processor_time();
    std::thread::sleep(Duration::from_secs(9));
    let spent = processor_time() - before;
    println!("{spent} hundredths of a second in 9 s");
    assert!(spent < 9, "{spent} hundredths of a second in 9 s");
    drop(keeps);
}

/// What answers must be: settings of a request by API, a check of the text, and a name.
struct Bound {
    name: &'static str,
    /// As `response_format` of chat completions.
    format: Value,
    schema: Value,
}

fn bounds() -> Vec<Bound> {
    let point = json!({
        "type": "object",
        "properties": {
            "x": {"type": "integer", "minimum": 0, "maximum": 99},
            "kind": {"enum": ["point", "line"]},
            "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
        },
        "required": ["x", "kind", "tags"],
        "additionalProperties": false,
    });
    let nested = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 5, "pattern": "^[a-z]+$"},
            "either": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/pair"}]},
        },
        "required": ["name", "either"],
        "additionalProperties": false,
        "$defs": {"pair": {"type": "array", "items": {"type": "integer", "minimum": -9, "maximum": 9}, "minItems": 2, "maxItems": 2}},
    });
    let of = |schema: &Value| json!({"type": "json_schema", "json_schema": {"name": "p", "schema": schema}});
    vec![
        Bound { name: "schema", format: of(&point), schema: point },
        Bound { name: "nested schema", format: of(&nested), schema: nested },
        Bound { name: "JSON", format: json!({"type": "json_object"}), schema: json!({"type": "object"}) },
    ]
}

fn with_format(api: Api, body: &mut Value, bound: &Bound) {
    match api {
        Api::Chat => body["response_format"] = bound.format.clone(),
        Api::Responses => {
            body["text"] = match bound.format.get("json_schema") {
                Some(inner) => json!({"format": {"type": "json_schema", "name": "p", "schema": inner["schema"]}}),
                None => json!({"format": bound.format}),
            };
        }
        Api::Messages => {
            body["output_config"] = json!({"format": {"type": "json_schema", "schema": bound.schema}});
        }
        _ => {
            body["format"] = if bound.name == "JSON" { json!("json") } else { bound.schema.clone() };
        }
    }
}

#[test]
fn a_thousand_samples_obey_their_formats() {
    let _alone = alone();
    let server = Running::start(scholar, "");
    let (mut samples, mut cut_off, mut free) = (0, 0, 0);
    for bound in bounds() {
        let validator = jsonschema::validator_for(&bound.schema).unwrap();
        for api in CONVERSATIONS {
            for thinks in [true, false] {
                for stream in [true, false] {
                    for round in 0..22 {
                        let mut body = api.hello(250, &[], stream);
                        with_format(api, &mut body, &bound);
                        match api {
                            Api::Chat => body["reasoning_effort"] = json!(if thinks { "high" } else { "none" }),
                            Api::Responses => {
                                body["reasoning"] = json!({"effort": if thinks { "high" } else { "none" }})
                            }
                            Api::Messages => {
                                body["thinking"] = json!({"type": if thinks { "enabled" } else { "disabled" }});
                            }
                            _ => body["think"] = json!(thinks),
                        }
                        if api == Api::OllamaChat {
                            body["options"] = json!({"num_predict": 250, "temperature": 1.0, "seed": round});
                        } else {
                            body["temperature"] = json!(1.0);
                        }
                        let response = server.post(api.path(), &body);
                        assert_eq!(response.status, 200, "{}", response.text());
                        let told = api.told(&response.body, stream);
                        let at = format!("{} {api:?} thinks {thinks} stream {stream}", bound.name);
                        assert!(thinks || told.reasoning.is_empty(), "{at}: {told:?}");
                        // A thought is free: it is what the model thinks without a format.
                        free += usize::from(told.reasoning == "ab");
                        samples += 1;
                        if told.finish == "length" {
                            cut_off += 1;
                            continue;
                        }
                        let value: Value = match serde_json::from_str(&told.content) {
                            Ok(value) => value,
                            // JSON, with a number such as 6E527 that no double holds.
                            Err(error) if error.to_string().starts_with("number out of range") => continue,
                            Err(error) => panic!("{at}: {error}: {told:?}"),
                        };
                        assert!(validator.is_valid(&value), "{at}: {told:?}");
                        let spaces = told.content.split(|c: char| !c.is_whitespace()).map(str::len).max();
                        assert!(spaces <= Some(8), "{at}: {told:?}");
                    }
                }
            }
        }
    }
    println!("{samples} samples, {cut_off} cut off");
    assert!(samples > 1000 && cut_off < samples / 2, "{cut_off} of {samples} were cut off");
    assert!(free > 200, "{free} thoughts are free");
}

#[test]
fn regular_expressions_grammars_and_tools_bind_as_well() {
    let _alone = alone();
    let server = Running::start(scholar, "");
    let date = |text: &str| {
        let bytes = text.as_bytes();
        text.len() == 10
            && bytes
                .iter()
                .enumerate()
                .all(|(i, byte)| if i == 4 || i == 7 { *byte == b'-' } else { byte.is_ascii_digit() })
    };
    let schema = json!({"type": "object", "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 99}}, "required": ["x"], "additionalProperties": false});
    let validator = jsonschema::validator_for(&schema).unwrap();
    for round in 0..60 {
        let (thinks, stream) = (round % 2 == 0, round % 4 < 2);
        let ask = |field: &str, value: Value| {
            let mut body = Api::Chat.hello(200, &[], stream);
            (body["seed"], body["temperature"], body["enable_thinking"]) = (json!(round), json!(1.0), json!(thinks));
            body[field] = value;
            body
        };
        let tell = |body: &Value| Api::Chat.told(&server.post(Api::Chat.path(), body).body, stream);
        let told = tell(&ask("response_format", json!({"type": "regex", "regex": "[0-9]{4}-[0-9]{2}-[0-9]{2}"})));
        assert!(date(&told.content) && told.finish == "stop", "{told:?}");
        let told =
            tell(&ask("response_format", json!({"type": "grammar", "grammar": "start: \"a\" (\"b\" | \"c\")+ \"!\""})));
        let inner = told.content.strip_prefix('a').map(|rest| rest.trim_end_matches('!'));
        assert!(
            told.finish == "length"
                || inner.is_some_and(|inner| !inner.is_empty() && inner.chars().all(|c| "bc".contains(c))),
            "{told:?}"
        );
        let mut body = ask(
            "tools",
            json!([{"type": "function", "function": {"name": "f", "parameters": schema, "strict": true}}]),
        );
        body["tool_choice"] = json!("required");
        let told = tell(&body);
        assert!(!told.calls.is_empty() && (told.finish == "length" || told.finish == "tool_calls"), "{told:?}");
        for (i, (name, arguments)) in told.calls.iter().enumerate() {
            if told.finish == "length" && i + 1 == told.calls.len() {
                continue;
            }
            let value: Value = serde_json::from_str(arguments).unwrap();
            assert!(name == "f" && validator.is_valid(&value), "{told:?}");
        }
    }
}

#[test]
fn a_thousand_slow_clients_hinder_nobody_and_are_closed() {
    let _alone = alone();
    let server = Running::start(wanderer, "");
    let quiet = p99(&server, 200);
    let before = resident();
    // A byte of a head, and no more: these are closed when the time for a head is over.
    let begin = Instant::now();
    let mut heads: Vec<TcpStream> = (0..700).map(|_| server.connect()).collect();
    heads.iter_mut().for_each(|stream| stream.write_all(b"P").unwrap());
    // Half a body, and streams that nobody reads.
    let body =
        json!({"messages": [{"role": "user", "content": "hello"}], "stream": true, "max_tokens": 5_000}).to_string();
    let head = server.head("POST", "/v1/chat/completions", &[("content-type", "application/json")], body.len());
    let mut bodies: Vec<TcpStream> = (0..290).map(|_| server.connect()).collect();
    for stream in &mut bodies {
        stream.write_all(&head).unwrap();
        stream.write_all(&body.as_bytes()[..10]).unwrap();
    }
    let mut deaf: Vec<TcpStream> = (0..10).map(|_| server.connect()).collect();
    for stream in &mut deaf {
        stream.write_all(&[&head, body.as_bytes()].concat()).unwrap();
    }
    let slow = p99(&server, 500);
    let each = resident().saturating_sub(before) / 1000;
    println!("/health p99 {quiet:?} alone, {slow:?} beside a thousand; {each} KiB each");
    assert!(slow < Duration::from_millis(50), "{slow:?}");
    assert!(each <= 64, "{each} KiB each");
    let closed = |streams: &mut [TcpStream], within: Duration| {
        for stream in streams {
            let left = within.saturating_sub(begin.elapsed()).max(Duration::from_millis(1));
            stream.set_read_timeout(Some(left)).unwrap();
            let mut rest = Vec::new();
            // What came before may be read; the end must come.
            if let Err(error) = stream.read_to_end(&mut rest) {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "after {:?}", begin.elapsed());
            }
        }
    };
    closed(&mut heads, Duration::from_secs(15));
    assert!(begin.elapsed() > Duration::from_secs(8), "closed before the time");
    closed(&mut bodies, Duration::from_secs(75));
    // Answers that nobody reads end as well, with their connections still there.
    while server.metric("minke_requests_running") + server.metric("minke_requests_waiting") > 0.0 {
        assert!(begin.elapsed() < Duration::from_secs(300), "something still runs");
        std::thread::sleep(Duration::from_secs(1));
    }
    let each = resident().saturating_sub(before) / 1000;
    assert!(each <= 64, "{each} KiB each at the end");
    drop(deaf);
    println!("all is closed after {:?}", begin.elapsed());
    assert_eq!(server.metric("minke_kv_pages_free"), server.metric("minke_kv_pages"));
}

#[test]
fn a_thousand_streams_end_or_are_told_to_come_again() {
    let _alone = alone();
    let server = Running::start(brooder, "max_running = 64\nmax_waiting = 512");
    let (mut ended, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        let streams: Vec<_> = (0..1000u64)
            .map(|i| {
                let server = &server;
                let api = CONVERSATIONS[i as usize % 4];
                let tokens = 2 + i % 30;
                let run = move || {
                    let body = api.hello(tokens, &[], true).to_string();
                    let mut stream = server.connect();
                    stream
                        .write_all(&server.head(
                            "POST",
                            api.path(),
                            &[("content-type", "application/json")],
                            body.len(),
                        ))
                        .unwrap();
                    stream.write_all(body.as_bytes()).unwrap();
                    (api, tokens, Response::read(&mut stream))
                };
                std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, run).unwrap()
            })
            .collect();
        for stream in streams {
            let (api, tokens, response) = stream.join().unwrap();
            match response.status {
                200 => {
                    assert_eq!(api.last_events(&response.body), 1);
                    let told = api.told(&response.body, true);
                    // An answer of its own length: none has what belongs to another.
                    assert_eq!(
                        (told.tokens.1, told.reasoning),
                        (tokens, "ab".repeat(20)[..tokens as usize - 1].to_owned())
                    );
                    ended += 1;
                }
                429 | 503 => {
                    assert!(response.header("retry-after").is_some());
                    refused += 1;
                }
                other => panic!("{other}: {}", response.text()),
            }
        }
    });
    println!("{ended} ended, {refused} were told to come again");
    assert!(ended >= 576 && ended + refused == 1000);
    server.wait_until_idle();
    assert_eq!(server.metric("minke_kv_pages_free"), server.metric("minke_kv_pages"));
}
