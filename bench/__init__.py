"""Speed measurements: every figure beside its reference, taken in the same run. See `docs/speed.md`."""
