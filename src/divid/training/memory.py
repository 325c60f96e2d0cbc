"""How much memory a training takes, for the log: a run that needs more and more of it would not reach its end."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import torch

MIB = 2**20
_STATM = Path("/proc/self/statm")


def memory_mib(device: torch.device) -> float:
    """Give the memory in use, in MiB: on a GPU the most that PyTorch had allocated there, on a CPU what the process has resident.

    Args:
        device: Where training computes.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    with contextlib.suppress(OSError):
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB
    return highest_resident_mib()  # where the system does not tell what is in use now


def highest_resident_mib() -> float:
    """Give the most memory that this process has had resident since it began, in MiB."""
    import resource  # POSIX only

    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest / MIB if sys.platform == "darwin" else highest / 1024
