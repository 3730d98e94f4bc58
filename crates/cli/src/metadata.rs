//! Vocabulary, template and advice on sampling, which belong to a model beside configuration and weights: files of a
//! folder, or metadata of GGUF.

use std::path::Path;

use anyhow::{Context, Result};
use minke_chat::{template, tokenizer};
use minke_sys::atomic;
use minke_text::ChatTemplate;
use minke_weights::{Archive, GENERATION_FILE, Pairs, PlannedTensor};
use serde_json::{Map, Value, json};

use crate::error::Exit;
use crate::files::read_text;

/// Advice on sampling in generation_config.json and in metadata.
const SAMPLING: [(&str, &str); 4] = [
    ("temperature", "general.sampling.temp"),
    ("top_p", "general.sampling.top_p"),
    ("top_k", "general.sampling.top_k"),
    ("min_p", "general.sampling.min_p"),
];

/// The metadata of a GGUF file with these tensors of this model, and a note about them.
///
/// # Errors
/// If tokenizer, template or advice are broken, or the model or its tokenizer have no form in GGUF.
pub fn pairs(archive: &Archive, planned: &[PlannedTensor], target: &Path) -> Result<(Pairs, Option<String>)> {
    let name = if archive.metadata.is_none() { &archive.path } else { target };
    let name = std::path::absolute(name)?.file_stem().map_or(String::new(), |name| name.to_string_lossy().into_owned());
    let mut pairs = archive.gguf_pairs(&name, planned)?;
    if archive.metadata.is_some() {
        return Ok((pairs, None));
    }
    for (key, value) in read_json(&archive.path.join(GENERATION_FILE))? {
        if let (Some((_, name)), Some(value)) = (SAMPLING.iter().find(|(known, _)| *known == key), value.as_f64()) {
            if key == "top_k" { pairs.unsigned(name, value as usize) } else { pairs.float(name, value) }
        }
    }
    if !archive.path.join("tokenizer.json").exists() {
        // Tells llama.cpp to take ids alone.
        pairs.text("tokenizer.ggml.model", "none");
        return Ok((pairs, Some("the model has no tokenizer.json: the file takes ids, no text".into())));
    }
    let config = &archive.config;
    let tokenizer = tokenizer(archive)?;
    let vocabulary = tokenizer.vocabulary(config.vocab_size)?;
    pairs.text("tokenizer.ggml.model", "gpt2");
    pairs.text("tokenizer.ggml.pre", &vocabulary.pre);
    pairs.texts("tokenizer.ggml.tokens", vocabulary.tokens.iter().map(String::as_str));
    let kinds: Vec<i32> = vocabulary.kinds.iter().map(|&kind| kind as i32).collect();
    pairs.integers("tokenizer.ggml.token_type", &kinds);
    pairs.texts("tokenizer.ggml.merges", vocabulary.merges.iter().map(String::as_str));
    let ends = tokenizer.end_ids(&config.eos_token_ids);
    let ids = [
        ("bos", vocabulary.bos_token_id.or(config.bos_token_id)),
        ("eos", ends.first().copied()),
        // llama.cpp reads one more of them from a key, and finds others by name.
        ("eot", ends.get(1).copied()),
        ("padding", vocabulary.pad_token_id.or(config.pad_token_id)),
    ];
    for (token, id) in ids.into_iter().filter_map(|(token, id)| Some((token, id?))) {
        pairs.unsigned(&format!("tokenizer.ggml.{token}_token_id"), id as usize);
    }
    if ends.len() > 1 {
        let ends: Vec<i32> = ends.iter().map(|&id| id as i32).collect();
        pairs.integers("tokenizer.ggml.eos_token_ids", &ends);
    }
    pairs.bool("tokenizer.ggml.add_bos_token", vocabulary.add_bos_token == Some(true));
    if let Some(template) = ChatTemplate::find(&archive.path)? {
        pairs.text("tokenizer.chat_template", template.source());
        if let Some(source) = template.tool_use_source() {
            pairs.text("tokenizer.chat_template.tool_use", source);
        }
    }
    Ok((pairs, None))
}

/// Writes what a GGUF file says about text and sampling as files of a folder; returns a note about them.
///
/// # Errors
/// If the vocabulary or the template are broken, or a file cannot be written.
pub fn write_files(archive: &Archive, folder: &Path) -> Result<Option<String>> {
    let Some(metadata) = &archive.metadata else { return copy_files(&archive.path, folder).map(|()| None) };
    let mut advice = Map::new();
    for (key, name) in SAMPLING {
        // As short as the f32 that it was.
        let decimal = |value: f64| (value as f32).to_string().parse::<f64>().map_or(Value::Null, Value::from);
        if let Some(value) = metadata.float(name).map_err(|reason| Exit::BadFile.because(reason))? {
            advice.insert(key.into(), if key == "top_k" { json!(value as u64) } else { decimal(value) });
        }
    }
    if !advice.is_empty() {
        advice.insert("do_sample".into(), json!(true));
    }
    let has_text = matches!(metadata.text("tokenizer.ggml.model"), Ok(Some("gpt2")));
    let tokenizer = has_text.then(|| tokenizer(archive)).transpose()?;
    let stated = &archive.config.eos_token_ids;
    let ends = tokenizer.as_ref().map_or_else(|| stated.clone(), |tokenizer| tokenizer.end_ids(stated));
    advice.insert("bos_token_id".into(), json!(archive.config.bos_token_id));
    advice.insert("eos_token_id".into(), json!(ends));
    atomic::write_new(&folder.join(GENERATION_FILE), format!("{:#}\n", Value::Object(advice)).as_bytes())?;
    let Some(tokenizer) = tokenizer else {
        return Ok(Some("the file has no vocabulary: the folder takes ids, no text".into()));
    };
    tokenizer.save(folder)?;
    if metadata.get("tokenizer.chat_template").is_none() {
        return Ok(Some("the file has no chat template".into()));
    }
    template(archive, &tokenizer)?.0.save(folder)?;
    Ok(None)
}

/// Copies the files of a folder that are not weights or their configuration.
fn copy_files(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let weights = [".safetensors", ".safetensors.index.json", ".bin", ".pt", ".pth", ".gguf"];
        let other = name == "config.json" || name.starts_with('.') || weights.iter().any(|end| name.ends_with(end));
        if !other && entry.path().is_file() {
            atomic::copy_new(&entry.path(), &to.join(&name))
                .with_context(|| format!("cannot copy {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// The object in a file, an empty one if there is no file.
fn read_json(path: &Path) -> Result<Map<String, Value>> {
    if !path.exists() {
        return Ok(Map::new());
    }
    let bad = |error| Exit::BadFile.because(format!("{}: is not a JSON object ({error}); correct it", path.display()));
    serde_json::from_str(&read_text(path)?).map_err(bad)
}
