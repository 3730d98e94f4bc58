"""Does the folder of an exported model load in transformers unchanged, and which logits does it give there?

`python3 testdata/make/exported.py` loads models/first-light and writes testdata/first-light/golden.safetensors. It stops
if a tensor is missing, unexpected or of another shape, or if the tokenizer does not give a text back. The tensors of an
MTP layer (id num_hidden_layers) are expected to be unexpected: transformers' DeepseekV3ForCausalLM has no place for them
and says so once, unless the id is 61.

golden.safetensors holds, for chat i, in f64 stored as f32:

- ids.i [T]: the rendered chat and its greedy continuation
- logits.i [ROWS, V]: of the last rows

and in its facts the messages, the rendered chats with the number of their tokens, and the SHA-256 of every file of the
model that was read: a golden of another model is known by them.
"""

import sys

sys.dont_write_bytecode = True

import hashlib

import torch
import transformers

from common import TESTDATA, lift, save_golden
from families import Gates, code

MODEL = TESTDATA.parent / "models" / "first-light"
FILES = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
CHATS = [
    [{"role": "user", "content": "make 24 from 3 8 1"}],
    [{"role": "user", "content": "compute 7*8-5"}],
    [{"role": "system", "content": "Think first."}, {"role": "user", "content": "make 38 from 7 18 8"},
     {"role": "assistant", "content": "<think>\n18+7=25 ?38 no\n</think>\n\n18+7+8"},
     {"role": "user", "content": "That is 33, not 38."}],
    [{"role": "user", "content": "Does it know 東京, naïve or 🙂?"}],
]
CONTINUATION = 64
ROWS = 32
# In f32 a choice of experts nearer than this to the alternative may fall otherwise, and all that follows.
NEAREST = 1e-5


def load_model():
    """The model in f64."""
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        MODEL, dtype=torch.float64, attn_implementation="eager", experts_implementation="eager",
        output_loading_info=True)
    mtp = f"model.layers.{model.config.num_hidden_layers}."
    expected = {key for key in info["unexpected_keys"] if key.startswith(mtp)}
    print(f"{type(model).__name__}: {sum(p.numel() for p in model.parameters())} parameters; "
          f"{len(expected)} tensors {mtp}* (MTP) are left out by transformers")
    wrong = {kind: sorted(map(str, set(keys) - expected)) for kind, keys in info.items() if set(keys) - expected}
    assert not wrong, f"the model does not load cleanly: {wrong}"
    return model.eval()


def encode(tokenizer, messages):
    """A rendered chat and its ids, which must lead back to it."""
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer.encode(text, add_special_tokens=False)
    back = tokenizer.decode(ids)
    assert back == text, f"the tokenizer turns {text!r} into {back!r}"
    return text, ids


@torch.no_grad()
def continue_greedily(model, gates, ids):
    """The sequence with its continuation and its logits, up to a choice of experts that is too near."""
    prompt = len(ids)
    for _ in range(CONTINUATION):
        ids = ids + [model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax().item()]
    logits = model(torch.tensor([ids]), use_cache=False).logits[0]
    near = (torch.stack(gates.margins()).amin(0) < NEAREST).nonzero().flatten().tolist()
    length = near[0] if near else len(ids)
    assert length >= max(prompt, ROWS), f"a choice of experts is near at token {length}: choose another chat"
    return torch.tensor(ids[:length]), logits[length - ROWS:length]


def main():
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    tensors, facts = {}, {"chats": []}
    with lift(code("DeepseekV3"), float32=torch.float64):
        model = load_model()
        gates = Gates(model)
        for i, messages in enumerate(CHATS):
            text, ids = encode(tokenizer, messages)
            tensors[f"ids.{i}"], tensors[f"logits.{i}"] = continue_greedily(model, gates, ids)
            print(repr(tokenizer.decode(tensors[f"ids.{i}"])))
            facts["chats"].append({"messages": messages, "text": text, "tokens": len(ids)})
    facts["sha256"] = {name: hashlib.sha256((MODEL / name).read_bytes()).hexdigest() for name in FILES}
    save_golden(TESTDATA / "first-light", tensors, facts)


if __name__ == "__main__":
    main()
