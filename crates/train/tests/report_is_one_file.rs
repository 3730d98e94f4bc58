//! The report of a run is one file that loads nothing else.
#![allow(clippy::unwrap_used)]

use minke_eval::tasks::SearchBaseline;
use minke_eval::{Count, EvalConfig, Interval, Split, TaskReport, Transcript, Verdict};
use serde_json::json;

fn score(task: &str, mean: f64) -> TaskReport {
    let interval = Interval { mean, low: mean - 0.02, high: mean + 0.02 };
    TaskReport {
        task: task.into(),
        side: Split::Test,
        config: Some(EvalConfig::default()),
        problems: 500,
        unusable: 0,
        pass_at_1: interval,
        pass_at_k: vec![(1, mean), (16, 0.9)],
        cons_at_k: Some(interval),
        greedy: Some(interval),
        mean_tokens: Some(61.5),
        thought_tokens_right: Some(50.25),
        thought_tokens_wrong: None,
        attempts: Some(2.75),
        repeats: Some(0.25),
        search: Some(SearchBaseline {
            attempts: 2.875,
            blind: 0.375,
            gain: interval,
            without_repeats: 0.4375,
            attempts_as_right: Some(6.25),
        }),
        constant: Some(("7".into(), 0.03125)),
        format_rate: 0.96,
        truncated: Some(0.01),
        false_claims: Some(0.125),
        counts: (0..4)
            .map(|id| Count { id, cluster: None, right: (16.0 * mean) as usize + id as usize % 2, samples: 16 })
            .collect(),
        transcripts: vec![Transcript {
            question: "make 7 from <3> & 4".into(),
            text: "<think>\n3+4=7\n</think>\n\n3+4".into(),
            verdict: Verdict::Right,
            tokens: Some(17),
        }],
    }
}

#[test]
fn the_report_shows_the_run_and_needs_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: String| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let stages = json!([{ "kind": "pretrain", "name": "base" }, { "kind": "grpo", "name": "zero" }, { "kind": "sft", "name": "later" }]);
    write(
        "run.json",
        json!({ "name": "a <small> run", "seed": 7, "commit": null, "config": { "stage": stages } }).to_string(),
    );
    let line = |step: usize| json!({ "step": step, "loss": 3.0 / (step + 1) as f64, "expert_load/max_violation": 0.5 });
    write("stages/base/metrics.jsonl", (0..9).map(|step| format!("{}\n", line(step))).collect());
    write("stages/base/eval.json", serde_json::to_string(&[score("countdown", 0.284)]).unwrap());
    let line = |step: usize| {
        json!({ "step": step, "reward": 0.1 * step as f64, "entropy": 0.3, "completions/mean_length": 40, "loss": null,
                "eval/countdown/pass@1": 0.3, "rewards/accuracy/mean": 0.1 * step as f64 })
    };
    let metrics: String = (0..5).map(|step| format!("{}\n", line(step))).collect();
    // A line that is still being written.
    write("stages/zero/metrics.jsonl", format!("{metrics}{{\"step\": 5, \"rew"));
    write("stages/zero/timings.jsonl", "{\"step\":0,\"step_time\":1.5}\n{\"step\":1,\"step_time\":2.5}\n".into());
    let rollout = |verdict: &str, text: &str| json!({ "text": text, "verdict": verdict, "format": 1, "reward": 1.1, "advantage": 1.5, "tokens": 9, "truncated": false });
    let group = |step: usize| {
        json!({ "step": step, "task": "countdown", "id": 3, "question": "make 9 from 4 5",
                "rollouts": [rollout("right", "4+5"), rollout("wrong", "4*5 </pre>")] })
    };
    write("stages/zero/rollouts.jsonl", format!("{}\n{}\n", group(0), group(4)));
    write("stages/zero/eval.json", serde_json::to_string(&[score("countdown", 0.604)]).unwrap());

    let path = minke_train::report::write(folder.path()).unwrap();
    let html = std::fs::read_to_string(&path).unwrap();
    for expected in [
        "a &lt;small&gt; run",
        "28.4 <small>[26.4, 30.4]",
        "60.4 <small>[58.4, 62.4]",
        "90.0 (k = 16)",
        "12.5",
        // 4 or 5 right of 16 against 9 or 10.
        "31.2 <small>[31.2, 31.2]",
        "-31.2 <small>[-31.2, -31.2]",
        "make 7 from &lt;3&gt; &amp; 4",
        "4*5 &lt;/pre&gt;",
        "step 4",
        "later",
        "held-out accuracy",
        "5 steps, 4 s",
        "expert load",
        "countdown, test: pass@1",
        // Blind search, one without repeats, one answer to all; attempts, and those of a blind search.
        "<td>37.5</td>",
        "interval; line: blind search",
        "<u style=\"left:37.50%\" title=\"blind search 37.5 %\">",
        "<td>43.8</td><td>3.1</td>",
        "<td>2.75 (6.25)</td><td>25.0</td>",
    ] {
        assert!(html.contains(expected), "{expected:?} is missing");
    }
    // The curve. Base: loss, load. Zero: accuracy, reward, length, entropy.
    assert_eq!(html.matches("<svg").count(), 7);
    assert!(html.contains("60.4 % <small>58.4 to 62.4") && html.contains("width:60.40%"));
    let curve = std::fs::read_to_string(folder.path().join("curve.svg")).unwrap();
    assert!(curve.starts_with("<svg") && curve.contains("right answers") && html.contains(curve.trim()));
    let without_names = html.replace("http://www.w3.org/2000/svg", "");
    for outside in ["http:", "https:", "<script", "<link", "<img", "url(", "@import"] {
        assert!(!without_names.contains(outside), "the page asks for {outside}");
    }
    assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
    assert!(html.ends_with("</html>\n"));
}

#[test]
fn a_folder_without_a_run_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = minke_train::report::write(folder.path()).unwrap_err().to_string();
    assert!(error.contains("run.json") && error.lines().count() == 1, "{error}");
}
