//! `minke serve` on one side, `minke train` on the other: a served model's answers are kept, and a student learns from them.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Done, Serving, command};
use serde_json::Value;

const KEY: &str = "key-of-a-teacher";

/// A run whose teacher is at an address; without a student there is no model in it at all.
fn run(url: &str, student: bool) -> String {
    let (model, stage) = match student {
        true => (
            "[model]\nmodel_type = \"llama\"\nhidden_size = 32\nnum_hidden_layers = 1\nnum_attention_heads = 2\n\
             intermediate_size = 64\nmax_position_embeddings = 1024\n[tokenizer]\nvocab_size = 400\ndocuments = 200\n",
            "[[stage]]\nkind = \"pretrain\"\nname = \"base\"\nsteps = 3\ntraining = { batch_tokens = 1024, mtp_weight = 0.0 }\n\
             [[stage]]\nkind = \"distill\"\nname = \"student\"\nfrom = \"base\"\ndata = \"kept\"\nepochs = 10\n\
             training = { batch_tokens = 1024, mtp_weight = 0.0 }\n",
        ),
        false => ("", ""),
    };
    format!(
        "name = \"taught\"\nseed = 2\n{model}[[task]]\nname = \"countdown\"\nfamily = \"countdown\"\n\
         [[stage]]\nkind = \"reject\"\nname = \"kept\"\nquestions = 12\nsamples = 2\nquestions_per_step = 6\nmax_tokens = 400\n\
         [stage.teacher]\nurl = \"{url}\"\nmodel = \"teacher\"\nkey_env = \"TEACHER_KEY\"\nrequests = 4\nattempts = 2\n{stage}"
    )
}

fn train(folder: &Path, key: Option<&str>) -> Command {
    let mut command = command(folder, &["train", "run.toml", "--threads", "1"]);
    match key {
        Some(key) => command.env("TEACHER_KEY", key),
        None => command.env_remove("TEACHER_KEY"),
    };
    command
}

fn trained(folder: &Path, key: Option<&str>) -> Done {
    Done::of(train(folder, key).output().unwrap())
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn a_student_learns_what_a_served_model_said() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/first-light");
    fs::write(at.join("keys"), format!("{KEY}\n")).unwrap();
    let server = Serving::start(at, model.to_str().unwrap(), &["--key-file", "keys", "--model-name", "teacher"]);
    let kept = at.join("out/taught/stages/kept");
    let one_line = |done: &Done, code: i32, says: &str| {
        let last = done.err.trim_end().lines().last().unwrap_or_default();
        assert!(done.code == code && last.contains(says), "{says:?}: {done:?}");
        assert!(!done.err.contains(KEY) && !done.err.contains("wrong-key"), "{}", done.err);
    };

    fs::write(at.join("run.toml"), run(&server.1, true)).unwrap();
    one_line(&trained(at, None), 4, "stage kept: key_env names TEACHER_KEY, which is not set");
    one_line(&trained(at, Some("wrong-key")), 5, "answers 401 Unauthorized");

    // Ctrl-C among the answers, then the same command.
    let child = train(at, Some(KEY)).stderr(Stdio::piped()).spawn().unwrap();
    while lines(&kept.join("answers.jsonl")).len() < 4 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    one_line(&Done::of(child.wait_with_output().unwrap()), 6, "interrupted in stage kept after step");
    let before = fs::read_to_string(kept.join("answers.jsonl")).unwrap();
    assert!(before.lines().count() < 25);
    let done = trained(at, Some(KEY));
    assert!(done.code == 0 && done.err.contains("kept: goes on after step"), "{done:?}");
    assert!(
        fs::read_to_string(kept.join("answers.jsonl")).unwrap().starts_with(&before),
        "what was kept was asked for again"
    );

    let answers = lines(&kept.join("answers.jsonl"));
    assert_eq!(answers.len(), 25);
    for line in &answers[1..] {
        let text = line["answer"]["completion"].as_str().unwrap();
        let is_right = line["answer"]["verdict"] == "right" && line["answer"]["finish"] == "stop";
        assert!(!is_right || (text.starts_with("<think>\n") && text.contains("\n</think>\n\n")), "{line}");
        assert!(line["answer"]["tokens"].as_u64().unwrap() > 0);
    }
    // The model is right more often than not (README.md), so there is something to learn.
    let data = lines(&kept.join("data.jsonl"));
    assert!(data.len() >= 3, "{} answers were kept", data.len());
    let student = lines(&at.join("out/taught/stages/student/metrics.jsonl"));
    let loss = |line: &Value| line["loss"].as_f64().unwrap();
    assert!(loss(student.last().unwrap()) < loss(&student[0]), "{student:?}");

    // Without any model in the run, elsewhere: the same questions.
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("run.toml"), run(&server.1, false)).unwrap();
    let done = trained(other.path(), Some(KEY));
    assert!(done.code == 0 && done.err.contains("no model is loaded"), "{done:?}");
    let again = lines(&other.path().join("out/taught/stages/kept/data.jsonl"));
    let questions = |data: &[Value]| data.iter().map(|line| line["question"].to_string()).collect::<Vec<_>>();
    // This server obeys seeds, and answers depend on nothing else.
    assert_eq!(questions(&data), questions(&again));
    assert_eq!(data, again);
}
