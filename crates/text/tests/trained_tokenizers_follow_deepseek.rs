//! Tokenizers trained here have DeepSeek's layout, and single tokens for frequent integers.
#![allow(clippy::unwrap_used)]

use minke_text::{ASSISTANT, BOS, EOS, PAD, THINK_CLOSE, THINK_OPEN, Tokenizer, TrainOptions, USER};
use proptest::prelude::*;
use serde_json::Value;
use std::sync::LazyLock;

/// Countdown-like lines in which every integer from 0 to 199 is frequent.
fn lines() -> Vec<String> {
    let line = |n: usize| {
        let (a, b) = (n % 200, (n * 7 + 3) % 200);
        format!("{USER}make {a} from {b} 8 1{ASSISTANT}{THINK_OPEN}{b}-8={a} ?{a} ok{THINK_CLOSE}{b}-8+{a}{EOS}")
    };
    (0..2000).map(line).collect()
}

fn train(vocab_size: usize) -> Tokenizer {
    Tokenizer::train(lines().iter(), &TrainOptions { vocab_size, added_tokens: vec!["<answer>".into()] }).unwrap()
}

static TRAINED: LazyLock<Tokenizer> = LazyLock::new(|| train(600));

fn json(tokenizer: &Tokenizer) -> Value {
    let folder = tempfile::tempdir().unwrap();
    tokenizer.save(folder.path()).unwrap();
    assert!(Tokenizer::load(folder.path()).is_ok());
    serde_json::from_slice(&std::fs::read(folder.path().join("tokenizer.json")).unwrap()).unwrap()
}

#[test]
fn layout_is_deepseeks() {
    let published = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/tokenizer/tokenizer.json");
    let published: Value = serde_json::from_slice(&std::fs::read(published).unwrap()).unwrap();
    let trained = json(&TRAINED);
    for part in ["version", "normalizer", "pre_tokenizer", "post_processor", "decoder", "truncation", "padding"] {
        assert_eq!(trained[part], published[part], "{part}");
    }
    // The control tokens and the 256 bytes have the ids 0 to 258 in both.
    let alphabet = |file: &Value| -> Vec<(String, u64)> {
        let ids =
            file["model"]["vocab"].as_object().unwrap().iter().map(|(token, id)| (token.clone(), id.as_u64().unwrap()));
        let mut alphabet: Vec<(String, u64)> = ids.filter(|(_, id)| *id < 259).collect();
        alphabet.sort_by_key(|(_, id)| *id);
        alphabet
    };
    assert_eq!(alphabet(&trained), alphabet(&published));
    assert_eq!(alphabet(&trained).len(), 259);
    let flags = |file: &Value, content: &str| -> Value {
        let token = file["added_tokens"].as_array().unwrap().iter().find(|token| token["content"] == content).unwrap();
        let mut token = token.clone();
        token["id"] = Value::Null;
        token
    };
    for token in [BOS, EOS, PAD, THINK_OPEN, THINK_CLOSE, USER, ASSISTANT] {
        assert_eq!(flags(&trained, token), flags(&published, token));
    }
}

#[test]
fn added_tokens_are_last_and_whole() {
    let size = TRAINED.vocab_size() as u32;
    assert!(size <= 600);
    for (i, token) in [THINK_OPEN, THINK_CLOSE, USER, ASSISTANT, "<answer>"].into_iter().enumerate() {
        assert_eq!(TRAINED.encode(token), [size - 5 + i as u32]);
        assert!(TRAINED.encode_plain(token).len() > 1);
    }
    assert_eq!(TRAINED.encode(&format!("{BOS}{EOS}{PAD}")), [0, 1, 2]);
    // Nothing was learned from the text of control tokens: "Assistant" occurs nowhere else.
    assert_eq!(TRAINED.encode_plain("Assistant").len(), 9);
}

#[test]
fn frequent_integers_are_single_tokens() {
    for n in 0..200 {
        assert_eq!(TRAINED.encode(&n.to_string()).len(), 1, "{n}");
        // In context too: a split keeps up to three digits apart from everything else.
        assert_eq!(TRAINED.encode(&format!("={n}")).len(), TRAINED.encode("=").len() + 1, "={n}");
    }
    let digits: Vec<u32> = ["199", "7"].iter().flat_map(|part| TRAINED.encode(part)).collect();
    assert_eq!(TRAINED.encode("1997"), digits);
}

#[test]
fn the_same_texts_give_the_same_bytes() {
    // Few letters in many words: nearly every count is a tie.
    let word = |mut n: usize| -> String {
        let letters = std::iter::from_fn(|| {
            n /= 3;
            (n > 0).then(|| char::from(b'a' + (n % 3) as u8))
        });
        letters.collect()
    };
    for seed in 0..40 {
        let texts: Vec<String> =
            (0..60).map(|i| format!("{} {}", word(i * 131 + seed), word(i * i * 17 + seed * 3))).collect();
        let options = TrainOptions { vocab_size: 263 + 10 + 5 * seed, added_tokens: vec![] };
        let first = json(&Tokenizer::train(texts.iter(), &options).unwrap());
        for _ in 0..5 {
            assert!(json(&Tokenizer::train(texts.iter(), &options).unwrap()) == first, "seed {seed}");
        }
        let backwards = Tokenizer::train(texts.iter().rev(), &options).unwrap();
        assert!(json(&backwards) == first, "order of texts, seed {seed}");
    }
}

#[test]
fn impossible_options_are_refused() {
    let train = |vocab_size, added: &[&str]| {
        let added_tokens = added.iter().map(|token| (*token).to_owned()).collect();
        Tokenizer::train(["abc"].iter(), &TrainOptions { vocab_size, added_tokens })
            .map(|tokenizer| tokenizer.vocab_size())
    };
    // No pair occurs twice: only bytes and control tokens come out.
    assert_eq!(train(263, &[]).unwrap(), 263);
    assert_eq!(train(5000, &[]).unwrap(), 263);
    for (vocab_size, added) in [(262, &[][..]), (263, &["<x>"]), (usize::MAX, &[]), (500, &[""]), (500, &["<think>"])] {
        let message = train(vocab_size, added).unwrap_err().to_string();
        assert!(message.starts_with("cannot train a tokenizer: ") && !message.contains('\n'), "{message}");
    }
}

proptest! {
    #[test]
    fn anything_encodes_and_comes_back(text in ".{0,60}|\\PC{0,60}|[ \n\t0-9a-z<>/｜▁ﾠ]{0,60}") {
        for ids in [TRAINED.encode(&text), TRAINED.encode_plain(&text)] {
            prop_assert!(ids.iter().all(|id| (*id as usize) < TRAINED.vocab_size()));
            prop_assert_eq!(TRAINED.decode(&ids, false), text.as_str());
        }
    }
}
