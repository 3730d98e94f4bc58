//! The two forms of MLA compute the same function: logits of a prompt in chunks and of decoded tokens, within rounding.
#![allow(clippy::unwrap_used)]

mod common;

use common::{config, folder, random};
use minke_model::{Batch, Chunk, KvCache, MlaForm, Transformer};
use minke_spec::draw::{Domain, draw};
use minke_tensor::{Device, Dtype, Pass};

/// The logits of all tokens, computed in chunks of the given sizes through pages in no particular order.
fn logits(
    device: &Device,
    model: &Transformer,
    tokens: &[u32],
    chunks: &[usize],
    (form, dtype): (MlaForm, Dtype),
) -> Vec<f32> {
    let pass = Pass::inference(device);
    let mut cache = KvCache::new(device, model.config(), 9, form, dtype);
    let pages = [4, 0, 8, 2, 6];
    let (mut all, mut first) = (vec![], 0);
    for &rows in chunks {
        let chunk =
            Chunk { token_ids: &tokens[first..first + rows], first_position: first, pages: &pages, asked: rows };
        let batch = Batch::paged(device, &[chunk]).unwrap();
        let hidden = model.forward(pass, &batch, Some(&mut cache), false).unwrap().hidden;
        all.extend(model.logits(pass, &hidden).unwrap().read());
        first += rows;
    }
    assert_eq!(first, tokens.len());
    all
}

#[test]
fn absorbed_agrees_with_expanded() {
    for device in Device::all(2).unwrap() {
        let published =
            ["tiny-v3", "tiny-v3-direct-q"].map(|name| minke_weights::load(&device, &folder(name)).unwrap());
        for model in published.into_iter().chain([random(&device, &config("tiny-v3"))]) {
            let mut stream = draw(4, Domain::Data, &[]);
            let tokens: Vec<u32> = (0..150).map(|_| stream.below(model.config().vocab_size as u64) as u32).collect();
            let decode = [vec![100], vec![1; 50]].concat();
            // Two orders of the same sums: not the same bits, but close. A cache of BF16 rounds keys and values in one form
            // and latents in the other, each by up to 2^-9: three layers with random weights make 3.2e-2 of it.
            for (dtype, bound) in [(Dtype::F32, 1e-4), (Dtype::Bf16, 5e-2)] {
                let [expanded, absorbed] =
                    common::FORMS.map(|form| logits(&device, &model, &tokens, &decode, (form, dtype)));
                let relative = relative(&expanded, &absorbed);
                println!("{}: absorbed against expanded in {dtype:?} {relative:.2e}", device.name());
                assert!(relative > 0.0 && relative <= bound, "{relative:e}");
                for form in common::FORMS {
                    let at_once = logits(&device, &model, &tokens, &[150], (form, dtype));
                    let odd = logits(&device, &model, &tokens, &[1, 31, 33, 64, 20, 1], (form, dtype));
                    assert!(at_once == odd, "{form:?}, {dtype:?}: chunks show");
                }
            }
        }
    }
}

/// norm(a - b) / norm(a)
fn relative(a: &[f32], b: &[f32]) -> f64 {
    let norm = |of: &mut dyn Iterator<Item = f64>| of.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(a - b)));
    difference / norm(&mut a.iter().map(|&a| f64::from(a)))
}
