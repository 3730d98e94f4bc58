#!/usr/bin/env python3
"""What the planner says of this machine beside what this machine does.

    bench/plan_honesty.py --binary target/release/minke --training target/release/deps/training-... \
        --out bench/results/plan-honesty-2026-11-30.jsonl MODEL.gguf...

Each round measures the kernels (`minke doctor --part`), then asks `minke plan` and runs the real thing: `minke bench` for each model, and
the bench program of training (`cargo bench -p minke-model --bench training --no-run` says where it lies) for shapes S and M in f32
and bf16. Memory is the peak of the process. A row of the table has medians over rounds and the range of the rounds' ratios; the
raw rows are appended to the file. Nothing of what is measured here goes back into a prediction.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

# As in crates/model/benches/training.rs: hidden, layers, feed-forward, vocabulary, sequence; 4,096 tokens per step.
SHAPES = {"S": (256, 6, 768, 4096, 256), "M": (384, 8, 1024, 8192, 512)}
STEP_TOKENS = 4096


def ran(command):
    """Standard output of a command, and the peak of its resident memory in bytes."""
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"{' '.join(map(str, command))}: exit code {process.returncode}")
        out.seek(0)
        return out.read(), usage.ru_maxrss * 1024


def config(shape):
    hidden, layers, feed_forward, vocabulary, sequence = SHAPES[shape]
    return {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "rms_norm_eps": 1e-6,
        "hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": feed_forward, "vocab_size": vocabulary,
        "num_attention_heads": hidden // 64, "num_key_value_heads": hidden // 128, "head_dim": 64, "rope_theta": 10000.0,
        "max_position_embeddings": sequence, "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 1,
    }  # fmt: skip


def plan(binary, part, *arguments):
    text, _ = ran([binary, "plan", *arguments, "--part", "here", "--hardware", part, "--json"])
    return {fact["name"]: fact["value"] for fact in json.loads(text)["facts"]}


def of_model(args, part, model):
    said = plan(args.binary, part, "fit", model, "--context", str(args.prompt))
    text, peak = ran([args.binary, "bench", model, "--prompt", str(args.prompt), "--generate", str(args.generate), "--json"])
    speed, name = json.loads(text)[0], Path(model).stem
    yield f"{name}: prompt", "tokens/s", said["prompt, tokens/s"], speed["prefill_tps"]
    yield f"{name}: answer", "tokens/s", said["answer behind it, tokens/s"], speed["gen_tps"]
    yield f"{name}: memory", "MB", said["memory needed"] / 1e6, peak / 1e6


def of_training(args, part, folder, shape, precision):
    file = folder / f"{shape}.json"
    file.write_text(json.dumps(config(shape)))
    sequence = SHAPES[shape][4]
    batch = ["--count", "1", "--batch", str(STEP_TOKENS // sequence), "--sequence", str(sequence)]
    said = plan(args.binary, part, "train", str(file), *batch, "--precision", precision)
    text, peak = ran([args.training, shape, str(os.cpu_count()), "5", precision])
    yield f"{shape} {precision}: step", "s", said["seconds of a step"], json.loads(text)["step_s"]
    yield f"{shape} {precision}: memory", "MB", said["memory needed"] / 1e6, peak / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True, help="the program minke")
    parser.add_argument("--training", help="the bench program of training [default: no training]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=256, help="tokens of the prompt")
    parser.add_argument("--generate", type=int, default=32, help="tokens of the answer")
    parser.add_argument("--out", type=Path, help="file to append raw rows to")
    parser.add_argument("models", nargs="*")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        part = folder / "here.toml"
        for round_ in range(1, args.rounds + 1):
            def put(found):
                for what, unit, predicted, measured in found:
                    row = {"round": round_, "what": what, "unit": unit, "predicted": predicted, "measured": measured}
                    rows.append(row)
                    if args.out:
                        with args.out.open("a") as out:
                            out.write(json.dumps(row) + "\n")

            # Measured anew before each kind of work: on a machine that others share, its speed changes within minutes.
            for shape in SHAPES if args.training else ():
                for precision in ("f32", "bf16"):
                    part.write_text(ran([args.binary, "doctor", "--part", "here"])[0])
                    put(of_training(args, part, folder, shape, precision))
            for model in args.models:
                part.write_text(ran([args.binary, "doctor", "--part", "here"])[0])
                put(of_model(args, part, model))
        print(part.read_text(), file=sys.stderr)
    print(f"{'what':<50} {'predicted':>10} {'measured':>10} {'ratio':>6}  of the rounds")
    for what in dict.fromkeys(row["what"] for row in rows):
        of = [row for row in rows if row["what"] == what]
        predicted, measured = (statistics.median(row[key] for row in of) for key in ("predicted", "measured"))
        ratios = [row["predicted"] / row["measured"] for row in of]
        print(
            f"{what + ', ' + of[0]['unit']:<50} {predicted:>10.4g} {measured:>10.4g} {predicted / measured:>6.2f}  "
            f"{min(ratios):.2f} to {max(ratios):.2f}"
        )


if __name__ == "__main__":
    main()
