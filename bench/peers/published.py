"""A published GGUF model: Minke beside llama.cpp on the same file.

    pip install xllamacpp
    python bench/peers/published.py ids BINARY MODEL.gguf TEXT          ids of a text in NFC, in pieces of 64 KiB
    python bench/peers/published.py greedy BINARY MODEL.gguf [TOKENS]   greedy answers of ten questions (64 tokens each)
    python bench/peers/published.py perplexity BINARY MODEL.gguf TEXT [CONTEXT]

For `perplexity`, both programs cut the text into chunks of CONTEXT tokens (512), begin each with the begin token where the
tokenizer says so, and score the second half of each. For `greedy`, both answer, and Minke computes the logits behind every id
of llama.cpp's answer as well: where the answers part, the lead of llama.cpp's choice over Minke's is shown in both programs.
"""

import ctypes
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import unicodedata

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "testdata" / "make"))
import llama_library  # noqa: E402

QUESTIONS = ["What is the capital of France?", "Write a haiku about the sea.", "What is 17 + 25?", "Name three primary colors.",
             "Translate 'good morning' to Spanish.", "Write a Python function that reverses a string.", "Who wrote Hamlet?",
             "Why is the sky blue?", "List the first five prime numbers.", "Explain gravity in one sentence."]


class Llama:
    """A model in llama.cpp with a context of so many tokens."""

    def __init__(self, path, context):
        self.lib = llama_library.library()
        self.model = self.lib.llama_model_load_from_file(path.encode(), self.lib.llama_model_default_params())
        self.vocab = self.lib.llama_model_get_vocab(self.model)
        parameters = self.lib.llama_context_default_params()
        # n_ctx, n_batch, n_ubatch: the first three words.
        parameters.words[0] = parameters.words[1] = parameters.words[2] = context
        # n_threads and n_threads_batch, which are 4 by default, stand side by side.
        threads = next(i for i in range(3, 16) if parameters.words[i] == parameters.words[i + 1] == 4)
        parameters.words[threads] = parameters.words[threads + 1] = os.cpu_count()
        self.state = self.lib.llama_init_from_model(self.model, parameters)
        self.batch = self.lib.llama_batch_init(context, 0, 1)
        self.size = self.lib.llama_vocab_n_tokens(self.vocab)

    def ids(self, text, begin, special):
        return llama_library.tokenize(self.lib, self.vocab, text, begin, special)

    def clear(self):
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.state), True)

    def decode(self, ids, past, wanted):
        """Goes on behind `past` tokens; logits of the rows for which `wanted(i)`."""
        for i, token in enumerate(ids):
            self.batch.token[i], self.batch.pos[i], self.batch.n_seq_id[i] = token, past + i, 1
            self.batch.seq_id[i][0], self.batch.logits[i] = 0, wanted(i)
        self.batch.n_tokens = len(ids)
        assert self.lib.llama_decode(self.state, self.batch) == 0

    def logits(self, row):
        return numpy.ctypeslib.as_array(self.lib.llama_get_logits_ith(self.state, row), (self.size,)).astype(numpy.float64)

    def piece(self, token):
        room = ctypes.create_string_buffer(256)
        length = self.lib.llama_token_to_piece(self.vocab, token, room, 256, 0, False)
        return room.raw[:length]


def run(*arguments):
    return subprocess.run(arguments, capture_output=True, check=True).stdout


def ids(minke, path, text):
    llama, text, equal, total = Llama(path, 64), unicodedata.normalize("NFC", open(text, newline="").read()), 0, 0
    for start in range(0, len(text), 1 << 16):
        piece = text[start : start + (1 << 16)]
        theirs, ours = llama.ids(piece, False, False), json.loads(run(minke, "debug", "tokens", path, piece, "--json"))["ids"]
        total += len(theirs)
        equal += len(theirs) if theirs == ours else 0
        if theirs != ours:
            at = next((i for i, pair in enumerate(zip(theirs, ours)) if pair[0] != pair[1]), min(len(theirs), len(ours)))
            print(f"different behind {b''.join(map(llama.piece, theirs[max(at - 5, 0) : at])).decode(errors='replace')!r}: "
                  f"llama.cpp {theirs[at : at + 4]}, minke {ours[at : at + 4]}")
    print(f"{len(text.encode())} bytes, {total} ids, {equal} of them in pieces that are equal")


def greedy(minke, path, tokens=64):
    llama, same = Llama(path, 1024), 0
    for question in QUESTIONS:
        prompt = run(minke, "debug", "render", path, question, "--json")
        prompt = json.loads(prompt)["prompt"]
        begun = llama.ids(prompt, False, True)
        ours = json.loads(run(minke, "debug", "tokens", path, prompt, "--json"))["ids"]
        assert ours == begun, (question, ours, begun)
        llama.clear()
        answer, rows, new = [], [], begun
        while True:
            llama.decode(new, len(begun) + len(answer) - len(new) if answer else 0, lambda i: i == len(new) - 1)
            rows.append(llama.logits(len(new) - 1))
            answer.append(int(rows[-1].argmax()))
            if llama.lib.llama_vocab_is_eog(llama.vocab, answer[-1]) or len(answer) == int(tokens):
                break
            new = answer[-1:]
        with tempfile.NamedTemporaryFile() as file:
            run(minke, "debug", "logits", path, "--ids", ",".join(map(str, begun + answer[:-1])), "--out", file.name)
            logits = numpy.fromfile(file.name, "<f4").reshape(-1, llama.size)[len(begun) - 1 :].astype(numpy.float64)
        ends = llama.lib.llama_vocab_is_eog(llama.vocab, answer[-1])
        theirs = b"".join(map(llama.piece, answer[: len(answer) - ends])).decode(errors="replace").strip()
        said = run(minke, "run", path, question, "--temperature", "0", "--max-tokens", str(tokens)).decode().strip()
        same += said == theirs
        other = sum(int(row.argmax()) != chosen for row, chosen in zip(logits, answer))
        print(f"{'same' if said == theirs else 'DIFFERENT'}, {len(answer)} tokens, {other} of them another in minke: {question}")
        if said != theirs:
            print(f"    llama.cpp {theirs!r}\n    minke     {said!r}")
            ours = json.loads(run(minke, "debug", "tokens", path, said, "--json"))["ids"]
            at = next(i for i, pair in enumerate(zip(answer, ours)) if pair[0] != pair[1])
            lead = [row[at][answer[at]] - row[at][ours[at]] for row in (rows, logits)]
            print(f"    token {at}: {llama.piece(answer[at])} leads {llama.piece(ours[at])} by {lead[0]:.3f} in llama.cpp "
                  f"and {lead[1]:.3f} in minke with an F32 cache")
    print(f"{same} of {len(QUESTIONS)} answers are the same")


def perplexity(minke, path, text, context=512):
    context, llama = int(context), Llama(path, int(context))
    every, losses = llama.ids(open(text, newline="").read(), True, False), []
    for start in range(0, len(every) - context + 1, context):
        chunk = every[start : start + context]
        if llama.lib.llama_vocab_get_add_bos(llama.vocab):
            chunk[0] = llama.lib.llama_vocab_bos(llama.vocab)
        llama.clear()
        llama.decode(chunk, 0, lambda i: i >= context // 2)
        for i in range(context // 2, context - 1):
            logits = llama.logits(i)
            top = logits.max()
            losses.append(top + math.log(numpy.exp(logits - top).sum()) - logits[chunk[i + 1]])
    theirs, scored = math.exp(sum(losses) / len(losses)), len(losses)
    for cache in ("f32", "bf16"):
        done = run(minke, "perplexity", path, text, "--context", str(context), "--cache-type", cache, "--json")
        ours = json.loads(done)
        print(f"cache {cache}: llama.cpp {theirs:.4f} over {scored} of {len(every)} tokens; minke {ours['perplexity']:.4f} over "
              f"{ours['scored']} of {ours['tokens']}; ratio {ours['perplexity'] / theirs:.5f}")


{"ids": ids, "greedy": greedy, "perplexity": perplexity}[sys.argv[1]](*sys.argv[2:])
