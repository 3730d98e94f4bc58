//! The table of parameters expands to exactly the tensors of the published checkpoint.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use minke_spec::params::{Published, TensorSource, published_tensors};
use minke_spec::{Format, ModelConfig, ParamRole, parameters, presets};
use serde_json::Value;

type Tensors = BTreeMap<String, (Vec<usize>, Format)>;

/// Expands the 43 name patterns of the published index.
fn published_index(index: &Value) -> Tensors {
    let range = |value: &Value| match value.as_array() {
        Some(ends) => ends[0].as_u64().unwrap()..=ends[1].as_u64().unwrap(),
        None => 0..=0,
    };
    let mut tensors = Tensors::new();
    for pattern in index["patterns"].as_array().unwrap() {
        let shape: Vec<usize> =
            pattern["shape"].as_array().unwrap().iter().map(|size| size.as_u64().unwrap() as usize).collect();
        let format = Format::from_name(pattern["dtype"].as_str().unwrap()).unwrap();
        for layer in range(&pattern["layers"]) {
            for expert in range(&pattern["experts"]) {
                let name = pattern["name"].as_str().unwrap();
                let name = name.replace("{L}", &layer.to_string()).replace("{E}", &expert.to_string());
                assert!(tensors.insert(name, (shape.clone(), format)).is_none(), "patterns overlap");
            }
        }
    }
    tensors
}

/// Writes the same from the table of parameters.
fn from_table(config: &ModelConfig) -> Tensors {
    let specs = parameters(config);
    let mut tensors = Tensors::new();
    for Published { name, shape, source } in published_tensors(config) {
        let format = match source {
            TensorSource::Own { param, .. } => specs[param].published_format(),
            TensorSource::CopyOf(name) => specs.iter().find(|spec| spec.name == name).unwrap().published_format(),
        };
        assert!(tensors.insert(name, (shape, format)).is_none(), "a name occurs twice");
    }
    for scale in specs.iter().flat_map(|spec| spec.published_scales()) {
        assert!(tensors.insert(scale.name, (scale.shape, Format::F32)).is_none(), "a name occurs twice");
    }
    tensors
}

#[test]
fn r1() {
    let index: Value =
        serde_json::from_str(include_str!("../../../testdata/configs/deepseek-r1-tensors.json")).unwrap();
    let config = ModelConfig::from_json(include_str!("../../../testdata/configs/deepseek-r1.config.json")).unwrap();
    let (expected, actual) = (published_index(&index), from_table(&config.config));
    let missing = expected.iter().find(|&(name, tensor)| actual.get(name) != Some(tensor));
    assert_eq!(missing.map(|(name, tensor)| (name, Some(tensor), actual.get(name))), None);
    let surplus = actual.keys().find(|name| !expected.contains_key(*name));
    assert_eq!(surplus, None);

    let elements: usize = actual.values().map(|(shape, _)| shape.iter().product::<usize>()).sum();
    let bytes: usize = actual.values().map(|(shape, format)| format.bytes(shape.iter().product())).sum();
    assert_eq!((actual.len(), elements, bytes), (91_991, 684_531_386_000, 688_574_839_360));
    assert_eq!(index["tensor_count"], actual.len());
    assert_eq!(index["element_count_including_scales"], elements);
    assert_eq!(index["tensor_bytes"], bytes);
}

#[test]
fn experts_are_one_parameter_and_many_tensors() {
    let config = presets::r1();
    let specs = parameters(&config);
    let down = specs.iter().position(|spec| spec.name == "model.layers.61.mlp.experts.down_proj.weight").unwrap();
    assert_eq!((specs[down].shape.as_slice(), specs[down].role), (&[256, 7168, 2048][..], ParamRole::Experts));
    let tensors = published_tensors(&config);
    let tensor = tensors.iter().find(|tensor| tensor.name == "model.layers.61.mlp.experts.255.down_proj.weight");
    let tensor = tensor.unwrap();
    assert_eq!(tensor.source, TensorSource::Own { param: down, expert: Some(255) });
    assert_eq!(tensor.shape, [7168, 2048]);
}

#[test]
fn the_copies_of_a_tied_model_are_of_the_embedding() {
    let config = ModelConfig { tie_word_embeddings: true, ..presets::r1() };
    let tensors = published_tensors(&config);
    assert!(!tensors.iter().any(|tensor| tensor.name == "lm_head.weight"));
    for name in ["model.layers.61.embed_tokens.weight", "model.layers.61.shared_head.head.weight"] {
        let copy = tensors.iter().find(|tensor| tensor.name == name).unwrap();
        assert_eq!(copy.source, TensorSource::CopyOf("model.embed_tokens.weight".to_owned()));
    }
}

/// Facts sheet 1.12: the tensors of one layer of each dense family.
#[test]
fn dense_families() {
    let qwen2 = [
        "q_proj.weight",
        "q_proj.bias",
        "k_proj.weight",
        "k_proj.bias",
        "v_proj.weight",
        "v_proj.bias",
        "o_proj.weight",
    ];
    let qwen3 = ["q_proj.weight", "k_proj.weight", "v_proj.weight", "q_norm.weight", "k_norm.weight", "o_proj.weight"];
    let llama = ["q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight"];
    for (model, attention) in [
        ("DeepSeek-R1-Distill-Qwen-1.5B", &qwen2[..]),
        ("DeepSeek-R1-0528-Qwen3-8B", &qwen3[..]),
        ("DeepSeek-R1-Distill-Llama-8B", &llama[..]),
    ] {
        let config = presets::distilled(model).unwrap();
        let names: Vec<String> = parameters(&config)
            .into_iter()
            .filter(|spec| spec.layer == Some(1))
            .map(|spec| spec.name.strip_prefix("model.layers.1.").unwrap().to_owned())
            .collect();
        let mut expected = vec!["input_layernorm.weight".to_owned()];
        expected.extend(attention.iter().map(|name| format!("self_attn.{name}")));
        expected.extend(
            ["post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
                .map(|name| format!("{name}.weight")),
        );
        assert_eq!(names, expected, "{model}");
    }
}
