//! `minke show`: everything that its configuration and the headers of its files say, with what is unusual.

use std::collections::BTreeMap;

use anyhow::Result;
use minke_chat::{template, tokenizer};
use minke_spec::config::{AttentionConfig, RopeScaling};
use minke_spec::cost::{kv_bytes_per_token, parameter_counts};
use minke_spec::{Format, ModelConfig};
use minke_text::{Message, THINK_OPEN, Tokenizer, USER};
use minke_weights::Archive;
use serde::Serialize;

use super::{print_json, print_line};
use crate::args::Show;

/// The output of `minke show`.
#[derive(Serialize)]
struct Description {
    path: String,
    model_type: &'static str,
    parameters: Parameters,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_nextn_predict_layers: usize,
    attention: String,
    experts: Option<Experts>,
    context_tokens: usize,
    rope_scaling: String,
    vocab_size: usize,
    /// Ids of the tokenizer, if there is one.
    tokenizer_ids: Option<usize>,
    weights: Weights,
    kv_bytes_per_token: KvBytes,
    chat_template: String,
    unknown_config_keys: Vec<String>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct Parameters {
    total: usize,
    activated: usize,
    mtp: usize,
}

#[derive(Serialize)]
struct Experts {
    routed: usize,
    shared: usize,
    per_token: usize,
    groups: usize,
    groups_per_token: usize,
    layers: usize,
}

#[derive(Serialize)]
struct Weights {
    files: usize,
    bytes: u64,
    tensors: usize,
    /// Bytes by format.
    formats: BTreeMap<String, u64>,
}

/// Bytes of one token in the cache of all layers, if it is kept in that format.
#[derive(Serialize)]
struct KvBytes {
    /// Of latents, as R1 is served; only with latent attention.
    latent: Option<ByFormat>,
    /// Of keys and values of all heads, as in training.
    expanded: ByFormat,
}

#[derive(Serialize)]
struct ByFormat {
    bf16: usize,
    f32: usize,
}

impl ByFormat {
    fn of(bytes: impl Fn(Format) -> usize) -> Self {
        Self { bf16: bytes(Format::Bf16), f32: bytes(Format::F32) }
    }
}

/// Runs `minke show`.
pub fn run(args: &Show) -> Result<()> {
    let description = describe(&Archive::open(&args.model.path()?)?);
    if args.output.json { print_json(&description) } else { print_line(&description.text()) }
}

fn describe(archive: &Archive) -> Description {
    let config = &archive.config;
    let counts = parameter_counts(config);
    let mut notes = Vec::new();
    let tokenizer = tokenizer(archive).map_err(|error| notes.push(error.to_string())).ok();
    let tokenizer_ids = tokenizer.as_ref().map(Tokenizer::vocab_size);
    weight_notes(archive, &mut notes);
    if tokenizer.as_ref().is_some_and(|tokenizer| tokenizer.end_ids(&config.eos_token_ids).is_empty()) {
        notes.push("its files name no token that ends an answer".into());
    }
    let experts = config.moe.as_ref().map(|moe| Experts {
        routed: moe.n_routed_experts,
        shared: moe.n_shared_experts,
        per_token: moe.num_experts_per_tok,
        groups: moe.n_group,
        groups_per_token: moe.topk_group,
        layers: (0..config.num_hidden_layers).filter(|&layer| config.is_moe_layer(layer)).count(),
    });
    let mut formats = BTreeMap::new();
    for entry in archive.tensors.values() {
        *formats.entry(entry.dtype.clone()).or_insert(0) += entry.range.len() as u64;
    }
    Description {
        path: archive.path.display().to_string(),
        model_type: config.model_type.name(),
        parameters: Parameters { total: counts.total, activated: counts.activated, mtp: counts.mtp },
        hidden_size: config.hidden_size,
        num_hidden_layers: config.num_hidden_layers,
        num_nextn_predict_layers: config.num_nextn_predict_layers,
        attention: attention(config),
        experts,
        context_tokens: config.max_position_embeddings,
        rope_scaling: rope_scaling(config),
        vocab_size: config.vocab_size,
        tokenizer_ids,
        weights: Weights {
            files: archive.files.len(),
            bytes: archive.file_bytes(),
            tensors: archive.tensors.len(),
            formats,
        },
        kv_bytes_per_token: kv_bytes(config),
        chat_template: chat_template(archive, tokenizer.as_ref(), &mut notes),
        unknown_config_keys: archive.unknown_keys.clone(),
        notes,
    }
}

/// Notes what is unusual about weights and configuration.
fn weight_notes(archive: &Archive, notes: &mut Vec<String>) {
    notes.extend(archive.notes.iter().cloned());
    if archive.files.is_empty() {
        notes.push("there are no weights in the folder".into());
    } else if let Err(error) = archive.check_weights() {
        notes.push(error.to_string());
    }
}

fn attention(config: &ModelConfig) -> String {
    let heads = config.num_attention_heads;
    match &config.attention {
        AttentionConfig::Mla(mla) => {
            let query = mla.q_lora_rank.map_or("not compressed".into(), |rank| format!("rank {rank}"));
            format!("MLA: {heads} heads, latent of {} + {}, queries {query}", mla.kv_lora_rank, mla.qk_rope_head_dim)
        }
        AttentionConfig::Gqa(gqa) => {
            format!("GQA: {heads} query heads of {}, {} key and value heads", gqa.head_dim, gqa.num_key_value_heads)
        }
    }
}

fn rope_scaling(config: &ModelConfig) -> String {
    match &config.rope.scaling {
        RopeScaling::None => "none".into(),
        RopeScaling::Linear(factor) => format!("linear x{factor}"),
        RopeScaling::Yarn(yarn) => format!("YaRN x{} over {}", yarn.factor, yarn.original_max_position_embeddings),
        RopeScaling::Llama3(llama) => {
            format!("llama3 x{} over {}", llama.factor, llama.original_max_position_embeddings)
        }
        RopeScaling::Divisors(_) => "by divisors".into(),
    }
}

fn kv_bytes(config: &ModelConfig) -> KvBytes {
    let (key, value) = config.head_dims();
    match &config.attention {
        AttentionConfig::Gqa(_) => {
            KvBytes { latent: None, expanded: ByFormat::of(|format| kv_bytes_per_token(config, format)) }
        }
        AttentionConfig::Mla(_) => {
            let values = config.num_hidden_layers * config.num_attention_heads * (key + value);
            KvBytes {
                latent: Some(ByFormat::of(|format| kv_bytes_per_token(config, format))),
                expanded: ByFormat::of(|format| format.bytes(values)),
            }
        }
    }
}

/// What the template does, seen in what it makes of a greeting.
fn chat_template(archive: &Archive, tokenizer: Option<&Tokenizer>, notes: &mut Vec<String>) -> String {
    let Some(tokenizer) = tokenizer else { return "not read without a tokenizer".into() };
    let rendered = template(archive, tokenizer).and_then(|(template, note)| {
        notes.extend(note);
        Ok(template.render(&[Message::user("Hi")], true)?)
    });
    let prompt = match rendered {
        Ok(prompt) => prompt,
        Err(error) => {
            notes.push(error.to_string());
            return "none that works".into();
        }
    };
    let families = [(USER, "DeepSeek"), ("<|im_start|>", "ChatML"), ("<|start_header_id|>", "Llama 3")];
    let family = families.iter().find(|(mark, _)| prompt.contains(mark)).map_or("other", |(_, name)| name);
    let opens = prompt.trim_end().ends_with(THINK_OPEN);
    format!("{family}, {}", if opens { "opens the thought" } else { "does not open a thought" })
}

impl Description {
    /// The description for a person.
    fn text(&self) -> String {
        let count = |n: usize| grouped(n as u64);
        let mut lines = vec![self.path.clone()];
        let mut put = |name: &str, text: String| lines.push(format!("  {name:<14} {text}"));
        put("architecture", format!("{}, width {}", self.model_type, self.hidden_size));
        let Parameters { total, activated, mtp } = self.parameters;
        let further = if mtp > 0 { format!(", and {} to predict further tokens", count(mtp)) } else { String::new() };
        put("parameters", format!("{}, of which a token uses {}{further}", count(total), count(activated)));
        let mtp_layers = self.num_nextn_predict_layers;
        let further =
            if mtp_layers > 0 { format!(", and {mtp_layers} for multi-token prediction") } else { String::new() };
        put("layers", format!("{}{further}", self.num_hidden_layers));
        put("attention", self.attention.clone());
        if let Some(e) = &self.experts {
            let routed = format!("{} in {} layers, {} per token", e.routed, e.layers, e.per_token);
            put("experts", format!("{routed} from {} of {} groups, {} shared", e.groups_per_token, e.groups, e.shared));
        }
        put("context", format!("{} tokens, rope scaling {}", count(self.context_tokens), self.rope_scaling));
        let ids = self.tokenizer_ids.map_or("no tokenizer".into(), |ids| format!("tokenizer of {}", count(ids)));
        put("vocabulary", format!("{}, {ids}", count(self.vocab_size)));
        let formats = self.weights.formats.iter().map(|(name, bytes)| format!("{name} {}", grouped(*bytes)));
        let formats: Vec<String> = formats.collect();
        let Weights { files, bytes, tensors, .. } = self.weights;
        put("weights", format!("{} bytes in {files} files, {tensors} tensors: {}", grouped(bytes), formats.join(", ")));
        let cache = |name: &str, bytes: &ByFormat| {
            format!("{name} {} bytes per token in BF16, {} in F32", count(bytes.bf16), count(bytes.f32))
        };
        let kv = &self.kv_bytes_per_token;
        kv.latent.iter().for_each(|bytes| put("cache", cache("latents:", bytes)));
        put("cache", cache("keys and values:", &kv.expanded));
        put("chat template", self.chat_template.clone());
        self.notes.iter().for_each(|note| put("note", note.clone()));
        lines.join("\n")
    }
}

/// A number with its thousands apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
