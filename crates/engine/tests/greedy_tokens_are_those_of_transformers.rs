//! Greedy tokens against those of transformers: 64 of every family, from the same weights.
#![allow(clippy::unwrap_used)]

mod common;

use common::{FORMS, folder, params, spacious};
use minke_engine::Engine;
use minke_tensor::Device;
use safetensors::SafeTensors;

#[test]
fn greedy_tokens_are_those_of_transformers() {
    for name in
        ["tiny-v3", "tiny-v3-direct-q", "tiny-qwen2", "tiny-qwen3", "tiny-qwen3-yarn", "tiny-llama", "tiny-v3-fp8"]
    {
        let bytes = std::fs::read(folder(name).join("golden.safetensors")).unwrap();
        let golden = SafeTensors::deserialize(&bytes).unwrap();
        let ids = |key: &str| -> Vec<u32> {
            let data = golden.tensor(key).unwrap().data();
            data.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b) as u32).collect()
        };
        let (prompt, want) = (ids("greedy.prompt"), ids("greedy.ids"));
        assert_eq!(want.len(), 64);
        for device in Device::all(2).unwrap() {
            let model = minke_weights::load(&device, &folder(name)).unwrap();
            for form in FORMS {
                let mut engine = Engine::new(&device, model.config(), spacious(form)).unwrap();
                engine.submit(&prompt, &params(0.0, 0, 64), 1).unwrap();
                let got = engine.run(&model).unwrap().remove(0).token_ids;
                assert_eq!(got, want, "{name}, {}, {form:?}", device.name());
            }
        }
    }
}
