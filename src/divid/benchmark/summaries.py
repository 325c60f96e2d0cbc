"""Means over seeds and differences of results, with 95 % intervals.

An interval has two parts, added as squares: how far the test clips leave a result open (the mean of the single results' own
intervals, since all seeds are tested on the same clips), and how far results differ from seed to seed (Student's t; none with one
seed). Intervals of means and differences of several results are made from those of the parts as if the parts were independent
(the square-and-add method of Newcombe 1998 and Zou and Donner 2008), which is rather too wide than too narrow; differences of
swap accuracies are taken pair by pair.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from divid.evaluation.intervals import Rate, paired_interval


@dataclass(frozen=True)
class Measured:
    """A number with its 95 % interval.

    Args:
        value: The number.
        low: Lower end; not a number where there is no interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    @classmethod
    def of_rate(cls, rate: Mapping[str, Any]) -> Measured:
        """Read a share as `Rate.to_dict` gives it, with `Rate.interval`.

        Args:
            rate: The JSON object.
        """
        read = Rate.from_dict(rate)
        return cls(read.rate, *read.interval)

    @classmethod
    def of_estimate(cls, estimate: Mapping[str, Any]) -> Measured:
        """Read a mean as `Estimate` has it.

        Args:
            estimate: The JSON object.
        """
        return cls(*(_number(estimate[name]) for name in ("mean", "low", "high")))


@dataclass(frozen=True)
class Summary:
    """One number over all seeds.

    Args:
        mean: Over the seeds.
        low: Lower end of the 95 % interval; None without one.
        high: Upper end.
        spread: Standard deviation over the seeds; None with one seed.
        values: The number with each seed.
    """

    mean: float
    low: float | None
    high: float | None
    spread: float | None
    values: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return {**asdict(self), "values": list(self.values)}


def mean_of(parts: Sequence[Measured]) -> Measured:
    """Give the mean of several numbers as one.

    Args:
        parts: At least one.
    """
    count = len(parts)
    mean = math.fsum(part.value for part in parts) / count
    below = math.hypot(*(part.value - part.low for part in parts)) / count
    above = math.hypot(*(part.high - part.value for part in parts)) / count
    return Measured(mean, mean - below, mean + above)


def difference(one: Measured, other: Measured) -> Measured:
    """Give one number minus another.

    Args:
        one: The first.
        other: What is taken from it.
    """
    value = one.value - other.value
    below = math.hypot(one.value - one.low, other.high - other.value)
    above = math.hypot(one.high - one.value, other.value - other.low)
    return Measured(value, value - below, value + above)


def paired_difference(
    one: Bool[np.ndarray, " pairs"], other: Bool[np.ndarray, " pairs"], clips: Int[np.ndarray, "pairs 2"]
) -> Measured:
    """Give the difference of two shares of right answers on the same pairs, with the interval of `paired_interval`.

    Args:
        one: The answers of the first.
        other: Of what is taken from it.
        clips: Numbers of the clips of every pair.
    """
    return Measured(*paired_interval(one, other, clips))


def over_seeds(results: Sequence[Measured], bounds: tuple[float, float] = (-math.inf, math.inf)) -> Summary:
    """Summarise what several seeds gave.

    Args:
        results: One a seed, at least one.
        bounds: Least and highest possible value, where the interval ends.
    """
    values, count = tuple(result.value for result in results), len(results)
    mean = math.fsum(values) / count
    below = math.fsum(result.value - result.low for result in results) / count
    above = math.fsum(result.high - result.value for result in results) / count
    spread, half = None, 0.0
    if count > 1:
        spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
        half = _t_quantile(count - 1) * spread / math.sqrt(count)
    low, high = max(bounds[0], mean - math.hypot(below, half)), min(bounds[1], mean + math.hypot(above, half))
    if math.isnan(below) or math.isnan(above):
        return Summary(mean, None, None, spread, values)
    return Summary(mean, low, high, spread, values)


def _t_quantile(degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.975))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
