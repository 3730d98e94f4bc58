#!/usr/bin/env bash
# Tries deploy/slurm on a cluster of this machine alone, as docs/slurm.md shows it.
#
# run.sh MINKE PLUGIN FOLDER USER: as root, with munge, slurm-wlm and openmpi-bin installed and two processors; PLUGIN is libminke_mpi.so, built against
# this Open MPI; USER runs the jobs and must be able to write in FOLDER, which is emptied.
set -euo pipefail
here=$(realpath "$(dirname "$0")")
minke=$(realpath "$1") plugin=$(realpath "$2") user=$4
rm -rf "$3"
mkdir -p "$3"/{bin,etc,state,spool,shared}
out=$(realpath "$3")
cp "$minke" "$out/bin/minke"
cp "$plugin" "$out/bin/libminke_mpi.so"
cp "$here"/../../../../deploy/slurm/*.sbatch "$here/../ranks/run.toml" "$here/../../../../runs/tiny.toml" "$out/shared/"
chown -R "$user" "$out/shared"
sed "s#HOST#$(hostname -s)#g; s#FOLDER#$out#g" "$here/slurm.conf" >"$out/etc/slurm.conf"
echo CgroupPlugin=cgroup/v1 >"$out/etc/cgroup.conf"
export SLURM_CONF=$out/etc/slurm.conf PATH="$out/bin:$PATH"

munged=
stop() {
    for daemon in slurmd slurmctld; do
        [ ! -e "$out/$daemon.pid" ] || kill "$(cat "$out/$daemon.pid")" || true
    done
    [ -z "$munged" ] || kill "$munged" || true
}
trap stop EXIT
if ! munge -n >/dev/null 2>&1; then
    mkdir -p /run/munge && chown munge /run/munge
    runuser -u munge -- munged --foreground &
    munged=$!
    sleep 1
fi
slurmctld -f "$SLURM_CONF"
slurmd -f "$SLURM_CONF"
until sinfo --noheader --states=idle | grep -q idle; do sleep 0.2; done
runuser -u "$user" -- bash "$here/jobs.sh" "$out/shared"
