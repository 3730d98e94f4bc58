//! Conversations are rendered as DeepSeek's published templates render them.
#![allow(clippy::unwrap_used)]

use minke_text::{ChatTemplate, Message, r1_zero_prompt};
use serde_json::Value;

const TESTDATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata");

struct Case {
    name: String,
    messages: Vec<Message>,
    generation_prompt: bool,
    rendered: String,
}

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(format!("{TESTDATA}/vectors/chat_r1.jsonl")).unwrap();
    let parse = |line: &str| {
        let case: Value = serde_json::from_str(line).unwrap();
        Case {
            name: case["name"].as_str().unwrap().into(),
            messages: serde_json::from_value(case["messages"].clone()).unwrap(),
            generation_prompt: case["add_generation_prompt"].as_bool().unwrap(),
            rendered: case["rendered"].as_str().unwrap().into(),
        }
    };
    text.lines().map(parse).collect()
}

#[test]
fn r1_is_rendered_exactly() {
    let cases = cases();
    assert_eq!(cases.len(), 10);
    for case in cases {
        let rendered = ChatTemplate::r1().render(&case.messages, case.generation_prompt).unwrap();
        assert_eq!(rendered, case.rendered, "{}", case.name);
    }
}

#[test]
fn unforced_differs_by_the_opened_thought_only() {
    for case in cases() {
        let rendered = ChatTemplate::r1_unforced().render(&case.messages, case.generation_prompt).unwrap();
        assert_eq!(rendered, case.rendered.trim_end_matches("<think>\n"), "{}", case.name);
    }
}

/// Python's `split('</think>')[-1]` of the template is what stands behind the last tag; as Jinja2 3.1 renders it.
#[test]
fn only_what_stands_behind_the_last_thought_of_an_earlier_answer_is_read_again() {
    for (answer, read) in [
        ("<think>a</think>b</think>c", "c"),
        ("a</think></think>c", "c"),
        ("</think>a</think>", ""),
        ("<think>\nx\n</think>\n\nb</think>c</think>d<think>e", "d<think>e"),
        ("<think>a</think>b", "b"),
        ("no tag", "no tag"),
    ] {
        let messages = [Message::user("q"), Message::assistant(answer), Message::user("r")];
        let rendered = ChatTemplate::r1().render(&messages, true).unwrap();
        let turn = format!("<｜User｜>q<｜Assistant｜>{read}<｜end▁of▁sentence｜><｜User｜>r<｜Assistant｜><think>\n");
        assert_eq!(rendered, format!("<｜begin▁of▁sentence｜>{turn}"), "{answer:?}");
    }
}

#[test]
fn templates_are_found_in_folders_configs_and_files() {
    let messages = [Message::system("a"), Message::user("Hi"), Message::system("b")];
    // V3's template (published before R1) joins system messages with a blank line and opens no thought; facts sheet 1.11.
    let v3 = "<｜begin▁of▁sentence｜>a\n\nb<｜User｜>Hi<｜Assistant｜>";
    let r1 = "<｜begin▁of▁sentence｜>b<｜User｜>Hi<｜Assistant｜><think>\n";
    let check = |path: std::path::PathBuf, expected: &str| {
        assert_eq!(ChatTemplate::load(path).unwrap().render(&messages, true).unwrap(), expected);
    };
    let published = format!("{TESTDATA}/tokenizer/tokenizer_config.v3.json");
    check((&published).into(), v3);

    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let missing = || ChatTemplate::load(folder.path()).unwrap_err().to_string();
    assert!(missing().contains("has no chat_template"));
    write("tokenizer_config.json", r#"{"bos_token": "<s>"}"#);
    assert!(missing().contains("has no chat_template"));
    write("chat_template.jinja", "{{ bos_token }}{{ eos_token }}{{ messages[1].content }}\n");
    check(folder.path().into(), "<s>Hi");
    check(folder.path().join("chat_template.jinja"), "<s>Hi");
    write(
        "tokenizer_config.json",
        r#"{"chat_template": [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]}"#,
    );
    check(folder.path().join("tokenizer_config.json"), "d");
    check(folder.path().into(), "Hi");
    write("tokenizer_config.json", "{");
    assert!(missing().contains("is not a JSON object"));

    write("tokenizer_config.json", r#"{"bos_token": "<｜begin▁of▁sentence｜>"}"#);
    ChatTemplate::r1().save(folder.path()).unwrap();
    check(folder.path().into(), r1);
}

#[test]
fn r1_zero_prompt_is_the_papers() {
    let template = std::fs::read_to_string(format!("{TESTDATA}/configs/r1-zero-template.txt")).unwrap();
    for question in ["What is 2+2?", "{prompt}", ""] {
        assert_eq!(r1_zero_prompt(question), template.replace("{prompt}", question));
    }
}

#[test]
fn messages_are_read_strictly() {
    for bad in [r#"{"role": "root", "content": "x"}"#, r#"{"content": "x"}"#, r#"{"role": "user", "content": 1}"#] {
        assert!(serde_json::from_str::<Message>(bad).is_err());
    }
}

#[test]
fn long_conversations_have_the_fuel_they_need() {
    let turn =
        [Message::user("word ".repeat(4000)), Message::assistant(format!("<think>{}</think>ok", "hm ".repeat(8000)))];
    for turns in [1, 10, 100] {
        let messages: Vec<Message> = turn.iter().cloned().cycle().take(2 * turns).collect();
        assert!(ChatTemplate::r1().render(&messages, true).unwrap().len() > turns * 20_000);
    }
    let many = vec![Message::user(""); 20_000];
    assert!(ChatTemplate::r1().render(&many, true).is_ok());
}
