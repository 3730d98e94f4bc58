//! Begin tokens, end tokens and the chat template from the files beside a tokenizer, with the precedence that
//! transformers gives them, and from a GGUF file's keys and names of tokens.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use minke_text::{ChatTemplate, Message, Tokenizer, TrainOptions, Vocabulary};
use serde_json::{Value, json};

/// Ids 0 to 2 are DeepSeek's BOS, EOS and padding, 259 to 262 its tags, 263 to 265 these.
const ADDED: [&str; 3] = ["<|im_end|>", "<|eot_id|>", "<s>"];
const IM_END: u32 = 263;
const EOT: u32 = 264;
const S: u32 = 265;
const NONE: [u32; 0] = [];

fn folder(files: &[(&str, Value)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let added_tokens = ADDED.map(str::to_owned).into();
    let trained = Tokenizer::train(["a"].iter(), &TrainOptions { vocab_size: 266, added_tokens }).unwrap();
    trained.save(folder.path()).unwrap();
    std::fs::remove_file(folder.path().join("tokenizer_config.json")).unwrap();
    write(folder.path(), files);
    folder
}

fn write(folder: &Path, files: &[(&str, Value)]) {
    for (name, content) in files {
        std::fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        let text = content.as_str().map_or_else(|| content.to_string(), str::to_owned);
        std::fs::write(folder.join(name), text).unwrap();
    }
}

fn load(files: &[(&str, Value)]) -> Tokenizer {
    Tokenizer::load(folder(files).path()).unwrap()
}

#[test]
fn ends_are_those_of_every_file() {
    let config = |value: Value| ("tokenizer_config.json", value);
    let map = |value: Value| ("special_tokens_map.json", value);
    assert_eq!(load(&[]).end_ids(&[]), NONE);
    assert_eq!(load(&[]).end_ids(&[7, 5, 7]), [7, 5]);
    assert_eq!(load(&[config(json!({"eos_token": "<|im_end|>"}))]).end_ids(&[1]), [1, IM_END]);
    assert_eq!(load(&[config(json!({"eos_token": {"content": "<|eot_id|>"}}))]).end_ids(&[EOT]), [EOT]);
    assert_eq!(load(&[map(json!({"eos_token": {"content": "<|eot_id|>"}}))]).end_ids(&[]), [EOT]);
    // An older configuration gives way to the map, one with `added_tokens_decoder` does not.
    let both = |config_more: Value| {
        let mut object = json!({"eos_token": "<|im_end|>"});
        object.as_object_mut().unwrap().extend(config_more.as_object().unwrap().clone());
        load(&[config(object), map(json!({"eos_token": "<|eot_id|>"}))]).end_ids(&[])
    };
    assert_eq!(both(json!({})), [EOT]);
    assert_eq!(both(json!({"added_tokens_decoder": {}})), [IM_END]);
    assert_eq!(load(&[config(json!({"eos_token": "<nowhere>"}))]).end_ids(&[]), NONE);
}

#[test]
fn texts_begin_where_the_tokenizer_says_so() {
    let config = |value: Value| ("tokenizer_config.json", value);
    let begin = |files: &[(&str, Value)]| load(files).begin_ids().to_vec();
    assert_eq!(begin(&[]), NONE);
    assert_eq!(begin(&[config(json!({"bos_token": "<s>"}))]), NONE);
    assert_eq!(begin(&[config(json!({"bos_token": "<s>", "add_bos_token": false}))]), NONE);
    assert_eq!(begin(&[config(json!({"bos_token": "<s>", "add_bos_token": true}))]), [S]);
    assert_eq!(begin(&[config(json!({"bos_token": null, "add_bos_token": true}))]), NONE);
    let missing = folder(&[config(json!({"bos_token": "<nowhere>", "add_bos_token": true}))]);
    let message = Tokenizer::load(missing.path()).unwrap_err().to_string();
    assert!(message.contains("add_bos_token is true, but the vocabulary has no token \"<nowhere>\""), "{message}");

    // Llama 3 says it by its post-processor.
    let post = json!({"type": "Sequence", "processors": [
        {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true},
        {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
         "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [S], "tokens": ["<s>"]}}}]});
    let with_post = |files: &[(&str, Value)]| {
        let folder = folder(files);
        let path = folder.path().join("tokenizer.json");
        let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        json["post_processor"] = post.clone();
        std::fs::write(&path, json.to_string()).unwrap();
        Tokenizer::load(folder.path()).unwrap()
    };
    assert_eq!(with_post(&[]).begin_ids(), [S]);
    assert_eq!(with_post(&[config(json!({"add_bos_token": false, "bos_token": "<s>"}))]).begin_ids(), NONE);

    let tokenizer = load(&[config(json!({"bos_token": "<s>", "add_bos_token": true}))]);
    let text = tokenizer.encode("a");
    assert_eq!(tokenizer.encode_prompt("a"), [&[S], &text[..]].concat());
    // What a template wrote is not written again.
    assert_eq!(tokenizer.encode_prompt("<s>a"), [&[S], &text[..]].concat());
    assert_eq!(tokenizer.encode_prompt(""), [S]);
    assert_eq!(load(&[]).encode_prompt("a"), text);
    // A saved tokenizer says the same.
    let saved = tempfile::tempdir().unwrap();
    tokenizer.save(saved.path()).unwrap();
    let again = Tokenizer::load(saved.path()).unwrap();
    assert_eq!((again.begin_ids(), again.special_tokens()), (tokenizer.begin_ids(), tokenizer.special_tokens()));
}

#[test]
fn templates_come_from_where_transformers_takes_them() {
    // As transformers 5 renders them: `AutoTokenizer.from_pretrained(folder).apply_chat_template(messages, tools=tools)`.
    let config = |value: Value| ("tokenizer_config.json", value);
    let tools = minke_text::RenderOptions { tools: Some("[]".into()), ..Default::default() };
    let find = |files: &[(&str, Value)]| ChatTemplate::find(folder(files).path());
    let render = |files: &[(&str, Value)]| {
        let template = find(files).unwrap().unwrap();
        let messages = [Message::user("Hi")];
        (template.render(&messages, false).unwrap(), template.render_with(&messages, &tools).unwrap())
    };
    let same = |text: &str| (text.to_owned(), text.to_owned());
    assert!(find(&[]).unwrap().is_none());
    assert_eq!(
        render(&[config(json!({"chat_template": "old{{ tools|length if tools is not none }}"}))]),
        ("old".into(), "old0".into())
    );
    let jinja = ("chat_template.jinja", json!("new{% if tools %}{% endif %}"));
    assert_eq!(render(&[config(json!({"chat_template": "old"})), jinja.clone()]), same("new"));
    assert_eq!(render(&[jinja]), same("new"));
    let map = json!({"default": "d{% set x = tools %}", "tool_use": "t{% set x = tools %}"});
    assert_eq!(render(&[config(json!({"chat_template": map}))]), ("d".into(), "t".into()));
    let list = json!([{"name": "tool_use", "template": "t{% set x = tools %}"}, {"name": "default", "template": "d"}]);
    assert_eq!(render(&[config(json!({"chat_template": list}))]), ("d".into(), "t".into()));
    assert_eq!(render(&[config(json!({"chat_template": {"default": "d{% set x = tools %}"}}))]), same("d"));
    let beside = ("additional_chat_templates/tool_use.jinja", json!("b{% set x = tools %}"));
    let files = [("chat_template.jinja", json!("a")), beside, config(json!({"chat_template": "old"}))];
    assert_eq!(render(&files), ("a".into(), "b".into()));
    for without in [json!([{"name": "rag", "template": "r"}]), json!({"tool_use": "t", "rag": "r"})] {
        let message = find(&[config(json!({"chat_template": without}))]).unwrap_err().to_string();
        assert!(message.contains("none of them \"default\"") && message.contains("rag"), "{message}");
    }
    let message = find(&[config(json!("["))]).unwrap_err().to_string();
    assert!(message.contains("tokenizer_config.json: is not a JSON object"), "{message}");

    let tokens = "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ unk_token }}|{{ image_token }}";
    let map = ("special_tokens_map.json", json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}}));
    assert_eq!(render(&[config(json!({"chat_template": tokens})), map.clone()]).0, "<s>|</s>|||");
    let more = json!({"chat_template": tokens, "pad_token": "<p>", "unk_token": {"content": "<u>"}, "image_token": "<i>", "eos_token": "<e>"});
    assert_eq!(render(&[config(more.clone()), map.clone()]).0, "<s>|</s>|<p>|<u>|<i>");
    let mut newer = more;
    newer["added_tokens_decoder"] = json!({});
    assert_eq!(render(&[config(newer), map]).0, "|<e>|<p>|<u>|<i>");
}

/// The alphabet of bytes and these tokens behind it, of a kind each.
fn vocabulary(added: &[(&str, u64)]) -> Vocabulary<String> {
    let folder = tempfile::tempdir().unwrap();
    let options = TrainOptions { vocab_size: 263, added_tokens: vec![] };
    Tokenizer::train(["a"].iter(), &options).unwrap().save(folder.path()).unwrap();
    let mut vocabulary = Tokenizer::load(folder.path()).unwrap().vocabulary(263).unwrap();
    vocabulary.tokens.truncate(259);
    vocabulary.kinds.truncate(259);
    // DeepSeek's end token would be one of them.
    vocabulary.tokens[1] = "<|none|>".into();
    vocabulary.tokens.extend(added.iter().map(|(token, _)| (*token).to_owned()));
    vocabulary.kinds.extend(added.iter().map(|(_, kind)| *kind));
    Vocabulary { bos_token_id: Some(0), eos_token_id: None, pad_token_id: None, add_bos_token: None, ..vocabulary }
}

#[test]
fn a_gguf_vocabulary_ends_turns_by_name_too() {
    let ends = |added: &[(&str, u64)], eos: Option<u32>| {
        let vocabulary = Vocabulary { eos_token_id: eos, ..vocabulary(added) };
        Tokenizer::from_vocabulary(&vocabulary).unwrap().end_ids(&eos.into_iter().collect::<Vec<_>>())
    };
    assert_eq!(ends(&[("<|eot_id|>", 3), ("x", 1)], None), [259]);
    assert_eq!(ends(&[("<|eot_id|>", 3), ("<|end_of_text|>", 3), ("<|eom_id|>", 3)], Some(260)), [260, 259, 261]);
    assert_eq!(ends(&[("<|end|>", 3), ("<|endoftext|>", 3)], Some(260)), [260, 259]);
    // Where an answer ends otherwise, `<|end|>` ends a part of it only.
    assert_eq!(ends(&[("<|end|>", 3), ("<|return|>", 3), ("<|call|>", 3)], None), [260, 261]);
    // A text of the same letters is none; a token that a converter lists as any other is.
    assert_eq!(ends(&[("</s>", 1)], None), NONE);
    let normal = Tokenizer::from_vocabulary(&vocabulary(&[("<|im_end|>", 1)])).unwrap();
    assert_eq!((normal.end_ids(&[]), normal.encode("a<|im_end|>").len()), (vec![259], 2));
    assert!(normal.is_special(259));
}

#[test]
fn a_gguf_vocabulary_says_how_a_text_begins() {
    let begin = |pre: &str, add_bos_token: Option<bool>| {
        let vocabulary = Vocabulary { pre: pre.to_owned(), add_bos_token, ..vocabulary(&[]) };
        Tokenizer::from_vocabulary(&vocabulary).unwrap()
    };
    assert_eq!(begin("qwen2", None).begin_ids(), NONE);
    assert_eq!(begin("qwen2", Some(true)).begin_ids(), [0]);
    assert_eq!(begin("llama-bpe", None).begin_ids(), [0]);
    assert_eq!(begin("llama-bpe", Some(false)).begin_ids(), NONE);
    assert_eq!(begin("tekken", None).begin_ids(), [0]);
    // What is written from it as files says the same, and so does the vocabulary that comes of those.
    let folder = tempfile::tempdir().unwrap();
    begin("llama-bpe", None).save(folder.path()).unwrap();
    let saved = Tokenizer::load(folder.path()).unwrap();
    assert_eq!(saved.begin_ids(), [0]);
    let again = saved.vocabulary(259).unwrap();
    assert_eq!((again.pre.as_str(), again.add_bos_token, again.bos_token_id), ("llama-bpe", Some(true), Some(0)));

    let unknown = Vocabulary { pre: "nonsense".to_owned(), ..vocabulary(&[]) };
    let message = Tokenizer::from_vocabulary(&unknown).unwrap_err().to_string();
    assert!(message.contains("pre-tokenizer \"nonsense\" is not supported; supported are deepseek-v3"), "{message}");
}
