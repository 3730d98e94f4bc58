"""SVAMP as files of prompts for runs/svamp.toml: python3 runs/svamp.py SVAMP.json

Writes svamp-train.jsonl (the first 700 problems) and svamp-test.jsonl (the last 300) into the current folder.
"""

import json
import sys

ASK = "Think in one short sentence, write the calculation, and put the result in \\boxed{}."


def line(row):
    body = row["Body"].strip()
    text = f"{body}{'' if body.endswith('.') else '.'} {row['Question'].strip()}\n{ASK}"
    return json.dumps({"id": row["ID"], "prompt": text, "answer": f"{row['Answer']:.15g}"}) + "\n"


rows = [line(row) for row in json.load(open(sys.argv[1]))]
for name, part in (("train", rows[:700]), ("test", rows[700:])):
    with open(f"svamp-{name}.jsonl", "w") as file:
        file.writelines(part)
