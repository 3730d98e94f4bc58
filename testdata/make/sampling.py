"""What is drawn from: logits and histories through the logits processors and warpers of transformers.

`python3 testdata/make/sampling.py` writes testdata/sampling/golden.safetensors: for each case i of `cases` in the
metadata key `facts` (prompt, generated, repetition_penalty, presence_penalty, frequency_penalty, bias, allowed, temperature,
top_k, top_p, min_p; a bias of null is negative infinity), logits.i [97], and probabilities.i [97] that generate() would
draw from, computed in f64: bias (SequenceBias), repetition (RepetitionPenalty over prompt and generated), allowed
(PrefixConstrained), then Temperature, TopK, TopP and MinP. transformers has neither presence nor frequency: they are
subtracted after the repetition penalty as OpenAI's API reference says, mu[j] - c[j] * frequency - float(c[j] > 0) *
presence, c[j] counting what was generated.
"""

import sys

sys.dont_write_bytecode = True

import random

import torch
from transformers.generation import logits_process as hf

from common import TESTDATA, normal, save_golden

VOCABULARY, CASES = 97, 60


def case(choose):
    ids = lambda most: [choose.randrange(VOCABULARY) for _ in range(choose.randint(0, most))]
    # Ids of a small range repeat.
    prompt, generated = [choose.randrange(30) for _ in range(choose.randint(1, 20))], [i % 40 for i in ids(40)]
    allowed = sorted(set(ids(60))) if choose.random() < 0.4 else None
    return {
        "prompt": prompt,
        "generated": generated,
        "repetition_penalty": choose.choice([1.0, 1.0, 1.1, 1.5, 0.8]),
        "presence_penalty": choose.choice([0.0, 0.0, 0.5, 2.0, -1.0]),
        "frequency_penalty": choose.choice([0.0, 0.0, 0.25, 1.5, -0.5]),
        "bias": {str(i): choose.choice([1.0, -1.5, 4.0, float("-inf")]) for i in ids(6)},
        "allowed": allowed or None,
        "temperature": choose.choice([1.0, 0.6, 1.4]),
        "top_k": choose.choice([0, 0, 3, 20]),
        "top_p": choose.choice([1.0, 0.9, 0.5]),
        "min_p": choose.choice([0.0, 0.0, 0.05, 0.3]),
    }


def probabilities(case, logits):
    ids = torch.tensor([case["prompt"] + case["generated"]])
    scores = logits[None].double()
    if case["bias"]:
        scores = hf.SequenceBiasLogitsProcessor({(int(i),): b for i, b in case["bias"].items()})(ids, scores)
    if case["repetition_penalty"] != 1.0:
        scores = hf.RepetitionPenaltyLogitsProcessor(case["repetition_penalty"])(ids, scores)
    counts = torch.bincount(torch.tensor(case["generated"], dtype=torch.int64), minlength=VOCABULARY)
    scores = scores - counts * case["frequency_penalty"] - (counts > 0) * case["presence_penalty"]
    if case["allowed"] is not None:
        scores = hf.PrefixConstrainedLogitsProcessor(lambda batch, ids: case["allowed"], 1)(ids, scores)
    scores = hf.TemperatureLogitsWarper(case["temperature"])(ids, scores)
    if case["top_k"]:
        scores = hf.TopKLogitsWarper(case["top_k"])(ids, scores)
    if case["top_p"] < 1.0:
        scores = hf.TopPLogitsWarper(case["top_p"])(ids, scores)
    if case["min_p"]:
        scores = hf.MinPLogitsWarper(case["min_p"])(ids, scores)
    return torch.softmax(scores[0], -1)


def main():
    choose, cases, tensors = random.Random(14), [], {}
    while len(cases) < CASES:
        logits, new = normal((VOCABULARY,), 3.0, 0.0, f"sampling.{len(cases)}").float(), case(choose)
        found = probabilities(new, logits)
        if torch.isfinite(found).all():
            tensors[f"logits.{len(cases)}"], tensors[f"probabilities.{len(cases)}"] = logits, found
            cases.append(new | {"bias": {i: b if b > float("-inf") else None for i, b in new["bias"].items()}})
    save_golden(TESTDATA / "sampling", tensors, {"cases": cases})


if __name__ == "__main__":
    main()
