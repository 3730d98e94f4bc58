//! Models that say line after line of a script, as many answers as a conversation has: for sessions of coding agents.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use minke_model::Transformer;
use minke_spec::{Format, ModelConfig, Placement};
use minke_tensor::{Device, Tensor};
use minke_text::{EOS, THINK_CLOSE, THINK_OPEN, Tokenizer, TrainOptions};
use serde_json::{Value, json};

/// Marks the line that comes next by a token of its own: the model answers a token with a token, and knows nothing else.
const TEMPLATE: &str = r#"
{%- set ns = namespace(said=0) -%}
{{- bos_token -}}
{%- if tools -%}
    {{- '# Tools\n' -}}
    {%- for tool in tools -%}{{- tool | tojson + '\n' -}}{%- endfor -%}
    {{- 'A call:\n<tool_call>\n{"name": NAME, "arguments": ARGUMENTS}\n</tool_call>\n' -}}
{%- endif -%}
{%- for message in messages -%}
    {%- if message.role == 'assistant' -%}
        {%- set ns.said = ns.said + 1 -%}
        {{- '<｜Assistant｜>' + (message.content or '') -}}
        {%- for call in message.tool_calls or [] -%}
            {{- '\n<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' -}}
            {{- call.function.arguments if call.function.arguments is string else call.function.arguments | tojson -}}
            {{- '}\n</tool_call>' -}}
        {%- endfor -%}
        {{- eos_token -}}
    {%- elif message.role == 'system' -%}
        {{- message.content + '\n' -}}
    {%- else -%}
        {{- '<｜User｜>' + message.content -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<｜Assistant｜><|line_' ~ ([ns.said + 1, LAST] | min if tools else 0) ~ '|>' -}}
{%- endif -%}
"#;

/// What it says where no tools are offered, as when a session is given a title.
const ASIDE: &str = "A short title";
/// Fewest characters of a token of a line, but for the last.
const PIECE: usize = 6;

/// Writes a model that says these lines, of ASCII, into a folder of this name, and returns the folder. Its context has 131,072
/// tokens, its thoughts stand in the text, and a prompt has about as many tokens as another model's.
pub fn write(folder: &Path, name: &str, lines: &[&str]) -> PathBuf {
    let (folder, lines) = (folder.join(name), [&[ASIDE], lines].concat());
    let trained = [include_str!("../../../../README.md"), include_str!("../../../../ARCHITECTURE.md")];
    let options = TrainOptions { vocab_size: 2048, added_tokens: vec![] };
    std::fs::create_dir_all(&folder).unwrap();
    Tokenizer::train(trained.iter(), &options).unwrap().save(&folder).unwrap();
    let path = folder.join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let next = add_lines(&mut tokenizer, &lines);
    std::fs::write(&path, tokenizer.to_string()).unwrap();
    let vocab_size = Tokenizer::load(&folder).unwrap().vocab_size();
    let template = TEMPLATE.trim_start().replace("LAST", &(lines.len() - 1).to_string());
    std::fs::write(folder.join("chat_template.jinja"), template).unwrap();

    // A token that has a next one is a one-hot vector; the blocks, whose outputs are zero, leave it as it is.
    let places: BTreeMap<u32, usize> = next.keys().enumerate().map(|(place, id)| (*id, place)).collect();
    let width = places.len().next_multiple_of(8);
    let config = format!(
        r#"{{"model_type": "llama", "vocab_size": {vocab_size}, "hidden_size": {width}, "num_hidden_layers": 1,
            "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 8, "intermediate_size": 8,
            "rms_norm_eps": 1e-6, "max_position_embeddings": 131072, "tie_word_embeddings": false,
            "rope_theta": 10000.0, "bos_token_id": 0, "eos_token_id": 1}}"#
    );
    let config = ModelConfig::from_json(&config).unwrap().config;
    let device = Device::open("cpu", 1).unwrap();
    let model = Transformer::new::<_, minke_model::Error>(&config, &Placement::single(), |spec, shape| {
        let mut values = vec![0.0; shape.iter().product()];
        match spec.name.as_str() {
            "model.embed_tokens.weight" => places.iter().for_each(|(id, at)| values[*id as usize * width + at] = 1.0),
            "lm_head.weight" => next.iter().for_each(|(from, to)| values[*to as usize * width + places[from]] = 8.0),
            name if name.ends_with("norm.weight") => values.fill(1.0),
            _ => {}
        }
        Ok(Tensor::from_slice(&device, shape, &values))
    });
    minke_weights::save(&model.unwrap(), &folder, Format::F32, usize::MAX).unwrap();
    folder
}

/// Adds tokens for the pieces of all lines, and one that begins each line; which token comes behind which.
///
/// No piece occurs twice, so that a token tells its line and place. No merge leads to them: no other text has them.
fn add_lines(tokenizer: &mut Value, lines: &[&str]) -> BTreeMap<u32, u32> {
    let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    let first = vocabulary.len() as u32;
    // A token of that name would be the tag.
    let tags = [THINK_OPEN, THINK_CLOSE].map(str::to_owned);
    let mut used: BTreeSet<String> = vocabulary.keys().cloned().chain(tags).collect();
    let mut cut_lines = Vec::new();
    for line in lines {
        // As byte-level BPE spells ASCII.
        let spelled: Vec<char> =
            line.chars().map(|c| if c > ' ' { c } else { char::from_u32(c as u32 + 256).unwrap() }).collect();
        let mut pieces = Vec::new();
        assert!(line.is_ascii() && cut(&spelled, &mut used, &mut pieces), "{line:?} cannot be cut into new pieces");
        cut_lines.push(pieces);
    }
    for piece in cut_lines.iter().flatten() {
        vocabulary.insert(piece.clone(), vocabulary.len().into());
    }
    let behind = vocabulary.len() as u32;
    let added = tokenizer["added_tokens"].as_array_mut().unwrap();
    for token in added.iter_mut().filter(|token| token["id"].as_u64() >= Some(first.into())) {
        token["id"] = (token["id"].as_u64().unwrap() + u64::from(behind - first)).into();
        // Thoughts are read from the text.
        if let Some(tag) = [THINK_OPEN, THINK_CLOSE].iter().position(|tag| token["content"] == *tag) {
            token["content"] = format!("<|unused_{tag}|>").into();
        }
    }
    let end = added.iter().find(|token| token["content"] == EOS).unwrap()["id"].as_u64().unwrap() as u32;
    let mut begin = added.iter().filter_map(|token| token["id"].as_u64()).max().unwrap() as u32;
    let (mut next, mut piece) = (BTreeMap::new(), first);
    for (i, pieces) in cut_lines.iter().enumerate() {
        begin += 1;
        added.push(json!({"id": begin, "content": format!("<|line_{i}|>"), "single_word": false, "lstrip": false,
                          "rstrip": false, "normalized": false, "special": true}));
        let ids = (piece..).take(pieces.len());
        piece += pieces.len() as u32;
        let chain: Vec<u32> = std::iter::once(begin).chain(ids).chain([end]).collect();
        next.extend(chain.windows(2).map(|pair| (pair[0], pair[1])));
    }
    next
}

/// Cuts a text into pieces that were not used yet.
fn cut(text: &[char], used: &mut BTreeSet<String>, pieces: &mut Vec<String>) -> bool {
    if text.is_empty() {
        return true;
    }
    for length in PIECE.min(text.len())..=text.len() {
        let piece: String = text[..length].iter().collect();
        if used.insert(piece.clone()) {
            pieces.push(piece.clone());
            if cut(&text[length..], used, pieces) {
                return true;
            }
            pieces.pop();
            used.remove(&piece);
        }
    }
    false
}
