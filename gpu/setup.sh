# Sourced by the jobs: makes divid importable where nothing can be installed from a network.
# Wheels in WHEELS (.whl) go to a folder of their own; everything else must be there already.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ -z "${PYTHON:-}" ]; then # the project's own environment, if it is there and none is active
    PYTHON=python3
    [ -z "${VIRTUAL_ENV:-}" ] && [ -x .venv/bin/python ] && PYTHON=.venv/bin/python
fi
OUT=${OUT:-gpu-out}
mkdir -p "$OUT"
export PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1
if compgen -G "${WHEELS:=.whl}/*.whl" >/dev/null; then
    site=${TMPDIR:-/tmp}/divid-site
    if [ ! -e "$site/.ready" ]; then
        "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" "$WHEELS"/*.whl
        touch "$site/.ready"
    fi
    export PYTHONPATH="$site:$PYTHONPATH"
fi
