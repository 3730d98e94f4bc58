"""Goldens of the model families: transformers in f64 on random weights of small odd sizes.

`python3 testdata/make/families.py [FOLDER..]` writes config.json, model.safetensors and golden.safetensors to
testdata/FOLDER.

golden.safetensors holds, for input_ids [B, T] (equal lengths, no padding):

- logits [B, T, V], and loss [1] = mean next-token cross-entropy over all B * (T - 1) predictions
- grad.NAME: gradient of that loss for every published parameter (a tied head has none of its own)
- greedy.prompt [P], greedy.ids [64]: argmax continuation of one prompt, end-of-sequence ids not obeyed
- of deepseek_v2 and deepseek_v3 also taps, rows in the order of input_ids flattened: tap.layers.L.c_q (after
  q_a_layernorm), tap.layers.L.c_kv (after kv_a_layernorm), tap.layers.L.gate.scores (unbiased), tap.layers.L.gate.experts
  (chosen ids, ascending), tap.layers.L.gate.weights (of those, in that order), tap.layers.L.out (of the block)

Inputs are drawn token by token: a token that brings any choice within MARGIN of the alternative is drawn again.
"""

import sys

sys.dont_write_bytecode = True

import importlib

import safetensors.torch
import torch
import torch.nn.functional as F
import transformers

from common import MARGIN, TESTDATA, choice_margins, difference_check, generator, initial, lift, save, save_golden

GREEDY = 64
PROMPT = 9
SPECIAL = dict(bos_token_id=0, eos_token_id=1, max_position_embeddings=256)

# folder: (architecture, config, B, T)
FAMILIES = {
    "tiny-v3": ("DeepseekV3", dict(
        vocab_size=199, hidden_size=52, intermediate_size=75, moe_intermediate_size=21, num_hidden_layers=3,
        num_attention_heads=3, num_key_value_heads=3, q_lora_rank=26, kv_lora_rank=22, qk_nope_head_dim=14,
        qk_rope_head_dim=12, v_head_dim=10, n_routed_experts=16, n_shared_experts=1, num_experts_per_tok=4, n_group=4,
        topk_group=2, first_k_dense_replace=1, norm_topk_prob=True, routed_scaling_factor=2.5, num_mtp_layers=0,
        rope_parameters=dict(  # the ramp is 0, 1/3, 2/3, 1, 1, 1
            rope_type="yarn", rope_theta=500.0, factor=4.0, original_max_position_embeddings=64, beta_fast=8.0,
            beta_slow=1.0, mscale=1.0, mscale_all_dim=1.0)), 3, 47),
    "tiny-v3-direct-q": ("DeepseekV3", dict(
        vocab_size=131, hidden_size=46, intermediate_size=61, moe_intermediate_size=13, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, q_lora_rank=None, kv_lora_rank=18, qk_nope_head_dim=10,
        qk_rope_head_dim=6, v_head_dim=12, n_routed_experts=9, n_shared_experts=2, num_experts_per_tok=2, n_group=1,
        topk_group=1, first_k_dense_replace=1, norm_topk_prob=True, routed_scaling_factor=1.5, num_mtp_layers=0,
        rope_parameters=dict(rope_type="default", rope_theta=10000.0)), 3, 41),
    "tiny-v2": ("DeepseekV2", dict(
        vocab_size=149, hidden_size=48, intermediate_size=67, moe_intermediate_size=19, num_hidden_layers=3,
        num_attention_heads=3, num_key_value_heads=3, q_lora_rank=24, kv_lora_rank=20, qk_nope_head_dim=12,
        qk_rope_head_dim=8, v_head_dim=14, n_routed_experts=12, n_shared_experts=2, num_experts_per_tok=3, n_group=4,
        topk_group=2, first_k_dense_replace=1, topk_method="group_limited_greedy", norm_topk_prob=False,
        routed_scaling_factor=3.0,
        rope_parameters=dict(
            rope_type="yarn", rope_theta=500.0, factor=4.0, original_max_position_embeddings=64, beta_fast=8.0,
            beta_slow=1.0, mscale=0.707, mscale_all_dim=0.707)), 3, 43),
    "tiny-v2-lite": ("DeepseekV2", dict(
        vocab_size=139, hidden_size=44, intermediate_size=59, moe_intermediate_size=17, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, q_lora_rank=None, kv_lora_rank=16, qk_nope_head_dim=10,
        qk_rope_head_dim=6, v_head_dim=12, n_routed_experts=8, n_shared_experts=2, num_experts_per_tok=3, n_group=1,
        topk_group=1, first_k_dense_replace=1, topk_method="greedy", norm_topk_prob=False, routed_scaling_factor=1.0,
        rope_parameters=dict(rope_type="default", rope_theta=10000.0)), 3, 41),
    "tiny-qwen2": ("Qwen2", dict(
        vocab_size=197, hidden_size=50, intermediate_size=83, num_hidden_layers=3, num_attention_heads=5,
        num_key_value_heads=1, tie_word_embeddings=False, rms_norm_eps=1e-6,
        rope_parameters=dict(rope_type="default", rope_theta=10000.0)), 3, 53),
    "tiny-qwen3": ("Qwen3", dict(
        vocab_size=193, hidden_size=44, intermediate_size=77, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=14, tie_word_embeddings=True, rms_norm_eps=1e-6,
        rope_parameters=dict(rope_type="default", rope_theta=1000000.0)), 3, 45),
    # YaRN without mscale_all_dim: the factor 0.1 ln 4 + 1 goes into cos and sin, not into the scale of the softmax.
    "tiny-qwen3-yarn": ("Qwen3", dict(
        vocab_size=127, hidden_size=42, intermediate_size=57, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=1, head_dim=20, tie_word_embeddings=False, rms_norm_eps=1e-6,
        rope_parameters=dict(
            rope_type="yarn", rope_theta=500.0, factor=4.0, original_max_position_embeddings=64)), 3, 43),
    "tiny-llama": ("Llama", dict(
        vocab_size=191, hidden_size=60, intermediate_size=71, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=3, tie_word_embeddings=False, rms_norm_eps=1e-5,
        rope_parameters=dict(  # one frequency is kept, two are interpolated, two are divided
            rope_type="llama3", rope_theta=100.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
            original_max_position_embeddings=48)), 3, 49),
    # Biases of attention and feed-forward, and frequencies that are all divided.
    "tiny-llama-bias": ("Llama", dict(
        vocab_size=101, hidden_size=36, intermediate_size=53, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=1, attention_bias=True, mlp_bias=True, tie_word_embeddings=False, rms_norm_eps=1e-5,
        rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=4.0)), 3, 41),
    "tiny-qwen3-bias": ("Qwen3", dict(
        vocab_size=97, hidden_size=34, intermediate_size=47, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=10, attention_bias=True, tie_word_embeddings=False, rms_norm_eps=1e-6,
        rope_parameters=dict(rope_type="default", rope_theta=10000.0)), 3, 39),
}


def code(architecture):
    """The module of transformers that computes an architecture."""
    name = {"DeepseekV2": "deepseek_v2", "DeepseekV3": "deepseek_v3"}.get(architecture, architecture.lower())
    return importlib.import_module(f"transformers.models.{name}.modeling_{name}")


def make_model(folder, architecture, fields):
    """Writes config.json and model.safetensors as `save_pretrained` gives them."""
    config = getattr(transformers, f"{architecture}Config")(**SPECIAL, **fields)
    torch.manual_seed(0)
    model = getattr(transformers, f"{architecture}ForCausalLM")(config).float()
    model.save_pretrained(TESTDATA / folder)
    # Filled by published name, so that a number does not depend on how transformers fuses experts in memory.
    path = TESTDATA / folder / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    weights = {k: initial(folder, k, v.shape).float() for k, v in weights.items()}
    save(weights, path, {"format": "pt"})
    (TESTDATA / folder / "generation_config.json").unlink(missing_ok=True)


def load(folder):
    """The model in f64."""
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        TESTDATA / folder, dtype=torch.float64, attn_implementation="eager", experts_implementation="eager",
        output_loading_info=True)
    unexpected = {key: found for key, found in info.items() if found}
    assert not unexpected, f"{folder} does not load cleanly: {unexpected}"
    return model.eval()


def published(model, tensors):
    """Tensors by published name: fused experts become one tensor per expert and projection."""
    result = {}
    for name, tensor in tensors.items():
        if name.endswith("experts.gate_up_proj"):
            for e, (gate, up) in enumerate(t.chunk(2) for t in tensor):
                stem = name.removesuffix("gate_up_proj")
                result[f"{stem}{e}.gate_proj.weight"] = gate
                result[f"{stem}{e}.up_proj.weight"] = up
        elif name.endswith("experts.down_proj"):
            for e, down in enumerate(tensor):
                result[f"{name.removesuffix('down_proj')}{e}.down_proj.weight"] = down
        else:
            result[name] = tensor
    return result


class Gates:
    """Watches every gate of a model during a forward."""

    def __init__(self, model):
        self.config, self.seen = model.config, {}
        for layer, block in enumerate(model.model.layers):
            if hasattr(block.mlp, "gate"):
                block.mlp.gate.register_forward_hook(self.watch(layer))

    def watch(self, layer):
        def hook(gate, _inputs, outputs):
            logits, weights, experts = outputs
            bias = getattr(gate, "e_score_correction_bias", None)
            scores = logits.softmax(-1) if bias is None else logits.sigmoid()
            self.seen[layer] = (scores, 0.0 if bias is None else bias, weights, experts)
        return hook

    def margins(self):
        """Per token the smallest margin over all layers: (groups [N], experts [N])."""
        found = [choice_margins(scores, bias, self.config) for scores, bias, _, _ in self.seen.values()]
        groups, experts = zip(*found) if found else ((torch.full((1,), float("inf")),),) * 2
        return torch.stack(groups).amin(0), torch.stack(experts).amin(0)

    def least(self):
        groups, experts = self.margins()
        return groups.min().item(), experts.min().item()


@torch.no_grad()
def draw_inputs(folder, model, gates, sequences, length):
    """Random sequences all of whose choices keep their distance."""
    rows = []
    for row in range(sequences):
        draws, ids = generator(folder, "input_ids", row), []
        while len(ids) < length:
            token = torch.randint(2, model.config.vocab_size, (1,), generator=draws).item()
            model(torch.tensor([ids + [token]]), use_cache=False)
            if min(gates.least()) >= MARGIN:
                ids.append(token)
        rows.append(ids)
    return torch.tensor(rows)


@torch.no_grad()
def continue_greedily(model, gates, prompt):
    """64 argmax tokens by full recomputation and the smallest margins on the way; None if one is too small."""
    ids, least = list(prompt), [float("inf")] * 3
    for _ in range(GREEDY):
        best = model(torch.tensor([ids]), use_cache=False).logits[0, -1].topk(2)
        least = [min(pair) for pair in zip(least, [*gates.least(), (best.values[0] - best.values[1]).item()])]
        if min(least) < MARGIN:
            return None
        ids.append(best.indices[0].item())
    return ids[len(prompt):], least


def find_greedy(folder, model, gates):
    for seed in range(10_000):
        draws = generator(folder, "prompt", seed)
        prompt = torch.randint(2, model.config.vocab_size, (PROMPT,), generator=draws).tolist()
        found = continue_greedily(model, gates, prompt)
        if found and len(set(found[0])) >= GREEDY // 4:
            return prompt, *found, seed
    raise SystemExit(f"{folder}: no prompt keeps its margins")


def watch_taps(model, taps):
    """Hooks that fill `taps` with the stages of MLA; returns their handles."""
    def keep(name):
        return lambda _module, _inputs, output: taps.update({name: output.detach().reshape(-1, output.shape[-1])})

    handles = []
    for layer, block in enumerate(model.model.layers):
        stages = {"c_q": getattr(block.self_attn, "q_a_layernorm", None), "c_kv": block.self_attn.kv_a_layernorm, "out": block}
        handles += [stage.register_forward_hook(keep(f"tap.layers.{layer}.{name}"))
                    for name, stage in stages.items() if stage is not None]
    return handles


def gate_taps(gates):
    taps, facts = {}, {}
    for layer, (scores, bias, weights, experts) in gates.seen.items():
        order = experts.sort(dim=-1)
        taps[f"tap.layers.{layer}.gate.scores"] = scores
        taps[f"tap.layers.{layer}.gate.experts"] = order.values
        taps[f"tap.layers.{layer}.gate.weights"] = weights.gather(1, order.indices)
        facts[f"tokens_per_expert.{layer}"] = experts.flatten().bincount(minlength=scores.shape[1]).tolist()
        # A chosen expert below zero would have lost to a refused one that counts as 0.
        chosen = (scores + bias).gather(1, experts).amin(-1)
        facts[f"tokens_that_need_minus_infinity.{layer}"] = int((chosen < 0).sum())
    return taps, facts


def make(folder):
    architecture, fields, sequences, length = FAMILIES[folder]
    make_model(folder, architecture, fields)
    with lift(code(architecture), float32=torch.float64):
        model = load(folder)
        gates = Gates(model)
        prompt, greedy, greedy_margins, prompt_seed = find_greedy(folder, model, gates)
        ids = draw_inputs(folder, model, gates, sequences, length)

        taps = {}
        handles = watch_taps(model, taps) if architecture.startswith("Deepseek") else []
        logits = model(ids, use_cache=False).logits
        group_margin, expert_margin = gates.least()
        more_taps, facts = gate_taps(gates)
        for handle in handles:
            handle.remove()

        def loss():
            rows = model(ids, use_cache=False).logits[:, :-1]
            return F.cross_entropy(rows.reshape(-1, rows.shape[-1]), ids[:, 1:].reshape(-1))

        value = loss()
        value.backward()
        parameters = dict(model.named_parameters())
        gradients = {name: parameter.grad for name, parameter in parameters.items()}
        worst = difference_check(loss, parameters, gradients)

    gradients = published(model, gradients)
    stored = set(safetensors.torch.load_file(TESTDATA / folder / "model.safetensors"))
    without = {name for name in stored - set(gradients) if not name.endswith("e_score_correction_bias")}
    assert not without and set(gradients) <= stored, (without, set(gradients) - stored)
    if architecture.startswith("Deepseek"):
        facts |= {"margin.group": group_margin, "margin.expert": expert_margin,
                  "margin.greedy.group": greedy_margins[0], "margin.greedy.expert": greedy_margins[1]}
    else:
        facts, more_taps = {}, {}
    facts |= {"loss": value.item(), "margin.greedy.logit": greedy_margins[2], "greedy.prompt_seed": prompt_seed,
              "greedy.distinct": len(set(greedy)), "difference_check.worst_relative_error": float(f"{worst:.1e}"),
              "zero_gradients": sorted(name for name, g in gradients.items() if not g.any())}
    facts = {k: v for k, v in facts.items() if v not in (float("inf"), [])}
    save_golden(TESTDATA / folder, {
        "input_ids": ids, "logits": logits, "loss": value.view(1),
        "greedy.prompt": torch.tensor(prompt), "greedy.ids": torch.tensor(greedy),
        **taps, **more_taps, **{f"grad.{name}": gradient for name, gradient in gradients.items()}}, facts)


if __name__ == "__main__":
    for name in sys.argv[1:] or FAMILIES:
        make(name)
