//! What is counted, for clients and for Prometheus, is what was read and written: to the token.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::Running;
use common::draws::Draws;
use common::scripted::{scholar, wanderer};
use common::told::{CONVERSATIONS, Told};
use serde_json::{Value, json};

/// A conversation that ends with a question.
fn conversation(draws: &mut Draws) -> Value {
    let text = |draws: &mut Draws| {
        let words = ["hello", "8*3?", "déjà vu", "京都", "🙂", "\n\n", "a  b", "{\"x\": [1]}", "<b>", "x"];
        (0..=draws.below(12)).map(|_| words[draws.below(words.len())]).collect::<Vec<_>>().join(" ")
    };
    let mut messages = Vec::new();
    if draws.below(3) == 0 {
        messages.push(json!({"role": "system", "content": text(draws)}));
    }
    for _ in 0..draws.below(3) {
        messages.push(json!({"role": "user", "content": text(draws)}));
        messages.push(json!({"role": "assistant", "content": text(draws)}));
    }
    messages.push(json!({"role": "user", "content": text(draws)}));
    json!(messages)
}

fn count(server: &Running, text: &str) -> u64 {
    let body = json!({"content": text, "add_special": false});
    server.post("/tokenize", &body).json()["count"].as_u64().unwrap()
}

#[test]
fn usage_is_what_the_tokenizer_counts() {
    let server = Running::start(scholar, "");
    let mut draws = Draws(18);
    for i in 0..250 {
        let messages = conversation(&mut draws);
        let rendered = server.post("/apply-template", &json!({"messages": messages})).json();
        let prompt_tokens = count(&server, rendered["prompt"].as_str().unwrap());
        let max_tokens = 1 + draws.below(12) as u64;
        let mut seen: Option<Told> = None;
        for (j, api) in CONVERSATIONS.into_iter().enumerate() {
            let stream = (i + j) % 2 == 0;
            let response = server.post(api.path(), &api.body(messages.clone(), max_tokens, &[], stream));
            assert_eq!(response.status, 200, "{api:?} {messages}: {}", response.text());
            let told = api.told(&response.body, stream);
            assert_eq!(told.tokens.0, prompt_tokens, "{api:?} {messages}");
            // The model ends its answer with a token of its own.
            let said = format!("<think>{}", told.reasoning);
            let closed = if told.content.is_empty() { String::new() } else { format!("</think>{}", told.content) };
            match told.finish.as_str() {
                "length" => {
                    assert_eq!(told.tokens.1, max_tokens, "{api:?}");
                    assert!(count(&server, &(said + &closed)).abs_diff(max_tokens) <= 1, "{told:?}");
                }
                _ => assert_eq!(told.tokens.1, count(&server, &(said + &closed)) + 1, "{told:?}"),
            }
            if let Some(seen) = &seen {
                assert_eq!(*seen, told, "{api:?}");
            }
            seen = Some(told);
        }
    }
}

#[test]
fn tokens_of_thoughts_and_of_the_cache_are_part_of_the_others() {
    let server = Running::start(wanderer, "");
    let question = "x".repeat(100);
    for i in 0..8 {
        let budget = 5 + i;
        let body =
            json!({"messages": [{"role": "user", "content": question}], "max_tokens": 60, "thinking_budget": budget});
        let value = server.post("/v1/chat/completions", &body).json();
        let usage = &value["usage"];
        let of = |part: &str, name: &str| usage[part][name].as_u64().unwrap();
        assert_eq!(of("completion_tokens_details", "reasoning_tokens"), budget, "{usage}");
        let thought = value["choices"][0]["message"]["reasoning_content"].as_str().unwrap();
        assert_eq!(count(&server, thought), budget, "{thought}");
        let prompt = usage["prompt_tokens"].as_u64().unwrap();
        // In pages of 32 tokens; the last token of a prompt is always computed.
        let cached = if i == 0 { 0 } else { (prompt - 1) / 32 * 32 };
        assert_eq!(of("prompt_tokens_details", "cached_tokens"), cached, "{usage}");
    }
}

/// Families of metrics: their types, and their samples by name and labels.
type Families = BTreeMap<String, (String, BTreeMap<String, f64>)>;

/// Reads the text format as Prometheus defines it, and refuses what its checker refuses.
fn exposition(text: &str) -> Families {
    assert!(text.ends_with('\n'));
    let (mut families, mut helped, mut current) = (Families::new(), BTreeSet::new(), String::new());
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] => {
                assert!(helped.insert(name.to_owned()) && !help.is_empty(), "{line}");
            }
            ["#", "TYPE", name, kind] => {
                assert!(helped.contains(name) && ["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                assert!(families.insert(name.into(), (kind.into(), BTreeMap::new())).is_none(), "{line}");
                current = name.into();
            }
            [series, value] => {
                let name = series.split('{').next().unwrap();
                let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
                assert!(name.chars().all(valid) && !name.starts_with(|c: char| c.is_ascii_digit()), "{line}");
                let (kind, samples) = families.get_mut(&current).unwrap();
                let suffix = name.strip_prefix(current.as_str()).unwrap_or_else(|| panic!("{line} below {current}"));
                let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
                assert!(suffixes.contains(&suffix), "{line}");
                let value: f64 = value.parse().unwrap();
                assert!(value >= 0.0 && samples.insert(series.into(), value).is_none(), "{line} comes twice");
            }
            _ => panic!("{line:?} is no line of the format"),
        }
    }
    for (name, (kind, samples)) in &families {
        assert!(!samples.is_empty(), "{name}");
        if kind != "histogram" {
            continue;
        }
        let end = |series: &str| match series.split('"').nth(1).unwrap() {
            "+Inf" => f64::INFINITY,
            end => end.parse().unwrap(),
        };
        let mut buckets: Vec<(f64, f64)> = samples
            .iter()
            .filter(|(series, _)| series.contains("_bucket{le="))
            .map(|(series, count)| (end(series), *count))
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1), "{name}: {buckets:?}");
        assert_eq!(*buckets.last().unwrap(), (f64::INFINITY, samples[&format!("{name}_count")]), "{name}");
        assert!(samples.contains_key(&format!("{name}_sum")));
    }
    families
}

#[test]
fn metrics_count_a_hundred_requests_exactly() {
    let server = Running::start(scholar, "");
    exposition(&server.get("/metrics").text());
    let (mut draws, mut sums, mut ends) = (Draws(22), (0, 0), BTreeMap::<String, f64>::new());
    for i in 0..100 {
        let (api, stream) = (CONVERSATIONS[i % 4], draws.below(2) == 0);
        let body = api.body(conversation(&mut draws), 1 + draws.below(12) as u64, &[], stream);
        let told = api.told(&server.post(api.path(), &body).body, stream);
        sums = (sums.0 + told.tokens.0, sums.1 + told.tokens.1);
        *ends.entry(told.finish).or_default() += 1.0;
        // What is refused or only asked about is no request to the model.
        assert_eq!(server.post(api.path(), &json!({"model": "scripted"})).status, 400);
        server.get("/v1/models");
    }
    server.wait_until_idle();
    let families = exposition(&server.get("/metrics").text());
    let value = |name: &str| {
        let family = families
            .iter()
            .find(|(family, _)| name.starts_with(family.as_str()) && families[*family].1.contains_key(name));
        family.unwrap_or_else(|| panic!("{name}")).1.1[name]
    };
    for (finish, count) in [("stop", ends["stop"]), ("length", ends["length"]), ("cancelled", 0.0), ("error", 0.0)] {
        assert_eq!(value(&format!("minke_requests_total{{finish=\"{finish}\"}}")), count, "{finish}");
    }
    assert_eq!(ends.values().sum::<f64>(), 100.0);
    assert_eq!(
        (value("minke_prompt_tokens_total"), value("minke_generated_tokens_total")),
        (sums.0 as f64, sums.1 as f64)
    );
    assert_eq!(value("minke_prompt_tokens_cached_total") + value("minke_engine_prefilled_tokens_total"), sums.0 as f64);
    assert_eq!(value("minke_time_to_first_token_seconds_count"), 100.0);
    assert_eq!(value("minke_request_duration_seconds_count"), 100.0);
    assert_eq!(value("minke_inter_token_seconds_count"), sums.1 as f64 - 100.0);
    assert_eq!((value("minke_requests_running"), value("minke_requests_waiting")), (0.0, 0.0));
}
