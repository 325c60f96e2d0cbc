#!/usr/bin/env bash
# Train a recipe and write to $OUT: the model in bf16 (parts of at most 16 MiB), the run's record and metrics, and the newest contact
# sheet of swaps. A table of the metrics comes last.
# Usage: gpu/train.sh RECIPE [MORE ARGUMENTS OF divid train]       Needs prepared data, see gpu/QUEUE.md.
# DATA (data/RECIPE-64) is the data set and RUN (runs/RECIPE) the run's folder. CALL_MINUTES (8.5) ends this call with a checkpoint, from which
# the next call goes on; TOTAL_MINUTES (8) is the training's length over all calls, the same in each, after which the model is exported.
if [ $# -eq 0 ]; then
    echo "train: usage: gpu/train.sh RECIPE [MORE ARGUMENTS OF divid train]" >&2
    exit 2
fi
recipe=$1
shift
source "$(dirname "$0")/setup.sh"
data=${DATA:-data/$recipe-64}
run=${RUN:-runs/$recipe}
if [ ! -e "$data" ]; then
    echo "train: no prepared data in $data, see gpu/QUEUE.md" >&2
    exit 2
fi
resume=()
[ -d "$run/checkpoints" ] && resume=(--resume)
status=0
timeout --preserve-status -s TERM "${CALL_MINUTES:-8.5}m" \
    "$PYTHON" -m divid train --config "$recipe" --data "$data" --out "$run" --device cuda "${resume[@]}" \
    --set "training.max_minutes=${TOTAL_MINUTES:-8}" --set data.location=device "$@" || status=$?
if [ "$status" -ne 0 ]; then
    echo "train: divid train ended with exit code $status; 128 and more: its time was up, call again to go on" >&2
fi
"$PYTHON" gpu/pack_run.py "$run" "$OUT"
