"""What do the blocks of each quantized format mean? Random blocks and their values, by the `gguf` package.

    formats.py

writes formats/blocks.safetensors: per format `NAME.blocks` (bytes) and `NAME.values` (f32).
"""

import gguf
import numpy
import safetensors.numpy

from common import TESTDATA

# Elements per format.
ELEMENTS = 1024
# Where the f16 scales of a block are.
SCALES = {
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
}


def main():
    tensors = {}
    for i, (name, scales) in enumerate(SCALES.items()):
        rng = numpy.random.default_rng(i)
        kind = gguf.GGMLQuantizationType[name]
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = rng.integers(0, 256, (ELEMENTS // elements, size), dtype=numpy.uint8)
        for at in scales:
            # Of every size that f16 has, subnormals included; never infinite, for which formats have no meaning.
            high = blocks[:, at + 1]
            high[(high & 0x7C) == 0x7C] ^= 0x40
        values = gguf.quants.dequantize(blocks, kind).astype(numpy.float32)
        tensors[f"{name}.blocks"] = blocks.reshape(-1)
        tensors[f"{name}.values"] = values.reshape(-1)
    folder = TESTDATA / "formats"
    folder.mkdir(exist_ok=True)
    safetensors.numpy.save_file(tensors, folder / "blocks.safetensors")


main()
