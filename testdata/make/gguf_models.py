"""The models of families.py as GGUF, by the conventions of llama.cpp's converter: names, keys, the order of rows of
Llama's queries and keys, divisors in place of llama3 scaling, and `kv_b_proj` whole or in two halves.

    gguf_models.py

writes gguf/*.gguf: what transformers computes with the same weights is in tiny-*/golden.safetensors.
"""

import json
import math

import gguf
import numpy
import safetensors.numpy

from common import TESTDATA

OUTSIDE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
IN_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.kv_b_proj": "attn_kv_b",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "mlp.experts.gate_proj": "ffn_gate_exps",
    "mlp.experts.up_proj": "ffn_up_exps",
    "mlp.experts.down_proj": "ffn_down_exps",
    "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
    "mlp.shared_experts.up_proj": "ffn_up_shexp",
    "mlp.shared_experts.down_proj": "ffn_down_shexp",
}
ARCHITECTURES = {"deepseek_v2": "deepseek2", "deepseek_v3": "deepseek2", "llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}


def stacked(weights):
    """The weights with the experts of a layer in one tensor, by names without the expert's number."""
    out, experts = {}, {}
    for name, value in weights.items():
        before, _, after = name.partition(".experts.")
        if after:
            number, _, rest = after.partition(".")
            experts.setdefault(f"{before}.experts.{rest}", {})[int(number)] = value
        else:
            out[name] = value
    for name, by_number in experts.items():
        out[name] = numpy.stack([by_number[i] for i in range(len(by_number))])
    return out


def permuted(weight, heads):
    """Rows of each head reordered from halves (0, d/2, ...) to neighbours, as the converter does for Llama."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def tensors(config, weights, split):
    """Yields names and values as a GGUF file has them."""
    for name, value in stacked(weights).items():
        if name in OUTSIDE:
            yield OUTSIDE[name], value
            continue
        _, _, layer, rest = name.split(".", 3)
        module, kind = rest.rsplit(".", 1)
        if kind == "e_score_correction_bias":
            yield f"blk.{layer}.exp_probs_b.bias", value
            continue
        if config["model_type"] == "llama" and module in ("self_attn.q_proj", "self_attn.k_proj"):
            heads = "num_attention_heads" if "q_proj" in module else "num_key_value_heads"
            value = permuted(value, config[heads])
        if split and module == "self_attn.kv_b_proj":
            nope, v = config["qk_nope_head_dim"], config["v_head_dim"]
            halves = value.reshape(config["num_attention_heads"], nope + v, -1)
            yield f"blk.{layer}.attn_k_b.weight", halves[:, :nope].swapaxes(1, 2)
            yield f"blk.{layer}.attn_v_b.weight", halves[:, nope:]
            continue
        yield f"blk.{layer}.{IN_LAYER[module]}.{kind}", value


def divisors(rope, width):
    """What llama3 scaling divides each frequency by."""
    base, original = rope["rope_theta"], rope["original_max_position_embeddings"]
    longest, shortest = original / rope["low_freq_factor"], original / rope["high_freq_factor"]
    out = []
    for i in range(0, width, 2):
        wavelength = 2 * math.pi * base ** (i / width)
        if wavelength < shortest:
            out.append(1.0)
        elif wavelength > longest:
            out.append(rope["factor"])
        else:
            kept = (original / wavelength - rope["low_freq_factor"]) / (
                rope["high_freq_factor"] - rope["low_freq_factor"]
            )
            out.append(1 / ((1 - kept) / rope["factor"] + kept))
    return numpy.array(out, dtype=numpy.float32)


def head_dim(config):
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def keys(out, config, split):
    """Writes the hyper-parameters."""
    arch = ARCHITECTURES[config["model_type"]]
    u32 = lambda key, value: out.add_uint32(f"{arch}.{key}", value)
    f32 = lambda key, value: out.add_float32(f"{arch}.{key}", value)
    rope = config["rope_parameters"]
    u32("vocab_size", config["vocab_size"])
    u32("block_count", config["num_hidden_layers"])
    u32("context_length", config["max_position_embeddings"])
    u32("embedding_length", config["hidden_size"])
    u32("feed_forward_length", config["intermediate_size"])
    u32("attention.head_count", config["num_attention_heads"])
    f32("attention.layer_norm_rms_epsilon", config["rms_norm_eps"])
    f32("rope.freq_base", rope["rope_theta"])
    if rope["rope_type"] == "linear":
        out.add_string(f"{arch}.rope.scaling.type", "linear")
        f32("rope.scaling.factor", rope["factor"])
    if rope["rope_type"] == "yarn":
        out.add_string(f"{arch}.rope.scaling.type", "yarn")
        f32("rope.scaling.factor", rope["factor"])
        u32("rope.scaling.original_context_length", rope["original_max_position_embeddings"])
        for published, key in (("beta_fast", "yarn_beta_fast"), ("beta_slow", "yarn_beta_slow")):
            if published in rope:
                f32(f"rope.scaling.{key}", rope[published])
        if "mscale_all_dim" in rope:
            f32("rope.scaling.yarn_log_multiplier", 0.1 * rope["mscale_all_dim"])
    if arch != "deepseek2":
        u32("attention.head_count_kv", config["num_key_value_heads"])
        for key in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
            u32(key, head_dim(config))
        return
    nope, turned, v = config["qk_nope_head_dim"], config["qk_rope_head_dim"], config["v_head_dim"]
    u32("rope.dimension_count", turned)
    if config["q_lora_rank"]:
        u32("attention.q_lora_rank", config["q_lora_rank"])
    u32("attention.kv_lora_rank", config["kv_lora_rank"])
    if split:
        u32("attention.head_count_kv", 1)
        u32("attention.key_length", config["kv_lora_rank"] + turned)
        u32("attention.value_length", config["kv_lora_rank"])
        u32("attention.key_length_mla", nope + turned)
        u32("attention.value_length_mla", v)
    else:
        u32("attention.head_count_kv", config["num_attention_heads"])
        u32("attention.key_length", nope + turned)
        u32("attention.value_length", v)
    u32("leading_dense_block_count", config["first_k_dense_replace"])
    u32("expert_count", config["n_routed_experts"])
    u32("expert_used_count", config["num_experts_per_tok"])
    u32("expert_shared_count", config["n_shared_experts"])
    u32("expert_feed_forward_length", config["moe_intermediate_size"])
    u32("expert_group_count", config["n_group"])
    u32("expert_group_used_count", config["topk_group"])
    f32("expert_weights_scale", config["routed_scaling_factor"])
    out.add_bool(f"{arch}.expert_weights_norm", config["norm_topk_prob"])
    u32("expert_gating_func", {"deepseek_v2": 1, "deepseek_v3": 2}[config["model_type"]])


def write(name, file, split=False, most_tensors=0):
    """Writes one model; of `most_tensors` at most per file if it is not 0."""
    folder = TESTDATA / name
    config = json.loads((folder / "config.json").read_text())
    weights = safetensors.numpy.load_file(folder / "model.safetensors")
    arch = ARCHITECTURES[config["model_type"]]
    path = TESTDATA / "gguf" / file
    out = gguf.GGUFWriter(path, arch, split_max_tensors=most_tensors)
    keys(out, config, split)
    for tensor, value in tensors(config, weights, split):
        out.add_tensor(tensor, numpy.ascontiguousarray(value.astype(numpy.float32)))
    rope = config["rope_parameters"]
    if rope["rope_type"] == "llama3":
        out.add_tensor("rope_freqs.weight", divisors(rope, head_dim(config)))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def main():
    (TESTDATA / "gguf").mkdir(exist_ok=True)
    write("tiny-v3", "tiny-v3.gguf")
    write("tiny-v3", "tiny-v3-halves.gguf", split=True)
    write("tiny-v3-direct-q", "tiny-v3-direct-q.gguf", split=True)
    write("tiny-v2", "tiny-v2.gguf", split=True)
    write("tiny-v2-lite", "tiny-v2-lite.gguf")
    write("tiny-qwen2", "tiny-qwen2.gguf")
    write("tiny-qwen3-yarn", "tiny-qwen3-yarn.gguf")
    write("tiny-llama", "tiny-llama.gguf")
    write("tiny-llama-bias", "tiny-llama-bias.gguf")
    write("tiny-qwen3", "tiny-qwen3.gguf", most_tensors=10)


main()
