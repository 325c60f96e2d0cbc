"""What leakage and overlap share: codes in comparable units, and the library that fits."""

from __future__ import annotations

import importlib.util

import numpy as np
from jaxtyping import Float

from divid.errors import MissingExtraError

ROUNDING = 1e-6
"""Spread of a code's entry, as a share of its size, under which it counts as constant: what float32 rounds off is no code."""


def require_scikit_learn(purpose: str) -> None:
    """Check that scikit-learn is there.

    Args:
        purpose: What needs it, for the message.

    Raises:
        MissingExtraError: It is not installed.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise MissingExtraError("scikit-learn", "eval", purpose)


def standardise(
    held_in: Float[np.ndarray, "held_in dim"], held_out: Float[np.ndarray, "held_out dim"]
) -> tuple[Float[np.ndarray, "held_in dim"], Float[np.ndarray, "held_out dim"]]:
    """Bring every entry to mean 0 and spread 1 over the held-in codes; constant entries become 0 there.

    Args:
        held_in: Codes whose mean and spread count.
        held_out: Codes that are scaled likewise.
    """
    mean, spread = held_in.mean(0), held_in.std(0)
    is_constant = spread <= ROUNDING * np.sqrt((held_in**2).mean(0))
    scale = np.where(is_constant, np.inf, spread)
    return (held_in - mean) / scale, (held_out - mean) / scale
