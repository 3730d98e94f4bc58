"""Ids of texts by llama.cpp for each of its byte-level pre-tokenizers, all with the first 60,000 tokens of Llama 3.

    pre_tokenizers.py

writes vocabularies/pre-tokenizers.json: `texts`, and `ids`, for each name the FNV-1a hash (32 bits, hex) of every text's ids (in
decimal, joined by spaces). All texts are in NFC, since llama.cpp does not normalise. Llama 3's vocabulary has
tokens of one to three digits, so that it shows how numbers are cut. Two names are left out, where llama.cpp is not its models' own
tokenizer: `deepseek-llm` keeps numbers whole, which shows with a vocabulary that has tokens of several digits, and not with its
own; `kimi-k2` does not cut before a capital letter as the published pattern does.
"""

import json
import os
import tempfile

import gguf

import llama_library
from common import TESTDATA

FOLDER = TESTDATA / "vocabularies"
TOKENS = 60_000
NAMES = """a.x-4.0 bloom chatglm-bpe codeshell command-r dbrx deepseek-coder deepseek-r1-qwen deepseek-v3 default exaone
falcon falcon3 gigachat glm4 gpt-2 gpt-4o gpt3-finnish hunyuan hunyuan-dense joyai-llm kanana2 kormo llama-bpe llama-v3
llama3 llama4 megrez mellum midm-2.0 minerva-7b minicpm5 phi-2 pixtral poro-chat qwen2 refact seed-coder smaug-bpe smollm
stablelm2 starcoder superbpe tekken trillion viking""".split()
MORE = [
    "In 2023, 1234567.89 of 10,000,000 people (12 %) paid $3.50; the rest paid €1'000 or ¥25000.",
    "It's what we'd've called THEY'RE'S; don't SHOUT, I'm 'quoting' you’re.",
    "HTTPServerError camelCase snake_case SCREAMING_CASE kebab-case x86_64 utf8mb4 IPv6",
    "fn main() {\n\tlet x: [u8; 4] = *b\"ab\\n\";\r\n    // 你好, мир!\n\n\n    println!(\"{x:?}\");   \n}\n",
    "def f(a, b=None):\n    return {**a, 'k': [1, 22, 333, 4444, 55555]} if a != b else ...  # TODO\n",
    "今天是2024年11月28日,气温-3.5°C。東京タワーは333メートルです。안녕하세요 세계 123456",
    "Ünïcödé naïve façade Straße ŁÓDŹ Ελληνικά ΣΊΣΥΦΟΣ русский ТЕКСТ עברית العربية १२३४५ ๑๒๓ ไทยภาษา",
    "👩‍👩‍👧‍👦 🇫🇷🏳️‍🌈 👍🏽 ①②③ ½ ² Ⅷ ﬁ \u200b\u00a0\u2003|\u3000end",
    "a  b   c\td\t\te \n f\n  g\r\nh\r\n\r\ni\x0bj\x0ck\x7f",
    "!!!??? ... --- === *** <<>> ([{}]) #@! ^_^ ~~ `` \\\\ // || && $$ %% ++",
    "| a | b |\n|---|---|\n| 1 | 2 |\n\n- item\n  - sub-item: `code`\n\n> quote **bold** _it_\n",
    "(1,2,[3,4]),。、!?;:“引用”《书名》…—— 100%—50%",
]


def texts():
    return (FOLDER / "ggml-vocab-llama-bpe.gguf.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")[:46] + MORE


def write(path, name):
    ids = json.loads((FOLDER / "encoder.json").read_text(encoding="utf-8"))
    tokens = sorted(ids, key=ids.get)[:TOKENS]
    assert [ids[token] for token in tokens] == list(range(TOKENS))
    merges = (FOLDER / "vocab.bpe").read_text(encoding="utf-8").splitlines()
    known = set(tokens)
    merges = [merge for merge in merges if known.issuperset(merge.split(" ") + [merge.replace(" ", "")])]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(name)
    writer.add_token_list(tokens + ["<|end|>"])
    writer.add_token_types([1] * len(tokens) + [3])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(len(tokens))
    writer.add_eos_token_id(len(tokens))
    writer.add_add_bos_token(False)
    for key, value in {"block_count": 1, "context_length": 64, "embedding_length": 64, "feed_forward_length": 64,
                       "attention.head_count": 4, "attention.head_count_kv": 4, "vocab_size": len(tokens) + 1}.items():
        writer.add_uint32(f"llama.{key}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


VOCAB_ONLY = 72 // 4  # word of llama_model_params.vocab_only in the pinned version


def fnv1a(text):
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


def hashed(lib, path, texts):
    parameters = lib.llama_model_default_params()
    parameters.words[VOCAB_ONLY] |= 1
    model = lib.llama_model_load_from_file(path.encode(), parameters)
    assert model, path
    vocab = lib.llama_model_get_vocab(model)
    ids = [" ".join(map(str, llama_library.tokenize(lib, vocab, text))) for text in texts]
    lib.llama_model_free(model)
    return [f"{fnv1a(text):08x}" for text in ids]


def main():
    lib, ids = llama_library.library(), {}
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            path = f"{folder}/{name}.gguf"
            write(path, name)
            ids[name] = hashed(lib, path, texts())
            os.remove(path)
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(' '.join(row))}" for name, row in ids.items())
    out = f'{{"texts": {json.dumps(texts(), ensure_ascii=False, indent=0)},\n"ids": {{\n{rows}\n}}}}\n'
    (FOLDER / "pre-tokenizers.json").write_text(out, encoding="utf-8")


main()
