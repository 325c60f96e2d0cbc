"""In which precision networks compute, in training and in sampling."""

from __future__ import annotations

import contextlib
import logging

import torch

logger = logging.getLogger("divid")
_told: set[str] = set()


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
    if precision == "bf16":
        warn_of_emulation(device)
    return torch.autocast(device, dtype=torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def warn_of_emulation(device: str) -> None:
    """Tell, once in a process, that bfloat16 was asked of a device without units for it.

    Args:
        device: Its type: `cpu`, `cuda`.
    """
    if device in _told or has_bf16_units(device):
        return
    _told.add(device)
    name = "GPU" if device == "cuda" else "processor"
    logger.warning("this %s has no units for bf16 and may take ten times as long as in fp32: set precision to auto", name)
