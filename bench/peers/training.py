"""One training step of shape S or M in PyTorch: the peer of `cargo bench -p minke-model --bench training`.

    python bench/peers/training.py [S|M] [threads] [steps] [f32|bf16] [compile]

Prints one line of JSON with the median step. The model is a Llama-style decoder (RMSNorm, rotary positions, grouped
queries, SwiGLU, untied head), as written in eager PyTorch; bf16 means autocast, compile `torch.compile`, whose first step does
not count.
"""

import json
import resource
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

SHAPES = {"S": (256, 6, 768, 4096, 256), "M": (384, 8, 1024, 8192, 512)}


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


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


class Model(nn.Module):
    def __init__(self, hidden, layers, ffn, vocabulary, sequence):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, hidden)
        self.blocks = nn.ModuleList(Block(hidden, ffn) for _ in range(layers))
        self.norm = nn.RMSNorm(hidden, eps=1e-6)
        self.head = nn.Linear(hidden, vocabulary, bias=False)
        angles = torch.arange(sequence)[:, None] * 10000.0 ** (-torch.arange(0, 64, 2) / 64)
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
    hidden, layers, ffn, vocabulary, sequence = SHAPES[name]
    model = Model(*SHAPES[name])
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
