//! Tiny models, prompts and engines.
#![allow(clippy::unwrap_used, dead_code)]

use std::path::PathBuf;

use minke_engine::{Completion, Engine, EngineConfig, SamplingParams};
use minke_model::{MlaForm, Transformer};
use minke_spec::draw::{Domain, draw};
use minke_spec::{ModelConfig, Placement};
use minke_tensor::{Device, Dtype, Isa};

pub const FORMS: [MlaForm; 2] = [MlaForm::Expanded, MlaForm::Absorbed];

/// The two attentions and feed-forwards, one model per kind, with every form and type of the cache.
pub const KINDS: [(&str, MlaForm, Dtype); 6] = [
    ("tiny-v3", MlaForm::Expanded, Dtype::F32),
    ("tiny-v3", MlaForm::Absorbed, Dtype::F32),
    ("tiny-qwen2", MlaForm::Expanded, Dtype::F32),
    ("tiny-v3", MlaForm::Expanded, Dtype::Bf16),
    ("tiny-v3", MlaForm::Absorbed, Dtype::Bf16),
    ("tiny-qwen2", MlaForm::Expanded, Dtype::Bf16),
];

pub fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)
}

pub fn device(threads: usize, isa: Isa) -> Device {
    Device::cpu(threads, isa).unwrap()
}

pub fn config(name: &str) -> ModelConfig {
    let text = std::fs::read_to_string(folder(name).join("config.json")).unwrap();
    let mut config = ModelConfig::from_json(&text).unwrap().config;
    // Large weights: attention and experts must matter for the tokens, or wrong ones would not show.
    config.initializer_range = 0.25;
    config
}

/// A model with random weights, the experts' selection biases included.
pub fn random(device: &Device, config: &ModelConfig) -> Transformer {
    let mut model = Transformer::random(device, config, &Placement::single(), 1).unwrap();
    for param in model.params_mut() {
        if param.name().ends_with("e_score_correction_bias") {
            param.update(device, |bias| bias.iter_mut().enumerate().for_each(|(i, b)| *b = (i % 5) as f32 * 0.01));
        }
    }
    model
}

/// An engine with room for everything, and a cache of F32.
pub fn spacious(form: MlaForm) -> EngineConfig {
    let config = EngineConfig::default().with_form(form).with_prefix_cache(false).with_cache_dtype(Dtype::F32);
    config.with_pages(1024).with_max_sequences(256).with_chunk_tokens(256)
}

pub fn params(temperature: f32, seed: u64, max_tokens: usize) -> SamplingParams {
    SamplingParams::default().with_temperature(temperature).with_seed(seed).with_max_tokens(max_tokens)
}

/// A prompt and how it is continued.
#[derive(Clone)]
pub struct Case {
    pub prompt: Vec<u32>,
    pub params: SamplingParams,
}

/// Different prompts with different parameters; every third begins with the same 80 tokens.
pub fn cases(count: usize, vocab_size: usize) -> Vec<Case> {
    let mut common = draw(77, Domain::Data, &[]);
    let vocab = vocab_size as u64;
    let common: Vec<u32> = (0..80).map(|_| common.below(vocab) as u32).collect();
    (0..count as u64)
        .map(|i| {
            let mut stream = draw(78, Domain::Data, &[i]);
            let mut prompt = if i % 3 == 0 { common.clone() } else { Vec::new() };
            prompt.extend((0..stream.between(1, 60)).map(|_| stream.below(vocab) as u32));
            let temperature = [0.0, 1.0, 0.6][stream.below(3) as usize];
            let max_tokens = stream.between(1, 40) as usize;
            let mut params = params(temperature, i + 1, max_tokens);
            (params.top_p, params.top_k) = [(1.0, 0), (0.9, 0), (0.95, 20)][stream.below(3) as usize];
            params.stop_ids = vec![stream.below(vocab) as u32];
            Case { prompt, params }
        })
        .collect()
}

/// Runs cases together and returns their completions in order.
pub fn run(engine: &mut Engine, model: &Transformer, cases: &[Case]) -> Vec<Completion> {
    for case in cases {
        engine.submit(&case.prompt, &case.params, 1).unwrap();
    }
    engine.run(model).unwrap()
}

/// Runs a case in an engine of its own.
pub fn alone(device: &Device, model: &Transformer, sizes: EngineConfig, case: &Case) -> Completion {
    let mut engine = Engine::new(device, model.config(), sizes).unwrap();
    run(&mut engine, model, std::slice::from_ref(case)).remove(0)
}

/// Checks that two results are the same to the bit.
pub fn assert_same(got: &Completion, want: &Completion, what: &str) {
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(got.token_ids, want.token_ids, "tokens {what}");
    assert_eq!(bits(&got.log_probs), bits(&want.log_probs), "log-probabilities {what}");
    assert_eq!(bits(&got.entropies), bits(&want.entropies), "entropies {what}");
    assert_eq!((got.finish, got.log_probs.len()), (want.finish, want.token_ids.len()), "{what}");
}
