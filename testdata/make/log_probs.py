"""Goldens of log-probabilities and entropy of rows of logits, in f64.

`python3 testdata/make/log_probs.py` writes testdata/log-probs/golden.safetensors: logits [7, 197] (the last row has one
logit that is 60 above the rest), ids [7], and for each temperature T in {1.0, 0.7}: log_probs.T [7, 197] =
log_softmax(logits / T), chosen.T [7] (those of ids), entropy.T [7] in nats.
"""

import sys

sys.dont_write_bytecode = True

import torch

from common import TESTDATA, generator, normal, save_golden

ROWS, VOCABULARY = 7, 197


def main():
    logits = normal((ROWS, VOCABULARY), 3.0, 0.0, "log_probs")
    logits[-1, 11] = 60.0
    ids = torch.randint(0, VOCABULARY, (ROWS,), generator=generator("log_probs", "ids"))
    tensors = {"logits": logits, "ids": ids}
    for temperature in (1.0, 0.7):
        rows = torch.log_softmax(logits / temperature, -1)
        tensors[f"log_probs.{temperature}"] = rows
        tensors[f"chosen.{temperature}"] = rows.gather(1, ids[:, None])[:, 0]
        tensors[f"entropy.{temperature}"] = -(rows.exp() * rows).sum(-1)
    save_golden(TESTDATA / "log-probs", tensors, {})


if __name__ == "__main__":
    main()
