"""How much does llama.cpp lose when it quantizes? The same values by its library, with and without importance.

    quantizers.py

writes formats/quantizers.safetensors: `values` [24, 512], `importance` [512], and per format `NAME` [2]: the root of the mean
squared error of llama.cpp's codes, and that of its codes made with importance, weighted by it.
"""

import ctypes
import pathlib

import gguf
import llama_cpp
import numpy
import safetensors.numpy

from common import TESTDATA

ROWS, WIDTH = 24, 512
FORMATS = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"]


def quantized(library, values, importance, kind):
    """The values that llama.cpp's codes stand for."""
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = numpy.empty((values.shape[0], values.shape[1] // elements * size), dtype=numpy.uint8)
    floats = ctypes.POINTER(ctypes.c_float)
    weights = None if importance is None else importance.ctypes.data_as(floats)
    library.ggml_quantize_chunk(
        ctypes.c_int(kind), values.ctypes.data_as(floats), ctypes.c_void_p(blocks.ctypes.data), ctypes.c_int64(0),
        ctypes.c_int64(values.shape[0]), ctypes.c_int64(values.shape[1]), weights,
    )
    return gguf.quants.dequantize(blocks, kind).astype(numpy.float64)


def main():
    folder = pathlib.Path(llama_cpp.__file__).parent / "lib"
    library = ctypes.CDLL(str(folder / "libggml-base.so"))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    rng = numpy.random.default_rng(7)
    # A third of the rows normal, a third with long tails, a third not centred.
    values = 0.05 * rng.standard_normal((ROWS, WIDTH))
    values[ROWS // 3 : 2 * ROWS // 3] = 0.02 * rng.standard_t(4, (ROWS // 3, WIDTH))
    values[2 * ROWS // 3 :] += 0.06 * rng.standard_normal((ROWS // 3, 1))
    values = values.astype(numpy.float32)
    importance = numpy.exp(1.5 * rng.standard_normal(WIDTH)).astype(numpy.float32)
    tensors = {"values": values, "importance": importance}
    for name in FORMATS:
        kind = gguf.GGMLQuantizationType[name]
        error = lambda weights, by: numpy.sqrt((by * (quantized(library, values, weights, kind) - values) ** 2).mean())
        tensors[name] = numpy.array([error(None, 1.0), error(importance, importance)], dtype=numpy.float32)
    safetensors.numpy.save_file(tensors, TESTDATA / "formats" / "quantizers.safetensors")


main()
