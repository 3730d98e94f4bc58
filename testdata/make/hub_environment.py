"""Where huggingface_hub keeps models and token under some environments: vectors/hub_environment.json."""

import json
import os
import pathlib
import subprocess
import sys

ENVIRONMENTS = [
    {},
    {"HF_HOME": "/data/hf"},
    {"HF_HOME": "~/hf"},
    {"HF_HOME": "~"},
    {"HF_HOME": "$SCRATCH/hf", "SCRATCH": "/scratch"},
    {"HF_HOME": "${SCRATCH}/$NOTSET/hf", "SCRATCH": "/scratch"},
    {"XDG_CACHE_HOME": "/var/cache"},
    {"XDG_CACHE_HOME": "~/caches"},
    {"XDG_CACHE_HOME": "/var/cache", "HF_HOME": "/data/hf"},
    {"HUGGINGFACE_HUB_CACHE": "/models"},
    {"HF_HUB_CACHE": "/models"},
    {"HF_HUB_CACHE": "~/models/$USER_NAME", "USER_NAME": "ada"},
    {"HF_HUB_CACHE": "/models", "HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/data/hf", "XDG_CACHE_HOME": "/var/cache"},
    {"HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/data/hf"},
    {"HF_HUB_OFFLINE": "1"},
    {"HF_HUB_OFFLINE": "yes"},
    {"HF_HUB_OFFLINE": "True"},
    {"HF_HUB_OFFLINE": "on"},
    {"HF_HUB_OFFLINE": "0"},
    {"HF_HUB_OFFLINE": "offline"},
]
SAY = "import json, huggingface_hub.constants as c; print(json.dumps([c.HF_HUB_CACHE, c.HF_TOKEN_PATH, c.HF_HUB_OFFLINE]))"

cases = []
for environment in ENVIRONMENTS:
    environment = {"HOME": "/home/ada", **environment}
    kept = {name: os.environ[name] for name in ("PATH",) if name in os.environ}
    said = subprocess.run([sys.executable, "-c", SAY], env={**kept, **environment}, capture_output=True, check=True)
    cache, token, offline = json.loads(said.stdout)
    cases.append({"environment": environment, "cache": cache, "token": token, "offline": offline})
path = pathlib.Path(__file__).resolve().parent.parent / "vectors" / "hub_environment.json"
path.write_text(json.dumps(cases, indent=1) + "\n")
