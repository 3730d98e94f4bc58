#!/usr/bin/env bash
# Lets schemathesis ask a server all kinds of things that its document permits and forbids, in a network that has nothing but the
# loopback. Everything must be answered as the document says, and nothing with an error of the program.
#
# openapi.sh BINARY MODEL FOLDER [EXAMPLES]: the program, a model that is small and fast, a folder for what is installed (kept
# between runs), and how many requests to each address are drawn at random.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
binary="$(realpath "$1")" model="$(realpath "$2")" folder="$3" examples="${4:-10}"
tester="schemathesis==4.32.5"
mkdir -p "$folder"
folder="$(realpath "$folder")"
if [ "$(cat "$folder/tester.txt" 2>/dev/null)" != "$tester" ]; then
    python3 -m venv "$folder/tester"
    "$folder/tester/bin/pip" install --quiet "$tester"
    echo "$tester" >"$folder/tester.txt"
fi

inside() {
    ip link set lo up
    export HOME="$folder/home" DO_NOT_TRACK=1 NO_PROXY='*' PYTHONDONTWRITEBYTECODE=1
    mkdir -p "$HOME"
    cd "$HOME"
    echo "a-key-for-tests" >"$folder/keys"
    # Any name stands for the model, so that requests reach it.
    "$binary" serve "$model" --port 18081 --key-file "$folder/keys" --model-alias '*' 2>"$folder/openapi-server.log" &
    server=$!
    trap 'kill $server 2>/dev/null || true' EXIT
    for _ in $(seq 100); do
        python3 -c 'import urllib.request as r; r.urlopen("http://127.0.0.1:18081/health")' 2>/dev/null && break
        sleep 0.1
    done
    # As the document's schemes, so that they can be left out: without a key, everything must be refused.
    printf '[auth.openapi.bearer]\nbearer = "%s"\n[auth.openapi.x-api-key]\napi_key = "%s"\n' \
        "$(cat "$folder/keys")" "$(cat "$folder/keys")" >schemathesis.toml
    # That a body fits its schema does not mean that it can be obeyed: a prompt may be too long, a tool that must be called may be
    # missing, a grammar may be broken. positive_data_acceptance asks for more than a document can promise.
    SCHEMATHESIS_HOOKS="$here/openapi_hooks.py" timeout 300 "$folder/tester/bin/schemathesis" run \
        http://127.0.0.1:18081/openapi.json --checks all --exclude-checks positive_data_acceptance \
        --max-examples "$examples" --seed 1 --workers 1 --request-timeout 60 --suppress-health-check all --warnings off \
        --continue-on-failure
    kill $server
    wait $server
    echo "the document is kept to"
}
env -i PATH="$PATH" LANG=C.UTF-8 binary="$binary" model="$model" folder="$folder" here="$here" examples="$examples" \
    unshare --map-root-user --net bash -euo pipefail -c "$(declare -f inside); inside"
