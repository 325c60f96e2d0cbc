# Sourced after setup.sh by the jobs that train: device, time of this call, number of steps, and training that goes on.
device=${DEVICE:-cuda}
location=device
[ "$device" = cpu ] && location=memory
call_seconds=$(awk -v minutes="${CALL_MINUTES:-8.5}" 'BEGIN { printf "%d", minutes * 60 }')

# Print the seconds that are left of this call, at least 1 (0 would be no limit to timeout).
seconds_left() {
    local left=$((call_seconds - SECONDS))
    echo $((left > 1 ? left : 1))
}

# Print how many steps a run makes: STEPS, or what a trial of half a minute, in the first call, says fits into TOTAL_MINUTES (8).
# Usage: choose_steps RUN RECIPE DATA [MORE ARGUMENTS OF divid train]
choose_steps() {
    local run=$1 recipe=$2 data=$3
    shift 3
    if [ -n "${STEPS:-}" ]; then
        echo "$STEPS"
        return
    fi
    if [ ! -e "$run.steps" ]; then
        rm -rf "$run.trial"
        "$PYTHON" -m divid train --config "$recipe" --data "$data" --out "$run.trial" --device "$device" \
            --set training.max_minutes="${TRIAL_MINUTES:-0.5}" training.num_validation_clips=1 data.location="$location" "$@" \
            >"$OUT/trial.log" 2>&1 || {
            tail -n 5 "$OUT/trial.log" >&2
            echo "train: the trial that says how many steps there is time for failed, see above" >&2
            exit 2
        }
        "$PYTHON" gpu/steps_in_time.py "$run.trial" "${TOTAL_MINUTES:-8}" >"$run.steps.new" || exit 2
        mv "$run.steps.new" "$run.steps"
        rm -rf "$run.trial"
    fi
    cat "$run.steps"
}

# Train into RUN, or go on with what is there, while this call has time. Gives the exit code of divid.
# Usage: train_into RUN train|distill [ARGUMENTS OF THAT COMMAND]
train_into() {
    local run=$1 command=$2 status=0 resume=()
    shift 2
    [ -d "$run/checkpoints" ] && resume=(--resume)
    timeout --preserve-status -s TERM "$(seconds_left)" \
        "$PYTHON" -m divid "$command" --out "$run" --device "$device" "${resume[@]}" "$@" || status=$?
    if [ "$status" -ne 0 ]; then
        echo "train: divid $command ended with exit code $status; 128 and more: its time was up, call again to go on" >&2
    fi
    return "$status"
}
