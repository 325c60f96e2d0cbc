"""Processes that need not import PyTorch and Lightning once more, which takes longer than most of what tests ask of them.

A server imports both once and forks a process for every command, so that each is as fresh as one that was started anew. The
second process of a training with `--devices 2` is forked too, unless COLD_RANKS is set: then Lightning starts it in its own way.
"""

from __future__ import annotations

import atexit
import faulthandler
import multiprocessing
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import IO

IMPORTED_ONCE = [
    "divid.training.fit", "divid.cli.main", "divid.cli.train", "divid.cli.benchmark", "jsonargparse", "rich.logging",
    "torch.distributed.algorithms.ddp_comm_hooks.default_hooks", "torch.utils.tensorboard", "typeshed_client",
]  # fmt: skip


class ForkedProcess:
    """What `subprocess.Popen` has and `multiprocessing.Process` calls otherwise.

    Args:
        process: It, started.
    """

    def __init__(self, process: BaseProcess) -> None:
        assert process.pid is not None
        self._process, self.pid = process, process.pid

    def poll(self) -> int | None:
        """Give its exit code, or None while it runs."""
        return self._process.exitcode

    @property
    def returncode(self) -> int | None:
        """Its exit code, or None while it runs."""
        return self.poll()

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


class WarmProcess(ForkedProcess):
    """A Python script in a process of its own, used as a `subprocess.Popen` is.

    Args:
        command: Script and words of its command line.
        environment: Its environment.
        stdout: An open file, or `subprocess.PIPE`: what `communicate` gives.
        stderr: The same, or `subprocess.STDOUT`: where the other goes.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        stdout: int | IO[str] = subprocess.PIPE,
        stderr: int | IO[str] = subprocess.PIPE,
    ) -> None:
        folder = Path(tempfile.mkdtemp())
        weakref.finalize(self, shutil.rmtree, folder)
        self._logs = [folder / "stdout", folder / "stderr"]
        for log in self._logs:
            log.touch()
        out = str(self._logs[0]) if isinstance(stdout, int) else stdout.name
        own = out if stderr == subprocess.STDOUT else str(self._logs[1])
        err = own if isinstance(stderr, int) else stderr.name
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(IMPORTED_ONCE)
        process = context.Process(target=_run, args=(list(command), dict(environment), out, err))
        process.start()
        super().__init__(process)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended.

        Args:
            timeout: Seconds, after which `subprocess.TimeoutExpired` is raised.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a warm process", timeout or 0.0)
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait until it has ended, and give what it wrote.

        Args:
            timeout: As for `wait`.
        """
        self.wait(timeout)
        out, err = (log.read_text() for log in self._logs)
        return out, err

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class _Second:
    """The second process of a training, forked while the first is as the server left it; it waits to be told to begin."""

    def __init__(self, out: str, err: str) -> None:
        told, self._tell = multiprocessing.Pipe(duplex=False)
        self._process = multiprocessing.get_context("fork").Process(target=self._wait, args=(told, out, err))
        self._process.start()

    def _wait(self, told: Connection, out: str, err: str) -> None:
        self._tell.close()
        try:
            command, environment = told.recv()
        except EOFError:  # the first has ended and needed no second
            return
        _run(command, environment, out, err)

    def begin(self, command: list[str], env: Mapping[str, str], cwd: None) -> ForkedProcess:
        self._tell.send((command[1:], dict(env)))
        return ForkedProcess(self._process)

    def close(self) -> None:
        self._tell.close()


def _run(command: list[str], environment: dict[str, str], out: str, err: str) -> None:
    import torch
    from pytorch_lightning.strategies.launchers import subprocess_script
    from pytorch_lightning.utilities.rank_zero import rank_zero_only

    os.environ.clear()
    os.environ.update(environment)
    for number, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    faulthandler.enable()  # a process that crashes says where
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    second = None
    if "--devices" in command and "LOCAL_RANK" not in environment and "COLD_RANKS" not in environment:
        second = _Second(out, err)
        subprocess_script.subprocess = SimpleNamespace(Popen=second.begin)  # type: ignore[assignment]
    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    rank_zero_only.rank = int(environment.get("LOCAL_RANK", 0))  # which Lightning sets when it is imported
    sys.argv = command
    sys.path.insert(0, str(Path(command[0]).parent))
    try:
        runpy.run_path(command[0], run_name="__main__")
    finally:
        if second:
            second.close()
        atexit._run_exitfuncs()
