//! Stdout and stderr of `minke run`. A model that always thinks `ab` and answers `8*3` makes every byte known.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Done, Script, brooder, command, minke, minke_with_bytes, minke_with_input, thinker};
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn one_shot_prints_the_thought_and_then_the_answer_as_the_last_line() {
    let folder = tempfile::tempdir().unwrap();
    thinker(folder.path());
    let done = minke(folder.path(), &["run", "thinker", "make 24 from 3 8"]);
    assert_eq!((done.code, done.out.as_str()), (0, "ab\n\n8*3\n"), "{done:?}");
    let err: Vec<&str> = done.err.lines().collect();
    // `<think>`, a, b, `</think>`, 8, *, 3 and the end of sentence.
    assert!(err[0].contains(" + 8 tokens, ") && err[0].ends_with(" tokens/s"), "{done:?}");
    assert_eq!(err[1..], ["checked: 8*3 = 24"]);
}

#[test]
fn hidden_thoughts_leave_no_byte() {
    let folder = tempfile::tempdir().unwrap();
    thinker(folder.path());
    let done = minke(folder.path(), &["run", "thinker", "hello", "--think", "hide"]);
    assert_eq!((done.code, done.out.as_str()), (0, "8*3\n"));
    assert!(!done.err.contains("checked"), "there is nothing to check: {done:?}");
    let json = minke(folder.path(), &["run", "thinker", "hello", "--think", "hide", "--json"]).json();
    assert!(json[0].get("reasoning").is_none());
}

#[test]
fn thoughts_between_special_tokens_are_thoughts_in_a_folder_and_in_gguf() {
    let folder = tempfile::tempdir().unwrap();
    Script { special_tags: true, ..Script::default() }.write(folder.path(), "special");
    assert_eq!(minke(folder.path(), &["convert", "special", "special.gguf"]).code, 0);
    for model in ["special", "special.gguf"] {
        let json = minke(folder.path(), &["run", model, "hello", "--json"]).json();
        assert_eq!((json[0]["reasoning"].as_str(), json[0]["answer"].as_str()), (Some("ab"), Some("8*3")), "{model}");
        assert_eq!(minke(folder.path(), &["run", model, "hello"]).out, "ab\n\n8*3\n", "{model}");
    }
}

#[test]
fn a_thought_that_was_never_opened_is_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let chains: &[&[&str]] = &[&["<｜Assistant｜>", "a", "b", "</think>", "8", "*", "3", "<｜end▁of▁sentence｜>"]];
    Script { chains, ..Script::default() }.write(folder.path(), "closer");
    let json = minke(folder.path(), &["run", "closer", "hello", "--json"]).json();
    assert_eq!((json[0]["reasoning"].as_str(), json[0]["answer"].as_str()), (Some("ab"), Some("8*3")));
    assert_eq!(minke(folder.path(), &["run", "closer", "hello"]).out, "ab\n\n8*3\n");
    for think in ["hide", "fold"] {
        assert_eq!(minke(folder.path(), &["run", "closer", "hello", "--think", think]).out, "8*3\n", "{think}");
    }
}

#[test]
fn json_has_everything() {
    let folder = tempfile::tempdir().unwrap();
    thinker(folder.path());
    let args = ["run", "thinker", "Make 25 from 3 and 8", "--json", "--seed", "7", "--temperature", "0"];
    let [line] = &minke(folder.path(), &args).json()[..] else { panic!("one answer is one line") };
    let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
    let expected = [
        "prompt",
        "reasoning",
        "answer",
        "finish_reason",
        "verdict",
        "seed",
        "prompt_tokens",
        "completion_tokens",
        "seconds",
    ];
    assert_eq!(keys, expected);
    for (key, value) in [("reasoning", "ab"), ("answer", "8*3"), ("finish_reason", "stop"), ("prompt", args[2])] {
        assert_eq!(line[key], value);
    }
    assert_eq!((line["seed"].as_u64(), line["completion_tokens"].as_u64()), (Some(7), Some(8)));
    // 3 and 8 do not make 25.
    assert_eq!(line["verdict"], "gold_unusable");
}

#[test]
fn every_line_of_a_pipe_is_a_question() {
    let folder = tempfile::tempdir().unwrap();
    thinker(folder.path());
    let done = minke_with_input(folder.path(), &["run", "thinker"], "hello\r\n\n  make 24 from 8 3\nmake 11 from 8 3");
    assert_eq!((done.code, done.out.as_str()), (0, "ab\n\n8*3\nab\n\n8*3\nab\n\n8*3\n"));
    assert_eq!(done.err.matches("checked: 8*3 = 24").count(), 1);
    assert_eq!(done.err.matches("checked: wrong").count(), 1, "{done:?}");
    let done = minke_with_input(folder.path(), &["run", "thinker", "--json"], "one\ntwo\n");
    let prompts: Vec<_> = done.json().iter().map(|line| line["prompt"].clone()).collect();
    assert_eq!(prompts, ["one", "two"]);
}

#[test]
fn a_bad_line_of_a_pipe_is_named_and_the_others_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    thinker(folder.path());
    let long = "x".repeat(400);
    let long = format!("{long}\ntwo\nthree\n");
    /// What is special, the input, the questions that are answered, parts of what stderr says.
    type Case<'a> = (&'a str, &'a [u8], &'a [&'a str], &'a [&'a str]);
    let cases: [Case<'_>; 8] = [
        ("a mark at the beginning", "\u{feff}one\ntwo\n".as_bytes(), &["one", "two"], &[]),
        ("the same later is text", "one\n\u{feff}two\n".as_bytes(), &["one", "\u{feff}two"], &[]),
        ("Latin-1", b"one\ncaf\xe9\nthree\n", &["one", "three"], &["line 2: byte 4 is not UTF-8"]),
        ("cut within a character", b"one\n\xf0\x9f\x90\nthree", &["one", "three"], &["line 2: byte 1 is not UTF-8"]),
        ("the last line", b"one\n\n\xff", &["one"], &["line 3: byte 1 is not UTF-8"]),
        ("longer than the context", long.as_bytes(), &["two", "three"], &["line 1: ", "tokens"]),
        (
            "two of them",
            b"\xff\none\n\xff\n",
            &["one"],
            &["line 1: ", "line 3: ", "2 of 3 questions have no answer: line 1, 3"],
        ),
        ("nothing else", b"\xff", &[], &["line 1: byte 1 is not UTF-8", "1 of 1 questions have no answer"]),
    ];
    for (what, input, prompts, errors) in cases {
        let done = minke_with_bytes(folder.path(), &["run", "thinker", "--json"], input);
        assert_eq!(done.code, i32::from(!errors.is_empty()), "{what}: {done:?}");
        let lines = done.out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let answered: Vec<String> = lines.map(|line| line["prompt"].as_str().unwrap().to_owned()).collect();
        assert_eq!(answered, prompts, "{what}: {done:?}");
        errors.iter().for_each(|error| assert!(done.err.contains(error), "{what}: {error:?} is not in {done:?}"));
    }
    let utf16: Vec<u8> = "\u{feff}one\ntwo\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let done = minke_with_bytes(folder.path(), &["run", "thinker"], &utf16);
    assert_eq!((done.code, done.out.as_str(), done.err.lines().count()), (4, "", 1), "{done:?}");
    assert!(done.err.contains("standard input is UTF-16; convert it: iconv -f UTF-16 -t UTF-8"), "{done:?}");
    // A thought without an answer is no answer here either.
    brooder(folder.path());
    let done = minke_with_input(folder.path(), &["run", "brooder", "--max-tokens", "5"], "one\ntwo\n");
    assert_eq!((done.code, done.out.as_str()), (1, "abab\nabab\n"), "{done:?}");
    assert!(done.err.contains("2 of 2 questions have no answer: line 1, 2"), "{done:?}");
}

#[test]
fn nothing_is_colored_where_nobody_looks() {
    let folder = tempfile::tempdir().unwrap();
    thinker(folder.path());
    for no_color in [None, Some("1")] {
        let mut command = command(folder.path(), &["run", "thinker", "hello"]);
        command.env_remove("NO_COLOR").envs(no_color.map(|value| ("NO_COLOR", value)));
        let done = Done::of(command.output().unwrap());
        assert!(!done.out.contains('\x1b') && !done.err.contains('\x1b'), "{done:?}");
    }
}

#[test]
fn a_model_of_the_repository_is_found_from_within() {
    let folder = tempfile::tempdir().unwrap();
    let model = thinker(folder.path());
    std::fs::create_dir(folder.path().join("models")).unwrap();
    std::fs::rename(model, folder.path().join("models/first-light")).unwrap();
    assert_eq!(minke(folder.path(), &["run", "a question"]).out, "ab\n\n8*3\n");
    assert_eq!(minke_with_input(folder.path(), &["run"], "a question").out, "ab\n\n8*3\n");
    // A folder that is given comes first, and its questions from the pipe.
    assert_eq!(minke_with_input(folder.path(), &["run", "models/first-light"], "q").out, "ab\n\n8*3\n");
}

#[test]
fn a_thought_without_end_is_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    brooder(folder.path());
    let done = minke(folder.path(), &["run", "brooder", "hello", "--max-tokens", "5"]);
    assert_eq!((done.code, done.out.as_str()), (1, "abab\n"), "{done:?}");
    assert!(done.err.contains("cut off") && done.err.contains("no answer: the thought took all 5 tokens"));
}

#[test]
fn settings_of_the_model_count_unless_others_are_given() {
    let folder = tempfile::tempdir().unwrap();
    let model = brooder(folder.path());
    std::fs::write(model.join("generation_config.json"), r#"{"max_new_tokens": 3, "eos_token_id": 1}"#).unwrap();
    assert_eq!(minke(folder.path(), &["run", "brooder", "hello"]).out, "ab\n");
    assert_eq!(minke(folder.path(), &["run", "brooder", "hello", "--max-tokens", "4"]).out, "aba\n");
    // One that ends with "b": what the folder says about its tokens counts as well.
    let b = minke_text::Tokenizer::load(&model).unwrap().id_of("b").unwrap();
    std::fs::write(model.join("generation_config.json"), format!(r#"{{"eos_token_id": [1, {b}]}}"#)).unwrap();
    assert_eq!(minke(folder.path(), &["run", "brooder", "hello"]).out, "a\n");
}

#[test]
fn ctrl_c_ends_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    brooder(folder.path());
    let mut command = command(folder.path(), &["run", "brooder", "hello", "--threads", "1"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"ababab");
    let pressed = Instant::now();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let done = Done::of(child.wait_with_output().unwrap());
    assert_eq!(done.code, 6, "{}", done.err);
    assert!(done.err.contains("minke: interrupted"), "{}", done.err);
    assert!(pressed.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_reader_who_leaves_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    brooder(folder.path());
    let mut command = command(folder.path(), &["run", "brooder", "hello", "--threads", "1"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let done = Done::of(child.wait_with_output().unwrap());
    assert_eq!((done.code, done.err.as_str()), (0, ""));
}

#[test]
fn a_model_without_a_template_is_asked_as_r1_and_a_note_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let model = thinker(folder.path());
    std::fs::remove_file(model.join("chat_template.jinja")).unwrap();
    for config in [None, Some(r#"{"bos_token": "<s>", "eos_token": "</s>"}"#)] {
        let path = model.join("tokenizer_config.json");
        match config {
            None => std::fs::remove_file(&path).unwrap(),
            Some(text) => std::fs::write(&path, text).unwrap(),
        }
        let done = minke(folder.path(), &["run", "thinker", "hi", "--max-tokens", "2"]);
        assert_eq!(done.code, 0, "{done:?}");
        assert!(done.err.contains("the model has no chat template; DeepSeek-R1's stands in for it"), "{done:?}");
    }
}
