"""Ranks that are processes: the same run by one process and by several, with mpirun.

Usage: check.py MINKE RUN.toml FOLDER, with mpirun in PATH and the plugin in MINKE_MPI. Ends with 0 if

* losses and gradient norms of the first STEPS steps are those of one process within BOUND in every layout, the losses of all steps
  within LATER (rounding moves a token to another expert sooner or later), and the same layout gives the same bits twice;
* a run that four ranks began is gone on with by two and ended by one;
* a rank that is killed ends the job within SECONDS and is named, 20 times, and the run then ends with the bits of an undisturbed one.
"""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

STEPS, BOUND = 10, 1e-5  # of losses and gradient norms, as a share of them
LATER = 1e-2  # of losses
SECONDS = 5.0
KILLS = 20
NUMBERS = ["loss", "next", "mtp", "balance", "grad_norm"]
# Number of ranks, and how they share the model.
EXPERTS = ["--expert-parallel", "2"]
STAGES = ["--pipeline-parallel", "2"]
LAYOUTS = [
    (2, []),
    (4, []),
    (2, EXPERTS),
    (4, ["--expert-parallel", "4"]),
    (4, EXPERTS),
    (2, STAGES),
    (4, ["--pipeline-parallel", "4"]),
    (4, STAGES),
    (4, EXPERTS + STAGES),
]

minke, toml, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
os.environ.update(
    OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", PRTE_MCA_rmaps_default_mapping_policy=":oversubscribe"
)


def command(ranks, out, flags=()):
    one = [minke, "train", toml, "--out", str(out), "--threads", "1", *flags]
    return one if ranks == 1 else ["mpirun", "-n", str(ranks), "--bind-to", "none", *one]


def finish(ranks, out, flags=()):
    began = time.monotonic()
    done = subprocess.run(command(ranks, out, flags), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{ranks} ranks {flags}: exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    return time.monotonic() - began


def lines(out, stage):
    try:
        return [json.loads(line) for line in (out / "stages" / stage / "metrics.jsonl").read_text().splitlines()]
    except (FileNotFoundError, json.JSONDecodeError):
        return []


def compare(out, other):
    """The largest difference of two runs, as a share: of any number in the first steps, and of any loss."""
    first = later = 0.0
    for stage in ["base", "cold-start"]:
        ours, theirs = lines(out, stage), lines(other, stage)
        assert len(ours) == len(theirs) > 0, f"{out}: {len(ours)} steps of {stage}, {other}: {len(theirs)}"
        for a, b in zip(ours, theirs):
            assert a["num_tokens"] == b["num_tokens"]
            far = {name: abs(a[name] / b[name] - 1) for name in NUMBERS if name in a}
            later = max(later, far["loss"])
            if stage == "base" and a["step"] < STEPS:
                first = max([first, *far.values()])
    text = f"from one process {first:.1e} in {STEPS} steps, losses {later:.1e} in all"
    assert first < BOUND and later < LATER, text
    return text


def hashes(out):
    """Every file that the seed determines."""
    of_machine = {"timings.jsonl", "state.json", "SHA256SUMS", "run.json", ".lock"}
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and path.name not in of_machine]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def pid_of(rank, out):
    """The process of a rank of a run."""
    for process in Path("/proc").iterdir():
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            is_ours = words[0] == minke.encode() and str(out).encode() in words
            if is_ours and f"OMPI_COMM_WORLD_RANK={rank}".encode() in (process / "environ").read_bytes().split(b"\0"):
                return int(process.name)
        except (OSError, IndexError):
            continue
    return None


def steps(out):
    return len(lines(out, "base")) + len(lines(out, "cold-start"))


def kill(ranks, victim, out, at, flags=()):
    """Starts a run, kills a rank when so many steps are done, and returns how long the job lived on."""
    job = subprocess.Popen(
        command(ranks, out, flags), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while steps(out) < at:
        if job.poll() is not None:
            sys.exit(f"the run ended before step {at}:\n{job.stdout.read()}")
        time.sleep(0.002)
    os.kill(pid_of(victim, out), signal.SIGKILL)
    began = time.monotonic()
    text, _ = job.communicate(timeout=60)
    seconds = time.monotonic() - began
    assert job.returncode != 0, "a job that lost a rank ended well"
    named = re.search(rf"rank {victim}\b", text)
    assert named, f"rank {victim} is not named:\n{text}"
    assert seconds < SECONDS, f"the job lived on for {seconds:.1f} s"
    assert all(pid_of(rank, out) is None for rank in range(ranks)), "a rank is left over"
    return seconds


shutil.rmtree(folder, ignore_errors=True)
folder.mkdir(parents=True)
alone = folder / "alone"
print(f"one process: {finish(1, alone):.1f} s", flush=True)
for ranks, flags in LAYOUTS:
    name = "-".join([str(ranks), *flags]).replace("--", "")
    out, again = folder / name, folder / f"{name}-again"
    seconds = finish(ranks, out, flags)
    finish(ranks, again, flags)
    same = hashes(out) == hashes(again)
    print(f"mpirun -n {ranks} {' '.join(flags)}: {seconds:.1f} s, {compare(out, alone)}, same bits twice: {same}", flush=True)
    assert same

mixed = folder / "mixed"
draw = random.Random(7)
kill(4, 3, mixed, 12, EXPERTS + STAGES)
kill(2, 1, mixed, 33)
finish(1, mixed)
print(f"4 ranks with experts over 2 and 2 stages, then 2, then 1: {compare(mixed, alone)}", flush=True)

for ranks, flags in [(2, []), (4, EXPERTS + STAGES)]:
    name = "-".join([str(ranks), *flags]).replace("--", "")
    killed = folder / f"killed-{name}"
    times = []
    total = steps(alone)
    for i in range(KILLS // 2):
        # Later and later, behind what the last checkpoint gives back.
        at = max(steps(killed) - 5, 0) + 6 + draw.randrange(total // KILLS)
        at = min(at, total - 1)
        times.append(kill(ranks, draw.randrange(ranks), killed, at, flags))
    finish(ranks, killed, flags)
    same = hashes(killed) == hashes(folder / name)
    print(f"{len(times)} kills of one rank of mpirun -n {' '.join([str(ranks), *flags])}: the others ended within {max(times):.2f} s; same bits as undisturbed: {same}", flush=True)
    assert same
