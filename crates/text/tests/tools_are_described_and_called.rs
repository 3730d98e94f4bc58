//! Tools and their calls are written as published templates write them, and read back under any chunking.
#![allow(clippy::unwrap_used)]

use minke_text::ToolEvent::{Arguments, Call, Content};
use minke_text::{ChatTemplate, FunctionCall, Message, RenderOptions, ToolCall, ToolCallParser, ToolEvent};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::value::Value;

const CHAT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/chat");

fn template(name: &str) -> ChatTemplate {
    ChatTemplate::load(format!("{CHAT}/{name}.jinja")).unwrap()
}

fn v3_1_and_r1() -> [ChatTemplate; 2] {
    [template("v3.1"), ChatTemplate::r1()]
}

/// Cuts the tools out of a case as they stand there: the order of their keys matters.
fn raw_tools(line: &str) -> Option<String> {
    let (_, after) = line.split_once("\"tools\": ").unwrap();
    let (tools, _) = after.rsplit_once(", \"thinking\": ").unwrap();
    (tools != "null").then(|| tools.into())
}

#[test]
fn renderings_are_those_of_transformers() {
    #[derive(Deserialize)]
    struct Case {
        template: String,
        name: String,
        messages: Vec<Message>,
        thinking: Option<bool>,
        rendered: String,
    }
    let text = std::fs::read_to_string(format!("{CHAT}/renderings.json")).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with('{')).collect();
    assert_eq!(lines.len(), 36);
    for line in lines {
        let case: Case = serde_json::from_str(line.trim_end_matches(',')).unwrap();
        let options = RenderOptions { add_generation_prompt: true, tools: raw_tools(line), thinking: case.thinking };
        let rendered = template(&case.template).render_with(&case.messages, &options).unwrap();
        assert_eq!(rendered, case.rendered, "{} {}", case.template, case.name);
    }
}

#[test]
fn a_template_that_knows_no_tools_finds_them_in_the_system_message() {
    let tools = r#"[{"type": "function", "function": {"name": "f", "description": "Does.", "parameters": {"b": 1, "a": {}}}},
        {"function": {"name": "g"}}]"#;
    let options = RenderOptions { add_generation_prompt: true, tools: Some(tools.into()), thinking: Some(false) };
    // As V3.1's model card has it.
    let described = "\n\n## Tools\nYou have access to the following tools:\n\
        \n### f\nDescription: Does.\n\nParameters: {\"b\": 1, \"a\": {}}\n\
        \n### g\nDescription: \n\nParameters: {}\n\
        \nIMPORTANT: ALWAYS adhere to this exact format for tool use:\n\
        <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>tool_call_name<｜tool▁sep｜>tool_call_arguments<｜tool▁call▁end｜>\
        {additional_tool_calls}<｜tool▁calls▁end｜>\n\n\
        Where:\n\
        - `tool_call_name` must be an exact match to one of the available tools\n\
        - `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters Schema\n\
        - For multiple tool calls, chain them directly without separators or spaces";
    let [v3_1, r1] = v3_1_and_r1();
    let user = Message::user("Hi");
    let alone = v3_1.render_with(std::slice::from_ref(&user), &options).unwrap();
    assert_eq!(alone, format!("<｜begin▁of▁sentence｜>{described}<｜User｜>Hi<｜Assistant｜><think></think>"));
    let both = v3_1.render_with(&[Message::system("Be brief."), user.clone()], &options).unwrap();
    assert!(both.starts_with(&format!("<｜begin▁of▁sentence｜>Be brief.{described}<｜User｜>")), "{both}");
    let fenced = r1.render_with(&[user], &options).unwrap();
    assert!(fenced.contains("begin｜>function<｜tool▁sep｜>tool_call_name\n```json\ntool_call_arguments\n```<｜tool"));

    for broken in ["{}", "[1]", "[{\"function\": {}}]", "["] {
        let options = RenderOptions { tools: Some(broken.into()), ..Default::default() };
        let error = v3_1.render_with(&[Message::user("Hi")], &options).unwrap_err().to_string();
        assert!(error.starts_with("tools: ") && !error.contains('\n'), "{error}");
    }
}

/// Parses a text in pieces of so many characters; neighbouring pieces of one kind are joined.
fn parsed(text: &str, mut sizes: impl Iterator<Item = usize>) -> Vec<ToolEvent> {
    let (mut parser, mut events) = (ToolCallParser::default(), Vec::new());
    let characters: Vec<char> = text.chars().collect();
    let mut rest = &characters[..];
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(sizes.next().unwrap().clamp(1, rest.len()));
        events.extend(parser.push(&piece.iter().collect::<String>()));
        rest = after;
    }
    events.extend(parser.finish());
    let mut joined: Vec<ToolEvent> = Vec::new();
    for event in events {
        match (joined.last_mut(), event) {
            (Some(Content(last)), Content(next)) | (Some(Arguments(last)), Arguments(next)) => last.push_str(&next),
            (_, event) => joined.push(event),
        }
    }
    joined
}

fn whole(text: &str) -> Vec<ToolEvent> {
    parsed(text, std::iter::repeat(usize::MAX))
}

fn calls(calls: &[(&str, &str)]) -> Vec<ToolEvent> {
    calls.iter().flat_map(|(name, arguments)| [Call((*name).into()), Arguments((*arguments).into())]).collect()
}

#[test]
fn both_formats_are_read_even_if_sloppy() {
    let two = calls(&[("f", "{\"a\": 1}"), ("g", "{\"b\": [\"`\"]}")]);
    for text in [
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜><｜tool▁call▁begin｜>g\
         <｜tool▁sep｜>{\"b\": [\"`\"]}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": 1}\n```<｜tool▁call▁end｜>\n\
         <｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n{\"b\": [\"`\"]}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        // Without the first tag, as R1's template writes a second round; a fence where none belongs; no fence where one does;
        // no end.
        "\n<｜tool▁call▁begin｜>f<｜tool▁sep｜>```json\n{\"a\": 1}\n```\n<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function\
         <｜tool▁sep｜>g\n{\"b\": [\"`\"]}\n",
    ] {
        assert_eq!(whole(text), two, "{text}");
    }
    let spoken = whole(
        "Let me see.\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜><｜tool▁call▁end｜><｜tool▁calls▁end｜>Done",
    );
    let events = [Content("Let me see.\n".into()), Call("f".into()), Arguments("{}".into()), Content("Done".into())];
    assert_eq!(spoken, events);
}

#[test]
fn what_is_no_call_is_content() {
    for text in [
        "a < b, <｜tool▁calls",
        "<｜tool▁call▁begin｜>no separator<｜tool▁call▁end｜>",
        "<｜tool▁call▁begin｜>cut",
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>cut",
        "  ",
    ] {
        let want = if text.trim().is_empty() { "  " } else { text };
        assert_eq!(whole(text), [Content(want.into())], "{text}");
    }
}

#[test]
fn rendered_calls_are_read_back() {
    let arguments = [
        "{}",
        "{\"city\": \"北京 `</think>` \\n\", \"deep\": {\"b\": [1, 2.5, null], \"a\": true}}",
        "{\"x\": \"```\"}",
    ];
    for template in v3_1_and_r1() {
        for count in 1..=3 {
            let asked: Vec<(&str, &str)> =
                ["f", "get_weather", "h.i-j"].into_iter().zip(arguments).take(count).collect();
            let tool_calls = asked.iter().map(|(name, arguments)| ToolCall {
                id: None,
                kind: "function".into(),
                function: FunctionCall { name: (*name).into(), arguments: (*arguments).into() },
            });
            let calls_only = Message::calls(tool_calls.collect());
            let prompt = template.render(&[Message::user("Hi"), calls_only], false).unwrap();
            let (_, answer) = prompt.split_once("<｜Assistant｜>").unwrap();
            let answer = answer.trim_start_matches("<think></think>").replace("<｜end▁of▁sentence｜>", "");
            assert_eq!(whole(&answer), calls(&asked));
            let as_json: Vec<Value> = asked.iter().map(|(_, text)| serde_json::from_str(text).unwrap()).collect();
            assert_eq!(as_json.len(), count);
        }
    }
}

fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁calls▁end｜>",
        "<｜tool▁call▁begin｜>",
        "<｜tool▁call▁end｜>",
        "<｜tool▁sep｜>",
        "<｜tool",
        "function",
        "name",
        "\n",
        "```json\n",
        "\n```",
        "```",
        "{\"a\": 1}",
        " ",
        "<",
        "京",
    ]);
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn chunks_change_nothing(text in pieces(), sizes in prop::collection::vec(1usize..9, 1..40)) {
        let all = whole(&text);
        prop_assert_eq!(parsed(&text, std::iter::repeat(1)), all.clone());
        prop_assert_eq!(parsed(&text, sizes.into_iter().cycle()), all);
    }
}
