"""What the swap test measured, as dataclasses, JSON and lines of text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any

import numpy as np

from divid.evaluation.intervals import Rate


@dataclass(frozen=True)
class Row:
    """What the judge says of one kind of clips.

    Args:
        static: Share whose static factors are all judged to be A's.
        dynamic: Share whose dynamic factors are all judged to be B's.
        joint: Both.
        static_of_b: Share whose static factors are all judged to be B's: appearance that leaked with the motion;
            None where A is B.
        dynamic_of_a: Share whose dynamic factors are all judged to be A's: motion that leaked with the appearance.
    """

    static: Rate
    dynamic: Rate
    joint: Rate
    static_of_b: Rate | None = None
    dynamic_of_a: Rate | None = None


@dataclass(frozen=True)
class FactorResult:
    """How one factor fares in the swaps.

    Args:
        kind: `static` or `dynamic`.
        kept: Share judged to have the class of the clip that gives it.
        other: Share judged to have the class of the other clip.
        classes: `kept` by the class that is wanted; classes that no pair wants are left out.
        confusion: Number of swaps by wanted class (row) and judged one (column).
    """

    kind: str
    kept: Rate
    other: Rate
    classes: Mapping[str, Rate]
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Failure:
    """A swap that the judge did not accept.

    Args:
        appearance: Name of the clip A.
        motion: Name of the clip B.
        judged: The judged class of every factor.
        frames: What was made, uint8 F H W C.
    """

    appearance: str
    motion: str
    judged: Mapping[str, str]
    frames: np.ndarray


@dataclass(frozen=True)
class SwapResult:
    """Everything that the swap test measured.

    Args:
        method: Name of the method.
        data: Names of the data sets.
        num_pairs: Pairs that were swapped.
        num_asked: Pairs that were asked for when the list was drawn.
        num_frames: F.
        pairs_seed: What the pairs were drawn with.
        seed: Pair i was sampled with seed + i.
        sampling: Solver and steps.
        judge: Architecture, data set and accuracy of the judge, and whether it is trusted.
        rows: By name: `swap`, and the controls `real`, `reconstruction`, `copy A`, `copy B`; on demand `swap, reversed`, in
            which B is the clip that gives the appearance; with training clips also `swap, unseen combinations`.
        chance: Shares of right answers by guessing.
        factors: The swaps factor by factor.
        notes: What a reader has to know, such as a judge below its threshold.
        failures: Some swaps that were not accepted.
        outcomes: `static` and `dynamic`, a `1` for every pair that is right in that and a `0` for every other, in the list's
            order: what two methods' swaps of the same pairs are compared by.
    """

    method: str
    data: tuple[str, ...]
    num_pairs: int
    num_asked: int
    num_frames: int
    pairs_seed: int
    seed: int
    sampling: Mapping[str, Any]
    judge: Mapping[str, Any]
    rows: Mapping[str, Row]
    chance: Mapping[str, float]
    factors: Mapping[str, FactorResult]
    notes: tuple[str, ...]
    failures: tuple[Failure, ...]
    outcomes: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON has it: without the frames of the failures, and null for what is not a number."""
        values = {name: value for name, value in vars(self).items() if name != "failures"}
        kept = [{"appearance": f.appearance, "motion": f.motion, "judged": dict(f.judged)} for f in self.failures]
        return {**plain(values), "failures": kept}

    def lines(self) -> list[str]:
        """Give the rows as lines of text, in percent with `Rate.interval`, and the notes."""
        mark = judge_mark(self.judge)
        width, lines = max(map(len, self.rows)) + len(mark), []
        for name, row in ((name + mark, row) for name, row in self.rows.items()):
            cells = "  ".join(f"{label} {_percent(getattr(row, label))}" for label in self.chance)
            lines.append(f"{name:<{width}}  {cells}  N {row.joint.num}")
        guesses = "  ".join(f"{label} {100 * share:5.1f}{'':15}" for label, share in self.chance.items())
        return [*lines, f"{'chance':<{width}}  {guesses}".rstrip(), *self.notes]


def judge_mark(judge: Mapping[str, Any]) -> str:
    """Give what stands behind the name of a row that a judge has judged: a dagger where it is not to be trusted.

    Args:
        judge: As results describe it.
    """
    return "" if judge["is_trusted"] else " †"


def plain(value: Any) -> Any:
    """Turn results into what JSON has: what can give itself so does, other dataclasses become objects.

    Args:
        value: A dataclass, a container of such, or a plain value.
    """
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if is_dataclass(value):
        return plain(vars(value))
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _percent(rate: Rate) -> str:
    low, high = rate.interval
    return f"{100 * rate.rate:5.1f} [{100 * low:5.1f}, {100 * high:5.1f}]"
