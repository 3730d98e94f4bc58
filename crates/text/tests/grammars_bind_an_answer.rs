//! What a grammar allows is what its language has: masks agree with plain enumeration, walks under a mask give valid JSON, and
//! hostile sources end quickly.
#![allow(clippy::unwrap_used)]

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use minke_text::{Grammar, GrammarError, GrammarSource, GrammarVocabulary, Tokenizer, TrainOptions};
use serde_json::{Value, json};

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let line = |n: u32| {
        format!(
            "{{\"name\": \"abc {n}\", \"a\": [{n}, {n}.5, -{n}e3], \"b\": {{\"c\": null, \"d\": true, \"tag\":\"déjà 京\"}}}}, \
             {{\"kind\":\"x\",\"value\":false,\"left\":null}}\n  \t]}}, 2024-02-29T10:{n}:59Z, user@example.com, 1f-4e"
        )
    };
    let options = TrainOptions { vocab_size: 700, added_tokens: vec!["<tool>".into(), "   ".into()] };
    Tokenizer::train((0..300).map(line), &options).unwrap()
});
static VOCABULARY: LazyLock<GrammarVocabulary> = LazyLock::new(|| {
    // As many rows as an embedding that is padded.
    GrammarVocabulary::new(&TOKENIZER, 768, &TOKENIZER.end_ids(&[])).unwrap()
});

fn compile(source: &GrammarSource) -> Result<Grammar, GrammarError> {
    Grammar::compile(&VOCABULARY, source)
}

fn schema(schema: Value) -> Grammar {
    compile(&GrammarSource::JsonSchema(schema.clone())).unwrap_or_else(|error| panic!("{schema}: {error}"))
}

fn end() -> u32 {
    TOKENIZER.end_ids(&[])[0]
}

fn allowed(grammar: &Grammar, ids: &[u32]) -> Vec<u32> {
    let mut words = [u32::MAX; 30];
    grammar.mask(ids, &mut words);
    (0..960).filter(|id| words[*id as usize / 32] >> (id % 32) & 1 == 1).collect()
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

/// Whether a whole text is in the language, token by token.
fn accepts(grammar: &Grammar, text: &str) -> bool {
    let ids = TOKENIZER.encode_plain(text);
    (0..ids.len()).all(|at| allowed(grammar, &ids[..at]).contains(&ids[at])) && allowed(grammar, &ids).contains(&end())
}

#[test]
fn masks_agree_with_enumeration() {
    // Languages that are small enough to write down.
    let space = ["", " ", "\n", "\t ", "        "];
    let mut around = Vec::new();
    for a in space {
        for b in space {
            around.push(format!("{{{a}\"a\"{b}:1}}"));
        }
    }
    let languages: Vec<(GrammarSource, Vec<String>, bool)> = vec![
        (
            GrammarSource::Regex("(ab|cd){1,2}e?".into()),
            ["ab", "cd", "abab", "abcd", "cdab", "cdcd"]
                .iter()
                .flat_map(|text| [(*text).into(), format!("{text}e")])
                .collect(),
            true,
        ),
        (GrammarSource::Lark("start: \"a\" (\"b\" | \"cc\")\n".into()), vec!["ab".into(), "acc".into()], true),
        (
            GrammarSource::JsonSchema(json!({"enum": ["x", "déjà", null, 15, true]})),
            ["\"x\"", "\"déjà\"", "null", "15", "true"].map(str::to_owned).into(),
            false,
        ),
        (
            GrammarSource::JsonSchema(
                json!({"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"], "additionalProperties": false}),
            ),
            around,
            false,
        ),
        (
            GrammarSource::JsonSchema(json!({"type": "integer", "minimum": 8, "maximum": 112})),
            (8..=112).map(|n| n.to_string()).collect(),
            true,
        ),
        (
            GrammarSource::Choice(vec![
                GrammarSource::Sequence(vec![GrammarSource::Text("x<tool>".into()), GrammarSource::Text("y".into())]),
                GrammarSource::Text("xyz".into()),
            ]),
            vec!["x<tool>y".into(), "xyz".into()],
            true,
        ),
    ];
    for (source, texts, whole) in languages {
        let grammar = compile(&source).unwrap();
        // The added token is one character of its own here, so that its letters do not stand for it.
        let tool = TOKENIZER.id_of("<tool>").unwrap();
        let language: Vec<Vec<u8>> = texts.iter().map(|text| text.replace("<tool>", "\u{1}").into_bytes()).collect();
        let bytes = |id: u32| match TOKENIZER.token_bytes(id) {
            b"<tool>" => b"\x01".to_vec(),
            [1] | b"<think>" | b"</think>" => b"\x02".to_vec(),
            bytes if bytes.starts_with("<｜".as_bytes()) => b"\x02".to_vec(),
            bytes => bytes.to_vec(),
        };
        assert_eq!(bytes(tool), b"\x01");
        let (mut checked, mut visited) = (0, 0);
        let mut waiting: Vec<(Vec<u32>, Vec<u8>)> = vec![(Vec::new(), Vec::new())];
        while let Some((ids, text)) = waiting.pop().filter(|_| visited < 150) {
            visited += 1;
            let next = allowed(&grammar, &ids);
            for id in 0..960 {
                let piece = bytes(id);
                let longer = [&text[..], &piece].concat();
                let expected = match id == end() {
                    true => language.contains(&text),
                    false => !piece.is_empty() && language.iter().any(|text| text.starts_with(&longer)),
                };
                // JSON may have more white space than was written down here.
                let is_blank = |bytes: &[u8]| bytes.iter().any(u8::is_ascii_whitespace);
                let last = text.last().is_some_and(u8::is_ascii_whitespace);
                let blank = !whole && (is_blank(&piece) || last);
                if !blank && (whole || id != end()) {
                    assert_eq!(
                        next.contains(&id),
                        expected,
                        "{source:?} {:?} {:?}",
                        String::from_utf8_lossy(&text),
                        String::from_utf8_lossy(&piece)
                    );
                    checked += 1;
                }
                if expected && id != end() {
                    waiting.push(([&ids[..], &[id]].concat(), longer));
                }
            }
        }
        assert!(checked > 900, "{checked}");
        for text in &texts {
            if !text.contains("<tool>") {
                assert!(accepts(&grammar, text), "{source:?} {text:?}");
            }
        }
    }
}

/// Schemas for walks.
fn schemas() -> Vec<Value> {
    let text = json!({"type": "string", "maxLength": 6});
    vec![
        json!({"type": "object"}),
        json!({"type": "object", "additionalProperties": false}),
        json!({"type": "object", "properties": {"a": text, "b": {"type": "integer"}}, "required": ["a", "b"], "additionalProperties": false}),
        json!({"type": "object", "properties": {"a": text, "b": {"type": "boolean"}, "c": {"type": "null"}}, "required": ["c"]}),
        json!({"properties": {"name": text}, "required": ["name", "other"], "type": "object"}),
        json!({"type": "object", "properties": {"a\"\\é京": {"const": 1}}, "required": ["a\"\\é京"], "additionalProperties": {"type": "integer"}}),
        json!({"type": "object", "additionalProperties": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2}, "maxProperties": 3}),
        json!({"type": "object", "patternProperties": {"^x[0-9]+$": {"type": "integer", "minimum": 0}}, "additionalProperties": false}),
        json!({"type": "object", "properties": {"a": true}, "required": ["a"], "minProperties": 1, "maxProperties": 1}),
        json!({"enum": ["a", "b c", "déjà", 1, 2.5, null, true, {"k": [1, "x"]}]}),
        json!({"const": {"a": [1, {"b": "c"}], "d": null}}),
        json!({"type": "string", "enum": ["left", "right"]}),
        json!({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 4}),
        json!({"type": "array", "items": {"enum": ["x"]}, "minItems": 1}),
        json!({"type": "array", "prefixItems": [{"type": "string", "maxLength": 3}, {"type": "boolean"}], "items": {"type": "null"}, "minItems": 1}),
        json!({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "items": false}),
        json!({"type": "array", "maxItems": 0}),
        json!({"type": "array", "items": {"type": "array", "items": {"type": "number"}, "maxItems": 2}, "maxItems": 3}),
        json!({"$defs": {"p": {"type": "object", "properties": {"x": {"$ref": "#/$defs/n"}, "y": {"$ref": "#/$defs/n"}}, "required": ["x", "y"], "additionalProperties": false}, "n": {"type": "number", "minimum": -1, "maximum": 1}}, "$ref": "#/$defs/p"}),
        json!({"definitions": {"t": {"type": "object", "properties": {"v": {"type": "integer", "maximum": 9, "minimum": 0}, "left": {"anyOf": [{"type": "null"}, {"$ref": "#/definitions/t"}]}, "right": {"anyOf": [{"type": "null"}, {"$ref": "#/definitions/t"}]}}, "required": ["v", "left", "right"], "additionalProperties": false}}, "$ref": "#/definitions/t"}),
        json!({"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}, "maxItems": 2}}, "required": ["children"], "additionalProperties": false}),
        json!({"anyOf": [{"type": "integer"}, {"type": "object", "properties": {"k": {"const": "v"}}, "required": ["k"], "additionalProperties": false}]}),
        json!({"anyOf": [{"type": "object", "properties": {"t": {"const": "a"}, "x": {"type": "integer"}}, "required": ["t", "x"], "additionalProperties": false}, {"type": "object", "properties": {"t": {"const": "b"}, "y": {"type": "string", "maxLength": 2}}, "required": ["t", "y"], "additionalProperties": false}]}),
        json!({"oneOf": [{"type": "integer"}, {"type": "string", "maxLength": 4}]}),
        json!({"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"type": "object", "properties": {"b": {"type": "boolean"}}, "required": ["b"]}]}),
        json!({"type": ["integer", "null", "boolean"]}),
        json!({"type": "integer", "minimum": -5, "maximum": 5}),
        json!({"type": "integer", "exclusiveMinimum": 10, "exclusiveMaximum": 1000}),
        json!({"type": "integer", "multipleOf": 3, "minimum": 0, "maximum": 300}),
        json!({"type": "number", "minimum": 0, "exclusiveMaximum": 1}),
        json!({"type": "number", "minimum": -2.5, "maximum": 100.25}),
        json!({"type": "number"}),
        json!({"type": "string", "minLength": 2, "maxLength": 5}),
        json!({"type": "string", "pattern": "^[A-Z]{2}-[0-9]{1,3}$"}),
        json!({"type": "string", "pattern": "b+", "maxLength": 6}),
        json!({"type": "string", "format": "date-time"}),
        json!({"type": "string", "format": "date"}),
        json!({"type": "string", "format": "time"}),
        json!({"type": "string", "format": "uuid"}),
        json!({"type": "string", "format": "email", "maxLength": 20}),
        json!({"type": "string", "format": "ipv4"}),
        json!({"type": "string", "format": "ipv6"}),
        json!({"type": "object", "properties": {"when": {"format": "date", "type": "string", "pattern": "^20"}, "tags": {"type": "array", "items": {"type": "string", "maxLength": 3}, "uniqueItems": false}}, "required": ["when"], "additionalProperties": false}),
        json!(true),
    ]
}

#[test]
fn walks_under_a_mask_are_valid() {
    let schemas = schemas();
    assert!(schemas.len() >= 40);
    let (mut whole, mut walks) = (0, 0);
    for (number, source) in schemas.iter().enumerate() {
        let validator = jsonschema::options().should_validate_formats(true).build(source).unwrap();
        let compiled = schema(source.clone());
        let mut draws = Draws(number as u64);
        let mut ended = 0;
        for _ in 0..200 {
            let grammar = compiled.fresh();
            let mut ids: Vec<u32> = Vec::new();
            walks += 1;
            let text = loop {
                let next = allowed(&grammar, &ids);
                assert!(!next.is_empty(), "{source} {:?}", TOKENIZER.decode(&ids, false));
                // The end as soon as there is one, every second time: else few walks end.
                let id = match next.contains(&end()) && draws.below(2) == 0 {
                    true => end(),
                    false => next[draws.below(next.len())],
                };
                let text = TOKENIZER.decode(&ids, false);
                let run = text.split('"').step_by(2).flat_map(|part| part.split(|c: char| !c.is_whitespace()));
                assert!(text.contains('\\') || run.map(str::len).max().unwrap_or(0) <= 8, "{source} {text:?}");
                if id == end() {
                    break Some(text);
                }
                if ids.len() == 120 {
                    break None;
                }
                ids.push(id);
            };
            let Some(text) = text else { continue };
            ended += 1;
            assert!(grammar.is_complete(&ids));
            let value: Value = match serde_json::from_str(&text) {
                Ok(value) => value,
                // JSON has numbers of any size; this reader has not.
                Err(error) if error.to_string().starts_with("number out of range") => continue,
                Err(error) => panic!("{source} {text:?}: {error}"),
            };
            if let Err(error) = validator.validate(&value) {
                panic!("{source} allowed {text}: {error}");
            }
        }
        assert!(ended > 0, "no walk of {source} came to an end");
        whole += ended;
    }
    assert!(whole * 2 > walks, "{whole} of {walks}");
}

#[test]
fn masks_do_not_depend_on_the_way_they_are_asked_for() {
    let compiled =
        schema(json!({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "integer"}}}}));
    let ids = TOKENIZER.encode("{\"a\": [1, 22, 3]}");
    let grown: Vec<Vec<u32>> = (0..=ids.len()).map(|length| allowed(&compiled, &ids[..length])).collect();
    let mut draws = Draws(7);
    let other = compiled.fresh();
    for _ in 0..200 {
        let length = draws.below(ids.len() + 1);
        assert_eq!(allowed(&other, &ids[..length]), grown[length]);
        assert_eq!(allowed(&compiled.fresh(), &ids[..length]), grown[length]);
    }
    // Tokens that are expected and do not come.
    for (at, id) in ids.iter().enumerate() {
        for expected in grown[at].iter().filter(|expected| *expected != id).step_by(23) {
            let wrong = [&ids[..at], &[*expected]].concat();
            assert_eq!(allowed(&other, &wrong), allowed(&compiled.fresh(), &wrong), "{wrong:?}");
            assert_eq!(allowed(&other, &ids[..=at]), grown[at + 1], "behind {wrong:?}");
        }
    }
    // Behind the end: only the end again. Behind a token that does not fit: nothing, and nothing behind that.
    assert_eq!(grown[ids.len()].iter().filter(|id| **id == end()).count(), 1);
    let ended = [&ids[..], &[end()]].concat();
    assert_eq!(allowed(&other, &ended), [end()]);
    for wrong in [vec![end()], TOKENIZER.encode("x"), vec![ids[0], 740], vec![u32::MAX], [&ended[..], &ids].concat()] {
        assert!(allowed(&other, &wrong).is_empty(), "{wrong:?}");
        assert!(allowed(&other, &[&wrong[..], &ids].concat()).is_empty());
        assert!(!other.is_complete(&wrong));
    }
    assert_eq!(allowed(&other, &[]), grown[0]);
    // Threads that share what was compiled.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let own = compiled.fresh();
            let (ids, grown) = (&ids, &grown);
            scope.spawn(move || {
                (0..=ids.len()).for_each(|length| assert_eq!(allowed(&own, &ids[..length]), grown[length]))
            });
        }
    });
}

#[test]
fn the_mask_has_the_rows_of_the_model() {
    let grammar = compile(&GrammarSource::FreeText { until: None }).unwrap();
    let next = allowed(&grammar, &[]);
    let size = TOKENIZER.vocab_size() as u32;
    assert!(next.iter().all(|id| *id < size) && next.len() > 500, "{}", next.len());
    // Added tokens are no text, white space is; of the vocabulary's bytes 0xff is none.
    let id = |token: &str| TOKENIZER.id_of(token).unwrap();
    assert!(next.contains(&id("   ")) && next.contains(&end()));
    for token in ["<tool>", "<think>", "</think>", "<｜User｜>", "<｜begin▁of▁sentence｜>"] {
        assert!(!next.contains(&id(token)), "{token}");
    }
    // Fewer words than tokens: the rest is cut.
    let mut few = [0; 2];
    grammar.mask(&[], &mut few);
    assert_ne!(few, [0; 2]);
    let none = GrammarVocabulary::new(&TOKENIZER, 768, &[768]).unwrap_err().to_string();
    assert_eq!(none, "grammar: the model has no token that ends an answer, so no grammar could end");
}

#[test]
fn a_json_object_is_one() {
    let grammar = compile(&GrammarSource::JsonObject).unwrap();
    for text in ["{}", "{\"a\": [1, {\"b\": null}]}", "{ \"x\" : \"<tool>\\n\" }"] {
        assert!(accepts(&grammar, text), "{text}");
    }
    for text in ["[]", "1", "null", "\"a\"", " {}"] {
        assert!(!accepts(&grammar, text), "{text}");
    }
    assert!(accepts(&grammar, &format!("{{{}}}", " \n\t\r".repeat(2))));
    assert!(!accepts(&grammar, &format!("{{{}}}", " ".repeat(9))));
    assert!(!accepts(&grammar, &format!("{{}}{}", "\n".repeat(9))));
    assert!(accepts(&grammar, &format!("{{\"a\": \"{}\"}}", " ".repeat(50))));
}

#[test]
fn settings_of_the_library_do_not_come_from_a_schema() {
    let smuggled = json!({"whitespace_pattern": "[ ]+", "lenient": true, "coerce_one_of": true});
    let grammar = schema(json!({"type": "object", "x-guidance": smuggled, "properties": {"x-guidance": {"const": 1}}}));
    assert!(!accepts(&grammar, "{         }"));
    assert!(accepts(&grammar, "{\"x-guidance\": 1}") && !accepts(&grammar, "{\"x-guidance\": 2}"));
    let error = compile(&GrammarSource::JsonSchema(json!({"not": {}, "x-guidance": smuggled}))).unwrap_err();
    assert_eq!(error.pointer.as_deref(), Some("/not"));
    let strange = json!({"type": "object", "x-guidance": 7});
    assert!(accepts(&schema(strange), "{}"));
}

#[test]
fn what_is_not_obeyed_is_refused_by_its_pointer() {
    let table = [
        (json!({"type": "object", "properties": {"a": {"not": {"type": "null"}}}}), "/properties/a/not"),
        (json!({"type": "array", "items": {"type": "array", "uniqueItems": true}}), "/items/uniqueItems"),
        (json!({"if": {}, "then": {}}), "/if"),
        (json!({"properties": {"a/b~c": {"contains": {}}}}), "/properties/a~1b~0c/contains"),
        (json!({"anyOf": [{"type": "null"}, {"propertyNames": {}}]}), "/anyOf/1/propertyNames"),
        (json!({"$defs": {"x": {"dependentRequired": {}}}}), "/$defs/x/dependentRequired"),
        (json!({"type": "string", "format": "idn-email"}), "/format"),
        (json!({"properties": {"a": {"type": "string", "pattern": "(?=a)b"}}}), "/properties/a/pattern"),
        (json!({"properties": {"a": {"type": "string", "pattern": "(a"}}}), "/properties/a/pattern"),
        (json!({"properties": {"a": {"type": "strnig"}}}), "/properties/a/type"),
        (json!({"properties": {"a": {"oneOf": [{"type": "object"}, {"type": "object"}]}}}), "/properties/a/oneOf"),
        (json!({"properties": {"a": {"$ref": "#/$defs/none"}}}), "/properties/a/$ref"),
        (json!({"properties": {"a": {"$ref": "https://example.com/s"}}}), "/properties/a/$ref"),
        (json!({"items": [{"$ref": 7}]}), "/items/0/$ref"),
        (json!({"type": "integer", "const": 9007199254740993_u64}), "/const"),
        (json!({"enum": [1, [9007199254740995_i64]]}), "/enum"),
        (json!({"enum": []}), "/enum"),
        (json!({"type": "object", "minProperties": 2}), "/minProperties"),
        (json!({"type": "object", "properties": {"a": 3}}), "/properties/a"),
        (json!({"properties": [1]}), "/properties"),
        (json!({"allOf": {}}), "/allOf"),
        (json!({"properties": {"a": {"$id": "x"}}}), "/properties/a/$id"),
        (json!({"type": "string", "minLength": -1}), "/minLength"),
        (
            json!({"type": "object", "properties": {"a": {"type": "integer", "minimum": 5, "maximum": 4}}, "required": ["a"]}),
            "/properties/a",
        ),
        (json!({"properties": {"a": {"unevaluatedProperties": false}}}), "/properties/a/unevaluatedProperties"),
        (json!([]), ""),
        (json!(7), ""),
        (json!(false), ""),
    ];
    for (source, pointer) in table {
        let error = compile(&GrammarSource::JsonSchema(source.clone())).expect_err(&source.to_string());
        let found = error.pointer.as_deref().unwrap_or("none");
        assert!(found == pointer || found.starts_with(pointer) && pointer.len() > 3, "{source}: {found}: {error}");
        let message = error.to_string();
        assert!(message.starts_with("JSON schema") && !message.contains('\n') && message.len() < 420, "{message}");
    }
    // What asserts nothing is no matter.
    let noted = json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "x", "title": "T", "description": "d",
        "type": "object", "properties": {"not": {"type": "null", "deprecated": true, "examples": [1]}, "if": {"type": "null"}},
        "x-more": {"not": 1}, "default": {}});
    assert!(accepts(&schema(noted), "{\"not\": null, \"if\": null}"));
}

#[test]
fn broken_texts_are_refused_in_one_line() {
    let sources = [
        GrammarSource::Regex("(".into()),
        GrammarSource::Regex("(?=a)".into()),
        GrammarSource::Lark(String::new()),
        GrammarSource::Lark("start: missing".into()),
        GrammarSource::Lark("start: \"a".into()),
        GrammarSource::Lark("start: start".into()),
        GrammarSource::Lark("other: \"a\"".into()),
        GrammarSource::Lark("start: <[99999]>".into()),
        GrammarSource::Lark("start: %json {\"not\": 1}".into()),
        GrammarSource::Choice(vec![GrammarSource::Text("a".into()), GrammarSource::Regex("[".into())]),
    ];
    for source in sources {
        let error = compile(&source).unwrap_err();
        let message = error.to_string();
        assert!(
            message.starts_with("grammar: ") && !message.contains('\n') && message.len() < 420,
            "{source:?} {message}"
        );
        assert_eq!(error.pointer, None);
    }
}

#[test]
fn hostile_sources_end_quickly() {
    let nested =
        |depth: usize, open: &str, close: &str| format!("{}{}{}", open.repeat(depth), "true", close.repeat(depth));
    let parse = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    let bomb = |keyword: &str, levels: usize| {
        let mut defs = serde_json::Map::new();
        for level in 0..levels {
            let next = json!({"$ref": format!("#/$defs/l{}", level + 1)});
            defs.insert(format!("l{level}"), json!({keyword: [next, next]}));
        }
        defs.insert(format!("l{levels}"), json!({"type": "object", "properties": {"a": {"type": "integer"}}}));
        json!({"$defs": defs, "$ref": "#/$defs/l0"})
    };
    let properties = |count: usize| -> Value {
        let all: serde_json::Map<String, Value> = (0..count)
            .map(|i| {
                (format!("property_number_{i}"), json!({"type": "string", "pattern": format!("^a{i}.*[0-9]{{3,40}}$")}))
            })
            .collect();
        json!({"type": "object", "properties": all})
    };
    let mut sources: Vec<(String, GrammarSource)> = Vec::new();
    let mut add = |name: &str, source: GrammarSource| sources.push((name.into(), source));
    let schema = GrammarSource::JsonSchema;
    for depth in [50, 62, 120] {
        add(&format!("items {depth}"), schema(parse(nested(depth, "{\"items\":", "}"))));
        add(&format!("allOf {depth}"), schema(parse(nested(depth / 2, "{\"allOf\":[", "]}"))));
        add(&format!("const {depth}"), schema(parse(format!("{{\"const\":{}}}", nested(depth, "[", "]")))));
    }
    for keyword in ["allOf", "anyOf", "oneOf", "prefixItems"] {
        for levels in [10, 20, 60] {
            add(&format!("{keyword} {levels}"), schema(bomb(keyword, levels)));
        }
    }
    add("self", schema(json!({"$ref": "#"})));
    add(
        "circle",
        schema(json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"})),
    );
    add("circle of allOf", schema(json!({"allOf": [{"$ref": "#"}, {"type": "object"}]})));
    add("many properties", schema(properties(2000)));
    add("long", schema(json!({"enum": (0..60_000).map(|i| i.to_string()).collect::<Vec<_>>()})));
    add("long enum", schema(json!({"enum": (0..20_000).map(|i| format!("{i}")).collect::<Vec<_>>()})));
    add(
        "maxItems",
        schema(
            json!({"type": "array", "items": {"type": "integer"}, "minItems": 1_000_000_000, "maxItems": 2_000_000_000}),
        ),
    );
    add("maxLength", schema(json!({"type": "string", "minLength": 1_000_000_000, "maxLength": 2_000_000_000})));
    add("lengths", schema(json!({"type": "string", "pattern": "^(a|b|ab)*c", "minLength": 5000, "maxLength": 50_000})));
    add("multipleOf", schema(json!({"type": "integer", "multipleOf": 999_999_937})));
    add("tiny multipleOf", schema(json!({"type": "number", "multipleOf": 1e-300})));
    add("range", schema(json!({"type": "number", "minimum": -1.234_567_890_123e-300, "maximum": 9.87e300})));
    for regex in [
        "(a{1000}){1000}",
        "((a{100}){100}){100}",
        "(a*)*b",
        "(((((a*)*)*)*)*)*b",
        "(.{0,1000}x){0,1000}",
        ".*a.{200}b.{200}",
        "(a|aa|aaa|aaaa){500}b",
        "[a-z]{1,4294967295}",
        "\\p{L}{5000}",
    ] {
        add(regex, GrammarSource::Regex(regex.into()));
        add(&format!("pattern {regex}"), schema(json!({"type": "string", "pattern": regex})));
    }
    add("groups", GrammarSource::Regex(format!("{}{}", "(".repeat(20_000), ")".repeat(20_000))));
    add("alternatives", GrammarSource::Regex((0..20_000).map(|i| i.to_string()).collect::<Vec<_>>().join("|")));
    add("left recursion", GrammarSource::Lark("start: start start | \"a\" | start \"a\" | \"\"".into()));
    add("ambiguous", GrammarSource::Lark("start: a*\na: b* | b b | \"x\"*\nb: a | \"y\"".into()));
    add("repeats", GrammarSource::Lark("start: a{1000}\na: b{1000}\nb: c{1000}\nc: \"x\"{1000}".into()));
    add(
        "rules",
        GrammarSource::Lark(
            (0..20_000).map(|i| format!("r{i}: r{} \"a\"\n", i + 1)).collect::<String>() + "r20000: \"b\"\nstart: r0",
        ),
    );
    add("brackets", GrammarSource::Lark(format!("start: {}\"a\"{}", "(".repeat(30_000), ")".repeat(30_000))));
    add("too long", GrammarSource::Regex("a".repeat(300 << 10)));
    add("%json", GrammarSource::Lark(format!("start: %json {}", nested(10_000, "{\"items\":", "}"))));
    let slow = Duration::from_secs(if cfg!(debug_assertions) { 4 } else { 3 });
    for (name, source) in sources {
        let start = Instant::now();
        let compiled = compile(&source);
        assert!(start.elapsed() < slow, "{name} took {:?} to compile", start.elapsed());
        match compiled {
            Err(error) => {
                let message = error.to_string();
                assert!(!message.contains('\n') && message.len() < 420, "{name}: {message}");
                assert!(!message.contains("panicked"), "{name}: {message}");
            }
            Ok(grammar) => {
                let mut ids: Vec<u32> = Vec::new();
                let mut draws = Draws(1);
                for _ in 0..30 {
                    let start = Instant::now();
                    let next = allowed(&grammar, &ids);
                    assert!(start.elapsed() < Duration::from_secs(2), "{name}: a mask took {:?}", start.elapsed());
                    if next.is_empty() || next == [end()] {
                        break;
                    }
                    ids.push(next[draws.below(next.len())]);
                }
            }
        }
    }
}
