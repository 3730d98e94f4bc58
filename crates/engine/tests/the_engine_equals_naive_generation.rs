//! Is the cache only a shortcut? Tokens, log-probabilities and entropies are, to the bit, those of a whole forward over
//! all tokens for each new one, without any cache.
#![allow(clippy::unwrap_used)]

mod common;

use common::{alone, assert_same, cases, config, device, random};
use minke_engine::{Completion, Finish};
use minke_model::{Batch, MlaForm, Transformer};
use minke_tensor::{Device, Indices, Isa, Pass};

/// Continues a prompt greedily, a whole forward per token.
fn naive(device: &Device, model: &Transformer, prompt: &[u32], count: usize, like: &Completion) -> Completion {
    let pass = Pass::inference(device);
    let mut tokens = prompt.to_vec();
    let (mut log_probs, mut entropies) = (vec![], vec![]);
    for _ in 0..count {
        let batch = Batch::packed(device, &[&tokens]);
        let hidden = model.forward(pass, &batch, None, false).unwrap().hidden;
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
                let got = alone(&device, &model, MlaForm::Expanded, &case);
                let want = naive(&device, &model, &case.prompt, 40, &got);
                assert_same(&got, &want, &format!("{name}, {}", isa.name()));
                let different: std::collections::BTreeSet<_> = got.token_ids.iter().collect();
                assert!(different.len() > 3, "{name}: a model that repeats itself shows nothing");
            }
        }
    }
}
