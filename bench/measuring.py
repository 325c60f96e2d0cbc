"""Time, operations and memory of a function, and the machine's own limits to hold them against."""

from __future__ import annotations

import contextlib
import gc
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import divid
from divid.training.memory import MIB, highest_resident_mib

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_RESET_PEAK = "5"
"""What Linux takes as the order to forget a process's highest resident memory so far."""


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Args:
        seconds: Time for one figure, warm-up not counted; the fewest runs are made even if they take longer.
        min_runs: Fewest runs.
        max_runs: Most runs.
        num_warmups: Runs before the first one that counts.
    """

    seconds: float = 3.0
    min_runs: int = 3
    max_runs: int = 50
    num_warmups: int = 1


@dataclass(frozen=True)
class Measured:
    """What some runs of a function took.

    Args:
        seconds: Median time of a run.
        fastest: Shortest time.
        slowest: Longest time.
        num_runs: Number of runs.
        peak_memory_mib: Highest memory over the runs: allocated on a GPU, else resident in this process, PyTorch itself included.
    """

    seconds: float
    fastest: float
    slowest: float
    num_runs: int
    peak_memory_mib: float


def measure(function: Callable[[], Any], device: str, effort: Effort) -> Measured:
    """Run a function several times and watch it.

    Args:
        function: What is measured.
        device: `cpu` or `cuda`; work on a GPU is waited for.
        effort: How often it runs.
    """
    for _ in range(effort.num_warmups):
        function()
    gc.collect()
    synchronise(device)
    forget_peak_memory(device)
    times: list[float] = []
    while len(times) < effort.min_runs or (sum(times) < effort.seconds and len(times) < effort.max_runs):
        start = time.perf_counter()
        function()
        synchronise(device)
        times.append(time.perf_counter() - start)
    return Measured(statistics.median(times), min(times), max(times), len(times), peak_memory_mib(device))


def synchronise(device: str) -> None:
    """Wait until a GPU has finished all that it was given.

    Args:
        device: `cpu` or `cuda`.
    """
    if device == "cuda":
        torch.cuda.synchronize()


def forget_peak_memory(device: str) -> None:
    """Start anew with the highest memory (where the system lets a process do so; else it counts from the process's start).

    Args:
        device: `cpu` or `cuda`.
    """
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return
    with contextlib.suppress(OSError):
        _CLEAR.write_text(_RESET_PEAK)


def peak_memory_mib(device: str) -> float:
    """Give the highest memory since `forget_peak_memory`.

    Args:
        device: `cuda` for what was allocated there, `cpu` for this process's resident memory.
    """
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / MIB
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return highest_resident_mib()


def child_environment() -> dict[str, str]:
    """Give the environment in which another Python finds this package and divid, wherever it is started."""
    places = [Path(__file__).parents[1], Path(divid.__file__).parents[1], os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(str(place) for place in places if str(place))}


@contextlib.contextmanager
def matmul_precision(device: str, value: str) -> Iterator[None]:
    """Set how float32 products are computed on a GPU for the length of a `with` block.

    Args:
        device: `cpu` or `cuda`; on a CPU nothing is set.
        value: `high` (TF32, as training sets it) or `highest` (PyTorch's default).
    """
    before = torch.get_float32_matmul_precision()
    if device == "cuda":
        torch.set_float32_matmul_precision(value)
    try:
        yield
    finally:
        if device == "cuda":
            torch.set_float32_matmul_precision(before)


class Peaks:
    """What this machine can do at most: measured once for each precision, with this process's threads.

    Args:
        device: `cpu` or `cuda`.
        effort: How often each is run.
        side: Rows and columns of the matrices.
        copy_mib: Size of what is copied.
    """

    def __init__(self, device: str, effort: Effort, side: int, copy_mib: int) -> None:
        self.device, self.effort, self.side, self.copy_mib = device, effort, side, copy_mib
        self._flops: dict[str, float] = {}
        self._bytes: dict[str, float] = {}

    def flops_per_second(self, precision: str) -> float:
        """Give the rate of a large product of random matrices, at its fastest; float32 on a GPU with TF32.

        Args:
            precision: `fp32` or `bf16`.
        """
        if precision not in self._flops:
            a, b = (torch.randn(self.side, self.side, device=self.device).to(_dtype(precision)) for _ in range(2))
            out = torch.empty_like(a)
            with matmul_precision(self.device, "high"):
                fastest = measure(lambda: torch.mm(a, b, out=out), self.device, self.effort).fastest
            self._flops[precision] = 2 * self.side**3 / fastest
        return self._flops[precision]

    def bytes_per_second(self, precision: str) -> float:
        """Give the rate of a large copy, at its fastest, counting bytes read and bytes written.

        Args:
            precision: `fp32` or `bf16`: what is copied.
        """
        if precision not in self._bytes:
            dtype = _dtype(precision)
            source = torch.randn(self.copy_mib * MIB // dtype.itemsize, device=self.device, dtype=dtype)
            target = torch.empty_like(source)
            fastest = measure(lambda: target.copy_(source), self.device, self.effort).fastest
            self._bytes[precision] = 2 * self.copy_mib * MIB / fastest
        return self._bytes[precision]

    def to_dict(self) -> dict[str, Any]:
        """Give all that was measured, for the report."""
        return {
            "matrix_side": self.side,
            "copy_mib": self.copy_mib,
            "flops_per_second": dict(self._flops),
            "bytes_per_second": dict(self._bytes),
        }


def _dtype(precision: str) -> torch.dtype:
    return torch.bfloat16 if precision == "bf16" else torch.float32
