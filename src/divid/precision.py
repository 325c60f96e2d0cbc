"""In which precision networks compute, in training and in sampling."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

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


def run_recurrent(layer: nn.RNNBase, sequence: Float[Tensor, "batch frames dim"], state: Any = None) -> tuple[Tensor, Any]:
    """Give a recurrent layer's outputs and last state, in float32 on a processor without units for bfloat16.

    PyTorch has no recurrent layers in bfloat16 for those ("could not create a primitive descriptor").

    Args:
        layer: Batch first.
        sequence: Its inputs.
        state: That it begins with, from an earlier call; None: zeros.
    """
    device = sequence.device.type
    if device != "cpu" or has_bf16_units(device) or not torch.is_autocast_enabled(device):
        return layer(sequence, state)
    with torch.autocast(device, enabled=False):
        return layer(sequence.float(), state)


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
