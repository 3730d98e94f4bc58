"""llama.cpp as the library in the wheel `xllamacpp`, whose C functions are called directly (2026.10.11549)."""

import ctypes
import glob
import importlib.util
import os


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
        ("model_get_vocab", ctypes.c_void_p, [ctypes.c_void_p]), ("model_free", None, [ctypes.c_void_p]),
        ("vocab_n_tokens", ctypes.c_int32, [ctypes.c_void_p]), ("vocab_bos", ctypes.c_int32, [ctypes.c_void_p]),
        ("vocab_get_add_bos", ctypes.c_bool, [ctypes.c_void_p]),
        ("tokenize", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.POINTER(ctypes.c_int32),
                                      ctypes.c_int32, ctypes.c_bool, ctypes.c_bool]),
        ("batch_init", Batch, [ctypes.c_int32, ctypes.c_int32, ctypes.c_int32]),
        ("decode", ctypes.c_int32, [ctypes.c_void_p, Batch]),
        ("get_logits_ith", ctypes.POINTER(ctypes.c_float), [ctypes.c_void_p, ctypes.c_int32]),
        ("vocab_is_eog", ctypes.c_bool, [ctypes.c_void_p, ctypes.c_int32]),
        ("token_to_piece", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_int32, ctypes.c_char_p, ctypes.c_int32, ctypes.c_int32,
                                            ctypes.c_bool]),
        ("get_memory", ctypes.c_void_p, [ctypes.c_void_p]), ("memory_clear", None, [ctypes.c_void_p, ctypes.c_bool]),
    ]:
        function = getattr(lib, "llama_" + name)
        function.restype, function.argtypes = result, arguments
    lib.quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
    lib.llama_log_set(lib.quiet, None)
    lib.llama_backend_init()
    return lib


def tokenize(lib, vocab, text, begin=False, special=False):
    data = text.encode()
    ids = (ctypes.c_int32 * (len(data) + 8))()
    count = lib.llama_tokenize(vocab, data, len(data), ids, len(ids), begin, special)
    assert count >= 0, text
    return list(ids[:count])
