#!/usr/bin/env bash
# Train a recipe and write to $OUT: the model in bf16 (parts of at most 16 MiB), the run's record and metrics, and the newest
# contact sheet of swaps. A table of the metrics comes last.
# Usage: gpu/train.sh RECIPE [MORE ARGUMENTS OF divid train]       Needs prepared data, see gpu/QUEUE.md.
# DATA (data/RECIPE-64) is the data set, RUN (runs/RECIPE) the run's folder, DEVICE (cuda) where it trains. CALL_MINUTES (8.5)
# ends this call with a checkpoint, from which the next call goes on. TOTAL_MINUTES (8) is the training's length over all calls:
# a trial of half a minute says how many steps that are, so that the rate reaches its end in time; STEPS gives their number
# instead.
if [ $# -eq 0 ]; then
    echo "train: usage: gpu/train.sh RECIPE [MORE ARGUMENTS OF divid train]" >&2
    exit 2
fi
recipe=$1
shift
source "$(dirname "$0")/setup.sh"
source gpu/training.sh
data=${DATA:-data/$recipe-64}
run=${RUN:-runs/$recipe}
if [ ! -e "$data" ]; then
    echo "train: no prepared data in $data, see gpu/QUEUE.md" >&2
    exit 2
fi
mkdir -p "$(dirname "$run")"
steps=$(choose_steps "$run" "$recipe" "$data" "$@")
echo "train: $steps steps" >&2
SECONDS=0 # CALL_MINUTES are the training's, the trial comes before them
train_into "$run" train --config "$recipe" --data "$data" --set training.num_steps="$steps" data.location="$location" "$@" || true
"$PYTHON" gpu/pack_run.py "$run" "$OUT"
