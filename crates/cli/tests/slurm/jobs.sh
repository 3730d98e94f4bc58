#!/usr/bin/env bash
# The jobs of run.sh, as a user: jobs.sh FOLDER.
set -euo pipefail
cd "$1"

# submit ARGUMENTS: the number of the job.
submit() { sbatch --parsable "$@"; }
field() { scontrol show job "$1" | grep -o "$2=[^ ]*" | head -1 | cut -d= -f2; }
# until_state JOB STATE
until_state() {
    for _ in $(seq 600); do
        [ "$(field "$1" JobState)" != "$2" ] || return 0
        sleep 0.2
    done
    echo "job $1 is $(field "$1" JobState), not $2" >&2
    exit 1
}
# until_there FILE...
until_there() {
    for file in "$@"; do
        for _ in $(seq 300); do
            [ ! -s "$file" ] || continue 2
            sleep 0.2
        done
        echo "$file does not come" >&2
        exit 1
    done
}
steps() { wc -l <"$1/stages/base/metrics.jsonl"; }
until_step() {
    until_there "$1/stages/base/metrics.jsonl"
    until [ "$(steps "$1")" -ge "$2" ]; do sleep 0.1; done
}
sum() { sha256sum <"$1/stages/base/metrics.jsonl"; }
# What begins again would wait two minutes; a few seconds it must, as a node does not start a job that it is still ending.
now() {
    sleep 3
    scontrol update JobId="$1" StartTime=now
}
# to_the_end JOB: through as many rounds as its time takes.
to_the_end() {
    for _ in $(seq 1500); do
        case "$(field "$1" JobState)" in
        COMPLETED) return 0 ;;
        PENDING) now "$1" || true ;;
        FAILED | TIMEOUT | CANCELLED) break ;;
        esac
        sleep 0.5
    done
    echo "job $1 is $(field "$1" JobState)" >&2
    exit 1
}
long=(--set stage.base.steps=1200)

sbatch --test-only train.sbatch run.toml --out demo
job=$(submit train.sbatch run.toml --out demo)
until_state "$job" COMPLETED
echo "train: $(tail -n 1 "train-$job.log")"

job=$(submit ranks.sbatch run.toml --out two)
until_state "$job" COMPLETED
grep -q rank_times two/stages/base/timings.jsonl
echo "ranks: $(tail -n 1 "ranks-$job.log")"

# shellcheck disable=SC2016
submit --array=1-2 --output=seed-%a.log \
    --wrap='minke train run.toml --set seed=$SLURM_ARRAY_TASK_ID --out seeds/$SLURM_ARRAY_TASK_ID --threads 1' >/dev/null
until_there seeds/{1,2}/stages/cold-start/done.json
echo "seeds: $(ls seeds | xargs)"

model=demo/stages/cold-start/model
job=$(submit --array=0-1 eval.sbatch $model . countdown arithmetic)
until_there eval-{countdown,arithmetic}.json
echo "eval: $(ls eval-*.json | xargs)"

job=$(submit rl.sbatch tiny.toml zero rl)
until_state "$job" COMPLETED
echo "rl: $(grep -c . rl/run/stages/zero/metrics.jsonl) steps"

# The bits that an undisturbed run has.
minke train run.toml --out undisturbed --threads 2 "${long[@]}" 2>/dev/null
want=$(sum undisturbed)

job=$(submit --time=2 --signal=B:USR1@100 train.sbatch run.toml --out limited "${long[@]}")
until_state "$job" RUNNING
until_state "$job" PENDING
grep 'interrupted in stage base after step' "train-$job.log"
to_the_end "$job"
grep 'goes on after step' "train-$job.log"
[ "$(sum limited)" = "$want" ]
echo "time limit: $(field "$job" Restarts) restart, the bits of an undisturbed run"

job=$(submit train.sbatch run.toml --out preempted "${long[@]}")
until_step preempted 100
urgent=$(submit --partition=urgent --cpus-per-task=2 --output=urgent-%j.log --wrap='sleep 3')
until_state "$urgent" COMPLETED
until_state "$job" PENDING
grep 'interrupted in stage base after step' "train-$job.log" || echo "preempted: ended without a word"
to_the_end "$job"
grep 'goes on after step' "train-$job.log"
[ "$(sum preempted)" = "$want" ]
echo "preemption: $(field "$job" Restarts) restart, the bits of an undisturbed run"

job=$(submit --time=2 --signal=B:USR1@100 ranks.sbatch run.toml --out both --set stage.base.steps=600)
until_state "$job" RUNNING
until_state "$job" PENDING
grep -m 1 'interrupted in stage base after step' "ranks-$job.log"
to_the_end "$job"
grep 'goes on after step' "ranks-$job.log"
echo "time limit of ranks: $(field "$job" Restarts) restart"
