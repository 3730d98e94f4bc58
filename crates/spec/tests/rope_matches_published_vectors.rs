//! Rotary frequencies and scales against those of the papers, and to the bit those of `transformers`.
#![allow(clippy::unwrap_used)]

use minke_spec::config::{ModelConfig, RopeScaling};
use minke_spec::{presets, rope};
use serde_json::Value;

fn vector(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn assert_close(actual: f64, expected: f64, what: &str) {
    assert!((actual - expected).abs() <= 1e-6 * expected.abs(), "{what}: {actual} instead of {expected}");
}

fn check(config: &ModelConfig, expected: &Value) {
    assert_eq!(expected["dim"], config.rope_dim());
    let actual = rope::inverse_frequencies(&config.rope, config.rope_dim());
    let expected = expected["inv_freq"].as_array().unwrap();
    assert_eq!(actual.len(), expected.len());
    for (i, (&actual, expected)) in actual.iter().zip(expected).enumerate() {
        assert_close(actual.into(), expected.as_f64().unwrap(), &format!("frequency {i}"));
    }
}

#[test]
fn yarn_of_r1() {
    let expected = vector(include_str!("../../../testdata/vectors/yarn_deepseek_r1.json"));
    let config = presets::r1();
    check(&config, &expected);
    assert_close(rope::softmax_scale(&config), expected["softmax_scale"].as_f64().unwrap(), "softmax scale");
    assert_eq!(rope::cos_sin_multiplier(&config.rope), 1.0);

    // Angles as the model computes them, against cos and sin of the published formula.
    let frequencies = rope::inverse_frequencies(&config.rope, 64);
    let samples = expected["cos_sin_samples"].as_array().unwrap();
    assert!(samples.len() >= 2);
    for sample in samples {
        let position = sample["pos"].as_u64().unwrap() as f32;
        for (k, i) in [0, 1, 2, 3, 28, 29, 30, 31].into_iter().enumerate() {
            let angle = f64::from(position * frequencies[i]);
            // The product is rounded to f32, so the angle itself carries a relative 2^-24, and the frequency more.
            let bound = 2e-7 * angle.abs() + 1e-12;
            assert!((angle.cos() - sample["cos"][k].as_f64().unwrap()).abs() <= bound, "cos {i} at {position}");
            assert!((angle.sin() - sample["sin"][k].as_f64().unwrap()).abs() <= bound, "sin {i} at {position}");
        }
    }
}

#[test]
fn yarn_of_r1_0528_qwen3_8b() {
    let expected = vector(include_str!("../../../testdata/vectors/yarn_r1_0528_qwen3_8b.json"));
    let mut config = presets::distilled("DeepSeek-R1-0528-Qwen3-8B").unwrap();
    check(&config, &expected);
    assert_eq!(rope::cos_sin_multiplier(&config.rope), expected["product"].as_f64().unwrap());
    let RopeScaling::Yarn(yarn) = &mut config.rope.scaling else { panic!("this model is scaled by YaRN") };
    yarn.attention_factor = None;
    let default = rope::cos_sin_multiplier(&config.rope);
    assert_close(default, expected["attention_factor_default"].as_f64().unwrap(), "factor without the quirk");
}

#[test]
fn llama3_scaling() {
    let expected = vector(include_str!("../../../testdata/vectors/rope_llama3_scaled.json"));
    for name in ["DeepSeek-R1-Distill-Llama-8B", "DeepSeek-R1-Distill-Llama-70B"] {
        let config = presets::distilled(name).unwrap();
        check(&config, &expected);
        assert_eq!(rope::cos_sin_multiplier(&config.rope), 1.0);
        assert_close(rope::softmax_scale(&config), 128f64.powf(-0.5), "softmax scale");
    }
}

#[test]
fn bits_are_those_of_transformers() {
    let cases = vector(include_str!("../../../testdata/vectors/rope_f32_transformers.json"));
    let (mut differing, mut compared) = (0, 0);
    for case in cases.as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let config = ModelConfig::from_value(case["config"].clone()).unwrap().config;
        let expected = case["inverse_frequency_bits"].as_array().unwrap();
        let actual = rope::inverse_frequencies(&config.rope, config.rope_dim());
        assert_eq!(actual.len(), expected.len(), "{name}");
        for (i, (actual, expected)) in actual.iter().zip(expected).enumerate() {
            let distance = i64::from(actual.to_bits()).abs_diff(expected.as_i64().unwrap());
            assert!(distance <= 1, "{name}: frequency {i} is {distance} units in the last place off");
            differing += distance;
            compared += 1;
        }
        // transformers 5.23 does not know `attn_factor` (and says so), hence multiplies by YaRN's own factor.
        if case["config"].pointer("/rope_scaling/attn_factor").is_none() {
            let expected = case["cos_sin_multiplier"].as_f64().unwrap();
            assert_close(rope::cos_sin_multiplier(&config.rope), expected, name);
        }
    }
    // The vectorised pow of PyTorch is not always correctly rounded; ours is.
    println!("{differing} of {compared} frequencies differ in the last bit");
    assert!(compared > 600 && differing <= 8, "{differing} of {compared} frequencies differ in the last bit");
}
