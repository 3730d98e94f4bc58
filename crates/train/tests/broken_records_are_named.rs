//! A record that cannot be read is named in the model card and in the report; it is never called missing.
#![allow(clippy::unwrap_used)]

mod support;

use minke_train::publish::refresh_card;
use minke_train::{Silent, execute, report};
use support::{device, run};

#[test]
fn card_and_report_name_what_they_cannot_read() {
    let config = run("[[stage]]\nkind = \"pretrain\"\nname = \"base\"\nsteps = 3\ntraining = { batch_tokens = 300 }\n");
    let out = tempfile::tempdir().unwrap();
    execute(&config, out.path(), &device(), None, &mut Silent).unwrap();
    let stage = out.path().join("stages/base");
    let card = || std::fs::read_to_string(stage.join("model/README.md")).unwrap();
    let page = || std::fs::read_to_string(report::write(out.path()).unwrap()).unwrap();
    assert!(card().contains("Not evaluated yet.") && page().contains("Not evaluated yet."));

    // Half a record, and a line in the middle of a log that is none.
    let half = "[{\"task\": \"countdown\", \"pass_at_1\": {\"mean\": 0.5";
    std::fs::write(stage.join("eval.json"), half).unwrap();
    let metrics = std::fs::read_to_string(stage.join("metrics.jsonl")).unwrap();
    let mut lines: Vec<&str> = metrics.lines().collect();
    lines[1] = "{\"step\": 1, \"lo";
    std::fs::write(stage.join("metrics.jsonl"), format!("{}\n{{\"step\": 3", lines.join("\n"))).unwrap();
    refresh_card(&config, out.path(), "base").unwrap();
    for text in [card(), page()] {
        assert!(text.contains("eval.json: not a list of scores: ") && !text.contains("Not evaluated yet"), "{text}");
        assert!(!text.contains(&out.path().display().to_string()), "a path of this machine is published");
    }
    assert!(page().contains("metrics.jsonl: lines that are damaged and left out: 1, the first is line 2"));
    assert!(page().contains("<small>2 steps"));
}
