#!/usr/bin/env bash
# Runs ten turns of Codex, opencode and Claude Code against servers that this script starts, in a network that has nothing but the
# loopback. The model follows a script; server, templates, parsers, cache and agents are real.
#
# run.sh BINARY SCRIPTED_MODEL FOLDER [AGENT...]: the program, the built example scripted_model, and a folder outside /tmp for what is
# installed (kept between runs).
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
binary="$(realpath "$1")" scripted="$(realpath "$2")" folder="$3"
shift 3
mkdir -p "$folder"
folder="$(realpath "$folder")"
if ! cmp -s "$here/package.json" "$folder/package.json"; then
    cp "$here/package.json" "$folder/package.json"
    npm install --silent --prefix "$folder"
fi
# Nothing that the agents would like to reach is there: prices, telemetry, updates.
env -i PATH="$folder/node_modules/.bin:$PATH" LANG=C.UTF-8 TERM=dumb NO_PROXY='*' DO_NOT_TRACK=1 \
    CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1 OPENCODE_DISABLE_AUTOUPDATE=1 OPENCODE_DISABLE_MODELS_FETCH=1 \
    OPENCODE_DISABLE_LSP_DOWNLOAD=1 \
    unshare --map-root-user --net bash -euo pipefail -c 'ip link set lo up; exec python3 "$@"' _ \
    "$here/sessions.py" "$binary" "$scripted" "$folder" "$@"
