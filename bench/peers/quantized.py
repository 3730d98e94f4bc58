"""How exact is a quantized model? Minke and llama.cpp on the same file, the decoded weights in f64 as arbiter.

    pip install numpy gguf llama-cpp-python
    python bench/peers/quantized.py target/release/minke

A random model of Qwen's architecture (widths multiples of 256) is quantized by llama.cpp to each format, with the columns'
mean squares as importance matrix where the format demands one; 128 tokens are given to both programs, and their next-token
distributions are compared with the arbiter's: the mean over positions of KL(arbiter || program), the largest difference of a
log-probability, and positions at which the likeliest token is another although the arbiter's two best lie further apart than
both errors.
"""

import ctypes
import pathlib
import subprocess
import sys
import tempfile

import gguf
import llama_cpp
import numpy

WIDTH, LAYERS, HEADS, KV_HEADS, FFN, VOCABULARY, TOKENS = 512, 4, 8, 2, 1024, 1024, 128
HEAD = WIDTH // HEADS
EPSILON, BASE = 1e-6, 10000.0
# Numbers of llama.cpp's `llama_ftype`.
FORMATS = {
    "F32": 0, "F16": 1, "BF16": 32, "Q8_0": 7, "Q4_0": 2, "Q4_1": 3, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K": 11,
    "Q4_K": 14, "Q5_K": 16, "Q6_K": 18, "IQ1_S": 24, "IQ1_M": 31, "IQ2_XXS": 19, "IQ2_XS": 20, "IQ2_S": 29,
    "IQ3_XXS": 23, "IQ3_S": 26, "IQ4_NL": 25, "IQ4_XS": 30,
}


def letters():
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = iter(range(256, 512))
    return [chr(b) if b in keep else chr(next(hidden)) for b in range(256)]


def write(path):
    rng = numpy.random.default_rng(1)
    out = gguf.GGUFWriter(path, "qwen2")
    for key, value in {
        "block_count": LAYERS, "context_length": 1024, "embedding_length": WIDTH, "feed_forward_length": FFN,
        "vocab_size": VOCABULARY, "attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS,
        "rope.dimension_count": HEAD,
    }.items():
        out.add_uint32(f"qwen2.{key}", value)
    out.add_float32("qwen2.attention.layer_norm_rms_epsilon", EPSILON)
    out.add_float32("qwen2.rope.freq_base", BASE)
    base = letters()
    pairs = [(a, b) for a in base for b in base][: VOCABULARY - 258]
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("qwen2")
    out.add_token_list(base + [a + b for a, b in pairs] + ["<bos>", "<eos>"])
    out.add_token_types([1] * (VOCABULARY - 2) + [3, 3])
    out.add_token_merges([f"{a} {b}" for a, b in pairs])
    out.add_bos_token_id(VOCABULARY - 2)
    out.add_eos_token_id(VOCABULARY - 1)

    def matrix(name, rows, columns, gain=1.0):
        # A few columns are larger, as in trained models.
        values = rng.standard_normal((rows, columns)) * gain / columns**0.5
        values[:, rng.integers(0, columns, 4)] *= 4
        out.add_tensor(name, values.astype(numpy.float32))

    def vector(name, size, mean, deviation):
        out.add_tensor(name, (mean + deviation * rng.standard_normal(size)).astype(numpy.float32))

    matrix("token_embd.weight", VOCABULARY, WIDTH, 8.0)
    for i in range(LAYERS):
        vector(f"blk.{i}.attn_norm.weight", WIDTH, 1.0, 0.2)
        for name, rows in (("q", WIDTH), ("k", KV_HEADS * HEAD), ("v", KV_HEADS * HEAD)):
            matrix(f"blk.{i}.attn_{name}.weight", rows, WIDTH, 1.5)
            vector(f"blk.{i}.attn_{name}.bias", rows, 0.0, 0.3)
        matrix(f"blk.{i}.attn_output.weight", WIDTH, WIDTH)
        vector(f"blk.{i}.ffn_norm.weight", WIDTH, 1.0, 0.2)
        matrix(f"blk.{i}.ffn_gate.weight", FFN, WIDTH)
        matrix(f"blk.{i}.ffn_up.weight", FFN, WIDTH)
        matrix(f"blk.{i}.ffn_down.weight", WIDTH, FFN)
    vector("output_norm.weight", WIDTH, 1.0, 0.2)
    matrix("output.weight", VOCABULARY, WIDTH, 2.0)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def importance(source):
    """One weight per column of each matrix, as llama.cpp takes them: an array that ends in an entry without a name."""
    matrices = [t for t in gguf.GGUFReader(source).tensors if len(t.shape) == 2]
    entries = (llama_cpp.llama_model_imatrix_data * (len(matrices) + 1))()
    for entry, t in zip(entries, matrices):
        columns = (t.data.astype(numpy.float32) ** 2).mean(0)
        data = (ctypes.c_float * columns.size)(*columns)
        entry.name, entry.size = t.name.encode(), columns.size
        entry.data = ctypes.cast(data, ctypes.POINTER(ctypes.c_float))
    return entries


def quantize(source, target, ftype, entries):
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.pure, params.nthread = ftype, True, 2
    params.imatrix = entries
    failed = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params))
    assert not failed, target


def arbiter(path, ids):
    """Logits in f64 of the values that the file stands for."""
    w = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(numpy.float64).reshape(t.shape[::-1])
         for t in gguf.GGUFReader(path).tensors}
    norm = lambda x, name: x / numpy.sqrt((x * x).mean(-1, keepdims=True) + EPSILON) * w[f"{name}.weight"]
    frequencies = BASE ** (-numpy.arange(0, HEAD, 2) / HEAD)
    angles = numpy.arange(len(ids))[:, None] * frequencies
    cos, sin = numpy.cos(angles)[:, None], numpy.sin(angles)[:, None]

    def turn(x):
        a, b = x[..., : HEAD // 2], x[..., HEAD // 2:]
        return numpy.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    x = w["token_embd.weight"][ids]
    mask = numpy.triu(numpy.full((len(ids), len(ids)), -numpy.inf), 1)
    for i in range(LAYERS):
        b = f"blk.{i}"
        h = norm(x, f"{b}.attn_norm")
        q, k, v = (h @ w[f"{b}.attn_{n}.weight"].T + w[f"{b}.attn_{n}.bias"] for n in "qkv")
        q, k = turn(q.reshape(-1, HEADS, HEAD)), turn(k.reshape(-1, KV_HEADS, HEAD))
        k, v = (numpy.repeat(t.reshape(-1, KV_HEADS, HEAD), HEADS // KV_HEADS, 1) for t in (k, v))
        scores = numpy.einsum("thd,shd->hts", q, k) / HEAD**0.5 + mask
        p = numpy.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        x = x + numpy.einsum("hts,shd->thd", p, v).reshape(len(ids), -1) @ w[f"{b}.attn_output.weight"].T
        h = norm(x, f"{b}.ffn_norm")
        gate = h @ w[f"{b}.ffn_gate.weight"].T
        x = x + (gate / (1 + numpy.exp(-gate)) * (h @ w[f"{b}.ffn_up.weight"].T)) @ w[f"{b}.ffn_down.weight"].T
    return norm(x, "output_norm") @ w["output.weight"].T


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - numpy.log(numpy.exp(z).sum(-1, keepdims=True))


def llama(path, ids):
    model = llama_cpp.Llama(str(path), n_ctx=TOKENS + 8, n_threads=2, logits_all=True, verbose=False)
    model.eval(ids)
    return numpy.array(model.scores[: len(ids)], dtype=numpy.float64)


def minke(program, path, ids, folder):
    out = folder / "logits"
    listed = ",".join(map(str, ids))
    subprocess.run([program, "debug", "logits", path, "--ids", listed, "--out", out], check=True, capture_output=True)
    return numpy.fromfile(out, "<f4").reshape(len(ids), -1).astype(numpy.float64)


def main():
    program = sys.argv[1]
    ids = numpy.random.default_rng(2).integers(0, VOCABULARY - 2, TOKENS).tolist()
    print("format    KL Minke   KL llama.cpp  ratio   largest difference: Minke, llama.cpp   other argmax: Minke, llama.cpp")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        source = folder / "f32.gguf"
        write(source)
        entries = importance(source)
        for name, ftype in FORMATS.items():
            path = folder / f"{name}.gguf"
            quantize(source, path, ftype, entries if name.startswith("IQ") else None)
            types = {t.tensor_type.name for t in gguf.GGUFReader(path).tensors if len(t.shape) == 2}
            assert types == {name}, (name, types)
            want = log_softmax(arbiter(path, ids))
            best = numpy.sort(want, -1)
            gap = best[:, -1] - best[:, -2]
            row = []
            for logits in (minke(program, path, ids, folder), llama(path, ids)):
                got = log_softmax(logits)
                worst = numpy.abs(got - want).max(-1)
                other = (got.argmax(-1) != want.argmax(-1)) & (gap > 2 * worst)
                row.append(((numpy.exp(want) * (want - got)).sum(-1).mean(), worst.max(), int(other.sum())))
            (a, da, oa), (b, db, ob) = row
            print(f"{name:7} {a:11.3e} {b:13.3e} {a / b:8.3f} {da:19.2e} {db:14.2e} {oa:22} {ob:8}", flush=True)


if __name__ == "__main__":
    main()
