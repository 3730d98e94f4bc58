#!/usr/bin/env bash
# Tries the snippets of docs/operating.md as they stand there, in a network that has nothing but the loopback.
#
# run.sh BINARY: as root, with systemd-analyze, nginx, caddy and promtool in PATH, and PyYAML for python3.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
unshare --net bash -euo pipefail -c 'ip link set lo up; exec python3 "$@"' _ "$here/snippets.py" "$(realpath "$1")"
