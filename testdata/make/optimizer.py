"""Goldens of AdamW and Muon: torch.optim on given gradients, in f64.

`python3 testdata/make/optimizer.py` writes testdata/optimizer/golden.safetensors; the settings are in its facts.
For each case C: C.start, C.grad.K and C.step.K (the parameter after step K = 1..).

- adamw.matrix [7, 13], adamw.vector [13], 5 steps; also C.first and C.second, the moments after the last step.
- muon.wide [16, 40], muon.tall [40, 16], muon.experts [4, 12, 20] (each expert a matrix of its own), 3 steps; also
  C.momentum after the last step, C.update.K (orthogonalised, before the learning rate), and C.rms.step.K: the same run
  with adjust_lr_fn = match_rms_adamw, 0.2 sqrt(max(rows, columns)), instead of original, sqrt(max(1, rows / columns)).

torch's Muon computes the Newton-Schulz iteration in bf16. Here the same code runs with f64 in its place; the facts say
how far the real one is from it. Its momentum is the average 0.95 m + 0.05 g, not Keller Jordan's sum 0.95 m + g: the
orthogonalised update is the same but for eps.
"""

import sys

sys.dont_write_bytecode = True

import torch
import torch.optim._muon as muon

from common import TESTDATA, lift, normal, save_golden

ADAMW = dict(lr=3e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
MUON = dict(lr=0.02, weight_decay=0.1, momentum=0.95, nesterov=True, ns_coefficients=(3.4445, -4.7750, 2.0315),
            eps=1e-7, ns_steps=5)


def case(name, shape, steps):
    """A start and gradients that f32 holds exactly; the gradients have a common part, so that momentum matters."""
    common = normal(shape, 0.5, 0.0, name, "common")
    grads = [(common + normal(shape, 0.3, 0.0, name, k)).float().double() for k in range(1, steps + 1)]
    return normal(shape, 0.4, 0.0, name, "start"), grads


def run(make, start, grads):
    """The parameter after each step and the state of the optimizer."""
    parameter = torch.nn.Parameter(start.clone())
    optimizer, seen = make([parameter]), []
    for grad in grads:
        parameter.grad = grad.clone()
        optimizer.step()
        seen.append(parameter.detach().clone())
    return seen, optimizer.state[parameter]


def run_muon(start, grads, **settings):
    """A stack of matrices, each alone: parameters after each step, momentum, updates."""
    if start.dim() == 3:
        runs = [run_muon(start[e], [grad[e] for grad in grads], **settings) for e in range(len(start))]
        steps, momentum, updates = zip(*runs)
        return [torch.stack(s) for s in zip(*steps)], torch.stack(momentum), [torch.stack(u) for u in zip(*updates)]
    updates, orthogonalise = [], muon._zeropower_via_newtonschulz

    def watched(*arguments):
        updates.append(orthogonalise(*arguments))
        return updates[-1]

    muon._zeropower_via_newtonschulz = watched
    try:
        steps, state = run(lambda p: torch.optim.Muon(p, **{**MUON, **settings}), start, grads)
    finally:
        muon._zeropower_via_newtonschulz = orthogonalise
    return steps, state["momentum_buffer"], [update.double() for update in updates]


def main():
    tensors, facts = {}, {"adamw": ADAMW, "muon": MUON}

    def store(name, start, grads):
        tensors[f"{name}.start"] = start
        tensors.update({f"{name}.grad.{k}": grad for k, grad in enumerate(grads, 1)})

    def series(name, values):
        tensors.update({f"{name}.{k}": value for k, value in enumerate(values, 1)})

    for name, shape in {"adamw.matrix": (7, 13), "adamw.vector": (13,)}.items():
        start, grads = case(name, shape, 5)
        store(name, start, grads)
        steps, state = run(lambda p: torch.optim.AdamW(p, **ADAMW, foreach=False), start, grads)
        series(f"{name}.step", steps)
        tensors |= {f"{name}.first": state["exp_avg"], f"{name}.second": state["exp_avg_sq"]}

    for name, shape in {"muon.wide": (16, 40), "muon.tall": (40, 16), "muon.experts": (4, 12, 20)}.items():
        start, grads = case(name, shape, 3)
        store(name, start, grads)
        with lift(muon, bfloat16=torch.float64):
            steps, momentum, updates = run_muon(start, grads)
            series(f"{name}.rms.step", run_muon(start, grads, adjust_lr_fn="match_rms_adamw")[0])
        series(f"{name}.step", steps)
        series(f"{name}.update", updates)
        tensors[f"{name}.momentum"] = momentum
        bf16 = run_muon(start.float(), [grad.float() for grad in grads])
        for what, ours, theirs in (("update", updates[-1], bf16[2][-1]), ("step", steps[-1], bf16[0][-1].double())):
            difference = ((ours - theirs).norm() / ours.norm()).item()
            facts[f"{name}.{what}.bf16_relative_difference"] = float(f"{difference:.1e}")
    save_golden(TESTDATA / "optimizer", tensors, facts)


if __name__ == "__main__":
    main()
