"""A golden in DeepSeek's FP8: transformers in f64 on the values that codes and block scales stand for.

`python3 testdata/make/fp8.py` writes tiny-v3-fp8: matrices in F8_E4M3 with a scale per 128 x 128, ragged at both edges,
the rest in BF16 as published; golden.safetensors holds input_ids, logits and 64 greedy tokens as in families.py.
"""

import sys

sys.dont_write_bytecode = True

import json

import safetensors.torch
import torch

from common import TESTDATA, lift, save, save_golden
from families import Gates, code, draw_inputs, find_greedy, load, make_model

FOLDER = "tiny-v3-fp8"
FIELDS = dict(
    vocab_size=131, hidden_size=146, intermediate_size=150, moe_intermediate_size=21, num_hidden_layers=2,
    num_attention_heads=3, num_key_value_heads=3, q_lora_rank=130, kv_lora_rank=132, qk_nope_head_dim=40,
    qk_rope_head_dim=12, v_head_dim=44, n_routed_experts=6, n_shared_experts=1, num_experts_per_tok=2, n_group=2,
    topk_group=1, first_k_dense_replace=1, norm_topk_prob=True, routed_scaling_factor=2.5, num_mtp_layers=0,
    rope_parameters=dict(rope_type="default", rope_theta=10000.0))
BLOCK = 128
WIDE = ("embed_tokens", "lm_head", "norm", "mlp.gate.")


def quantize(weight):
    """Codes, scales and the values that they stand for."""
    rows, columns = weight.shape
    scales = torch.empty(-(-rows // BLOCK), -(-columns // BLOCK))
    codes, values = torch.empty_like(weight, dtype=torch.float8_e4m3fn), torch.empty_like(weight)
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            at = (slice(i * BLOCK, (i + 1) * BLOCK), slice(j * BLOCK, (j + 1) * BLOCK))
            scales[i, j] = weight[at].abs().max() / 448
            codes[at] = (weight[at] / scales[i, j]).to(torch.float8_e4m3fn)
            values[at] = codes[at].float() * scales[i, j]
    return codes, scales, values


def main():
    make_model(FOLDER, "DeepseekV3", FIELDS)
    path = TESTDATA / FOLDER / "model.safetensors"
    published, meant = {}, {}
    for name, weight in safetensors.torch.load_file(path).items():
        if name.endswith("e_score_correction_bias"):
            published[name] = meant[name] = weight
        elif any(part in name for part in WIDE):
            published[name] = weight.bfloat16()
            meant[name] = published[name].float()
        else:
            published[name], published[f"{name}_scale_inv"], meant[name] = quantize(weight)
    save(meant, path, {"format": "pt"})
    with lift(code("DeepseekV3"), float32=torch.float64), torch.no_grad():
        model = load(FOLDER)
        gates = Gates(model)
        prompt, greedy, margins, seed = find_greedy(FOLDER, model, gates)
        ids = draw_inputs(FOLDER, model, gates, 2, 40)
        logits = model(ids, use_cache=False).logits
        group, expert = gates.least()
    save(published, path, {"format": "pt"})
    config_path = TESTDATA / FOLDER / "config.json"
    config = json.loads(config_path.read_text())
    config["quantization_config"] = {
        "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK]}
    config_path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    save_golden(TESTDATA / FOLDER, {
        "input_ids": ids, "logits": logits, "greedy.prompt": torch.tensor(prompt), "greedy.ids": torch.tensor(greedy),
    }, {"margin.group": group, "margin.expert": expert, "margin.greedy": margins, "greedy.prompt_seed": seed})


if __name__ == "__main__":
    main()
