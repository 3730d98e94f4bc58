"""GRPO steps of Minke and of TRL on the same model, adapter and questions: answers per second, rollouts and update included.

    minke convert MODEL.gguf FOLDER
    python bench/peers/grpo.py MINKE MODEL.gguf FOLDER svamp.json OUT.jsonl [--steps 2] [--rounds 1] [--tokens 200]

Both draw 8 answers to each of 4 questions of SVAMP at temperature 1, reward those whose last boxed number is right, and
update a LoRA pair of rank 16 beside all projections, without a reference. Minke trains beside the file's codes in bf16; TRL beside
the same weights as bf16 or f32 in FOLDER. With two threads. Needs torch, transformers, peft, trl and datasets.
"""

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time

QUESTIONS, ANSWERS, RANK = 4, 8, 16
ASK = "Please reason step by step, and put your final answer within \\boxed{}."
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def minke(options, folder):
    """Seconds of each step but the first, which reads the model."""
    run = os.path.join(folder, "run.toml")
    with open(run, "w") as file:
        file.write(f'''
name = "grpo"
precision = "bf16"
[[task]]
name = "svamp"
family = "file"
format = "svamp"
path = {json.dumps(os.path.abspath(options.data))}
[[stage]]
kind = "grpo"
name = "zero"
from = {json.dumps(os.path.abspath(options.model))}
lora = {{ rank = {RANK}, alpha = {2.0 * RANK} }}
steps = {options.steps + 1}
questions_per_step = {QUESTIONS}
group_size = {ANSWERS}
max_tokens = [[0, {options.tokens}]]
learning_rate = {{ adamw = 1e-5 }}
kl_beta = 0.0
rewards = {{ accuracy = 1.0, format = 0.0 }}
engine = {{ max_sequences = {QUESTIONS * ANSWERS}, cache_tokens = 32768, chunk_tokens = 512 }}
micro_batch_tokens = 2048
''')
    out = os.path.join(folder, "out")
    subprocess.run([options.minke, "train", run, "--out", out, "--threads", "2"], check=True, capture_output=True)
    lines = [json.loads(line) for line in open(os.path.join(out, "stages/zero/timings.jsonl"))][1:]
    metrics = [json.loads(line) for line in open(os.path.join(out, "stages/zero/metrics.jsonl"))][1:]
    return [{"seconds": time["step_time"], "tokens": line["num_tokens"]} for time, line in zip(lines, metrics)]


def trl(options, precision):
    """The same of TRL, in a process of its own."""
    command = [sys.executable, os.path.abspath(__file__), *sys.argv[1:], "--trl", precision]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def trl_steps(options, precision):
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(2)
    rows = json.load(open(options.data))
    prompt = lambda row: f"{row['Body'].strip()}{'' if row['Body'].strip().endswith('.') else '.'} {row['Question']}\n{ASK}"
    data = Dataset.from_list([{"prompt": [{"role": "user", "content": prompt(row)}], "gold": row["Answer"]} for row in rows])

    def reward(completions, gold, **_):
        found = [re.findall(r"\\boxed\{\$?([-\d.,]+)", completion[0]["content"]) for completion in completions]
        right = lambda text, want: abs(float(text.replace(",", "").rstrip(".") or "nan") - want) < 1e-6
        return [float(bool(f) and right(f[-1], want)) for f, want in zip(found, gold)]

    steps, lengths = [], []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_, **__):
            self.start = time.time()

        def on_step_end(self, *_, **__):
            steps.append(time.time() - self.start)

        def on_log(self, args, state, control, logs=None, **_):
            if logs and "completions/mean_length" in logs:
                lengths.append(logs["completions/mean_length"] * QUESTIONS * ANSWERS)

    settings = GRPOConfig(
        output_dir=os.path.join(tempfile.gettempdir(), "trl"), use_cpu=True, bf16=precision == "bf16",
        per_device_train_batch_size=ANSWERS, gradient_accumulation_steps=QUESTIONS, num_generations=ANSWERS,
        max_completion_length=options.tokens, temperature=1.0, beta=0.0, learning_rate=1e-5, max_steps=options.steps,
        logging_steps=1, save_strategy="no", report_to=[], gradient_checkpointing=False,
        model_init_kwargs={"dtype": "bfloat16" if precision == "bf16" else "float32"},
    )
    trainer = GRPOTrainer(
        model=options.folder, reward_funcs=reward, args=settings, train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(options.folder, padding_side="left"),
        peft_config=LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=PROJECTIONS), callbacks=[Clock()],
    )
    trainer.train()
    print(json.dumps([{"seconds": seconds, "tokens": tokens} for seconds, tokens in zip(steps, lengths)]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("minke", "model", "folder", "data", "out"):
        parser.add_argument(name)
    for name, default in (("--steps", 2), ("--rounds", 1), ("--tokens", 200)):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--trl", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.trl:
        return trl_steps(options, options.trl)
    rates = {}
    for number in range(options.rounds):
        runs = {"trl bf16": lambda _: trl(options, "bf16"), "trl f32": lambda _: trl(options, "f32"),
                "minke bf16": lambda folder: minke(options, folder)}
        for name, run in runs.items():
            with tempfile.TemporaryDirectory() as folder:
                before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
                steps = run(folder)
                after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.time() - start
            share = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / wall / 2
            with open(options.out, "a") as file:
                for step in steps:
                    row = {"round": number + 1, "run": name, **step, "answers": QUESTIONS * ANSWERS, "cpu_share": round(share, 2)}
                    file.write(json.dumps(row) + "\n")
            rates.setdefault(name, []).extend(QUESTIONS * ANSWERS / step["seconds"] for step in steps)
            print(f"{name}: {statistics.median(rates[name]):.2f} answers/s", flush=True)
    best = max(statistics.median(values) for name, values in rates.items() if name.startswith("trl"))
    print(f"minke / TRL's best: {statistics.median(rates['minke bf16']) / best:.1f}")


if __name__ == "__main__":
    main()
