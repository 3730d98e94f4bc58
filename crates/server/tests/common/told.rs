//! What an API told: the same of all of them, whole and streamed.
#![allow(clippy::unwrap_used)]
#![allow(dead_code)]

use minke_text::Tool;
use serde_json::{Map, Value, json};

/// An API that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    Chat,
    Responses,
    Messages,
    OllamaChat,
    OllamaGenerate,
    Completions,
}

/// Those that tell thoughts and calls of tools apart.
pub const CONVERSATIONS: [Api; 4] = [Api::Chat, Api::Responses, Api::Messages, Api::OllamaChat];

/// What an API told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub reasoning: String,
    pub content: String,
    /// Names and arguments of calls.
    pub calls: Vec<(String, String)>,
    /// In OpenAI's words: `stop`, `length`, `tool_calls`.
    pub finish: String,
    /// Tokens of prompt and answer.
    pub tokens: (u64, u64),
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

impl Api {
    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Responses => "/v1/responses",
            Self::Messages => "/v1/messages",
            Self::OllamaChat => "/api/chat",
            Self::OllamaGenerate => "/api/generate",
            Self::Completions => "/v1/completions",
        }
    }

    /// A request that says `hello`, for at most so many tokens, with these tools.
    pub fn hello(self, max_tokens: u64, tools: &[Tool], stream: bool) -> Value {
        self.body(json!([{"role": "user", "content": "hello"}]), max_tokens, tools, stream)
    }

    /// A request for the next message of a conversation, or of its last text where the API knows no conversations.
    pub fn body(self, messages: Value, max_tokens: u64, tools: &[Tool], stream: bool) -> Value {
        let last = messages.as_array().and_then(|messages| messages.last()).map(|last| last["content"].clone());
        let mut body = match self {
            Self::Chat => json!({"messages": messages, "max_tokens": max_tokens,
                                 "stream_options": {"include_usage": true}}),
            Self::Responses => json!({"input": messages, "max_output_tokens": max_tokens}),
            Self::Messages => json!({"messages": messages, "max_tokens": max_tokens}),
            Self::OllamaChat => {
                json!({"model": "scripted", "messages": messages, "options": {"num_predict": max_tokens}})
            }
            Self::OllamaGenerate => {
                json!({"model": "scripted", "prompt": last, "options": {"num_predict": max_tokens}})
            }
            Self::Completions => json!({"prompt": last, "max_tokens": max_tokens,
                                        "stream_options": {"include_usage": true}}),
        };
        body["stream"] = json!(stream);
        if !tools.is_empty() {
            let tool = |tool: &Tool| {
                let (name, schema) = (&tool.name, &tool.parameters);
                match self {
                    Self::Messages => json!({"name": name, "input_schema": schema}),
                    Self::Responses => json!({"type": "function", "name": name, "parameters": schema}),
                    _ => json!({"type": "function", "function": {"name": name, "parameters": schema}}),
                }
            };
            body["tools"] = tools.iter().map(tool).collect();
        }
        body
    }

    /// What a response says. It must have the form that the API's clients rely on; a stream must have one last event.
    pub fn told(self, body: &[u8], stream: bool) -> Told {
        let whole = || serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {}", shown(body)));
        match (self, stream) {
            (Self::Chat | Self::Completions, false) => openai(&whole()),
            (Self::Chat | Self::Completions, true) => openai_stream(&events(body)),
            (Self::Responses, false) => responses(&whole()),
            (Self::Responses, true) => responses_stream(&events(body)),
            (Self::Messages, false) => messages(&whole()),
            (Self::Messages, true) => messages_stream(&events(body)),
            (Self::OllamaChat | Self::OllamaGenerate, stream) => ollama(body, stream),
        }
    }

    /// How many last events a stream has.
    pub fn last_events(self, body: &[u8]) -> usize {
        let names = ["message_stop", "error", "response.completed", "response.incomplete", "response.failed", "[DONE]"];
        match self {
            Self::OllamaChat | Self::OllamaGenerate => {
                let lines = shown(body);
                let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
                lines.filter(|line| line["done"] == true || line.get("error").is_some()).count()
            }
            _ => {
                let events = events(body);
                let is_last = |(name, data): &&(String, Value)| {
                    names.contains(&name.as_str()) || (name.is_empty() && data.get("error").is_some())
                };
                events.iter().filter(is_last).count()
            }
        }
    }
}

fn shown(body: &[u8]) -> String {
    String::from_utf8(body.to_vec()).unwrap()
}

/// The events of a stream: their names and data; comments have neither.
pub fn events(body: &[u8]) -> Vec<(String, Value)> {
    let text = shown(body);
    assert!(text.is_empty() || text.ends_with("\n\n"), "{text}");
    let mut events = Vec::new();
    for block in text.split("\n\n").filter(|block| !block.is_empty()) {
        let field = |name: &str| {
            let prefix = format!("{name}: ");
            block.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::to_owned)
        };
        match field("data") {
            None => assert!(block.starts_with(':'), "{block}"),
            Some(data) if data == "[DONE]" => events.push(("[DONE]".into(), Value::Null)),
            Some(data) => events.push((field("event").unwrap_or_default(), serde_json::from_str(&data).unwrap())),
        }
    }
    events
}

fn openai(value: &Value) -> Told {
    let (choice, usage) = (&value["choices"][0], &value["usage"]);
    let message = &choice["message"];
    let calls = message["tool_calls"].as_array().into_iter().flatten();
    let function = |call: &Value| (text(&call["function"]["name"]), text(&call["function"]["arguments"]));
    Told {
        reasoning: text(&message["reasoning_content"]),
        content: text(&message["content"]) + &text(&choice["text"]),
        calls: calls.map(function).collect(),
        finish: text(&choice["finish_reason"]),
        tokens: (number(&usage["prompt_tokens"]), number(&usage["completion_tokens"])),
    }
}

fn openai_stream(events: &[(String, Value)]) -> Told {
    let [head @ .., (_, usage), (done, _)] = events else { panic!("{events:?}") };
    assert_eq!((done.as_str(), &usage["choices"]), ("[DONE]", &json!([])));
    let [deltas @ .., (_, end)] = head else { panic!("{events:?}") };
    let finish = text(&end["choices"][0]["finish_reason"]);
    assert!(!finish.is_empty(), "{end}");
    let mut told = Told { finish, ..Told::default() };
    for (_, chunk) in deltas {
        assert_eq!(chunk["id"], usage["id"]);
        let choice = &chunk["choices"][0];
        assert!(choice["finish_reason"].is_null(), "{chunk}");
        let delta = &choice["delta"];
        if let Some(piece) = delta["reasoning_content"].as_str() {
            assert!(!piece.is_empty(), "{events:?}");
            told.reasoning += piece;
        }
        told.content += delta["content"].as_str().or(choice["text"].as_str()).unwrap_or_default();
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let (index, function) = (number(&call["index"]) as usize, &call["function"]);
            if let Some(id) = call["id"].as_str() {
                assert!(!id.is_empty() && index == told.calls.len() && call["type"] == "function", "{call}");
                told.calls.push((text(&function["name"]), String::new()));
            }
            assert_eq!(index + 1, told.calls.len(), "{call}");
            told.calls[index].1 += function["arguments"].as_str().unwrap();
        }
    }
    let usage = &usage["usage"];
    told.tokens = (number(&usage["prompt_tokens"]), number(&usage["completion_tokens"]));
    told
}

fn responses(value: &Value) -> Told {
    let items = value["output"].as_array().unwrap();
    let of = |kind: &str| {
        let items = items.iter().filter(|item| item["type"] == kind);
        items.map(|item| text(&item["content"][0]["text"])).collect()
    };
    let calls: Vec<(String, String)> = items
        .iter()
        .filter(|item| item["type"] == "function_call")
        .map(|item| (text(&item["name"]), text(&item["arguments"])))
        .collect();
    let finish = match (value["status"].as_str(), value["incomplete_details"]["reason"].as_str()) {
        (Some("completed"), None) if !calls.is_empty() => "tool_calls",
        (Some("completed"), None) => "stop",
        (Some("incomplete"), Some("max_output_tokens")) => "length",
        other => panic!("{other:?}"),
    };
    let usage = &value["usage"];
    Told {
        reasoning: of("reasoning"),
        content: of("message"),
        calls,
        finish: finish.into(),
        tokens: (number(&usage["input_tokens"]), number(&usage["output_tokens"])),
    }
}

fn responses_stream(events: &[(String, Value)]) -> Told {
    assert!(events.iter().enumerate().all(|(i, (_, data))| number(&data["sequence_number"]) == i as u64));
    assert!(events.iter().all(|(name, data)| *name == text(&data["type"])));
    let last = events.last().unwrap();
    assert!(["response.completed", "response.incomplete"].contains(&last.0.as_str()), "{last:?}");
    let whole = responses(&last.1["response"]);
    // The pieces of each item add up to what stands at its end.
    let output = last.1["response"]["output"].as_array().unwrap();
    let mut pieces = vec![String::new(); output.len()];
    let mut open = None;
    for (name, data) in events {
        let index = data["output_index"].as_u64().map(|index| index as usize);
        match name.as_str() {
            "response.output_item.added" => assert_eq!(open.replace(index.unwrap()), None, "{events:?}"),
            "response.output_item.done" => {
                assert_eq!(open.take(), index);
                assert_eq!(data["item"], output[index.unwrap()]);
            }
            name if name.ends_with(".delta") => {
                assert_eq!(open, index);
                pieces[index.unwrap()] += data["delta"].as_str().unwrap();
            }
            _ => {}
        }
    }
    assert_eq!(open, None, "{events:?}");
    for (item, pieces) in output.iter().zip(pieces) {
        let told = item["arguments"].as_str().or(item["content"][0]["text"].as_str()).unwrap_or_default();
        assert_eq!(pieces, told);
    }
    whole
}

fn stop_reason(reason: &Value) -> String {
    match reason.as_str() {
        Some("end_turn" | "stop_sequence") => "stop".to_owned(),
        Some("max_tokens") => "length".to_owned(),
        Some("tool_use") => "tool_calls".to_owned(),
        other => panic!("{other:?}"),
    }
}

fn messages_tokens(usage: &Value) -> (u64, u64) {
    (number(&usage["input_tokens"]) + number(&usage["cache_read_input_tokens"]), number(&usage["output_tokens"]))
}

fn messages(value: &Value) -> Told {
    let blocks = value["content"].as_array().unwrap();
    let of = |kind: &str, field: &str| {
        blocks.iter().filter(|block| block["type"] == kind).map(|block| text(&block[field])).collect()
    };
    let calls = blocks.iter().filter(|block| block["type"] == "tool_use");
    Told {
        reasoning: of("thinking", "thinking"),
        content: of("text", "text"),
        calls: calls.map(|call| (text(&call["name"]), call["input"].to_string())).collect(),
        finish: stop_reason(&value["stop_reason"]),
        tokens: messages_tokens(&value["usage"]),
    }
}

fn messages_stream(events: &[(String, Value)]) -> Told {
    assert!(events.iter().all(|(name, data)| *name == text(&data["type"])));
    let [(first, _), blocks @ .., (end, delta), (stop, _)] = events else { panic!("{events:?}") };
    assert_eq!((first.as_str(), end.as_str(), stop.as_str()), ("message_start", "message_delta", "message_stop"));
    let mut told = Told {
        finish: stop_reason(&delta["delta"]["stop_reason"]),
        tokens: messages_tokens(&delta["usage"]),
        ..Told::default()
    };
    // Every block begins, has pieces and ends, one after the other.
    let (mut open, mut begun) = (None, 0);
    for (name, data) in blocks {
        match name.as_str() {
            "content_block_start" => {
                assert_eq!((open.replace(number(&data["index"])), number(&data["index"])), (None, begun));
                begun += 1;
                let block = &data["content_block"];
                if block["type"] == "tool_use" {
                    told.calls.push((text(&block["name"]), String::new()));
                }
            }
            "content_block_delta" => {
                assert_eq!(open, Some(number(&data["index"])));
                let delta = &data["delta"];
                told.reasoning += delta["thinking"].as_str().unwrap_or_default();
                told.content += delta["text"].as_str().unwrap_or_default();
                if let Some(piece) = delta["partial_json"].as_str() {
                    told.calls.last_mut().unwrap().1 += piece;
                }
            }
            "content_block_stop" => assert_eq!(open.take(), Some(number(&data["index"]))),
            "ping" => {}
            other => panic!("{other}"),
        }
    }
    assert_eq!(open, None, "{events:?}");
    told
}

fn ollama(body: &[u8], stream: bool) -> Told {
    let text_of_body = shown(body);
    let lines: Vec<Value> = text_of_body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (last, parts) = lines.split_last().unwrap();
    assert!(last["done"] == true && parts.iter().all(|part| part["done"] == false), "{text_of_body}");
    assert!(stream || parts.is_empty());
    let part = |line: &Value| line.get("message").unwrap_or(line).clone();
    let joined = |field: &str| lines.iter().map(|line| text(&part(line)[field])).collect::<String>();
    let parts: Vec<Value> = lines.iter().map(part).collect();
    let calls = parts.iter().flat_map(|part| part["tool_calls"].as_array().into_iter().flatten());
    let calls: Vec<(String, String)> =
        calls.map(|call| (text(&call["function"]["name"]), call["function"]["arguments"].to_string())).collect();
    let finish = match text(&last["done_reason"]).as_str() {
        "stop" if !calls.is_empty() => "tool_calls".into(),
        other => other.to_owned(),
    };
    Told {
        reasoning: joined("thinking"),
        content: joined("content") + &joined("response"),
        calls,
        finish,
        tokens: (number(&last["prompt_eval_count"]), number(&last["eval_count"])),
    }
}

/// Arguments as an API gives them that parses them: those that are no object are an empty one.
pub fn parsed_arguments(arguments: &str) -> String {
    Value::Object(serde_json::from_str::<Map<String, Value>>(arguments).unwrap_or_default()).to_string()
}
