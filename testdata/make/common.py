"""What do all goldens have in common? Weights that f32 holds exactly, arithmetic in f64, files whose bytes repeat.

transformers casts to f32 at some places even in an f64 model. They are lifted to f64 by `lift`: the statistics of RMSNorm, the
softmax of attention, the gate, and the rotation of deepseek_v2. One is kept, because it is a convention and not a rounding: the
inverse frequencies of RoPE, the angles `f32(position) * f32(frequency)` and their cos and sin are f32, and cos and sin
are then widened. Positions stay below 100, where this and exact angles differ by less than 1e-5.
"""

import contextlib
import hashlib
import json
import pathlib

import safetensors.torch
import torch
import transformers

torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()

TESTDATA = pathlib.Path(__file__).resolve().parent.parent
# No choice of a group, an expert or a greedy token in a golden is nearer to the alternative than this.
MARGIN = 1e-3


class _Lifted:
    """The module `torch`, in which one dtype is another."""

    def __init__(self, **dtypes):
        self.__dict__.update(dtypes)

    def __getattr__(self, name):
        return getattr(torch, name)


@contextlib.contextmanager
def lift(module, **dtypes):
    """Within the block, `module` (which says `import torch`) finds other dtypes under the given names."""
    module.torch = _Lifted(**dtypes)
    rotate = getattr(module, "apply_rotary_emb", None)
    if rotate:
        module.apply_rotary_emb = _without_rounding(rotate)
    try:
        yield
    finally:
        module.torch = torch
        if rotate:
            module.apply_rotary_emb = rotate


def _without_rounding(function):
    """The function, in which `x.float()` of f64 numbers leaves them as they are."""
    def call(*arguments):
        narrow = torch.Tensor.float
        torch.Tensor.float = lambda x: x if x.dtype == torch.float64 else narrow(x)
        try:
            return function(*arguments)
        finally:
            torch.Tensor.float = narrow
    return call


def generator(*names):
    """A random generator that depends on nothing but the names."""
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


def normal(shape, std, mean, *names):
    """f64 numbers that f32 holds exactly."""
    values = mean + std * torch.randn(shape, generator=generator(*names), dtype=torch.float64)
    return values.float().double()


def initial(folder, name, shape):
    """The starting value of a published parameter: every kind is far from 0, from 1 and from its neighbours."""
    if name.endswith("norm.weight"):
        return normal(shape, 0.2, 1.0, folder, name)
    if name.endswith("e_score_correction_bias"):
        # Below zero on the whole: a loader that fills refused experts with 0 instead of -inf then chooses others.
        return normal(shape, 0.15, -0.55, folder, name)
    if name.endswith(".bias"):
        return normal(shape, 0.3, 0.0, folder, name)
    if name.endswith("embed_tokens.weight"):
        return normal(shape, 0.3, 0.0, folder, name)
    gain = 1.5 if any(part in name for part in ("q_proj", "q_b_proj", "k_proj", "kv_b_proj", "lm_head")) else 1.0
    return normal(shape, gain / shape[-1] ** 0.5, 0.0, folder, name)


def choice_margins(scores, bias, config):
    """Per token, how far the last chosen group and expert are from the first refused one: ([N], [N])."""
    biased = scores + bias
    tokens, groups = len(scores), config.n_group
    grouped = biased.view(tokens, groups, -1)
    counted = 1 if getattr(config, "topk_method", None) == "group_limited_greedy" else 2
    group_scores = grouped.topk(counted, dim=-1)[0].sum(-1)
    order = group_scores.sort(dim=-1, descending=True)
    kept = torch.zeros_like(group_scores, dtype=torch.bool).scatter(1, order.indices[:, : config.topk_group], True)
    open_experts = grouped.masked_fill(~kept[..., None], float("-inf")).view(tokens, -1)
    best = open_experts.sort(dim=-1, descending=True).values
    experts = best[:, config.num_experts_per_tok - 1] - best[:, config.num_experts_per_tok]
    if config.topk_group == groups:
        return torch.full_like(experts, float("inf")), experts
    return order.values[:, config.topk_group - 1] - order.values[:, config.topk_group], experts


def difference_check(loss, parameters, gradients, entries=2):
    """Central differences of the loss at some entries of each parameter; returns the largest relative error.

    The largest entry of each gradient is checked and then random ones, so that a zero cannot pass for agreement.
    """
    worst, step = 0.0, 1e-5
    with torch.no_grad():
        for name, parameter in parameters.items():
            flat, slope = parameter.view(-1), gradients[name].reshape(-1)
            places = [int(slope.abs().argmax())]
            places += torch.randint(len(flat), (entries - 1,), generator=generator("differences", name)).tolist()
            for place in places:
                value = flat[place].item()
                flat[place] = value + step
                above = loss().item()
                flat[place] = value - step
                below = loss().item()
                flat[place] = value
                found, given = (above - below) / (2 * step), slope[place].item()
                worst = max(worst, abs(found - given) / max(abs(given), 1e-4))
    assert worst < 1e-4, f"gradients disagree with differences: {worst:.2e}"
    return worst


def save(tensors, path, metadata):
    safetensors.torch.save_file(tensors, path, metadata=metadata)
    path.chmod(0o644)


def save_golden(folder, tensors, facts):
    """Writes golden.safetensors: numbers in f32, ids in int64, facts as one JSON text (several keys have no order)."""
    stored = {k: (v if v.dtype == torch.int64 else v.detach().float()).contiguous() for k, v in tensors.items()}
    facts = dict(facts, torch=torch.__version__, transformers=transformers.__version__)
    folder.mkdir(parents=True, exist_ok=True)
    save(stored, folder / "golden.safetensors", {"facts": json.dumps(facts, sort_keys=True)})
    print(f"{folder.name}: {json.dumps(facts, sort_keys=True)}")
