//! Thought and answer are the same, and free of tags, however the text is cut.
#![allow(clippy::unwrap_used)]

use minke_text::{ReasoningEvent, ReasoningParser, ThinkTag, ThinkTokens, split};
use proptest::prelude::*;
use serde::Deserialize;

const OPENED: &str = "<｜User｜>Hi<｜Assistant｜><think>\n";
const UNOPENED: &str = "<｜User｜>Hi<｜Assistant｜>";

fn parse<'a>(prompt: &str, pieces: impl IntoIterator<Item = &'a str>) -> (String, String) {
    let mut parser = ReasoningParser::new(prompt);
    let mut events: Vec<ReasoningEvent> = pieces.into_iter().flat_map(|piece| parser.push(piece)).collect();
    events.extend(parser.finish());
    let (mut reasoning, mut content) = (String::new(), String::new());
    for event in events {
        assert!(
            !matches!(&event, ReasoningEvent::Reasoning(piece) | ReasoningEvent::Content(piece) if piece.is_empty())
        );
        event.add_to(&mut reasoning, &mut content);
    }
    (reasoning, content)
}

/// The pieces of a text cut where a bit is set.
fn cut(text: &str, bits: u64) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut from = 0;
    for (i, (at, _)) in text.char_indices().enumerate().skip(1) {
        if bits >> (i % 64) & 1 == 1 {
            pieces.push(&text[from..at]);
            from = at;
        }
    }
    pieces.push(&text[from..]);
    pieces
}

/// A prompt and what follows it, told apart.
#[derive(Deserialize)]
struct Case {
    prompt: String,
    text: String,
    reasoning: Option<String>,
    content: String,
    closed: bool,
    format_ok: bool,
}

#[test]
fn conventions() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/answers/thoughts.json");
    let cases: Vec<Case> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(cases.len() >= 30, "{}", cases.len());
    for Case { prompt, text, reasoning, content, closed, format_ok } in cases {
        let thought = split(&prompt, &text);
        let found = (thought.reasoning.as_ref(), &thought.content, thought.closed, thought.format_ok);
        assert_eq!(found, (reasoning.as_ref(), &content, closed, format_ok), "{text:?}");
        let whole = (reasoning.unwrap_or_default(), content);
        // In every way to cut a short text, and in some ways to cut a long one.
        for bits in 0..1u64 << text.chars().count().min(12) {
            assert_eq!(parse(&prompt, cut(&text, bits)), whole, "{text:?} {bits:b}");
        }
        assert_eq!(parse(&prompt, text.split_inclusive(|_| true)), whole);
    }
}

#[test]
fn what_is_decided_is_given_at_once() {
    let mut parser = ReasoningParser::new(OPENED);
    let reasoning = |text: &str| vec![ReasoningEvent::Reasoning(text.into())];
    assert_eq!(parser.push("1 <"), reasoning("1 "));
    assert_eq!(parser.push(" 2"), reasoning("< 2"));
    assert_eq!(parser.push("\n"), []);
    assert_eq!(parser.push("3"), reasoning("\n3"));
}

#[test]
fn tags_that_are_tokens_count_by_id() {
    const TOKENS: ThinkTokens = ThinkTokens { open: Some(7), close: Some(8) };
    let parse = |prompt: &str, tokens: ThinkTokens, pieces: &[(u32, &str)]| {
        let mut parser = ReasoningParser::for_tokens(prompt, &tokens);
        let (mut reasoning, mut content) = (String::new(), String::new());
        for (id, text) in pieces {
            let events = match tokens.tag(*id) {
                Some(tag) => parser.push_tag(tag),
                None => parser.push(text),
            };
            events.iter().for_each(|event| event.add_to(&mut reasoning, &mut content));
        }
        parser.finish().iter().for_each(|event| event.add_to(&mut reasoning, &mut content));
        (reasoning, content)
    };
    let pair = |reasoning: &str, content: &str| (reasoning.to_owned(), content.to_owned());
    let (open, close) = ((7, "<think>"), (8, "</think>"));
    // Spelled in other tokens, a tag is text: a thought may speak of it.
    let spelled = [(0, "the "), (0, "</"), (0, "think"), (0, "> tag\n"), close, (0, "\n\nit is </think>")];
    assert_eq!(parse(OPENED, TOKENS, &spelled), pair("the </think> tag", "it is </think>"));
    assert_eq!(parse(UNOPENED, TOKENS, &[open, (0, "a"), close, (0, "b")]), pair("a", "b"));
    assert_eq!(parse(UNOPENED, TOKENS, &[(0, "a\n"), close, (0, "b"), close, (0, "c")]), pair("a", "bc"));
    assert_eq!(parse(UNOPENED, TOKENS, &[(0, "<think>a</think>"), (0, "b")]), pair("", "<think>a</think>b"));
    assert_eq!(parse("<think></think>", TOKENS, &[(0, "a"), close, (0, "b")]), pair("", "ab"));
    // Held back is only what a tag of text could be the rest of.
    let mut parser = ReasoningParser::for_tokens(OPENED, &TOKENS);
    assert_eq!(parser.push("1 <"), [ReasoningEvent::Reasoning("1 <".into())]);
    // A vocabulary may have one of the two.
    let half = ThinkTokens { open: None, close: Some(8) };
    assert_eq!(parse(UNOPENED, half, &[(0, "<th"), (0, "ink>a</think>b"), close, (0, "c")]), pair("a</think>b", "c"));
    assert_eq!((TOKENS.tag(7), TOKENS.tag(8)), (Some(ThinkTag::Open), Some(ThinkTag::Close)));
}

#[test]
fn what_turns_out_to_be_the_thought_is_said_once() {
    let mut parser = ReasoningParser::new(UNOPENED);
    assert_eq!(parser.push("easy\n"), [ReasoningEvent::Content("easy".into())]);
    assert!(!parser.is_thinking());
    let events = parser.push("so</think>\n4");
    let reasoning = ReasoningEvent::Reasoning("\nso".into());
    assert_eq!(events, [ReasoningEvent::ContentWasReasoning, reasoning, ReasoningEvent::Content("4".into())]);
}

fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "<think>", "</think>", "<", "</", "think", ">", "<thi", "nk>", "</thi", "\n", "\r\n", " ", "a", "é", "｜",
        "<b>",
    ]);
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]
    #[test]
    fn any_text_in_any_pieces(text in pieces(), bits in any::<u64>(), opened in any::<bool>()) {
        let prompt = if opened { OPENED } else { UNOPENED };
        let (reasoning, content) = parse(prompt, [text.as_str()]);
        prop_assert_eq!(parse(prompt, cut(&text, bits)), (reasoning.clone(), content.clone()));
        for part in [&reasoning, &content] {
            prop_assert!(!part.contains("<think>") && !part.contains("</think>"), "{:?}", part);
            prop_assert!(!part.starts_with(['\n', '\r']));
        }
        prop_assert!(!reasoning.ends_with(['\n', '\r']));
        let thought = split(prompt, &text);
        prop_assert_eq!((thought.reasoning.clone().unwrap_or_default(), thought.content), (reasoning, content));
        prop_assert!(thought.closed || !thought.format_ok);
    }

    #[test]
    fn nothing_but_tags_and_newlines_is_lost(thought in "[a-z <>&\n]{0,20}", answer in "[a-z <>&\n]{0,20}") {
        let text = format!("{thought}</think>{answer}");
        let newlines = ['\n', '\r'];
        let expected = (thought.trim_matches(newlines).to_owned(), answer.trim_start_matches(newlines).to_owned());
        prop_assert_eq!(parse(OPENED, [text.as_str()]), expected);
    }
}
