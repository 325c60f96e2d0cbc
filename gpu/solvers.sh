#!/usr/bin/env bash
# How few solver steps are enough for a trained model, and what a few-step student of it loses: distils the student, swaps 500
# pairs by every setting beside 1000 ancestral steps, and writes to $OUT: solvers.md, .json, .png, swaps.png, and what every
# setting gave (settings.tar.gz). The table comes last; while settings are missing it has those that are there.
# Usage: gpu/solvers.sh [MORE ARGUMENTS OF divid solvers]       Needs a run of gpu/train.sh and its data, see gpu/QUEUE.md.
# MODEL (runs/utd-mhad) is the trained run or a bundled model's name, DATA (data/utd-mhad-64) its data set, JUDGE (RUN/judge,
# trained here) the judge, RUN (runs/solvers) the folder of all that is made, DEVICE (cuda) where it is made. CALL_MINUTES (8.5) ends this call; the next one
# goes on at the student's checkpoint, or at the setting, where this one stopped. SETTINGS and STUDENT_SETTINGS are compared, on
# PAIRS (500) pairs, BATCH (128) clips at a time. STUDENT (training.max_minutes=5) are values for divid distill --set,
# JUDGE_STEPS (1000) the steps of a new judge. REALISM=0 leaves out the Frechet distances, which need divid[perceptual].
source "$(dirname "$0")/setup.sh"
source gpu/training.sh
model=${MODEL:-runs/utd-mhad}
data=${DATA:-data/utd-mhad-64}
run=${RUN:-runs/solvers}
judge=${JUDGE:-$run/judge}
known=$model
[ -e "src/divid/zoo/$model" ] && known=src/divid/zoo/$model
for needed in "$known" "$data"; do
    if [ ! -e "$needed" ]; then
        echo "solvers: there is no $needed, see gpu/QUEUE.md" >&2
        exit 2
    fi
done
mkdir -p "$run"
if [ ! -e "$judge/judge.json" ]; then
    "$PYTHON" -m divid judge --data "$data" --out "$judge" --device "$device" --steps "${JUDGE_STEPS:-1000}" --minutes 3
fi
status=0
read -ra student <<<"${STUDENT:-training.max_minutes=5}"
read -ra settings <<<"${SETTINGS:-ddpm:1000 ddim:16 dpmsolver++:1,2,4,10,16}"
read -ra student_settings <<<"${STUDENT_SETTINGS:-consistency:1,2,4}"
if [ ! -e "$run/student.done" ]; then
    train_into "$run/student" distill --model "$model" --data "$data" \
        --set data.location="$location" "${student[@]}" || status=$?
    [ "$status" -eq 0 ] || exit $((status < 128 ? status : 0))
    touch "$run/student.done"
fi
realism=(--realism)
[ "${REALISM:-1}" = 0 ] && realism=()
timeout --preserve-status -s TERM "$(seconds_left)" "$PYTHON" -m divid solvers --model "$model" --student "$run/student" \
    --data "$data" --judge "$judge" --out "$run/solvers" --device "$device" --settings "${settings[@]}" \
    --student-settings "${student_settings[@]}" --swap-pairs "${PAIRS:-500}" --batch-clips "${BATCH:-128}" "${realism[@]}" "$@" \
    >"$OUT/last.log" 2>&1 || status=$?
if [ "$status" -ne 0 ]; then
    tail -n 3 "$OUT/last.log" >&2
    echo "solvers: divid solvers ended with exit code $status; 128 and more: its time was up, call again to go on" >&2
fi
for name in solvers.md solvers.json solvers.png swaps.png; do
    [ -e "$run/solvers/$name" ] && cp "$run/solvers/$name" "$OUT/"
done
if [ -e "$run/solvers/solvers.md" ]; then
    tar -czf "$OUT/settings.tar.gz" -C "$run/solvers" settings
    cat "$run/solvers/solvers.md"
fi
exit $((status < 128 ? status : 0))
