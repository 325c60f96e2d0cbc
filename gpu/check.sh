#!/usr/bin/env bash
# Does the GPU give what the CPU gives, and how far is bf16 from fp32? Prints a table; fails where fp32 differs beyond tolerance.
# Usage: gpu/check.sh [--preset small] [--device cuda]
source "$(dirname "$0")/setup.sh"
exec "$PYTHON" gpu/check.py "$@"
