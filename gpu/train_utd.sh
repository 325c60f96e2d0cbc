#!/usr/bin/env bash
# Train the recipe utd-mhad (64x64, `small`) and write to $OUT: the model in bf16 (parts of at most 16 MiB), the run's record and metrics,
# and the newest contact sheet of swaps. A table of the metrics comes last.
# Usage: gpu/train_utd.sh [MORE ARGUMENTS OF divid train]       Needs data/utd-mhad-64, see gpu/QUEUE.md.
# CALL_MINUTES (8.5) ends this call with a checkpoint, from which the next call goes on; TOTAL_MINUTES (8) is the training's length over
# all calls, the same in each, after which the model is exported.
source "$(dirname "$0")/setup.sh"
data=${DATA:-data/utd-mhad-64}
run=${RUN:-runs/utd-mhad}
if [ ! -e "$data" ]; then
    echo "train_utd: no prepared data in $data, see gpu/QUEUE.md" >&2
    exit 2
fi
resume=()
[ -d "$run/checkpoints" ] && resume=(--resume)
status=0
timeout --preserve-status -s TERM "${CALL_MINUTES:-8.5}m" \
    "$PYTHON" -m divid train --config utd-mhad --data "$data" --out "$run" --device cuda "${resume[@]}" \
    --set "training.max_minutes=${TOTAL_MINUTES:-8}" --set data.location=device "$@" || status=$?
if [ "$status" -ne 0 ]; then
    echo "train_utd: divid train ended with exit code $status; 128 and more: its time was up, call again to go on" >&2
fi
"$PYTHON" gpu/pack_run.py "$run" "$OUT"
