"""Goldens of what transformers does not train: the MTP loss, the sequence-wise balance loss, the bias update.

`python3 testdata/make/mtp.py` (after families.py) writes testdata/tiny-v3-mtp: the trunk of tiny-v3 and one MTP layer
under id num_hidden_layers, with its physical copies of the embedding and the head. Everything is plain PyTorch in f64;
the trunk is compared with transformers, the rest is the equations of the DeepSeek-V3 report.

Conventions, B sequences of T tokens t_0 .. t_{T-1}, nothing crosses from one sequence to another:

- CE: mean over the B * (T - 1) rows that have a next token.
- MTP (2.2): the module has the rows i = 0 .. T-3 of each sequence, which are those with a target t_{i+2}. Row i reads
  eh_proj([enorm(Emb(t_{i+1})) ; hnorm(h_i)]), h_i after the trunk's final norm, with RoPE position i and causal
  attention among these rows; then the block, shared_head.norm and the trunk's head. Loss: mean over B * (T - 2) rows.
- Balance (eqs. 17-20): per MoE layer and sequence alpha * sum_i f_i P_i, f_i from the K best unbiased scores of all
  experts as eq. 18 prints it (no bias, no groups, no gradient); mean over sequences, sum over layers. The MTP block is
  an MoE layer like the others, over its T - 2 rows per sequence, and lambda does not scale its balance loss.
- Total = CE + 0.3 * MTP + balance. grad.NAME is its gradient; embedding and head receive both uses, and the copies
  stored with the MTP layer have none of their own.
- Bias (2.1.2): bias + 0.001 * sign(mean load - load), load = tokens of the whole batch that the gate sent to the
  expert (biased, group-limited choice), mean load = tokens * K / experts; no change at equality.

Stored besides grad.NAME: input_ids, loss.{ce, mtp, balance, total} [1], mtp.logits [B, T-2, V], and per MoE layer L
balance.L [1], balance.L.f and balance.L.p [B, experts], balance.L.by_choice [1] (the loss if f counted the gate's
actual choice instead; not in the total), load.L (int64), bias_after.L. Losses are stored as they enter the total:
balance with alpha in it, mtp without lambda.
"""

import sys

sys.dont_write_bytecode = True

import json
import math
import types

import safetensors.torch
import torch
import torch.nn.functional as F

import families
from common import MARGIN, TESTDATA, choice_margins, difference_check, generator, initial, lift, save, save_golden

FOLDER, TRUNK = "tiny-v3-mtp", "tiny-v3"
SEQUENCES, LENGTH = 3, 31
# Alpha is large, so that a missing or wrong balance loss is seen in the gradient of every gate.
ALPHA, LAMBDA, GAMMA = 0.1, 0.3, 1e-3


def rms_norm(x, weight, eps=1e-6):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def swiglu(x, w, stem):
    gate, up, down = (w[f"{stem}{name}_proj.weight"].T for name in ("gate", "up", "down"))
    return (F.silu(x @ gate) * (x @ up)) @ down


def yarn(c):
    """Inverse frequencies (f32 arithmetic, as every published code) and the scale of the softmax."""
    r, dim = c.rope_parameters, c.qk_rope_head_dim
    original = r["original_max_position_embeddings"]

    def boundary(turns):
        return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(r["rope_theta"]))

    low = max(math.floor(boundary(r["beta_fast"])), 0)
    high = min(math.ceil(boundary(r["beta_slow"])), dim - 1)
    plain = 1.0 / r["rope_theta"] ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    keep = 1 - ((torch.arange(dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    magnitude = 0.1 * r["mscale_all_dim"] * math.log(r["factor"]) + 1
    scale = (c.qk_nope_head_dim + dim) ** -0.5 * magnitude**2
    return plain / r["factor"] * (1 - keep) + plain * keep, scale


def rotate(x, frequencies):
    """Rotates the pairs (2i, 2i+1) of x [B, T, heads, dim] at positions 0..T."""
    angle = torch.arange(x.shape[1], dtype=torch.float32)[:, None, None] * frequencies
    cos, sin = angle.cos().double(), angle.sin().double()
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, odd * cos + even * sin], -1).flatten(-2)


def attention(x, w, stem, c):
    """Multi-head latent attention, expanded (eqs. 1-11)."""
    batch, length, heads = *x.shape[:2], c.num_attention_heads
    frequencies, scale = yarn(c)
    c_q = rms_norm(x @ w[stem + "q_a_proj.weight"].T, w[stem + "q_a_layernorm.weight"])
    q = (c_q @ w[stem + "q_b_proj.weight"].T).view(batch, length, heads, -1)
    q_nope, q_rope = q.split([c.qk_nope_head_dim, c.qk_rope_head_dim], -1)
    latent, k_rope = (x @ w[stem + "kv_a_proj_with_mqa.weight"].T).split([c.kv_lora_rank, c.qk_rope_head_dim], -1)
    c_kv = rms_norm(latent, w[stem + "kv_a_layernorm.weight"])
    k_nope, value = (c_kv @ w[stem + "kv_b_proj.weight"].T).view(batch, length, heads, -1).split(
        [c.qk_nope_head_dim, c.v_head_dim], -1)
    k_rope = rotate(k_rope[:, :, None], frequencies).expand(-1, -1, heads, -1)
    scores = torch.einsum("bqhd,bkhd->bhqk", torch.cat([q_nope, rotate(q_rope, frequencies)], -1),
                          torch.cat([k_nope, k_rope], -1)) * scale
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    mixed = torch.einsum("bhqk,bkhd->bqhd", scores.masked_fill(future, float("-inf")).softmax(-1), value)
    return mixed.flatten(-2) @ w[stem + "o_proj.weight"].T


def choose(biased, c):
    """The gate's experts: the best groups by their two best, then the best experts in them. [.., experts] -> [.., K]"""
    grouped = biased.unflatten(-1, (c.n_group, -1))
    groups = grouped.topk(2)[0].sum(-1).topk(c.topk_group)[1]
    kept = torch.zeros(grouped.shape[:-1], dtype=torch.bool).scatter(-1, groups, True)
    return grouped.masked_fill(~kept[..., None], float("-inf")).flatten(-2).topk(c.num_experts_per_tok)[1]


def experts(x, w, stem, c, gates):
    """Mixture of experts (eqs. 12-16); appends (scores, bias, chosen) to gates."""
    scores = torch.sigmoid(x @ w[stem + "gate.weight"].T)
    bias = w[stem + "gate.e_score_correction_bias"]
    chosen = choose(scores.detach() + bias, c)
    gates.append((scores, bias, chosen))
    weights = scores.gather(-1, chosen)
    weights = weights / weights.sum(-1, keepdim=True) * c.routed_scaling_factor
    mixing = torch.zeros_like(scores).scatter(-1, chosen, weights)
    routed = sum(mixing[..., e, None] * swiglu(x, w, f"{stem}experts.{e}.") for e in range(c.n_routed_experts))
    return routed + swiglu(x, w, stem + "shared_experts.")


def block(x, w, layer, c, gates):
    stem = f"model.layers.{layer}."
    x = x + attention(rms_norm(x, w[stem + "input_layernorm.weight"]), w, stem + "self_attn.", c)
    normed = rms_norm(x, w[stem + "post_attention_layernorm.weight"])
    if layer < c.first_k_dense_replace:
        return x + swiglu(normed, w, stem + "mlp.")
    return x + experts(normed, w, stem + "mlp.", c, gates)


def forward(ids, w, c):
    """Logits of the trunk [B, T, V], of the MTP module [B, T-2, V] and what the gates did, one entry per MoE layer."""
    gates = []
    embedded = w["model.embed_tokens.weight"][ids]
    x = embedded
    for layer in range(c.num_hidden_layers):
        x = block(x, w, layer, c, gates)
    hidden = rms_norm(x, w["model.norm.weight"])
    head = w["lm_head.weight"].T

    stem = f"model.layers.{c.num_hidden_layers}."
    rows = ids.shape[1] - 2
    following = rms_norm(embedded[:, 1 : rows + 1], w[stem + "enorm.weight"])
    previous = rms_norm(hidden[:, :rows], w[stem + "hnorm.weight"])
    x = block(torch.cat([following, previous], -1) @ w[stem + "eh_proj.weight"].T, w, c.num_hidden_layers, c, gates)
    return hidden @ head, rms_norm(x, w[stem + "shared_head.norm.weight"]) @ head, gates


def balance(scores, counted, c):
    """f and P [B, experts] of eqs. 18 and 20 and the mean over sequences of alpha * sum f P."""
    length = scores.shape[1]
    counts = torch.zeros_like(scores).scatter(-1, counted, 1.0).sum(1).detach()
    f = counts * c.n_routed_experts / (c.num_experts_per_tok * length)
    p = (scores / scores.sum(-1, keepdim=True)).mean(1)
    return f, p, ALPHA * (f * p).sum(-1).mean()


def losses(ids, w, c):
    """Every loss of a batch, and what it was made of."""
    logits, mtp_logits, gates = forward(ids, w, c)
    ce = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    mtp = F.cross_entropy(mtp_logits.flatten(0, 1), ids[:, 2:].flatten())
    balances = [balance(scores, scores.topk(c.num_experts_per_tok)[1], c) for scores, _, _ in gates]
    total = ce + LAMBDA * mtp + sum(loss for _, _, loss in balances)
    return dict(ce=ce, mtp=mtp, balance=sum(loss for _, _, loss in balances), total=total), mtp_logits, gates, balances


def make_model():
    """Writes config.json and model.safetensors; returns the config and the trainable and the other weights in f64."""
    fields = json.loads((TESTDATA / TRUNK / "config.json").read_text())
    fields |= dict(num_nextn_predict_layers=1, aux_loss_alpha=ALPHA)
    (TESTDATA / FOLDER).mkdir(exist_ok=True)
    (TESTDATA / FOLDER / "config.json").write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")
    config = types.SimpleNamespace(**fields)

    weights = safetensors.torch.load_file(TESTDATA / TRUNK / "model.safetensors")
    last, extra = config.num_hidden_layers, f"model.layers.{config.num_hidden_layers}."
    moe = {k: v for k, v in weights.items() if k.startswith(f"model.layers.{last - 1}.")}
    shapes = {k.replace(f"layers.{last - 1}.", f"layers.{last}."): v.shape for k, v in moe.items()}
    width = config.hidden_size
    shapes |= {extra + name: (width,) for name in ("enorm.weight", "hnorm.weight", "shared_head.norm.weight")}
    shapes[extra + "eh_proj.weight"] = (width, 2 * width)
    weights |= {name: initial(FOLDER, name, shape).float() for name, shape in shapes.items()}
    copies = {extra + "embed_tokens.weight": weights["model.embed_tokens.weight"].clone(),
              extra + "shared_head.head.weight": weights["lm_head.weight"].clone()}
    save(weights | copies, TESTDATA / FOLDER / "model.safetensors", {"format": "pt"})
    return config, {name: weight.double() for name, weight in weights.items()}


@torch.no_grad()
def least_margins(ids, w, c):
    """Smallest distances of a batch from another group, another expert, another set of K best scores."""
    least = [float("inf")] * 3
    for scores, bias, _ in forward(ids, w, c)[2]:
        groups, chosen = choice_margins(scores.flatten(0, 1), bias, c)
        best = scores.sort(-1, descending=True).values
        plain = best[..., c.num_experts_per_tok - 1] - best[..., c.num_experts_per_tok]
        least = [min(pair) for pair in zip(least, (groups.min().item(), chosen.min().item(), plain.min().item()))]
    return least


def draw_inputs(w, c):
    rows = []
    for row in range(SEQUENCES):
        draws, ids = generator(FOLDER, "input_ids", row), []
        while len(ids) < LENGTH:
            token = torch.randint(2, c.vocab_size, (1,), generator=draws).item()
            # An MTP row needs two tokens after it: copies stand in until they exist, and cannot reach backwards.
            if min(least_margins(torch.tensor([ids + [token] * 3]), w, c)) >= MARGIN:
                ids.append(token)
        rows.append(ids)
    return torch.tensor(rows)


def compare_with_transformers(ids, w, c):
    """The trunk here is the trunk there."""
    with lift(families.code("DeepseekV3"), float32=torch.float64), torch.no_grad():
        theirs = families.load(TRUNK)(ids, use_cache=False).logits
        ours = forward(ids, w, c)[0]
    error = ((ours - theirs).norm() / theirs.norm()).item()
    assert error < 1e-12, f"the trunk differs from transformers: {error:.2e}"
    return error


def main():
    config, weights = make_model()
    ids = draw_inputs(weights, config)
    margins = least_margins(ids, weights, config)
    assert min(margins) >= MARGIN, margins
    trunk_error = compare_with_transformers(ids, weights, config)

    trained = {k: v.requires_grad_() for k, v in weights.items() if not k.endswith("e_score_correction_bias")}
    values, mtp_logits, gates, balances = losses(ids, weights, config)
    values["total"].backward()
    gradients = {name: weight.grad for name, weight in trained.items()}
    worst = difference_check(lambda: losses(ids, weights, config)[0]["total"], trained, gradients)

    stored = {"input_ids": ids, "mtp.logits": mtp_logits}
    stored |= {f"loss.{name}": value.view(1) for name, value in values.items()}
    stored |= {f"grad.{name}": gradient for name, gradient in gradients.items()}
    facts = {f"loss.{name}": value.item() for name, value in values.items()}
    facts |= dict(zip(("margin.group", "margin.expert", "margin.unbiased_expert"), margins))
    facts |= {"alpha": ALPHA, "lambda": LAMBDA, "gamma": GAMMA,
              "trunk_against_transformers": float(f"{trunk_error:.0e}"),
              "difference_check.worst_relative_error": float(f"{worst:.1e}"),
              "zero_gradients": sorted(name for name, g in gradients.items() if not g.any())}
    layers = range(config.first_k_dense_replace, config.num_hidden_layers + 1)
    for layer, (scores, bias, chosen), (f, p, loss) in zip(layers, gates, balances, strict=True):
        load = chosen.flatten().bincount(minlength=config.n_routed_experts)
        mean = chosen.numel() / config.n_routed_experts
        stored |= {f"balance.{layer}": loss.view(1), f"balance.{layer}.f": f, f"balance.{layer}.p": p,
                   f"balance.{layer}.by_choice": balance(scores, chosen, config)[2].view(1), f"load.{layer}": load,
                   f"bias_after.{layer}": bias + GAMMA * (mean - load).sign()}
        facts |= {f"load.{layer}": load.tolist(), f"mean_load.{layer}": mean}
    save_golden(TESTDATA / FOLDER, stored, facts)


if __name__ == "__main__":
    main()
