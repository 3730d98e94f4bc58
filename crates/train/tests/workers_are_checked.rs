//! What workers say is checked before anything is learned from it: whose policy drew it, how old that is, and whether it is what was
//! asked for.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use minke_train::{Bases, Error, RunConfig, Silent, execute_with};
use minke_weights::{PolicyVersion, publication};
use serde_json::{Value, json};
use support::{HEAD, TASKS, device, metric};

/// What a worker answers to its request of this number, with the version that it serves.
type Says = fn(usize, PolicyVersion) -> Value;

struct Worker {
    port: u16,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Worker {
    /// A worker that always has the version that is published in a folder.
    fn start(policy: PathBuf, says: Says) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, policy) = (Arc::clone(&seen), policy.clone());
                std::thread::spawn(move || serve(stream, &policy, says, &seen));
            }
        });
        Self { port, asked }
    }

    fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn serve(mut stream: TcpStream, policy: &Path, says: Says, seen: &Mutex<Vec<Value>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).ok()?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse().ok()?,
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let version = publication::current_version(policy).unwrap();
    let said = if first.starts_with("GET /v1/models ") {
        match version {
            Some(version) => json!({ "data": [{ "id": "policy", "policy_version": version }] }),
            None => json!({ "data": [] }),
        }
    } else {
        assert!(first.starts_with("POST /v1/completions "), "{first}");
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.push(serde_json::from_slice(&body).ok()?);
            seen.len() - 1
        };
        says(number, version.unwrap())
    };
    let body = said.to_string();
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n";
    stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).ok()
}

/// The end of the sentence, in the vocabulary of these runs.
const END: u32 = 1;

fn answer(token_ids: &[u32], log_prob: f64, finish: &str, version: PolicyVersion) -> Value {
    let log_probs = vec![log_prob; token_ids.len()];
    let logprobs = json!({ "token_logprobs": log_probs });
    json!({ "choices": [{ "token_ids": token_ids, "logprobs": logprobs, "finish_reason": finish, "policy_version": version }] })
}

/// Two tokens that are as likely as the worker says: some of them more than the policy finds them, and some less.
fn good(number: usize, version: PolicyVersion) -> Value {
    answer(&[40 + number as u32 % 9, END], [-0.1, -20.0][number % 2], "stop", version)
}

fn run(port: u16, more: &str) -> RunConfig {
    let stages = format!(
        "[[stage]]\nkind = \"pretrain\"\nname = \"base\"\nsteps = 1\ntraining = {{ batch_tokens = 256 }}\n\
         [[stage]]\nkind = \"grpo\"\nname = \"zero\"\nfrom = \"base\"\nsteps = 3\nquestions_per_step = 2\ngroup_size = 2\n\
         max_tokens = [[0, 8]]\nkl_beta = 0.1\nlearning_rate = {{ adamw = 1e-3 }}\n\
         [stage.workers]\nurls = [\"http://127.0.0.1:{port}\"]\nrequests = 2\nattempts = 3\n{more}"
    );
    RunConfig::from_toml(&format!("{HEAD}{TASKS}{stages}")).unwrap()
}

fn policy(out: &Path) -> PathBuf {
    out.join("stages/zero/policy")
}

fn execute(config: &RunConfig, out: &Path) -> Result<(), Error> {
    execute_with(config, &Bases::default(), out, &device(), None, &mut Silent)
}

fn timings(out: &Path, name: &str) -> f64 {
    let text = std::fs::read_to_string(out.join("stages/zero/timings.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()[name].as_f64().unwrap()).sum()
}

#[test]
fn what_is_asked_is_the_distribution_of_the_policy() {
    let folder = tempfile::tempdir().unwrap();
    let worker = Worker::start(policy(folder.path()), good);
    execute(&run(worker.port, ""), folder.path()).unwrap();
    let asked = worker.asked.lock().unwrap();
    assert_eq!(asked.len(), 12);
    let mut seeds: Vec<i64> = asked.iter().map(|request| request["seed"].as_i64().unwrap()).collect();
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), 12, "two rollouts have the same seed");
    for request in asked.iter() {
        // Whatever a model's makers advise.
        for (field, value) in [
            ("model", json!("policy")),
            ("max_tokens", json!(8)),
            ("temperature", json!(1.0)),
            ("top_p", json!(1.0)),
            ("top_k", json!(-1)),
            ("min_p", json!(0.0)),
            ("repetition_penalty", json!(1.0)),
            ("stream", json!(false)),
            ("logprobs", json!(0)),
            ("return_token_ids", json!(true)),
        ] {
            assert_eq!(request[field], value, "{field}");
        }
        assert!(request["prompt"].as_array().unwrap().len() > 3);
    }
    // Of a vocabulary of 320, a token that the worker calls likely is not, and one that it calls unlikely is much likelier.
    let cut = metric(folder.path(), "zero", "sampling/importance_sampling_ratio/truncated");
    let max = metric(folder.path(), "zero", "sampling/importance_sampling_ratio/max");
    assert!(cut.iter().all(|share| *share > 0.0 && *share < 1.0), "{cut:?}");
    assert!(max.iter().all(|ratio| *ratio > 100.0), "{max:?}");
}

#[test]
fn rollouts_that_are_too_old_are_asked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    // Every fourth answer comes from a policy two versions ago, or from that of another run.
    let worker = Worker::start(policy(folder.path()), |number, version| {
        let PolicyVersion { run, number: current } = version;
        match number % 8 {
            3 => good(number, PolicyVersion { run, number: current.saturating_sub(2) }),
            7 => good(number, PolicyVersion { run: run ^ 1, number: current }),
            _ => good(number, version),
        }
    });
    execute(&run(worker.port, "max_staleness = 0\n"), folder.path()).unwrap();
    let stale = timings(folder.path(), "sampling/stale_rollouts");
    assert_eq!(worker.count() as f64, 12.0 + stale);
    assert!(stale >= 2.0, "{stale}");
    assert_eq!(metric(folder.path(), "zero", "sampling/staleness/max"), [0.0, 0.0, 0.0]);

    // A worker that never has anything else ends the stage.
    let folder = tempfile::tempdir().unwrap();
    let of_another = |number, version: PolicyVersion| good(number, PolicyVersion { run: version.run ^ 1, ..version });
    let worker = Worker::start(policy(folder.path()), of_another);
    let message = execute(&run(worker.port, ""), folder.path()).unwrap_err().to_string();
    assert!(message.contains("the answer is of policy ") && message.contains("is the oldest that may be"), "{message}");
    assert!(!message.contains('\n') && worker.count() <= 12, "{message}");
}

#[test]
fn answers_that_are_no_rollouts_are_named() {
    for (says, reason) in [
        ((|_, version| answer(&[7, 9999], -1.0, "length", version)) as Says, "has token 9999 of a vocabulary of 320"),
        (|_, version| answer(&[7, END], 0.5, "stop", version), "has 0.5 as a log-probability"),
        (|_, version| answer(&[7, 8], -1.0, "stop", version), "ends with stop at token Some(8)"),
        (|_, version| answer(&[7; 9], -1.0, "length", version), "the 9th of at most 8"),
        (|_, version| answer(&[], -1.0, "length", version), "ends with length at token None"),
        (|_, version| answer(&[7, END], -1.0, "abort", version), "ends with abort"),
        (|_, _| json!({ "choices": [{ "text": "a" }] }), "has no token_ids"),
        (
            |_, _| json!({ "choices": [{ "token_ids": [7, END], "logprobs": { "token_logprobs": [-1, -1] }, "finish_reason": "stop" }] }),
            "does not say which policy gave it",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let worker = Worker::start(policy(folder.path()), says);
        let message = execute(&run(worker.port, ""), folder.path()).unwrap_err().to_string();
        assert!(message.contains(reason) && !message.contains('\n'), "{reason:?}: {message}");
        assert!(message.starts_with(&format!("stage zero: http://127.0.0.1:{}/v1", worker.port)), "{message}");
        let answers = std::fs::read_to_string(folder.path().join("stages/zero/answers.jsonl")).unwrap();
        assert_eq!(answers.lines().count(), 1, "something was kept: {answers}");
    }
}

#[test]
fn a_server_without_a_policy_is_no_worker() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let body = json!({ "data": [{ "id": "another" }] }).to_string();
            let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n";
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
        }
    });
    let message = execute(&run(port, ""), folder.path()).unwrap_err().to_string();
    assert!(message.contains("start it with minke serve --watch FOLDER") && !message.contains('\n'), "{message}");
}
