//! Whatever an endpoint does, a request ends with an answer or with one line that says who is to blame.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use minke_endpoint::{BODY_AT_MOST, Endpoint, EndpointSettings, Error, Reply};
use serde_json::{Map, Value, json};

/// What the server does with one connection.
#[derive(Clone)]
enum Act {
    /// Sends status, headers and body.
    Answer(&'static str, Vec<(&'static str, String)>, String),
    /// Closes without a word.
    Close,
    /// Announces more than it sends, then closes.
    Cut,
    /// Sends a body without end.
    Endless,
    /// Says nothing until the client gives up.
    Silent,
}

struct Server {
    port: u16,
    /// Head and body of each request.
    requests: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Server {
    /// A server that does these in turn, the last one again and again.
    fn start(acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().flatten().enumerate() {
                let act = acts[number.min(acts.len() - 1)].clone();
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || serve(stream, act, &seen));
            }
        });
        Self { port, requests }
    }

    fn settings(&self) -> EndpointSettings {
        EndpointSettings::new(format!("http://127.0.0.1:{}", self.port), "m")
            .with_first_wait(Duration::from_millis(5))
            .with_attempts(3)
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new(self.settings(), Some("secret-key".into())).unwrap()
    }

    fn asked(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

fn serve(mut stream: TcpStream, act: Act, seen: &Mutex<Vec<(String, Value)>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    seen.lock().unwrap().push((head, serde_json::from_slice(&body).unwrap()));
    let json = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
    match act {
        Act::Answer(status, headers, body) => {
            let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let text = format!(
                "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
                body.len()
            );
            stream.write_all(text.as_bytes()).ok()
        }
        Act::Close => Some(()),
        Act::Cut => stream.write_all(format!("{json}Content-Length: 500\r\n\r\n{{\"choices\": [").as_bytes()).ok(),
        Act::Endless => {
            stream.write_all(format!("{json}\r\n{{\"choices\": [").as_bytes()).ok()?;
            let spaces = vec![b' '; 1 << 16];
            loop {
                stream.write_all(&spaces).ok()?;
            }
        }
        Act::Silent => {
            std::thread::sleep(Duration::from_secs(20));
            Some(())
        }
    }
}

fn good() -> Act {
    let body = json!({ "choices": [{ "message": { "content": "7" }, "finish_reason": "stop" }] }).to_string();
    Act::Answer("200 OK", vec![("Content-Type", "application/json".into())], body)
}

fn status(status: &'static str, body: &str) -> Act {
    Act::Answer(status, vec![("Content-Type", "application/json".into())], body.into())
}

fn busy(retry_after: &str) -> Act {
    Act::Answer("429 Too Many Requests", vec![("Retry-After", retry_after.into())], String::new())
}

fn ask(endpoint: &Endpoint) -> Result<Reply, Error> {
    let request: Map<String, Value> = serde_json::from_value(json!({ "messages": [], "temperature": 0.5 })).unwrap();
    endpoint.chat(&request, &AtomicBool::new(false))
}

/// The error of a request to a server that does these, in one line, and how often the server was asked.
fn error(acts: Vec<Act>) -> (Error, usize) {
    let server = Server::start(acts);
    let error = ask(&server.endpoint()).unwrap_err();
    let message = error.to_string();
    assert!(message.starts_with(&format!("http://127.0.0.1:{}/v1/chat/completions: ", server.port)), "{message}");
    assert!(!message.contains('\n') && !message.contains("secret"), "{message}");
    (error, server.asked())
}

#[test]
fn what_passes_is_asked_for_again() {
    for acts in [
        vec![good()],
        vec![busy("0"), good()],
        vec![status("500 Internal Server Error", "{}"), status("503 Service Unavailable", ""), good()],
        vec![Act::Close, Act::Cut, good()],
        vec![status("200 OK", "{\"choices\": ["), good()],
    ] {
        let (server, count) = (Server::start(acts.clone()), acts.len());
        let reply = ask(&server.endpoint()).unwrap();
        assert_eq!((&reply.content[..], server.asked()), ("7", count));
        let requests = server.requests.lock().unwrap();
        for (head, body) in requests.iter() {
            let lower = head.to_ascii_lowercase();
            assert!(
                head.starts_with("POST /v1/chat/completions ") && lower.contains("authorization: bearer secret-key"),
                "{head}"
            );
            assert_eq!(*body, json!({ "messages": [], "temperature": 0.5, "model": "m", "stream": false }));
        }
    }
}

#[test]
fn what_lasts_is_named_after_some_attempts() {
    for (act, says) in [
        (
            status("500 Internal Server Error", "{\"error\": {\"message\": \"boom for secret-key\"}}"),
            "answers 500 Internal Server Error (boom for [key])",
        ),
        (busy("0"), "answers 429 Too Many Requests"),
        (status("200 OK", "{\"choices\": ["), "cannot be read"),
        (status("200 OK", "{\"error\": \"out of\\nmemory\"}"), "out of memory"),
    ] {
        let (error, asked) = error(vec![act]);
        assert!(
            matches!(&error, Error::Unanswered { reason, .. } if reason.contains(says) && reason.ends_with("; 3 attempts")),
            "{error}"
        );
        assert_eq!(asked, 3, "{error}");
    }
    // An error of any length, in an answer that says it is none.
    let long = json!({ "error": "é".repeat(1 << 20) }).to_string();
    let (lengthy, _) = error(vec![Act::Answer("200 OK", vec![("Content-Type", "application/json".into())], long)]);
    let shown = lengthy.to_string();
    assert!(shown.contains("ééé") && shown.chars().count() < 600, "{shown}");
    let (error, asked) = error(vec![Act::Close]);
    assert!(
        matches!(&error, Error::Unanswered { reason, .. } if reason.ends_with("; 3 attempts")) && asked == 3,
        "{error}"
    );
}

#[test]
fn what_another_attempt_would_not_mend_is_asked_for_once() {
    let html = Act::Answer("200 OK", vec![("Content-Type", "text/html".into())], "<html>sign in</html>".into());
    for (act, says) in [
        (
            status("400 Bad Request", "{\"error\": {\"message\": \"too long\"}}"),
            "answers 400 Bad Request (too long)".to_owned(),
        ),
        (html, "it answers text/html, not JSON".into()),
        (Act::Endless, format!("more than {BODY_AT_MOST} bytes")),
    ] {
        let (error, asked) = error(vec![act]);
        assert!(matches!(&error, Error::Unanswered { reason, .. } if reason.contains(&says)) && asked == 1, "{error}");
    }
}

#[test]
fn what_holds_for_every_request_is_told_apart() {
    let redirect = Act::Answer("302 Found", vec![("Location", "http://127.0.0.1:1/".into())], String::new());
    for (act, says) in [
        (
            status("401 Unauthorized", "{\"error\": {\"message\": \"wrong key: secret-key\"}}"),
            "(wrong key: [key]): name the variable",
        ),
        (status("404 Not Found", "{\"detail\": \"no model m\"}"), "(no model m): check the address"),
        (redirect, "answers 302 Found: give the address"),
        (busy("86400"), "it asks to wait 86400 s"),
    ] {
        let (error, asked) = error(vec![act]);
        assert!(matches!(&error, Error::Refused { reason, .. } if reason.contains(says)) && asked == 1, "{error}");
    }
}

#[test]
fn the_wait_that_an_endpoint_asks_for_holds_for_all() {
    let server = Server::start(vec![busy("1"), good()]);
    let endpoint = server.endpoint();
    let began = Instant::now();
    ask(&endpoint).unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());

    // As a date, and for another request than the one that was refused.
    let in_two_seconds = std::time::SystemTime::now() + Duration::from_secs(3);
    let server = Server::start(vec![busy(&httpdate::fmt_http_date(in_two_seconds)), good()]);
    let endpoint = Endpoint::new(server.settings().with_attempts(1), None).unwrap();
    assert!(matches!(ask(&endpoint), Err(Error::Unanswered { .. })));
    let began = Instant::now();
    ask(&endpoint).unwrap();
    assert!(began.elapsed() >= Duration::from_millis(1000), "{:?}", began.elapsed());
}

#[test]
fn an_endpoint_that_says_nothing_is_given_up() {
    let server = Server::start(vec![Act::Silent]);
    let endpoint = Endpoint::new(server.settings().with_timeout(Duration::from_millis(300)), None).unwrap();
    let began = Instant::now();
    let message = ask(&endpoint).unwrap_err().to_string();
    assert!(message.contains("no whole answer within 0.3 s") && began.elapsed() < Duration::from_secs(10), "{message}");

    // Nobody listens there.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = EndpointSettings::new(format!("http://127.0.0.1:{port}"), "m");
    let endpoint = Endpoint::new(settings.with_attempts(2).with_first_wait(Duration::from_millis(5)), None).unwrap();
    assert!(matches!(ask(&endpoint), Err(Error::Unanswered { reason, .. }) if reason.ends_with("; 2 attempts")));
}

#[test]
fn a_wait_ends_when_the_caller_says_so() {
    let server = Server::start(vec![busy("600")]);
    let (endpoint, stop) = (server.endpoint(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| endpoint.chat(&Map::new(), &stop));
        std::thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::SeqCst);
        assert!(matches!(asked.join().unwrap(), Err(Error::Stopped { .. })));
    });
}
