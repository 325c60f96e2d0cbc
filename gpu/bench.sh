#!/usr/bin/env bash
# Measure speed on a GPU part by part, each beside its reference, and write to $OUT: all tables (bench.md) and all numbers
# (bench.tar.gz). The tables come last on the screen too.
# Usage: gpu/bench.sh [MORE ARGUMENTS OF python -m bench]
# PRESETS ("small base paper") are the model sizes, PARTS (all) what is measured. CALL_MINUTES (9) ends this call; the next one
# makes the parts that are missing in RUN (runs/bench). A part that fails is tried once a call.
source "$(dirname "$0")/setup.sh"
run=${RUN:-runs/bench}
seconds=$(awk -v minutes="${CALL_MINUTES:-9}" 'BEGIN { printf "%d", minutes * 60 }')
missing=0
for preset in ${PRESETS:-small base paper}; do
    for part in ${PARTS:-train sample encode swap profile scale data long}; do
        folder=$run/$preset-$part
        [ -e "$folder/done" ] && continue
        left=$((seconds - SECONDS))
        if [ "$left" -lt 30 ]; then
            missing=$((missing + 1))
            continue
        fi
        frames=()
        [ "$part" = long ] && frames=(--frames 100,1000,10000)
        if timeout -s TERM "$left" "$PYTHON" -m bench --preset "$preset" --only "$part" --out "$folder" "${frames[@]}" "$@" \
            >"$OUT/last.log" 2>&1; then
            touch "$folder/done"
        else
            echo "bench.sh: $preset $part was not finished: $(tail -n 1 "$OUT/last.log")" >&2
            missing=$((missing + 1))
        fi
    done
done
tar -czf "$OUT/bench.tar.gz" -C "$run" .
find "$run" -name speed.md -print0 | sort -z | xargs -0 -I{} sh -c 'printf "\n<!-- %s -->\n" "{}"; cat "{}"' >"$OUT/bench.md"
cat "$OUT/bench.md"
echo "bench.sh: $missing parts are missing$([ "$missing" -eq 0 ] || echo ': call it again')"
