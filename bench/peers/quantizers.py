"""What does quantizing lose? Minke's quantizers beside llama.cpp's, on the same weights with the same recipe.

    pip install numpy gguf llama-cpp-python
    python bench/peers/quantizers.py target/release/minke

A random model of Qwen's architecture (that of quantized.py) is quantized by both programs, without and with the importance
matrix that `minke imatrix` collects. Per recipe: the root of the mean squared error of all quantized weights (with importance
weighted by it), and the mean KL of next-token distributions, decoded weights against original ones, both in f64. Then the
logits of Minke's file by llama.cpp are held against f64, and both programs quantize a larger model against the clock.
"""

import ctypes
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import gguf
import llama_cpp
import numpy

import quantized
from quantized import arbiter, llama, log_softmax

# Numbers of llama.cpp's `llama_ftype`.
RECIPES = {
    "q8_0": 7, "q6_k": 18, "q5_k_m": 17, "q4_k_m": 15, "q4_k_s": 14, "q4_0": 2, "iq4_xs": 30, "q3_k_m": 12, "q2_k": 10,
}


def weights(path):
    return {t.name: (t.tensor_type.name, gguf.quants.dequantize(t.data, t.tensor_type).astype(numpy.float64))
            for t in gguf.GGUFReader(path).tensors}


def read_importance(path):
    tensors = {t.name: t.data for t in gguf.GGUFReader(path).tensors}
    return {name.removesuffix(".in_sum2"): (sums / tensors[name.replace(".in_sum2", ".counts")]).astype(numpy.float32)
            for name, sums in tensors.items() if name.endswith(".in_sum2")}


def by_llama(source, target, ftype, importance):
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = ftype, 2
    if importance:
        kept = [(name.encode(), numpy.ascontiguousarray(means.reshape(-1))) for name, means in importance.items()]
        entry, floats = llama_cpp.llama_model_imatrix_data, ctypes.POINTER(ctypes.c_float)
        entries = [entry(name, means.ctypes.data_as(floats), means.size) for name, means in kept]
        params.imatrix = (entry * (len(entries) + 1))(*entries, entry(None, None, 0))
    failed = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params))
    assert not failed, target


def by_minke(program, source, target, recipe, imatrix):
    extra = ["--imatrix", imatrix] if imatrix else []
    subprocess.run([program, "quantize", source, target, "--to", recipe, *extra], check=True, capture_output=True)


def error(path, original, importance):
    """The root of the mean squared error of what is quantized, and the format of each tensor."""
    total, count, types = 0.0, 0, {}
    for name, (kind, values) in weights(path).items():
        types[name] = kind
        if kind not in ("F32", "F16", "BF16"):
            by = importance[name].reshape(1, -1) if name in importance else 1.0
            total += (by * (values - original[name][1]) ** 2).sum()
            count += values.size
    return (total / count) ** 0.5, types


def text(seed):
    letters = numpy.array(list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!\"#$%&"))
    return "".join(numpy.random.default_rng(seed).choice(letters, 6000))


def larger(path):
    quantized.WIDTH, quantized.HEADS, quantized.KV_HEADS, quantized.FFN = 2048, 16, 4, 5632
    quantized.LAYERS, quantized.VOCABULARY, quantized.HEAD = 2, 4096, 128
    quantized.write(path)


def main():
    program = sys.argv[1]
    llama_cpp.llama_log_set(SILENT, None)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        source, matrix = folder / "f32.gguf", folder / "imatrix.gguf"
        quantized.write(source)
        (folder / "read.txt").write_text(text(1))
        subprocess.run([program, "imatrix", source, folder / "read.txt", "--out", matrix], check=True, capture_output=True)
        listed = subprocess.run([program, "debug", "tokens", source, text(2)[:1200], "--json"], check=True, capture_output=True)
        ids = json.loads(listed.stdout)["ids"][:512]
        original, want = weights(source), log_softmax(arbiter(source, ids))
        print("recipe   importance  RMSE Minke  llama.cpp  ratio   KL Minke  llama.cpp  ratio   other formats   by llama.cpp")
        for with_importance in (False, True):
            importance = read_importance(matrix) if with_importance else {}
            for recipe, ftype in RECIPES.items():
                ours, theirs = folder / f"{recipe}.gguf", folder / f"{recipe}.llama.gguf"
                ours.unlink(missing_ok=True)
                by_minke(program, source, ours, recipe, matrix if with_importance else None)
                by_llama(source, theirs, ftype, importance)
                (a, own), (b, other) = error(ours, original, importance), error(theirs, original, importance)
                kl = lambda got: (numpy.exp(want) * (want - got)).sum(-1).mean()
                exact = log_softmax(arbiter(ours, ids))
                ka, kb = kl(exact), kl(log_softmax(arbiter(theirs, ids)))
                # The file in llama.cpp: its rounding of activations alone.
                loaded = log_softmax(llama(ours, ids[: quantized.TOKENS]))
                exact = exact[: quantized.TOKENS]
                rounding = (numpy.exp(exact) * (exact - loaded)).sum(-1).mean()
                differ = sum(own[name] != other[name] for name in own)
                print(f"{recipe:8} {'yes' if with_importance else 'no':10} {a:11.4e} {b:10.4e} {a / b:6.3f} "
                      f"{ka:10.3e} {kb:10.3e} {ka / kb:6.3f} {differ:15} {rounding:14.1e}", flush=True)
        source = folder / "larger.gguf"
        larger(source)
        megabytes = source.stat().st_size / 1e6
        print(f"MB of F32 per second, two threads, medians of 3 ({megabytes:.0f} MB)")
        for recipe, ftype in RECIPES.items():
            took = {"Minke": [], "llama.cpp": []}
            for _ in range(3):
                target = folder / "timed.gguf"
                for who, run in (("Minke", lambda: by_minke(program, source, target, recipe, None)),
                                 ("llama.cpp", lambda: by_llama(source, target, ftype, {}))):
                    target.unlink(missing_ok=True)
                    begun = time.perf_counter()
                    run()
                    took[who].append(time.perf_counter() - begun)
            ours, theirs = (megabytes / sorted(times)[1] for times in took.values())
            print(f"{recipe:8} {ours:8.0f} {theirs:8.0f} {ours / theirs:6.2f}", flush=True)


SILENT = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)

if __name__ == "__main__":
    main()
