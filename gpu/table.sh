#!/usr/bin/env bash
# Make the benchmark's table and write to $OUT: the report (benchmark.md, .html, .json), its pictures and the judges (table.tar.gz), and
# the models (models.tar in parts of at most 16 MiB, weights in bf16). The table comes last.
# Usage: gpu/table.sh [MORE ARGUMENTS OF divid benchmark]       Needs the data that the plan names, see gpu/QUEUE.md.
# PLAN (configs/benchmarks/three-sets-gpu.yaml) says what is trained, RUN (runs/table) is the benchmark's folder, DEVICE (cuda) where it
# runs. TOGETHER ("*") names cells as --cells does; every word gets a process of its own, and all share the GPU. MODELS ("*") names the
# methods whose models come back. CALL_MINUTES (9) ends this call; the next one goes on at the cells, and the checkpoints in them, where
# this one stopped.
source "$(dirname "$0")/setup.sh"
plan=${PLAN:-configs/benchmarks/three-sets-gpu.yaml}
run=${RUN:-runs/table}
seconds=$(awk -v minutes="${CALL_MINUTES:-9}" 'BEGIN { printf "%d", minutes * 60 }')
mkdir -p "$run"
read -ra together <<<"${TOGETHER:-*/*}"
declare -A names
for cells in "${together[@]}"; do
    timeout --preserve-status -s TERM -k 15 "$seconds" \
        "$PYTHON" -m divid benchmark "$plan" --out "$run" --device "${DEVICE:-cuda}" --cells "$cells" "$@" \
        >"$run/$(tr -c 'A-Za-z0-9\n' _ <<<"$cells").log" 2>&1 &
    names[$!]=$cells
    sleep "${PAUSE:-1}" # so that the first word's process trains the judge
done
for process in "${!names[@]}"; do
    status=0
    wait "$process" || status=$?
    if [ "$status" -ne 0 ]; then
        echo "table.sh: ${names[$process]} ended with exit code $status; 128 and more: its time was up, call again to go on" >&2
        tail -n 2 "$run/$(tr -c 'A-Za-z0-9\n' _ <<<"${names[$process]}").log" >&2
    fi
done
"$PYTHON" -m divid benchmark "$plan" --out "$run" --device "${DEVICE:-cuda}" --report-only "$@" >"$OUT/report.log" 2>&1 || true
"$PYTHON" gpu/pack_table.py "$run" "$OUT" --methods "${MODELS:-*}"
if [ -e "$run/benchmark.md" ]; then
    cat "$run/benchmark.md"
fi
"$PYTHON" -m divid benchmark "$plan" --out "$run" --device "${DEVICE:-cuda}" --list "$@"
