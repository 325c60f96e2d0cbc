"""How sure a share of right answers is: Wilson's interval, and a bootstrap over clips where pairs reuse them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from divid.randomness import derive_seed

NORMAL_95 = 1.959963984540054
"""Half width of the central 95 % of a standard normal."""
NUM_RESAMPLES = 1000

Interval = tuple[float, float]


@dataclass(frozen=True)
class Rate:
    """A share of right answers with its uncertainty.

    Args:
        rate: The share; not a number if there is none to take it of.
        num: N, answers that were counted.
        wilson: Wilson's 95 % interval, as if all answers were independent.
        bootstrap: 95 % interval over clips, each with all its answers; not numbers where clips are too few.
    """

    rate: float
    num: int
    wilson: Interval
    bootstrap: Interval

    @property
    def interval(self) -> Interval:
        """The wider end of the two on either side, which is what is printed.

        The one over clips knows that pairs share clips, but has no width where all answers are alike; Wilson's has.
        """
        (low, high), (first, last) = self.wilson, self.bootstrap
        return (low, high) if math.isnan(first) else (min(low, first), max(high, last))

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON has it: what is not a number becomes null."""
        return {"rate": _or_none(self.rate), "num": self.num, "wilson": list(self.wilson), "bootstrap": _pair(self.bootstrap)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Rate:
        """Read what `to_dict` gave.

        Args:
            values: The JSON object.

        Raises:
            KeyError, TypeError, ValueError: It is none.
        """
        (low, high), (first, last) = values["wilson"], values["bootstrap"]
        rate = math.nan if values["rate"] is None else float(values["rate"])
        ends = (math.nan, math.nan) if first is None else (float(first), float(last))
        return cls(rate, int(values["num"]), (float(low), float(high)), ends)


def wilson_interval(num_right: int, num: int) -> Interval:
    """Give Wilson's 95 % interval of a share: the shares p whose normal test does not reject what was counted.

    Unlike the mean plus or minus two standard errors it stays within [0, 1] and has a width at 0 and at 1.

    Args:
        num_right: Right answers.
        num: N, all answers; of none, every share is possible.
    """
    if num == 0:
        return 0.0, 1.0
    share, z2 = num_right / num, NORMAL_95**2
    centre = (share + z2 / (2 * num)) / (1 + z2 / num)
    half = NORMAL_95 * math.sqrt(share * (1 - share) / num + z2 / (4 * num**2)) / (1 + z2 / num)
    return (0.0 if num_right == 0 else centre - half), (1.0 if num_right == num else centre + half)


class ClipBootstrap:
    """Resamples of the clips that answers were given on.

    In a resample a clip counts as often as it is drawn, and an answer on several clips as often as the product of theirs. So an
    interval is as wide as the number of clips allows, however many pairs are made of them.

    Args:
        owners: Number of the clip, or clips, of every answer.
        seed: Of the resamples.
    """

    def __init__(self, owners: Int[np.ndarray, "answers clips"], seed: int = 0) -> None:
        clips, places = np.unique(owners, return_inverse=True)
        generator = np.random.default_rng(derive_seed(seed, "bootstrap over clips"))
        counts = generator.multinomial(len(clips), np.full(len(clips), 1 / len(clips)), size=NUM_RESAMPLES)
        self._num_clips = len(clips)
        self._weights = np.ones((NUM_RESAMPLES, len(owners)), dtype=np.float32)
        for column in places.reshape(owners.shape).T:
            self._weights *= counts[:, column]

    def rate(self, is_right: Bool[np.ndarray, " answers"], among: Bool[np.ndarray, " answers"] | None = None) -> Rate:
        """Give the share of right answers with both intervals.

        Args:
            is_right: Of every answer.
            among: Which answers count; default: all.
        """
        counted = np.ones(len(is_right), dtype=bool) if among is None else among
        num, num_right = int(counted.sum()), int((is_right & counted).sum())
        share = num_right / num if num else math.nan
        return Rate(share, num, wilson_interval(num_right, num), self._interval(is_right[counted], self._weights[:, counted]))

    def mean_interval(self, values: Float[np.ndarray, " answers"]) -> Interval:
        """Give the 95 % interval over clips of a mean; not numbers where clips are too few.

        Args:
            values: One number an answer.
        """
        return self._interval(values, self._weights)

    def _interval(self, values: np.ndarray, weights: np.ndarray) -> Interval:
        totals, sums = weights.sum(axis=1, dtype=np.float64), weights @ values.astype(np.float64)
        drawn = totals > 0
        if self._num_clips < 2 or not drawn.any():
            return math.nan, math.nan
        low, high = np.percentile(sums[drawn] / totals[drawn], (2.5, 97.5))
        return float(low), float(high)


def paired_interval(
    one: Bool[np.ndarray, " pairs"], other: Bool[np.ndarray, " pairs"], clips: Int[np.ndarray, "pairs 2"]
) -> tuple[float, float, float]:
    """Give the difference of two shares of right answers on the same pairs, and both ends of its 95 % interval.

    The interval has the wider end on either side of two: a bootstrap over clips, which knows that pairs share them, and that of
    Agresti and Min (2005), which takes the pairs as independent but has a width where no answer differs.

    Args:
        one: The answers of the first.
        other: Of what is taken from it.
        clips: Numbers of the clips of every pair.
    """
    change = one.astype(np.float64) - other.astype(np.float64)
    more = len(change) + 2
    centre = float(change.sum()) / more
    half = NORMAL_95 * math.sqrt(float(np.abs(change).sum()) + 1 - more * centre**2) / more
    ends = [(centre - half, centre + half), ClipBootstrap(clips).mean_interval(change)]
    lows, highs = zip(*(interval for interval in ends if not math.isnan(interval[0])), strict=True)
    return float(change.mean()), max(-1.0, min(lows)), min(1.0, max(highs))


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _pair(interval: Interval) -> list[float | None]:
    return [_or_none(end) for end in interval]
