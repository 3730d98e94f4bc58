//! `train`, `eval` and `report`, one after the other, with their output for people and machines.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Done, RUN, command, minke, minke_with_input};
use std::process::{Command, Stdio};

fn folder_with_run() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("small.toml"), RUN).unwrap();
    folder
}

fn keys(value: &serde_json::Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn a_run_is_trained_graded_and_reported() {
    let folder = folder_with_run();
    let at = folder.path();
    let done = minke(at, &["train", "small.toml"]);
    assert_eq!((done.code, done.out.as_str()), (0, ""), "{done:?}");
    for line in ["base: 12/12 in ", "tuned: ", "everything is in out/small", "loss "] {
        assert!(done.err.contains(line), "{line:?} is missing in {}", done.err);
    }
    assert!(!done.err.contains('\x1b') && !done.err.contains('\r'), "bars are for terminals: {}", done.err);

    let again = minke(at, &["train", "small.toml", "--json"]);
    assert!(again.err.contains("base: was finished before"), "{again:?}");
    let summary = again.json().remove(0);
    assert_eq!(keys(&summary), ["name", "out", "stages"]);
    assert_eq!(summary["stages"][1]["model"], "out/small/stages/tuned/model");

    let wanted = ["eval", "small.toml", "--samples", "2", "--problems", "3", "--max-tokens", "24", "--json"];
    let scores = minke(at, &wanted).json().remove(0);
    let (base, tuned) = (&scores[0], &scores[1]);
    assert_eq!((&base["stage"], &tuned["stage"]), (&"base".into(), &"tuned".into()));
    // The base is given every chance: two temperatures, thought free and forced.
    assert_eq!((base["reports"].as_array().unwrap().len(), tuned["reports"].as_array().unwrap().len()), (4, 1));
    assert_eq!(tuned["reports"][0]["problems"], 3);
    assert_eq!(
        (&tuned["reports"][0]["side"], &base["reports"][3]["side"]),
        (&"validation".into(), &"validation".into())
    );
    assert_eq!(tuned["reports"][0]["counts"][0]["samples"], 2);
    let saved = std::fs::read_to_string(at.join("out/small/stages/base/eval.json")).unwrap();
    let saved: serde_json::Value = serde_json::from_str(&saved).unwrap();
    assert_eq!(saved, base["reports"]);
    // The same again replaces what is there; another mode and the other side come beside it.
    minke(at, &wanted);
    minke(at, &[&wanted[..], &["--side", "test"]].concat());
    minke(at, &[&wanted[..], &["--force-thought"]].concat());
    let saved = std::fs::read_to_string(at.join("out/small/stages/tuned/eval.json")).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&saved).unwrap().as_array().unwrap().len(), 3);

    let table = minke(
        at,
        &["eval", "out/small/stages/tuned/model", "--task", "countdown", "--samples", "1", "--problems", "2"],
    );
    let rows: Vec<&str> = table.out.lines().collect();
    assert_eq!((table.code, rows.len()), (0, 2), "{table:?}");
    assert!(rows[0].starts_with("model ") && rows[1].starts_with("out/small/stages/tuned/model  countdown  test  T=1"));

    assert_eq!(minke(at, &["report", "small.toml"]).out, "out/small/report.html\n");
    std::fs::rename(at.join("out/small"), at.join("elsewhere")).unwrap();
    let other = minke(at, &["report", "small.toml", "--out", "elsewhere", "--json"]).json().remove(0);
    assert_eq!(other, serde_json::json!({ "report": "elsewhere/report.html" }));
    assert_eq!(minke(at, &["report", "elsewhere"]).out, "elsewhere/report.html\n");
    let page = std::fs::read_to_string(at.join("elsewhere/report.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("tuned"));
}

#[test]
fn conversations_come_through_a_pipe() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let (head, _) = RUN.split_once("data = [").unwrap();
    let data = "data = [{ kind = \"file\", path = \"-\" }]\ntraining = { batch_tokens = 512, mtp_weight = 0.0 }\n";
    std::fs::write(at.join("small.toml"), format!("{head}{data}")).unwrap();
    let turn = |role: &str, text: &str| serde_json::json!({ "role": role, "content": text });
    let line = serde_json::json!({ "messages": [turn("user", "make 7 from 3 4"), turn("assistant", "3+4")] });
    let train = |text: &str| minke_with_input(at, &["train", "small.toml"], text);
    let nothing = train("");
    assert!(nothing.code == 4 && nothing.err.contains("standard input, and nothing was given"), "{nothing:?}");
    let conversations = format!("{line}\n");
    assert_eq!(train(&conversations).code, 0);
    let again = train(&conversations);
    assert!(again.code == 0 && again.err.contains("tuned: was finished before"), "{again:?}");
    let other = train(&conversations.repeat(2));
    assert!(other.code == 4 && other.err.contains("begun with other data on standard input"), "{other:?}");
}

#[test]
fn scores_that_cannot_be_read_are_an_error_and_stay_as_they_are() {
    let folder = folder_with_run();
    let at = folder.path();
    assert_eq!(minke(at, &["train", "small.toml"]).code, 0);
    // The last stage's record is half a file: nothing is graded, not even the first stage.
    let half = b"[{\"task\": \"countdown\", \"pass_at_1\"";
    let record = at.join("out/small/stages/tuned/eval.json");
    std::fs::write(&record, half).unwrap();
    let done = minke(at, &["eval", "small.toml", "--samples", "2", "--problems", "3", "--max-tokens", "24"]);
    assert_eq!((done.code, done.out.as_str()), (4, ""), "{done:?}");
    assert!(done.err.contains("tuned/eval.json: not a list of scores: ") && done.err.lines().count() == 1, "{done:?}");
    assert_eq!(std::fs::read(&record).unwrap(), half);
    assert!(!at.join("out/small/stages/base/eval.json").exists());
}

#[test]
fn values_of_the_run_can_be_replaced() {
    let folder = folder_with_run();
    let at = folder.path();
    let sets = ["--set", "stage.base.steps=2", "--set", "seed=9", "--set", "name=other"];
    let done = minke(at, &[&["train", "small.toml"][..], &sets].concat());
    assert!(done.code == 0 && done.err.contains("base: 2/2"), "{done:?}");
    let record = std::fs::read_to_string(at.join("out/other/run.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    assert_eq!((&record["seed"], &record["config"]["stage"][0]["steps"]), (&9.into(), &2.into()));
}

#[test]
fn ctrl_c_stops_a_run_that_then_ends_as_if_nothing_had_been() {
    stops_and_goes_on("-INT");
}

/// What Slurm and Kubernetes send, the latter to process 1 of a container, which nothing ends that it has no handler for.
#[cfg(target_os = "linux")]
#[test]
fn sigterm_stops_a_run_as_ctrl_c_does() {
    stops_and_goes_on("-TERM");
}

fn stops_and_goes_on(signal: &str) {
    let folder = folder_with_run();
    let at = folder.path();
    let train = |out| {
        let sets = ["--set", "stage.base.steps=150", "--set", "stage.base.training.checkpoint_every=20"];
        [&["train", "small.toml", "--out", out][..], &sets].concat()
    };
    let metrics =
        |out: &str| std::fs::read_to_string(at.join(out).join("stages/base/metrics.jsonl")).unwrap_or_default();
    let child = command(at, &train("a")).stderr(Stdio::piped()).spawn().unwrap();
    while metrics("a").lines().count() < 25 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    let done = Done::of(child.wait_with_output().unwrap());
    assert_eq!(done.code, 6, "{}", done.err);
    assert!(done.err.contains("minke: interrupted in stage base after step"), "{}", done.err);
    assert!(metrics("a").lines().count() < 150);
    let resumed = minke(at, &train("a"));
    assert!(resumed.code == 0 && resumed.err.contains("base: goes on after step"), "{resumed:?}");
    assert_eq!(minke(at, &train("b")).code, 0);
    assert!(metrics("a") == metrics("b") && metrics("a").lines().count() == 150);
}
