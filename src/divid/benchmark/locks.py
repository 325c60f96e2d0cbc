"""Locks between processes, on one machine or on several that share a folder.

A lock is a file that only one process can make. Its holder touches it every few seconds; a lock whose holder is known to have
ended, or that nobody has touched for long, is stale, and exactly one of those who find it so takes it over. Ages are read off the
clock of the folder's own disk, so the machines' clocks may differ.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from divid.outputs import write_failure

logger = logging.getLogger("divid")

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 120.0
"""A lock that has not been touched for so long belongs to nobody any more."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock.

    Args:
        host: The machine, and on it the space in which process numbers count.
        pid: The process.
        token: Name of this one holding.
    """

    host: str
    pid: int
    token: str

    @classmethod
    def new(cls) -> Holder:
        """Give a holding of this process."""
        return cls(this_host(), os.getpid(), uuid.uuid4().hex)

    @classmethod
    def read(cls, path: Path) -> Holder | None:
        """Give the holder of a lock; None where there is none, or its file is not whole.

        Args:
            path: The lock.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(str(values["host"]), int(values["pid"]), str(values["token"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def __str__(self) -> str:
        """For messages."""
        return f"process {self.pid} on {self.host.partition('/')[0]}"


class FileLock:
    """A lock that this process holds; made by `try_lock`, released at the end of a `with` block.

    Args:
        path: The file.
        holder: This holding.
    """

    def __init__(self, path: Path, holder: Holder) -> None:
        self.path, self.holder = path, holder
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, name=f"lock {path.name}", daemon=True)
        self._heart.start()

    @property
    def is_held(self) -> bool:
        """Whether it is still ours: a process that was suspended for long may have lost it."""
        return Holder.read(self.path) == self.holder

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()

    def release(self) -> None:
        """Give the lock back."""
        self._ended.set()
        self._heart.join()
        if self.is_held:
            self.path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            if self.is_held:
                with contextlib.suppress(OSError):
                    os.utime(self.path)


def try_lock(path: Path, what: str = "") -> FileLock | None:
    """Take a lock if nobody holds it, or its holder is gone.

    Args:
        path: The lock's file; its folder is made if missing.
        what: What it guards, for messages; left out, the folder's name.

    Returns:
        The lock, or None if somebody holds it.

    Raises:
        OutputError: It cannot be written.
    """
    mine = Holder.new()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if _make(path, mine):
            return FileLock(path, mine)
        before = Holder.read(path)
        if is_stale(path) and _take_over(path, before, mine):
            logger.warning("%s: taken over from %s, which is gone", what or path.parent.name, before or "an unknown process")
            return FileLock(path, mine)
    except OSError as error:
        raise write_failure(path, error) from error
    return None


def is_stale(path: Path) -> bool:
    """Tell whether a lock's holder is gone: its process has ended, or it has not touched the lock for long.

    Args:
        path: The lock; one that is not there is not stale.
    """
    holder = Holder.read(path)
    if holder is not None and holder.host == this_host() and not _is_running(holder.pid):
        return path.exists()
    try:
        return folder_time(path.parent) - path.stat().st_mtime > STALE_SECONDS
    except FileNotFoundError:
        return False


def folder_time(folder: Path) -> float:
    """Give the time by the clock of the disk that a folder is on.

    Args:
        folder: Writable.
    """
    probe = folder / f".clock-{uuid.uuid4().hex}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def this_host() -> str:
    """Give the machine's name, and the space in which its process numbers count (containers have their own)."""
    try:
        return f"{socket.gethostname()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _make(path: Path, holder: Holder) -> bool:
    """Make a lock, whole from the first moment on; False if there is one."""
    with _written(path, holder) as whole:
        try:
            os.link(whole, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            return _make_exclusively(path, holder)
    return True


def _make_exclusively(path: Path, holder: Holder) -> bool:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(json.dumps(asdict(holder)))
    except FileExistsError:
        return False
    return True


def _take_over(path: Path, before: Holder | None, mine: Holder) -> bool:
    """Replace a stale lock; of several who try, the one that first makes a claim named after the old holding does."""
    claim = path.with_name(f".{path.name}.claim-{before.token if before else 'unknown'}")
    if not _make(claim, mine):
        if is_stale(claim):
            claim.unlink(missing_ok=True)  # whoever made it ended before it was done
        return False
    try:
        if Holder.read(path) != before or not is_stale(path):
            return False
        with _written(path, mine) as whole:
            os.replace(whole, path)
        return True
    finally:
        claim.unlink(missing_ok=True)


@contextlib.contextmanager
def _written(path: Path, holder: Holder) -> Iterator[Path]:
    whole = path.with_name(f".{path.name}.{holder.token}")
    try:
        whole.write_text(json.dumps(asdict(holder)) + "\n", encoding="utf-8")
        yield whole
    finally:
        whole.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs, as somebody else's
        return True
    return True
