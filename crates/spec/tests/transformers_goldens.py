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
