//! However a stream ends, it ends once, and nothing stays behind.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::draws::Draws;
use common::scripted::{brooder, wanderer};
use common::told::CONVERSATIONS;
use common::{Response, Running};
use serde_json::{Value, json};

fn endless(path: &str) -> Value {
    match path {
        "/v1/chat/completions" => json!({"messages": [{"role": "user", "content": "hello"}], "stream": true}),
        "/v1/messages" => {
            json!({"messages": [{"role": "user", "content": "hello"}], "stream": true, "max_tokens": 1_000_000})
        }
        "/v1/responses" => json!({"input": "hello", "stream": true}),
        _ => json!({"model": "scripted", "messages": [{"role": "user", "content": "hello"}]}),
    }
}

const PATHS: [&str; 4] = ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/api/chat"];

fn begin(server: &Running, path: &str) -> std::net::TcpStream {
    ask(server, path, &endless(path))
}

fn ask(server: &Running, path: &str, body: &Value) -> std::net::TcpStream {
    let body = body.to_string();
    let mut stream = server.connect();
    stream.write_all(&server.head("POST", path, &[("content-type", "application/json")], body.len())).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    stream
}

#[test]
fn who_hangs_up_leaves_nothing_behind() {
    let server = Running::start(brooder, "");
    for i in 0..40 {
        let mut stream = begin(&server, PATHS[i % 4]);
        let mut some = [0; 2000];
        if i % 3 > 0 {
            let _ = stream.read(&mut some[..i * 40]);
        }
        drop(stream);
    }
    server.wait_until_idle();
    assert_eq!(server.metric("minke_kv_pages_free"), server.metric("minke_kv_pages"));
    // A request that does not stream is given up too.
    let body = json!({"messages": [{"role": "user", "content": "hello"}]}).to_string();
    let mut stream = server.connect();
    stream.write_all(&server.head("POST", PATHS[0], &[("content-type", "application/json")], body.len())).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let begin = Instant::now();
    while server.metric("minke_requests_running") < 1.0 {
        assert!(begin.elapsed() < Duration::from_secs(20));
    }
    drop(stream);
    server.wait_until_idle();
}

#[test]
fn who_does_not_read_costs_little_and_hinders_nobody() {
    let server = Running::start(wanderer, "");
    let stuck: Vec<_> = (0..20).map(|i| begin(&server, PATHS[i % 4])).collect();
    std::thread::sleep(Duration::from_millis(500));
    let body = json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 20});
    assert_eq!(server.post("/v1/chat/completions", &body).status, 200);
    drop(stuck);
    server.wait_until_idle();
}

#[test]
fn a_server_that_stops_says_so_in_every_stream() {
    let mut server = Running::start(brooder, "");
    let mut streams: Vec<_> = PATHS.iter().map(|path| begin(&server, path)).collect();
    for stream in &mut streams {
        let mut first = [0; 64];
        stream.read_exact(&mut first).unwrap();
    }
    let begun = Instant::now();
    server.stop();
    let ends: Vec<String> = streams
        .iter_mut()
        .map(|stream| {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        })
        .collect();
    server.join();
    assert!(begun.elapsed() < Duration::from_secs(5));
    for (end, last) in ends.iter().zip(["\"server stops\"", "event: error", "event: response.failed", "{\"error\""]) {
        let wanted = if last == "\"server stops\"" { "the server stops" } else { last };
        assert_eq!(end.matches("the server stops").count(), 1, "{end}");
        assert!(end.contains(wanted), "{end}");
        assert!(end.ends_with("0\r\n\r\n"), "the stream is whole: {end}");
    }
}

/// Stops a server whose answer has begun: what comes behind, and how long the server takes to end.
fn stopped(server: &mut Running, mut stream: std::net::TcpStream) -> (String, Duration) {
    stream.read_exact(&mut [0; 64]).unwrap();
    let begun = Instant::now();
    server.stop();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    server.join();
    (rest, begun.elapsed())
}

#[test]
fn a_server_that_stops_lets_answers_end_and_takes_no_more() {
    let mut server = Running::start(wanderer, "grace_seconds = 30");
    let mut body = endless(PATHS[0]);
    body["max_tokens"] = json!(1500);
    let stream = ask(&server, PATHS[0], &body);
    let (rest, time) = stopped(&mut server, stream);
    assert!(time < Duration::from_secs(25), "nothing is waited for that has ended");
    assert!(rest.contains("\"finish_reason\":\"length\"") && rest.contains("data: [DONE]"), "{rest}");
    assert!(std::net::TcpStream::connect(&server.address).is_err());

    // What takes longer than the grace goes on until then.
    let mut server = Running::start(brooder, "grace_seconds = 1");
    let stream = begin(&server, PATHS[0]);
    let (rest, time) = stopped(&mut server, stream);
    let seconds = time.as_secs_f64();
    assert!((1.0..4.0).contains(&seconds) && rest.contains("the server stops"), "after {seconds} s: {rest}");
}

#[test]
fn more_than_may_wait_are_told_to_come_again() {
    let server = Running::start(brooder, "max_running = 1\nmax_waiting = 1");
    let first = begin(&server, PATHS[0]);
    let second = begin(&server, PATHS[0]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while server.metric("minke_requests_running") + server.metric("minke_requests_waiting") < 2.0 {
        assert!(Instant::now() < deadline);
    }
    for path in PATHS {
        let mut third = begin(&server, path);
        let refused = Response::read(&mut third);
        assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")), "{path}");
    }
    drop((first, second));
    server.wait_until_idle();
    let body = json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2});
    assert_eq!(server.post("/v1/chat/completions", &body).status, 200);
}

#[test]
fn a_response_in_the_background_outlives_its_connection() {
    let server = Running::start(wanderer, "");
    let body = json!({"input": "hello", "stream": true, "background": true, "max_output_tokens": 300}).to_string();
    let mut stream = server.connect();
    let json_type = [("content-type", "application/json")];
    stream.write_all(&server.head("POST", "/v1/responses", &json_type, body.len())).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let mut some = vec![0; 3000];
    stream.read_exact(&mut some).unwrap();
    drop(stream);
    let text = String::from_utf8_lossy(&some);
    let id = text.split("x-minke-response: ").nth(1).unwrap().split("\r\n").next().unwrap();
    let path = format!("/v1/responses/{id}");
    let all = server.get(&format!("{path}?stream=true")).events();
    let numbers: Vec<u64> = all.iter().map(|(_, data)| data["sequence_number"].as_u64().unwrap()).collect();
    assert_eq!(all[0].1["response"]["id"], id);
    assert_eq!(numbers, (0..all.len() as u64).collect::<Vec<_>>(), "no event is lost or doubled");
    assert_eq!(all.last().unwrap().0, "response.incomplete");
    assert_eq!(server.get(&path).json()["status"], "incomplete");
    assert_eq!(server.get(&path).json()["usage"]["output_tokens"], 300);

    let body = json!({"input": "hello", "background": true});
    let running = server.post("/v1/responses", &body).json();
    assert_eq!(running["status"], "in_progress");
    let id = running["id"].as_str().unwrap();
    let cancelled = server.send("POST", &format!("/v1/responses/{id}/cancel"), &[], b"").json();
    assert_eq!(cancelled["status"], "cancelled");
    server.wait_until_idle();
}

/// Lets one thing go wrong; the kind is drawn.
fn fail(server: &Running, draws: &mut Draws) -> &'static str {
    let api = CONVERSATIONS[draws.below(4)];
    let json_type = [("content-type", "application/json")];
    let body = endless(api.path()).to_string();
    let whole = [server.head("POST", api.path(), &json_type, body.len()), body.into_bytes()].concat();
    match draws.below(7) {
        0 => {
            server.connect().write_all(&whole[..draws.below(whole.len())]).unwrap();
            "a request that is cut off"
        }
        1 | 2 => {
            let mut stream = server.connect();
            stream.write_all(&whole).unwrap();
            let mut some = vec![0; draws.below(3000)];
            let _ = stream.read_exact(&mut some);
            "a client that goes away"
        }
        3 => {
            let running = server.post("/v1/responses", &json!({"input": "hello", "background": true}));
            if running.status == 429 {
                return "a queue that is full";
            }
            let path = format!("/v1/responses/{}/cancel", running.json()["id"].as_str().unwrap());
            assert_eq!(server.send("POST", &path, &[], b"").json()["status"], "cancelled");
            "a response that is cancelled"
        }
        4 => {
            // More than may wait: some are refused, and those that run are given up with their connections.
            let mut streams: Vec<_> = (0..20).map(|_| begin(server, api.path())).collect();
            let refused = streams.iter_mut().any(|stream| {
                let mut first = [0; 12];
                stream.read_exact(&mut first).is_ok() && first.ends_with(b"429")
            });
            assert!(refused, "nothing is refused");
            "a queue that is full"
        }
        5 => {
            let body = api.hello(5, &[], true).to_string().replace("hello", &"x".repeat(70_000));
            assert_eq!(server.send("POST", api.path(), &json_type, body.as_bytes()).status, 400);
            "a prompt that does not fit"
        }
        _ => {
            let broken = &whole[..whole.len() - 1 - draws.below(8)];
            let start = broken.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
            assert_eq!(server.send("POST", api.path(), &json_type, &broken[start..]).status, 400);
            "a body that is no JSON"
        }
    }
}

#[test]
fn five_hundred_failures_leave_other_streams_alone() {
    let server = Running::start(brooder, "max_running = 8\nmax_waiting = 8");
    let (over, streams) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for i in 0..3 {
            let (server, over, streams) = (&server, &over, &streams);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    for api in CONVERSATIONS {
                        let (tokens, stream) = (3 + 2 * i, streams.load(Ordering::Relaxed) % 4 > 0);
                        let response = server.post(api.path(), &api.hello(tokens, &[], stream));
                        if response.status == 429 {
                            // Every request is a connection, and a loop without a pause would take all ports there are.
                            std::thread::sleep(Duration::from_millis(5));
                            continue;
                        }
                        assert_eq!(response.status, 200, "{}", response.text());
                        assert!(!stream || api.last_events(&response.body) == 1, "{}", response.text());
                        let told = api.told(&response.body, stream);
                        let thought = &"ababab"[..tokens as usize - 1];
                        assert_eq!((told.reasoning.as_str(), told.tokens.1), (thought, tokens));
                        streams.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let mut draws = Draws(32);
        let mut kinds = std::collections::BTreeMap::<&str, usize>::new();
        for _ in 0..500 {
            *kinds.entry(fail(&server, &mut draws)).or_default() += 1;
        }
        over.store(true, Ordering::Relaxed);
        assert!(kinds.len() == 6 && kinds.values().all(|count| *count > 30), "{kinds:?}");
    });
    assert!(streams.load(Ordering::Relaxed) > 100, "{streams:?}");
    server.wait_until_idle();
    assert_eq!(server.metric("minke_kv_pages_free"), server.metric("minke_kv_pages"));
}
