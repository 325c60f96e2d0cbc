"""Processes that need not import PyTorch and Lightning once more, which takes longer than most of what tests ask of them.

A server imports both once and forks a process for every command, so that each is as fresh as one that was started anew. The other
processes of a training on several devices come from it, too, unless COLD_RANKS is set: then Lightning starts them in its own way.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import multiprocessing
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO

IMPORTED_ONCE = [
    "divid.training.fit", "divid.cli.main", "divid.cli.train", "divid.cli.benchmark", "jsonargparse", "rich.logging",
    "torch.distributed.algorithms.ddp_comm_hooks.default_hooks", "torch.utils.tensorboard", "typeshed_client",
]  # fmt: skip


class WarmProcess:
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
        self._process = context.Process(target=_run, args=(list(command), dict(environment), out, err))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Give its exit code, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended.

        Args:
            timeout: Seconds, after which `subprocess.TimeoutExpired` is raised.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a warm process", timeout or 0.0)
        return self._process.exitcode

    @property
    def returncode(self) -> int | None:
        """Its exit code, or None while it runs."""
        return self.poll()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait until it has ended, and give what it wrote.

        Args:
            timeout: As for `wait`.
        """
        self.wait(timeout)
        out, err = (log.read_text() for log in self._logs)
        return out, err

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class _Second:
    """The second process of a training, forked while the first is as the server left it; it waits to be told to begin."""

    def __init__(self, out: str, err: str) -> None:
        reading, self._writing = os.pipe()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._writing)
            told = b"".join(iter(lambda: os.read(reading, 65536), b""))
            code = 0
            try:
                if told:
                    command, environment = json.loads(told)
                    _run(command, environment, out, err)
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
            except BaseException:
                traceback.print_exc()
                code = 1
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        os.close(reading)

    def begin(self, command: list[str], env: Mapping[str, str], cwd: None) -> _Second:
        os.write(self._writing, json.dumps([command[1:], dict(env)]).encode())
        os.close(self._writing)
        return self

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


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
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(line_buffering=True)
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
        atexit._run_exitfuncs()
