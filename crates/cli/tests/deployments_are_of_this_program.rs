//! What `deploy/` says to clusters is what the program takes: flags, variables, ports, addresses of probes, times.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{Done, Serving, command, minke};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All files below a folder of `deploy/`, with their text.
fn files(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("deploy").join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push((path.clone(), fs::read_to_string(path).unwrap())),
            }
        }
    }
    assert!(!found.is_empty());
    found
}

/// What stands behind a key of YAML, on the line or in a flow mapping.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let parts = text.split(key).skip(1);
    parts.map(|rest| rest.split(['\n', ',', '}']).next().unwrap().trim()).collect()
}

/// The words of the commands in a manifest: each `args` is a list of JSON on a line.
fn commands_of_manifest(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("args: "));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The same of a script; a command ends with its line, or goes on behind a backslash.
fn commands_of_script(text: &str) -> Vec<Vec<String>> {
    let text = text.replace("\\\n", " ");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once("minke ").filter(|(before, _)| !before.ends_with('/')))
        .map(|(_, rest)| rest.split_whitespace().map(str::to_owned).collect())
        .collect()
}

#[test]
fn every_flag_exists() {
    let manifests = files("kubernetes").into_iter().map(|(path, text)| (path, commands_of_manifest(&text)));
    let scripts = files("slurm").into_iter().map(|(path, text)| (path, commands_of_script(&text)));
    let mut verbs = BTreeSet::new();
    for (path, commands) in manifests.chain(scripts) {
        for words in commands {
            let help = minke(Path::new("."), &[&words[0], "--help"]);
            assert_eq!(help.code, 0, "{}: minke {}", path.display(), words[0]);
            let flags: Vec<&str> = help.out.split(|c: char| c.is_whitespace() || c == ',').collect();
            for flag in words.iter().filter(|word| word.starts_with("--")) {
                assert!(flags.contains(&flag.as_str()), "{}: minke {} {flag}", path.display(), words[0]);
            }
            verbs.insert(words[0].clone());
        }
    }
    assert_eq!(verbs.iter().map(String::as_str).collect::<Vec<_>>(), ["eval", "serve", "train"]);
}

#[test]
fn every_variable_is_read() {
    let known = include_str!("../src/environment.rs");
    for (path, text) in files("") {
        for rest in text.split("MINKE_").skip(1) {
            let name = rest.split(|c: char| !(c.is_ascii_uppercase() || c == '_')).next().unwrap();
            assert!(known.contains(&format!("\"MINKE_{name}\"")), "{}: MINKE_{name}", path.display());
        }
    }
}

#[test]
fn probes_ask_for_what_a_server_answers() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("keys"), "a-key-of-the-test\n").unwrap();
    let text = fs::read_to_string(root().join("deploy/kubernetes/serve/deployment.yaml")).unwrap();
    let mut words = commands_of_manifest(&text).remove(0);
    let model = fs::canonicalize(root().join("models/first-light")).unwrap();
    // The test has another model and file of keys, and no network.
    for (theirs, ours) in
        [("/models/model.gguf", model.to_str().unwrap()), ("/keys/keys", "keys"), ("0.0.0.0", "127.0.0.1")]
    {
        *words.iter_mut().find(|word| *word == theirs).unwrap() = ours.into();
    }
    let server = Serving::with(at, &words[1..].iter().map(String::as_str).collect::<Vec<_>>());
    let paths = values(&text, "httpGet: {path: ");
    assert_eq!(paths, ["/ready", "/ready", "/health"]);
    let ask = |path: &str| {
        let address = server.1.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let begun = Instant::now();
    for path in paths {
        // As a probe does, which asks again while the model is loaded.
        let mut answer = ask(path);
        while answer.starts_with("HTTP/1.1 503 ") && begun.elapsed() < Duration::from_secs(60) {
            sleep(Duration::from_millis(20));
            answer = ask(path);
        }
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    }
}

#[test]
fn ports_and_times_agree() {
    let help = minke(Path::new("."), &["serve", "--help"]).out;
    let mut ports = 0;
    for (path, text) in files("kubernetes") {
        for port in values(&text, "containerPort: ").into_iter().chain(values(&text, "prometheus.io/port: ")) {
            let port = port.trim_matches('"');
            assert!(
                help.contains(&format!("Port to listen on, 0 for one that is free [default: {port}]")),
                "{}",
                path.display()
            );
            ports += 1;
        }
        // A Service called minke must not set MINKE_PORT; the server ignores it, and others may have one of their own.
        if text.contains("containers:") {
            assert!(text.contains("enableServiceLinks: false"), "{}", path.display());
        }
    }
    assert_eq!(ports, 3);
    let text = fs::read_to_string(root().join("deploy/kubernetes/serve/deployment.yaml")).unwrap();
    let number = |text: &str| text.trim_matches(['"', ']', '}', ' ']).parse::<u64>().unwrap();
    let all = number(values(&text, "terminationGracePeriodSeconds: ")[0]);
    let grace = number(values(&text, "MINKE_GRACE_SECONDS, value: ")[0]);
    let sleep = number(values(&text, "command: [sleep, ")[0]);
    assert!(all > sleep + grace + 1, "{all} seconds are not enough for {sleep} and {grace}");
}

#[test]
fn the_address_of_a_service_is_no_port() {
    let folder = tempfile::tempdir().unwrap();
    let shown = |value: &str| {
        let args = ["config", "show", "--origin"];
        Done::of(command(folder.path(), &args).env("MINKE_PORT", value).output().unwrap())
    };
    let done = shown("tcp://10.43.0.1:80");
    assert!(done.code == 0 && done.out.contains("port = 8080"), "{done:?}");
    assert!(shown("81").out.contains("port = 81"));
    assert_eq!(shown("10.43.0.1:80").code, 2);
}
