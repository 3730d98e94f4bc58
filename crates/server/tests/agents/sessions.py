"""Ten turns of each coding agent, with calls of tools that it carries out; see run.sh."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import urllib.request

BINARY, SCRIPTED, FOLDER, *AGENTS = sys.argv[1:]
PORT = int(os.environ.get("MINKE_TEST_PORT", "18081"))

# What is done at each turn: write a file, read one, run a command.
STEPS = [
    ("write", "first.txt", "apples\n"),
    ("read", "first.txt"),
    ("run", "echo pears >> first.txt && wc -l first.txt"),
    ("write", "second.txt", "plums\nquinces\n"),
    ("read", "second.txt"),
    ("run", "cat first.txt second.txt > both.txt && sort -r both.txt"),
    ("read", "both.txt"),
    ("write", "third.txt", "cherries\n"),
    ("run", "ls && sha256sum third.txt"),
    ("run", "cat third.txt >> both.txt && tail -n 1 both.txt"),
]
FILES = {
    "first.txt": "apples\npears\n",
    "second.txt": "plums\nquinces\n",
    "third.txt": "cherries\n",
    "both.txt": "apples\npears\nplums\nquinces\ncherries\n",
}


def codex(work, step):
    match step:
        case "write", name, text:
            command = f"printf {json.dumps(text)} > {name}"
        case "read", name:
            command = f"cat {name}"
        case "run", command:
            pass
    return "exec_command", {"cmd": command}


def claude(work, step):
    match step:
        case "write", name, text:
            return "Write", {"file_path": f"{work}/{name}", "content": text}
        case "read", name:
            return "Read", {"file_path": f"{work}/{name}"}
        case "run", command:
            return "Bash", {"command": command, "description": "Runs it"}


def opencode(work, step):
    match step:
        case "write", name, text:
            return "write", {"filePath": f"{work}/{name}", "content": text}
        case "read", name:
            return "read", {"filePath": f"{work}/{name}"}
        case "run", command:
            return "bash", {"command": command, "description": "Runs it"}


# How an agent calls a tool, and its arguments for the first turn and for the others.
KINDS = {
    "codex": (
        codex,
        ["exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"],
        ["exec", "resume", "--last", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"],
    ),
    "opencode": (opencode, ["run"], ["run", "--continue"]),
    "claude": (
        claude,
        ["--print", "--allowedTools", "Bash,Read,Write", "--"],
        ["--print", "--continue", "--allowedTools", "Bash,Read,Write", "--"],
    ),
}


def lines(kind, work):
    """What the model says: a call and an answer for each step."""
    for number, step in enumerate(STEPS):
        name, arguments = kind(work, step)
        call = json.dumps({"name": name, "arguments": arguments})
        yield f"<think>Step {number} needs {name}.</think>\nI do step {number}.\n<tool_call>\n{call}\n</tool_call>"
        yield f"<think>It worked, number {number}.</think>\nStep {number} is done."


def serve(model, log):
    command = [BINARY, "serve", str(model), "--port", str(PORT), "--log", "json", "--disk-cache-bytes", "0"]
    server = subprocess.Popen(command, stderr=open(log, "w"))
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{PORT}/ready")
            return server
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the server does not start")


def session(name):
    kind, first, others = KINDS[name]
    place = pathlib.Path(FOLDER, "sessions", name)
    shutil.rmtree(place, ignore_errors=True)
    work = place / "work"
    work.mkdir(parents=True)
    (place / "lines.json").write_text(json.dumps(list(lines(kind, work))))
    model = subprocess.check_output([SCRIPTED, str(place), str(place / "lines.json")], text=True).strip()
    server = serve(model, place / "log")
    environment = os.environ | {"HOME": str(place), "PWD": str(work)}
    url = f"http://127.0.0.1:{os.environ.get('MINKE_TEST_AGENT_PORT', PORT)}"
    outputs = []
    try:
        for number in range(len(STEPS)):
            command = [BINARY, "launch", name, "--url", url, "--", *(others if number else first), f"Do step {number}."]
            done = subprocess.run(
                command, cwd=work, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600
            )
            outputs.append(f"--- {number}: {done.returncode}\n{done.stdout}\n{done.stderr}")
            (place / "output").write_text("\n".join(outputs))
            if done.returncode or f"Step {number} is done." not in done.stdout:
                raise SystemExit(f"{name}: turn {number} failed, see {place}/output")
    finally:
        server.terminate()
        server.wait()
    for file, text in FILES.items():
        if (work / file).read_text() != text:
            raise SystemExit(f"{name}: {file} is {(work / file).read_text()!r}")
    requests = [json.loads(line) for line in (place / "log").read_text().splitlines() if line.startswith("{")]
    asked = [request for request in requests if request["path"] != "/ready"]
    failed = [request for request in asked if request.get("error") or request.get("finish") in ("error", "cancelled")]
    if failed:
        raise SystemExit(f"{name}: requests that failed: {failed}")
    answers = [request for request in requests if "prompt_tokens" in request]
    # Beside the session an agent asks for titles and the like.
    largest = max(request["prompt_tokens"] for request in answers)
    main = [request for request in answers if request["prompt_tokens"] > largest / 2]
    print(f"{name}: {len(requests)} requests, {len(main)} of the session; prompt, cached, seconds to the first token:")
    before = 0
    for request in main:
        prompt, cached = request["prompt_tokens"], request["cached_tokens"]
        missed = "" if cached + 32 >= before else f"  {before - cached} computed again"
        print(f"  {prompt} {cached} {request['first_token_seconds']} {request['finish']}{missed}")
        before = prompt
    calls = sum(request["finish"] == "tool_calls" for request in main)
    if (calls, len(main)) != (len(STEPS), 2 * len(STEPS)):
        raise SystemExit(f"{name}: {calls} calls in {len(main)} answers")


for agent in AGENTS or KINDS:
    session(agent)
