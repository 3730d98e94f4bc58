//! `perplexity` and `debug` agree on a text; `debug` takes apart what a model said.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::minke;
use serde_json::Value;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/first-light");

fn json(folder: &Path, arguments: &[&str]) -> Value {
    let done = minke(folder, arguments);
    assert_eq!(done.code, 0, "{done:?}");
    serde_json::from_str(&done.out).unwrap()
}

#[test]
fn perplexity_is_that_of_the_logits() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let text = "make 24 from 3 8 1\nmake 7 from 1 2 4\n".repeat(7);
    std::fs::write(folder.join("text.txt"), &text).unwrap();
    let tokens = json(folder, &["debug", "tokens", MODEL, &text, "--json"]);
    let ids: Vec<u64> = tokens["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
    let (context, mut losses) = (32, Vec::new());
    for chunk in ids.chunks_exact(context) {
        // The model's tokenizer_config.json says that its texts begin with a token: every chunk does.
        let chunk = [&ids[..1], &chunk[1..]].concat();
        let listed = chunk.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        let done = json(folder, &["debug", "logits", MODEL, "--ids", &listed, "--out", "logits", "--json"]);
        let vocabulary = done["vocab_size"].as_u64().unwrap() as usize;
        let logits = std::fs::read(folder.join("logits")).unwrap();
        let logits: Vec<f64> = logits.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect();
        for position in context / 2..context - 1 {
            let row = &logits[position * vocabulary..][..vocabulary];
            losses.push(row.iter().map(|z| z.exp()).sum::<f64>().ln() - row[chunk[position + 1] as usize]);
        }
    }
    assert!(losses.len() > 30);
    let want = (losses.iter().sum::<f64>() / losses.len() as f64).exp();
    let score = json(folder, &["perplexity", MODEL, "text.txt", "--context", "32", "--json"]);
    let got = score["perplexity"].as_f64().unwrap();
    assert!((got - want).abs() <= 1e-5 * want, "{got} not {want}");
    assert_eq!(
        (score["tokens"].as_u64(), score["scored"].as_u64()),
        (Some(ids.len() as u64), Some(losses.len() as u64))
    );

    // Through a cache: the same sums in MLA's other form, and rounded to BF16 as an answer has them.
    let through = |dtype| {
        let args = ["perplexity", MODEL, "text.txt", "--context", "32", "--cache-type", dtype, "--json"];
        json(folder, &args)["perplexity"].as_f64().unwrap()
    };
    let (exact, rounded) = (through("f32"), through("bf16"));
    assert!((exact - want).abs() <= 1e-4 * want, "{exact} not {want}");
    assert!(rounded != exact && (rounded - exact).abs() <= 1e-2 * exact, "{rounded} and {exact}");

    let short = minke(folder, &["perplexity", MODEL, "text.txt", "--context", "2000"]);
    assert!(short.code == 4 && short.err.contains("fewer than one context"), "{short:?}");
}

#[test]
fn taps_have_the_shape_of_the_text() {
    let folder = tempfile::tempdir().unwrap();
    let taps = json(folder.path(), &["debug", "taps", MODEL, "make 24", "--json"]);
    let tokens = json(folder.path(), &["debug", "tokens", MODEL, "make 24", "--json"])["ids"].as_array().unwrap().len();
    let taps = taps.as_array().unwrap();
    let gate = taps.iter().find(|tap| tap["name"] == "layers.1.gate.scores").unwrap();
    assert_eq!(gate["shape"][0], tokens);
    assert!(gate["least"].as_f64().unwrap() >= 0.0 && gate["largest"].as_f64().unwrap() <= 1.0, "{gate}");
}

#[test]
fn what_was_said_is_taken_apart() {
    let folder = tempfile::tempdir().unwrap();
    let text = "<think>\nhm\n</think>\n\nWait.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{\"a\": 1}\
                <｜tool▁call▁end｜><｜tool▁calls▁end｜>";
    let said = &json(folder.path(), &["debug", "parse", MODEL, text, "--json"])["said"];
    assert_eq!((&said["reasoning"], &said["content"]), (&"hm".into(), &"Wait.".into()));
    assert_eq!(said["tool_calls"], serde_json::json!([{"name": "add", "arguments": "{\"a\": 1}"}]));
}
