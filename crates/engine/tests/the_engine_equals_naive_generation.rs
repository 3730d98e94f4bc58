//! The cache changes no result: tokens, log-probabilities and entropies are, to the bit, those of a whole forward over
//! all tokens for each new one: without any cache, or, where a cache rounds, with one that is filled anew each time.
#![allow(clippy::unwrap_used)]

mod common;

use common::{alone, assert_same, cases, config, device, random, spacious};
use minke_engine::{Completion, Finish};
use minke_model::{Batch, Chunk, KvCache, MlaForm, Transformer};
use minke_tensor::{Device, Dtype, Indices, Isa, PAGE_TOKENS, Pass};

/// Continues a prompt greedily, a whole forward per token.
fn naive(
    device: &Device,
    model: &Transformer,
    dtype: Dtype,
    prompt: &[u32],
    count: usize,
    like: &Completion,
) -> Completion {
    let pass = Pass::inference(device);
    let mut tokens = prompt.to_vec();
    let (mut log_probs, mut entropies) = (vec![], vec![]);
    for _ in 0..count {
        let hidden = match dtype {
            Dtype::F32 => model.forward(pass, &Batch::packed(device, &[&tokens]), None, false),
            Dtype::Bf16 => {
                let pages: Vec<u32> = (0..tokens.len().div_ceil(PAGE_TOKENS) as u32).collect();
                let mut cache = KvCache::new(device, model.config(), pages.len(), MlaForm::Expanded, dtype);
                let chunk = Chunk { token_ids: &tokens, first_position: 0, pages: &pages, asked: tokens.len() };
                model.forward(pass, &Batch::paged(device, &[chunk]).unwrap(), Some(&mut cache), false)
            }
        };
        let hidden = hidden.unwrap().hidden;
        let last = hidden.gather_rows(pass, &Indices::from_slice(device, &[tokens.len() as u32 - 1])).unwrap();
        let logits = model.logits(pass, &last).unwrap();
        let values = logits.read();
        let best = (0..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best }) as u32;
        let said = logits.log_prob_rows(pass, &Indices::from_slice(device, &[best]), 1.0).unwrap();
        log_probs.push(said.log_prob.item());
        entropies.push(said.entropy.item());
        tokens.push(best);
    }
    let mut naive = like.clone();
    naive.token_ids = tokens.split_off(prompt.len());
    (naive.log_probs, naive.entropies, naive.finish) = (log_probs, entropies, Finish::Length);
    naive
}

#[test]
fn the_engine_equals_naive_generation() {
    for isa in Isa::available() {
        for name in ["tiny-v3", "tiny-v3-direct-q", "tiny-qwen2", "tiny-qwen3", "tiny-llama"] {
            let device = device(2, isa);
            let model = random(&device, &config(name));
            for mut case in cases(4, model.config().vocab_size) {
                case.params = common::params(0.0, 0, 40);
                let [exact, rounded] = [Dtype::F32, Dtype::Bf16].map(|dtype| {
                    let sizes = spacious(MlaForm::Expanded).with_cache_dtype(dtype);
                    let got = alone(&device, &model, sizes, &case);
                    let want = naive(&device, &model, dtype, &case.prompt, 40, &got);
                    assert_same(&got, &want, &format!("{name}, {dtype:?}, {}", isa.name()));
                    let different: std::collections::BTreeSet<_> = got.token_ids.iter().collect();
                    assert!(different.len() > 3, "{name}: a model that repeats itself shows nothing");
                    got.log_probs
                });
                assert_ne!(exact, rounded, "{name}: a cache of BF16 rounds");
            }
        }
    }
}
