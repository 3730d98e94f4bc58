"""What does PEFT compute with a low-rank adapter beside a frozen model, and how does that learn?

`python3 testdata/make/lora.py` puts adapters with random A and B beside tiny-* models and writes, for each of CASES, into
testdata/lora/NAME:

- adapter_config.json and adapter_model.safetensors, as PEFT saves them
- golden.safetensors, computed in f64 and stored in f32, for sequences i:
  - ids.i [T] and counted.i [2]: the tokens whose prediction counts, from and to
  - logits.i [T, V]
  - loss [1]: the mean cross-entropy of all tokens that count
  - grad.NAME.lora_A.weight, grad.NAME.lora_B.weight: its gradients; no other parameter has one
  - curve [50]: the loss before each of 50 steps of torch.optim.AdamW on these sequences, and after the last
    LAST.NAME...: the adapter then
"""

import sys

sys.dont_write_bytecode = True

import json
import warnings

import peft
import torch

from common import TESTDATA, generator, lift, normal, save_golden
from families import code, load

# Name: folder, architecture in transformers, linear layers, rank, alpha, rslora.
CASES = {
    "llama": ("tiny-llama", "Llama",
              ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"], 4, 6, False),
    "qwen2": ("tiny-qwen2", "Qwen2", ["q_proj", "v_proj", "down_proj"], 8, 4, True),
    "v3": ("tiny-v3", "DeepseekV3", ["q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"], 3, 5, False),
}
# Lengths of the sequences, and which of their tokens count.
SEQUENCES = [(24, 1, 24), (17, 9, 15), (9, 3, 4)]
STEPS = 50
LEARNING_RATE, BETAS, EPSILON, DECAY, CLIP = 1e-3, (0.9, 0.95), 1e-8, 0.1, 1.0


def adapter_parameters(model):
    """Those of the adapter by the name under which PEFT saves them."""
    return {name.replace(".default", ""): parameter for name, parameter in model.named_parameters() if "lora_" in name}


def compute_loss(model, sequences):
    """The mean over all tokens that count, and the logits of every sequence."""
    total, count, all_logits = 0.0, 0, []
    for ids, (first, last) in sequences:
        logits = model(ids[None], use_cache=False).logits[0]
        rows = torch.arange(first, last) - 1
        total = total + torch.nn.functional.cross_entropy(logits[rows], ids[first:last], reduction="sum")
        count += last - first
        all_logits.append(logits)
    return total / count, all_logits


def make(name):
    folder, architecture, targets, rank, alpha, rslora = CASES[name]
    with lift(code(architecture), float32=torch.float64):
        base = load(folder)
        config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, use_rslora=rslora, lora_dropout=0.0,
                                 bias="none", task_type="CAUSAL_LM")
        model = peft.get_peft_model(base, config, autocast_adapter_dtype=False).eval()
        parameters = adapter_parameters(model)
        assert {n for n, p in model.named_parameters() if p.requires_grad} == {
            n for n, _ in model.named_parameters() if "lora_" in n}
        with torch.no_grad():
            for key, parameter in parameters.items():
                std = 1.0 / parameter.shape[-1] ** 0.5 if "lora_A" in key else 0.1
                parameter.data = normal(tuple(parameter.shape), std, 0.0, "lora", name, key)
        vocabulary = base.config.vocab_size
        sequences = []
        for i, (length, first, last) in enumerate(SEQUENCES):
            ids = torch.randint(vocabulary, (length,), generator=generator("lora", name, "ids", i))
            sequences.append((ids, (first, last)))

        target = TESTDATA / "lora" / name
        in_f32 = {key: parameter.data.float() for key, parameter in parameters.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # The names are those of save_pretrained; the path of the base on this machine is not for the file.
            model.peft_config["default"].base_model_name_or_path = folder
            model.save_pretrained(target, save_embedding_layers=False, state_dict={
                key.replace("lora_A.weight", "lora_A.default.weight").replace("lora_B.weight", "lora_B.default.weight"): v
                for key, v in in_f32.items()})
        (target / "README.md").unlink(missing_ok=True)
        # A set has no order of its own.
        settings = target / "adapter_config.json"
        config = json.loads(settings.read_text())
        config["target_modules"].sort()
        settings.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        for path in target.iterdir():
            path.chmod(0o644)

        tensors = {}
        loss, logits = compute_loss(model, sequences)
        loss.backward()
        for i, (ids, counted) in enumerate(sequences):
            tensors[f"ids.{i}"], tensors[f"counted.{i}"], tensors[f"logits.{i}"] = ids, torch.tensor(counted), logits[i]
        tensors["loss"] = loss.detach()[None]
        for key, parameter in parameters.items():
            tensors[f"grad.{key}"] = parameter.grad.clone()

        optimizer = torch.optim.AdamW(parameters.values(), lr=LEARNING_RATE, betas=BETAS, eps=EPSILON, weight_decay=DECAY)
        curve = []
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss, _ = compute_loss(model, sequences)
            curve.append(loss.detach())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(list(parameters.values()), CLIP)
            optimizer.step()
        curve.append(compute_loss(model, sequences)[0].detach())
        tensors["curve"] = torch.stack(curve)
        for key, parameter in parameters.items():
            tensors[f"last.{key}"] = parameter.data
    facts = {"folder": folder, "peft": peft.__version__, "steps": STEPS, "learning_rate": LEARNING_RATE,
             "betas": BETAS, "weight_decay": DECAY, "clip_norm": CLIP}
    save_golden(target, tensors, facts)
    print(f"{name}: loss {curve[0]:.4f} to {curve[-1]:.4f}")


def main():
    for name in CASES:
        make(name)


if __name__ == "__main__":
    main()
