"""Loads OpenAI-compatible servers: tokens per second, time to the first token, time between tokens.

python serving.py load URL [--clients 1,4,16] [--requests N] [--prompt WORDS] [--shared WORDS] [--tokens N] [--rate 0.5,1] [--pid PID]
python serving.py fairness URL     a short prompt that joins a long one; tokens of others while a long prompt is read
python serving.py cache URL        the second turn of a conversation, and side requests between two turns

Closed loop: each client sends its next request when the last one has ended. Open loop (--rate, requests per second): requests come at
random times whatever the server does. Give several URLs, separated by commas, to load them in turn (each step once on every server, so
that all have the same minutes). With --pid, one for each URL, the processor time by name of thread. Only the standard library; the
machine runs nothing else.
"""

import argparse
import http.client
import json
import os
import pathlib
import random
import statistics
import threading
import time
import urllib.parse

WORDS = ("time year people way day man thing woman life child world school state family student group country problem hand part "
         "place case week company system program question work government number night point home water room mother area money "
         "story fact month lot right study book eye job word business issue side kind head house service friend father power "
         "hour game line end member law car city community name president team minute idea kid body information back parent "
         "face others level office door health person art war history party result change morning reason research girl guy moment").split()


def text(words, seed):
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) for _ in range(words))


class Result:
    def __init__(self):
        self.first = self.total = 0.0
        self.between = []
        self.usage = {}


def ask(url, messages, tokens, model=None, timeout=1200):
    """One streamed answer, with its times."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    body = {"messages": messages, "max_tokens": tokens, "temperature": 0, "stream": True,
            "stream_options": {"include_usage": True}, "ignore_eos": True}
    if model:
        body["model"] = model
    begin = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"{url}: {response.status} {response.read()[:300]}")
    result, last = Result(), None
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        chunk, now = json.loads(line[6:]), time.perf_counter()
        result.usage = chunk.get("usage") or result.usage
        delta = chunk["choices"][0]["delta"] if chunk.get("choices") else {}
        if delta.get("content") or delta.get("reasoning_content"):
            if last is None:
                result.first = now - begin
            else:
                result.between.append(now - last)
            last = now
    result.total = time.perf_counter() - begin
    connection.close()
    return result


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def processor_time(pid):
    """Seconds of processor time by name of thread."""
    seconds = {}
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/stat") if pid else []:
        name, rest = task.read_text().split("(", 1)[1].rsplit(")", 1)
        ticks = sum(map(int, rest.split()[11:13]))
        seconds[name] = seconds.get(name, 0) + ticks / os.sysconf("SC_CLK_TCK")
    return seconds


def load(url, pid, clients, rate, requests, prompt, shared, tokens, seed):
    """Clients of a closed loop, or a rate of an open one."""
    results, lock, left = [], threading.Lock(), [requests]
    prefix = text(shared, 7) + "\n" if shared else ""

    def one(index):
        question = prefix + text(prompt, seed * 100_000 + index)
        result = ask(url, [{"role": "user", "content": question}], tokens)
        with lock:
            results.append(result)

    def client():
        while True:
            with lock:
                if left[0] == 0:
                    return
                left[0] -= 1
                index = left[0]
            one(index)

    before, begin = processor_time(pid), time.perf_counter()
    threads = []
    if rate:
        gaps = random.Random(seed)
        for index in range(requests):
            threads.append(threading.Thread(target=one, args=(index,)))
            threads[-1].start()
            time.sleep(gaps.expovariate(rate))
    else:
        threads = [threading.Thread(target=client) for _ in range(clients)]
        [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    seconds = time.perf_counter() - begin
    used = {name: round(after - before.get(name, 0), 2) for name, after in processor_time(pid).items()}
    generated = sum(result.usage.get("completion_tokens", 0) for result in results)
    between = [gap for result in results for gap in result.between]
    first = [result.first for result in results]
    return {
        "url": url, "clients": clients, "rate": rate, "requests": requests, "prompt_words": prompt, "shared_words": shared,
        "tokens": tokens, "requests_per_s": round(requests / seconds, 3), "tokens_per_s": round(generated / seconds, 2),
        "first_p50": round(percentile(first, 0.5), 3), "first_p99": round(percentile(first, 0.99), 3),
        "between_p50": round(percentile(between, 0.5), 4), "between_p99": round(percentile(between, 0.99), 4),
        "processor_s": used,
    }


def fairness(url):
    short = lambda seed: ask(url, [{"role": "user", "content": text(40, seed)}], 4).first
    alone = statistics.median(short(1000 + i) for i in range(5))
    joined = []
    for i in range(3):
        long = threading.Thread(target=ask, args=(url, [{"role": "user", "content": text(6000, 50 + i)}], 2))
        long.start()
        time.sleep(1.0)
        for j in range(4):
            joined.append(short(2000 + 10 * i + j))
            time.sleep(0.37)
        long.join()
    print(f"short prompt: alone {alone:.2f} s, beside a long one median {statistics.median(joined):.2f} s, "
          f"worst {max(joined):.2f} s, {statistics.median(joined) / alone:.2f} times")
    eight = lambda seed, out: out.append(ask(url, [{"role": "user", "content": text(20, seed)}], 60))
    for beside in (False, True):
        out = []
        threads = [threading.Thread(target=eight, args=(3000 + i, out)) for i in range(8)]
        [thread.start() for thread in threads]
        if beside:
            time.sleep(3)
            long = threading.Thread(target=ask, args=(url, [{"role": "user", "content": text(6000, 99)}], 2))
            long.start()
        [thread.join() for thread in threads]
        if beside:
            long.join()
        gaps = [gap for result in out for gap in result.between]
        print(f"8 clients{' beside a long prompt' if beside else ''}: between tokens p50 {percentile(gaps, 0.5):.3f} s, "
              f"p99 {percentile(gaps, 0.99):.3f} s")


def cache(url):
    system = {"role": "system", "content": text(1200, 1)}
    turn = [system, {"role": "user", "content": text(20, 2)}]
    cached = lambda result: result.usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
    first = ask(url, turn, 8)
    again = turn + [{"role": "assistant", "content": "yes"}, {"role": "user", "content": text(10, 3)}]
    second = ask(url, again, 8)
    print(f"first turn {first.usage['prompt_tokens']} tokens in {first.first:.2f} s; second "
          f"{second.usage['prompt_tokens']} tokens, {cached(second)} found, {second.first:.2f} s")
    for i in range(20):
        ask(url, [{"role": "user", "content": text(60, 500 + i)}], 4)
    third = ask(url, again + [{"role": "assistant", "content": "no"}, {"role": "user", "content": "and now?"}], 8)
    print(f"after 20 side requests: {third.usage['prompt_tokens']} tokens, {cached(third)} found, {third.first:.2f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["load", "fairness", "cache"])
    parser.add_argument("urls")
    parser.add_argument("--clients", default="1,4,16")
    parser.add_argument("--rate", help="requests per second, instead of a number of clients")
    parser.add_argument("--pid", default="", help="processes of the servers")
    parser.add_argument("--requests", type=int, default=0, help="for each step; 0 for three of each client, or for 30 seconds")
    parser.add_argument("--prompt", type=int, default=40)
    parser.add_argument("--shared", type=int, default=0)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    urls = args.urls.split(",")
    pids = [int(pid) for pid in args.pid.split(",") if pid] or [0] * len(urls)
    if args.what != "load":
        [{"fairness": fairness, "cache": cache}[args.what](url) for url in urls]
        raise SystemExit
    steps = [(0, float(rate)) for rate in args.rate.split(",")] if args.rate else [(int(n), 0) for n in args.clients.split(",")]
    for round_ in range(args.rounds):
        for clients, rate in steps:
            for url, pid in zip(urls, pids):
                requests = args.requests or 3 * clients or round(30 * rate)
                row = load(url, pid, clients, rate, requests, args.prompt, args.shared, args.tokens, round_ + 1)
                print(json.dumps(row), flush=True)
