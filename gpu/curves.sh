#!/usr/bin/env bash
# How much sooner a recipe reaches the loss that plain training ends with: trains the same network plainly (float32, all frames
# of a clip, AdamW at 1e-3) and by the recipe, equally many steps each, and compares the two by python -m bench.curves. Writes
# to $OUT: curves.md, .json and .png, and the records of both runs (runs.tar.gz). The table comes last.
# Usage: gpu/curves.sh PRESET [MORE ARGUMENTS OF divid train, for both]       PRESET: small, base or paper
# RECIPE (puppets) is the recipe, DATA (data/RECIPE-64) the data set, RUN (runs/curves-PRESET) the folder of both runs, DEVICE
# (cuda) where they train. CALL_MINUTES (8.5) ends this call with a checkpoint, from which the next call goes on. TOTAL_MINUTES
# (8) is the length of the plain run: a trial of half a minute says how many steps that are; STEPS gives their number instead.
if [ $# -eq 0 ]; then
    echo "curves: usage: gpu/curves.sh PRESET [MORE ARGUMENTS OF divid train]" >&2
    exit 2
fi
preset=$1
shift
source "$(dirname "$0")/setup.sh"
source gpu/training.sh
recipe=${RECIPE:-puppets}
data=${DATA:-data/$recipe-64}
run=${RUN:-runs/curves-$preset}
if [ ! -e "$data" ]; then
    echo "curves: no prepared data in $data, see gpu/QUEUE.md" >&2
    exit 2
fi
mkdir -p "$run"
both=(--set model.preset="$preset")
plain=(--set training.precision=fp32 training.frames_per_clip=0 training.optimizer=adamw training.learning_rate=1e-3)
steps=$(choose_steps "$run/plain" "$recipe" "$data" "${both[@]}" "${plain[@]}" "$@")
every=$((steps / 20 > 0 ? steps / 20 : 1))
both+=(training.num_steps="$steps" training.validate_every_steps="$every" data.location="$location")
for name in plain recipe; do
    [ "$(cat "$run/$name.done" 2>/dev/null)" = "$steps" ] && continue
    rm -f "$run/$name.done"
    words=("${both[@]}")
    [ "$name" = plain ] && words+=("${plain[@]}")
    train_into "$run/$name" train --config "$recipe" --data "$data" "${words[@]}" "$@" || break
    echo "$steps" >"$run/$name.done"
done
tar -czf "$OUT/runs.tar.gz" -C "$run" --exclude=checkpoints --exclude=model --exclude=tensorboard --exclude=samples .
if [ -e "$run/plain.done" ] && [ -e "$run/recipe.done" ]; then
    "$PYTHON" -m bench.curves --reference "$run/plain" "$run/recipe" --out "$OUT"
else
    echo "curves: the table comes when both runs are finished"
fi
