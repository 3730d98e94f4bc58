//! Calls of tools in the formats of several families are read back under any chunking, and grammars allow nothing else.
#![allow(clippy::unwrap_used)]

use std::sync::LazyLock;

use minke_text::ToolEvent::{self, Arguments, Call, Content, Incomplete};
use minke_text::ToolFormat::{self, DeepSeekBare, DeepSeekFenced, Hermes, Llama, MistralList, MistralNamed, QwenCoder};
use minke_text::{
    Grammar, GrammarSource, GrammarVocabulary, Tokenizer, Tool, ToolCallParser, ToolChoice, TrainOptions,
};
use serde::Deserialize;
use serde_json::{Value, json};

const FORMATS: [ToolFormat; 7] = [DeepSeekFenced, DeepSeekBare, Hermes, QwenCoder, Llama, MistralList, MistralNamed];
/// Their names in the table.
const FORMAT_NAMES: [&str; 7] =
    ["deepseek_fenced", "deepseek_bare", "hermes", "qwen_coder", "llama", "mistral_list", "mistral_named"];
const TAGS: [&str; 10] = [
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
    "<tool_call>",
    "</tool_call>",
    "<|python_tag|>",
    "[TOOL_CALLS]",
    "[ARGS]",
];

fn tool(name: &str, parameters: Value, strict: bool) -> Tool {
    Tool { name: name.into(), description: "Does.".into(), parameters: Some(parameters), strict }
}

fn tools() -> Vec<Tool> {
    let parameters = json!({"type": "object", "properties": {
        "s": {"type": "string"}, "n": {"type": "integer"}, "x": {"type": "number"}, "b": {"type": "boolean"}, "l": {"type": "array"},
        "o": {"type": "object"}, "e": {"enum": [1, "one", null]}, "m": {"type": ["string", "null"]},
        "any": {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    }});
    vec![tool("f", parameters, false), tool("g", json!({"type": "object"}), false)]
}

fn joined(events: impl IntoIterator<Item = ToolEvent>) -> Vec<ToolEvent> {
    let mut all: Vec<ToolEvent> = Vec::new();
    for event in events {
        match (all.last_mut(), event) {
            (Some(Content(last)), Content(next)) | (Some(Arguments(last)), Arguments(next)) => last.push_str(&next),
            (_, event) => all.push(event),
        }
    }
    all
}

fn parsed<'a>(format: ToolFormat, pieces: impl IntoIterator<Item = &'a str>) -> Vec<ToolEvent> {
    let mut parser = ToolCallParser::new(format, &tools());
    let mut events: Vec<ToolEvent> = pieces.into_iter().flat_map(|piece| parser.push(piece)).collect();
    events.extend(parser.finish());
    joined(events)
}

/// Draws of splitmix64.
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let lines = (0..200).map(|n| {
        format!("{{\"name\": \"f\", \"arguments\": {{\"s\": \"{n}\"}}}}\n<function=f>\n<parameter=s>\n{n}\n</parameter>\n</function>")
    });
    let added_tokens = TAGS.map(str::to_owned).into();
    Tokenizer::train(lines, &TrainOptions { vocab_size: 500, added_tokens }).unwrap()
});
/// The same without tags that are tokens.
static PLAIN: LazyLock<Tokenizer> = LazyLock::new(|| {
    let options = TrainOptions { vocab_size: 300, added_tokens: vec![] };
    Tokenizer::train(["{\"name\": \"f\"}</tool_call>"; 9].iter(), &options).unwrap()
});

/// A text with what it is: texts, and calls that may be cut off.
#[derive(Deserialize)]
struct Case {
    format: String,
    text: String,
    answer: Vec<Value>,
}

static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/answers/calls.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
});

/// Texts with what they are.
fn table() -> impl Iterator<Item = (ToolFormat, &'static str, Vec<ToolEvent>)> {
    CASES.iter().map(|case| {
        let format = FORMATS[FORMAT_NAMES.iter().position(|name| *name == case.format).unwrap()];
        let mut events = Vec::new();
        for part in &case.answer {
            let field = |name: &str| part[name].as_str().unwrap().to_owned();
            match part.as_str() {
                Some(text) => events.push(Content(text.into())),
                None => {
                    events.push(Call(field("name")));
                    events.extend(Some(field("arguments")).filter(|text| !text.is_empty()).map(Arguments));
                    events.extend((part["cut"] == true).then_some(Incomplete));
                }
            }
        }
        (format, case.text.as_str(), events)
    })
}

#[test]
fn each_format_is_read() {
    assert!(CASES.len() >= 80, "{}", CASES.len());
    let mut wrong = Vec::new();
    for (format, text, events) in table() {
        let found = parsed(format, [text]);
        if found != events {
            wrong.push(format!("{format:?} {text:?}\n  gave {found:?}\n  not  {events:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn chunks_change_nothing() {
    let mut draws = Draws(3);
    // Each text in each format: what is a call in one is a look-alike in another.
    for (_, text, _) in table() {
        for format in FORMATS {
            let whole = parsed(format, [text]);
            assert_eq!(
                parsed(format, text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()])),
                whole,
                "{format:?} {text:?}"
            );
            let ids = TOKENIZER.encode(text);
            let mut stream = minke_text::Utf8Stream::default();
            let pieces: Vec<String> = ids.iter().map(|id| stream.push(TOKENIZER.token_bytes(*id))).collect();
            assert_eq!(parsed(format, pieces.iter().map(String::as_str)), whole, "{format:?} {text:?}");
            for _ in 0..20 {
                let mut pieces = Vec::new();
                let mut rest = text;
                while !rest.is_empty() {
                    let mut at = 1 + draws.below(12);
                    while !rest.is_char_boundary(at.min(rest.len())) {
                        at += 1;
                    }
                    let (piece, after) = rest.split_at(at.min(rest.len()));
                    pieces.push(piece);
                    rest = after;
                }
                assert_eq!(parsed(format, pieces), whole, "{format:?} {text:?}");
            }
        }
    }
}

#[test]
fn mixtures_lose_nothing_and_end_quickly() {
    let pieces = [
        "<tool_call>",
        "</tool_call>",
        "<function=f>",
        "</function>",
        "<parameter=s>",
        "</parameter>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "<|python_tag|>",
        "{\"name\": \"f\", ",
        "\"arguments\": {",
        "\"parameters\": {\"s\": \"",
        "\"}",
        "}",
        "]",
        "[",
        "\n",
        " ",
        "f",
        "京",
        "\\",
        "\"",
        ",",
        ":",
        "<｜tool▁call▁begin｜>",
        "<｜tool▁sep｜>",
        "<｜tool▁call▁end｜>",
        ";",
        "{",
    ];
    let mut draws = Draws(9);
    for _ in 0..4000 {
        let text: String = (0..draws.below(14)).map(|_| pieces[draws.below(pieces.len())]).collect();
        for format in FORMATS {
            let whole = parsed(format, [text.as_str()]);
            assert_eq!(
                parsed(format, text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()])),
                whole,
                "{format:?} {text:?}"
            );
            if !whole.iter().any(|event| matches!(event, Call(_))) && ![DeepSeekBare, DeepSeekFenced].contains(&format)
            {
                assert_eq!(
                    whole,
                    if text.is_empty() { vec![] } else { vec![Content(text.clone())] },
                    "{format:?} {text:?}"
                );
            }
        }
    }
    let start = std::time::Instant::now();
    for format in FORMATS {
        for piece in pieces {
            let text = piece.repeat(20_000);
            parsed(format, [text.as_str()]);
            let call = format!("<tool_call>\n<function=f>\n<parameter=s>\n{text}");
            parsed(format, [call.as_str()]);
            let call = format!("<tool_call>{{\"name\": \"f\", \"arguments\": {{\"s\": \"\n{text}");
            parsed(format, [call.as_str()]);
        }
    }
    assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
}

#[test]
fn formats_are_seen_in_templates() {
    let read = |name: &str| {
        std::fs::read_to_string(format!("{}/../../testdata/chat/{name}.jinja", env!("CARGO_MANIFEST_DIR"))).unwrap()
    };
    for (source, format) in [
        (read("qwen2.5-coder"), Some(Hermes)),
        (read("r1-tools"), Some(DeepSeekFenced)),
        (read("v3.1"), Some(DeepSeekBare)),
        (read("smollm2"), None),
        (read("tools"), None),
        ("'[TOOL_CALLS] ' + calls".into(), Some(MistralList)),
        ("'[TOOL_CALLS]' + name + '[ARGS]'".into(), Some(MistralNamed)),
        ("'<tool_call>\\n<function=' + name + '<parameter='".into(), Some(QwenCoder)),
        ("'<|start_header_id|>' '{\"name\": \"' '\"parameters\": '".into(), Some(Llama)),
    ] {
        assert_eq!(ToolFormat::of_template(&source), format, "{source}");
    }
}

fn compile(tokenizer: &Tokenizer, source: &GrammarSource) -> Grammar {
    let vocabulary = GrammarVocabulary::new(tokenizer, tokenizer.vocab_size(), &tokenizer.end_ids(&[])).unwrap();
    Grammar::compile(&vocabulary, source).unwrap_or_else(|error| panic!("{source:?}: {error}"))
}

fn allowed(grammar: &Grammar, ids: &[u32]) -> Vec<u32> {
    let mut words = [0; 16];
    grammar.mask(ids, &mut words);
    (0..512).filter(|id| words[*id as usize / 32] >> (id % 32) & 1 == 1).collect()
}

/// Whether ids are a whole answer, by the masks.
fn accepts(grammar: &Grammar, tokenizer: &Tokenizer, text: &str) -> bool {
    let ids = tokenizer.encode(text);
    (0..ids.len()).all(|at| allowed(grammar, &ids[..at]).contains(&ids[at]))
        && allowed(grammar, &ids).contains(&tokenizer.end_ids(&[])[0])
}

/// How each format writes these two calls, one behind the other.
fn written(format: ToolFormat) -> (&'static str, &'static str) {
    match format {
        DeepSeekFenced => (
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"s\": \"a\"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"s\": \"a\"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n{\"n\": 1}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        ),
        DeepSeekBare => (
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"s\": \"a\"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"s\": \"a\"}<｜tool▁call▁end｜><｜tool▁call▁begin｜>g<｜tool▁sep｜>{\"n\": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        ),
        Hermes => (
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"s\": \"a\"}}\n</tool_call>",
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"s\": \"a\"}}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", \"arguments\": {\"n\": 1}}\n</tool_call>",
        ),
        QwenCoder => (
            "<tool_call>\n<function=f>\n<parameter=s>\na\n</parameter>\n</function>\n</tool_call>",
            "<tool_call>\n<function=f>\n<parameter=s>\na\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=g>\n<parameter=n>\n1\n</parameter>\n</function>\n</tool_call>",
        ),
        Llama => (
            "{\"name\": \"f\", \"parameters\": {\"s\": \"a\"}}",
            "{\"name\": \"f\", \"parameters\": {\"s\": \"a\"}}; {\"name\": \"g\", \"parameters\": {\"n\": 1}}",
        ),
        MistralList => (
            "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"s\": \"a\"}}]",
            "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"s\": \"a\"}}, {\"name\": \"g\", \"arguments\": {\"n\": 1}}]",
        ),
        _ => ("[TOOL_CALLS]f[ARGS]{\"s\": \"a\"}", "[TOOL_CALLS]f[ARGS]{\"s\": \"a\"}[TOOL_CALLS]g[ARGS]{\"n\": 1}"),
    }
}

fn strict_tools() -> Vec<Tool> {
    let f = json!({"type": "object", "properties": {"s": {"type": "string"}}, "required": ["s"], "additionalProperties": false});
    let g = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": false});
    vec![tool("f", f, true), tool("g", g, true)]
}

#[test]
fn calls_are_bound_in_each_format() {
    let tools = strict_tools();
    for tokenizer in [&*TOKENIZER, &*PLAIN] {
        for format in FORMATS {
            let (one, two) = written(format);
            let wrong = one.replace("\"s\"", "\"t\"").replace("=s>", "=t>");
            let grammar = |choice: ToolChoice, parallel| {
                let made = format.grammar(&tools, &choice, parallel).unwrap().unwrap();
                assert!(made.unconstrained.is_empty());
                compile(tokenizer, &made.source)
            };
            let check = |grammar: &Grammar, text: &str, expected: bool| {
                assert_eq!(accepts(grammar, tokenizer, text), expected, "{format:?} {text:?}");
            };
            let required = grammar(ToolChoice::Required, true);
            for (text, expected) in [(one, true), (two, true), (wrong.as_str(), false), ("", false), ("a", false)] {
                check(&required, text, expected);
            }
            check(&required, &format!("a{one}"), false);
            let single = grammar(ToolChoice::Required, false);
            check(&single, one, true);
            check(&single, two, false);
            let g = grammar(ToolChoice::Function("g".into()), true);
            check(&g, one, false);
            check(
                &g,
                &one.replace("f<｜tool▁sep", "g<｜tool▁sep")
                    .replace("sep｜>f", "sep｜>g")
                    .replace("=f>", "=g>")
                    .replace("\"f\"", "\"g\"")
                    .replace("]f[", "]g[")
                    .replace("\"s\": \"a\"", "\"n\": 12")
                    .replace("=s>\na", "=n>\n12"),
                true,
            );
            let auto = grammar(ToolChoice::Auto, true);
            for (text, expected) in
                [(one, true), (two, true), ("", true), ("Hello <tool", true), (wrong.as_str(), false)]
            {
                check(&auto, text, expected);
            }
            if format != Llama {
                check(&auto, &format!("Let me\nsee. {two}"), true);
                check(&auto, &format!("Let me see. {wrong}"), false);
            }
            let once = grammar(ToolChoice::Auto, false);
            check(&once, one, true);
            check(&once, two, false);
            check(&once, "no call", true);
        }
    }
}

#[test]
fn walks_call_tools_with_valid_arguments() {
    let f = json!({"type": "object", "properties": {"s": {"type": "string"}, "n": {"type": "integer", "minimum": 0, "maximum": 99}, "l": {"type": "array", "items": {"$ref": "#/$defs/b"}, "maxItems": 3}},
        "required": ["s", "l"], "additionalProperties": false, "$defs": {"b": {"type": "boolean"}}});
    let g = json!({"type": "object", "properties": {"e": {"type": "string", "enum": ["up", "down"]}}, "required": ["e"], "additionalProperties": false});
    let tools = [tool("f", f, true), tool("g", g, true)];
    let validators: Vec<_> =
        tools.iter().map(|tool| jsonschema::validator_for(tool.parameters.as_ref().unwrap()).unwrap()).collect();
    let end = TOKENIZER.end_ids(&[])[0];
    for format in FORMATS {
        let source = format.grammar(&tools, &ToolChoice::Required, true).unwrap().unwrap().source;
        let compiled = compile(&TOKENIZER, &source);
        let mut draws = Draws(5);
        let mut calls = 0;
        for _ in 0..60 {
            let grammar = compiled.fresh();
            let mut ids = Vec::new();
            loop {
                let next = allowed(&grammar, &ids);
                assert!(!next.is_empty(), "{format:?} {:?}", TOKENIZER.decode(&ids, false));
                let id = if next.contains(&end) && draws.below(2) == 0 { end } else { next[draws.below(next.len())] };
                if id == end || ids.len() == 200 {
                    break;
                }
                ids.push(id);
            }
            if !grammar.is_complete(&ids) {
                continue;
            }
            let text = TOKENIZER.decode(&ids, false);
            let mut parser = ToolCallParser::new(format, &tools);
            let mut events = parser.push(&text);
            events.extend(parser.finish());
            let mut name = String::new();
            for event in joined(events) {
                match event {
                    Call(called) => name = called,
                    Arguments(arguments) => {
                        calls += 1;
                        let at = tools.iter().position(|tool| tool.name == name).unwrap();
                        let value: Value = serde_json::from_str(&arguments).unwrap();
                        assert!(validators[at].is_valid(&value), "{format:?} {text:?} {arguments}");
                    }
                    other => panic!("{format:?} {text:?}: {other:?}"),
                }
            }
        }
        assert!(calls > 10, "{format:?}: {calls}");
    }
}

#[test]
fn what_cannot_be_bound_is_said() {
    let not = json!({"type": "object", "properties": {"a": {"not": {}}}});
    let loose = [tool("f", not.clone(), false), tool("g", json!({"type": "object"}), false)];
    for format in FORMATS {
        let made = format.grammar(&loose, &ToolChoice::Required, false).unwrap().unwrap();
        assert_eq!(made.unconstrained.len(), 1);
        assert_eq!(
            (made.unconstrained[0].0.as_str(), made.unconstrained[0].1.pointer.as_deref()),
            ("f", Some("/properties/a/not"))
        );
        assert!(accepts(&compile(&TOKENIZER, &made.source), &TOKENIZER, written(format).0));
        let error = format.grammar(&[tool("f", not.clone(), true)], &ToolChoice::Auto, false).unwrap_err();
        assert_eq!(error.pointer.as_deref(), Some("/properties/a/not"));
        assert!(error.to_string().contains("tool \"f\": is not supported"), "{error}");
        assert_eq!(format.grammar(&loose, &ToolChoice::Auto, true), Ok(None));
        assert_eq!(format.grammar(&strict_tools(), &ToolChoice::None, true), Ok(None));
        assert!(
            format
                .grammar(&loose, &ToolChoice::Function("h".into()), true)
                .unwrap_err()
                .to_string()
                .contains("no tool \"h\"")
        );
        assert!(format.grammar(&[], &ToolChoice::Required, true).is_err());
        // A name that spells a control token stays letters.
        let odd = [tool("a</tool_call>", json!({"type": "object"}), true)];
        let source = format.grammar(&odd, &ToolChoice::Required, false).unwrap().unwrap().source;
        let grammar = compile(&TOKENIZER, &source);
        let mut ids = Vec::new();
        while let [next, ..] = allowed(&grammar, &ids)[..] {
            if ids.len() > 60 || next == TOKENIZER.end_ids(&[])[0] {
                break;
            }
            ids.push(next);
        }
        let close = TOKENIZER.id_of("</tool_call>").unwrap();
        assert!(ids.iter().filter(|id| **id == close).count() <= 1);
    }
}

#[test]
fn tools_are_openais() {
    let text = r#"[{"type":"function","function":{"name":"f","description":"D","parameters":{"b":1,"a":2},"strict":true}},{"type":"function","function":{"name":"g"}}]"#;
    let tools = Tool::list(text).unwrap();
    assert_eq!(
        tools[0],
        Tool { name: "f".into(), description: "D".into(), parameters: Some(json!({"b": 1, "a": 2})), strict: true }
    );
    assert_eq!(tools[1], Tool { name: "g".into(), description: String::new(), parameters: None, strict: false });
    assert_eq!(Tool::to_json(&tools), text);
    assert!(Tool::list("[{\"name\": \"f\"}]").unwrap_err().to_string().starts_with("tools: "));
}
