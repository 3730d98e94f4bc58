"""One training step of shape S, M or R in PyTorch: the peer of `cargo bench -p minke-model --bench training`.

    python bench/peers/training.py [S|M|R] [threads] [steps] [f32|bf16] [compile]

Prints one line of JSON with the median step. S and M are Llama-style decoders (RMSNorm, rotary positions, grouped
queries, SwiGLU, untied head), R is DeepSeek-V3's in the size of S (latent attention, a dense layer, then shared and routed
experts, tokens sorted by expert), as written in eager PyTorch; bf16 means autocast, compile `torch.compile`, whose first step
does not count.
"""

import json
import resource
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

SHAPES = {"S": (256, 6, 768, 4096, 256), "M": (384, 8, 1024, 8192, 512), "R": (256, 6, 768, 4096, 256)}
# Of R: heads, width of a head without and with positions and of its values, latents of queries and of keys and values; experts,
# chosen ones, width of an expert.
HEADS, NOPE, ROPE, VALUE, Q_LATENT, KV_LATENT = 8, 32, 16, 32, 128, 64
EXPERTS, CHOSEN, WIDTH = 8, 2, 256


class Block(nn.Module):
    def __init__(self, hidden, ffn):
        super().__init__()
        self.heads, self.groups = hidden // 64, hidden // 128
        self.norm1, self.norm2 = nn.RMSNorm(hidden, eps=1e-6), nn.RMSNorm(hidden, eps=1e-6)
        self.q = nn.Linear(hidden, hidden, bias=False)
        self.k = nn.Linear(hidden, self.groups * 64, bias=False)
        self.v = nn.Linear(hidden, self.groups * 64, bias=False)
        self.o = nn.Linear(hidden, hidden, bias=False)
        self.gate = nn.Linear(hidden, ffn, bias=False)
        self.up = nn.Linear(hidden, ffn, bias=False)
        self.down = nn.Linear(ffn, hidden, bias=False)

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        y = self.norm1(x)
        q, k, v = (p(y).view(b, t, -1, 64).transpose(1, 2) for p in (self.q, self.k, self.v))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o(y.transpose(1, 2).reshape(b, t, -1))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class SwiGlu(nn.Module):
    def __init__(self, hidden, width):
        super().__init__()
        self.gate, self.up = nn.Linear(hidden, width, bias=False), nn.Linear(hidden, width, bias=False)
        self.down = nn.Linear(width, hidden, bias=False)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Experts(nn.Module):
    """Shared and routed experts: sigmoid scores, the best with a balancing bias, weights that sum to one."""

    def __init__(self, hidden):
        super().__init__()
        self.gate = nn.Linear(hidden, EXPERTS, bias=False)
        self.register_buffer("bias", torch.zeros(EXPERTS))
        self.shared = SwiGlu(hidden, WIDTH)
        self.experts = nn.ModuleList(SwiGlu(hidden, WIDTH) for _ in range(EXPERTS))

    def forward(self, x):
        shape, x = x.shape, x.flatten(0, 1)
        with torch.autocast("cpu", enabled=False):
            scores = F.linear(x.float(), self.gate.weight).sigmoid()
        chosen = (scores + self.bias).topk(CHOSEN, dim=-1).indices
        weights = scores.gather(-1, chosen)
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        order = chosen.flatten().argsort(stable=True)
        tokens = order // CHOSEN
        counts = chosen.flatten().bincount(minlength=EXPERTS).tolist()
        rows = x[tokens].split(counts)
        ys = torch.cat([expert(part) for expert, part in zip(self.experts, rows)])
        y = self.shared(x)
        return y.index_add(0, tokens, (ys * weights.flatten()[order, None]).to(y.dtype)).view(shape)


class LatentBlock(nn.Module):
    def __init__(self, hidden, ffn, dense):
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(hidden, eps=1e-6), nn.RMSNorm(hidden, eps=1e-6)
        self.q_a, self.q_norm = nn.Linear(hidden, Q_LATENT, bias=False), nn.RMSNorm(Q_LATENT, eps=1e-6)
        self.q_b = nn.Linear(Q_LATENT, HEADS * (NOPE + ROPE), bias=False)
        self.kv_a, self.kv_norm = nn.Linear(hidden, KV_LATENT + ROPE, bias=False), nn.RMSNorm(KV_LATENT, eps=1e-6)
        self.kv_b = nn.Linear(KV_LATENT, HEADS * (NOPE + VALUE), bias=False)
        self.o = nn.Linear(HEADS * VALUE, hidden, bias=False)
        self.mlp = SwiGlu(hidden, ffn) if dense else Experts(hidden)

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        y = self.norm1(x)
        q = self.q_b(self.q_norm(self.q_a(y))).view(b, t, HEADS, NOPE + ROPE).transpose(1, 2)
        latent, k_rope = self.kv_a(y).split([KV_LATENT, ROPE], -1)
        k, v = self.kv_b(self.kv_norm(latent)).view(b, t, HEADS, NOPE + VALUE).transpose(1, 2).split([NOPE, VALUE], -1)
        k_rope = rotate(k_rope.view(b, 1, t, ROPE), cos, sin).expand(b, HEADS, t, ROPE)
        q = torch.cat([q[..., :NOPE], rotate(q[..., NOPE:], cos, sin)], -1)
        y = F.scaled_dot_product_attention(q, torch.cat([k, k_rope.to(k.dtype)], -1), v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(b, t, -1))
        return x + self.mlp(self.norm2(x))


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


class Model(nn.Module):
    def __init__(self, name):
        super().__init__()
        hidden, layers, ffn, vocabulary, sequence = SHAPES[name]
        self.embed = nn.Embedding(vocabulary, hidden)
        latent = name == "R"
        self.blocks = nn.ModuleList(LatentBlock(hidden, ffn, i == 0) if latent else Block(hidden, ffn) for i in range(layers))
        self.norm = nn.RMSNorm(hidden, eps=1e-6)
        self.head = nn.Linear(hidden, vocabulary, bias=False)
        width = ROPE if latent else 64
        angles = torch.arange(sequence)[:, None] * 10000.0 ** (-torch.arange(0, width, 2) / width)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return self.head(self.norm(x))


def main():
    name = sys.argv[1] if len(sys.argv) > 1 else "S"
    threads, steps = (int(sys.argv[i]) if len(sys.argv) > i else d for i, d in ((2, 2), (3, 5)))
    precision = sys.argv[4] if len(sys.argv) > 4 else "f32"
    torch.set_num_threads(threads)
    *_, vocabulary, sequence = SHAPES[name]
    model = Model(name)
    compiled = "compile" in sys.argv[5:]
    run = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1)
    seconds, share = [], [0.0, 0.0]
    for step in range(steps + 1):
        ids = torch.randint(0, vocabulary, (4096 // sequence, sequence))
        start, cpu = time.perf_counter(), time.process_time()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = run(ids)
            loss = F.cross_entropy(logits[:, :-1].reshape(-1, vocabulary), ids[:, 1:].reshape(-1))
        loss.backward()
        optimizer.step()
        if step > 0:
            wall = time.perf_counter() - start
            seconds.append(wall)
            share[0] += time.process_time() - cpu
            share[1] += wall
    median = sorted(seconds)[len(seconds) // 2]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"peer": f"torch {torch.__version__} {precision}{' compiled' if compiled else ''}", "shape": name, "threads": threads,
                      "step_s": median, "tokens_per_s": 4096 / median, "cpu_share": share[0] / share[1] / threads,
                      "peak_rss_mb": peak}))


if __name__ == "__main__":
    main()
