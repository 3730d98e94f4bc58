#!/usr/bin/env bash
# Runs the official clients against a server that this script starts, in a network that has nothing but the loopback.
#
# run.sh BINARY MODEL FOLDER: the program, a model that the example scripted_model made, and a folder for what is installed
# (kept between runs).
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
binary="$(realpath "$1")" model="$(realpath "$2")" folder="$3"
mkdir -p "$folder"
folder="$(realpath "$folder")"
if ! cmp -s "$here/requirements.txt" "$folder/requirements.txt"; then
    python3 -m venv "$folder/python"
    "$folder/python/bin/pip" install --quiet --requirement "$here/requirements.txt"
    cp "$here/requirements.txt" "$folder/requirements.txt"
fi
[ -d "$here/node_modules" ] || npm ci --silent --prefix "$here"

# Nothing that the clients would like to reach is there: prices, telemetry, updates.
inside() {
    ip link set lo up
    export HOME="$folder/home" DO_NOT_TRACK=1 LITELLM_LOCAL_MODEL_COST_MAP=True LITELLM_TELEMETRY=False NO_PROXY='*'
    mkdir -p "$HOME"
    "$binary" serve "$model" --port 18080 2>"$folder/server.log" &
    server=$!
    trap 'kill $server 2>/dev/null || true' EXIT
    for _ in $(seq 100); do
        python3 -c 'import urllib.request as r; r.urlopen("http://127.0.0.1:18080/health")' 2>/dev/null && break
        sleep 0.1
    done
    "$folder/python/bin/python" "$here/official.py" http://127.0.0.1:18080 "$(basename "$model")"
    node "$here/official.mjs" http://127.0.0.1:18080 "$(basename "$model")"
    kill $server
    wait $server
    echo "the clients are served"
}
export -f inside
export binary model folder here
env -i PATH="$PATH" LANG=C.UTF-8 binary="$binary" model="$model" folder="$folder" here="$here" \
    unshare --map-root-user --net bash -euo pipefail -c "$(declare -f inside); inside"
