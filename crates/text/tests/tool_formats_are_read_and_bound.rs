//! Calls of tools in the formats of several families are read back under any chunking, and grammars allow nothing else.
#![allow(clippy::unwrap_used)]

use std::sync::LazyLock;

use minke_text::ToolEvent::{self, Arguments, Call, Content, Incomplete};
use minke_text::ToolFormat::{self, DeepSeekBare, DeepSeekFenced, Hermes, Llama, MistralList, MistralNamed, QwenCoder};
use minke_text::{
    Grammar, GrammarSource, GrammarVocabulary, Tokenizer, Tool, ToolCallParser, ToolChoice, TrainOptions,
};
use serde_json::{Value, json};

const FORMATS: [ToolFormat; 7] = [DeepSeekFenced, DeepSeekBare, Hermes, QwenCoder, Llama, MistralList, MistralNamed];
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

fn say(text: &str) -> Vec<ToolEvent> {
    vec![Content(text.into())]
}

fn call(name: &str, arguments: &str) -> Vec<ToolEvent> {
    vec![Call(name.into()), Arguments(arguments.into())]
}

fn cut(name: &str, arguments: &str) -> Vec<ToolEvent> {
    let mut events = vec![Call(name.into())];
    events.extend((!arguments.is_empty()).then(|| Arguments(arguments.into())));
    events.push(Incomplete);
    events
}

/// Texts with what they are.
fn table() -> Vec<(ToolFormat, &'static str, Vec<ToolEvent>)> {
    let mut all: Vec<(ToolFormat, &str, Vec<ToolEvent>)> = Vec::new();
    let mut add = |format, text, events: Vec<Vec<ToolEvent>>| all.push((format, text, events.concat()));
    // Hermes.
    add(Hermes, "", vec![]);
    add(Hermes, "  \n", vec![say("  \n")]);
    add(Hermes, "Hello < world <tool", vec![say("Hello < world <tool")]);
    add(
        Hermes,
        "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"s\": \"a\"}}\n</tool_call>",
        vec![call("f", "{\"s\": \"a\"}")],
    );
    add(Hermes, "\n\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n", vec![call("f", "{}")]);
    add(
        Hermes,
        "Let me see.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>",
        vec![say("Let me see.\n"), call("f", "{}")],
    );
    add(
        Hermes,
        "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"n\": 1}}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", \"arguments\": {\"n\": 2}}\n</tool_call>",
        vec![call("f", "{\"n\": 1}"), call("g", "{\"n\": 2}")],
    );
    add(
        Hermes,
        "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\nDone.",
        vec![call("f", "{}"), say("\nDone.")],
    );
    add(
        Hermes,
        "<tool_call>{\"arguments\": {\"a\": [1, {\"b\": \"}\"}]}, \"name\": \"f\"}</tool_call>",
        vec![call("f", "{\"a\": [1, {\"b\": \"}\"}]}")],
    );
    add(
        Hermes,
        "<tool_call>{\"id\": 7, \"type\": \"function\", \"name\": \"f\", \"arguments\": {\"x\": 1e-3}, \"more\": [\"]\"]}</tool_call>",
        vec![call("f", "{\"x\": 1e-3}")],
    );
    add(Hermes, "<tool_call>{\"name\": \"f\"}</tool_call>", vec![call("f", "{}")]);
    add(
        Hermes,
        "<tool_call>{\"name\": \"f\", \"parameters\": {\"s\": \"京 \\\"}\\\\\"}}</tool_call>",
        vec![call("f", "{\"s\": \"京 \\\"}\\\\\"}")],
    );
    add(
        Hermes,
        "<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>",
        vec![call("f", "\"{\\\"a\\\": 1}\"")],
    );
    add(Hermes, "<tool_call>{\"name\": \"f\", \"arguments\": null}</tool_call>", vec![call("f", "null")]);
    add(
        Hermes,
        "<tool_call>{\"name\": \"f\", \"arguments\": {\"s\": \"</tool_call>\"}}</tool_call>",
        vec![call("f", "{\"s\": \"</tool_call>\"}")],
    );
    add(
        Hermes,
        "<tool_call>{\"name\": \"f\", \"arguments\": {\"s\": \"a\nb\"}}</tool_call>",
        vec![call("f", "{\"s\": \"a\nb\"}")],
    );
    add(
        Hermes,
        "<tool_call>{\"name\": \"f\", \"arguments\": {\"s\": \"a\nb}}\n</tool_call>after",
        vec![call("f", "{\"s\": \"a\nb}}"), say("after")],
    );
    add(Hermes, "<tool_call>{\"name\": \"f\", \"arguments\": {\"n\": 1}\n</tool_call>", vec![call("f", "{\"n\": 1}")]);
    add(
        Hermes,
        "<tool_call>{\"name\": \"f\", \"arguments\": {\"n\": 1}}}\n</tool_call>",
        vec![call("f", "{\"n\": 1}")],
    );
    add(Hermes, "<tool_call>{\"name\": \"f\", \"arguments\": {\"n\": 1}}", vec![call("f", "{\"n\": 1}")]);
    add(Hermes, "<tool_call>{\"name\": \"f\", \"arguments\": {\"n\": 1}}</tool_", vec![call("f", "{\"n\": 1}")]);
    add(Hermes, "<tool_call>{\"name\": \"f\", \"arguments\": {\"s\": \"a", vec![cut("f", "{\"s\": \"a")]);
    add(Hermes, "<tool_call>{\"name\": \"f\", \"arguments\": {", vec![cut("f", "{")]);
    add(
        Hermes,
        "<tool_call>{\"name\": \"f\", \"arguments\": {}}<tool_call>{\"name\": \"g\", \"arguments\": {\"a",
        vec![call("f", "{}"), cut("g", "{\"a")],
    );
    add(Hermes, "<tool_call>{\"name\": \"f\", \"argum", vec![say("<tool_call>{\"name\": \"f\", \"argum")]);
    add(Hermes, "<tool_call>", vec![say("<tool_call>")]);
    add(Hermes, "<tool_call>no json</tool_call>", vec![say("<tool_call>no json</tool_call>")]);
    add(Hermes, "<tool_call>{\"name\": 7}</tool_call>", vec![say("<tool_call>{\"name\": 7}</tool_call>")]);
    add(Hermes, "<tool_call>{\"nam\": \"f\"}</tool_call>", vec![say("<tool_call>{\"nam\": \"f\"}</tool_call>")]);
    add(
        Hermes,
        "<tool_call>[1]<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>",
        vec![say("<tool_call>[1]"), call("f", "{}")],
    );
    add(Hermes, "The tag <tool_call> opens a call.", vec![say("The tag <tool_call> opens a call.")]);
    add(
        Hermes,
        "<tool_call><tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>",
        vec![say("<tool_call>"), call("f", "{}")],
    );
    add(Hermes, "<tool_call>{\"name\": \"f\\u00e9\", \"arguments\": {}}</tool_call>", vec![call("fé", "{}")]);
    add(
        Hermes,
        "a <tool_call>{\"name\": \"f\" \"arguments\": {}}</tool_call>",
        vec![say("a <tool_call>{\"name\": \"f\" \"arguments\": {}}</tool_call>")],
    );
    // Qwen3-Coder.
    add(
        QwenCoder,
        "<tool_call>\n<function=f>\n<parameter=s>\nabc\n</parameter>\n</function>\n</tool_call>",
        vec![call("f", "{\"s\": \"abc\"}")],
    );
    add(
        QwenCoder,
        "<tool_call>\n<function=f>\n<parameter=s>\nx = 1\nif a < b:\n    \"y\"\n</parameter>\n<parameter=n>\n42\n</parameter>\n</function>\n</tool_call>",
        vec![call("f", "{\"s\": \"x = 1\\nif a < b:\\n    \\\"y\\\"\", \"n\": 42}")],
    );
    add(
        QwenCoder,
        "<tool_call>\n<function=f>\n<parameter=s>\n42\n</parameter>\n<parameter=b>\nTrue\n</parameter>\n<parameter=l>\n[1, \"a\"]\n</parameter>\n<parameter=o>\n{\"k\": null}\n</parameter>\n</function>\n</tool_call>",
        vec![call("f", "{\"s\": \"42\", \"b\": true, \"l\": [1, \"a\"], \"o\": {\"k\": null}}")],
    );
    add(
        QwenCoder,
        "<tool_call>\n<function=f>\n<parameter=n>\nmany\n</parameter>\n<parameter=x>\n1.5\n</parameter>\n<parameter=e>\nnull\n</parameter>\n<parameter=m>\nNone\n</parameter>\n<parameter=any>\n7\n</parameter>\n</function>\n</tool_call>",
        vec![call("f", "{\"n\": \"many\", \"x\": 1.5, \"e\": null, \"m\": null, \"any\": 7}")],
    );
    add(
        QwenCoder,
        "<tool_call>\n<function=f>\n<parameter=unknown>\n7\n</parameter>\n</function>\n</tool_call>",
        vec![call("f", "{\"unknown\": \"7\"}")],
    );
    add(QwenCoder, "<tool_call>\n<function=g>\n</function>\n</tool_call>", vec![call("g", "{}")]);
    add(
        QwenCoder,
        "I will.\n<tool_call>\n<function=g>\n</function>\n</tool_call>\n<tool_call>\n<function=f>\n<parameter=n>1</parameter>\n</function>\n</tool_call>\n",
        vec![say("I will.\n"), call("g", "{}"), call("f", "{\"n\": 1}")],
    );
    add(
        QwenCoder,
        "<function=f>\n<parameter=n>\n1\n</parameter>\n</function>\n</tool_call>",
        vec![call("f", "{\"n\": 1}")],
    );
    add(
        QwenCoder,
        "<function=f>\n<parameter=n>\n1\n</parameter>\n</function> Done",
        vec![call("f", "{\"n\": 1}"), say(" Done")],
    );
    add(
        QwenCoder,
        "<tool_call>\n<function=f>\n<parameter=s>\n\n two lines \n\n</parameter>\n</function>\n</tool_call>",
        vec![call("f", "{\"s\": \"\\n two lines \\n\"}")],
    );
    add(
        QwenCoder,
        "<tool_call>\n<function=f>\n<parameter=s>\n</para</parameter>\n</function>\n</tool_call>",
        vec![call("f", "{\"s\": \"</para\"}")],
    );
    add(
        QwenCoder,
        "<tool_call>\n<function=f>\n<parameter=s>\nopen\n</function>\n</tool_call>",
        vec![call("f", "{\"s\": \"open\"}")],
    );
    add(
        QwenCoder,
        "<tool_call>\n<function=f>\n<parameter=s>\na\n</parameter>\n</tool_call>x",
        vec![call("f", "{\"s\": \"a\"}"), say("x")],
    );
    add(QwenCoder, "<tool_call>\n<function=f>\n<parameter=s>\na\n</parameter>\n<par", vec![cut("f", "{\"s\": \"a\"")]);
    add(QwenCoder, "<tool_call>\n<function=f>\n<parameter=s>\nabc", vec![cut("f", "")]);
    add(QwenCoder, "<tool_call>\n<function=f", vec![say("<tool_call>\n<function=f")]);
    add(QwenCoder, "<tool_call>\n<function=\nf>", vec![say("<tool_call>\n<function=\nf>")]);
    add(
        QwenCoder,
        "<tool_call>\n{\"name\": \"f\"}\n</tool_call>",
        vec![say("<tool_call>\n{\"name\": \"f\"}\n</tool_call>")],
    );
    add(QwenCoder, "a <function b", vec![say("a <function b")]);
    add(
        QwenCoder,
        "<function=f>\nstray text\n<parameter=s>\n京\n</parameter>\nmore\n</function>",
        vec![call("f", "{\"s\": \"京\"}")],
    );
    add(
        QwenCoder,
        "<tool_call><tool_call>\n<function=g>\n</function></tool_call>",
        vec![say("<tool_call>"), call("g", "{}")],
    );
    // Llama.
    add(Llama, "{\"name\": \"f\", \"parameters\": {\"s\": \"a\"}}", vec![call("f", "{\"s\": \"a\"}")]);
    add(Llama, " \n{\"name\": \"f\", \"parameters\": {}}\n", vec![call("f", "{}")]);
    add(Llama, "<|python_tag|>{\"name\": \"f\", \"parameters\": {\"n\": 1}}", vec![call("f", "{\"n\": 1}")]);
    add(Llama, "<|python_tag|> {\"type\": \"function\", \"name\": \"g\", \"parameters\": {}}", vec![call("g", "{}")]);
    add(
        Llama,
        "{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"g\", \"parameters\": {\"a\": \";\"}}",
        vec![call("f", "{}"), call("g", "{\"a\": \";\"}")],
    );
    add(Llama, "{\"name\": \"f\", \"parameters\": {}} so be it", vec![call("f", "{}"), say(" so be it")]);
    add(Llama, "{\"parameters\": {\"a\": 1}, \"name\": \"f\"}", vec![call("f", "{\"a\": 1}")]);
    add(Llama, "{\"name\": \"unknown\", \"parameters\": {}}", vec![say("{\"name\": \"unknown\", \"parameters\": {}}")]);
    add(Llama, "{\"name\": \"f\", \"age\": 3}", vec![say("{\"name\": \"f\", \"age\": 3}")]);
    add(Llama, "{\"name\": \"f\", \"parameters\": 3}", vec![say("{\"name\": \"f\", \"parameters\": 3}")]);
    add(Llama, "{\"a\": [1, 2]}", vec![say("{\"a\": [1, 2]}")]);
    add(Llama, "It is {\"name\": \"f\", \"parameters\": {}}", vec![say("It is {\"name\": \"f\", \"parameters\": {}}")]);
    add(Llama, "Look: <|python_tag|>{\"name\": \"f\", \"parameters\": {}}", vec![say("Look: "), call("f", "{}")]);
    add(Llama, "<|python_tag|>search.call(query=\"a\")", vec![say("<|python_tag|>search.call(query=\"a\")")]);
    add(Llama, "<|python", vec![say("<|python")]);
    add(Llama, "<|python_tag|>", vec![say("<|python_tag|>")]);
    add(
        Llama,
        "<|python_tag|><|python_tag|>{\"name\": \"f\", \"parameters\": {}}",
        vec![say("<|python_tag|>"), call("f", "{}")],
    );
    add(Llama, "{\"name\": \"f\", \"parameters\": {\"s\": \"unended", vec![cut("f", "{\"s\": \"unended")]);
    add(Llama, "{\"name\": \"f\", \"par", vec![say("{\"name\": \"f\", \"par")]);
    add(Llama, "{", vec![say("{")]);
    add(Llama, "{not json", vec![say("{not json")]);
    add(Llama, "京都", vec![say("京都")]);
    add(Llama, "", vec![]);
    // Mistral.
    add(
        MistralList,
        "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"s\": \"]\"}}]",
        vec![call("f", "{\"s\": \"]\"}")],
    );
    add(
        MistralList,
        "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}, \"id\": \"123456789\"}, {\"name\": \"g\", \"arguments\": {\"n\": 1}}]",
        vec![call("f", "{}"), call("g", "{\"n\": 1}")],
    );
    add(
        MistralList,
        "Sure.[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {}}] Done",
        vec![say("Sure."), call("f", "{}"), say(" Done")],
    );
    add(MistralList, "[TOOL_CALLS] {\"name\": \"f\", \"arguments\": {}}", vec![call("f", "{}")]);
    add(MistralList, "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"s\": \"a", vec![cut("f", "{\"s\": \"a")]);
    add(MistralList, "[TOOL_CALLS] [{\"nome\": \"f\"}]", vec![say("[TOOL_CALLS] [{\"nome\": \"f\"}]")]);
    add(MistralList, "[TOOL_CALLS] []", vec![say("[TOOL_CALLS] []")]);
    add(MistralNamed, "[TOOL_CALLS]f[ARGS]{\"s\": \"a\"}", vec![call("f", "{\"s\": \"a\"}")]);
    add(
        MistralNamed,
        "[TOOL_CALLS]f[ARGS]{\"n\": {\"k\": [1]}}[TOOL_CALLS]g[ARGS]{}",
        vec![call("f", "{\"n\": {\"k\": [1]}}"), call("g", "{}")],
    );
    add(MistralNamed, "[TOOL_CALLS]f[CALL_ID]abc123[ARGS]{}", vec![call("f", "{}")]);
    add(MistralNamed, "[TOOL_CALLS]f{\"n\": 1}", vec![call("f", "{\"n\": 1}")]);
    add(MistralNamed, "[TOOL_CALLS]f[ARGS]{\"n\": 1", vec![cut("f", "{\"n\": 1")]);
    add(MistralNamed, "[TOOL_CALLS]f[ARGS]", vec![say("[TOOL_CALLS]f[ARGS]")]);
    add(MistralNamed, "[TOOL_CALLS] are [marked] so", vec![say("[TOOL_CALLS] are [marked] so")]);
    add(MistralNamed, "[TOOL_CALL", vec![say("[TOOL_CALL")]);
    add(MistralNamed, "a [b] c [TOOL", vec![say("a [b] c [TOOL")]);
    // DeepSeek.
    add(
        DeepSeekBare,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"s\": \"a\"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        vec![call("f", "{\"s\": \"a\"}")],
    );
    add(
        DeepSeekBare,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"s\": \"a",
        vec![cut("f", "{\"s\": \"a")],
    );
    add(
        DeepSeekBare,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>",
        vec![say("<｜tool▁call▁begin｜>f<｜tool▁sep｜>")],
    );
    add(
        DeepSeekFenced,
        "Hm.\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"s\": \"{\"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        vec![say("Hm.\n"), call("f", "{\"s\": \"{\"}"), call("g", "{}")],
    );
    add(
        DeepSeekFenced,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": [1, 2",
        vec![cut("f", "{\"a\": [1, 2")],
    );
    add(DeepSeekFenced, "<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n", vec![cut("f", "")]);
    all
}

#[test]
fn each_format_is_read() {
    let table = table();
    assert!(table.len() >= 80, "{}", table.len());
    let mut wrong = Vec::new();
    for (format, text, events) in table {
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
                assert_eq!(whole, if text.is_empty() { vec![] } else { say(&text) }, "{format:?} {text:?}");
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
