"""Memory that is freed stays with the process, but where the user has said otherwise."""

import ctypes
import platform
import resource

import pytest

from divid import allocator

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
PAGE_BYTES = 4096


def faults_of_filling(size: int) -> int:
    """Count the page faults of allocating, filling and freeing memory, once it has been done before."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    counts = []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(size)))
        ctypes.memset(block, 1, size)
        libc.free(block)
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return counts[1]


@needs_glibc
def test_freed_memory_is_used_again_without_page_faults(monkeypatch):
    for name in allocator.USERS_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    size = 48 * 2**20  # glibc maps memory above 32 MiB anew unless told otherwise
    assert allocator.keep_freed_memory()
    assert faults_of_filling(size) < size / PAGE_BYTES / 20


@needs_glibc
@pytest.mark.parametrize("name", allocator.USERS_SETTINGS)
def test_users_own_setting_is_left_alone(monkeypatch, name):
    monkeypatch.setenv(name, "131072")
    monkeypatch.setattr(allocator.ctypes, "CDLL", None)
    assert not allocator.keep_freed_memory()


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(allocator.ctypes, "CDLL", None)
    assert not allocator.keep_freed_memory()
