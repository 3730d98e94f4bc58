//! A run learns what its documents teach, and publishes what it learned.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use minke_eval::{Split, Style};
use minke_spec::draw::{Domain, draw};
use minke_text::{ChatTemplate, Message, Tokenizer};
use minke_train::data::{Document, completion};
use minke_train::{RunConfig, Silent, execute};
use support::{device, metric, run};

/// The entropy of a token, in nats, for a model of the frequencies of tokens and nothing else.
fn unigram_entropy(config: &RunConfig, tokenizer: &Tokenizer) -> f64 {
    let mut counts: BTreeMap<u32, f64> = BTreeMap::new();
    for number in 0..2000u64 {
        for named in &config.tasks {
            let problem = named.task.problem(1, Split::Train, number);
            let shown = named.task.demonstrate(&problem, Style::Clean, &mut draw(1, Domain::Data, &[number])).unwrap();
            let document = Document::chat(tokenizer, &problem.question, &completion(&shown));
            document.token_ids[1..].iter().for_each(|id| *counts.entry(*id).or_default() += 1.0);
        }
    }
    let all: f64 = counts.values().sum();
    counts.values().map(|count| -count / all * (count / all).ln()).sum()
}

#[test]
fn pretraining_and_fine_tuning_learn_and_publish() {
    let config = run(r#"
        [[stage]]
        kind = "pretrain"
        name = "base"
        steps = 150
        mixture = [{ task = "countdown", styles = { clean = 1 } }, { task = "sums", styles = { clean = 1 } }]
        training = { batch_tokens = 1024, micro_batch_tokens = 512 }
        [[stage]]
        kind = "sft"
        name = "cold-start"
        from = "base"
        data = [{ kind = "demonstrations", style = "clean", count = 100, task = "sums" }]
        epochs = 3
        training = { batch_tokens = 1024 }
    "#);
    let out = tempfile::tempdir().unwrap();
    execute(&config, out.path(), &device(), None, &mut Silent).unwrap();

    let tokenizer = Tokenizer::load(out.path().join("tokenizer")).unwrap();
    let entropy = unigram_entropy(&config, &tokenizer);
    let next = metric(out.path(), "base", "next");
    let mtp = metric(out.path(), "base", "mtp");
    let late = |losses: &[f64]| losses[losses.len() - 10..].iter().sum::<f64>() / 10.0;
    println!("unigram {entropy:.3}; next {:.3} -> {:.3}; mtp {:.3} -> {:.3}", next[0], late(&next), mtp[0], late(&mtp));
    assert!((next[0] / f64::ln(320.0) - 1.0).abs() < 0.05, "a random model guesses evenly: {}", next[0]);
    assert!(late(&next) < 0.75 * entropy, "{} is not well below {entropy}", late(&next));
    assert!(late(&mtp) < 0.9 * entropy);
    // The load is evened out: to 1.08 times the mean in the fullest expert, measured; without the bias it stays at 1.35,
    // without bias and balance loss at 1.8.
    let violation = metric(out.path(), "base", "expert_load/max_violation");
    let most = violation.iter().fold(0.0f64, |most, v| most.max(*v));
    assert!(most > 0.6 && late(&violation) < 0.2, "from {most} to {}", late(&violation));

    // Fine-tuning goes on from the base, where random weights would guess evenly, and gets better.
    let sft = metric(out.path(), "cold-start", "next");
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (first, last) = (mean(&sft[..3]), mean(&sft[sft.len() - 3..]));
    println!("fine-tuning: {:.3}, {first:.3} -> {last:.3}", sft[0]);
    assert!(sft[0] < 1.3 * late(&next) && sft[0] < 0.5 * f64::ln(320.0), "{sft:?} after {}", late(&next));
    assert!(last < first, "{sft:?}");

    for stage in ["base", "cold-start"] {
        let folder = out.path().join("stages").join(stage).join("model");
        let unknown = minke_weights::Archive::open(&folder).unwrap().unknown_keys;
        let model = minke_weights::load(&device(), &folder).unwrap();
        assert_eq!((model.config(), unknown), (config.model.as_ref().unwrap(), Vec::new()));
        assert!(folder.join("generation_config.json").exists());
        let card = std::fs::read_to_string(folder.join("README.md")).unwrap();
        assert!(card.starts_with("---\nlicense: mit\n") && card.contains("| base | pretrain | random weights |"));

        // What was learned from is what the published template and tokenizer make of the same conversation.
        let template = ChatTemplate::load(&folder).unwrap();
        let tokenizer = Tokenizer::load(&folder).unwrap();
        let prompt = template.render(&[Message::user("make 24 from 3 8 1")], true).unwrap();
        let document = Document::chat(&tokenizer, "make 24 from 3 8 1", "<think>\n3*8*1=24\n</think>\n\n3*8*1");
        let (asked, said) = document.token_ids.split_at(document.counted[0].start);
        assert_eq!(asked, tokenizer.encode(&prompt));
        assert_eq!(said, tokenizer.encode("<think>\n3*8*1=24\n</think>\n\n3*8*1<｜end▁of▁sentence｜>"));
    }
}
