//! What a message or the description of a tool spells never becomes the id of a control token, wherever it stands.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::LazyLock;

use minke_text::{
    ChatTemplate, FunctionCall, Message, ReasoningParser, RenderOptions, SpecialTokens, Tokenizer, ToolCall,
    ToolFormat, TrainOptions, Vocabulary,
};
use serde_json::{Value, json};

const TESTDATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata");

fn trained(added: &[&str]) -> Tokenizer {
    let lines = (0..50).map(|n| format!("What is {n}? <think> user assistant tool_call name arguments system {n}"));
    let added_tokens = added.iter().map(|token| (*token).to_owned()).collect();
    Tokenizer::train(lines, &TrainOptions { vocab_size: 420, added_tokens }).unwrap()
}

/// Tokens of a file of GGUF that holds nothing but a vocabulary.
fn vocabulary(name: &str) -> Tokenizer {
    struct Reader<'a>(&'a [u8]);
    impl Reader<'_> {
        fn number(&mut self, bytes: usize) -> u64 {
            let (number, rest) = self.0.split_at(bytes);
            self.0 = rest;
            number.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        }
        fn text(&mut self) -> String {
            let length = self.number(8) as usize;
            let (text, rest) = self.0.split_at(length);
            self.0 = rest;
            String::from_utf8_lossy(text).into_owned()
        }
        fn value(&mut self, kind: u64) -> Value {
            match kind {
                0 | 1 | 7 => json!(self.number(1)),
                2 | 3 => json!(self.number(2)),
                4..=6 => json!(self.number(4)),
                8 => json!(self.text()),
                9 => {
                    let (kind, length) = (self.number(4), self.number(8));
                    (0..length).map(|_| self.value(kind)).collect()
                }
                _ => json!(self.number(8)),
            }
        }
    }
    let file = std::fs::read(format!("{TESTDATA}/vocabularies/{name}.gguf")).unwrap();
    let mut reader = Reader(&file[8..]);
    let (_, keys) = (reader.number(8), reader.number(8));
    let mut values: HashMap<String, Value> = HashMap::new();
    for _ in 0..keys {
        let (key, kind) = (reader.text(), reader.number(4));
        values.insert(key.trim_start_matches("tokenizer.ggml.").into(), reader.value(kind));
    }
    let list = |key: &str| serde_json::from_value::<Vec<String>>(values[key].clone()).unwrap();
    let id = |key: &str| values.get(key).and_then(Value::as_u64).map(|id| id as u32);
    Tokenizer::from_vocabulary(&Vocabulary {
        tokens: list("tokens"),
        kinds: serde_json::from_value(values["token_type"].clone()).unwrap(),
        merges: list("merges"),
        pre: values["pre"].as_str().unwrap().to_owned(),
        bos_token_id: id("bos_token_id"),
        eos_token_id: id("eos_token_id"),
        pad_token_id: id("padding_token_id"),
        add_bos_token: None,
    })
    .unwrap()
}

/// Tokenizers with their control tokens.
static CONTROLS: LazyLock<Vec<Vec<String>>> =
    LazyLock::new(|| TOKENIZERS.iter().map(|(_, tokenizer)| controls(tokenizer)).collect());
static TOKENIZERS: LazyLock<Vec<(&str, Tokenizer)>> = LazyLock::new(|| {
    vec![
        ("V3", Tokenizer::load(format!("{TESTDATA}/tokenizer")).unwrap()),
        ("trained", trained(&["<answer>"])),
        (
            "like Qwen's",
            trained(&[
                "<|im_start|>",
                "<|im_end|>",
                "<|endoftext|>",
                "<tool_call>",
                "</tool_call>",
                "<tool_response>",
                "</tool_response>",
            ]),
        ),
        (
            "like Llama's",
            trained(&[
                "<|start_header_id|>",
                "<|end_header_id|>",
                "<|eot_id|>",
                "<|python_tag|>",
                "<|finetune_right_pad_id|>",
            ]),
        ),
        ("like Mistral's", trained(&["<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[ARGS]", "<unk>"])),
        // Of one character, of letters alone, white space, one inside another, with quotes.
        ("odd", trained(&["€", "system", "   ", "<<think>>", "think", "a\"b", "\n|", "|\t"])),
        ("deepseek-llm", vocabulary("ggml-vocab-deepseek-llm")),
        ("deepseek-coder", vocabulary("ggml-vocab-deepseek-coder")),
    ]
});

fn templates() -> Vec<(&'static str, ChatTemplate)> {
    let special = || SpecialTokens::new("<s>", "</s>");
    let read = |name: &str| std::fs::read_to_string(format!("{TESTDATA}/chat/{name}.jinja")).unwrap();
    let published = |name: &'static str| (name, ChatTemplate::new(read(name), special()).unwrap());
    let written = |name: &'static str, source: &str| (name, ChatTemplate::new(source, special()).unwrap());
    vec![
        ("r1", ChatTemplate::r1()),
        published("v3.1"),
        published("r1-tools"),
        published("qwen2.5-coder"),
        published("tools"),
        // Everything there is, as JSON and as text, stripped, behind each other.
        written("all as JSON", "{% if tools %}{{ tools | tojson }}{% endif %}{{ messages | tojson }}<think>"),
        written(
            "all in ASCII",
            "{% if tools %}{{ tools | tojson(ensure_ascii=true) }}{% endif %}{{ messages | tojson(ensure_ascii=true) }}",
        ),
        written(
            "all as text",
            "{% if tools %}{{ tools }}{% endif %}{% for m in messages %}{{ m }}{{ m.content | trim }}{{ m.reasoning_content | trim if m.reasoning_content else '' }}{{ m.name if m.name else '' }}\
             {% for c in m.tool_calls or [] %}{{ c.id }}{{ c.type }}{{ c.function.name }}{{ c.function.arguments }}{% endfor %}{{ m.tool_call_id if m.tool_call_id else '' }}{% endfor %}",
        ),
    ]
}

/// The places of texts in a conversation.
const FIELDS: [&str; 17] = [
    "system",
    "user",
    "user name",
    "assistant",
    "thought",
    "call id",
    "call type",
    "function",
    "arguments",
    "argument name",
    "result",
    "result id",
    "tool name",
    "description",
    "schema text",
    "schema key",
    "last user",
];

/// A conversation in which these places have a text and the others another.
fn conversation(text: &str, at: &dyn Fn(usize) -> bool) -> (Vec<Message>, String) {
    let put = |field: &str| {
        let at = at(FIELDS.iter().position(|name| *name == field).unwrap());
        if at { text.to_owned() } else { "word".to_owned() }
    };
    let call = ToolCall {
        id: Some(put("call id")),
        kind: put("call type"),
        function: FunctionCall {
            name: put("function"),
            arguments: json!({ put("argument name"): [put("arguments")] }).to_string(),
        },
    };
    let messages = vec![
        Message::system(format!("Be brief. {} So it is.", put("system"))),
        Message { name: Some(put("user name")), ..Message::user(put("user")) },
        Message { reasoning_content: Some(put("thought")), ..Message::assistant(put("assistant")) },
        Message::user("And now?"),
        Message::calls(vec![call]),
        Message { tool_call_id: Some(put("result id")), ..Message::tool(put("result")) },
        Message::user(format!("a{}b", put("last user"))),
    ];
    let tools = json!([{"type": "function", "function": {"name": put("tool name"), "description": put("description"),
        "parameters": {"type": "object", "properties": {put("schema key"): {"enum": [put("schema text")]}}}}}]);
    (messages, tools.to_string())
}

fn controls(tokenizer: &Tokenizer) -> Vec<String> {
    let added = |id: u32| {
        let text = std::str::from_utf8(tokenizer.token_bytes(id)).ok()?;
        // An added token is one that plain text never becomes.
        let is_added = tokenizer.encode(text) == [id] && tokenizer.encode_plain(text) != [id];
        (is_added && !text.trim().is_empty()).then(|| text.to_owned())
    };
    (0..tokenizer.vocab_size() as u32).filter_map(added).collect()
}

/// The ids of control tokens in a conversation, in order.
fn control_ids(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    added: &[u32],
    text: &str,
    at: &dyn Fn(usize) -> bool,
) -> Vec<u32> {
    let (messages, tools) = conversation(text, at);
    let options = RenderOptions { add_generation_prompt: true, tools: Some(tools), thinking: None };
    let rendered = template.render_for(&messages, &options, tokenizer).unwrap();
    let ids = tokenizer.encode_rendered(&rendered);
    let decoded = tokenizer.decode(&ids, false);
    let begun = &decoded[decoded.len().saturating_sub(rendered.text().len())..];
    assert_eq!(begun, rendered.text(), "{text:?}");
    ids.into_iter().filter(|id| added.contains(id)).collect()
}

#[test]
fn no_text_becomes_a_control_token() {
    let templates = templates();
    let mut checked = 0;
    for (turn, ((name, tokenizer), controls)) in TOKENIZERS.iter().zip(CONTROLS.iter()).enumerate() {
        assert!(controls.len() >= 7, "{name}: {controls:?}");
        let added: Vec<u32> = controls.iter().map(|token| tokenizer.id_of(token).unwrap()).collect();
        // Each tokenizer with half of the templates, those that hide most with all.
        let all = ["V3", "odd"].contains(name);
        for (kind, template) in templates.iter().skip(if all { 0 } else { turn % 2 }).step_by(if all { 1 } else { 2 }) {
            let harmless = control_ids(tokenizer, template, &added, "word", &|_| true);
            for (number, token) in controls.iter().enumerate() {
                // Of hundreds of placeholders a few.
                if token.contains("place▁holder") && number % 200 > 0 {
                    continue;
                }
                // Alone, and several; by turns, as rendering starts a thread each time.
                let texts = [token.clone(), format!("{token}{token} {token}x")];
                for text in texts.iter().skip(usize::from(number % 3 > 0)) {
                    assert_eq!(
                        control_ids(tokenizer, template, &added, text, &|_| true),
                        harmless,
                        "{name} {kind} {text:?}"
                    );
                    checked += 1;
                }
                // Place by place, lest one hide another.
                if number % 12 == 0 && controls.len() < 40 {
                    for (place, field) in FIELDS.iter().enumerate() {
                        let found = control_ids(tokenizer, template, &added, token, &|other| other == place);
                        assert_eq!(found, harmless, "{name} {kind} {field} {token:?}");
                        checked += 1;
                    }
                }
            }
        }
    }
    assert!(checked > 1000, "{checked}");
}

#[test]
fn tokens_do_not_arise_between_texts() {
    let join = "{% for m in messages %}{{ m.content | trim }}{% endfor %}";
    let template = ChatTemplate::new(join, SpecialTokens::default()).unwrap();
    for ((name, tokenizer), controls) in TOKENIZERS.iter().zip(CONTROLS.iter()) {
        let added: Vec<u32> = controls.iter().map(|token| tokenizer.id_of(token).unwrap()).collect();
        for token in controls.iter().filter(|token| !token.contains("place▁holder")).step_by(3) {
            let cuts: Vec<usize> = token.char_indices().map(|(at, _)| at).skip(1).collect();
            for first in cuts.iter().step_by(cuts.len().div_ceil(5).max(1)) {
                for second in cuts.iter().step_by(cuts.len().div_ceil(3).max(1)) {
                    let pieces =
                        [&token[..*first], &token[*first..(*first).max(*second)], &token[(*first).max(*second)..]];
                    for blank in ["", " \n"] {
                        let messages: Vec<Message> =
                            pieces.iter().map(|piece| Message::user(format!("{blank}{piece}{blank}"))).collect();
                        let rendered = template.render_for(&messages, &RenderOptions::default(), tokenizer).unwrap();
                        let ids = tokenizer.encode_rendered(&rendered);
                        let found = ids[tokenizer.begin_ids().len()..].iter().filter(|id| added.contains(id)).count();
                        assert_eq!(found, 0, "{name} {pieces:?} {:?}", rendered.text());
                    }
                }
            }
        }
    }
}

#[test]
fn escapes_hide_nothing() {
    let tokenizer = &TOKENIZERS[2].1;
    let think = tokenizer.id_of("<think>").unwrap();
    let hidden = "{\"a\": \"\\u003cthink\\u003e\", \"\\u003cthink>\": 1}";
    let call = ToolCall {
        id: None,
        kind: "function".into(),
        function: FunctionCall { name: "f".into(), arguments: hidden.into() },
    };
    let messages = [Message::user("Hi"), Message::calls(vec![call])];
    let tools = r#"[{"type": "function", "function": {"name": "f", "description": "\u003cthink\u003e", "parameters": {"\u003cthink>": 1.0}}}]"#;
    let options = RenderOptions { tools: Some(tools.into()), ..RenderOptions::default() };
    for (name, template) in templates().iter().filter(|(name, _)| !["all as JSON", "v3.1"].contains(name)) {
        let rendered = template.render_for(&messages, &options, tokenizer).unwrap();
        let ids = tokenizer.encode_rendered(&rendered);
        assert!(!ids.contains(&think), "{name} {}", rendered.text());
        if template.source().contains("tools") {
            assert_eq!(rendered.text(), template.render_with(&messages, &options).unwrap(), "{name}");
        }
    }
}

#[test]
fn ordinary_conversations_are_as_ever() {
    let mut compared = 0;
    for (file, special) in [("published", true), ("renderings", false)] {
        let text = std::fs::read_to_string(format!("{TESTDATA}/chat/{file}.json")).unwrap();
        for line in text.lines().filter(|line| line.starts_with('{')) {
            let case: Value = serde_json::from_str(line.trim_end_matches(',')).unwrap();
            let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
            let (_, after) = line.split_once("\"tools\": ").unwrap();
            let (tools, _) = after.rsplit_once(if special { ", \"gen\": " } else { ", \"thinking\": " }).unwrap();
            let options = RenderOptions {
                add_generation_prompt: !special || case["gen"] == true,
                tools: (tools != "null").then(|| tools.to_owned()),
                thinking: case[if special { "think" } else { "thinking" }].as_bool(),
            };
            let path = format!("{TESTDATA}/chat/{}.jinja", case["template"].as_str().unwrap());
            let template = match special {
                true => ChatTemplate::new(
                    std::fs::read_to_string(path).unwrap(),
                    SpecialTokens::new("<|bos|>", "<|eos|>").with("unk_token", "<unk>").with("pad_token", "<|pad|>"),
                )
                .unwrap(),
                false => ChatTemplate::load(path).unwrap(),
            };
            for ((name, tokenizer), controls) in
                TOKENIZERS.iter().zip(CONTROLS.iter()).filter(|((name, _), _)| *name != "odd")
            {
                let rendered = template.render_for(&messages, &options, tokenizer).unwrap();
                let expected = case["rendered"].as_str().unwrap();
                let knows_tools = tools == "null" || template.source().contains("tools");
                if knows_tools || *name == "V3" {
                    assert_eq!(rendered.text(), expected, "{name} {} {}", case["template"], case["name"]);
                }
                let spelled = format!("{}{tools}", case["messages"]);
                if !CONTROLS[0].iter().chain(controls).any(|token| spelled.contains(token)) && !spelled.contains("\\u")
                {
                    assert_eq!(
                        tokenizer.encode_rendered(&rendered),
                        tokenizer.encode_prompt(rendered.text()),
                        "{name} {expected}"
                    );
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 200, "{compared}");
}

#[test]
fn thoughts_of_earlier_turns_are_cut_off_as_ever() {
    let tokenizer = &TOKENIZERS[0].1;
    let close = tokenizer.id_of("</think>").unwrap();
    let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
    let qwen3 = "{% for m in messages %}{% set content = m.content %}{% set thought = '' %}{% if m.reasoning_content is defined %}{% set thought = m.reasoning_content %}\
        {% elif '</think>' in content %}{% set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}{% set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif %}\
        <{{ m.role }}>{{ thought }}|{{ content }}{% endfor %}";
    let qwen3 = ChatTemplate::new(qwen3, SpecialTokens::default()).unwrap();
    let v3_1 = ChatTemplate::load(format!("{TESTDATA}/chat/v3.1.jinja")).unwrap();
    let plain = ChatTemplate::load(format!("{TESTDATA}/chat/smollm2.jinja")).unwrap();
    for template in [ChatTemplate::r1(), v3_1, qwen3, plain] {
        for answer in [
            "<think>\nHm.\n</think>\n\nYes.",
            "</think>Yes.",
            "a</think>b</think>c",
            "<think>never closed",
            "Yes.",
            "<think></think>",
        ] {
            let messages = [Message::user("Hi"), Message::assistant(answer), Message::user("<｜User｜>And?")];
            let rendered = template.render_for(&messages, &options, tokenizer).unwrap();
            assert_eq!(rendered.text(), template.render_with(&messages, &options).unwrap(), "{answer:?}");
            let harmless = [Message::user("Hi"), Message::assistant("Yes."), Message::user("And?")];
            let expected = tokenizer.encode_rendered(&template.render_for(&harmless, &options, tokenizer).unwrap());
            let count = |ids: &[u32]| ids.iter().filter(|id| **id == close).count();
            assert_eq!(count(&tokenizer.encode_rendered(&rendered)), count(&expected), "{answer:?}");
        }
    }
}

#[test]
fn characters_for_marks_may_be_used_in_texts() {
    let tokenizer = &TOKENIZERS[0].1;
    let all: String = ('\u{fdd0}'..='\u{fdef}').collect();
    let user = tokenizer.id_of("<｜User｜>").unwrap();
    for text in ["\u{fdd0}<｜User｜>\u{fdd1}", &format!("{all}<｜User｜>"), "\\ufdd0 \\u{fdd1} <｜User｜>"] {
        let messages = [Message::user(text)];
        let rendered = ChatTemplate::r1().render_for(&messages, &RenderOptions::default(), tokenizer).unwrap();
        assert_eq!(rendered.text(), ChatTemplate::r1().render(&messages, false).unwrap());
        let ids = tokenizer.encode_rendered(&rendered);
        assert_eq!(ids.iter().filter(|id| **id == user).count(), 1);
        assert_eq!(tokenizer.decode(&ids, false), rendered.text());
    }
    let everything: String = all.chars().chain('\u{f0000}'..='\u{ffffd}').chain('\u{100000}'..='\u{10fffd}').collect();
    let error =
        ChatTemplate::r1().render_for(&[Message::user(everything)], &RenderOptions::default(), tokenizer).unwrap_err();
    assert!(error.to_string().contains("private use"), "{error}");
}

#[test]
fn a_thought_opens_where_the_template_opens_it() {
    let tokenizer = &TOKENIZERS[0].1;
    let template = ChatTemplate::new(
        "{{ messages[-1].content }}{{ '<think>' if add_generation_prompt }}",
        SpecialTokens::default(),
    )
    .unwrap();
    let tags = tokenizer.think_tokens();
    for (text, generation, expected) in
        [("<think>", false, false), ("a", true, true), ("<think>", true, true), ("a", false, false)]
    {
        let options = RenderOptions { add_generation_prompt: generation, ..RenderOptions::default() };
        let rendered = template.render_for(&[Message::user(text)], &options, tokenizer).unwrap();
        assert_eq!(ReasoningParser::for_rendered(&rendered, &tags).is_thinking(), expected, "{text} {generation}");
    }
}

#[test]
fn tools_are_described_in_words_that_the_vocabulary_has() {
    let template = ChatTemplate::r1();
    let options = RenderOptions {
        tools: Some(r#"[{"type": "function", "function": {"name": "f"}}]"#.into()),
        ..RenderOptions::default()
    };
    let describe = |tokenizer: &Tokenizer, template: &ChatTemplate| {
        template.render_for(&[Message::user("Hi")], &options, tokenizer).unwrap().text().to_owned()
    };
    let (v3, other) = (&TOKENIZERS[0].1, &TOKENIZERS[1].1);
    assert_eq!(
        (template.tool_format(v3), template.tool_format(other)),
        (ToolFormat::DeepSeekFenced, ToolFormat::Hermes)
    );
    assert!(describe(v3, &template).contains("<｜tool▁calls▁begin｜>"));
    let hermes = describe(other, &template);
    assert!(
        hermes.contains("<tools>\n{\"type\": \"function\", \"function\": {\"name\": \"f\"}}\n</tools>")
            && !hermes.contains("<｜tool"),
        "{hermes}"
    );
    let qwen = ChatTemplate::load(format!("{TESTDATA}/chat/qwen2.5-coder.jinja")).unwrap();
    assert_eq!(qwen.tool_format(v3), ToolFormat::Hermes);
}
