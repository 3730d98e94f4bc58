"""Does an exported folder load in transformers unchanged, and give the same logits?

`python3 testdata/make/check_export.py FOLDER LOGITS.safetensors [--bound 1e-4]`

LOGITS.safetensors is written by Minke from the same folder: input_ids [B, T] or [T] (int64) and logits [B, T, V] or
[T, V]. Prints what transformers says about the folder's keys, one rendered chat if the tokenizer has a template, and
norm(theirs - ours) / norm(theirs). Exit code 1 if a tensor is missing, unexpected or of another shape, if the tokenizer
does not round-trip, or if the error is above the bound. The tensors of an MTP layer (id num_hidden_layers) are expected
to be unexpected: transformers' DeepseekV3ForCausalLM has no place for them and says so once, unless the id is 61.
"""

import argparse
import pathlib

import safetensors.torch
import torch
import transformers

CHAT = [{"role": "user", "content": "What is 6 x 7?"}]


def load_model(folder):
    """The model in f32 and one line for each thing that is wrong with the folder's keys."""
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    mtp = f"model.layers.{model.config.num_hidden_layers}."
    expected = {key for key in info["unexpected_keys"] if key.startswith(mtp)}
    if expected:
        print(f"MTP layer: {len(expected)} tensors {mtp}* are left out by transformers")
    found = {kind: sorted(map(str, set(keys) - expected)) for kind, keys in info.items()}
    return model.eval(), [f"{kind}: {keys}" for kind, keys in found.items() if keys]


@torch.no_grad()
def run(model, ids):
    """Logits in f64. The default kernel for experts wants rows of whole 16 bytes; odd sizes take the plain one."""
    try:
        return model(ids, use_cache=False).logits.double()
    except RuntimeError as error:
        print(f"with the default experts: {error}; with experts_implementation=eager:")
        model.set_experts_implementation("eager")
        return model(ids, use_cache=False).logits.double()


def check_text(folder):
    """Loads the tokenizer, renders a chat; returns what is wrong."""
    if not (folder / "tokenizer.json").exists():
        print("no tokenizer.json")
        return []
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if tokenizer.chat_template:
        prompt = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
        print(f"chat: {prompt!r}")
    text = CHAT[0]["content"]
    ids = tokenizer.encode(text, add_special_tokens=False)
    back = tokenizer.decode(ids)
    print(f"tokens: {ids}")
    return [] if back == text else [f"the tokenizer turns {text!r} into {back!r}"]


def main():
    parser = argparse.ArgumentParser(description="compare an exported folder with transformers")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("logits", type=pathlib.Path)
    parser.add_argument("--bound", type=float, default=1e-4)
    arguments = parser.parse_args()

    model, wrong = load_model(arguments.folder)
    print(f"{type(model).__name__}: {sum(p.numel() for p in model.parameters())} parameters")
    wrong += check_text(arguments.folder)
    given = safetensors.torch.load_file(arguments.logits)
    theirs = run(model, given["input_ids"].view(-1, given["input_ids"].shape[-1]))
    error = ((theirs - given["logits"].double().view_as(theirs)).norm() / theirs.norm()).item()
    print(f"relative error of the logits: {error:.3e}")
    if not error <= arguments.bound:
        wrong.append(f"the logits differ by more than {arguments.bound:g}")
    for line in wrong:
        print(f"wrong: {line}")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
