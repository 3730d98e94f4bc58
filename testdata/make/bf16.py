"""Goldens of a linear layer whose operands are bf16 and whose sums are not.

`python3 testdata/make/bf16.py` writes testdata/bf16/golden.safetensors: x [19, 45], w [37, 45], dy [19, 37] in f32, and what
PyTorch makes of them when each is cast to bfloat16: y = x w^T [19, 37], dx = dy w [19, 45], dw = dy^T x [37, 45], multiplied and added up in
f64 (autocast would round the results as well).
"""

import pathlib

import safetensors.torch
import torch

ROWS, OUT, IN = 19, 37, 45


def main():
    generator = torch.Generator().manual_seed(20)
    tensors = {
        name: torch.randn(shape, generator=generator)
        for name, shape in (("x", (ROWS, IN)), ("w", (OUT, IN)), ("dy", (ROWS, OUT)))
    }
    # Ties, which go to the even neighbour, and what lies next to them.
    tensors["x"][0, :4] = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-23, -1 - 2**-8])
    x, w, dy = (tensors[name].to(torch.bfloat16).double() for name in ("x", "w", "dy"))
    tensors |= {"y": x @ w.T, "dx": dy @ w, "dw": dy.T @ x}
    folder = pathlib.Path(__file__).resolve().parent.parent / "bf16"
    folder.mkdir(exist_ok=True)
    safetensors.torch.save_file(tensors, folder / "golden.safetensors")


if __name__ == "__main__":
    main()
