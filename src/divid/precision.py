"""In which precision networks compute, in training and in sampling."""

from __future__ import annotations

import contextlib

import torch


def has_bf16_units(device: str) -> bool:
    """Say whether a device multiplies bfloat16 numbers by hardware of its own; without it they are slower than float32.

    Args:
        device: Its type: `cpu`, `cuda`.
    """
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and any(getattr(torch.cpu, f"_is_{name}_supported")() for name in ("avx512_bf16", "amx_tile"))


def autocast(device: str, precision: str) -> contextlib.AbstractContextManager:
    """Give the context in which matrix products and convolutions have that precision; norms and sums stay in float32.

    Args:
        device: Its type: `cpu`, `cuda`.
        precision: `fp32`, `bf16`, or `auto`: `bf16` where the device has units for it.
    """
    if precision == "auto":
        precision = "bf16" if has_bf16_units(device) else "fp32"
    return torch.autocast(device, dtype=torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
