"""Speed of a GGUF model on this machine: `minke bench` beside llama.cpp's `llama-batched-bench`, in turn on the same file.

    python bench/peers/speed.py build FOLDER
        llama.cpp from the source that the package llama-cpp-python carries, for this machine's processor
    python bench/peers/speed.py run ROWS.jsonl BINARY MODEL.gguf ... --peer 'NAME=PROGRAM [OPTIONS]' ...
            [--prompt 256] [--generate 48] [--batch 1] [--rounds 5] [--threads 2]
        a row for every round, program and batch: tokens per second of all prompts and of all that is written behind them, the
        share of its threads' time that the program had, and the memory that `minke doctor` reads per second just before
    python bench/peers/speed.py table ROWS.jsonl [--into PAGE.md] [--plot PLOT.svg]
        medians as a table, Minke's over the best peer's: printed, written into a page between its lines `<!-- speed -->`, or drawn

A peer is any program with the options and the table of llama-batched-bench; name one twice with other options to let its best
setting count. Both sides read prompts of random tokens; Minke samples what it writes (temperature 0.6, top-p 0.95), the peer does
not sample. The machine runs nothing else. Only the standard library; `build` needs pip and a C++ compiler.
"""

import argparse
import itertools
import json
import os
import pathlib
import re
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time

MARK = "<!-- speed -->\n"
ROW = re.compile(r"^\|\s*(\d+)\s*\|\s*(\d+)\s*\|\s*(\d+)\s*\|" + r"\s*([\d.]+)\s*\|" * 7, re.MULTILINE)


def build(folder):
    folder = pathlib.Path(folder)
    tools = folder / "tools"
    subprocess.run([sys.executable, "-m", "venv", tools], check=True)
    pip = [tools / "bin/pip", "--quiet"]
    subprocess.run([*pip, "install", "cmake", "ninja", "scikit-build-core"], check=True)
    subprocess.run([*pip, "download", "--no-deps", "--no-build-isolation", "--no-binary", ":all:", "--dest", folder, "llama-cpp-python"],
                   check=True)
    archive = max(folder.glob("llama_cpp_python-*.tar.gz"))
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    source = folder / archive.name.removesuffix(".tar.gz") / "vendor/llama.cpp"
    # For AMX: GCC 12's intrinsic says that it reads 8 of the 64 bytes of its settings, so that the others were not written.
    tiles = source / "ggml/src/ggml-cpu/amx/mmq.cpp"
    tiles.write_text(tiles.read_text().replace("_tile_loadconfig(", '__asm__ volatile("" ::: "memory"); _tile_loadconfig('))
    environment = {**os.environ, "PATH": f"{tools.resolve()}/bin:{os.environ['PATH']}"}
    switches = ["BUILD_SHARED_LIBS=OFF", "CMAKE_BUILD_TYPE=Release", "GGML_NATIVE=ON", "LLAMA_CURL=OFF", "LLAMA_BUILD_TESTS=OFF"]
    subprocess.run(["cmake", "-G", "Ninja", "-S", source, "-B", folder / "build", *(f"-D{switch}" for switch in switches)],
                   check=True, env=environment)
    subprocess.run(["ninja", "-C", folder / "build", "llama-batched-bench"], check=True, env=environment)
    print(folder / "build/bin/llama-batched-bench")


def timed(command, threads, folder=None):
    """Its output, and the share of so many threads' time that it had; `folder` is where it runs."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{shlex.join(map(str, command))}: {done.stderr[-2000:]}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout + done.stderr, used / wall / threads


def minke(binary, model, args):
    command = [binary, "bench", model, "--prompt", args.prompt, "--generate", args.generate, "--batch", args.batch, "--threads", args.threads]
    output, share = timed([*map(str, command), "--json"], args.threads)
    speeds = json.loads(output[output.index("["):output.rindex("]") + 1])
    return share, {speed["batch"]: (speed["prefill_tps"], speed["gen_tps"]) for speed in speeds}


def peer(command, model, args):
    batches = [int(batch) for batch in args.batch.split(",")]
    context = max(batches) * (args.prompt + args.generate + 32)
    sizes = ["-c", context, "-b", 2048, "-ub", 512, "-npp", args.prompt, "-ntg", args.generate, "-npl", args.batch]
    program, model = (str(pathlib.Path(path).resolve()) for path in (shutil.which(command[0]) or command[0], model))
    # Some write a log where they run.
    with tempfile.TemporaryDirectory() as folder:
        output, share = timed([program, *command[1:], "-m", model, "-t", str(args.threads), *map(str, sizes)], args.threads, folder)
    # Of a row: prompt, generated, batch, tokens; seconds and speed of prompts, of what is written, of all.
    rows = [[float(cell) for cell in row] for row in ROW.findall(output)]
    if len(rows) != len(batches):
        sys.exit(f"{shlex.join(command)} has {len(rows)} rows for {len(batches)} batches: {output[-2000:]}")
    return share, {int(row[2]): (row[5], row[7]) for row in rows}


def run(args):
    peers = [(name, shlex.split(command)) for name, command in (text.split("=", 1) for text in args.peer)]
    programs = [("Minke", lambda model: minke(args.binary, model, args)),
                *((name, lambda model, command=command: peer(command, model, args)) for name, command in peers)]
    with open(args.rows, "a") as rows:
        for turn in range(args.rounds):
            for model in args.models:
                for name, measure in programs:
                    doctor, _ = timed([args.binary, "doctor", "--json"], args.threads)
                    read = json.loads(doctor[doctor.index("{"):doctor.rindex("}") + 1])["memory"]["read_bytes_per_second"]
                    share, speeds = measure(model)
                    for batch, (prefill, generate) in speeds.items():
                        row = {"round": turn, "model": pathlib.Path(model).stem, "program": name, "prompt": args.prompt, "batch": batch,
                               "prefill_tps": round(prefill, 2), "generate_tps": round(generate, 2),
                               "processor_share": round(share, 3), "read_gb_per_s": round(read / 1e9, 2)}
                        print(json.dumps(row), file=rows, flush=True)
                    print(f"round {turn + 1}/{args.rounds} {pathlib.Path(model).stem} {name}: {speeds}", file=sys.stderr)


def medians(path):
    """The programs, and of every work (kind, model, prompt, batch) their medians; none where a program did not run."""
    rows = [json.loads(line) for line in open(path)]
    names = list(dict.fromkeys(row["program"] for row in rows))
    works = dict.fromkeys((row["model"], row["prompt"], row["batch"]) for row in rows)
    result = {}
    for kind in ("prefill", "generate"):
        for work in works:
            of = [[row[f"{kind}_tps"] for row in rows
                   if (row["model"], row["prompt"], row["batch"], row["program"]) == (*work, name)] for name in names]
            result[kind, *work] = [statistics.median(speeds) if speeds else None for speeds in of]
    return names, result


def label(kind, model, prompt, batch):
    sequences = "one sequence" if batch == 1 else f"{batch} sequences"
    return f"{model}: prompts of {prompt}, {sequences}" if kind == "prefill" else f"{model}: {sequences} behind {prompt}"


def table(args):
    names, works = medians(args.rows)
    lines = []
    for kind, title in (("prefill", "reading"), ("generate", "writing")):
        lines += [f"| {title}, tokens/s | {' | '.join(names)} | Minke / best |", "|---|" + "---:|" * (len(names) + 1)]
        for work, speeds in works.items():
            if work[0] == kind:
                cells = " | ".join("-" if speed is None else f"{speed:.1f}" for speed in speeds)
                best = max(speed for speed in speeds[1:] if speed is not None)
                lines.append(f"| {label(*work)} | {cells} | {speeds[0] / best:.2f} |")
        lines += ["", f"Rows: `{args.rows}`, medians by `python bench/peers/speed.py table {args.rows}`.", ""]
    print("\n".join(lines))
    if args.into:
        page = pathlib.Path(args.into)
        before, _, after = page.read_text().split(MARK)
        page.write_text(MARK.join([before, "\n" + "\n".join(lines), after]))
    if args.plot:
        pathlib.Path(args.plot).write_text(plot(names, works))


def plot(names, works):
    """Bars: each program's speed at each work, over the fastest one's, with its tokens per second."""
    colours, row, gap, left, full = ["#1f5fa8", "#c98a2b", "#8d8d8d", "#b9b9b9", "#d5d5d5"], 15, 26, 20, 560
    parts, y = [], 20
    for kind, title in (("prefill", "Reading prompts, tokens/s"), ("generate", "Writing, tokens/s")):
        parts.append(f'<text x="{left}" y="{y}" font-size="15" font-weight="600">{title}</text>')
        y += 24
        for work, speeds in works.items():
            if work[0] != kind:
                continue
            parts.append(f'<text x="{left}" y="{y}" fill="#444">{label(*work)}</text>')
            y += 6
            fastest = max(speed for speed in speeds if speed is not None)
            for name, colour, speed in zip(names, itertools.chain(colours, itertools.repeat(colours[-1])), speeds):
                if speed is None:
                    continue
                width = full * speed / fastest
                parts.append(f'<rect x="{left}" y="{y}" width="{width:.1f}" height="{row - 3}" fill="{colour}" rx="1.5"/>')
                parts.append(f'<text x="{left + width + 6:.1f}" y="{y + 10}" font-size="11">{speed:.1f} {name}</text>')
                y += row
            y += gap - 8
        y += 10
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + full + 170} {y}" font-family="sans-serif" font-size="12">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="#fff"/>', *parts, "</svg>\n"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("build")
    command.add_argument("folder")
    command.set_defaults(run=lambda args: build(args.folder))
    command = commands.add_parser("run")
    command.add_argument("rows")
    command.add_argument("binary")
    command.add_argument("models", nargs="+")
    command.add_argument("--peer", action="append", required=True)
    command.add_argument("--prompt", type=int, default=256)
    command.add_argument("--generate", type=int, default=48)
    command.add_argument("--batch", default="1")
    command.add_argument("--rounds", type=int, default=5)
    command.add_argument("--threads", type=int, default=2)
    command.set_defaults(run=run)
    command = commands.add_parser("table")
    command.add_argument("rows")
    command.add_argument("--into")
    command.add_argument("--plot")
    command.set_defaults(run=table)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
