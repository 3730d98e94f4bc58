"""The scores of every stage of a run as CSV: python3 bench/eval_rows.py OUT > bench/results/first-light-eval.csv

OUT is the folder of a run that `minke eval` graded. Shares are in percent, lengths in tokens.
"""

import csv
import json
import pathlib
import sys


def percent(share):
    return "" if share is None else f"{100 * share:.1f}"


def number(value, digits=1):
    return "" if value is None else f"{value:.{digits}f}"


def mode(config):
    sampled = f"T = {config['temperature']:g}"
    return sampled + ("; thought forced" if config["force_thought"] else "")


def row(stage, report):
    search = report["search"] or {}
    gain = search.get("gain") or {}
    mean = lambda interval: None if interval is None else interval["mean"]
    return {
        "stage": stage,
        "task": report["task"],
        "side": report["side"],
        "mode": mode(report["config"]),
        "problems": report["problems"],
        "pass_at_1": percent(report["pass_at_1"]["mean"]),
        "pass_at_1_low": percent(report["pass_at_1"]["low"]),
        "pass_at_1_high": percent(report["pass_at_1"]["high"]),
        "blind": percent(search.get("blind")),
        "over_blind": percent(gain.get("mean")),
        "over_blind_low": percent(gain.get("low")),
        "over_blind_high": percent(gain.get("high")),
        "without_repeats": percent(search.get("without_repeats")),
        "constant": percent(report["constant"] and report["constant"][1]),
        "pass_at_16": percent(dict(report["pass_at_k"]).get(16)),
        "cons_at_16": percent(mean(report["cons_at_k"])),
        "greedy": percent(mean(report["greedy"])),
        "tokens": number(report["mean_tokens"]),
        "thought_right": number(report["thought_tokens_right"]),
        "thought_wrong": number(report["thought_tokens_wrong"]),
        "attempts": number(report["attempts"], 2),
        "blind_attempts": number(search.get("attempts_as_right"), 2),
        "repeats": percent(report["repeats"]),
        "format": percent(report["format_rate"]),
        "cut_off": percent(report["truncated"]),
        "false_claims": percent(report["false_claims"]),
    }


out = pathlib.Path(sys.argv[1])
stages = [stage["name"] for stage in json.loads((out / "run.json").read_text())["config"]["stage"]]
files = [(name, out / "stages" / name / "eval.json") for name in stages]
rows = [row(name, report) for name, file in files if file.exists() for report in json.loads(file.read_text())]
writer = csv.DictWriter(sys.stdout, rows[0])
writer.writeheader()
writer.writerows(rows)
