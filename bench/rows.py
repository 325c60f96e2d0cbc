"""A figure and its reference."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        part: Part of the bench.
        name: What was measured.
        unit: What `seconds`, `flops` and `bytes_moved` are told by.
        seconds: Median.
        fastest: Shortest.
        slowest: Longest.
        num_runs: Runs that were timed; 0: computed from others, as the note says.
        precision: `fp32` or `bf16`.
        reference: Name of the row of the same part that it is held against; empty: it is a reference.
        ratio: Seconds of the reference over seconds.
        flops: Counted floating point operations.
        bytes_moved: Bytes to be read and written, where nothing is computed.
        peak_share: Operations (or bytes) a second over those of the machine's large matrix product (or copy).
        peak_memory_mib: Highest memory meanwhile: allocated on a GPU, else resident in the process.
        note: Anything else, such as that the figure is extrapolated.
    """

    part: str
    name: str
    unit: str
    seconds: float
    fastest: float
    slowest: float
    num_runs: int
    precision: str
    reference: str
    ratio: float
    flops: float | None
    bytes_moved: float | None
    peak_share: float | None
    peak_memory_mib: float | None
    note: str = ""


@dataclass(frozen=True)
class Failure:
    """A part that could not be measured, or not to its end.

    Args:
        part: Which one.
        reason: Why, in one line.
    """

    part: str
    reason: str
