//! A run is watched over HTTP while it goes on, and goes on whatever becomes of that.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{Done, RUN, command, minke};
use serde_json::Value;

/// A run that would take minutes, so that it certainly goes on while it is watched.
const LONG: &str = r#"
[[stage]]
kind = "grpo"
name = "zero"
from = "base"
steps = 100000
questions_per_step = 2
group_size = 4
max_tokens = [[0, 12]]
learning_rate = { adamw = 0.0005 }
"#;

/// A program that is ended with the test.
struct Running {
    child: Child,
    url: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// Starts the program, and waits until it says where the dashboard is.
    fn start(folder: &Path, args: &[&str]) -> Self {
        let mut command = command(folder, args);
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines.by_ref().map(Result::unwrap).find(|line| line.contains("dashboard")).unwrap();
        let url = line.split_whitespace().find(|word| word.starts_with("http://")).expect(&line);
        let address = url.trim_end_matches([';', '/']).trim_start_matches("http://").trim_end_matches('/').to_owned();
        // What comes later is taken, so that the program never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url: address }
    }

    fn send(&self, path: &str, host: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.url).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), format!("{head}\n\n{body}"))
    }

    fn get(&self, path: &str) -> Value {
        let (status, text) = self.send(path, &self.url);
        let body = text.split_once("\n\n").unwrap().1;
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
    }

    /// Waits until a document is as it should be.
    fn until(&self, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let value = self.get(path);
            if holds(&value) {
                return value;
            }
            assert!(begun.elapsed() < Duration::from_secs(120), "{path} stays {value}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn write_run(folder: &Path, more: &str) {
    let base = RUN.split("[[stage]]").take(2).collect::<Vec<_>>().join("[[stage]]");
    std::fs::write(folder.join("run.toml"), format!("{base}{more}")).unwrap();
}

#[test]
fn series_and_rollouts_are_read_while_the_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    write_run(folder.path(), LONG);
    let run = Running::start(
        folder.path(),
        &["train", "run.toml", "--out", "out", "--threads", "1", "--dashboard", "127.0.0.1:0"],
    );
    let reading = run.until("/api/run", |run| run["stages"][1]["metrics"].as_u64() >= Some(3));
    assert_eq!(
        (reading["stages"][0]["state"].as_str(), reading["stages"][1]["state"].as_str()),
        (Some("finished"), Some("running"))
    );
    assert_eq!(reading["stages"][1]["total"], 100_000);

    // What is served is what the file says, and more comes by itself.
    let series = run.get("/api/series?stage=zero");
    let text = std::fs::read_to_string(folder.path().join("out/stages/zero/metrics.jsonl")).unwrap();
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let columns = series["metrics"]["columns"].as_array().unwrap();
    let loss = columns.iter().find(|column| column[0] == "grad_norm").unwrap();
    assert_eq!(loss[1][0].as_f64().unwrap() as f32, first["grad_norm"].as_f64().unwrap() as f32);
    let (to, generation) = (series["metrics"]["to"].as_u64().unwrap(), series["generation"].as_u64().unwrap());
    let next = format!("/api/series?stage=zero&generation={generation}&metrics={to}");
    let later = run.until(&next, |series| series["metrics"]["steps"].as_array().is_some_and(|steps| !steps.is_empty()));
    assert_eq!(later["metrics"]["steps"][0].as_u64(), Some(to));

    let found = run.get("/api/rollouts?stage=zero&step=1");
    assert_eq!(found["found"].as_array().unwrap().len(), 2);
    assert!(found["found"].as_array().unwrap().iter().all(|group| group["step"] == 1));
    let number = found["found"][0]["group"].as_u64().unwrap();
    let group = run.get(&format!("/api/group?stage=zero&group={number}"));
    assert_eq!(group["record"]["rollouts"].as_array().unwrap().len(), 4);
    assert_eq!(group["record"]["id"], found["found"][0]["problem"]);
    let problem = found["found"][0]["problem"].as_str().unwrap();
    assert_eq!(
        run.get(&format!("/api/rollouts?stage=zero&problem={problem}&order=oldest"))["found"][0]["problem"],
        problem
    );

    // Names lead nowhere else, and other names of the server are not answered.
    for (path, status) in [
        ("/api/series?stage=..%2Fbase", 404),
        ("/api/series?stage=zero%2F..%2Fbase", 404),
        ("/api/series", 400),
        ("/api/rollouts?stage=zero&step=-1", 400),
        ("/api/rollouts?stage=zero&verdict=maybe", 400),
        ("/api/group?stage=zero&group=99999999", 404),
        ("/api/other", 404),
        ("/..%2Frun.json", 404),
        ("/index.html", 404),
        ("/v1/models", 404),
    ] {
        assert_eq!(run.send(path, &run.url).0, status, "{path}");
    }
    assert_eq!(run.send("/api/run", "evil.example.org").0, 403);
    let (status, page) = run.send("/", &run.url);
    assert!(
        status == 200 && page.contains("content-security-policy") && page.contains("trusted-types 'none'"),
        "{page}"
    );
}

#[test]
fn events_come_within_two_seconds_of_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let stage = out.join("stages/zero");
    std::fs::create_dir_all(&stage).unwrap();
    let record = serde_json::json!({ "name": "by hand", "config": { "stage": [{ "kind": "grpo", "name": "zero", "steps": 9 }, { "kind": "sft", "name": "../zero" }] } });
    std::fs::write(out.join("run.json"), record.to_string()).unwrap();
    std::fs::write(stage.join("metrics.jsonl"), "{\"step\":0,\"reward\":0.5}\n{\"step\":1,\"rew").unwrap();
    let run = Running::start(folder.path(), &["report", "out", "--live", "0"]);
    let reading = run.until("/api/run", |run| run["stages"][0]["metrics"] == 1);
    // A name that leads elsewhere is no stage.
    assert_eq!(reading["stages"].as_array().unwrap().len(), 1);

    let mut stream = TcpStream::connect(&run.url).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET /api/events HTTP/1.1\r\nhost: {}\r\n\r\n", run.url).unwrap();
    let mut events = BufReader::new(stream).lines().map(Result::unwrap).filter(|line| line.starts_with("data: "));
    events.next().unwrap();
    let append = |text: &str| {
        let mut file = std::fs::File::options().append(true).open(stage.join("metrics.jsonl")).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    let mut slowest = Duration::ZERO;
    append("ard\":0.75}\n");
    for step in 2..8 {
        let begun = Instant::now();
        events.next().unwrap();
        slowest = slowest.max(begun.elapsed());
        append(&format!("{{\"step\":{step},\"reward\":0.25}}\n"));
    }
    println!("slowest event: {} ms", slowest.as_millis());
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    append("not a line\n");
    let reading = run.until("/api/run", |run| run["stages"][0]["broken"][0].is_string());
    let broken = "metrics.jsonl: lines that are damaged and left out: 1, the first is line 9";
    assert_eq!(reading["stages"][0]["broken"][0], broken);
    assert_eq!(run.get("/api/series?stage=zero")["metrics"]["steps"], serde_json::json!([0, 1, 2, 3, 4, 5, 6, 7]));
}

#[test]
fn a_dashboard_that_cannot_be_had_is_one_line_and_the_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write_run(at, "");
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().to_string();
    for (out, address, reason) in
        [("a", port.as_str(), "the port is in use; give another address"), ("b", "192.0.2.1:80", "take 127.0.0.1")]
    {
        let done = minke(at, &["train", "run.toml", "--out", out, "--dashboard", address]);
        let lines: Vec<&str> = done.err.lines().filter(|line| line.contains("no dashboard")).collect();
        assert!(done.code == 0 && lines.len() == 1 && lines[0].contains(reason), "{done:?}");
        assert!(lines[0].contains("the run goes on without it"), "{done:?}");
        assert!(at.join(out).join("stages/base/done.json").is_file());
    }
    let done: Done = minke(at, &["report", "a", "--live", &port]);
    assert!(
        done.code != 0
            && done.err.contains("the port is in use; give another address")
            && done.err.lines().count() == 1,
        "{done:?}"
    );
    let done = minke(at, &["train", "--dashboard", "run.toml"]);
    assert!(done.code == 2 && done.err.contains("put the flag at the end"), "{done:?}");
}

#[test]
fn what_a_run_writes_is_the_same_whether_it_is_watched_or_not() {
    let folder = tempfile::tempdir().unwrap();
    write_run(folder.path(), &LONG.replace("100000", "3"));
    for (out, more) in [("plain", &[][..]), ("watched", &["--dashboard", "0"][..])] {
        let args = [&["train", "run.toml", "--out", out], more].concat();
        assert_eq!(minke(folder.path(), &args).code, 0);
    }
    for file in ["base/metrics.jsonl", "zero/metrics.jsonl", "zero/rollouts.jsonl"] {
        let read = |out: &str| std::fs::read(folder.path().join(out).join("stages").join(file)).unwrap();
        assert!(read("plain") == read("watched"), "{file}");
    }
}
