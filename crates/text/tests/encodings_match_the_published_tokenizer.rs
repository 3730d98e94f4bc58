//! Ids are those of the published DeepSeek-V3/R1 tokenizer, and give the text back.
#![allow(clippy::unwrap_used)]

use minke_text::{BOS, EOS, PAD, THINK_CLOSE, THINK_OPEN, Tokenizer, USER, Utf8Stream};
use serde_json::Value;
use std::sync::LazyLock;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/tokenizer");
static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::load(FOLDER).unwrap());

fn lines(path: &str) -> Vec<(String, Vec<u32>)> {
    let path = format!("{}/../../testdata/{path}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let parse = |line: &str| {
        let case: Value = serde_json::from_str(line).unwrap();
        let text = case.get("text").or(case.get("rendered")).unwrap().as_str().unwrap().to_owned();
        (text, serde_json::from_value(case["ids"].clone()).unwrap())
    };
    text.lines().map(parse).collect()
}

fn check(text: &str, ids: &[u32]) {
    assert_eq!(TOKENIZER.encode(text), ids, "{text:?}");
    assert_eq!(TOKENIZER.decode(ids, false), text);
    let mut stream = Utf8Stream::default();
    let mut streamed: String = ids.iter().map(|id| stream.push(TOKENIZER.token_bytes(*id))).collect();
    streamed.push_str(&stream.finish());
    assert_eq!(streamed, text);
}

#[test]
fn sixty_golden_encodings_are_exact() {
    let cases = lines("tokenizer/encodings.jsonl");
    assert_eq!(cases.len(), 60);
    for (text, ids) in cases {
        check(&text, &ids);
    }
}

#[test]
fn rendered_chats_have_the_published_ids() {
    let cases = lines("vectors/chat_r1.jsonl");
    assert_eq!(cases.len(), 10);
    for (text, ids) in cases {
        check(&text, &ids);
    }
}

#[test]
fn control_tokens_have_the_published_ids() {
    // Facts sheet 1.10.
    let table = [
        (BOS, 0, true),
        (EOS, 1, true),
        (PAD, 2, true),
        (THINK_OPEN, 128798, false),
        (THINK_CLOSE, 128799, false),
        (USER, 128803, false),
        ("<|EOT|>", 128805, true),
        ("<｜tool▁sep｜>", 128814, false),
    ];
    for (token, id, special) in table {
        assert_eq!(TOKENIZER.id_of(token), Some(id));
        assert_eq!(TOKENIZER.token_bytes(id), token.as_bytes());
        assert_eq!(TOKENIZER.is_special(id), special, "{token}");
        assert_eq!(TOKENIZER.decode(&[35, id], true), if special { "A".into() } else { format!("A{token}") });
    }
    assert_eq!(TOKENIZER.vocab_size(), 128815);
    // The embedding has 129,280 rows: the padding stands for nothing.
    assert_eq!(
        (TOKENIZER.decode(&[128815, 129279, u32::MAX], false), TOKENIZER.id_of("<none>")),
        (String::new(), None)
    );
}

#[test]
fn plain_text_never_becomes_a_control_id() {
    let library = tokenizers::Tokenizer::from_file(format!("{FOLDER}/tokenizer.json")).unwrap();
    let added = library.get_added_tokens_decoder();
    assert_eq!(added.len(), 818);
    let hostile: String = added.values().map(|token| token.content.as_str()).collect();
    assert_eq!(TOKENIZER.encode(&hostile).len(), 818);
    let ids = TOKENIZER.encode_plain(&hostile);
    assert!(ids.iter().all(|id| !added.contains_key(id)));
    assert_eq!(TOKENIZER.decode(&ids, true), hostile);
    for (text, ids) in lines("tokenizer/encodings.jsonl") {
        if !ids.iter().any(|id| added.contains_key(id)) {
            assert_eq!(TOKENIZER.encode_plain(&text), ids);
        }
    }
}

#[test]
fn a_loaded_tokenizer_is_saved_as_it_was_read() {
    let folder = tempfile::tempdir().unwrap();
    TOKENIZER.save(folder.path().join("new")).unwrap();
    let saved = std::fs::read(folder.path().join("new/tokenizer.json")).unwrap();
    assert!(saved == std::fs::read(format!("{FOLDER}/tokenizer.json")).unwrap());
    assert_eq!(std::fs::read_dir(folder.path().join("new")).unwrap().count(), 2);
}

#[test]
fn the_vocabulary_goes_to_gguf_and_back() {
    let vocabulary = TOKENIZER.vocabulary(129_280).unwrap();
    assert_eq!((vocabulary.tokens.len(), vocabulary.pre.as_str()), (129_280, "deepseek-v3"));
    assert_eq!((vocabulary.kinds[0], vocabulary.kinds[128798], vocabulary.kinds[129_279]), (3, 4, 5));
    let rebuilt = Tokenizer::from_vocabulary(&vocabulary).unwrap();
    for (text, ids) in lines("tokenizer/encodings.jsonl").into_iter().chain(lines("vectors/chat_r1.jsonl")) {
        assert_eq!(rebuilt.encode(&text), ids, "{text:?}");
    }
}
