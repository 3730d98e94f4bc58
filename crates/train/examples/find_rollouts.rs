//! Writes a run with many rollouts and says how long it takes to find some of them: `cargo run --release -p minke-train --example
//! find_rollouts [FOLDER] [ROLLOUTS]`. The folder stays, so that `minke report FOLDER --live` can show it.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Instant;

use minke_eval::Verdict;
use minke_train::live::{LiveRun, RolloutQuery};
use serde_json::json;

/// Rollouts of a group, and groups of a step.
const GROUP: usize = 8;
const STEP: usize = 16;
/// Problems that come again and again.
const PROBLEMS: u64 = 7_473;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let folder: PathBuf = args.next().map_or_else(|| std::env::temp_dir().join("minke-rollouts"), PathBuf::from);
    let rollouts: usize = args.next().map_or(Ok(100_000), |text| text.parse())?;
    let groups = rollouts / GROUP;
    let stage = folder.join("stages/zero");
    std::fs::create_dir_all(&stage)?;
    let config = json!({ "stage": [{ "kind": "grpo", "name": "zero", "steps": groups / STEP }] });
    std::fs::write(
        folder.join("run.json"),
        json!({ "name": "many rollouts", "seed": 1, "config": config }).to_string(),
    )?;
    let path = stage.join("rollouts.jsonl");
    write_rollouts(&path, groups)?;
    write_metrics(&stage.join("metrics.jsonl"), groups / STEP)?;
    let bytes = std::fs::metadata(&path)?.len();
    println!("{groups} groups of {GROUP}: {} MB", bytes / 1_000_000);

    let run = LiveRun::new(&folder);
    let begun = Instant::now();
    let mut first = None;
    while run.poll()?.more {
        first.get_or_insert_with(|| begun.elapsed());
    }
    println!(
        "index: {} ms in all, {} ms to the first part",
        begun.elapsed().as_millis(),
        first.unwrap_or_default().as_millis()
    );

    let all = RolloutQuery { limit: 40, ..RolloutQuery::default() };
    let text = |text: &str| Some(text.to_owned());
    let middle = groups / 2;
    let queries = [
        ("newest", all.clone()),
        ("a step", RolloutQuery { step: Some((middle / STEP) as u64), ..all.clone() }),
        ("a problem", RolloutQuery { problem: Some(id(middle)), ..all.clone() }),
        ("wrong and cut off", RolloutQuery { verdict: Some(Verdict::Wrong), truncated: Some(true), ..all.clone() }),
        ("a text of the oldest question", RolloutQuery { text: text("Basket 0 of 7473"), limit: 1, ..all.clone() }),
        (
            "a text of one answer",
            RolloutQuery { text: text(&format!("group {middle} rollout 3")), limit: 1, ..all.clone() },
        ),
        ("a text that is nowhere", RolloutQuery { text: text("no such words"), ..all }),
    ];
    for (name, mut query) in queries {
        let (begun, mut requests, mut found) = (Instant::now(), 0, 0);
        loop {
            let answer = run.rollouts("zero", &query)?.ok_or("no such stage")?;
            (requests, found) = (requests + 1, found + answer.found.len());
            query.from = answer.next;
            if found > 0 || answer.next.is_none() {
                break;
            }
        }
        println!("{name}: {found} groups, {:.1} ms, {requests} requests", 1e3 * begun.elapsed().as_secs_f64());
    }
    let begun = Instant::now();
    let group = run.group("zero", middle)?.ok_or("no such group")?;
    println!("a group of step {}: {:.2} ms", group.record["step"], 1e3 * begun.elapsed().as_secs_f64());
    Ok(())
}

fn id(group: usize) -> u64 {
    (group as u64 % PROBLEMS).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Answers of some 800 characters, as of a small model to a school problem.
fn write_rollouts(path: &std::path::Path, groups: usize) -> std::io::Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(path)?);
    let filler = "First we add what is in the basket to what was there before, and then take away what was given to the others. ".repeat(6);
    for group in 0..groups {
        let rollouts: Vec<_> = (0..GROUP)
            .map(|i| {
                let right = (group * 7 + i * 3) % 10 < 4;
                let text = format!("<think>\ngroup {group} rollout {i}: {filler}\n</think>\n\nThe answer is \\boxed{{{}}}.", group % 97);
                json!({ "text": text, "verdict": if right { "right" } else { "wrong" }, "format": 1, "reward": f64::from(u8::from(right)),
                        "advantage": 0.5, "tokens": 180 + i, "truncated": i == 7 && group % 5 == 0 })
            })
            .collect();
        let question =
            format!("Basket {} of 7473 holds {} apples. How many are left?", group as u64 % PROBLEMS, group % 97);
        let line = json!({ "step": group / STEP, "task": "baskets", "id": id(group), "question": question, "rollouts": rollouts });
        writeln!(file, "{line}")?;
    }
    file.flush()
}

fn write_metrics(path: &std::path::Path, steps: usize) -> std::io::Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(path)?);
    for step in 0..steps {
        let rise = 1.0 - (-(step as f64) / 200.0).exp();
        let line = json!({ "step": step, "loss": 0.01, "reward": 0.2 + 0.5 * rise, "reward_std": 0.3, "rewards/accuracy/mean": 0.2 + 0.5 * rise,
                           "entropy": 0.6 - 0.4 * rise, "completions/mean_length": 180.0, "completions/clipped_ratio": 0.03 });
        writeln!(file, "{line}")?;
    }
    file.flush()
}
