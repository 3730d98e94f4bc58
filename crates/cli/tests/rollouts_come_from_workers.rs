//! `minke serve --watch` on one side, `minke train` on the other: rollouts of other processes teach as those of one's own, a worker that
//! is killed takes its requests with it and nothing else, and what was drawn is never drawn again.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::{Done, Serving, command, minke};
use serde_json::Value;

/// A stage of GRPO from the model of the repository, with these lines more.
fn run_toml(more: &str) -> String {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/first-light");
    let model = fs::canonicalize(model).unwrap();
    format!(
        "name = \"run\"\nseed = 4\n[[task]]\nname = \"countdown\"\nfamily = \"countdown\"\n\
         [[stage]]\nkind = \"grpo\"\nname = \"zero\"\nfrom = \"{}\"\nsteps = 5\nquestions_per_step = 4\ngroup_size = 4\n\
         max_tokens = [[0, 64]]\nlearning_rate = {{ adamw = 1e-4 }}\ncheckpoint_every = 2\nminibatches = 2\n\
         engine = {{ max_sequences = 16, cache_tokens = 4096 }}\n{more}",
        model.display()
    )
}

fn workers(urls: &[&str], more: &str) -> String {
    format!("[stage.workers]\nurls = {urls:?}\nrequests = 3\n{more}")
}

fn train(at: &Path, out: &str) -> Done {
    minke(at, &["train", "run.toml", "--out", out, "--threads", "1"])
}

fn stage(at: &Path, out: &str) -> PathBuf {
    at.join(out).join("stages/zero")
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn column(at: &Path, out: &str, file: &str, name: &str) -> Vec<f64> {
    lines(&stage(at, out).join(file)).iter().map(|line| line[name].as_f64().unwrap()).collect()
}

/// A worker that watches what the stage of a run publishes, wherever that is by then.
fn watching(at: &Path, out: &str) -> Serving {
    Serving::with(at, &["--watch", stage(at, out).join("policy").to_str().unwrap()])
}

#[test]
fn rollouts_of_a_worker_teach_as_those_of_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("run.toml"), run_toml("")).unwrap();
    let own = train(at, "own");
    assert_eq!(own.code, 0, "{own:?}");
    let worker = watching(at, "other");
    // No older policy than the one that learns: the draws are those of the run itself.
    fs::write(at.join("run.toml"), run_toml(&workers(&[&worker.1], "max_staleness = 0\n"))).unwrap();
    let other = train(at, "other");
    assert_eq!(other.code, 0, "{other:?}");

    let read = |out: &str, file: &str| fs::read(stage(at, out).join(file)).unwrap();
    for file in ["rollouts.jsonl", "model/model.safetensors"] {
        assert_eq!(read("own", file), read("other", file), "{file}");
    }
    let (ours, theirs) =
        (lines(&stage(at, "own").join("metrics.jsonl")), lines(&stage(at, "other").join("metrics.jsonl")));
    for (own, other) in ours.iter().zip(&theirs) {
        // The entropy is that of the samples that are learned from.
        let names = own.as_object().unwrap().keys().filter(|name| *name != "entropy");
        names.for_each(|name| assert_eq!(own[name], other[name], "{name}"));
    }
    assert!(ours.iter().any(|line| line["learned"].as_u64().unwrap() > 0), "nothing was learned: {ours:?}");
    for (name, value) in [
        ("sampling/staleness/max", 0.0),
        ("sampling/importance_sampling_ratio/mean", 1.0),
        ("sampling/importance_sampling_ratio/max", 1.0),
        ("sampling/importance_sampling_ratio/truncated", 0.0),
    ] {
        for line in theirs.iter().filter(|line| line["learned"].as_u64().unwrap() > 0) {
            assert_eq!(line[name], value, "{name}: {line}");
        }
    }
    let drawn = column(at, "other", "timings.jsonl", "sampling/worker_0/rollouts");
    assert_eq!(drawn, [16.0; 5]);

    // The worker says which policy it serves, everywhere.
    let version = format!("{}", fs::read_dir(stage(at, "other").join("policy")).unwrap().count());
    assert_eq!(version, "3", "two versions and the file that names one");
    let get = |path: &str| String::from_utf8(http(&worker.1, "GET", path, "").1).unwrap();
    let ready: Value = serde_json::from_str(&get("/ready")).unwrap();
    let version = ready["policy_version"].as_str().unwrap().to_owned();
    assert!(version.ends_with("-4"), "{version}");
    let models: Value = serde_json::from_str(&get("/v1/models")).unwrap();
    assert_eq!(
        (&models["data"][0]["id"], &models["data"][0]["policy_version"]),
        (&"policy".into(), &version.as_str().into())
    );
    let (run, number) = version.split_once('-').unwrap();
    assert!(get("/metrics").contains(&format!("minke_policy_version{{run=\"{run}\"}} {number}\n")));
    let asked = r#"{"prompt": [0, 5, 6], "max_tokens": 3, "return_token_ids": true, "n": 2}"#;
    let (head, body) = http(&worker.1, "POST", "/v1/completions", asked);
    assert!(head.contains(&format!("x-minke-policy-version: {version}\r\n")), "{head}");
    let body: Value = serde_json::from_slice(&body).unwrap();
    for choice in body["choices"].as_array().unwrap() {
        assert_eq!(
            (&choice["policy_version"], &choice["prompt_token_ids"]),
            (&version.as_str().into(), &serde_json::json!([0, 5, 6]))
        );
        assert!((1..=3).contains(&choice["token_ids"].as_array().unwrap().len()) && choice["logprobs"].is_null());
    }
    let (_, body) = http(
        &worker.1,
        "POST",
        "/v1/chat/completions",
        r#"{"messages": [{"role": "user", "content": "a"}], "max_tokens": 2, "stream": true}"#,
    );
    let last = format!("\"policy_version\":\"{version}\"");
    assert_eq!(String::from_utf8(body).unwrap().matches(&last).count(), 1);
    let (head, body) =
        http(&worker.1, "POST", "/v1/completions", r#"{"prompt": [0], "stream": true, "return_token_ids": true}"#);
    assert!(head.starts_with("HTTP/1.1 400") && String::from_utf8(body).unwrap().contains("ask for the whole answer"));
}

#[test]
fn a_worker_that_is_killed_takes_its_requests_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let (mut first, second) = (watching(at, "out"), watching(at, "out"));
    let toml = run_toml(&workers(&[&first.1, &second.1], "")).replace("steps = 5", "steps = 12");
    fs::write(at.join("run.toml"), &toml).unwrap();
    let arguments = ["train", "run.toml", "--out", "out", "--threads", "1"];
    let mut child = command(at, &arguments).stderr(Stdio::piped()).spawn().unwrap();
    let has_drawn = || {
        let timings = lines(&stage(at, "out").join("timings.jsonl"));
        timings.len() >= 2 && timings.iter().any(|line| line["sampling/worker_0/rollouts"].as_u64() > Some(0))
    };
    while !has_drawn() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended too early");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    first.kill();
    let done = Done::of(child.wait_with_output().unwrap());
    assert_eq!(done.code, 0, "{done:?}");
    // Whether it had requests at that moment is chance.
    let said = ["requests were lost with their workers, and asked of others", "a worker is not there"];
    assert!(said.iter().any(|said| done.err.contains(said)), "{done:?}");
    let rollouts = |worker: usize| column(at, "out", "timings.jsonl", &format!("sampling/worker_{worker}/rollouts"));
    assert_eq!(rollouts(0).iter().sum::<f64>() + rollouts(1).iter().sum::<f64>(), 12.0 * 16.0);
    assert!(rollouts(0).last() == Some(&0.0) && rollouts(1).last() == Some(&16.0), "{:?}", rollouts(0));
    let staleness = column(at, "out", "metrics.jsonl", "sampling/staleness/max");
    assert!(staleness[0] == 0.0 && staleness.iter().all(|steps| *steps <= 1.0), "{staleness:?}");
    assert!(staleness.contains(&1.0), "no rollouts were asked for while a step was trained: {staleness:?}");
    // Weights that moved by a step: ratios that are not 1, and no more than the cap in what is learned.
    let ratios = column(at, "out", "metrics.jsonl", "sampling/importance_sampling_ratio/max");
    assert!(ratios.iter().any(|ratio| *ratio > 1.0), "{ratios:?}");

    // The answers are what the run goes on from: without any worker, from the first step, the same bytes.
    let determined = |out: &str| {
        ["metrics.jsonl", "rollouts.jsonl", "answers.jsonl", "model/model.safetensors"]
            .map(|file| fs::read(stage(at, out).join(file)).unwrap())
    };
    let before = determined("out");
    drop(second);
    fs::create_dir_all(stage(at, "again")).unwrap();
    fs::copy(stage(at, "out").join("answers.jsonl"), stage(at, "again").join("answers.jsonl")).unwrap();
    let again = train(at, "again");
    assert_eq!(again.code, 0, "{again:?}");
    assert!(determined("again") == before, "a run that reads what was drawn is another run");
    assert!(!stage(at, "again").join("policy").exists(), "nobody was asked, and a policy was published");

    // With a step more to draw, and nobody to draw it.
    fs::write(at.join("run.toml"), run_toml(&workers(&[&first.1], "attempts = 1\n"))).unwrap();
    let alone = train(at, "alone");
    let last = alone.err.trim_end().lines().last().unwrap_or_default();
    assert!(
        alone.code == 5 && last.contains("stage zero: http://127.0.0.1:") && last.contains("answers so far are kept"),
        "{alone:?}"
    );
}

#[test]
fn a_trainer_that_is_killed_goes_on_with_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let worker = watching(at, "out");
    fs::write(at.join("run.toml"), run_toml(&workers(&[&worker.1], "")).replace("steps = 5", "steps = 7")).unwrap();
    let metrics = stage(at, "out").join("metrics.jsonl");
    // Behind a checkpoint, with steps that were done and not saved.
    let mut child =
        command(at, &["train", "run.toml", "--out", "out", "--threads", "1"]).stderr(Stdio::null()).spawn().unwrap();
    while lines(&metrics).len() < 4 {
        assert!(child.try_wait().unwrap().is_none(), "the run ended too early");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let whole = |text: String| text[..text.rfind('\n').map_or(0, |end| end + 1)].to_owned();
    let before = whole(fs::read_to_string(&metrics).unwrap());
    let done = train(at, "out");
    assert!(done.code == 0 && done.err.contains("goes on after step"), "{done:?}");
    let after = fs::read_to_string(&metrics).unwrap();
    assert!(after.starts_with(&before) && after.lines().count() == 7, "{before}\n{after}");
    let answers = lines(&stage(at, "out").join("answers.jsonl"));
    let mut places: Vec<(u64, u64)> =
        answers[1..].iter().map(|row| (row["cursor"].as_u64().unwrap(), row["question"].as_u64().unwrap())).collect();
    places.sort_unstable();
    assert_eq!(places, (0..7).flat_map(|cursor| (0..4).map(move |question| (cursor, question))).collect::<Vec<_>>());
}

#[test]
fn an_adapter_is_published_alone() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let worker = watching(at, "out");
    let lora = "lora = { rank = 4, target_modules = [\"q_b_proj\", \"kv_b_proj\", \"o_proj\"] }\n";
    fs::write(at.join("run.toml"), run_toml(&format!("{lora}{}", workers(&[&worker.1], "max_staleness = 0\n"))))
        .unwrap();
    let done = train(at, "out");
    assert_eq!(done.code, 0, "{done:?}");
    let published: Vec<PathBuf> = fs::read_dir(stage(at, "out").join("policy"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    assert_eq!(published.len(), 2);
    assert!(
        published
            .iter()
            .all(|path| path.join("adapter_model.safetensors").exists() && !path.join("model.safetensors").exists())
    );
    let ratios = column(at, "out", "metrics.jsonl", "sampling/importance_sampling_ratio/max");
    let learned = column(at, "out", "metrics.jsonl", "learned");
    assert!(
        ratios.iter().zip(&learned).all(|(ratio, learned)| *learned == 0.0 || (ratio - 1.0).abs() < 1e-3),
        "{ratios:?}"
    );

    for (arguments, says) in [
        (vec!["--watch", "policy", "--adapter", "a"], "cannot be used with"),
        (vec!["--watch", "policy", "--disk-cache", "d"], "--watch changes it; leave one out"),
    ] {
        let done = minke(at, &[&["serve"][..], &arguments].concat());
        assert!(done.code == 2 && done.err.contains(says), "{done:?}");
    }
}

/// The head and the body of an answer.
fn http(url: &str, method: &str, path: &str, body: &str) -> (String, Vec<u8>) {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    stream.write_all(format!("{head}Content-Type: application/json\r\n\r\n{body}").as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    (String::from_utf8(bytes[..end].to_vec()).unwrap(), bytes[end..].to_vec())
}
