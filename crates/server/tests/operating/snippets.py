"""Tries the snippets of docs/operating.md; see run.sh."""

import atexit
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import tomllib

import yaml

BINARY = sys.argv[1]
PAGE = pathlib.Path(__file__).parents[4] / "docs" / "operating.md"
FOLDER = pathlib.Path(tempfile.mkdtemp())
MODEL = PAGE.parents[1] / "models" / "first-light"
SNIPPETS = {}
for language, text in re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(), re.S):
    SNIPPETS.setdefault(language, []).append(text)
KEYS = FOLDER / "keys"
FIRST, SECOND = "first-key-123", "second-key-456"


def file(name, text):
    path = FOLDER / name
    path.write_text(text)
    return str(path)


def start(command, **settings):
    process = subprocess.Popen(command, **settings)
    atexit.register(process.kill)
    return process


def do(*command, **settings):
    done = subprocess.run(command, capture_output=True, text=True, **settings)
    if done.returncode or "warning" in done.stderr.lower():
        raise SystemExit(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def ask(port, method, path, key=None, body=None, tls=False, host="127.0.0.1"):
    """A connection whose request was sent, and the response."""
    if tls:
        # The name stands in the handshake, the address is the loopback.
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=context)
        connection.connect = lambda: connect_by_name(connection, host, context)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"host": host, "content-type": "application/json"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    connection.request(method, path, body=body and json.dumps(body), headers=headers)
    return connection.getresponse()


def connect_by_name(connection, host, context):
    http.client.HTTPConnection.connect(connection)
    connection.sock = context.wrap_socket(connection.sock, server_hostname=host)


def wait_for(port, path, process):
    for _ in range(300):
        if process.poll() is not None:
            raise SystemExit(f"{process.args} ended with {process.returncode}")
        try:
            if ask(port, "GET", path).status < 500:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"nothing at {port}{path}")


def streams(what, port, tls=False):
    """The pieces of an answer arrive one by one."""
    body = {"messages": [{"role": "user", "content": "5 8 2 = 11"}], "stream": True, "max_tokens": 400, "ignore_eos": True}
    begin = time.monotonic()
    response = ask(port, "POST", "/v1/chat/completions", FIRST, body, tls, "chat.example.org")
    if response.status != 200:
        raise SystemExit(f"{what}: {response.status} {response.read()}")
    times = []
    while piece := response.read1(65536):
        times.append(time.monotonic() - begin)
        last = piece
    if not last.endswith(b"data: [DONE]\n\n") or len(times) < 20 or times[0] > times[-1] / 2:
        raise SystemExit(f"{what}: {len(times)} pieces at {times[:3]} to {times[-1]}")
    print(f"{what}: {len(times)} pieces, the first after {times[0]:.3f} s, the last after {times[-1]:.3f} s")


settings, unit = SNIPPETS["toml"][0], SNIPPETS["ini"][0]
shown = do(BINARY, "config", "show", "--config", file("serve.toml", settings))
for name, value in tomllib.loads(settings).items():
    assert f"{name} = {json.dumps(value)}\n" in shown, (name, shown)
print("settings: obeyed")

do("systemd-analyze", "verify", "--man=no", file("minke.service", unit.replace("/usr/local/bin/minke", BINARY)))
print("unit: sound")

KEYS.write_text(FIRST + "\n")
command = [BINARY, "serve", str(MODEL), "--key-file", str(KEYS), "--allowed-host", "chat.example.org", "--log", "json"]
log = open(FOLDER / "log", "w")
server = start([*command, "--disk-cache-bytes", "0"], stderr=log)
wait_for(8080, "/ready", server)
streams("directly", 8080)

kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
places = "".join(f" {kind}_temp_path {FOLDER}/{kind};" for kind in kinds)
nginx = f"daemon off; pid {FOLDER}/nginx.pid; error_log stderr; events {{}}\nhttp {{ access_log off;{places}\n{SNIPPETS['nginx'][0]}}}\n"
nginx = ["nginx", "-p", str(FOLDER), "-c", file("nginx.conf", nginx), "-e", "stderr"]
subprocess.run([*nginx, "-t"], check=True)
proxy = start(nginx)
wait_for(8443, "/ready", proxy)
streams("nginx", 8443)
proxy.terminate()

caddyfile = file("Caddyfile", SNIPPETS["caddyfile"][0])
environment = os.environ | {"HOME": str(FOLDER), "XDG_DATA_HOME": str(FOLDER), "XDG_CONFIG_HOME": str(FOLDER)}
quiet = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": open(FOLDER / "caddy.log", "w")}
subprocess.run(["caddy", "validate", "--config", caddyfile, "--adapter", "caddyfile"], check=True, **quiet)
proxy = start(["caddy", "run", "--config", caddyfile, "--adapter", "caddyfile"], **quiet)
for attempt in range(100):
    try:
        streams("caddy", 8444, tls=True)
        break
    except OSError:
        if attempt == 99:
            raise
        time.sleep(0.2)
proxy.terminate()

folder = PAGE.parents[1] / "deploy" / "kubernetes" / "serve"
deployment, service = (yaml.safe_load((folder / f"{name}.yaml").read_text()) for name in ["deployment", "service"])
pod = deployment["spec"]["template"]
container = pod["spec"]["containers"][0]
assert deployment["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"] == service["spec"]["selector"]
arguments = container["args"]
arguments[arguments.index("/models/model.gguf")] = str(MODEL)
arguments[arguments.index("/keys/keys")] = str(KEYS)
# As Kubernetes sets it for the Service, were links not switched off.
environment = os.environ | {"MINKE_PORT": "tcp://10.43.0.1:80", "XDG_CACHE_HOME": str(FOLDER / "cache")}
environment |= {variable["name"]: variable["value"] for variable in container["env"] if variable["name"] == "MINKE_GRACE_SECONDS"}
started = start([BINARY, *arguments, "--port", "8090"], stderr=log, env=environment)
wait_for(8090, "/ready", started)
for probe in ["startupProbe", "readinessProbe", "livenessProbe"]:
    assert ask(8090, "GET", container[probe]["httpGet"]["path"]).status == 200
body = {"messages": [{"role": "user", "content": "5 8 2 = 11"}], "stream": True, "ignore_eos": True, "max_tokens": 400}
under_way = ask(8090, "POST", "/v1/chat/completions", FIRST, body)
started.terminate()
assert under_way.read().endswith(b"data: [DONE]\n\n")
assert started.wait(10) == 0
print("kubernetes: labels agree, the arguments start a server, probes answer, SIGTERM lets an answer end")

kubernetes = re.findall(r"```yaml\n(.*?)```", (PAGE.parent / "kubernetes.md").read_text(), re.S)
for snippet in [SNIPPETS["yaml"][0], *kubernetes]:
    do("promtool", "check", "config", "--syntax-only", file("prometheus.yml", snippet))
assert ask(8080, "GET", "/metrics").status == 401
metrics = ask(8080, "GET", "/metrics", FIRST).read().decode()
do("promtool", "check", "metrics", input=metrics)
for name in re.findall(r"minke_[a-z_]+", PAGE.read_text()):
    assert name in metrics, name
print("prometheus: promtool finds nothing wrong")

KEYS.write_text(SECOND + "\n")
assert ask(8080, "GET", "/v1/models", SECOND).status == 401
server.send_signal(signal.SIGHUP)
time.sleep(0.5)
assert ask(8080, "GET", "/v1/models", SECOND).status == 200
assert ask(8080, "GET", "/v1/models", FIRST).status == 401
body = {"messages": [{"role": "user", "content": "5"}], "stream": True, "ignore_eos": True, "max_tokens": 100000}
under_way = ask(8080, "POST", "/v1/chat/completions", SECOND, body)
begin = time.monotonic()
server.terminate()
assert server.wait(10) == 0
under_way.read()
print(f"signals: keys are read again, SIGTERM ends it after {time.monotonic() - begin:.1f} s with 0")
fields = set(re.findall(r"`(\w+)`", PAGE.read_text().split("| Field |")[1].split("No line")[0]))
for line in (FOLDER / "log").read_text().splitlines():
    if line.startswith("{"):
        assert set(json.loads(line)) <= fields, line
print("log: every field stands on the page")

# What the container has: the program, its libraries, a user without rights.
root = FOLDER / "root"
for library in re.findall(r"(/\S+) \(0x", do("ldd", BINARY)):
    target = root / library.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(library, target)
shutil.copy(BINARY, root / "minke")
shutil.copytree(MODEL, root / "model")
home = root / "home"
home.mkdir()
os.chmod(FOLDER, 0o755)
os.chown(home, 65534, 65534)
inside = ["chroot", "--userspec=65534:65534", str(root), "/minke", "serve", "/model", "--port", "8091", "--threads", "1"]
server = start(inside, env=os.environ | {"HOME": "/home"}, stderr=log)
wait_for(8091, "/ready", server)
server.terminate()
assert server.wait(10) == 0
print("container: the program runs in a root folder that has nothing else")
shutil.rmtree(FOLDER)
