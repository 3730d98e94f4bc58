//! Hostile tokenizer.json files, as downloaded weights may bring them, do not crash the program.
#![allow(clippy::unwrap_used)]

use minke_text::{Tokenizer, TrainOptions};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::LazyLock;

static GOOD: LazyLock<Value> = LazyLock::new(|| {
    let options = TrainOptions { vocab_size: 280, added_tokens: vec!["<a>".into()] };
    let folder = tempfile::tempdir().unwrap();
    Tokenizer::train(["hello hello yellow bellow"].iter(), &options).unwrap().save(folder.path()).unwrap();
    serde_json::from_slice(&std::fs::read(folder.path().join("tokenizer.json")).unwrap()).unwrap()
});

const TEXT: &str = "hello  <think> naïve\n\n123456 <a> yellow";

/// What loads must also work: it encodes any text and gives it back.
fn check(json: &str) -> Result<(), String> {
    let tokenizer = Tokenizer::from_json(json).map_err(|error| error.to_string())?;
    for ids in [tokenizer.encode(TEXT), tokenizer.encode_plain(TEXT)] {
        assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
        tokenizer.decode(&ids, true);
    }
    assert_eq!(tokenizer.decode(&tokenizer.encode_plain(TEXT), false), TEXT);
    Ok(())
}

fn check_changed(pointer: &str, value: Value) -> Result<(), String> {
    let mut changed = GOOD.clone();
    *changed.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
    check(&changed.to_string())
}

#[test]
fn broken_files_give_one_line() {
    let deep = "[".repeat(100_000);
    for json in ["", "{", "null", "[]", "{}", "\u{0}", deep.as_str(), "\"x\"", r#"{"model": {"type": "BPE"}}"#] {
        let message = check(json).unwrap_err();
        assert!(message.starts_with("tokenizer (given text): ") && !message.contains('\n'), "{message}");
    }
    assert!(Tokenizer::load("/nonexistent").unwrap_err().to_string().starts_with("cannot read /nonexistent: "));
}

#[test]
fn hostile_values_are_refused() {
    check(&GOOD.to_string()).unwrap();
    let cases = [
        ("/version", json!("2.0")),
        ("/model/type", json!("WordPiece")),
        ("/model/dropout", json!(0.5)),
        // The library would slice beyond its buffer, or before its beginning.
        ("/model/merges/0", json!(["Ġ", "<｜end▁of▁sentence｜>"])),
        ("/model/merges/0", json!(["h", "nowhere"])),
        ("/model/merges/0", json!("h")),
        ("/model/merges/0", json!(["h", "e", "l"])),
        ("/model/merges", json!({"h": "e"})),
        ("/model/continuing_subword_prefix", json!("##########")),
        ("/model/end_of_word_suffix", json!("</w>")),
        ("/model/vocab/h", json!(0)),
        ("/model/vocab/h", json!(4_294_967_295u32)),
        ("/model/vocab/h", json!(-1)),
        ("/model/vocab/h", json!(1.5)),
        ("/model/vocab/h", json!(1u64 << 40)),
        ("/model/vocab", json!({})),
        ("/model/vocab", json!([])),
        ("/added_tokens/0/id", json!(7)),
        ("/added_tokens/0/content", json!("")),
        ("/added_tokens/3/id", json!(100_000)),
        ("/added_tokens/3/id", json!(0)),
        ("/added_tokens/3/content", json!("<a>")),
        ("/added_tokens", json!({"a": 1})),
        ("/normalizer", json!({"type": "Replace", "pattern": {"Regex": "(a*)*b"}, "content": "x"})),
        ("/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"})),
        ("/pre_tokenizer", Value::Null),
        ("/pre_tokenizer", json!({"type": "Whitespace"})),
        ("/pre_tokenizer/pretokenizers", json!([])),
        ("/pre_tokenizer/pretokenizers/0/behavior", json!("Removed")),
        ("/pre_tokenizer/pretokenizers/0/pattern", json!({"Regex": "("})),
        ("/pre_tokenizer/pretokenizers/0/pattern", json!({"Regex": "(".repeat(100_000)})),
        ("/pre_tokenizer/pretokenizers/0/pattern", json!({"Regex": "(?:a{1000}){1000}{1000}"})),
        ("/pre_tokenizer/pretokenizers/3/add_prefix_space", json!(true)),
        ("/decoder", Value::Null),
        ("/decoder/type", json!("Metaspace")),
    ];
    for (pointer, value) in cases {
        let message = check_changed(pointer, value.clone()).expect_err(pointer);
        assert!(message.starts_with("tokenizer (given text): ") && !message.contains('\n'), "{message}");
        assert!(message.len() < 300, "{message}");
    }
    let without_bytes: serde_json::Map<String, Value> = [("a".into(), json!(300))].into_iter().collect();
    let mut changed = GOOD.clone();
    changed["model"]["vocab"] = without_bytes.into();
    changed["model"]["merges"] = json!([]);
    assert!(check(&changed.to_string()).is_err());
}

#[test]
fn harmless_variants_load() {
    check_changed("/normalizer", Value::Null).unwrap();
    check_changed("/normalizer", json!({"type": "NFC"})).unwrap();
    check_changed("/post_processor", json!({"type": "nonsense"})).unwrap();
    check_changed("/truncation", json!({"max_length": 1})).unwrap();
    check_changed("/added_tokens/3/lstrip", json!(true)).unwrap();
    check_changed("/added_tokens/3/single_word", json!(true)).unwrap();
    check_changed("/pre_tokenizer/pretokenizers/0/pattern", json!({"Regex": "(a*)*$|(?=(.*)*x)"})).unwrap();
}

/// SmolLM2's vocabulary has no token for 21 bytes, among them U+0004.
#[test]
fn a_byte_that_texts_do_not_have_may_lack_a_token() {
    let mut changed = GOOD.clone();
    let vocab = changed["model"]["vocab"].as_object_mut().unwrap();
    let id = vocab.remove("\u{104}").unwrap();
    vocab.insert("\u{104}\u{104}".into(), id);
    let tokenizer = Tokenizer::from_json(changed.to_string()).unwrap();
    assert_eq!(tokenizer.encode("a\u{4}b"), [tokenizer.encode("a"), tokenizer.encode("b")].concat());
    assert!(tokenizer.encode("\u{4}").is_empty());
}

#[test]
fn merges_that_spell_an_added_token_do_not_help() {
    let mut changed = GOOD.clone();
    // "<a>" is one word when nothing splits before ByteLevel, and the merges lead to the added token's id.
    let position =
        changed["added_tokens"].as_array().unwrap().iter().position(|token| token["content"] == "<a>").unwrap();
    changed["added_tokens"] = json!([changed["added_tokens"][position]]);
    changed["added_tokens"][0]["id"] = json!(259);
    changed["pre_tokenizer"] =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let vocab = changed["model"]["vocab"].as_object_mut().unwrap();
    vocab.retain(|_, id| id.as_u64() < Some(259));
    vocab.extend([("<a>".into(), json!(259)), ("<a".into(), json!(260))]);
    changed["model"]["merges"] = json!([["<", "a"], ["<a", ">"]]);

    let tokenizer = Tokenizer::from_json(changed.to_string()).unwrap();
    assert_eq!(tokenizer.encode("<a>"), [259]);
    assert_eq!(tokenizer.encode("x<"), tokenizer.encode_plain("x<"));
    let plain = tokenizer.encode_plain("<a>");
    assert_eq!(plain.len(), 3);
    assert_eq!(tokenizer.decode(&plain, true), "<a>");
}

proptest! {
    #[test]
    fn no_damage_panics(at in any::<prop::sample::Index>(), length in 0usize..8, garbage in "[ -~]{0,8}") {
        let mut text = GOOD.to_string();
        let start = text.floor_char_boundary(at.index(text.len()));
        let end = text.ceil_char_boundary((start + length).min(text.len()));
        text.replace_range(start..end, &garbage);
        if let Ok(tokenizer) = Tokenizer::from_json(text) {
            tokenizer.decode(&tokenizer.encode(TEXT), false);
            tokenizer.encode_plain(TEXT);
        }
    }
}
