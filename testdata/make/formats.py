"""What do the blocks of each quantized format mean? Random blocks and their values, by the `gguf` package.

    formats.py

writes formats/blocks.safetensors: per format `NAME.blocks` (bytes) and `NAME.values` (f32). Of a format with a grid, the
blocks hold each of its entries.
"""

import gguf
import numpy
import safetensors.numpy

from common import TESTDATA

# Elements per format, at least.
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
    "IQ1_S": [0],
    "IQ1_M": [],
    "IQ2_XXS": [0],
    "IQ2_XS": [0],
    "IQ2_S": [0],
    "IQ3_XXS": [0],
    "IQ3_S": [0],
    "IQ4_NL": [0],
    "IQ4_XS": [0],
}
# Which bits of a block, the lowest first, say what entry of the grid the i-th group of elements is.
ENTRIES = {
    "IQ1_S": lambda i: [*bits(16 + 8 * i, 8), *bits(8 * 34 + 16 * (i // 4) + 3 * (i % 4), 3)],
    "IQ1_M": lambda i: [*bits(8 * i, 8), *bits(8 * 32 + 4 * i, 3)],
    "IQ2_XXS": lambda i: bits(16 + 64 * (i // 4) + 8 * (i % 4), 8),
    "IQ2_XS": lambda i: bits(16 + 16 * i, 9),
    "IQ2_S": lambda i: [*bits(16 + 8 * i, 8), *bits(8 * 66 + 2 * i, 2)],
    "IQ3_XXS": lambda i: bits(16 + 8 * i, 8),
    "IQ3_S": lambda i: [*bits(16 + 8 * i, 8), *bits(8 * 66 + i, 1)],
}


def bits(first, count):
    return range(first, first + count)


def with_all_entries(blocks, name, entries, width):
    """Returns blocks in which the groups of elements, in order, are all entries of a grid."""
    unpacked = numpy.unpackbits(blocks, axis=1, bitorder="little")
    per_block = 256 // width
    for entry in range(entries):
        for place, bit in enumerate(ENTRIES[name](entry % per_block)):
            unpacked[entry // per_block, bit] = entry >> place & 1
    return numpy.packbits(unpacked, axis=1, bitorder="little")


def main():
    tensors = {}
    for i, (name, scales) in enumerate(SCALES.items()):
        rng = numpy.random.default_rng(i)
        kind = gguf.GGMLQuantizationType[name]
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        grid = gguf.quants._type_traits[kind].grid_shape
        blocks = rng.integers(0, 256, (max(ELEMENTS, grid[0] * grid[1]) // elements, size), dtype=numpy.uint8)
        if name in ENTRIES:
            blocks = with_all_entries(blocks, name, *grid)
        if name == "IQ1_M":
            # Its f16 lies in the high halves of four bytes; as below.
            blocks[(blocks[:, 55] & 0x70) == 0x70, 55] ^= 0x40
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
