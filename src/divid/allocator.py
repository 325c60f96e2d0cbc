"""How the C library's allocator treats the memory that networks on a processor free."""

from __future__ import annotations

import ctypes
import os
import platform

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
KEPT_BYTES = 2**30
"""Feature maps up to this size, and as much freed memory in all, stay with the process."""
USERS_SETTINGS = ("GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


def keep_freed_memory() -> bool:
    """Let freed feature maps be used again, and not go back to the kernel one by one.

    By default every large tensor is mapped anew, and each of its pages faults and is cleared at the first write: 5 to 20 % of
    a pass on a CPU. No result changes; up to `KEPT_BYTES` stay with the process until it ends. Asked twice, it does no more.

    Returns:
        Whether it was done. Not with another C library than glibc, nor where the user has set the allocator (`USERS_SETTINGS`).
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in USERS_SETTINGS):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(option, KEPT_BYTES) == 1 for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD))
