//! `eval` on problems of files: answers are kept, go on, and are compared.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{RUN, command, minke, scripted, testdata};
use minke_text::{ASSISTANT, EOS};

/// Asks for 24 three times and for something else once.
const PROBLEMS: &str = r#"{"id": "a", "question": "3*8?", "answer": 24}
{"id": "b", "prompt": "12+12?", "answer": "24"}
{"id": "c", "question": "5*5?", "answer": 25}
{"id": "d", "messages": [{"role": "user", "content": "20+4?"}], "answer": "24.0"}
"#;

fn world() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("sums.jsonl"), PROBLEMS).unwrap();
    scripted(folder.path(), "always", &[&[ASSISTANT, "2", "4", EOS]]);
    folder
}

fn read(folder: &Path, file: &str) -> String {
    std::fs::read_to_string(folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn a_model_answers_a_file_and_the_answers_are_kept() {
    let folder = world();
    let at = folder.path();
    let done = minke(at, &["eval", "always", "--task", "sums.jsonl"]);
    let rows: Vec<&str> = done.out.lines().collect();
    assert_eq!((done.code, rows.len()), (0, 2), "{done:?}");
    assert!(
        rows[1].starts_with("always  sums  T=0   4         75.0 [26.0, 124.0]  -       -       3       50.0"),
        "{rows:?}"
    );
    let answers = read(at, "out/always-sums/answers.jsonl");
    let lines: Vec<serde_json::Value> = answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["problems"], &lines[0]["config"]["temperature"]), (5, &4.into(), &0.0.into()));
    let verdicts: Vec<&str> = lines[1..].iter().map(|line| line["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["right", "right", "wrong", "right"]);
    assert_eq!((&lines[1]["text"], &lines[1]["drawn"]["finish"]), (&"24".into(), &"stop".into()));

    // Half of the file is gone: the same command brings it back, byte for byte; complete, it asks nothing again.
    let half: String = answers.split_inclusive('\n').take(3).collect();
    std::fs::write(at.join("out/always-sums/answers.jsonl"), half + "{\"id\":\"c\",\"sam").unwrap();
    let again = minke(at, &["eval", "always", "--task", "sums.jsonl"]);
    assert_eq!((again.code, &again.out), (0, &done.out));
    assert_eq!(read(at, "out/always-sums/answers.jsonl"), answers);
    let whole = minke(at, &["eval", "always", "--task", "sums.jsonl", "--json"]);
    assert!(!whole.err.contains("4/4"), "{whole:?}");
    assert_eq!(whole.json()[0][0]["report"]["pass_at_1"]["mean"], 0.75);
    assert_eq!(whole.json()[0][0]["report"]["constant"], serde_json::json!(["24", 0.5]));

    // The page stands alone, and other tools find what they look for.
    let page = read(at, "out/always-sums/report.html");
    assert!(
        page.contains("75.0 <small>[26.0, 124.0]</small>")
            && page.contains("<figure class=\"bars\">")
            && page.ends_with("</html>\n")
    );
    let without_names = page.replace("http://www.w3.org/2000/svg", "");
    for outside in ["http:", "https:", "<script", "<link", "<img", "url(", "@import"] {
        assert!(!without_names.contains(outside), "the page asks for {outside}");
    }
    let files: Vec<String> = std::fs::read_dir(at.join("out/always-sums"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let named = |start: &str| files.iter().find(|name| name.starts_with(start)).unwrap();
    let results: serde_json::Value =
        serde_json::from_str(&read(at, &format!("out/always-sums/{}", named("results_")))).unwrap();
    assert_eq!(results["results"]["sums"]["pass@1,none"], 0.75);
    // Three of four right: the standard error is sqrt(0.25 / 4).
    assert!((results["results"]["sums"]["pass@1_stderr,none"].as_f64().unwrap() - 0.25).abs() < 1e-9);
    let samples = read(at, &format!("out/always-sums/{}", named("samples_sums_")));
    let first: serde_json::Value = serde_json::from_str(samples.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["doc"]["id"], &first["resps"][0][0], &first["pass@1"]),
        (&"a".into(), &"24".into(), &1.0.into())
    );
}

#[test]
fn another_evaluation_needs_another_folder() {
    let folder = world();
    let at = folder.path();
    let done = minke(at, &["eval", "always", "--task", "sums.jsonl"]);
    assert_eq!(done.code, 0, "{done:?}");
    let before = read(at, "out/always-sums/answers.jsonl");
    for (arguments, difference) in [
        (&["--seed", "3"][..], "config.seed is 0 there and 3 here"),
        (&["--samples", "2"], "samples is 1 there and 2 here"),
        (&["--problems", "2"], "problems is 4 there and 2 here"),
        (&["--max-tokens", "9"], "config.max_tokens is 1024 there and 9 here"),
    ] {
        let refused = minke(at, &[&["eval", "always", "--task", "sums.jsonl"][..], arguments].concat());
        assert_eq!((refused.code, refused.err.lines().count()), (4, 1), "{refused:?}");
        assert!(refused.err.contains(difference) && refused.err.contains("--out"), "{refused:?}");
    }
    std::fs::write(at.join("sums.jsonl"), PROBLEMS.replace("5*5", "5 * 5")).unwrap();
    let refused = minke(at, &["eval", "always", "--task", "sums.jsonl"]);
    assert!(refused.code == 4 && refused.err.contains(": data is "), "{refused:?}");
    assert_eq!(read(at, "out/always-sums/answers.jsonl"), before);
    let sampled = ["eval", "always", "--task", "sums.jsonl", "--samples", "4", "--out", "sampled"];
    let sampled = minke(at, &sampled);
    assert!(sampled.code == 0 && sampled.out.contains("75.0 (4)"), "{sampled:?}");
    assert!(read(at, "sampled/answers.jsonl").contains("\"temperature\":0.6"));
}

#[test]
fn given_answers_are_graded_and_compared() {
    let folder = world();
    let at = folder.path();
    let write = |file: &str, answers: [&str; 4]| {
        let line = |(id, text): (&str, &str)| serde_json::json!({ "id": id, "text": text }).to_string() + "\n";
        let lines: String = ["d", "c", "b", "a"].into_iter().zip(answers).map(line).collect();
        std::fs::write(at.join(file), lines).unwrap();
    };
    // Right are d, c and a: other answers than the model's, and as many.
    write("other.jsonl", ["The answer is 24.", "\\boxed{25}", "It is 23.", "<think>\n3*8=24\n</think>\n\n24"]);
    let done = minke(at, &["eval", "--answers", "other.jsonl", "--task", "sums.jsonl"]);
    assert!(done.code == 0 && done.out.contains("other.jsonl  sums  given  4         75.0"), "{done:?}");
    assert_eq!(minke(at, &["eval", "always", "--task", "sums.jsonl"]).code, 0);
    let compared = minke(at, &["eval", "--compare", "out/always-sums", "out/other-sums/answers.jsonl"]);
    assert_eq!(compared.code, 0, "{compared:?}");
    // Differences 0, -1, 1, 0: mean 0, s^2 = 2/3, e = sqrt(2/3/4) = 0.408.
    for line in ["difference  0.0 [-80.0, 80.0], paired", "1 better after, 1 better before"] {
        assert!(compared.out.contains(line), "{line}: {}", compared.out);
    }
    for (text, expected) in [
        ("{\"id\": \"a\", \"text\": \"24\"}\n", "b has 0 answers, others have 1"),
        ("{\"id\": \"e\", \"text\": \"24\"}\n", "line 1: sums has no problem e"),
        ("{\"id\": \"a\"}\n", "line 1: missing field `text`"),
    ] {
        std::fs::write(at.join("short.jsonl"), text).unwrap();
        let refused = minke(at, &["eval", "--answers", "short.jsonl", "--task", "sums.jsonl"]);
        assert_eq!((refused.code, refused.err.lines().count()), (4, 1), "{refused:?}");
        assert!(refused.err.contains(expected), "{refused:?}");
    }
    let alone = minke(at, &["eval", "--answers", "other.jsonl"]);
    assert!(alone.code == 2 && alone.err.contains("--answers: is about one set"), "{alone:?}");
}

#[test]
fn what_is_missing_or_makes_no_sense_is_said_in_a_line() {
    let folder = world();
    let at = folder.path();
    std::fs::write(at.join("small.toml"), RUN).unwrap();
    for (arguments, code, expected) in [
        (&["always", "--task", "gsm8k"][..], 4, "cache/minke/problems/gsm8k_test.jsonl; put the published file there"),
        (&["always", "--task", "nowhere.jsonl"], 4, "cannot read nowhere.jsonl"),
        (&["always", "--task", "gsm8k", "--data", "sums.jsonl"], 4, "sums.jsonl: line 1: unknown field `id`"),
        (&["always", "--task", "gsm9k"], 2, "there is no such task; there are countdown, arithmetic, programs"),
        (&["always", "--data", "sums.jsonl"], 2, "--data: is about one set of problems"),
        (&["always", "--task", "sums.jsonl", "--task", "countdown"], 2, "--task countdown: is no set"),
        (&["always", "--task", "sums.jsonl", "--shots", "2"], 1, "2 solved examples were asked for, and there are 0"),
        (&["always", "--task", "sums.jsonl", "--problems", "1"], 1, "evaluate at least 2"),
        (&["small.toml", "--shots", "2"], 2, "are for models, not for runs"),
        (&["--compare", "sums.jsonl", "sums.jsonl"], 4, "line 1: unknown field `id`"),
    ] {
        let mut command = command(at, &[&["eval"][..], arguments].concat());
        let done = common::Done::of(command.env("XDG_CACHE_HOME", at.join("cache")).output().unwrap());
        assert_eq!((done.code, done.err.lines().count()), (code, 1), "{arguments:?}: {done:?}");
        assert!(done.err.contains(expected), "{arguments:?}: {done:?}");
    }
}

#[test]
fn published_files_are_found_in_the_cache_and_shots_are_shown() {
    let folder = world();
    let at = folder.path();
    let cache = at.join("cache/minke/problems");
    std::fs::create_dir_all(&cache).unwrap();
    std::fs::copy(testdata("problems/gsm8k_test.jsonl"), cache.join("gsm8k_test.jsonl")).unwrap();
    let examples = testdata("problems/gsm8k_train.jsonl");
    let arguments = ["eval", "always", "--task", "gsm8k", "--max-tokens", "4", "--shots", "2", "--examples"];
    let mut command = command(at, &[&arguments[..], &[examples.to_str().unwrap()]].concat());
    let done = common::Done::of(command.env("XDG_CACHE_HOME", at.join("cache")).output().unwrap());
    assert!(done.code == 0 && done.out.contains("gsm8k  T=0 2 shots  4"), "{done:?}");
    let samples = std::fs::read_dir(at.join("out/always-gsm8k")).unwrap().map(|entry| entry.unwrap().path());
    let samples = samples.into_iter().find(|path| path.to_string_lossy().contains("samples_")).unwrap();
    let text = std::fs::read_to_string(samples).unwrap();
    let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let prompt = first["arguments"]["gen_args_0"]["arg_0"].as_str().unwrap();
    assert!(prompt.starts_with("Question: Natalia") && prompt.ends_with("Answer:"), "{prompt}");
    assert_eq!(prompt.matches("Question:").count(), 3);
}
