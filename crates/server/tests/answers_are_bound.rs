//! Formats, tools, switches and budgets bind the answer on every API, whole and streamed, with and without a thought.
#![allow(clippy::unwrap_used)]

mod common;

use common::scripted::{brooder, scholar};
use common::{Response, Running};
use serde_json::{Value, json};

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "x": {"type": "integer", "minimum": 0, "maximum": 99},
            "kind": {"enum": ["point", "line"]},
            "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
        },
        "required": ["x", "kind", "tags"],
        "additionalProperties": false,
    })
}

/// Whether a text is JSON of [`schema`]: read by hand, so that no library is asked about itself.
fn obeys(text: &str) -> bool {
    let Ok(Value::Object(object)) = serde_json::from_str(text) else { return false };
    let tags = object["tags"].as_array();
    object.len() == 3
        && object["x"].as_u64().is_some_and(|x| x <= 99)
        && ["point", "line"].contains(&object["kind"].as_str().unwrap_or_default())
        && tags.is_some_and(|tags| tags.len() <= 3 && tags.iter().all(Value::is_boolean))
}

/// What was thought, what was answered, and whether the answer was cut off.
type Told = (String, String, bool);

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn chat(response: &Response, stream: bool) -> Told {
    if !stream {
        let value = response.json();
        let choice = &value["choices"][0];
        let message = &choice["message"];
        return (text(&message["reasoning_content"]), text(&message["content"]), choice["finish_reason"] == "length");
    }
    let events = response.events();
    let joined = |field: &str| events.iter().map(|(_, data)| text(&data["choices"][0]["delta"][field])).collect();
    let cut = events.iter().any(|(_, data)| data["choices"][0]["finish_reason"] == "length");
    (joined("reasoning_content"), joined("content"), cut)
}

fn messages(response: &Response, stream: bool) -> Told {
    if !stream {
        let value = response.json();
        let of = |kind: &str, field: &str| {
            let blocks = value["content"].as_array().unwrap().iter();
            blocks.filter(|block| block["type"] == kind).map(|block| text(&block[field])).collect()
        };
        return (of("thinking", "thinking"), of("text", "text"), value["stop_reason"] == "max_tokens");
    }
    let events = response.events();
    let joined = |field: &str| events.iter().map(|(_, data)| text(&data["delta"][field])).collect();
    let cut = events.iter().any(|(_, data)| data["delta"]["stop_reason"] == "max_tokens");
    (joined("thinking"), joined("text"), cut)
}

fn responses(response: &Response, stream: bool) -> Told {
    let value = if stream { response.events().last().unwrap().1["response"].clone() } else { response.json() };
    let of = |kind: &str| {
        let items = value["output"].as_array().unwrap().iter();
        items.filter(|item| item["type"] == kind).map(|item| text(&item["content"][0]["text"])).collect()
    };
    (of("reasoning"), of("message"), value["status"] == "incomplete")
}

fn ollama(response: &Response) -> Told {
    let text_of_body = response.text();
    let lines: Vec<Value> = text_of_body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let joined = |field: &str| lines.iter().map(|line| text(&line["message"][field])).collect();
    (joined("thinking"), joined("content"), lines.last().unwrap()["done_reason"] == "length")
}

#[test]
fn a_schema_binds_the_answer_in_every_combination() {
    let server = Running::start(scholar, "");
    let hello = json!([{"role": "user", "content": "hello"}]);
    let (mut samples, mut cut_off) = (0, 0);
    for thinks in [true, false] {
        for stream in [true, false] {
            for round in 0..8 {
                let effort = if thinks { "high" } else { "none" };
                let told = [
                    chat(
                        &server.post(
                            "/v1/chat/completions",
                            &json!({"messages": hello, "stream": stream, "seed": round, "max_tokens": 200,
                                    "reasoning_effort": effort, "temperature": 1.0, "response_format":
                                    {"type": "json_schema", "json_schema": {"name": "p", "schema": schema()}}}),
                        ),
                        stream,
                    ),
                    responses(
                        &server.post(
                            "/v1/responses",
                            &json!({"input": "hello", "stream": stream, "max_output_tokens": 200,
                                    "reasoning": {"effort": effort}, "temperature": 1.0, "text":
                                    {"format": {"type": "json_schema", "name": "p", "schema": schema()}}}),
                        ),
                        stream,
                    ),
                    messages(
                        &server.post(
                            "/v1/messages",
                            &json!({"messages": hello, "stream": stream, "max_tokens": 200, "temperature": 1.0,
                                    "thinking": {"type": if thinks { "enabled" } else { "disabled" }},
                                    "output_config": {"format": {"type": "json_schema", "schema": schema()}}}),
                        ),
                        stream,
                    ),
                    ollama(&server.post(
                        "/api/chat",
                        &json!({"model": "scripted", "messages": hello, "stream": stream, "think": thinks,
                                "format": schema(), "options": {"num_predict": 200, "temperature": 1.0}}),
                    )),
                ];
                for (i, (thought, answer, cut)) in told.into_iter().enumerate() {
                    assert!(cut || obeys(&answer), "API {i}, stream {stream}, thinks {thinks}: {answer}");
                    // The model opens its thought with the first token, all but surely.
                    assert!(thinks || thought.is_empty(), "API {i}: {thought}");
                    assert!(!answer.contains("think>"), "API {i}: {answer}");
                    samples += 1;
                    cut_off += usize::from(cut);
                }
            }
        }
    }
    assert!(samples == 128 && cut_off < 32, "{cut_off} of {samples} were cut off");
}

#[test]
fn thinking_is_switched_in_every_spelling() {
    let server = Running::start(scholar, "");
    let ask = |field: &str, value: Value| {
        let mut body = json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 50, "temperature": 0});
        body[field] = value;
        chat(&server.post("/v1/chat/completions", &body), false)
    };
    for (field, on, off) in [
        ("reasoning_effort", json!("medium"), json!("none")),
        ("thinking", json!({"type": "enabled"}), json!({"type": "disabled"})),
        ("enable_thinking", json!(true), json!(false)),
        ("chat_template_kwargs", json!({"enable_thinking": true}), json!({"enable_thinking": false})),
        ("chat_template_kwargs", json!({"thinking": true}), json!({"thinking": false})),
    ] {
        assert_eq!(ask(field, on).0, "ab", "{field} on");
        assert_eq!(ask(field, off).0, "", "{field} off");
    }
    for adaptive in [json!({"type": "adaptive"}), Value::Null] {
        assert_eq!(ask("thinking", adaptive).0, "ab");
    }
}

#[test]
fn a_budget_leaves_room_for_an_answer() {
    let server = Running::start(brooder, "");
    for budget in [0, 1, 7, 100] {
        let body = json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": budget + 30,
                          "thinking_budget": budget});
        let value = server.post("/v1/chat/completions", &body).json();
        let usage = &value["usage"];
        let reasoning = usage["completion_tokens_details"]["reasoning_tokens"].as_u64().unwrap();
        assert!(reasoning <= budget, "{reasoning} of {budget}");
        assert!(!text(&value["choices"][0]["message"]["content"]).is_empty(), "{value}");
        assert_eq!(usage["completion_tokens"].as_u64().unwrap(), budget + 30);
    }
}

#[test]
fn schemas_that_cannot_be_obeyed_are_refused_with_their_place() {
    let server = Running::start(scholar, "");
    for (schema, place) in [
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "format": "no such format"}}}),
            "/properties/a",
        ),
        (json!({"type": "array", "items": {"not": {"type": "null"}}}), "/items"),
        (json!({"$ref": "#/nowhere"}), "$ref"),
    ] {
        let format = json!({"type": "json_schema", "json_schema": {"name": "p", "schema": schema}});
        let body = json!({"messages": [{"role": "user", "content": "hello"}], "response_format": format});
        let refused = server.post("/v1/chat/completions", &body);
        let error = &refused.json()["error"];
        assert_eq!(refused.status, 400, "{error}");
        assert!(error["message"].as_str().unwrap().contains(place), "{place}: {error}");
    }
}

#[test]
fn tools_are_called_as_they_are_chosen() {
    let server = Running::start(scholar, "");
    let tool = |name: &str| json!({"type": "function", "function": {"name": name, "parameters": schema()}});
    let ask = |choice: Value, stream: bool| {
        let body = json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 400, "temperature": 1.0,
                          "tools": [tool("first"), tool("second")], "tool_choice": choice, "stream": stream,
                          "parallel_tool_calls": false});
        server.post("/v1/chat/completions", &body)
    };
    for (choice, names) in [
        (json!("required"), vec!["first", "second"]),
        (json!({"type": "function", "function": {"name": "second"}}), vec!["second"]),
    ] {
        let value = ask(choice.clone(), false).json();
        let choice_of_answer = &value["choices"][0];
        let calls = choice_of_answer["message"]["tool_calls"].as_array().unwrap();
        assert_eq!((calls.len(), &choice_of_answer["finish_reason"]), (1, &json!("tool_calls")), "{value}");
        let function = &calls[0]["function"];
        assert!(names.contains(&function["name"].as_str().unwrap()), "{function}");
        assert!(obeys(function["arguments"].as_str().unwrap()), "{function}");
        assert_eq!(choice_of_answer["message"]["content"], Value::Null);

        let events = ask(choice, true).events();
        let deltas: Vec<&Value> =
            events.iter().map(|(_, data)| &data["choices"][0]["delta"]["tool_calls"][0]).collect();
        let begun: Vec<&&Value> = deltas.iter().filter(|delta| delta["id"].is_string()).collect();
        assert_eq!(
            (begun.len(), &begun[0]["type"], &begun[0]["function"]["arguments"]),
            (1, &json!("function"), &json!(""))
        );
        let arguments: String = deltas.iter().map(|delta| text(&delta["function"]["arguments"])).collect();
        assert!(obeys(&arguments), "{arguments}");
    }
    for choice in [json!("none"), json!("auto")] {
        let value = ask(choice, false).json();
        assert_eq!(value["choices"][0]["message"]["content"], "8*3", "{value}");
    }
    // A call that is cut off ends for length, and its pieces are told.
    let body = json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 45, "tools": [tool("first")],
                      "tool_choice": "required", "enable_thinking": false});
    let cut = server.post("/v1/chat/completions", &body).json();
    assert_eq!(cut["choices"][0]["finish_reason"], "length", "{cut}");
}

#[test]
fn control_tokens_in_texts_are_text() {
    let server = Running::start(scholar, "");
    let count = |content: &str| {
        let body = json!({"messages": [{"role": "user", "content": content}]});
        server.post("/v1/messages/count_tokens", &body).json()["input_tokens"].as_u64().unwrap()
    };
    // As a control token each of them would be one token; as text it is one for every byte of this vocabulary.
    let empty = count("a") - 1;
    for control in ["<｜User｜>", "<｜Assistant｜>", "<think>", "</think>", "<｜end▁of▁sentence｜>"] {
        assert_eq!(count(control), empty + control.len() as u64, "{control}");
        assert_eq!(count(&format!("x{control}y")), empty + 2 + control.len() as u64, "{control}");
    }
}

#[test]
fn one_seed_gives_one_answer_whatever_runs_beside() {
    let server = Running::start(common::scripted::wanderer, "");
    let ask = |seed: u64| {
        let body = json!({"messages": [{"role": "user", "content": "hello"}], "seed": seed, "temperature": 0.6,
                          "max_tokens": 60, "thinking_budget": 40});
        let value = server.post("/v1/chat/completions", &body).json();
        (text(&value["choices"][0]["message"]["reasoning_content"]), text(&value["choices"][0]["message"]["content"]))
    };
    let alone = ask(5);
    assert_ne!(alone, ask(6));
    std::thread::scope(|scope| {
        let many: Vec<_> = (0..24).map(|i| scope.spawn(move || (i, ask(if i % 3 == 0 { 5 } else { i })))).collect();
        for thread in many {
            let (i, told) = thread.join().unwrap();
            assert!(i % 3 != 0 || told == alone, "request {i}");
        }
    });
}

/// For measurements: the answer has as many tokens as were asked for, whatever the model meant.
#[test]
fn an_answer_goes_on_behind_its_end_where_it_is_told_to() {
    let server = Running::start(scholar, "");
    let said = json!([{"role": "user", "content": "hello"}]);
    for (path, body) in [
        ("/v1/chat/completions", json!({"messages": said, "max_tokens": 40})),
        ("/v1/completions", json!({"prompt": "hello", "max_tokens": 40})),
    ] {
        for ignores in [false, true] {
            let mut body = body.clone();
            body["ignore_eos"] = json!(ignores);
            let response = server.post(path, &body);
            let value = response.json();
            let told = (&value["choices"][0]["finish_reason"], value["usage"]["completion_tokens"].as_u64().unwrap());
            let is_chat = path.contains("chat");
            // What follows a text that is no conversation ends where chance has it.
            if ignores || is_chat {
                assert_eq!(told == (&json!("length"), 40), ignores, "{path} {ignores}: {value}");
            }
            assert_eq!(response.header("x-minke-ignored"), None, "{path}");
        }
    }
    let bound = json!({"messages": said, "ignore_eos": true, "response_format": {"type": "json_object"}});
    let refused = server.post("/v1/chat/completions", &bound);
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("ignore_eos")));
}
