#!/usr/bin/env bash
# Runs the scenarios that need no stub on a real server: real.sh BINARY MODEL.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
"$1" serve "$2" --port 18082 --disk-cache-bytes 0 &
server=$!
trap 'kill $server 2>/dev/null || true' EXIT
for _ in $(seq 100); do
    python3 -c 'import urllib.request as r; r.urlopen("http://127.0.0.1:18082/ready")' 2>/dev/null && break
    sleep 0.1
done
BASE_URL=http://127.0.0.1:18082/ node "$here/run.mjs"
