//! A batch that is asked for the states of some rows gives those that it gives when it is asked for all, to the bit.
#![allow(clippy::unwrap_used)]

mod common;

use common::{config, random};
use minke_model::{Batch, Chunk, KvCache, Transformer};
use minke_spec::draw::{Domain, draw};
use minke_tensor::{Device, Dtype, Isa, Pass};

/// Rows of three sequences, two steps: one has pages of a step before, one is a single row.
const STEPS: [[usize; 3]; 2] = [[40, 0, 3], [20, 1, 5]];

/// The states of both steps, by sequence.
fn states(
    device: &Device,
    model: &Transformer,
    tokens: &[u32],
    cache: &mut KvCache,
    asked: [[usize; 3]; 2],
) -> Vec<Vec<f32>> {
    let width = model.config().hidden_size;
    let pages: [&[u32]; 3] = [&[3, 0], &[1], &[5]];
    let (mut firsts, mut found) = ([0; 3], vec![]);
    for (rows, asked) in STEPS.iter().zip(asked) {
        let chunks = (0..3).filter(|&s| rows[s] > 0).map(|s| Chunk {
            token_ids: &tokens[firsts[s]..firsts[s] + rows[s]],
            first_position: firsts[s],
            pages: pages[s],
            asked: asked[s],
        });
        let batch = Batch::paged(device, &chunks.collect::<Vec<_>>()).unwrap();
        let output = model.forward(Pass::inference(device), &batch, Some(&mut *cache), false).unwrap();
        let mut values = output.hidden.read();
        for s in 0..3 {
            firsts[s] += rows[s];
            let rest = values.split_off(asked[s] * width);
            found.push(std::mem::replace(&mut values, rest));
        }
        assert!(values.is_empty());
    }
    found
}

#[test]
fn states_that_are_asked_for_have_their_bits() {
    for isa in Isa::available() {
        for name in ["tiny-v3", "tiny-v3-direct-q", "tiny-qwen2", "tiny-qwen3", "tiny-llama"] {
            let device = common::device(2, isa);
            let model = random(&device, &config(name));
            let mut stream = draw(7, Domain::Data, &[]);
            let tokens: Vec<u32> = (0..64).map(|_| stream.below(model.config().vocab_size as u64) as u32).collect();
            for (form, dtype) in common::FORMS.into_iter().flat_map(|form| [(form, Dtype::F32), (form, Dtype::Bf16)]) {
                let of = |asked| {
                    let mut cache = KvCache::new(&device, model.config(), 6, form, dtype);
                    states(&device, &model, &tokens, &mut cache, asked)
                };
                let all = of(STEPS);
                for asked in [[[0, 0, 0], [0, 0, 0]], [[1, 0, 0], [1, 1, 1]], [[0, 0, 3], [7, 0, 2]]] {
                    for (i, (some, all)) in of(asked).iter().zip(&all).enumerate() {
                        assert_eq!(some.len(), asked[i / 3][i % 3] * model.config().hidden_size);
                        assert!(all.ends_with(some), "{name}, {form:?}, {dtype:?}, asked {asked:?}, state {i}");
                    }
                }
            }
        }
    }
}
