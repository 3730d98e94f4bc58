"""Ids and perplexity of a published GGUF model: Minke beside llama.cpp on the same file.

    pip install xllamacpp
    python bench/peers/published.py target/release/minke MODEL.gguf TEXT [CONTEXT]

llama.cpp comes as the library in the wheel `xllamacpp`, whose C functions are called directly. Both programs cut the text into
chunks of CONTEXT tokens (512), begin each with the begin token where the tokenizer says so, and score the second half of each.
"""

import ctypes
import glob
import importlib.util
import json
import math
import os
import subprocess
import sys

import numpy


class Parameters(ctypes.Structure):
    """Larger than any of llama.cpp's structures of parameters, which are passed through."""
    _fields_ = [("words", ctypes.c_int32 * 256)]


class Batch(ctypes.Structure):
    _fields_ = [("n_tokens", ctypes.c_int32), ("token", ctypes.POINTER(ctypes.c_int32)), ("embd", ctypes.c_void_p),
                ("pos", ctypes.POINTER(ctypes.c_int32)), ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
                ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))), ("logits", ctypes.POINTER(ctypes.c_int8)),
                ("room", ctypes.c_int64 * 16)]


def library():
    folder = os.path.dirname(importlib.util.find_spec("xllamacpp").origin)
    lib = ctypes.CDLL(glob.glob(folder + "/xllamacpp*.so")[0])
    for name, result, arguments in [
        ("model_default_params", Parameters, []), ("context_default_params", Parameters, []),
        ("model_load_from_file", ctypes.c_void_p, [ctypes.c_char_p, Parameters]),
        ("init_from_model", ctypes.c_void_p, [ctypes.c_void_p, Parameters]),
        ("model_get_vocab", ctypes.c_void_p, [ctypes.c_void_p]),
        ("vocab_n_tokens", ctypes.c_int32, [ctypes.c_void_p]), ("vocab_bos", ctypes.c_int32, [ctypes.c_void_p]),
        ("vocab_get_add_bos", ctypes.c_bool, [ctypes.c_void_p]),
        ("tokenize", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.POINTER(ctypes.c_int32),
                                      ctypes.c_int32, ctypes.c_bool, ctypes.c_bool]),
        ("batch_init", Batch, [ctypes.c_int32, ctypes.c_int32, ctypes.c_int32]),
        ("decode", ctypes.c_int32, [ctypes.c_void_p, Batch]),
        ("get_logits_ith", ctypes.POINTER(ctypes.c_float), [ctypes.c_void_p, ctypes.c_int32]),
        ("get_memory", ctypes.c_void_p, [ctypes.c_void_p]), ("memory_clear", None, [ctypes.c_void_p, ctypes.c_bool]),
    ]:
        function = getattr(lib, "llama_" + name)
        function.restype, function.argtypes = result, arguments
    lib.quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
    lib.llama_log_set(lib.quiet, None)
    lib.llama_backend_init()
    return lib


def llama_perplexity(lib, path, text, context):
    model = lib.llama_model_load_from_file(path.encode(), lib.llama_model_default_params())
    vocab = lib.llama_model_get_vocab(model)
    data = text.encode()
    room = (ctypes.c_int32 * (len(data) + 8))()
    count = lib.llama_tokenize(vocab, data, len(data), room, len(room), True, False)
    ids = list(room[:count])
    parameters = lib.llama_context_default_params()
    # n_ctx, n_batch, n_ubatch: the first three words.
    parameters.words[0] = parameters.words[1] = parameters.words[2] = context
    state = lib.llama_init_from_model(model, parameters)
    batch = lib.llama_batch_init(context, 0, 1)
    size, losses = lib.llama_vocab_n_tokens(vocab), []
    for start in range(0, len(ids) - context + 1, context):
        chunk = ids[start : start + context]
        if lib.llama_vocab_get_add_bos(vocab):
            chunk[0] = lib.llama_vocab_bos(vocab)
        for i, token in enumerate(chunk):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, i, 1, 0
            batch.logits[i] = i >= context // 2
        batch.n_tokens = context
        lib.llama_memory_clear(lib.llama_get_memory(state), True)
        assert lib.llama_decode(state, batch) == 0
        for i in range(context // 2, context - 1):
            logits = numpy.ctypeslib.as_array(lib.llama_get_logits_ith(state, i), (size,)).astype(numpy.float64)
            top = logits.max()
            losses.append(top + math.log(numpy.exp(logits - top).sum()) - logits[chunk[i + 1]])
    return ids, math.exp(sum(losses) / len(losses)), len(losses)


def main():
    minke, path, text, context = *sys.argv[1:4], int(sys.argv[4]) if len(sys.argv) > 4 else 512
    ids, theirs, scored = llama_perplexity(library(), path, open(text, newline="").read(), context)
    done = subprocess.run([minke, "perplexity", path, text, "--context", str(context), "--json"], capture_output=True, check=True)
    ours = json.loads(done.stdout)
    print(f"llama.cpp {theirs:.4f} over {scored} of {len(ids)} tokens; minke {ours['perplexity']:.4f} over {ours['scored']} "
          f"of {ours['tokens']}; ratio {ours['perplexity'] / theirs:.5f}")


main()
