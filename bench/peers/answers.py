"""Another server's answers to the very prompts that `minke eval` asked, to be graded by the same graders.

    pip install xllamacpp
    python bench/peers/llama_server.py MODEL.gguf 8099 8 16384 &
    python bench/peers/answers.py FOLDER http://127.0.0.1:8099 ANSWERS.jsonl [--tokens 1024] [--clients 8]
    minke eval --task humaneval --data HumanEval.jsonl --answers ANSWERS.jsonl --out OTHER
    minke eval --compare FOLDER OTHER

FOLDER is that of an evaluation by Minke; its `samples_*.jsonl` have the prompts as rendered. The server is llama.cpp's, or one with its
`/completion`: greedy, control tokens of the prompt counting. Only the standard library.
"""

import argparse
import concurrent.futures
import json
import pathlib
import sys
import urllib.request


def ask(url, prompt, tokens):
    body = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "cache_prompt": False}
    request = urllib.request.Request(f"{url}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=3600) as answer:
        return json.load(answer)["content"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("url")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--clients", type=int, default=8)
    args = parser.parse_args()
    rows = [json.loads(line) for path in args.folder.glob("samples_*.jsonl") for line in open(path)]
    asked = [(row["doc"]["id"], row["arguments"]["gen_args_0"]["arg_0"]) for row in rows]
    with concurrent.futures.ThreadPoolExecutor(args.clients) as pool, open(args.out, "w") as out:
        answers = pool.map(lambda pair: ask(args.url, pair[1], args.tokens), asked)
        for i, ((name, _), text) in enumerate(zip(asked, answers)):
            print(json.dumps({"id": name, "text": text}), file=out, flush=True)
            print(f"\r{i + 1}/{len(asked)}", end="", file=sys.stderr)
    print(file=sys.stderr)


main()
