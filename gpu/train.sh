#!/usr/bin/env bash
# Train a recipe and write to $OUT: the model in bf16 (parts of at most 16 MiB), the run's record and metrics, and the newest contact
# sheet of swaps. A table of the metrics comes last.
# Usage: gpu/train.sh RECIPE [MORE ARGUMENTS OF divid train]       Needs prepared data, see gpu/QUEUE.md.
# DATA (data/RECIPE-64) is the data set, RUN (runs/RECIPE) the run's folder, DEVICE (cuda) where it trains. CALL_MINUTES (8.5) ends this call with a
# checkpoint, from which the next call goes on. TOTAL_MINUTES (8) is the training's length over all calls: a trial of half a minute says how
# many steps that are, so that the rate reaches its end in time; STEPS gives their number instead.
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
device=${DEVICE:-cuda}
location=device
[ "$device" = cpu ] && location=memory
steps=${STEPS:-}
if [ -z "$steps" ] && [ -e "$run.steps" ]; then
    steps=$(cat "$run.steps")
fi
if [ -z "$steps" ]; then
    rm -rf "$run.trial"
    "$PYTHON" -m divid train --config "$recipe" --data "$data" --out "$run.trial" --device "$device" \
        --set training.max_minutes="${TRIAL_MINUTES:-0.5}" training.num_validation_clips=1 data.location="$location" "$@" >"$OUT/trial.log" 2>&1 \
        || { tail -n 5 "$OUT/trial.log" >&2; echo "train: the trial that says how many steps there is time for failed, see above" >&2; exit 2; }
    steps=$("$PYTHON" gpu/steps_in_time.py "$run.trial" "${TOTAL_MINUTES:-8}")
    echo "$steps" >"$run.steps"
    rm -rf "$run.trial"
fi
echo "train: $steps steps" >&2
resume=()
[ -d "$run/checkpoints" ] && resume=(--resume)
status=0
timeout --preserve-status -s TERM "${CALL_MINUTES:-8.5}m" \
    "$PYTHON" -m divid train --config "$recipe" --data "$data" --out "$run" --device "$device" "${resume[@]}" \
    --set training.num_steps="$steps" data.location="$location" "$@" || status=$?
if [ "$status" -ne 0 ]; then
    echo "train: divid train ended with exit code $status; 128 and more: its time was up, call again to go on" >&2
fi
"$PYTHON" gpu/pack_run.py "$run" "$OUT"
