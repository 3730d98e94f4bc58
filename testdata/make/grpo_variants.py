"""Objectives that others proposed after R1's, over the worked example of `vectors/grpo.json`, in f64.

    python testdata/make/grpo_variants.py        (numpy 2.4)

Written from the formulae of the papers: GSPO (arXiv 2507.18071) eqs. 5 and 7, Dr. GRPO (2503.20783) eq. 2, DAPO (2503.14476) eq. 10,
and the estimators k1, k2, k3 of Schulman, "Approximating KL divergence" (2020).
"""

import json
import pathlib

import numpy as np

CAP = 40  # the longest output allowed, by which Dr. GRPO divides
VECTORS = pathlib.Path(__file__).resolve().parents[1] / "vectors"


def estimate(kl, new, ref):
    ratio = np.exp(ref - new)
    return {"k1": -np.log(ratio), "k2": np.log(ratio) ** 2 / 2, "k3": ratio - 1 - np.log(ratio)}[kl]


def objective(example, aggregation, low, high, beta, kl):
    kept = lambda ratio, advantage: np.minimum(ratio * advantage, np.clip(ratio, 1 - low, 1 + high) * advantage)
    tokens, outputs = [], []
    for new, old, ref, advantage in zip(*(example[key] for key in ("logp_new", "logp_old", "logp_ref", "advantages"))):
        new, old, ref = map(np.array, (new, old, ref))
        if aggregation == "sequence_geometric":
            # s = (pi(o) / pi_old(o)) ^ (1 / |o|); the divergence of its tokens, in the mean.
            ratio = np.prod(np.exp(new - old)) ** (1 / len(new))
            outputs.append(kept(ratio, advantage) - beta * np.mean(estimate(kl, new, ref)))
        tokens.append(kept(np.exp(new - old), advantage) - beta * estimate(kl, new, ref))
    match aggregation:
        case "sequence_geometric":
            return np.mean(outputs)
        case "constant_length":
            return sum(map(np.sum, tokens)) / (len(tokens) * CAP)
        case "token_mean":
            return np.mean(np.concatenate(tokens))
        case "sequence_mean":
            return np.mean([np.mean(of) for of in tokens])


def main():
    example = json.loads((VECTORS / "grpo.json").read_text())["token_example"]
    cases = [("token_mean", 0.2, 0.28, 0.0, "k3"), ("sequence_mean", 0.2, 0.5, 0.04, "k3"), ("token_mean", 0.3, 0.1, 0.04, "k1"),
             ("token_mean", 0.2, 0.2, 0.04, "k2"), ("sequence_mean", 0.2, 0.2, 0.04, "k1"), ("sequence_mean", 0.2, 0.2, 0.04, "k2"),
             ("sequence_geometric", 3e-4, 4e-4, 0.0, "k3"), ("sequence_geometric", 0.2, 0.05, 0.04, "k3"),
             ("sequence_geometric", 0.2, 0.2, 0.04, "k2"), ("constant_length", 0.2, 0.2, 0.0, "k3"),
             ("constant_length", 0.2, 0.28, 0.04, "k3"), ("constant_length", 0.2, 0.2, 0.04, "k1")]
    rows = [{"aggregation": aggregation, "low": low, "high": high, "beta": beta, "kl": kl,
             "objective": float(objective(example, aggregation, low, high, beta, kl))} for aggregation, low, high, beta, kl in cases]
    (VECTORS / "grpo_variants.json").write_text("[\n" + ",\n".join(f" {json.dumps(row)}" for row in rows) + "\n]\n")


main()
