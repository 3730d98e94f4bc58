"""Training steps of Minke and PyTorch in turn: medians over rounds, so that a slow minute of the machine falls on all of them.

    cargo bench -p minke-model --bench training --no-run      # prints the program
    python bench/peers/training_rounds.py PROGRAM OUT.jsonl [S|M|R] [rounds] [steps] [compile]

Appends every run's line to OUT.jsonl, with the round, and prints the medians and the ratio to PyTorch's best mode. With two
threads. A run that did not get 0.9 of its share of the processor is marked, and the median leaves it out if others are left.
"""

import json
import os
import statistics
import subprocess
import sys


def main():
    program, out, shape = sys.argv[1:4]
    rounds, steps = (int(sys.argv[i]) if len(sys.argv) > i else d for i, d in ((4, 3), (5, 5)))
    peer = [sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "training.py"), shape, "2", str(steps)]
    runs = {
        "minke f32": [program, shape, "2", str(steps)],
        "torch f32": peer + ["f32"],
        "minke bf16": [program, shape, "2", str(steps), "bf16"],
        "torch bf16": peer + ["bf16"],
    }
    if "compile" in sys.argv[6:]:
        runs["torch f32 compiled"] = peer + ["f32", "compile"]
        runs["torch bf16 compiled"] = peer + ["bf16", "compile"]
    found = {name: [] for name in runs}
    for number in range(rounds):
        for name, command in runs.items():
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                print(f"{name}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
                continue
            line = {"round": number + 1, "run": name, **json.loads(done.stdout.strip().splitlines()[-1])}
            found[name].append(line)
            with open(out, "a") as file:
                file.write(json.dumps(line) + "\n")
    speed = {}
    for name, lines in found.items():
        fair = [line for line in lines if line["cpu_share"] >= 0.9] or lines
        if fair:
            speed[name] = statistics.median(line["tokens_per_s"] for line in fair)
            memory = max(line["peak_rss_mb"] for line in lines)
            print(f"{shape} {name}: {speed[name]:.0f} tokens/s ({len(fair)} of {len(lines)} runs), {memory} MB")
    best = max((value for name, value in speed.items() if name.startswith("torch")), default=None)
    if best:
        print(f"minke bf16 / PyTorch's best {speed['minke bf16'] / best:.2f}, "
              f"f32 / PyTorch's f32 {speed['minke f32'] / speed['torch f32']:.2f}")


if __name__ == "__main__":
    main()
