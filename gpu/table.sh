#!/usr/bin/env bash
# Make the benchmark's table and write to $OUT: the report (benchmark.md, .html, .json), its pictures, and the judges. The table comes last.
# Usage: gpu/table.sh [MORE ARGUMENTS OF divid benchmark]       Needs the data that the plan names, see gpu/QUEUE.md.
# PLAN (configs/benchmarks/three-sets-gpu.yaml) says what is trained, RUN (runs/table) is the benchmark's folder, DEVICE (cuda) where it runs.
# CALL_MINUTES (9) ends this call; the next one goes on at the cell, and the checkpoint in it, where this one stopped.
source "$(dirname "$0")/setup.sh"
plan=${PLAN:-configs/benchmarks/three-sets-gpu.yaml}
run=${RUN:-runs/table}
mkdir -p "$(dirname "$run")"
status=0
timeout --preserve-status -s TERM "${CALL_MINUTES:-9}m" "$PYTHON" -m divid benchmark "$plan" --out "$run" --device "${DEVICE:-cuda}" "$@" || status=$?
if [ "$status" -ne 0 ]; then
    echo "table.sh: divid benchmark ended with exit code $status; 128 and more: its time was up, call again to go on" >&2
    "$PYTHON" -m divid benchmark "$plan" --out "$run" --device "${DEVICE:-cuda}" --report-only "$@" >"$OUT/report.log" 2>&1 || true
fi
if [ -e "$run/benchmark.md" ]; then
    tar -czf "$OUT/table.tar.gz" -C "$run" --exclude=cells .
    cat "$run/benchmark.md"
fi
"$PYTHON" -m divid benchmark "$plan" --out "$run" --device "${DEVICE:-cuda}" --list "$@"
