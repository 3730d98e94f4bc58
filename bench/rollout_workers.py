"""GRPO with rollouts from two workers on two hosts, one of which is killed on the way, beside the same run in one process.

    sudo python bench/rollout_workers.py target/release/minke OUT [--seeds 6] [--steps 120] [--kill 40]

The hosts are network namespaces (`ip netns`), each with nothing but its loopback and a link to the trainer of 1 Gbit/s (`tc`, a token
bucket on both ends). Versions of the policy go over the link too: the trainer's side serves the folder of its stage over HTTP, and
beside each worker a loop copies what is new into a folder of its own, which the worker watches. The run is `runs/tiny.toml`, with more steps.

Writes OUT/curves.jsonl (a line per run and step) and OUT/throughput.json, and prints the comparison. Needs root, iproute2, and only
the standard library of Python.
"""

import argparse
import contextlib
import functools
import http.server
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

KEY = "key-of-the-workers"
RATE = "1gbit"
FILES, SERVES = 8900, 8080
# Two-sided 95 % of Student's distribution, by degrees of freedom.
STUDENT = [0, 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13]


def ip(*words):
    subprocess.run(["ip", *words], check=True)


class Host:
    """A namespace with a link to this one."""

    def __init__(self, number):
        self.name, self.link = f"minke-w{number}", f"minke-l{number}"
        self.ours, self.its = f"10.77.{number}.1", f"10.77.{number}.2"
        self.remove()
        ip("netns", "add", self.name)
        ip("link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        ip("addr", "add", f"{self.ours}/24", "dev", self.link)
        ip("link", "set", self.link, "up")
        for words in (["addr", "add", f"{self.its}/24", "dev", "eth0"], ["link", "set", "eth0", "up"], ["link", "set", "lo", "up"]):
            ip("-n", self.name, *words)
        shape = ["root", "tbf", "rate", RATE, "burst", "256kb", "latency", "50ms"]
        subprocess.run(["tc", "qdisc", "add", "dev", self.link, *shape], check=True)
        subprocess.run(self.inside("tc", "qdisc", "add", "dev", "eth0", *shape), check=True)

    def inside(self, *command):
        return ["ip", "netns", "exec", self.name, *command]

    def remove(self):
        quiet = {"stderr": subprocess.DEVNULL, "check": False}
        subprocess.run(["ip", "link", "del", self.link], **quiet)
        subprocess.run(["ip", "netns", "del", self.name], **quiet)


class Worker:
    """A server on a host, and the loop beside it that copies the policy to it."""

    def __init__(self, minke, host, at):
        at.mkdir(parents=True)
        (at / "keys").write_text(KEY + "\n")
        self.host, self.at, self.log = host, at, open(at / "log", "wb")
        source = f"http://{host.ours}:{FILES}/"
        mirror = host.inside(sys.executable, __file__, "--mirror", source, str(at / "policy"))
        serve = host.inside(minke, "serve", "--watch", "policy", "--host", host.its, "--port", str(SERVES), "--threads", "1", "--key-file", "keys")
        self.processes = [subprocess.Popen(command, cwd=at, stderr=self.log, stdout=self.log) for command in (mirror, serve)]
        self.url = f"http://{host.its}:{SERVES}"

    def kill(self):
        for process in self.processes:
            process.kill()
            process.wait()


def mirror(source, folder):
    """Copies every new version from a server of files: the files first, the name of the version last."""
    folder.mkdir(parents=True, exist_ok=True)
    have = None
    while True:
        with contextlib.suppress(urllib.error.URLError, OSError, ValueError):
            text = urllib.request.urlopen(source + "policy.json", timeout=10).read()
            policy = json.loads(text)
            version = policy["version"]
            if version != have:
                begun, size = time.time(), 0
                new = folder / f".{version}.tmp"
                new.mkdir(exist_ok=True)
                for name in policy["files"]:
                    content = urllib.request.urlopen(f"{source}{version}/{name}", timeout=60).read()
                    (new / name).write_bytes(content)
                    size += len(content)
                shutil.rmtree(folder / version, ignore_errors=True)
                new.rename(folder / version)
                (folder / ".policy.tmp").write_bytes(text)
                (folder / ".policy.tmp").rename(folder / "policy.json")
                for old in folder.iterdir():
                    if old.is_dir() and old.name not in (version, have):
                        shutil.rmtree(old, ignore_errors=True)
                print(f"copied {version} {size} {time.time() - begun:.4f}", flush=True)
                have = version
        time.sleep(0.05)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def files(folder):
    """The trainer's folder over HTTP."""
    folder.mkdir(parents=True, exist_ok=True)
    server = http.server.ThreadingHTTPServer(("0.0.0.0", FILES), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def train(minke, out, toml, kill=None):
    """Does a run; calls `kill[1]` when `kill[0]` steps are done. Returns seconds, metrics and timings."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "run.toml").write_text(toml)
    stage, begun = out / "made/stages/zero", time.time()
    command = [minke, "train", "run.toml", "--out", "made", "--threads", "2"]
    with open(out / "log", "wb") as log:
        process = subprocess.Popen(command, cwd=out, stderr=log, env={**os.environ, "WORKERS_KEY": KEY})
        while process.poll() is None:
            if kill and len(lines(stage / "metrics.jsonl")) >= kill[0]:
                kill[1]()
                kill = None
            time.sleep(0.02)
    if process.returncode:
        sys.exit(f"{' '.join(command)} in {out} ended with {process.returncode}: {(out / 'log').read_text()[-400:]}")
    return time.time() - begun, lines(stage / "metrics.jsonl"), lines(stage / "timings.jsonl")


def interval(values):
    half = STUDENT[min(len(values) - 1, len(STUDENT) - 1)] * statistics.stdev(values) / len(values) ** 0.5
    return statistics.mean(values), half


def last(metrics, name, count):
    return statistics.mean(line[name] for line in metrics[-count:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minke", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--kill", type=int, default=40, help="steps behind which a worker is killed")
    options = parser.parse_args()
    minke, out = str(options.minke.resolve()), options.out.resolve()
    out.mkdir(parents=True)
    tiny = (pathlib.Path(__file__).parent.parent / "runs/tiny.toml").read_text()
    tiny = re.sub(r"(kind = \"grpo\".*?steps = )\d+", rf"\g<1>{options.steps}", tiny, flags=re.S)
    hosts = [Host(1), Host(2)]
    try:
        curves(minke, out, tiny, hosts, options)
        throughput(minke, out, hosts)
    finally:
        for host in hosts:
            host.remove()


def with_workers(toml, workers, more=""):
    urls = json.dumps([worker.url for worker in workers])
    return f'{toml}\n[stage.workers]\nurls = {urls}\nkey_env = "WORKERS_KEY"\n{more}'


def curves(minke, out, tiny, hosts, options):
    scores, ends = {"one process": [], "two workers": []}, {"one process": [], "two workers": []}
    staleness, ratios, lost, copies = [], [], [], []
    with open(out / "curves.jsonl", "w") as log:
        for seed in range(1, options.seeds + 1):
            toml = re.sub(r"^seed = \d+", f"seed = {seed}", tiny, count=1, flags=re.M)
            alone = train(minke, out / f"seed-{seed}/alone", toml)
            place = out / f"seed-{seed}/workers"
            with files(place / "made/stages/zero/policy"):
                workers = [Worker(minke, host, place / host.name) for host in hosts]
                try:
                    together = train(minke, place, with_workers(toml, workers), (options.kill, workers[0].kill))
                finally:
                    for worker in workers:
                        worker.kill()
            for kind, (seconds, metrics, timings) in (("one process", alone), ("two workers", together)):
                for line, time_of in zip(metrics, timings):
                    log.write(json.dumps({"run": kind, "seed": seed, "run_s": seconds, **line, "timings": time_of}) + "\n")
                scores[kind].append([line["reward"] for line in metrics])
                ends[kind].append(last(metrics, "reward", 20))
            metrics, timings = together[1:]
            staleness += [line["sampling/staleness/mean"] for line in metrics]
            ratios += [(line["sampling/importance_sampling_ratio/mean"], line["sampling/importance_sampling_ratio/max"]) for line in metrics]
            lost.append(sum(line["sampling/lost_requests"] for line in timings))
            text = (place / hosts[1].name / "log").read_text()
            copies += [(int(size), float(seconds)) for size, seconds in re.findall(r"copied \S+ (\d+) (\S+)", text)]
            shares = [sum(line[f"sampling/worker_{i}/rollouts"] for line in timings) for i in (0, 1)]
            print(f"seed {seed}: {alone[0]:.1f} s alone, {together[0]:.1f} s with workers; rollouts {shares}, {lost[-1]} requests lost")
    inside = 0
    for step in range(options.steps):
        mean, half = interval([curve[step] for curve in scores["one process"]])
        inside += abs(statistics.mean(curve[step] for curve in scores["two workers"]) - mean) <= half
    for kind, values in ends.items():
        print(f"reward in the last twenty steps, {kind}: {interval(values)[0]:.3f} +- {interval(values)[1]:.3f}")
    mean, half = interval([b - a for a, b in zip(*ends.values())])
    print(f"difference by seed: {mean:+.3f} +- {half:.3f}; the mean curve lies within the interval of one process in {inside} of {options.steps} steps")
    print(f"staleness: mean {statistics.mean(staleness):.2f}; ratio: mean {statistics.mean(r[0] for r in ratios):.4f}, max {max(r[1] for r in ratios):.2f}")
    print(f"a version: {copies[-1][0]} bytes, copied in {statistics.median(c[1] for c in copies) * 1000:.1f} ms (median); requests lost: {lost}")


def throughput(minke, out, hosts):
    """Tokens per second of rollouts of `models/first-light` while nothing else computes: no step is asked for in advance."""
    model = pathlib.Path(__file__).resolve().parent.parent / "models/first-light"
    toml = (
        'name = "speed"\nseed = 1\n[[task]]\nname = "countdown"\nfamily = "countdown"\n[[stage]]\nkind = "grpo"\nname = "zero"\n'
        f'from = "{model}"\nsteps = 3\nquestions_per_step = 32\ngroup_size = 8\nmax_tokens = [[0, 200]]\nlearning_rate = {{ adamw = 1e-5 }}\n'
    )
    found = {}
    for count in (1, 2, 1, 2):
        place = out / f"throughput-{count}-{len(found.get(count, []))}"
        with files(place / "made/stages/zero/policy"):
            workers = [Worker(minke, host, place / host.name) for host in hosts[:count]]
            try:
                _, _, timings = train(minke, place, with_workers(toml, workers, "max_staleness = 0\nrequests = 64\n"))
            finally:
                for worker in workers:
                    worker.kill()
        rates = [line["rollout_tokens_per_second"] for line in timings[1:]]
        found.setdefault(count, []).append(statistics.median(rates))
    (out / "throughput.json").write_text(json.dumps(found) + "\n")
    for count, rates in found.items():
        print(f"{count} worker{'s' * (count > 1)} of one thread: {' and '.join(f'{rate:.0f}' for rate in rates)} tokens/s of rollouts")
    print(f"two over one: {statistics.mean(found[2]) / statistics.mean(found[1]):.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--mirror"]:
        mirror(sys.argv[2], pathlib.Path(sys.argv[3]))
    else:
        main()
