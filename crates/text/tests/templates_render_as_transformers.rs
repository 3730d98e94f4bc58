//! Published templates, and the functions that they call, give the text that transformers makes of them.
#![allow(clippy::unwrap_used)]

use minke_text::{ChatTemplate, Message, RenderOptions, SpecialTokens};
use serde_json::Value;

const CHAT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/chat");

fn read(name: &str) -> String {
    std::fs::read_to_string(format!("{CHAT}/{name}")).unwrap()
}

fn special() -> SpecialTokens {
    SpecialTokens::new("<|bos|>", "<|eos|>").with("unk_token", "<unk>").with("pad_token", "<|pad|>")
}

#[test]
fn functions_are_those_of_transformers() {
    let cases: Vec<Value> = serde_json::from_str(&read("functions.json")).unwrap();
    assert!(cases.len() >= 40);
    let messages = [Message::user("Hi"), Message::assistant("Yo\n")];
    let mut wrong = Vec::new();
    for case in &cases {
        let source = case["source"].as_str().unwrap();
        let template = ChatTemplate::new(source, special());
        let rendered =
            template.and_then(|template| template.render(&messages, false)).map_err(|error| error.to_string());
        if rendered.as_deref() != Ok(case["rendered"].as_str().unwrap()) {
            wrong.push(format!("{source:?} gave {rendered:?}, not {}", case["rendered"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn published_templates_give_the_same_text() {
    let text = read("published.json");
    let mut compared = 0;
    for line in text.lines().filter(|line| line.starts_with('{')) {
        let case: Value = serde_json::from_str(line.trim_end_matches(',')).unwrap();
        let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
        let (_, after) = line.split_once("\"tools\": ").unwrap();
        let (tools, _) = after.rsplit_once(", \"gen\": ").unwrap();
        let options = RenderOptions {
            add_generation_prompt: case["gen"] == true,
            tools: (tools != "null").then(|| tools.to_owned()),
            thinking: case["think"].as_bool(),
        };
        let name = case["template"].as_str().unwrap();
        let template = ChatTemplate::new(read(&format!("{name}.jinja")), special()).unwrap();
        let rendered = template.render_with(&messages, &options).unwrap();
        assert_eq!(rendered, case["rendered"].as_str().unwrap(), "{name} {}", case["name"]);
        compared += 1;
    }
    assert!(compared >= 80, "{compared}");
}

#[test]
fn today_is_a_date() {
    let render = |source: &str| ChatTemplate::new(source, special()).unwrap().render(&[Message::user("Hi")], false);
    let date = render("{{ strftime_now('%Y-%m-%d') }}").unwrap();
    let parts: Vec<u32> = date.split('-').map(|part| part.parse().unwrap()).collect();
    assert!(
        parts.len() == 3 && parts[0] >= 2025 && (1..=12).contains(&parts[1]) && (1..=31).contains(&parts[2]),
        "{date}"
    );
    assert_eq!(render("{% if strftime_now is defined %}now{% else %}old{% endif %}").unwrap(), "now");
    assert_eq!(render("{{ strftime_now('%d') | length }}{{ strftime_now('%B')[:0] }}").unwrap(), "2");
}
