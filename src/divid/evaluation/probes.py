"""The probe of leakage, and what it shares with overlap: codes in comparable units, and the library that fits."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from divid.errors import MissingExtraError

logger = logging.getLogger("divid")

HIDDEN_WIDTH = 128
"""Width of the probe's one hidden layer."""
MAX_ITERATIONS = 500
"""Most passes over the held-in codes; training ends before where the loss no longer falls."""
ROUNDING = 1e-6
"""Spread of a code's entry, as a share of its size, under which it counts as constant: what float32 rounds off is no code."""
Probe = Callable[
    [Float[np.ndarray, "held_in dim"], Int[np.ndarray, " held_in"], Float[np.ndarray, "held_out dim"], int],
    Int[np.ndarray, " held_out"],
]
"""Called with standardised held-in codes, their classes, standardised held-out codes and a seed; gives the classes it reads."""


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


def mlp_probe(
    codes: Float[np.ndarray, "held_in dim"],
    classes: Int[np.ndarray, " held_in"],
    held_out: Float[np.ndarray, "held_out dim"],
    seed: int,
) -> Int[np.ndarray, " held_out"]:
    """Train a classifier with one hidden layer, and give the classes that it reads from held-out codes.

    Args:
        codes: Standardised held-in codes.
        classes: Their classes.
        held_out: Codes standardised likewise.
        seed: Of its first weights and batches, below 2^32.

    Raises:
        MissingExtraError: scikit-learn is not installed.

    Source:
        Paper section 4.2.3. Inferred: width of the hidden layer, optimiser (Adam at 1e-3) and number of passes.
    """
    require_scikit_learn("measuring leakage")
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    classifier = MLPClassifier((HIDDEN_WIDTH,), max_iter=MAX_ITERATIONS, early_stopping=False, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(codes, classes)
    if classifier.n_iter_ >= MAX_ITERATIONS:
        logger.info("a probe's loss still fell after %d passes: it may read a little less than it could", MAX_ITERATIONS)
    return classifier.predict(held_out)
