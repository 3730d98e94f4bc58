"""Writes what `transformers` makes of published configurations:

testdata/vectors/rope_f32_transformers.json              float32 bits of inverse frequencies, multiplier of cos and sin
testdata/configs/deepseek-r1.transformers-5.config.json  R1's configuration in the spelling of transformers 5

    python crates/spec/tests/transformers_goldens.py         (from the root; transformers 5.23, torch 2.x, CPU)
"""

import json

import torch
from transformers import DeepseekV3Config, LlamaConfig, Qwen2Config, Qwen3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3RotaryEmbedding
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

FAMILIES = {
    "deepseek_v3": (DeepseekV3Config, DeepseekV3RotaryEmbedding),
    "llama": (LlamaConfig, LlamaRotaryEmbedding),
    "qwen2": (Qwen2Config, Qwen2RotaryEmbedding),
    "qwen3": (Qwen3Config, Qwen3RotaryEmbedding),
}

configs = json.load(open("testdata/configs/distilled-models.json"))
configs["DeepSeek-R1"] = json.load(open("testdata/configs/deepseek-r1.config.json"))
small = {"model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 100, "intermediate_size": 96, "max_position_embeddings": 512}
for dim in (2, 6, 10, 16, 24, 80, 96):
    configs[f"head_dim {dim}"] = {**small, "head_dim": dim}
yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
v3 = {**configs["DeepSeek-R1"], "qk_rope_head_dim": 8}
for name, extra in {"plain": {}, "mscale only": {"mscale": 0.7}, "all_dim only": {"mscale_all_dim": 0.7},
                    "both": {"mscale": 1.0, "mscale_all_dim": 0.5}, "short": {"original_max_position_embeddings": 2},
                    "factor": {"attention_factor": 1.5}}.items():
    configs[f"yarn {name}"] = {**v3, "rope_scaling": {**yarn, **extra}}
linear = {"type": "linear", "factor": 4.0}
tuned = {"type": "yarn", "factor": 4.0, "finetuned": True}
for family, sizes in {"qwen3": {"head_dim": 16}, "llama": {}, "qwen2": {}}.items():
    configs[f"linear {family}"] = {**small, **sizes, "model_type": family, "rope_scaling": linear}
for name, extra in {"by max_position_embeddings": {"rope_scaling": tuned},
                    "by a key beside": {"rope_scaling": {**tuned, "original_max_position_embeddings": 77},
                                        "original_max_position_embeddings": 48}}.items():
    configs[f"yarn {name}"] = {**small, "head_dim": 16, "rope_theta": 500.0, **extra}
configs["linear 1.5, by rope_parameters"] = {
    **small, "head_dim": 16, "rope_parameters": {"rope_type": "linear", "factor": 1.5, "rope_theta": 777.0}}
configs["llama3 by max_position_embeddings"] = {
    **small, "model_type": "llama", "rope_theta": 100.0, "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}}

result = []
for name, config in configs.items():
    config_class, embedding_class = FAMILIES[config["model_type"]]
    embedding = embedding_class(config_class(**json.loads(json.dumps(config))))
    result.append({"name": name, "config": config, "cos_sin_multiplier": embedding.attention_scaling,
                   "inverse_frequency_bits": embedding.inv_freq.view(torch.int32).tolist()})
with open("testdata/vectors/rope_f32_transformers.json", "w") as file:
    file.write("[\n" + ",\n".join(json.dumps(case) for case in result) + "\n]\n")

# Fields that DeepseekV3Config does not have would be carried along; a file made from the class alone lacks them.
foreign = ("scoring_func", "topk_method", "moe_layer_freq", "seq_aux", "aux_loss_alpha", "ep_size",
           "quantization_config")
own = {key: value for key, value in configs["DeepSeek-R1"].items() if key not in foreign}
with open("testdata/configs/deepseek-r1.transformers-5.config.json", "w") as file:
    file.write(DeepseekV3Config(**own).to_json_string())
