"""Lets many kinds of clients use a server for minutes, and says whether its memory, threads or files grow.

python soak.py PROGRAM MODEL [--minutes N] [--clients N] [--pause SECONDS] [--port N] [SETTING ...]

Starts `PROGRAM serve MODEL SETTING ...`. Each client sends one request after the other, of a kind drawn at random: every API, whole and
streamed, background responses that are read again or cancelled, bodies that are no requests, connections that are cut at a
random byte of the request or of the answer. Exit code 1 if an answer was not what its kind must get, a stream had not exactly
one last event, memory grew by 1 MB/h or more or by 2 % behind the warm-up (the first sixth), or threads or files did not come
back. The cache on disk is small enough to be full by then, as its index grows with it: what still grows is not a cache. Only the
standard library.
"""

import argparse
import collections
import http.client
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

JSON = {"content-type": "application/json"}
HELLO = [{"role": "user", "content": "hello"}]
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 99}}, "required": ["x"],
          "additionalProperties": False}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": SCHEMA}}]
# Path, field of the largest number of tokens, body.
APIS = {
    "chat": ("/v1/chat/completions", "max_tokens", {"messages": HELLO, "stream_options": {"include_usage": True}}),
    "responses": ("/v1/responses", "max_output_tokens", {"input": "hello"}),
    "messages": ("/v1/messages", "max_tokens", {"messages": HELLO}),
    "ollama": ("/api/chat", None, {"model": "", "messages": HELLO}),
    "completions": ("/v1/completions", "max_tokens", {"prompt": "hello"}),
}
BAD = [b"", b"{", b"[]", b"{\"messages\": \xff}", b"{\"messages\": [], \"max_tokens\": 5}", b"[" * 5000,
       b"{\"messages\": [{\"role\": \"king\", \"content\": \"a\"}], \"input\": 5, \"model\": 5, \"max_tokens\": \"x\"}"]


def request(rng, api, stream):
    """Path and body of a request, with some of what requests can ask for."""
    path, limit, body = APIS[api]
    body, tokens = dict(body, stream=stream), rng.randint(1, 60)
    if limit:
        body.update({limit: tokens, "temperature": rng.choice([0, 0.6, 1.3]), "top_p": rng.choice([0.5, 1])})
    else:
        body["options"] = {"num_predict": tokens, "seed": rng.randint(0, 1000)}
    extra = rng.randint(0, 5)
    if api == "chat" and extra == 0:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "p", "schema": SCHEMA}}
    elif api == "chat" and extra == 1:
        body.update(tools=TOOLS, tool_choice="required")
    elif api == "chat" and extra == 2:
        body.update(logprobs=True, top_logprobs=3, n=3)
    elif api == "ollama" and extra == 0:
        body["format"] = SCHEMA
    elif api in ("chat", "completions") and extra == 3:
        body["stop"] = ["e", "1"]
    return path, body


def obeyed(status, data):
    """Whether an answer came; descriptions of tools alone are too long for a small model."""
    answer = json.loads(data)
    return status == 200 or (status == 400 and answer["error"]["code"] == "context_length_exceeded")


def last_events(api, data):
    """Whether a stream has exactly one last event, and ends with it."""
    if api == "ollama":
        lines = [json.loads(line) for line in data.splitlines()]
        last = [line.get("done") is True or "error" in line for line in lines]
    else:
        blocks = [block for block in data.split(b"\n\n") if block and not block.startswith(b":")]
        if api in ("chat", "completions"):
            last = [block == b"data: [DONE]" or block.startswith(b"data: {\"error\"") for block in blocks]
        elif api == "messages":
            last = [block.startswith((b"event: message_stop", b"event: error")) for block in blocks]
        else:
            ends = (b"event: response.completed", b"event: response.incomplete", b"event: response.failed")
            last = [block.startswith(ends) for block in blocks]
    return sum(last) == 1 and last[-1]


class Client(threading.Thread):
    def __init__(self, port, seed, until, pause, counts, wrong):
        super().__init__(daemon=True)
        self.port, self.until, self.pause, self.counts, self.wrong = port, until, pause, counts, wrong
        self.rng = random.Random(seed)

    def run(self):
        kinds = [self.whole, self.streamed, self.streamed, self.cut_answer, self.cut_request, self.bad, self.background, self.read]
        while time.monotonic() < self.until:
            kind = self.rng.choice(kinds)
            try:
                problem = kind()
            except (OSError, http.client.HTTPException, ValueError, KeyError, IndexError) as error:
                problem = f"{type(error).__name__}: {error}"
            self.counts[kind.__name__] += 1
            if problem:
                self.wrong.append(f"{kind.__name__}: {problem}")
            time.sleep(self.rng.random() * 2 * self.pause)

    def send(self, method, path, body=None, headers=JSON):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, headers)
        return connection, connection.getresponse()

    def answer(self, method, path, body=None):
        connection, response = self.send(method, path, body)
        data = response.read()
        connection.close()
        return response.status, data

    def draw(self, stream):
        api = self.rng.choice(list(APIS))
        path, body = request(self.rng, api, stream)
        return api, path, json.dumps(body).encode()

    def whole(self):
        _, path, body = self.draw(False)
        status, data = self.answer("POST", path, body)
        return None if obeyed(status, data) else f"{path} {status} {data[:200]} to {body[:300]}"

    def streamed(self):
        api, path, body = self.draw(True)
        status, data = self.answer("POST", path, body)
        good = last_events(api, data) if status == 200 else obeyed(status, data)
        return None if good else f"{path} {status} ends with {data[-300:]}, asked {body[:300]}"

    def cut_answer(self):
        _, path, body = self.draw(True)
        connection, response = self.send("POST", path, body)
        response.read(self.rng.randint(0, 2000))
        connection.sock and connection.sock.close()
        connection.close()

    def cut_request(self):
        _, path, body = self.draw(self.rng.random() < 0.5)
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        data = head.encode() + body
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(data[:self.rng.randint(0, len(data))])

    def bad(self):
        path, body = APIS[self.rng.choice(list(APIS))][0], self.rng.choice(BAD)
        status, data = self.answer("POST", path, body)
        json.loads(data)
        return None if 400 <= status < 500 else f"{path} {status} {data[:200]} to {body[:100]}"

    def background(self):
        body = json.dumps({"input": "hello", "background": True, "max_output_tokens": self.rng.randint(1, 100)})
        status, data = self.answer("POST", "/v1/responses", body)
        if status != 200:
            return f"{status} {data[:200]}"
        path = "/v1/responses/" + json.loads(data)["id"]
        if self.rng.random() < 0.3:
            status, data = self.answer("POST", path + "/cancel")
            known = json.loads(data)["status"] in ("cancelled", "completed", "incomplete")
            return None if status == 200 and known else f"cancelled: {status} {data[:200]}"
        status, data = self.answer("GET", path + "?stream=true")
        return None if status == 200 and last_events("responses", data) else f"followed: {status} {data[-300:]}"

    def read(self):
        path, body = self.rng.choice([
            ("/metrics", None), ("/health", None), ("/v1/models", None), ("/api/tags", None), ("/", None),
            ("/tokenize", {"content": "hello"}), ("/apply-template", {"messages": HELLO}),
            ("/v1/messages/count_tokens", {"messages": HELLO})])
        status, data = self.answer("POST" if body else "GET", path, body and json.dumps(body))
        return None if status == 200 else f"{path} {status} {data[:200]}"


def sample(pid):
    status = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status") if ":" in line)
    return int(status["VmRSS"].split()[0]), int(status["Threads"]), len(os.listdir(f"/proc/{pid}/fd"))


def slope(points):
    """Least squares: kB per hour."""
    times, sizes = [time for time, _ in points], [size for _, size in points]
    mean = statistics.mean(times)
    spread = sum((t - mean) ** 2 for t in times)
    return 3600 * sum((t - mean) * s for t, s in points) / spread if spread else 0.0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--pause", type=float, default=0.03, help="mean seconds between two requests of a client")
    parser.add_argument("--port", type=int, default=18080)
    arguments, settings = parser.parse_known_args()
    home = tempfile.TemporaryDirectory()
    command = [arguments.program, "serve", arguments.model, "--port", str(arguments.port), "--threads", "1",
               "--disk-cache-bytes", str(16 << 20), *settings]
    server = subprocess.Popen(command, env={"HOME": home.name, "PATH": os.environ["PATH"]}, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                connection = http.client.HTTPConnection("127.0.0.1", arguments.port, timeout=5)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    break
            except OSError:
                pass
            time.sleep(0.1)
        ok = soak(server, arguments)
        server.send_signal(signal.SIGTERM)
        code = server.wait(30)
        print(f"exit code behind SIGTERM: {code}")
        sys.exit(0 if ok and code == 0 else 1)
    finally:
        server.kill()


def soak(server, arguments):
    time.sleep(1)
    before = sample(server.pid)
    begin = time.monotonic()
    until = begin + 60 * arguments.minutes
    counts, wrong, points = collections.Counter(), [], []
    clients = [Client(arguments.port, seed, until, arguments.pause, counts, wrong) for seed in range(arguments.clients)]
    for client in clients:
        client.start()
    told = begin
    while time.monotonic() < until:
        time.sleep(min(5, 60 * arguments.minutes / 60))
        now, state = time.monotonic(), sample(server.pid)
        points.append((now - begin, *state))
        if now - told >= 120:
            told = now
            print(f"{(now - begin) / 60:.0f} min: {state[0]} kB, {state[1]} threads, {state[2]} files, "
                  f"{sum(counts.values())} requests, {len(wrong)} wrong", flush=True)
    for client in clients:
        client.join(120)
    time.sleep(12)
    after = sample(server.pid)
    behind = [point for point in points if point[0] >= 60 * arguments.minutes / 6]
    quarter = max(1, len(behind) // 4)
    first, last = (statistics.median(point[1] for point in part) for part in (behind[:quarter], behind[-quarter:]))
    rate = slope([(point[0], point[1]) for point in behind])
    grown = 100 * (last / first - 1)
    print(f"requests: {dict(counts)}")
    print(f"wrong: {len(wrong)} {wrong[:10]}")
    print(f"memory: {before[0]} kB at first, {first:.0f} kB behind the warm-up, {last:.0f} kB in the last quarter: "
          f"{grown:+.2f} %, {rate / 1024:+.2f} MB/h")
    print(f"threads: {before[1]}, at most {max(point[2] for point in points)}, {after[1]} at the end")
    print(f"files: {before[2]}, at most {max(point[3] for point in points)}, {after[2]} at the end")
    # A thread that does blocking work is kept for ten seconds.
    return not wrong and grown < 2 and rate < 1024 and after[1] <= before[1] and after[2] <= before[2]


if __name__ == "__main__":
    main()
