"""What llama.cpp does with hyperparameters and tensors that few GGUF files have: log-probabilities of the next token after 60
ids, or a refusal.

    hyperparameters.py

writes hyperparameters/*.gguf, models of one layer that differ in what their names say, and hyperparameters/golden.json: the
four most probable tokens of each by llama.cpp, which keeps its cache in F16, or null where it does not load the file.
"""

import json
import os
import subprocess
import sys

import gguf
import numpy

from common import TESTDATA

FOLDER = TESTDATA / "hyperparameters"
VOCABULARY, WIDTH, HEADS, KV_HEADS, HEAD, INNER = 40, 16, 4, 2, 4, 24
IDS = [(7 * i * i + 3 * i + 5) % VOCABULARY for i in range(60)]


def matrix(name, *shape):
    seed = sum(ord(letter) * 31**i for i, letter in enumerate(name)) % 2**32
    return numpy.random.default_rng(seed).normal(0, 0.5, shape).astype(numpy.float32)


def tensors(arch):
    out = {"token_embd.weight": 2 * matrix("token_embd", VOCABULARY, WIDTH), "output_norm.weight": numpy.ones(WIDTH, "f4"),
           "output.weight": matrix("output", VOCABULARY, WIDTH)}
    layer = {"attn_norm": (WIDTH,), "ffn_norm": (WIDTH,), "attn_q": (HEADS * HEAD, WIDTH), "attn_k": (KV_HEADS * HEAD, WIDTH),
             "attn_v": (KV_HEADS * HEAD, WIDTH), "attn_output": (WIDTH, HEADS * HEAD), "ffn_gate": (INNER, WIDTH),
             "ffn_up": (INNER, WIDTH), "ffn_down": (WIDTH, INNER)}
    if arch == "qwen3":
        layer |= {"attn_q_norm": (HEAD,), "attn_k_norm": (HEAD,)}
    for name, shape in layer.items():
        out[f"blk.0.{name}.weight"] = numpy.ones(shape, "f4") if len(shape) == 1 else matrix(name, *shape)
    if arch == "qwen2":
        out |= {f"blk.0.attn_{x}.bias": 2 * matrix(f"attn_{x}.bias", n) for x, n in ATTENTION}
    return out


ATTENTION = (("q", HEADS * HEAD), ("k", KV_HEADS * HEAD), ("v", KV_HEADS * HEAD))
QKV = {f"blk.0.attn_{x}.bias": 2 * matrix(f"attn_{x}.bias", n) for x, n in ATTENTION}
OUTPUT = {"blk.0.attn_output.bias": matrix("attn_output.bias", WIDTH)}
MLP = {f"blk.0.ffn_{x}.bias": matrix(f"ffn_{x}.bias", n) for x, n in (("gate", INNER), ("up", INNER), ("down", WIDTH))}
LAST = {"output.bias": matrix("output.bias", VOCABULARY)}
TYPE, FACTOR, OLD = "rope.scaling.type", "rope.scaling.factor", "rope.scale_linear"

# Architecture, hyperparameters, tensors.
FILES = {
    "plain": ("llama", {}, {}),
    "scale-linear": ("llama", {OLD: 4.0}, {}),
    "factor-alone": ("llama", {FACTOR: 4.0}, {}),
    "linear": ("llama", {TYPE: "linear", FACTOR: 4.0}, {}),
    "linear-by-1": ("llama", {TYPE: "linear", FACTOR: 1.0}, {}),
    "factor-before-old": ("llama", {FACTOR: 2.0, OLD: 4.0}, {}),
    "none-with-factor": ("llama", {TYPE: "none", FACTOR: 4.0}, {}),
    "yarn-by-context": ("llama", {TYPE: "yarn", FACTOR: 4.0}, {}),
    "qkv-bias": ("llama", {}, QKV),
    "output-bias": ("llama", {}, OUTPUT),
    "mlp-bias": ("llama", {}, MLP),
    "all-biases": ("llama", {}, QKV | OUTPUT | MLP),
    "qwen3-qkv-bias": ("qwen3", {}, QKV),
    "qwen2-linear": ("qwen2", {FACTOR: 8.0}, {}),
    "refused-head-bias": ("llama", {}, LAST),
    "refused-unknown": ("llama", {}, {"blk.0.something.weight": matrix("something", WIDTH)}),
    "refused-qwen3-output-bias": ("qwen3", {}, QKV | OUTPUT),
    "refused-qwen2-output-bias": ("qwen2", {}, OUTPUT),
}


def write(path, arch, more, extra):
    out = gguf.GGUFWriter(path, arch)
    for key, value in {"block_count": 1, "context_length": 128, "embedding_length": WIDTH, "feed_forward_length": INNER,
                       "attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS, "attention.key_length": HEAD,
                       "attention.value_length": HEAD, "rope.dimension_count": HEAD}.items():
        out.add_uint32(f"{arch}.{key}", value)
    out.add_float32(f"{arch}.attention.layer_norm_rms_epsilon", 1e-5)
    out.add_float32(f"{arch}.rope.freq_base", 100.0)
    for key, value in more.items():
        (out.add_string if isinstance(value, str) else out.add_float32)(f"{arch}.{key}", value)
    # llama.cpp reads no file without a vocabulary.
    out.add_string("tokenizer.ggml.model", "gpt2")
    out.add_string("tokenizer.ggml.pre", "qwen2")
    out.add_array("tokenizer.ggml.tokens", [f"<{i}>" for i in range(VOCABULARY)])
    out.add_array("tokenizer.ggml.token_type", [1] * VOCABULARY)
    out.add_array("tokenizer.ggml.merges", ["a b"])
    out.add_uint32("tokenizer.ggml.bos_token_id", 0)
    out.add_uint32("tokenizer.ggml.eos_token_id", 1)
    out.add_bool("tokenizer.ggml.add_bos_token", False)
    for name, value in {**tensors(arch), **extra}.items():
        out.add_tensor(name, value)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def ask(path):
    """Prints what llama.cpp says; it ends the process where it refuses."""
    import xllamacpp
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.warmup, params.cpuparams.n_threads = path, 128, False, 1
    answer = xllamacpp.Server(params).handle_completions(
        {"prompt": IDS, "max_tokens": 1, "temperature": 0, "logprobs": 4})
    top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    print("\n@" + json.dumps([[token["id"], round(token["logprob"], 4)] for token in top]), flush=True)
    # Its threads need not be waited for.
    os._exit(0)


def main():
    FOLDER.mkdir(exist_ok=True)
    golden = {}
    for name, (arch, more, extra) in FILES.items():
        path = str(FOLDER / f"{name}.gguf")
        write(path, arch, more, extra)
        run = subprocess.run([sys.executable, __file__, path], capture_output=True, timeout=900)
        said = [line for line in run.stdout.decode().split("\n") if line.startswith("@")]
        golden[name] = json.loads(said[0][1:]) if said else None
        print(name, golden[name])
    lines = [f" {json.dumps(name)}: {json.dumps(top)}" for name, top in golden.items()]
    (FOLDER / "golden.json").write_text(f'{{\n "ids": {IDS},\n' + ",\n".join(lines) + "\n}\n")


ask(sys.argv[1]) if len(sys.argv) > 1 else main()
