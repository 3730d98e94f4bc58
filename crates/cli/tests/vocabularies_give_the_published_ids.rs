//! Tokenizers that are rebuilt from what a GGUF file holds give the ids of the published ones, for the vocabularies of
//! all families, on 46 texts each (and 60 of DeepSeek-V3/R1); ten megabytes of everything survive the round trip.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use minke_text::{Tokenizer, Vocabulary};
use minke_weights::gguf::Header;
use minke_weights::texts;
use serde_json::Value;

fn path(name: &str) -> PathBuf {
    PathBuf::from(format!("{}/../../testdata/{name}", env!("CARGO_MANIFEST_DIR")))
}

fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap()
}

fn check_46(tokenizer: &Tokenizer, name: &str) {
    let inputs = text(&format!("vocabularies/{name}.gguf.inp"));
    let inputs = inputs.strip_suffix("\n__ggml_vocab_test__\n").unwrap_or(&inputs);
    let inputs: Vec<&str> = inputs.split("\n__ggml_vocab_test__\n").collect();
    let outputs = text(&format!("vocabularies/{name}.gguf.out"));
    let outputs: Vec<Vec<u32>> =
        outputs.lines().map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect()).collect();
    assert_eq!((inputs.len(), outputs.len()), (46, 46), "{name}");
    for (input, output) in inputs.iter().zip(&outputs) {
        assert_eq!(&tokenizer.encode(input), output, "{name}: {input:?}");
        assert_eq!(&tokenizer.decode(output, false), input, "{name}");
    }
}

/// Ten megabytes in texts of 4 KB and more: English, code, Chinese, random bytes as far as they are UTF-8.
static MIXED: LazyLock<Vec<String>> = LazyLock::new(|| {
    let read = |names: &[&str]| names.iter().map(|name| text(&format!("../{name}"))).collect::<String>();
    let english = read(&["README.md", "ARCHITECTURE.md", "docs/vocabulary.md", "docs/log.md"]);
    let code = read(&["crates/text/src/chat.rs", "crates/kernels/src/simd/x86.rs", "testdata/make/families.py"]);
    let samples = text("vocabularies/ggml-vocab-qwen2.gguf.inp");
    let chinese: Vec<char> =
        ('\u{4e00}'..='\u{9fa5}').chain("，。！？、；：“”（）《》".chars().cycle().take(3000)).collect();
    let mut next = 1u64;
    let mut random = move |below: usize| {
        next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (next >> 33) as usize % below
    };
    let (mut all, mut bytes) = (Vec::new(), 0);
    while bytes < 10_000_000 {
        let mut piece = |from: &str| -> String {
            let start = random(from.chars().count().saturating_sub(4096).max(1));
            from.chars().skip(start).take(4096).collect()
        };
        let text = match all.len() % 4 {
            0 => piece(&english),
            1 => piece(&code) + &samples,
            2 => (0..2048).map(|_| chinese[random(chinese.len())]).collect(),
            _ => String::from_utf8_lossy(&(0..4096).map(|_| random(256) as u8).collect::<Vec<_>>()).into_owned(),
        };
        bytes += text.len();
        all.push(text);
    }
    all
});

/// Encodes and decodes texts. A tokenizer that composes characters gives back a text that it does not change again.
fn check_round_trip(tokenizer: &Tokenizer, texts: &[String], composes: bool, name: &str) {
    std::thread::scope(|scope| {
        for half in texts.chunks(texts.len().div_ceil(2)) {
            scope.spawn(move || {
                let back = |text: &str| tokenizer.decode(&tokenizer.encode(text), false);
                for text in half {
                    let once = back(text);
                    assert!(once == *text || composes && back(&once) == once, "{name}: {text:?} became {once:?}");
                }
            });
        }
    });
}

/// The texts for the other vocabularies, to save time: all ten megabytes passed once (`docs/log.md`).
fn a_tenth() -> &'static [String] {
    &MIXED[..MIXED.len() / 10]
}

#[test]
fn vocabularies_in_gguf_are_rebuilt() {
    for name in ["ggml-vocab-deepseek-llm", "ggml-vocab-deepseek-coder"] {
        let file = std::fs::read(path(&format!("vocabularies/{name}.gguf"))).unwrap();
        let header = Header::parse(&file).unwrap();
        let list = |key: &str| texts(&header.metadata, key).unwrap().unwrap();
        let kinds = header.metadata.list("tokenizer.ggml.token_type").unwrap().unwrap();
        let vocabulary = Vocabulary {
            tokens: list("tokenizer.ggml.tokens"),
            kinds: kinds.iter().map(|kind| kind.unsigned().unwrap()).collect(),
            merges: list("tokenizer.ggml.merges"),
            pre: header.metadata.text("tokenizer.ggml.pre").unwrap().unwrap(),
            ..Vocabulary::default()
        };
        let tokenizer = Tokenizer::from_vocabulary(&vocabulary).unwrap();
        check_46(&tokenizer, name);
        check_round_trip(&tokenizer, a_tenth(), false, name);
        let again = tokenizer.vocabulary(vocabulary.tokens.len()).unwrap();
        assert_eq!(again.pre, vocabulary.pre);
        check_46(&Tokenizer::from_vocabulary(&again).unwrap(), name);
    }
}

#[test]
fn the_vocabulary_of_qwen_is_rebuilt() {
    // Ranks say in which order tokens were learned: a token is the merge of the two that its bytes were before.
    let ranks = text("vocabularies/qwen.tiktoken");
    let ranks: HashMap<Vec<u8>, usize> = ranks
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(token, rank)| (base64(token), rank.parse().unwrap()))
        .collect();
    let mut tokens = vec![String::new(); ranks.len()];
    for (bytes, &rank) in &ranks {
        tokens[rank] = letters(bytes);
    }
    let mut by_rank: Vec<(&Vec<u8>, usize)> = ranks.iter().map(|(bytes, &rank)| (bytes, rank)).collect();
    by_rank.sort_by_key(|(_, rank)| *rank);
    let merges: Vec<String> = by_rank
        .into_iter()
        .filter(|(bytes, _)| bytes.len() > 1)
        .map(|(bytes, rank)| {
            let mut parts: Vec<Vec<u8>> = bytes.iter().map(|&byte| vec![byte]).collect();
            while parts.len() > 2 {
                let joined =
                    |i: usize| ranks.get(&[&parts[i][..], &parts[i + 1]].concat()).copied().filter(|&r| r < rank);
                let best = (0..parts.len() - 1).filter_map(|i| Some((joined(i)?, i))).min().unwrap().1;
                let next = parts.remove(best + 1);
                parts[best].extend(next);
            }
            format!("{} {}", letters(&parts[0]), letters(&parts[1]))
        })
        .collect();
    let vocabulary = Vocabulary {
        tokens: tokens.iter().map(String::as_str).collect(),
        merges: merges.iter().map(String::as_str).collect(),
        pre: "qwen2",
        ..Vocabulary::default()
    };
    let tokenizer = Tokenizer::from_vocabulary(&vocabulary).unwrap();
    check_46(&tokenizer, "ggml-vocab-qwen2");
    // Qwen normalises to NFC first: a letter with its accent behind it is the letter that has the accent.
    for (apart, composed) in
        [("cafe\u{301}", "caf\u{e9}"), ("A\u{30a}", "\u{c5}"), ("\u{1112}\u{1161}\u{11ab}", "\u{d55c}")]
    {
        assert_eq!(tokenizer.encode(apart), tokenizer.encode(composed), "{apart}");
        assert_eq!(tokenizer.encode_plain(apart), tokenizer.encode_plain(composed), "{apart}");
    }
    check_round_trip(&tokenizer, a_tenth(), true, "ggml-vocab-qwen2");
}

/// Runs a check on the first tokens of Llama 3's vocabulary, and the merges that make them, with a pre-tokenizer.
fn with_llama_3(count: usize, pre: &str, check: impl FnOnce(&Tokenizer)) {
    let ids = &*LLAMA_3;
    let count = count.min(ids.len());
    let mut tokens = vec![""; count];
    ids.iter().filter(|&(_, &id)| id < count).for_each(|(token, &id)| tokens[id] = token);
    let merges = text("vocabularies/vocab.bpe");
    let known = |token: &str| ids.get(token).is_some_and(|&id| id < count);
    let complete = |merge: &&str| merge.split(' ').all(known) && known(&merge.replace(' ', ""));
    let merges = merges.lines().filter(complete).collect();
    let vocabulary = Vocabulary { tokens, merges, pre, ..Vocabulary::default() };
    check(&Tokenizer::from_vocabulary(&vocabulary).unwrap());
}

static LLAMA_3: LazyLock<HashMap<String, usize>> =
    LazyLock::new(|| serde_json::from_str(&text("vocabularies/encoder.json")).unwrap());

#[test]
fn every_pre_tokenizer_cuts_as_in_llama_cpp() {
    let golden: Value = serde_json::from_str(&text("vocabularies/pre-tokenizers.json")).unwrap();
    let texts: Vec<&str> = golden["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let rows = golden["ids"].as_object().unwrap();
    assert!(rows.len() >= 40 && texts.len() >= 50);
    let mut different = Vec::new();
    for (name, hashes) in rows {
        with_llama_3(60_000, name, |tokenizer| {
            for (text, hash) in texts.iter().zip(hashes.as_str().unwrap().split(' ')) {
                let ids = tokenizer.encode(text);
                let joined = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
                if format!("{:08x}", fnv1a(&joined)) != hash {
                    let pieces: Vec<String> = ids.iter().map(|&id| tokenizer.decode(&[id], false)).collect();
                    different.push(format!("{name}: {}", pieces.join("|")));
                }
            }
        });
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[test]
fn the_vocabulary_of_llama_is_rebuilt() {
    with_llama_3(usize::MAX, "llama-bpe", |tokenizer| {
        check_46(tokenizer, "ggml-vocab-llama-bpe");
        // Llama leaves a text as it is.
        assert_ne!(tokenizer.encode("cafe\u{301}"), tokenizer.encode("caf\u{e9}"));
        check_round_trip(tokenizer, a_tenth(), false, "ggml-vocab-llama-bpe");
    });
}

#[test]
fn the_vocabulary_of_deepseek_v3_is_rebuilt() {
    let published: Value = serde_json::from_str(&text("tokenizer/tokenizer.json")).unwrap();
    let added = published["added_tokens"].as_array().unwrap();
    let mut all: Vec<(u64, &str, u64)> = published["model"]["vocab"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(token, id)| (id.as_u64().unwrap(), token.as_str(), 1))
        .collect();
    for token in added {
        let (id, content) = (token["id"].as_u64().unwrap(), token["content"].as_str().unwrap());
        all.retain(|(other, _, _)| *other != id);
        all.push((id, content, if token["special"] == true { 3 } else { 4 }));
    }
    all.sort_unstable();
    assert!(all.iter().enumerate().all(|(i, (id, _, _))| i as u64 == *id));
    let merges = published["model"]["merges"].as_array().unwrap();
    let merges: Vec<String> = merges
        .iter()
        .map(|merge| match merge.as_array() {
            Some(pair) => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
            None => merge.as_str().unwrap().to_owned(),
        })
        .collect();
    let vocabulary = Vocabulary {
        tokens: all.iter().map(|(_, token, _)| *token).collect(),
        kinds: all.iter().map(|(_, _, kind)| *kind).collect(),
        merges: merges.iter().map(String::as_str).collect(),
        pre: "deepseek-v3",
        ..Vocabulary::default()
    };
    let tokenizer = Tokenizer::from_vocabulary(&vocabulary).unwrap();
    let cases = text("tokenizer/encodings.jsonl");
    let mut compared = 0;
    for case in cases.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(tokenizer.encode(case["text"].as_str().unwrap()), ids, "{}", case["text"]);
        compared += 1;
    }
    assert_eq!(compared, 60);
    let bos = "<｜begin▁of▁sentence｜>";
    assert_eq!(tokenizer.encode(&format!("{bos}<think>")), [0, 128_798]);
    check_round_trip(&tokenizer, &MIXED, false, "deepseek-v3");
}

/// The letters of GPT-2's byte alphabet.
fn letters(bytes: &[u8]) -> String {
    let visible = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let hidden: Vec<u8> = (0..=255).filter(|&byte| !visible(byte)).collect();
    let letter = |&byte: &u8| match hidden.iter().position(|&other| other == byte) {
        None => char::from(byte),
        Some(i) => char::from_u32(256 + i as u32).unwrap(),
    };
    bytes.iter().map(letter).collect()
}

fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits: Vec<u32> =
        text.bytes().filter_map(|c| ALPHABET.bytes().position(|d| d == c)).map(|d| d as u32).collect();
    let bytes = |four: &[u32]| {
        let word = four.iter().enumerate().fold(0, |word, (i, digit)| word | digit << (18 - 6 * i));
        word.to_be_bytes()[1..four.len()].to_vec()
    };
    digits.chunks(4).flat_map(bytes).collect()
}
